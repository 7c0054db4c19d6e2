"""PyTorch's samples: `op_db`, and how to have it without expecttest.

torch's module of samples imports expecttest for the base class of its own tests, which nothing
here uses; where it is not installed, as on a borrowed GPU machine, a class of its name will do.
"""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest

if importlib.util.find_spec("expecttest") is None:
    _stub = types.ModuleType("expecttest")
    _stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
    _stub.ACCEPT = False  # type: ignore[attr-defined]
    sys.modules["expecttest"] = _stub

from torch.testing._internal.common_methods_invocations import op_db

__all__ = ["op_db"]
