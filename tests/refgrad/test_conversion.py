"""refgrad's tensor, as_tensor, asarray, from_numpy and frombuffer against torch's."""

import array
import enum
import fractions

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import refgrad

from .both import both

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Colour(enum.IntEnum):
    RED = 3


class Arrayed:
    def __array__(self, dtype=None, copy=None):
        return np.arange(3.0)


class Floating:
    def __float__(self):
        return 2.5


def said(module, code, **names):
    """What code gives: the text of its result, or its error's class."""
    names |= {"T": module, "np": np, "array": array, "Colour": Colour, "Floating": Floating,
              "Arrayed": Arrayed, "fractions": fractions}  # fmt: skip
    try:
        return repr(eval(code, names))
    except Exception as error:
        return type(error).__name__


LITERALS = """
    1 | 1.0 | True | 1j | -0.0 | float('nan') | [] | [[]] | [[], []] | [[], [1]] | () | (1, 2)
    [1, 2.5, True] | [True, 2] | [1, 1j] | [True, False] | [[1, 2], (3, 4.0)] | range(3) | range(0)
    [[1, 2], [3]] | [[1], [2, 3]] | [1, [2]] | [[1], 2] | [[[1]], [[2, 3]]] | [1.5, [2]]
    None | [None] | [1, None] | [1.5, None] | 'a' | ['a'] | [1, 'a'] | b'ab' | [b'a'] | {} | {1, 2}
    [{1: 2}] | object() | [object()] | Arrayed() | Floating() | [Floating()] | Colour.RED
    fractions.Fraction(1, 2) | array.array('d', [1, 2]) | bytearray(b'abc') | memoryview(b'abc')
    np.float64(3) | np.float32(3) | np.int8(3) | np.bool_(True) | np.complex64(1j)
    [np.float64(3)] | [np.float32(3)] | [np.float32(3), 1.0] | [np.int8(3)] | [np.int8(3), 2.5]
    [np.int32(3), True] | [np.bool_(True)] | [np.float16(1), np.float32(1)]
    np.arange(3) | np.arange(3.0) | np.zeros((2, 0)) | np.array(1.5) | np.array(['a'])
    np.array([1], '>f4') | np.arange(5)[::-1] | np.array([None]) | np.zeros(2, 'M8[s]')
    [np.arange(3.0), np.arange(3.0)] | [np.arange(3), [1.0, 2, 3]] | [np.array(1.0)]
    [np.zeros((0, 2))] | [T.tensor(1.0), T.tensor(2)] | [T.ones(1, dtype=T.float64), 2]
    [T.ones(1)] | [T.ones(2)] | T.ones(2) | T.arange(2) | T.ones(2, requires_grad=True)
    2**62 | 2**63 | -2**63 | -2**63 - 1 | 2**64 | [2**63] | [10**30, 1.5] | [1.5, 10**30] | 10**400
"""
LITERALS = [text.strip() for line in LITERALS.strip().split("\n") for text in line.split(" | ")]


BUFFERS = ("array.", "bytearray", "memoryview", "b'")  # which asarray reads as such: see OPTIONS


@pytest.mark.parametrize(
    ("function", "literal"),
    [
        (function, literal)
        for function in ("tensor", "as_tensor", "asarray")
        for literal in LITERALS
        if not (function == "asarray" and literal.startswith(BUFFERS))
    ],
)
def test_a_value_becomes_what_it_becomes_in_torch(function, literal):
    code = f"T.{function}({literal})"
    assert said(refgrad, code) == said(torch, code)


@pytest.mark.parametrize("literal", [
    "1.7", "-1.7", "[1.7, 2]", "300", "-1", "-255", "-256", "[2**40]", "float('nan')",
    "[float('inf')]", "1j", "[1j]", "True", "[0, 2]", "[2**63]", "1e300", "[10**30]", "[]", "[[]]",
    "[1, None]", "[1, [2]]", "np.array([1.7, -3.2])", "np.array([1 + 2j])", "np.array([300])",
    "np.float64(1.7)", "T.tensor([1.5])", "[T.tensor(2), 1]", "[T.tensor(True)]", "1.5", "127.5",
    "-0.5", "[Colour.RED]",
])  # fmt: skip
@pytest.mark.parametrize("dtype", [
    "T.bool", "T.uint8", "T.int8", "T.int32", "T.int64", "T.float16", "T.float32", "T.float64",
    "T.complex64", "T.uint16", "float", "int", "bool", "complex", "None",
])  # fmt: skip
def test_a_value_in_a_dtype_is_torchs(literal, dtype):
    code = f"T.tensor({literal}, dtype={dtype})"
    assert said(refgrad, code) == said(torch, code)


OPTIONS = """
T.tensor([2**64 - 1, True], dtype=T.uint64)
T.tensor([-1], dtype=T.uint64)
T.tensor([Floating()], dtype=T.float32)
T.tensor([Floating()], dtype=T.int32)
T.tensor([1.0], requires_grad=True)
T.tensor([1j], requires_grad=True)
T.tensor([1], requires_grad=True)
T.tensor([True], requires_grad=True)
T.tensor([1.0], device='cpu', dtype=T.float64)
T.tensor([1.0], device='foo')
T.tensor([1.0], dtype=np.float32)
T.tensor([1.0], dtype='float32')
T.tensor([1.0], foo=1)
T.tensor(data=[1])
T.tensor(1, 2)
T.tensor()
T.tensor([1.0], pin_memory=True)
T.as_tensor([1.0], requires_grad=True)
T.as_tensor([1.5, 2], dtype=T.int64)
T.as_tensor(np.arange(2), T.float32)
T.as_tensor(T.ones(2), dtype=T.float64)
T.asarray([1.0], requires_grad=True)
T.asarray([1], requires_grad=True)
T.asarray(np.ones(2), requires_grad=True)
T.asarray(np.arange(3), dtype=T.float32)
T.asarray(np.arange(3), copy=False)
T.asarray(np.arange(3), copy=False, dtype=T.float32)
T.asarray([1], copy=False)
T.asarray(array.array('d', [1, 2]))
T.asarray(array.array('d', [1, 2]), dtype=T.float64, copy=True)
T.asarray(bytearray(5))
T.asarray(T.ones(2, requires_grad=True), requires_grad=False)
T.asarray(T.ones(2, requires_grad=True), requires_grad=True)
T.asarray(T.ones(2, requires_grad=True), copy=True, requires_grad=True).is_leaf
T.from_numpy([1])
T.from_numpy(np.float64(1))
T.from_numpy(np.array(1.0))
T.from_numpy(np.arange(5)[::-1])
T.from_numpy(np.zeros(3, [('a', 'i1'), ('b', 'f4')])['b'])
T.frombuffer(bytearray(8), dtype=T.int32)
T.frombuffer(bytearray(b'12345678'), dtype=T.uint8, count=2, offset=3)
T.frombuffer(bytearray(8), dtype=T.float32, requires_grad=True)
T.frombuffer(bytearray(7), dtype=T.int32)
T.frombuffer(bytearray(0), dtype=T.int32)
T.frombuffer(bytearray(8), dtype=T.int32, offset=8)
T.frombuffer(bytearray(8), dtype=T.int32, count=3)
T.frombuffer(bytearray(8))
T.ones(2, dtype=T.float64).new_tensor([1, 2])
T.arange(2).new_tensor([1.5])
T.arange(2).new_tensor(np.array([1.5]))
T.arange(2).new_tensor([1.5], dtype=T.float32, requires_grad=True)
"""


@pytest.mark.parametrize("code", OPTIONS.strip().split("\n"))
def test_options_do_what_torchs_do(code):
    assert said(refgrad, code) == said(torch, code)


numbers = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.complex_numbers()


@given(st.recursive(numbers, lambda inner: st.lists(inner, max_size=3), max_leaves=8))
def test_nested_lists_become_what_they_become_in_torch(nested):
    ours, theirs = (said(module, "T.tensor(x)", x=nested) for module in (refgrad, torch))
    if not {ours, theirs} <= {"TypeError", "ValueError"}:  # of two faults either may be named
        assert ours == theirs


@pytest.mark.parametrize("default", ["float16", "float64"])
@pytest.mark.parametrize("literal", ["1.5", "[1, 2.5]", "[]", "[1]", "[np.float32(1), 2.0]"])
def test_python_floats_become_the_default_dtype(default, literal):
    try:
        for module in (refgrad, torch):
            module.set_default_dtype(getattr(module, default))
        code = f"T.tensor({literal})"
        assert said(refgrad, code) == said(torch, code)
    finally:
        for module in (refgrad, torch):
            module.set_default_dtype(module.float32)


def test_memory_is_shared_where_torch_shares_it():
    def code(T):
        seen = []
        for make in (T.from_numpy, T.as_tensor, T.asarray, T.tensor,
                     lambda a: T.as_tensor(a, dtype=T.float32)):  # fmt: skip
            array = np.zeros(3)
            made = make(array)
            array[0] = 1
            seen.append(made)
        raw = bytearray(2)
        seen.append(T.frombuffer(raw, dtype=T.uint8))
        raw[0] = 7
        return seen

    both(code)


def test_strides_are_kept():
    def code(T):
        array = np.arange(12.0).reshape(3, 4).T[::2]
        return [make(array).stride() for make in (T.from_numpy, T.as_tensor, T.tensor)]

    both(code)


def test_as_tensor_keeps_the_graph_and_tensor_does_not():
    def code(T):
        x = T.ones(2, requires_grad=True)
        assert T.as_tensor(x) is T.asarray(x, requires_grad=True) is x
        doubled = T.as_tensor(x * 2, dtype=T.float64)
        doubled.sum().backward()
        return [x.grad, T.tensor(x).requires_grad, T.asarray(x * 2, requires_grad=True).is_leaf]

    both(code)


def test_copying_a_tensor_with_tensor_warns_as_torch_does():
    for module in (torch, refgrad):
        with pytest.warns(UserWarning, match=r"recommended to use sourceTensor.detach\(\).clone"):
            module.tensor(module.ones(1))
