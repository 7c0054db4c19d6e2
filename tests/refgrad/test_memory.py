"""The memory of large arrays: what is freed is used again; a graph is freed as it is walked."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PAGES = """
import resource
import numpy as np
{first}
def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        arrays = [np.ones(900_000, dtype=np.float32) for _ in range(8)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
pages()
print(pages())
"""


def pages_made(first: str) -> int:
    """How many pages the system made for 80 arrays of 3.6 MB, after as many others were freed."""
    run = [sys.executable, "-c", PAGES.format(first=first)]
    return int(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc than glibc's")
def test_freed_memory_is_kept() -> None:
    plain, kept = pages_made(""), pages_made("import refgrad")
    assert kept < 1000 < plain
