"""Views and in-place writes: random sequences of view, write and read, on both engines."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import refgrad
from tests.refgrad.against_torch import convert, leaves, resolve
from tests.refgrad.both import both, both_raise
from tests.refgrad.op_db import op_db

VIEWS = {
    "first": lambda x: x[0],
    "last": lambda x: x[-1:],
    "step": lambda x: x[::2],
    "column": lambda x: x[..., 0],
    "new axis": lambda x: x[:, None] if x.ndim else x[None],
    "flat": lambda x: x.reshape(-1),
    "viewed": lambda x: x.view(-1),
    "viewed as": lambda x: x.view_as(x),
    "flattened": lambda x: x.flatten(),
    "unflattened": lambda x: x.unflatten(-1, (1, -1)),
    "turned": lambda x: x.transpose(0, -1),
    "T": lambda x: x.T if x.ndim == 2 else x[...],
    "mT": lambda x: x.mT if x.ndim > 1 else x[...],
    "t": lambda x: x.t() if x.ndim < 3 else x[...],
    "permuted": lambda x: x.permute(*reversed(range(x.ndim))) if x.ndim else x[...],
    "moved": lambda x: x.movedim(0, -1),
    "swapped": lambda x: x.swapaxes(0, -1),
    "narrow": lambda x: x.narrow(0, 0, 1),
    "selected": lambda x: x.select(-1, -1),
    "diagonal": lambda x: x.diagonal() if x.ndim > 1 else x[:],
    "squeezed": lambda x: x.squeeze(),
    "unsqueezed": lambda x: x.unsqueeze(-1),
    "expanded": lambda x: x.expand(2, *x.shape),
    "broadcast": lambda x: x[:1].broadcast_to(x.shape),
    "unfolded": lambda x: x.unfold(0, 1, 1),
    "strided": lambda x: (
        x.as_strided((2, 2), (2, 1)) if x.is_contiguous() and x.numel() > 3 else x[...]
    ),
    "split": lambda x: x.split(1)[0] if x.ndim else x[...],
    "chunk": lambda x: x.chunk(2)[-1],
    "tensor_split": lambda x: x.tensor_split(2)[0],
    "tensor_split at": lambda x: x.tensor_split((1,))[0],
    "hsplit": lambda x: x.hsplit([1])[0],
    "unbind": lambda x: x.unbind()[0],
    "detached": lambda x: x[...] if repeats(x) else x.detach(),  # PyTorch's backward refuses it
}
OF_COMPLEX = {
    "real": lambda x: x.real,
    "imag": lambda x: x.imag if x.is_complex() else x[...],
    "as real": lambda x: module_of(x).view_as_real(x) if x.is_complex() else x[...],
    "as complex": lambda x: x[...] if x.is_complex() else module_of(x).view_as_complex(x),
}
WRITES = {
    "add_": lambda x, w: x.add_(w),
    "mul_": lambda x, w: x.mul_(w),
    "mul_ by number": lambda x, w: x.mul_(0.5),
    "sin_": lambda x, w: x.sin_(),
    "a chain": lambda x, w: x.mul_(w).sub_(x * 0.3).cos_(),
    "addcmul_": lambda x, w: x.addcmul_(w, w, value=0.5),
    "lerp_": lambda x, w: x.lerp_(w.expand(x.shape), 0.25),
    "zero_": lambda x, w: single(x).zero_(),
    "fill_": lambda x, w: x.fill_(w),
    "copy_": lambda x, w: x.copy_(w * 2),
    "copy_ of a row": lambda x, w: x.copy_(w.expand(x.shape[-1:]) * 2),
    "copy_ of itself": lambda x, w: x.copy_(x.flip(0) * w),
    "set": lambda x, w: single(x).__setitem__(0 if x.ndim else (), w),
    "set all": lambda x, w: single(x).__setitem__(slice(None) if x.ndim else (), w * w),
    "set where": lambda x, w: single(x).__setitem__(x.abs() > 0.8, w),
    "set at": lambda x, w: single(x).__setitem__(index(x) - 1 if x.ndim else (), w * 3),
    "masked_fill_": lambda x, w: single(x).masked_fill_(x.abs() > 0.8, w),
    "index_add_": lambda x, w: x.index_add_(0, index(x), x.detach()[:1] * w),
    "index_fill_": lambda x, w: single(x).index_fill_(0, index(x), w),
    "index_put_": lambda x, w: single(x).index_put_((index(x),), w, accumulate=True),
    "scatter_": lambda x, w: x.scatter_(0, index(x), w.expand(1)) if x.ndim == 1 else x.mul_(w),
    "scatter_add_": lambda x, w: x.scatter_add_(0, index(x), w.expand(1)),
    "+= itself": lambda x, w: x.__iadd__(x * w),
    "no_grad": None,
}


def module_of(x: Any) -> Any:
    return torch if isinstance(x, torch.Tensor) else refgrad


def single(x: Any) -> Any:
    """`x`, where each element has a place of its own: PyTorch is lenient in part where not."""
    return x.add_(1) if repeats(x) else x


def repeats(x: Any) -> bool:
    return any(s == 0 and n > 1 for s, n in zip(x.stride(), x.shape, strict=True))


def index(x: Any) -> Any:
    return module_of(x).tensor([0])


def steps(views: dict[str, Any]) -> st.SearchStrategy[list[tuple[str, int, str]]]:
    """Plans: what is done to which tensor of the family, by which view or write."""
    which = st.integers(0, 9)
    return st.lists(
        st.one_of(
            st.tuples(st.just("view"), which, st.sampled_from(sorted(views))),
            st.tuples(st.just("write"), which, st.sampled_from(sorted(WRITES))),
            st.tuples(st.just("use"), which, st.just("")),
        ),
        min_size=1,
        max_size=9,
    )


def run(t: Any, plan: list[tuple[str, int, str]], differentiable: bool, kind: str) -> Any:
    """Every value, whether it requires grad, and the gradients; or the error's class."""
    values = np.linspace(0.3, 2.1, 6).reshape(2, 3)
    if kind == "complex":
        values = values * np.exp(1j * values)
    dtype = t.complex128 if kind == "complex" else t.float64
    x = t.tensor(values, requires_grad=True)
    w = t.tensor(0.7 - 0.4j if kind == "complex" else 0.7, dtype=dtype, requires_grad=True)
    base = x if differentiable else t.zeros(2, 3, dtype=dtype)
    if kind == "by columns":
        base = (base.t() * 1).contiguous().t()
    base = base * 1
    family, used = [base], []
    try:
        for what, i, name in plan:
            for a in family:
                a.grad_fn
            a = family[i % len(family)]
            if what == "view":
                family.append((VIEWS | OF_COMPLEX)[name](a))
            elif what == "use":
                used.append(real((a * a).sum()) * (len(used) + 1))
            elif name == "no_grad":
                with t.no_grad():
                    a.add_(1.0)
            else:
                WRITES[name](a, w if a.is_complex() else real(w))
        total = real(w * 1)
        for k, a in enumerate(family):
            total = total + real((a * (k + 1)).sum()) + real((a * a * 0.1).sum())
            if a.is_complex():
                total = total + a.imag.sum()
        for u in used:
            total = total + u
        total.backward()
    except (RuntimeError, IndexError) as error:
        return type(error).__name__
    return (
        [a.detach().numpy().copy() for a in family],
        [bool(a.requires_grad) for a in family],
        [None if g is None else g.resolve_conj().numpy().copy() for g in (x.grad, w.grad)],
    )


def real(x: Any) -> Any:
    return x.real if x.is_complex() else x


def agree(plan: list[tuple[str, int, str]], differentiable: bool, kind: str) -> None:
    theirs = run(torch, plan, differentiable, kind)
    ours = run(refgrad, plan, differentiable, kind)
    if isinstance(theirs, str) or isinstance(ours, str):
        assert ours == theirs
        return
    for a, b in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert ours[1] == theirs[1]
    for a, b in zip(ours[2], theirs[2], strict=True):
        assert (a is None or not a.any()) if b is None else a is not None or not b.any()
        if a is not None and b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@settings(max_examples=1200)
@given(
    plan=steps(VIEWS),
    differentiable=st.booleans(),
    kind=st.sampled_from(["real", "real", "by columns"]),
)
def test_sequences_of_views_and_writes(
    plan: list[tuple[str, int, str]], differentiable: bool, kind: str
) -> None:
    agree(plan, differentiable, kind)


@settings(max_examples=600)
@given(plan=steps(VIEWS | OF_COMPLEX), differentiable=st.booleans())
def test_sequences_of_complex_views_and_writes(
    plan: list[tuple[str, int, str]], differentiable: bool
) -> None:
    agree(plan, differentiable, "complex")


class TestErrors:
    def test_a_write_to_one_of_several_views(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(2, 2, requires_grad=True) * 1
            x.unbind(0)[0].add_(1)

        both_raise(code, match="multiple views")

    def test_a_write_to_a_view_of_a_leaf(self) -> None:
        both_raise(
            lambda t: t.ones(3, requires_grad=True)[1:].mul_(2),
            match="a view of a leaf Variable that requires grad",
        )

    def test_a_view_made_without_grad(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(3, requires_grad=True) * 1
            with t.no_grad():
                v = x[1:]
            v.mul_(2)

        both_raise(code, match="no_grad mode")

    def test_a_write_to_an_expanded_tensor(self) -> None:
        both_raise(lambda t: t.ones(1).expand(3).add_(1), match="single memory location")


@pytest.mark.parametrize("name", ["transpose", "diagonal", "column", "strided"])
def test_second_order_through_a_written_view(name: str) -> None:
    views = {
        "transpose": lambda y: y.t(),
        "diagonal": lambda y: y.diagonal(),
        "column": lambda y: y[:, 1],
        "strided": lambda y: y[::2, 1:],
    }

    def code(t: Any) -> Any:
        x = t.tensor(np.linspace(0.5, 1.5, 9).reshape(3, 3), requires_grad=True)
        y = x * x
        views[name](y).mul_(2).add_(x[0, 0])
        (g,) = t.autograd.grad((y**2).sum(), x, create_graph=True)
        return t.autograd.grad((g**2).sum(), x)

    both(code)


OTHERWISE = {  # what shares memory where PyTorch's does not, or the contrary
    "conj": "PyTorch's conjugate is a view that conjugates as it is read",
    "double": "PyTorch copies for a memory format, which refgrad has not",
    "ormqr": "of an empty matrix refgrad gives back the other",
    "ravel": "of a tensor with gaps refgrad gives a view where PyTorch copies",
    "sum_to_size": "of a 0-d tensor to () refgrad gives the tensor itself",
    "to": "PyTorch copies for a memory format, which refgrad has not",
    "zero_": "it has no form that is not in place",
}


class TestMemory:
    """What shares memory with an argument is a view of it, or the argument; and as in PyTorch."""

    def test_results_share_what_torch_shares(self) -> None:
        count = 0
        for entry in op_db:
            function = resolve(entry.name)
            dtype = torch.float64 if torch.float64 in entry.dtypes else torch.complex128
            if function is None or dtype not in entry.dtypes or entry.name in OTHERWISE:
                continue
            for sample in islice(entry.sample_inputs("cpu", dtype, requires_grad=False), 3):
                given = [sample.input, sample.args, sample.kwargs]
                mine = convert(given)
                try:
                    theirs = leaves(entry.op(given[0], *given[1], **given[2]), torch.Tensor)
                    ours = leaves(function(mine[0], *mine[1], **mine[2]), refgrad.Tensor)
                except Exception:  # noqa: S112  what runs is held to torch in test_opinfo
                    continue
                for a, b in zip(ours, theirs, strict=False):
                    if not b.numel():
                        continue
                    shared = [
                        a is t or np.shares_memory(a._array, t._array)
                        for t in leaves(mine, refgrad.Tensor)
                    ]
                    wanted = [
                        b.untyped_storage().data_ptr() == t.untyped_storage().data_ptr()
                        for t in leaves(given, torch.Tensor)
                    ]
                    count += 1
                    assert any(shared) == any(wanted), entry.name
                    assert (
                        not any(shared)
                        or a._base is not None
                        or any(a is t for t in leaves(mine, refgrad.Tensor))
                    ), entry.name
        assert count > 800

    def test_of_one_dimension(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(4.0)
            for v in x:
                v.mul_(2)
            x.unbind()[1].add_(7)
            x.flip(0).zero_()
            x.take(t.tensor(2)).zero_()
            x[t.tensor(3)].neg_()
            return x

        both(code)

    def test_what_was_saved_is_apart_from_a_later_write(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(6.0, dtype=t.float64).reshape(2, 3).requires_grad_()
            y = x * 1
            z = y.flip(0) * x
            y.mul_(5)
            z.sum().backward()
            return x.grad

        both(code)

    def test_a_write_to_part_of_an_expanded_tensor(self) -> None:
        def code(t: Any) -> Any:
            x = t.ones(1, 3, dtype=t.float64, requires_grad=True)
            y = x * 1
            y.expand(4, 3)[0].mul_(2)
            y.expand(4, 3)[::4].add_(x)
            y.sum().backward()
            return y, x.grad

        both(code)

    @pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
    def test_what_a_norm_returns_is_contiguous(self, name: str) -> None:
        def code(t: Any) -> Any:
            x = t.arange(18.0, dtype=t.float64).reshape(3, 3, 2).permute(2, 1, 0)
            return getattr(t.nn.functional, name)(x, (3,)).view(6, 3)

        both(code)

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize(
        ("shape", "order"),
        [((2, 3), (1, 0)), ((5, 4, 3, 2), (3, 2, 1, 0)), ((2, 4, 5, 3), (0, 3, 1, 2))],
    )
    def test_batch_norm_keeps_channels_last_alone(
        self, shape: tuple[int, ...], order: tuple[int, ...], training: bool
    ) -> None:
        def code(t: Any) -> Any:
            x = t.rand(shape, dtype=t.float64).permute(order)
            n = x.shape[1]
            of = t.zeros(n, dtype=t.float64), t.ones(n, dtype=t.float64)
            y = t.nn.functional.batch_norm(x, *of, training=training)
            return y.stride(), y.is_contiguous(), y.is_contiguous(memory_format=t.channels_last)

        both(code)

    @pytest.mark.parametrize(
        ("name", "more"),
        [("max_pool2d", (2,)), ("adaptive_max_pool2d", (1,))],
    )
    def test_the_maxima_of_a_pool_may_be_written_over(self, name: str, more: Any) -> None:
        def code(t: Any) -> Any:
            x = t.arange(16.0, dtype=t.float64).reshape(1, 4, 4).requires_grad_()
            y = getattr(t.nn.functional, name)(x * 1, *more)
            y.mul_(2.0).sum().backward()
            return x.grad

        both(code)

    @pytest.mark.parametrize(
        ("name", "more"),
        [("softmax", (0,)), ("log_softmax", (1,)), ("cumsum", (0,)), ("cumprod", (1,)),
         ("logcumsumexp", (0,)), ("tril", ()), ("triu", ()), ("roll", (1, 0)), ("matmul", None),
         ("sum", (0, True)), ("mean", (2, True)), ("prod", (0, True)), ("masked_fill", None)],
    )  # fmt: skip
    def test_what_is_laid_out_anew_is_contiguous(self, name: str, more: Any) -> None:
        def code(t: Any) -> Any:
            x = t.arange(12.0, dtype=t.float64).reshape(2, 3, 2).permute(2, 1, 0)
            given = {"matmul": (x.mT,), "masked_fill": (x > 3, 0.5)}.get(name, more)
            return getattr(t, name)(x, *given).view(-1)

        both(code)

    @pytest.mark.parametrize("equation", ["bij,bjk->bik", "bij,kbj->kbi", "bij,bij->bi"])
    def test_a_sum_of_products_is_contiguous(self, equation: str) -> None:
        def code(t: Any) -> Any:
            x = t.arange(8.0, dtype=t.float64).reshape(2, 2, 2)
            return t.einsum(equation, x[:1].mT, x[:, :1] if "kb" in equation else x[1:]).view(-1)

        both(code)

    def test_products_without_a_sum_keep_their_layout(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(4.0, dtype=t.float64).reshape(2, 2)
            y = t.einsum("ij,ij->ji", x, x)
            z = y.flatten()  # a copy
            y.mul_(2)
            return z, y.is_contiguous()

        both(code)

    def test_a_0d_integer_tensor_selects_a_view(self) -> None:
        def code(t: Any) -> Any:
            x = t.arange(5.0, dtype=t.float64, requires_grad=True)
            y = x * 2
            y[(t.tensor(2),)].mul_(3)
            y[t.tensor(-1)].zero_()
            (y * y).sum().backward()
            return y, x.grad

        both(code)

    @pytest.mark.parametrize(
        "view",
        [
            lambda y, n: y.view(n, 2, 2),
            lambda y, n: y.reshape((1, n, 2, 2)),
            lambda y, n: y.expand(n, 4).reshape(n, 4)[:, n:],
            lambda y, n: y[n - 1 : n],
            lambda y, n: y.narrow(0, n, 2),
            lambda y, n: y.as_strided((n, 2), (n, 1)),
        ],
    )
    def test_a_size_that_is_a_tensor_is_what_it_was_when_the_view_was_made(self, view: Any) -> None:
        def code(t: Any) -> Any:
            x = t.arange(4.0, dtype=t.float64, requires_grad=True)
            y, n = x * 2, t.tensor(1)
            z = view(y, n)
            z[0] = 7.0
            n.add_(5)
            again = z * x.sum()
            (first,) = t.autograd.grad((again * z).sum() + (y * y).sum(), x, create_graph=True)
            return again, first, t.autograd.grad((first * first).sum(), x)

        both(code)

    def test_a_view_beyond_its_tensor_sends_its_gradient_there(self) -> None:
        x = refgrad.arange(6.0, dtype=refgrad.float64).reshape(2, 3).requires_grad_()
        (x * 1)[0].as_strided((2,), (1,), 3).sum().backward()  # PyTorch: zeros
        np.testing.assert_array_equal(x.grad.numpy(), [[0, 0, 0], [1, 1, 0]])

    def test_reads_out_of_the_memory_are_refused(self) -> None:
        both_raise(lambda t: t.zeros(3).as_strided((4,), (1,)), match="out of bounds for storage")
        both_raise(lambda t: t.zeros(3).as_strided((2,), (-1,)), match="Negative strides")
        both_raise(lambda t: t.zeros(3).as_strided((2,), (1, 1)), match="mismatch in length")
