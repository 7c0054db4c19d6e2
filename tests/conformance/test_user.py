"""What a user asks to verify: MODULE:NAME, and what to do when it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance import checks
from conformance.engines.torch import TorchEngine
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
cube = Cube.apply
number = 3

def factory():
    return net, (torch.ones(1, 5, dtype=torch.float64),), {}

def half_a_factory():
    return net, 3

def picky(x):
    return x[int(x)]

def hopeless(size, name, other):
    raise RuntimeError("never")

class Draws(Cube):
    @staticmethod
    def forward(ctx, a):
        mask = torch.rand_like(a)
        ctx.save_for_backward(mask)
        return a * mask
    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0]

class Edge(torch.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.save_for_backward(a)
        return torch.where(a.abs() > 4, 8 * a.abs() - 16, a * a)
    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]

def three(x):
    assert len(x) == 3
    return x.sin()

def no_zeros(x):
    if not x.all():
        raise ValueError("a zero")
    return x.log()

def leaves_torch(x):
    return x * float(x.detach().mean())

class Held:
    weight = torch.ones(2, requires_grad=True)

def hidden():
    held = [Held]
    return lambda x: Draws.apply(x) * held[0].weight, (torch.ones(2, requires_grad=True),)

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
        ("cube", ["cube"]),
        ("Net", ["Net", "torch.nn.functional.linear", "user_module.Cube"]),
        ("net", ["net", "torch.nn.functional.linear", "user_module.Cube"]),
        ("factory", ["factory", "torch.nn.functional.linear", "user_module.Cube"]),
    ],
)
def test_what_can_be_verified(module: str, name: str, ops: list[str]) -> None:
    source = load(f"user:{module}:{name}")
    (item,) = source.items(Settings())
    samples = list(source.samples(item, Settings()))
    further = 0 if name == "factory" else Settings().draws - 1
    assert [s.op for s in samples] == ops + [ops[0]] * further
    assert all(isinstance(s, Sample) for s in samples)
    assert len({s.label for s in samples}) == len(samples)


def test_further_sets_reach_what_the_first_does_not(module: str) -> None:
    settings = Settings(sources=(f"user:{module}:Edge",), checks=("numerical",))
    context = checks.context_for(settings, TorchEngine(), TorchEngine())
    source = load(f"user:{module}:Edge")
    (item,) = source.items(settings)
    found = {
        sample.label.rpartition(" ")[2]: result.outcome
        for sample in source.samples(item, settings)
        if isinstance(sample, Sample)
        for result in checks.check_sample(sample, context, "user")
    }
    assert len(found) == 8
    assert found["0"] == "passed"
    assert "failed" in found.values()


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("product", "n, k"), ("Net", "n, 5"), ("three", "3, 4"), ("factory", None)],
)
def test_sizes_of_what_is_made_up(module: str, name: str, sizes: str | None) -> None:
    kind = "float64" if name != "factory" else ""
    subject = user_source.load(f"{module}:{name}")
    assert set(subject.specs) == ({f"{kind}[{sizes}]"} if sizes else set())


def test_a_set_of_ours_that_is_refused_is_left_out(module: str) -> None:
    source = load(f"user:{module}:no_zeros")
    (item,) = source.items(Settings())
    samples = list(source.samples(item, Settings()))
    left = [s for s in samples if isinstance(s, Skipped)]
    assert left
    assert {s.reason for s in left} == {
        "arguments made up that it does not take: ValueError: a zero"
    }
    assert {s.outcome for s in left} == {"unsupported"}
    described = Settings(inputs=("float64[3]",))
    left = [s for s in source.samples(item, described) if isinstance(s, Skipped)]
    assert {s.outcome for s in left} == {"errored"}


def test_a_module_s_parameters_are_those_of_the_seed(module: str) -> None:
    import torch

    before = torch.random.get_rng_state()
    weights = [user_source.load(f"{module}:Net", seed=seed).fn.layer.weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_made_up_arguments_are_said(module: str) -> None:
    subject = user_source.load(f"{module}:product")
    assert subject.chosen == "arguments made up: x, y = randn[3, 4]"
    assert user_source.load(f"{module}:factory").chosen == ""


def test_the_script_calls_the_user_s_own_function(tmp_path: Path, module: str) -> None:
    (item,) = (source := load(f"user:{module}:net")).items(Settings())
    sample = next(iter(source.samples(item, Settings())))
    assert isinstance(sample, Sample)
    script = tmp_path / "script.py"
    script.write_text(sample.program.script(sample.values))
    assert "user_module.Cube.apply(" in script.read_text()
    run = [sys.executable, str(script)]
    assert subprocess.run(run, check=True, capture_output=True).stdout.count(b"gradient") == 3


def test_the_script_names_what_it_cannot_import() -> None:
    import torch

    class Local(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * 2

    from conformance.sources.captured import capture

    made = capture(Local.apply, (torch.ones(2, requires_grad=True),))
    script = made.program.script(made.values)
    assert "# put your own callable" in script
    assert ".apply(" not in script


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


def test_a_leaf_out_of_reach_is_an_error_not_unsupported(module: str) -> None:
    source = load(f"user:{module}:hidden")
    (item,) = source.items(Settings())
    (found,) = source.samples(item, Settings())
    assert isinstance(found, Skipped)
    assert found.outcome == "errored"
    assert "stand where they cannot be replaced" in found.reason


@pytest.mark.parametrize("name", ["Draws", "leaves_torch", "outside"])
def test_what_cannot_be_captured_is_judged_as_a_black_box(module: str, name: str) -> None:
    inputs = () if name == "outside" else ("float64[3] in (-2, 0)",)
    settings = Settings(inputs=inputs, draws=2)
    source = load(f"user:{module}:{name}")
    (item,) = source.items(settings)
    found = list(source.samples(item, settings))
    sets = [f.label.rpartition(", ")[2] for f in found]
    assert sets == (["set 0", "set 1"] if inputs else [f"{module}:outside"])
    for sample in found:
        assert isinstance(sample, Sample)
        assert [call.target for call in sample.program.calls] == [
            "opaque:function" if name == "outside" else f"opaque:{name}"
        ]
        assert "judged as a black box" in sample.note


def test_the_rules_for_functions_of_the_users_hold_where_torch_runs_them(module: str) -> None:
    from conformance import checks

    source = load(f"user:{module}:factory")
    (item,) = source.items(Settings())
    sample = next(iter(source.samples(item, Settings())))
    assert isinstance(sample, Sample)
    for engine, users in (("torch", True), ("refgrad", False)):
        context = checks.context_for(Settings(engine=engine, standalone=0))
        assert context.case(sample, item.source).users is users
        assert not context.case(sample, "opinfo").users


def test_what_runs_elsewhere_says_which_device_to_name(module: str) -> None:
    source = load(f"user:{module}:factory")
    settings = Settings(place="cuda")
    (item,) = source.items(settings)
    (found,) = source.samples(item, settings)
    assert isinstance(found, Skipped)
    assert (found.outcome, found.reason) == ("errored", "it runs on cpu: add --device cpu")
