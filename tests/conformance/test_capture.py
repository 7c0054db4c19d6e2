"""Capture: what is recorded, under which name, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conformance.engines.torch import TorchEngine
from conformance.errors import CaptureError
from conformance.program import Program
from conformance.sources.alone import calls_alone

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

from conformance.sources.captured import capture, cotangents_for  # noqa: E402


def leaf(*shape: int) -> Any:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def lines(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> list[str]:
    """The calls of a captured function, printed."""
    program = capture(fn, args, kwargs).program
    return [line for line in str(program).splitlines() if line.startswith("v")]


@pytest.mark.parametrize(
    ("fn", "line"),
    [
        (lambda x: 2 * x, "torch.mul(x0, 2)"),
        (lambda x: x.mul(2), "torch.mul(x0, 2)"),
        (lambda x: torch.multiply(x, 2), "torch.mul(x0, 2)"),
        (lambda x: 1.5 - x, "torch.rsub(x0, 1.5)"),
        (lambda x: 2 / x, "torch.Tensor.__rtruediv__(x0, 2)"),
        (lambda x: 2**x, "torch.pow(2, x0)"),
        (lambda x: x**2, "torch.pow(x0, 2)"),
        (lambda x: -x, "torch.neg(x0)"),
        (lambda x: abs(x), "torch.abs(x0)"),
        (lambda x: x.T, "torch.Tensor.T.__get__(x0)"),
        (lambda x: x.real.clone(), "torch.clone(x0)"),
        (lambda x: x.data, "torch.detach(x0)"),
        (lambda x: x[..., 1:], "torch.Tensor.__getitem__(x0, (..., slice(1, None, None)))"),
        (lambda x: x[None, -1], "torch.Tensor.__getitem__(x0, (None, -1))"),
        (lambda x: x.reshape(3, 2), "torch.reshape(x0, (3, 2))"),
        (lambda x: x.reshape(-1), "torch.reshape(x0, (-1,))"),
        (lambda x: x.permute(1, 0), "torch.permute(x0, (1, 0))"),
        (lambda x: x.view(3, 2), "torch.Tensor.view(x0, 3, 2)"),
        (lambda x: x.sum(0), "torch.sum(x0, 0)"),
        (lambda x: x.to(torch.float32), "torch.Tensor.to(x0, torch.float32)"),
        (lambda x: F.softmax(x, -1), "torch.nn.functional.softmax(x0, dim=-1)"),
        (lambda x: F.relu(x), "torch.nn.functional.relu(x0)"),
        (lambda x: F.max_pool1d(x, 2), "torch.nn.functional.max_pool1d(x0, 2)"),
        (lambda x: torch.lu(x[:, :2])[0], "torch.lu(v0)"),
        (lambda x: F.conv1d(x[None], x[None]), "torch.nn.functional.conv1d(v0, v1)"),
        (lambda x: torch.linalg.svdvals(x), "torch.linalg.svdvals(x0)"),
        (lambda x: torch.special.expit(x), "torch.special.expit(x0)"),
        (lambda x: torch.ops.aten.sin(x), "torch.ops.aten.sin(x0)"),
        (lambda x: x.clone(memory_format=torch.contiguous_format), None),
        (lambda x: torch.einsum("ij,kj->ik", x, x), "torch.einsum('ij,kj->ik', x0, x0)"),
        (lambda x: x.where(x > 0, 0.0), "torch.Tensor.where(x0, v0, 0.0)"),
    ],
)
def test_names_and_arguments(fn: Callable[..., Any], line: str | None) -> None:
    recorded = lines(fn, leaf(2, 3))
    expected = line or "torch.clone(x0, memory_format=torch.contiguous_format)"
    assert recorded[-1].split(" = ")[1] == expected


def test_lists_dicts_and_structured_results() -> None:
    def fn(parts: list[Any], *, scale: Any) -> dict[str, Any]:
        joined = torch.cat(parts) * scale
        best, where = torch.max(joined, 1)
        first, *rest = joined
        return {"best": best, "where": where, "n": 3, "rest": [first, rest[-1]]}

    program = capture(fn, ([leaf(2, 3), leaf(1, 3)],), {"scale": leaf(3)}).program
    assert [i.name for i in program.inputs] == ["x0", "x1", "x2"]
    assert program.inputs[2].aliases == ("scale",)
    assert program.calls[0].args[0] == list(program.calls[0].refs)
    assert str(program).endswith("return {'best': v2[0], 'where': v2[1], 'rest': (v3[0], v3[2])}")


def test_in_place_views_and_grad_mode() -> None:
    def fn(x: Any) -> Any:
        y = x.clone()
        y[0] = y[1] * 2
        y.add_(1)
        with torch.no_grad():
            scale = y.abs().sum()
        y.view(-1)[2:4].mul_(scale)
        return y / y.detach().norm()

    program = capture(fn, (leaf(2, 3),)).program
    assert {"torch.Tensor.__setitem__", "torch.Tensor.mul_"} <= set(program.targets)
    assert [c.target for c in program.calls if not c.grad] == ["torch.abs", "torch.sum"]


def test_constants_are_copied_when_first_seen() -> None:
    state = torch.zeros(3, dtype=torch.float64)

    def fn(x: Any) -> Any:
        state.add_(1)
        return x * state + torch.arange(3) + np.float64(2)

    captured = capture(fn, (leaf(3),))
    assert captured.values["c0"].tolist() == [0, 0, 0]
    assert [i.name for i in captured.program.inputs if i.constant] == ["c0", "c1"]


def test_tied_parameters_keep_all_their_names() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh(), torch.nn.Linear(3, 3))
    net.double()[2].weight = net[0].weight
    program = capture(net, (leaf(2, 3),)).program
    names = {i.name: i.aliases for i in program.leaves}
    assert names["p0"] == ("0.weight", "2.weight")
    assert names["x0"] == ()
    assert len(names) == 4


def test_one_tensor_twice_and_aliasing_arguments() -> None:
    x = leaf(3, 3)
    assert lines(lambda a, b: a * b, x, x) == ["v0 = torch.mul(x0, x0)"]
    base = torch.arange(6.0, dtype=torch.float64)

    def write(a: Any, b: Any) -> Any:
        a.mul_(3)
        return a + b

    captured = capture(write, (base[:4], base[2:]))
    assert [(i.storage, i.offset) for i in captured.program.inputs] == [("s0", 0), ("s0", 2)]
    assert np.shares_memory(captured.values["x0"], captured.values["x1"])


def test_strides_are_kept() -> None:
    x = leaf(3, 2).detach().T.requires_grad_()
    captured = capture(lambda x: x.expand(2, 2, 3).sum(), (x,))
    assert captured.program.inputs[0].strides == (1, 2)


def test_a_drawn_mask_becomes_a_constant() -> None:
    def fn(x: Any) -> Any:
        return F.dropout(x, 0.5) + torch.rand(3, dtype=torch.float64) * torch.rand_like(x)

    torch.manual_seed(0)
    captured = capture(fn, (leaf(40, 3),))
    assert captured.program.targets == ("torch.mul", "torch.add")
    assert set(np.unique(captured.values["c0"])) == {0.0, 2.0}
    assert "dropout" in captured.notes[0]


def test_noise_written_in_place_becomes_a_copy() -> None:
    recorded = lines(lambda x: x * torch.empty(2, dtype=torch.float64).normal_(), leaf(2))
    assert recorded == ["v0 = torch.Tensor.copy_(c0, c1)", "v1 = torch.mul(x0, v0)"]


class Cube(torch.autograd.Function):  # type: ignore[misc, name-defined]
    """A custom Function, opaque to a capture."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return 3 * g * ctx.saved_tensors[0] ** 2


bound_early = Cube.apply


@pytest.mark.parametrize("apply", [lambda x: Cube.apply(x), bound_early])
def test_a_custom_function_is_one_opaque_call(apply: Callable[..., Any]) -> None:
    program = capture(lambda x: apply(x * 2).sum(), (leaf(3),)).program
    assert len(program.targets) == 3
    assert program.targets[1].startswith("opaque:")
    assert program.targets[1].endswith("Cube")
    assert program.calls[1].opaque is not None
    assert "apply" not in vars(torch.autograd.function._SingleLevelFunction)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_scripted_function_is_one_opaque_call() -> None:
    scripted = torch.jit.script(_to_script)
    program = capture(lambda x: scripted(x).sum(), (leaf(3),)).program
    assert program.calls[0].target.endswith("_to_script")
    module = torch.jit.script(torch.nn.Linear(2, 2))
    with pytest.raises(CaptureError, match="scripted module"):
        capture(module, (torch.ones(2),))


def _to_script(x: torch.Tensor) -> torch.Tensor:
    return x.sin() * 2


def test_a_gradient_inside() -> None:
    def penalty(x: Any) -> Any:
        (g,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        return (g**2).sum()

    captured = capture(penalty, (leaf(3),))
    assert "torch.autograd.grad" in captured.program.targets
    x = captured.values["x0"]
    run = TorchEngine().run(captured.program, captured.values)
    assert np.allclose(run.outputs[0], (9 * x**4).sum())


outside = leaf(3) * 2
sparse = torch.eye(3).to_sparse()


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda x: x * outside, r"torch\.mul uses a tensor with grad_fn MulBackward0"),
        (lambda x: x.sum().backward(), "return the loss instead"),
        (lambda x: x.register_hook(print), "hook"),
        (lambda x: torch.vmap(torch.sin)(x), r"torch\.func"),
        (lambda x: None, "returned no tensor but a NoneType"),
        (lambda x: F.alpha_dropout(x, training=True), "^random: "),
        (lambda x: x * sparse, "dense"),
        (
            lambda x: F.triplet_margin_with_distance_loss(x, x, x, distance_function=torch.dist),
            "builtin",
        ),
    ],
)
def test_what_cannot_be_recorded_says_so(fn: Callable[..., Any], says: str) -> None:
    with pytest.raises(CaptureError, match=says):
        capture(fn, (leaf(3),))


def test_the_proof_names_the_call() -> None:
    shared = torch.ones(3, dtype=torch.float64)

    def hidden_write(x: Any) -> Any:
        y = x * shared
        shared.detach().numpy()[:] = 7  # no torch call
        return (y + shared).exp()

    with pytest.raises(CaptureError, match=r"another value, first in v2 = torch\.add"):
        capture(hidden_write, (leaf(3),))


def test_what_the_function_raises_passes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        capture(lambda x: x * (1 // 0), (leaf(3),))
    assert len(torch.overrides._get_current_function_mode_stack()) == 0


def test_through_json_outputs_and_gradients_are_bit_equal(tmp_path: Path) -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv1d(2, 4, 3), torch.nn.GELU(), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2)
    ).double()
    captured = capture(net, (leaf(1, 2, 6),))
    captured.program.save(tmp_path / "p.json", captured.values)
    program, values = Program.load(tmp_path / "p.json")
    engine = TorchEngine()
    cotangents = cotangents_for(engine.run(program, values).outputs)
    a = engine.vjp(captured.program, captured.values, cotangents)
    b = engine.vjp(program, values, cotangents)
    for name, gradient in a.gradients.items():
        assert gradient is not None
        assert gradient.tobytes() == b.gradients[name].tobytes()  # type: ignore[union-attr]


def test_calls_alone_are_distinct_and_run() -> None:
    def fn(x: Any) -> Any:
        for _ in range(3):
            x = (x * 2).tanh()
        return x.sum()

    captured = capture(fn, (leaf(3),))
    samples = list(calls_alone(captured.program, captured.values, "f"))
    assert [s.op for s in samples] == ["torch.mul", "torch.tanh", "torch.sum"]
    for s in samples:
        outputs = TorchEngine().run(s.program, s.values).outputs
        TorchEngine().vjp(s.program, s.values, cotangents_for(outputs))
