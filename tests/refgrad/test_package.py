"""refgrad as a package: it stands alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import refgrad

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "hypothesis", "conformance", "transformers"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import refgrad as torch
x = torch.tensor([1.0, 2.0], requires_grad=True)
torch.nn.functional.softmax(x, dim=0)[0].backward()
names = sorted(n for n in sys.modules if n.partition(".")[0] in ("torch", "conformance"))
print(x.grad.shape, names)
"""


def test_runs_where_torch_cannot_be_imported() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch.Size([2]) []"


def test_imports_numpy_and_scipy_alone() -> None:
    for path in Path(refgrad.__file__).parent.rglob("*.py"):
        allowed = set(sys.stdlib_module_names) | {"numpy", "scipy", "refgrad"}
        if path.name == "libraries.py":  # within a function, for device="cuda"
            allowed |= {"cupy", "cupyx"}
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{path} imports {name}"
