"""What stands in brackets: lists as PyTorch reads them, and indices that are tensors."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest

from tests.refgrad.both import both, both_raise

LISTS = {
    "of lists": lambda t: [[0, 1], [2, 2]],
    "of one list": lambda t: [[0, 1]],
    "of one list of one": lambda t: [[[0, 1]]],
    "of nested lists": lambda t: [[[0, 1], [1, 2]], [[0, 0], [1, 1]]],
    "of tensors": lambda t: [t.tensor([0, 1]), t.tensor([2, 2])],
    "of a mask": lambda t: [t.tensor([True, False, True, False])],
    "of masks as lists": lambda t: [[True, False, True, False], [0, 1]],
    "of a tensor and a list": lambda t: [t.tensor([0, 1]), [2, 2]],
    "of 0-d tensors": lambda t: [t.tensor(0), t.tensor(1)],
    "of a 0-d tensor and a number": lambda t: [t.tensor(3), 1],
    "of lists of 0-d tensors": lambda t: [[t.tensor(0), t.tensor(1)], [t.tensor(2), 1]],
    "of tuples": lambda t: [(0, 1), (2, 2)],
    "of ranges": lambda t: [range(2), range(2)],
    "of arrays": lambda t: [np.array([0, 1]), np.array([2, 2])],
    "of a number and a list": lambda t: [0, [1, 2]],
    "of a slice": lambda t: [slice(0, 2), 0],
    "of an ellipsis": lambda t: [..., 0],
    "of None": lambda t: [None, 0],
    "of nothing": lambda t: [],
    "of an empty list": lambda t: [[]],
    "of numbers": lambda t: [0, 3, 3],
    "of a mask's numbers": lambda t: [True, False, True, False],
    "of 31 numbers and a list": lambda t: [[0, 3]] * 32,
    "that is a range": lambda t: range(2),
    "in a tuple": lambda t: ([[0, 1], [2, 2]],),
    "of 0-d tensors in a tuple": lambda t: ([t.tensor(0), t.tensor(1)],),
}


def with_warnings(code: Any) -> Any:
    """What `code` returns, and how often it warned of a sequence that is no tuple."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = code()
    return made, sum("non-tuple sequence" in str(w.message) for w in caught)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_read(name: str) -> None:
    def code(t: Any) -> Any:
        x = t.arange(24.0, dtype=t.float64).reshape(4, 3, 2).requires_grad_()
        y, warned = with_warnings(lambda: x[LISTS[name](t)])
        (first,) = t.autograd.grad((y**3).sum(), x, create_graph=True)
        return y, warned, first, t.autograd.grad((first**2).sum(), x)

    both(code)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_written_to(name: str) -> None:
    def code(t: Any) -> Any:
        x = t.arange(24.0, dtype=t.float64).reshape(4, 3, 2).requires_grad_()
        y = x * 1
        _, warned = with_warnings(lambda: y.__setitem__(LISTS[name](t), x[0, 0, 1] * 5))
        return y, warned, t.autograd.grad((y**2).sum(), x)

    both(code)


def test_too_many_parts_of_a_list() -> None:
    both_raise(
        lambda t: with_warnings(lambda: t.zeros(3)[[[0], [0]]]), match=re.escape("too many indices")
    )


@pytest.mark.parametrize(
    "index",
    [lambda n: n, lambda n: (slice(None), n), lambda n: slice(n, None), lambda n: slice(None, n)],
)
@pytest.mark.parametrize("write", [False, True])
def test_an_index_is_what_it_was_when_it_was_read(index: Any, write: bool) -> None:
    def code(t: Any) -> Any:
        x = t.arange(9.0, dtype=t.float64).reshape(3, 3).requires_grad_()
        y, n = x * 1, t.tensor(1)
        if write:
            y[index(n)] = x[0, 0]
        else:
            y = y[index(n)]
        n.add_(1)
        return y, t.autograd.grad((y * y).sum(), x)

    both(code)


# --- many slices of one tensor --------------------------------------------------------------------


def _of_slices(read: Any, hook: bool = False, leaf: bool = False) -> Any:
    """The gradient where `read` takes several parts of one tensor, a leaf or what a leaf made."""

    def code(m: Any) -> Any:
        x = m.from_numpy(np.arange(1.0, 21.0).reshape(5, 4)).requires_grad_()
        y = x if leaf else x * 1.5
        seen: list[Any] = []
        if hook:
            y.register_hook(lambda g: seen.append(g.clone()))
        total = read(m, y)
        total.backward()
        return x.grad, seen

    return code


READS = {
    "rows and columns": lambda m, y: (y[0] * y[:, 1].sum() + y[1] * y[2]).sum(),
    "rows by number": lambda m, y: (y[m.tensor([0, 0, 2])] * y[1:4]).sum() + y[0, 0] * y[-1, -1],
    "a mask": lambda m, y: (y[y > 7.0].prod() * 1e-12 + y[1] * y[y > 3.0][:4]).sum(),
    "steps": lambda m, y: (y[::2, 1:] * y[1:4, :3]).sum() + (y[..., None, 0] * y[:, 3:]).sum(),
    "beside the whole": lambda m, y: (y * y).sum() + y[2].prod() + y[2].sum(),
    "halves": lambda m, y: (y.chunk(2, 1)[0] * y.narrow(1, 2, 2)).sum() + y.unbind(0)[3].prod(),
    "of a sum": lambda m, y: (lambda s: s[...] * s + s[None].sum())(y.sum()),
}


@pytest.mark.parametrize("hook", [False, True])
@pytest.mark.parametrize("leaf", [False, True])
@pytest.mark.parametrize("name", READS)
def test_the_gradients_of_many_slices_add_up(name: str, leaf: bool, hook: bool) -> None:
    both(_of_slices(READS[name], hook, leaf))


def test_a_gradient_that_a_hook_kept_is_not_written_to() -> None:
    def code(m: Any) -> Any:
        x = m.from_numpy(np.arange(1.0, 9.0).reshape(2, 4)).requires_grad_()
        y = x * 1.0
        z = y * 2.0
        kept: list[Any] = []
        z.register_hook(kept.append)
        w = y + z  # the gradient of z is that of w, and that of y to begin with
        (w * w + y[0] * y[1]).sum().backward()
        return x.grad, [k.detach() for k in kept]

    both(code)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "float32"])
@pytest.mark.parametrize("name", ["gather", "scatter", "scatter_add"])
def test_an_index_of_another_dtype(name: str, dtype: str) -> None:
    def code(t: Any) -> Any:
        index = t.tensor([-1]).to(getattr(t, dtype))
        rest = () if name == "gather" else (t.ones(1),)
        return getattr(t, name)(t.zeros(300), 0, index, *rest)

    both_raise(code, match=r"Expected dtype int32/int64 for index")


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("place", [-1, 3])
def test_an_index_out_of_bounds(dtype: str, place: int) -> None:
    def code(t: Any) -> Any:
        return t.gather(t.zeros(3), 0, t.tensor([0, place]).to(getattr(t, dtype)))

    both_raise(code, match=f"index {place} is out of bounds for dimension 0 with size 3")
