"""Matrix products and factorisations."""

from __future__ import annotations

import numpy as np

from refgrad.ops.op import binary

matmul = binary("matmul", np.matmul)
