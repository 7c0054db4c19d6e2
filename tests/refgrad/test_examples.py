"""The examples print under refgrad what they print under PyTorch, character by character."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
UNDER_TORCH = (
    "import runpy, sys, torch; sys.modules['refgrad'] = torch; runpy.run_path(sys.argv[1])"
)
EXPECTED = {
    "product.py": "Gradient df/dx: tensor([12.])\nGradient df/dy: tensor([8.])\n"
    "Gradient df/dz: tensor([6.])\n",
    "chain.py": "tensor(4.)\n",
}


def printed(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize("name", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_prints_what_torch_prints(name: str) -> None:
    path = str(EXAMPLES / name)
    under_refgrad = printed(path)
    assert under_refgrad == printed("-c", UNDER_TORCH, path)
    assert under_refgrad == EXPECTED.get(name, under_refgrad)


def test_the_seeds_are_there() -> None:
    assert set(EXPECTED) <= {p.name for p in EXAMPLES.glob("*.py")}
