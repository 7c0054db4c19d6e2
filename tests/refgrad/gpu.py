"""Whether CuPy works here: what tests that need a GPU are skipped by, with the reason."""

from __future__ import annotations

import pytest

from refgrad import libraries


def _missing() -> str | None:
    try:
        libraries.cuda()
    except RuntimeError as error:
        return str(error)
    libraries.Loaded.cuda = None  # the tests of the CPU run without it
    return None


MISSING = _missing()
NEEDS_GPU = pytest.mark.skipif(MISSING is not None, reason=f"needs CuPy and a GPU: {MISSING}")
