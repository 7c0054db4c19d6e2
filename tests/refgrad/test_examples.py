"""The examples do under refgrad what they do under PyTorch, with only their imports changed.

All run in two processes, one an engine. What they print is equal character by character; those that
train keep a `trajectory`, equal to 1e-9 after a hundred steps and more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(p.name for p in EXAMPLES.glob("*.py"))
EXPECTED = {
    "product.py": "Gradient df/dx: tensor([12.])\nGradient df/dy: tensor([8.])\n"
    "Gradient df/dz: tensor([6.])\n",
    "chain.py": "tensor(4.)\n",
}

# Runs the scripts named, and writes what they printed and their trajectories as JSON.
RUNNER = """
import contextlib, io, json, runpy, sys
if sys.argv[1] == "torch":
    import torch
    torch.set_num_threads(1)
    for name in [n for n in sys.modules if n == "torch" or n.startswith("torch.")]:
        sys.modules["refgrad" + name[len("torch"):]] = sys.modules[name]
import refgrad
found = {}
for path in sys.argv[2:]:
    refgrad.set_default_dtype(refgrad.float32)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        names = runpy.run_path(path)
    found[path] = [printed.getvalue(), names.get("trajectory", [])]
assert ("torch" in sys.modules) == (sys.argv[1] == "torch")
json.dump(found, sys.stdout)
"""


def outcomes(engine: str) -> dict[str, Any]:
    """What each example printed, and its trajectory, by file name."""
    paths = [str(EXAMPLES / name) for name in NAMES]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, engine, *paths],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return {Path(path).name: outcome for path, outcome in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def runs() -> tuple[dict[str, Any], dict[str, Any]]:
    return outcomes("refgrad"), outcomes("torch")


@pytest.mark.parametrize("name", NAMES)
def test_prints_what_torch_prints(name: str, runs: tuple[Any, Any]) -> None:
    ours, theirs = (run[name][0] for run in runs)
    assert ours == theirs
    assert ours == EXPECTED.get(name, ours)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in EXPECTED])
def test_goes_the_way_that_torch_goes(name: str, runs: tuple[Any, Any]) -> None:
    ours, theirs = (np.array(run[name][1]) for run in runs)
    assert theirs.shape[0] >= 100
    assert np.ptp(theirs) > 0.01
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_the_seeds_and_the_scripts_are_there() -> None:
    assert set(EXPECTED) <= set(NAMES)
    assert len(NAMES) >= len(EXPECTED) + 8
