"""refgrad: PyTorch's autograd in plain NumPy."""

from __future__ import annotations

from refgrad import ops as ops
from refgrad.ops.pointwise import *
from refgrad.ops.reductions import *
from refgrad.ops.shaping import *
from refgrad import autograd as autograd
