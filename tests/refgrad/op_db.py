"""PyTorch's samples: `op_db`, and how to have it without expecttest, and soon.

torch's module of samples imports expecttest for the base class of its own tests, which nothing
here uses; where it is not installed, as on a borrowed GPU machine, a class of its name will do.

Before each sample it seeds every accelerator, which where there is none queues a stack trace, and
it looks for the test of unittest through all frames: under pytest 25 ms. Here it seeds the CPU.
"""

from __future__ import annotations

import importlib.util
import random
import sys
import types
import unittest

if importlib.util.find_spec("expecttest") is None:
    _stub = types.ModuleType("expecttest")
    _stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    _stub.ACCEPT = False  # type: ignore[attr-defined]
    sys.modules["expecttest"] = _stub

import numpy as np
import torch
from torch.testing._internal import common_utils
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo import core


def _seed(seed: int | None = None) -> None:
    seed = common_utils.SEED if seed is None else seed
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


common_utils.set_rng_seed = _seed
common_utils.extract_test_fn = core.extract_test_fn = lambda: None

__all__ = ["op_db"]
