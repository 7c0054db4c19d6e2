"""refgrad's functions that make tensors of a size against torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import refgrad

from .both import both


def said(module, code):
    """What code gives: the text of its result, or its error's class."""
    try:
        return repr(eval(code, {"T": module, "np": np}))
    except Exception as error:
        return type(error).__name__


SIZES = """
2, 3 | (2, 3) | [2, 3] | () | [] | size=(2,) | | -1 | (2, -1) | 2.0 | (2, 3.0) | 'a' | None | 2, [3]
[2], 3 | T.tensor(2) | T.tensor(2), 3 | np.int64(2) | (np.int64(2), T.tensor(3)) | True | (2, True)
T.Size([2, 3]) | T.tensor([2, 3]) | T.tensor(2.0) | 2, size=(2,) | 0 | 2, 0 | 2, dtype=T.int32
2, dtype=float | 2, dtype=T.complex64 | 2, dtype='float' | 2, requires_grad=True | 2, foo=1
2, dtype=T.int64, requires_grad=True | 2, device='cpu' | 2, device='foo' | 2, device=None
2, layout=T.strided | 2, layout=3 | 2, pin_memory=False | 2, pin_memory=True | 2, dtype=T.bool
"""


@pytest.mark.parametrize("arguments", [a for line in SIZES.strip().split("\n")
                                       for a in line.split(" | ")])  # fmt: skip
@pytest.mark.parametrize(
    "function",
    [
        "zeros",
        "ones",
        "(lambda *a, **k: T.empty(*a, **k).shape)",
        "arange(2).new_zeros",
        "ones(1).double().new_ones",
    ],
)
def test_a_size_and_options_mean_what_they_mean_in_torch(function, arguments):
    code = f"{function if function[0] == '(' else 'T.' + function}({arguments})"
    assert said(refgrad, code) == said(torch, code)


OTHERS = """
T.full((2,), 3) | T.full((2,), 3.0) | T.full((2,), True) | T.full((2,), 1j) | T.full([], 3.0)
T.full((2,), 3, dtype=T.float64) | T.full((2,), 3.7, dtype=T.int64) | T.full((2,), 2, dtype=T.bool)
T.full((2,), T.tensor(3.0)) | T.full((2,), T.tensor(3)) | T.full((2,), T.tensor([3]))
T.full((2,), T.tensor(3.0, dtype=T.float64)) | T.full((2,), T.tensor(1.0, requires_grad=True))
T.full(2, 3) | T.full((2,), 'a') | T.full((2,), None) | T.full((2,)) | T.full((-2,), 3)
T.full((2,), 300, dtype=T.uint8) | T.full((2,), -1, dtype=T.uint8)
T.full((2,), 2**40, dtype=T.int32) | T.full((2,), -256, dtype=T.uint8)
T.full((2,), -0.5, dtype=T.uint8) | T.full((2,), 2**63) | T.full((2,), float('inf'), dtype=T.int32)
T.full((2,), float('nan'), dtype=T.int64) | T.full((2,), 1e300)
T.full((2,), 1e5, dtype=T.float16) | T.full((2,), 1e300 + 1j) | T.full((2,), float('inf'))
T.full((2,), 1j, dtype=T.float32) | T.full((2,), np.float32(1.5)) | T.full((2,), np.int8(1))
T.full(size=(2,), fill_value=3) | T.full((2,), 3.0, requires_grad=True)
T.full((2,), 3, requires_grad=True) | T.full((2,), -1, dtype=T.uint64) | T.scalar_tensor(3)
T.scalar_tensor(2.5, dtype=T.int32) | T.scalar_tensor([1]) | T.eye(3) | T.eye(2, 3) | T.eye(0)
T.eye(-1) | T.eye(2, -3) | T.eye(2, dtype=T.bool) | T.eye(2, m=3) | T.eye(n=2) | T.eye(2.0)
T.eye(True) | T.eye(2, requires_grad=True) | T.eye(2, dtype=T.complex64)
T.zeros_like(T.ones(2, 3)) | T.zeros_like(T.arange(3)) | T.ones_like(T.arange(2), dtype=T.float64)
T.zeros_like(3.0) | T.zeros_like(np.ones(3)) | T.zeros_like([1.0])
T.zeros_like(T.ones(1), T.int32) | T.zeros_like(T.ones(2), requires_grad=True)
T.zeros_like(T.ones(2, requires_grad=True)) | T.zeros_like(T.arange(2), requires_grad=True)
T.zeros_like(T.ones(1), foo=3) | T.full_like(T.arange(2), 2.5) | T.full_like(T.ones(2), True)
T.full_like(T.ones(2), 1j) | T.full_like(T.ones(2), T.tensor(3.0))
T.full_like(T.ones(2), 3, dtype=T.int32) | T.full_like(T.ones(2), 'a')
T.empty_like(T.ones(2, 3), dtype=T.int8).shape
T.empty(2, 3, 4, 5, memory_format=T.channels_last).stride()
T.zeros_like(T.zeros(2, 3, 4, 5), memory_format=T.channels_last).stride()
T.zeros_like(T.ones(2, 3).t(), memory_format=T.contiguous_format).stride()
T.empty(2, 3, memory_format=T.channels_last)
T.empty_strided((2, 3), (1, 2), dtype=T.int32).stride() | T.empty_strided((2, 3), (1,))
T.empty_strided((2,), (-1,)) | T.empty_strided((2, 0), (5, 5)).shape | T.ones(2).new_full((2,), 3)
T.arange(2).new_full((2,), 3.5) | T.ones(2).new_empty(3).shape
T.ones(2).new_empty_strided((2, 2), (1, 2), dtype=T.int8).stride() | T.arange(5) | T.arange(5.0)
T.arange(1, 5) | T.arange(1, 5, 2) | T.arange(1, 5, 0.5) | T.arange(5, 1) | T.arange(5, 1, -1)
T.arange(1, 5, 0) | T.arange(1, 5, 0.0) | T.arange(0) | T.arange(-3) | T.arange(2.5)
T.arange(5, dtype=T.int32) | T.arange(0.5, 5, dtype=T.int32) | T.arange(0, 5, 1.5, dtype=T.int32)
T.arange(0, 5, 1.5, dtype=T.int64) | T.arange(0.0, 1.0, 0.25, dtype=T.uint8) | T.arange(end=4)
T.arange(start=1, end=4) | T.arange(1, end=4) | T.arange(start=1, end=4, step=2) | T.arange()
T.arange(T.tensor(5)) | T.arange(T.tensor(5.0)) | T.arange(T.tensor([1])) | T.arange(np.int64(5))
T.arange(np.float64(5)) | T.arange(True) | T.arange(5, dtype=T.bool)
T.arange(5, dtype=T.complex64) | T.arange(5, dtype=T.uint16) | T.arange(1j)
T.arange(float('nan')) | T.arange(float('inf')) | T.arange('a') | T.arange(5, requires_grad=True)
T.arange(5.0, requires_grad=True) | T.arange(1, 2, 3, 4) | T.arange(2**62, 2**62 + 3)
T.linspace(0, 1, 5) | T.linspace(0, 1, steps=1) | T.linspace(0, 1, 0) | T.linspace(0, 1, -1)
T.linspace(-9, 9, 5, dtype=T.int32) | T.linspace(9, -3, 4, dtype=T.int32) | T.linspace(0, 1j, 3)
T.linspace(T.tensor(0), T.tensor(1.0), 3) | T.linspace(T.tensor([1.0]), 1, 3) | T.linspace(0, 1)
T.linspace(0, 1, 2.0) | T.linspace(0, 1, 3, dtype=T.bool) | T.linspace(0, 1, 5, requires_grad=True)
T.linspace(start=0, end=1, steps=3) | T.linspace(0, 300, 3, dtype=T.uint8) | T.logspace(0, 2, 3)
T.logspace(0, 2, 3, base=2) | T.logspace(0, 2, 3, -2.0) | T.logspace(0, 1, 0)
T.logspace(0, 1, 5, dtype=T.int64) | T.logspace(0.5, 1, 1, dtype=T.int64) | T.logspace(0, 1, -3)
T.logspace(0, 1j, 3) | T.logspace(0, 1, 3, dtype=T.bool) | T.tril_indices(3, 4)
T.tril_indices(3, 4, 1) | T.tril_indices(3, 4, -1, dtype=T.int32) | T.tril_indices(3, 4, offset=-5)
T.triu_indices(3, 4, 1) | T.triu_indices(0, 4) | T.triu_indices(3, -1)
T.tril_indices(2, 2, dtype=T.float32) | T.triu_indices(3, 3, -2)
"""


@pytest.mark.parametrize("code", [c for line in OTHERS.strip().split("\n")
                                  for c in line.split(" | ")])  # fmt: skip
def test_a_call_gives_what_it_gives_in_torch(code):
    assert said(refgrad, code) == said(torch, code)


DTYPES = st.sampled_from([None, "float16", "float32", "float64", "complex128"])
BOUNDS = st.integers(-20, 20) | st.floats(-5, 5).map(lambda x: round(x, 3))


def options(T, dtype):
    return {} if dtype is None else {"dtype": getattr(T, dtype)}


def agree(code):
    """Both give the same shape and dtype, and values equal but for the last bits."""
    ours, theirs = code(refgrad), code(torch)
    assert repr(ours.dtype) == repr(theirs.dtype)
    a, b = ours.numpy(), theirs.numpy()
    eps = float(np.finfo(b.dtype).eps) if b.dtype.kind in "fc" else 0
    np.testing.assert_allclose(a, b, rtol=4 * eps, atol=4 * eps * np.abs(b).max(initial=0))


@given(BOUNDS, BOUNDS, st.sampled_from([0, 1, 2, 3, 10, 33]), DTYPES)
def test_linspace_and_logspace_agree_with_torchs(start, end, steps, dtype):
    agree(lambda T: T.linspace(start, end, steps, **options(T, dtype)))
    agree(lambda T: T.logspace(start / 8, end / 8, steps, 2.0, **options(T, dtype)))


@given(BOUNDS, BOUNDS, st.sampled_from([1, 2, 0.5, 0.1, 0.3]), DTYPES)
def test_arange_agrees_with_torchs(start, end, step, dtype):
    dtype = "int32" if dtype == "complex128" else dtype
    step = max(step, 1) if dtype == "int32" else step
    step = -step if end < start else step
    agree(lambda T: T.arange(start, end, step, **options(T, dtype)))


@given(st.permutations(range(3)), st.lists(st.integers(1, 4), min_size=3, max_size=3),
       st.integers(1, 2))  # fmt: skip
def test_likes_keep_the_order_in_memory(order, shape, every):
    def code(T):
        x = T.zeros(shape).permute(*order)[..., ::every]
        made = T.empty_like(x)
        return [s for s, n in zip(made.stride(), made.shape, strict=True) if n > 1]

    both(code)


def test_like_of_an_expanded_tensor_has_memory_for_every_element():
    both(lambda T: T.zeros_like(T.ones(1, 3).expand(4, 3)).stride())


def test_bfloat16_says_that_numpy_lacks_it():
    with pytest.raises(TypeError, match="bfloat16 has no NumPy dtype"):
        refgrad.zeros(2, dtype=refgrad.bfloat16)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(RuntimeError, match="no array library for device 'mps'"):
        refgrad.zeros(2, device="mps")


def test_layouts_print_as_torchs():
    for name in refgrad.layouts.__all__:
        ours, theirs = getattr(refgrad, name), getattr(torch, name)
        if not isinstance(ours, type):
            assert repr(ours) == repr(theirs)
