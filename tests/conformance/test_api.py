"""check_gradients: what a user gets to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from conformance import GradientMismatch, check_gradients
from conformance.errors import UsageError
from conformance.settings import user_checks


def randn(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """A leaf with Gaussian entries."""
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


class Function(torch.autograd.Function):
    """x sin y by NumPy, which no capture sees into."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, y)
        return torch.from_numpy(np.asarray(x.detach().numpy() * np.sin(y.detach().numpy())))


class Right(Function):
    """With the right rule."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = ctx.saved_tensors
        return g * y.sin(), g * x * y.cos()


class Wrong(Function):
    """With a sign wrong in the second gradient."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = ctx.saved_tensors
        return g * y.sin(), -g * x * y.cos()


class Detached(Function):
    """Right, but by NumPy, so that second order is lost in silence."""

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = (t.detach() for t in ctx.saved_tensors)
        return g * y.sin(), g * x * y.cos()


class OutsideTheKink(torch.autograd.Function):
    """relu with slope 2 at 0, which is neither side's nor between."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * torch.where(x == 0, 2.0, (x > 0).double())


def test_a_function_of_torch_is_ok() -> None:
    report = check_gradients(lambda a, b: torch.exp(a @ b).sum(0), randn(3, 4), randn(4, 2))
    assert report.ok
    assert report
    assert report.worst is None
    assert "every derivative agrees" in str(report)
    met = {r.check.partition(".")[0] for r in report.results}
    assert met == {*user_checks(1)} - {"vmap"}  # it has no rule of its own


@pytest.mark.parametrize("order", [1, 2])
def test_a_custom_function_that_is_right_is_ok(order: int) -> None:
    report = check_gradients(Right.apply, randn(3), randn(3), order=order)
    assert report.ok, str(report)


def test_a_custom_function_that_is_wrong_is_described() -> None:
    report = check_gradients(Wrong.apply, randn(5), randn(5))
    assert not report.ok
    assert report.verdict.startswith("engine wrong")
    assert report.worst is not None
    assert report.worst.evidence["leaf"] == "x1"
    assert report.worst.evidence["diagnosis"] == "sign"
    text = str(report)
    assert "NOT OK" in text
    assert "wrong sign everywhere" in text


def test_a_custom_function_is_as_its_apply() -> None:
    reports = [check_gradients(fn, randn(4), randn(4)) for fn in (Right, Right.apply)]
    assert [r.ok for r in reports] == [True, True]
    assert len({tuple(r.check for r in report.results) for report in reports}) == 1


def test_second_order_lost_in_silence_is_seen() -> None:
    assert check_gradients(Detached.apply, randn(3), randn(3)).ok
    report = check_gradients(Detached.apply, randn(3), randn(3), order=2)
    assert not report.ok


def test_raise_on_failure() -> None:
    with pytest.raises(GradientMismatch, match="x1"):
        check_gradients(Wrong.apply, randn(3), randn(3), raise_on_failure=True)
    with pytest.raises(AssertionError):
        check_gradients(Wrong.apply, randn(3), randn(3), raise_on_failure=True)


def test_a_module_has_its_parameters_checked() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
    report = check_gradients(module.double(), torch.randn(5, 3, dtype=torch.float64))
    assert report.ok, str(report)
    (vjp,) = [r for r in report.results if r.check == "vjp"]
    assert vjp.evidence["compared"] == sum(p.numel() for p in module.parameters())


def test_tuples_integers_and_float32() -> None:
    x = randn(4, dtype=torch.float32)
    report = check_gradients(lambda x: (x.exp(), {"at": x.argmax(), "twice": 2 * x}), x)
    assert report.ok, str(report)


def test_kinks_pass_by_convention_but_not_beyond_the_slopes() -> None:
    x = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64, requires_grad=True)
    assert check_gradients(torch.abs, x).ok
    assert check_gradients(lambda x: x.clamp(min=0), x).ok
    report = check_gradients(OutsideTheKink.apply, x)
    assert not report.ok
    assert "outside the one-sided slopes" in report.verdict


def test_complex_functions() -> None:
    z = torch.randn(3, dtype=torch.complex128, requires_grad=True)
    assert check_gradients(lambda z: (z * z.conj()).real.sum() + (z * z).imag.sum(), z).ok


def test_what_cannot_be_captured_is_a_black_box() -> None:
    def through_numpy(x: torch.Tensor) -> torch.Tensor:
        weight = float(x.detach().numpy().sum())
        return x * 0 + weight

    report = check_gradients(through_numpy, randn(3))
    assert not report.ok  # the gradient stops where NumPy starts


def test_errors_of_use() -> None:
    with pytest.raises(UsageError, match="requires grad"):
        check_gradients(torch.exp, torch.ones(3))
    with pytest.raises(UsageError, match="a int cannot be checked"):
        check_gradients(3, randn(2))  # type: ignore
    with pytest.raises(UsageError, match=r"the class Linear cannot be checked; give .* a module"):
        check_gradients(torch.nn.Linear, randn(2))
    with pytest.raises(UsageError, match="order"):
        check_gradients(torch.exp, randn(3), order=3)
    with pytest.raises(ZeroDivisionError):
        check_gradients(lambda x: x / (1 // 0), randn(3))


class _Mismatched(torch.autograd.Function):
    """Its backward pass forgets to transpose, and takes square matrices alone."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return grads[0] @ weight, x.t() @ grads[0]


def test_a_backward_pass_that_raises_is_the_function_s_own_fault() -> None:
    x = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    report = check_gradients(_Mismatched.apply, x, weight)
    assert not report.ok
    assert report.verdict.startswith("engine wrong: torch raised RuntimeError: mat1 and mat2")
    found = next(r for r in report.results if r.check == "vjp")
    assert found.outcome == "errored"
    assert "return grads[0] @ weight" in found.evidence["error"]


def test_a_gradient_inside_a_function_is_differentiated_in_both_modes() -> None:
    def force(x: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad((x**3).sum(), x, create_graph=True)[0]

    report = check_gradients(force, torch.ones(3, dtype=torch.float64, requires_grad=True))
    assert report.ok, str(report)
    assert {r.check for r in report.results if r.outcome == "passed"} >= {"vjp", "jvp"}


def test_a_function_under_autocast_is_held_to_what_it_computes_in() -> None:
    def product(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return (x @ x).float()

    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    report = check_gradients(product, x)
    assert report.ok, str(report)
    assert any("computes in bfloat16" in note for note in report.notes)

    class Halved(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return product(x)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            return grads[0] / 2

    assert not check_gradients(Halved.apply, x).ok


def test_a_bias_before_a_batch_norm_has_no_gradient_in_float32_either() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    report = check_gradients(model, x)
    assert report.ok, str(report)
    assert "narrow" in {r.check for r in report.results}


def test_values_that_numpy_cannot_hold_are_said_to_be_so() -> None:
    x = torch.ones(3, requires_grad=True)
    codes = torch.quantize_per_tensor(torch.ones(3), 0.5, 0, torch.quint8)
    with pytest.raises(UsageError, match=r"input 1 is torch.quint8.*give float32"):
        check_gradients(lambda x, q: x * q.dequantize(), x, codes)


def test_eigenvectors_of_other_signs_are_as_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def vectors(x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigh(x + x.mT)[1]

    generator = torch.Generator().manual_seed(0)
    for _ in range(4):  # refgrad has the same signs, or other ones
        x = torch.randn(4, 4, dtype=torch.float64, generator=generator).requires_grad_()
        report = check_gradients(vectors, x)
        assert report.ok, str(report)
    eigh = refgrad.linalg.eigh
    monkeypatch.setattr(refgrad.linalg, "eigh", lambda x: (eigh(x)[0], -eigh(x)[1]))
    other = check_gradients(vectors, x)
    monkeypatch.undo()
    assert other.ok, str(other)
    said = [any("signs" in note for note in r.notes) for r in (report, other)]
    assert any(said)  # torch has the signs of one of the two, or of neither


def frames(x: torch.Tensor) -> torch.Tensor:
    """Overlapping frames of a padded signal, as audio code makes them."""
    padded = torch.nn.functional.pad(x.mT, (2, 2))
    along = padded.stride(1)
    return padded.as_strided((x.shape[1], 5, 4), (padded.stride(0), 2 * along, along)).sin()


def flat(x: torch.Tensor) -> torch.Tensor:
    """A view of what torch lays out anew."""
    return torch.nn.functional.pad(x.mT, (2, 2)).view(-1).sin()


FLAT: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: torch.cat([x.mT, x.mT], 0).view(-1).sin(),
    lambda x: torch.stack([x.mT, x.mT]).view(2, -1),
    lambda x: torch.linalg.inv(x[:2]).mT.view(-1),
    lambda x: torch.logsumexp(x.mT[None], 1).view(-1),
    lambda x: torch.nn.functional.max_pool1d(x.mT, 2).view(-1),
]


@pytest.mark.parametrize("fn", [frames, flat, *FLAT])
def test_what_reads_the_memory_of_a_result_is_judged_against_refgrad(fn: Any) -> None:
    report = check_gradients(fn, randn(8, 2))
    assert report.ok, str(report)
    assert not report.notes


@pytest.mark.parametrize(("fn", "name"), [(frames, "as_strided"), (flat, "Tensor.view")])
def test_another_memory_layout_is_as_right(
    fn: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pad = refgrad.nn.functional.pad
    monkeypatch.setattr(refgrad.nn.functional, "pad", lambda *a: pad(*a).mT.contiguous().mT)
    report = check_gradients(fn, randn(8, 2))
    monkeypatch.undo()
    assert report.ok, str(report)
    assert any(f"memory layout of what torch.{name} reads" in note for note in report.notes)


@pytest.mark.parametrize("fn", [frames, flat])
def test_another_value_is_no_matter_of_layout(fn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refgrad, "sin", lambda x: x.cos())
    report = check_gradients(fn, randn(8, 2))
    monkeypatch.undo()
    assert not report.ok
    assert not any("no opinion" in note for note in report.notes)


def test_what_torch_has_no_derivative_of_is_unsupported() -> None:
    x = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64, requires_grad=True)
    report = check_gradients(torch.unique, x)
    assert not report.ok
    assert {r.outcome for r in report.results if r.check == "vjp"} == {"unsupported"}


def test_a_constant_that_is_written_into_is_fresh_for_each_forward_pass() -> None:
    def messages(x: torch.Tensor) -> torch.Tensor:
        sums = torch.zeros(3, 3, dtype=torch.float64)
        return sums.index_add_(0, torch.tensor([1, 2, 0, 1]), x[torch.tensor([0, 1, 2, 2])]).sin()

    x = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    report = check_gradients(messages, x.requires_grad_())
    assert report.ok, str(report)


def test_a_function_that_draws_is_given_the_same_numbers_at_each_call() -> None:
    x = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    before = torch.get_rng_state()
    report = check_gradients(torch.nn.functional.gumbel_softmax, x)
    assert report.ok, str(report)
    assert any("draws random numbers" in note for note in report.notes)
    assert torch.equal(torch.get_rng_state(), before)


@torch.library.custom_op("tests::cube", mutates_args=())
def _cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


def _cubes_gradient(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return 3 * grad * ctx.saved_tensors[0] ** 2


_cube.register_autograd(
    _cubes_gradient, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0])
)


def test_a_custom_op_has_no_forward_mode_and_need_have_none() -> None:
    report = check_gradients(_cube, torch.ones(3, dtype=torch.float64, requires_grad=True))
    assert report.ok, str(report)
    assert {r.outcome for r in report.results if r.check == "jvp"} == {"unsupported"}


def test_a_scripted_module_is_refused_with_what_to_give_instead() -> None:
    with pytest.warns(DeprecationWarning, match="jit"):
        scripted = torch.jit.script(torch.nn.Linear(3, 2))
    with pytest.raises(UsageError, match="give the module that was scripted"):
        check_gradients(scripted, torch.ones(2, 3, requires_grad=True))


def test_the_script_of_a_black_box_says_what_the_gradient_should_be() -> None:
    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            return grads[0]

    report = check_gradients(Half.apply, torch.ones(3, dtype=torch.float64, requires_grad=True))
    (found,) = (r for r in report.results if r.check == "numerical")
    assert found.repro is not None
    script = found.repro["script"]
    place = f"gradient x0 at {found.evidence['index']} should be {found.evidence['numerical']}"
    assert place in script
    assert "expected" not in script  # that would be the function's own gradient


class NoNumber(torch.autograd.Function):
    """x^2, with nan for the derivative of what is below zero."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * 2 * x.sqrt() ** 2


@pytest.mark.parametrize(
    "function",
    [
        NoNumber.apply,
        lambda x: torch.where(x > 0, x.sqrt(), 2 * x),  # 0 times infinity in what is not taken
        lambda x: torch.where(x == 0, 1.0, x.sin() / x),
    ],
)
def test_a_gradient_that_is_nan_where_the_function_is_smooth(function: Any) -> None:
    x = torch.tensor([1.5, -1.25, 0.0], dtype=torch.float64, requires_grad=True)
    report = check_gradients(function, x)
    assert report.failed
    assert report.worst is not None
    assert report.worst.evidence["diagnosis"] == "not finite"
    assert "finite derivative" in report.verdict


@pytest.mark.parametrize("function", [torch.sqrt, torch.log, lambda x: x.abs() ** 0.5])
def test_an_infinite_derivative_is_no_fault(function: Any) -> None:
    x = torch.tensor([1.5, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert not check_gradients(function, x).failed


def test_a_module_without_shapes_is_refused() -> None:
    with pytest.raises(UsageError, match="call it once"):
        check_gradients(torch.nn.LazyLinear(3), torch.randn(2, 4))


def test_what_is_known_of_pytorch_is_told() -> None:
    x = randn(4, 4)
    report = check_gradients(lambda x: torch.nn.functional.layer_norm(x, (4,)), x, order=2)
    assert any("known of PyTorch, torch.nn.functional.layer_norm" in n for n in report.notes)
    assert any("github.com/pytorch/pytorch/issues/196700" in n for n in report.notes)


def test_what_is_known_of_pytorch_may_be_let_pass() -> None:
    """Forward mode gives the padding row of an embedding a tangent."""
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3, padding_idx=0), torch.nn.Tanh()).double()
    indices = torch.tensor([[0, 1], [4, 0]])
    assert check_gradients(model, indices, order=2).failed
    report = check_gradients(model, indices, order=2, allow_known=True)
    assert report.ok
    assert any("known of PyTorch, torch.nn.functional.embedding" in n for n in report.notes)


def test_what_is_not_known_is_no_more_let_pass() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return 2 * g * ctx.saved_tensors[0] ** 2

    table = torch.nn.Embedding(5, 3, padding_idx=0).double()
    report = check_gradients(
        lambda i: Cube.apply(table(i)), torch.tensor([[0, 1]]), allow_known=True
    )
    assert report.failed


def test_nested_forward_mode_of_a_function_is_unsupported() -> None:
    class Sine(torch.autograd.Function):
        @staticmethod
        def forward(x: torch.Tensor) -> torch.Tensor:
            return x.sin()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)
            ctx.save_for_forward(*inputs)

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g * ctx.saved_tensors[0].cos()

        @staticmethod
        def jvp(ctx: Any, t: torch.Tensor) -> torch.Tensor:
            return t * ctx.saved_tensors[0].cos()

    report = check_gradients(Sine.apply, randn(3), order=2)
    assert report.ok, report
    assert {r.outcome for r in report.results if r.check == "ff"} == {"unsupported"}


def test_a_fault_of_refgrad_is_no_failure_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fakes.engines import MissingFactor

    monkeypatch.setattr("conformance.engines.refgrad.RefgradEngine", MissingFactor)
    report = check_gradients(torch.square, randn(3))
    assert not report.failed, report
    assert any("refgrad is wrong here: reference wrong" in note for note in report.notes)


def test_where_several_entries_have_no_joint_derivative_nan_is_no_fault() -> None:
    p = torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.0, 0.5], dtype=torch.float64, requires_grad=True)
    function = lambda p, q: (torch.xlogy(p, p) - torch.xlogy(p, q)).sum()
    assert not check_gradients(function, p, q).failed


def test_linear_and_batch_norm_in_training() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).double()
    report = check_gradients(net, randn(5, 3))
    assert report.ok, report


def test_a_call_that_the_witness_lacks_is_to_blame_at_second_order() -> None:
    torch.manual_seed(0)
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 4)).double()
    report = check_gradients(lambda x: layer(x).sin(), randn(2, 3), order=2)
    wrong = next(r for r in report.results if r.check == "rr")
    assert wrong.outcome == "failed"
    assert wrong.evidence["culprit"] == "torch._weight_norm"
    assert wrong.evidence["first_call"].endswith("alone it differs at second order")
    assert "known of PyTorch, torch._weight_norm" in str(report)
