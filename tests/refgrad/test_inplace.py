"""In-place forms against torch's, on PyTorch's own samples, and what else writes to a tensor."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch

import refgrad
from tests.refgrad.against_torch import convert, differ, leaves
from tests.refgrad.both import both, both_raise
from tests.refgrad.op_db import op_db

SAMPLES = 3
DRAWN = {"bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_",
         "uniform_"}  # fmt: skip
OF_METADATA = {"detach_", "requires_grad_"}
LACKING = {
    "apply_": "a Python loop over elements",
    "map_": "a Python loop over elements",
    "map2_": "a Python loop over elements",
    "resize_": "gives memory a new length, which NumPy's arrays cannot share",
    "resize_as_": "as resize_",
    "resize_as_sparse_": "sparse",
    "share_memory_": "processes",
    "sparse_resize_": "sparse",
    "sparse_resize_and_clear_": "sparse",
}


def inplace_name(entry: Any) -> str:
    return str(getattr(entry.get_inplace(), "__name__", ""))


ENTRIES = [
    e for e in op_db
    if inplace_name(e).endswith("_") and inplace_name(e) not in DRAWN | set(LACKING)
]  # fmt: skip


def test_every_in_place_method_of_torch_is_there() -> None:
    theirs = {n for n in dir(torch.Tensor) if n.endswith("_") and not n.startswith("_")}
    assert theirs - {n for n in dir(refgrad.Tensor) if n in theirs} == set(LACKING)


def test_every_in_place_function_of_torch_that_has_an_op_is_there() -> None:
    for of, ours in (
        (torch, refgrad),
        (torch.nn.functional, refgrad.nn.functional),
    ):
        theirs = [n for n in dir(of) if n.endswith("_") and not n.startswith("_")]
        wanted = [n for n in theirs if hasattr(refgrad.Tensor, n) or hasattr(ours, n[:-1])]
        dropout = {"dropout_", "alpha_dropout_", "feature_dropout_", "feature_alpha_dropout_"}
        assert {n for n in wanted if not hasattr(ours, n)} <= dropout


def outcome(module: Any, name: str, given: list[Any]) -> Any:
    """What `name` does to a tensor that is no leaf: or its error's class and message."""
    input, args, kwargs = given
    x = input.clone()
    try:
        result = getattr(x, name)(*args, **kwargs)
    except (RuntimeError, IndexError, TypeError) as error:
        return type(error), str(error)
    gradients: Any = []
    if result.requires_grad:
        inputs = [t for t in leaves(given, module.Tensor) if t.requires_grad]
        total = result.abs().sum() if result.is_complex() else (result * result).sum()
        try:
            gradients = module.autograd.grad(total, inputs, allow_unused=True)
        except NotImplementedError as error:  # torch has some without a derivative
            gradients = error
    return result is x, x._version, result.requires_grad, result, gradients


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.int64], ids=str)
def test_does_what_torch_does(dtype: torch.dtype) -> None:
    count = 0
    for entry in ENTRIES:
        name = inplace_name(entry)
        if dtype not in entry.dtypes or name == "addbmm_":  # torch's gives its tensor a new shape
            continue
        torch.manual_seed(0)
        required = entry.supports_autograd and dtype is not torch.int64
        for i, sample in enumerate(entry.sample_inputs("cpu", dtype, requires_grad=required)):
            if i == SAMPLES:
                break
            given = [sample.input, sample.args, sample.kwargs]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                theirs = outcome(torch, name, given)
                ours = outcome(refgrad, name, convert(given))
            where = f"{name}[{i}]"
            count += 1
            if isinstance(theirs[0], type) or isinstance(ours[0], type):
                assert theirs[0] is ours[0], (where, theirs, ours)
                continue
            assert ours[:3] == theirs[:3], where
            assert differ(ours[3], theirs[3], where) is None
            if not isinstance(theirs[4], Exception):
                for a, b in zip(ours[4], theirs[4], strict=True):
                    assert differ(a, b, where) is None
    assert count > 100


def test_a_leaf_that_requires_grad_is_refused_by_all() -> None:
    for entry in ENTRIES:
        name = inplace_name(entry)
        if torch.float64 not in entry.dtypes or not entry.supports_autograd:
            continue
        sample = next(iter(entry.sample_inputs("cpu", torch.float64, requires_grad=True)))
        input, args, kwargs = convert([sample.input, sample.args, sample.kwargs])
        before = input.detach().numpy().copy()
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            getattr(input, name)(*args, **kwargs)
        np.testing.assert_array_equal(input.detach().numpy(), before)


@pytest.mark.parametrize(
    "name",
    ["celu", "elu", "hardswish", "hardtanh", "leaky_relu", "mish", "relu", "relu6",
     "rrelu", "selu", "silu"],
)  # fmt: skip
def test_activations_in_place(name: str) -> None:
    def code(t: Any) -> Any:
        x = t.linspace(-4.0, 4.0, 9, dtype=t.float64).requires_grad_()
        y, f = x * 1, getattr(t.nn.functional, name)
        z = f(y, inplace=True)
        (g,) = t.autograd.grad((z * z).sum(), x)
        again = getattr(t.nn.functional, f"{name}_", f)(x * 1)
        return z is y, y._version, z, g, again

    both(code)


class TestGeometry:
    def test_changed_in_place(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(6.0, dtype=t.float64).reshape(2, 3).requires_grad_()
            y = x * x
            seen = []
            for name, args in (
                ("t_", ()), ("unsqueeze_", (0,)), ("squeeze_", (0,)), ("transpose_", (0, 1)),
                ("unsqueeze_", (-1,)), ("squeeze_", ()), ("swapaxes_", (0, 1)),
                ("swapdims_", (0, 1)),
            ):  # fmt: skip
                assert getattr(y, name)(*args) is y
                seen.append((y.shape, y._version, y.requires_grad))
            y[0, 1] = 7.0
            (g,) = t.autograd.grad((y * t.arange(6.0, dtype=t.float64).reshape(2, 3)).sum(), x)
            return seen, y, g

        both(code)

    def test_of_a_view(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(6.0, dtype=t.float64).reshape(2, 3).requires_grad_()
            y = x * 1
            v = y[:, :2]
            v.t_()
            v[0].mul_(x[0, 1])
            (g,) = t.autograd.grad((v * v).sum() + y.sum(), x)
            return y, v, g, v.shape

        both(code)

    def test_as_strided_in_place(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(6.0, dtype=t.float64, requires_grad=True)
            y = x * 2
            y.as_strided_((2, 2), (1, 2), 1)
            y.mul_(3)
            (g,) = t.autograd.grad(y.sum(), x)
            return y, g

        both(code)

    def test_without_grad_a_leaf_may_be_turned(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(6.0, dtype=t.float64).reshape(2, 3).requires_grad_()
            with t.no_grad():
                x.t_()
            (x[0] * 2).sum().backward()
            return x, x.grad, x.is_leaf, x._version

        both(code)

    def test_older_views_of_it_are_refused(self) -> None:
        y = refgrad.ones(2, 3, requires_grad=True) * 1
        v = y[0]
        y.t_()
        with pytest.raises(RuntimeError, match="Make the view anew"):
            v.mul_(2)


class TestData:
    def test_a_write_is_outside_the_graph_and_its_checks(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor([1.0, 2.0, 3.0], dtype=t.float64, requires_grad=True)
            y = (x * x).sum()
            x.data[0] = 5.0
            x.data.add_(1)
            x.data.mul_(t.tensor(2.0, dtype=t.float64))
            y.backward()
            return x, x._version, x.grad, x.data.requires_grad

        both(code)

    def test_assigned(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(2, requires_grad=True)
            y = t.zeros(3, dtype=t.float64)
            x.data = y
            y[0] = 4.0
            x.sum().backward()
            return x, x.dtype, x.is_leaf, x.requires_grad, x.grad

        both(code)

    def test_integers_are_refused_where_a_gradient_is_wanted(self) -> None:
        def code(t: Any) -> None:
            t.ones(2, requires_grad=True).data = t.zeros(2, dtype=t.int64)

        both_raise(code, match="must be floating point or complex")

    def test_detach_shares_the_version_and_data_does_not(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(3, requires_grad=True)
            seen = []
            for d in (x.data, x.detach()):
                d.add_(1)
                seen += [d._version, x._version]
            return seen, x

        both(code)


class TestSet:
    def test_takes_over_the_memory(self) -> None:
        def code(t: Any) -> Any:
            x, z = t.zeros(2, 3, dtype=t.float64), t.arange(10.0, dtype=t.float64)
            y = t.zeros(1, dtype=t.float64)
            assert x.set_(z) is x
            y.set_(z, 2, (2, 2), (1, 3))
            z[2] = -1.0
            y[1, 1] = 9.0
            return x, y, z, x._version, y._version, t.ones(3).set_().shape

        both(code)

    def test_of_a_leaf_without_grad(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(2, requires_grad=True)
            with t.no_grad():
                x.set_(t.arange(3.0))
            (x * x).sum().backward()
            return x, x.grad

        both(code)

    def test_refuses_another_dtype(self) -> None:
        both_raise(lambda t: t.zeros(2).set_(t.zeros(2, dtype=t.float64)), match="Could not set")


class TestCopy:
    @pytest.mark.parametrize(
        ("to", "of"),
        [("float32", "float64"), ("float64", "float32"), ("float64", "int64"),
         ("complex128", "float64"), ("complex64", "complex128"), ("float64", "complex128")],
    )  # fmt: skip
    def test_between_dtypes(self, to: str, of: str) -> None:
        def code(t: Any) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the imaginary part is dropped
                src = t.tensor([[1.5], [-2.0]]).to(getattr(t, of))
                if src.is_floating_point() or src.is_complex():
                    src.requires_grad_()
                x = t.ones(2, 3, dtype=getattr(t, to), requires_grad=True)
                y = x * 2
                y.copy_(src)
                y.abs().square().sum().backward()
                return y, y._version, src.grad, x.grad

        both(code)

    def test_of_integers_truncates(self) -> None:
        def code(t: Any) -> Any:
            x = t.zeros(3, dtype=t.int64)
            x.copy_(t.tensor([1.9, -1.9, 2.5]))
            b = t.zeros(2, dtype=t.bool)
            return x, b.copy_(t.tensor([0.0, 0.3]))

        both(code)

    def test_errors(self) -> None:
        both_raise(lambda t: t.zeros(2).copy_(t.zeros(3)), match="must match|broadcast")


class TestResult:
    def test_keeps_its_shape_and_dtype(self) -> None:
        both_raise(lambda t: t.zeros(1).add_(t.zeros(3)), match="doesn't match the broadcast shape")
        both_raise(
            lambda t: t.zeros(2, dtype=t.int64).add_(1.5), match="can't be cast to the desired"
        )
        both_raise(lambda t: t.zeros(2).add_(1j), match="can't be cast to the desired")
        both_raise(lambda t: t.zeros(2, dtype=t.complex64).abs_(), match="In-place abs is not supp")

    def test_diagonal_filled(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(21.0, dtype=t.float64).reshape(7, 3).requires_grad_()
            y, w, c = x * 1, x * 1, t.zeros(3, 3, 3)
            y.fill_diagonal_(5)
            w.fill_diagonal_(5, wrap=True)
            (g,) = t.autograd.grad((y * w).sum(), x)
            return y, w, g, c.fill_diagonal_(2), t.zeros(2, 4).fill_diagonal_(1)

        both(code)

    def test_what_no_rule_reads_may_be_written(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor([1.0, 2.0], dtype=t.float64, requires_grad=True)
            y, c = x * 1, t.tensor([3.0, 4.0], dtype=t.float64)
            z = y * 2.0 + y / c  # neither quotient nor product by a constant reads y
            y.mul_(7)
            (z * c).sum().backward()
            return x.grad

        both(code)

    def test_what_a_rule_reads_may_not(self) -> None:
        def code(t: Any) -> Any:
            x = t.tensor([1.0, 2.0], requires_grad=True)
            c = t.tensor([3.0, 4.0])
            z = x * c
            c.add_(1)
            z.sum().backward()

        both_raise(code, match="modified by an inplace operation")
