"""What a user asks to verify: MODULE:NAME, and what to do when it cannot be used."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.errors import UsageError
from conformance.settings import Settings
from conformance.sources import Sample, Skipped, load
from conformance.sources import user as user_source

pytest.importorskip("torch")

MODULE = """
import torch

def product(x, y):
    return (x * y).sin().sum()

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return a**3
    @staticmethod
    def backward(ctx, g):
        return 3 * g * ctx.saved_tensors[0] ** 2

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(5, 2).double()
    def forward(self, x):
        return Cube.apply(self.layer(x))

net = Net()
number = 3

def factory():
    return net, (torch.ones(1, 5, dtype=torch.float64),), {}

def half_a_factory():
    return net, 3

def picky(x):
    return x[int(x)]

def hopeless(size, name, other):
    raise RuntimeError("never")

def outside():
    e = torch.ones(2, requires_grad=True) * 2
    return lambda x: x * e, (torch.ones(2, requires_grad=True),)
"""


@pytest.fixture
def module(tmp_path: Path) -> str:
    path = tmp_path / "user_module.py"
    path.write_text(MODULE)
    return str(path)


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("product", ["product", "torch.mul", "torch.sin", "torch.sum"]),
        ("Cube", ["Cube"]),
        ("Net", ["Net", "torch.nn.functional.linear", "user_module.Cube"]),
        ("net", ["net", "torch.nn.functional.linear", "user_module.Cube"]),
        ("factory", ["factory", "torch.nn.functional.linear", "user_module.Cube"]),
    ],
)
def test_what_can_be_verified(module: str, name: str, ops: list[str]) -> None:
    source = load(f"user:{module}:{name}")
    (item,) = source.items(Settings())
    samples = list(source.samples(item, Settings()))
    assert [s.op for s in samples] == ops
    assert all(isinstance(s, Sample) for s in samples)


def test_made_up_arguments_are_said(module: str) -> None:
    subject = user_source.load(f"{module}:product")
    assert subject.chosen == "arguments made up: x, y = randn[3, 4]"
    assert user_source.load(f"{module}:factory").chosen == ""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("number", "cannot be called"),
        ("Factory", "did you mean factory"),
        ("half_a_factory", r"it should return \(callable, args\)"),
        ("picky", "give a factory"),
        ("hopeless", "never.*give a factory"),
    ],
)
def test_what_cannot_says_what_to_do(module: str, name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load(f"user:{module}:{name}").items(Settings())


@pytest.mark.parametrize("spec", ["nothing", ":name", "module:"])
def test_a_spec_has_two_parts(spec: str) -> None:
    with pytest.raises(UsageError, match="MODULE:NAME"):
        user_source.load(spec)


def test_a_module_that_does_not_import(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="importing no_such_module failed"):
        user_source.load("no_such_module:f")
    (tmp_path / "broken.py").write_text("1/0")
    with pytest.raises(UsageError, match="ZeroDivisionError"):
        user_source.load(f"{tmp_path}/broken.py:f")


def test_what_cannot_be_captured_is_an_error_not_unsupported(module: str) -> None:
    source = load(f"user:{module}:outside")
    (item,) = source.items(Settings())
    (found,) = source.samples(item, Settings())
    assert isinstance(found, Skipped)
    assert found.outcome == "errored"
    assert "grad_fn" in found.reason
