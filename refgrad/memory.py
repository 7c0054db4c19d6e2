"""Memory: that of large arrays, freed, is kept for the next ones.

A backward pass makes and drops large arrays all the time. The C library's malloc takes such from
the system one by one and gives them back, so that every page of each is made anew, which takes
longer than the arithmetic: layer norm and its gradient on 1e6 floats waited for 1,500 pages and
3.5 ms, of 10. glibc's malloc learns: once it has seen a large array freed, it serves arrays up to
that size from its heap, and keeps up to twice as much. With the largest size that it heeds, no
page is made.
"""

from __future__ import annotations

import numpy as np

_HEEDED = 1 << 25  # bytes, less what malloc adds: glibc's DEFAULT_MMAP_THRESHOLD_MAX


def keep() -> None:
    """Let malloc keep up to 64 MiB of freed memory; elsewhere than on glibc it does nothing.

    The array is never written to, so that it takes an address range and no memory.
    """
    np.empty(_HEEDED - (1 << 16), dtype=np.uint8)
