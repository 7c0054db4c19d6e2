"""refgrad.dtypes against torch's dtypes, all pairs and categories."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import refgrad
from refgrad import dtypes
from refgrad.dtypes import ALL, DIMENSIONED, SCALAR, ZERO_DIM

OPERANDS = [(d, c) for c in (DIMENSIONED, ZERO_DIM) for d in ALL]
OPERANDS += [(d, SCALAR) for d in dtypes.PYTHON_TYPES.values()]
OUTSIDE = ("uint16", "uint32", "uint64")  # they promote with floats only
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support:UserWarning")

ATTRIBUTES = ("itemsize", "is_floating_point", "is_complex", "is_signed")


def theirs(d):
    return getattr(torch, d.name)


def said(function, *args):
    """What a call gives, as text: its result's repr, or its error's class and message."""
    try:
        return repr(function(*args))
    except (RuntimeError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


def torch_operand(d, category):
    if category is SCALAR:
        return {dtypes.bool: True, dtypes.int64: 1, dtypes.float64: 1.0}.get(d, 1j)
    return torch.empty((1,) if category is DIMENSIONED else (), dtype=theirs(d))


@pytest.fixture
def default_dtype():
    """Sets the default dtype in both libraries, and puts float32 back."""

    def set_both(d):
        dtypes.set_default_dtype(d)
        torch.set_default_dtype(theirs(d))

    yield set_both
    set_both(dtypes.float32)


@pytest.mark.parametrize("d", ALL, ids=repr)
def test_a_dtype_reads_as_torchs(d):
    assert repr(d) == str(d) == repr(theirs(d))
    for attribute in ATTRIBUTES:
        assert getattr(d, attribute) == getattr(theirs(d), attribute)
    assert repr(d.to_real()) == repr(theirs(d).to_real())
    assert said(d.to_complex) == said(theirs(d).to_complex)


ALIASES = ["half", "float", "double", "cfloat", "cdouble", "chalf", "short", "int", "long"]


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_same_object(alias):
    assert repr(getattr(dtypes, alias)) == repr(getattr(torch, alias))
    assert getattr(dtypes, alias) in ALL


@pytest.mark.parametrize("d", ALL, ids=repr)
def test_a_dtype_is_one_object(d):
    assert pickle.loads(pickle.dumps(d)) is d
    assert copy.copy(d) is copy.deepcopy(d) is d
    assert {d: 1}[d] == 1
    with pytest.raises(AttributeError):
        d.name = "other"
    with pytest.raises(TypeError):
        type(d)()


@pytest.mark.parametrize("d", ALL, ids=repr)
def test_numpys_dtype_leads_there_and_back(d):
    if d in (dtypes.bfloat16, dtypes.complex32):
        assert d.numpy_or_none is None
        with pytest.raises(TypeError, match=f"{d} has no NumPy dtype"):
            _ = d.numpy
        return
    assert dtypes.from_numpy(d.numpy) is dtypes.DTYPES[np.dtype(d.name)] is d
    assert repr(d) == repr(torch.from_numpy(np.zeros(1, d.numpy)).dtype)


@pytest.mark.parametrize("numpy_dtype", ["U3", "O", "M8[s]", "longdouble", ">f4"])
def test_numpys_other_dtypes_are_refused(numpy_dtype):
    array = np.zeros(1, numpy_dtype)
    with pytest.raises((TypeError, ValueError)) as refused:
        torch.from_numpy(array)
    with pytest.raises(refused.type):
        dtypes.from_numpy(array.dtype)


@pytest.mark.parametrize("a", ALL, ids=repr)
def test_promote_types_and_can_cast_are_torchs(a):
    for b in ALL:
        for name in ("promote_types", "can_cast"):
            ours = said(getattr(dtypes, name), a, b)
            assert ours == said(getattr(torch, name), theirs(a), theirs(b)), (name, a, b)


def test_what_is_no_dtype_is_refused():
    for call in (
        lambda: dtypes.promote_types(dtypes.int8, 3),
        lambda: dtypes.promote_types(3, dtypes.int8),
        lambda: dtypes.can_cast(3, dtypes.int8),
        lambda: dtypes.set_default_dtype("float32"),
        lambda: dtypes.set_default_dtype(dtypes.int32),
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("default", ["float32", "float64", "float16"])
def test_result_type_of_two_is_torchs(default, default_dtype):
    default_dtype(getattr(dtypes, default))
    for pair in itertools.product(OPERANDS, repeat=2):
        ours = said(dtypes.result_type, *pair)
        assert ours == said(torch.result_type, *(torch_operand(*o) for o in pair)), pair
        assert ours == said(dtypes.result_type, *pair)  # from the cache


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([d for d in ALL if d.name not in OUTSIDE]), min_size=1, max_size=4))
def test_result_type_of_one_category_is_that_of_torchs_cat(several):
    joined = torch.cat([torch.zeros(1, dtype=theirs(d)) for d in several])
    assert repr(dtypes.result_type(*[(d, DIMENSIONED) for d in several])) == repr(joined.dtype)


USUAL = [dtypes.int8, dtypes.int64, dtypes.float32, dtypes.float64, dtypes.complex64]
CATEGORIES = st.sampled_from([DIMENSIONED, ZERO_DIM])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.tuples(*[st.tuples(st.sampled_from(USUAL), CATEGORIES)] * 3))
def test_result_type_of_three_is_that_of_torchs_addcmul(operands):
    expected = torch.addcmul(*[torch_operand(*operand) for operand in operands]).dtype
    assert repr(dtypes.result_type(*operands)) == repr(expected)


def test_result_type_needs_an_operand():
    with pytest.raises(RuntimeError, match="at least one"):
        dtypes.result_type()


def test_the_default_dtype_decides_for_python_floats(default_dtype):
    integers, real = (dtypes.int64, DIMENSIONED), (dtypes.float64, SCALAR)
    assert dtypes.get_default_dtype() is dtypes.float32
    assert dtypes.result_type(integers, real) is dtypes.float32
    default_dtype(dtypes.float64)
    assert dtypes.result_type(integers, real) is dtypes.float64
    default_dtype(dtypes.bfloat16)
    assert dtypes.result_type(integers, real) is dtypes.bfloat16
    with pytest.raises(RuntimeError, match="invalid default scalar type for complex"):
        dtypes.result_type(integers, (dtypes.complex128, SCALAR))


@pytest.mark.parametrize(
    "call",
    [
        lambda T, x: T.nn.functional.gelu(x),
        lambda T, x: T.nn.functional.gelu(x, approximate="tanh"),
        lambda T, x: T.nn.functional.logsigmoid(x),
        lambda T, x: T.xlogy(x, x + 1),
        lambda T, x: T.xlogy(2.0, x),
        lambda T, x: T.special.xlog1py(x, x),
        lambda T, x: T.linalg.matrix_exp(x),
        lambda T, x: T.special.ndtr(x),
    ],
)
def test_functions_of_scipy_keep_float16(call):
    x = np.array([[0.5, 1.0], [1.5, 0.25]])
    half, double = (refgrad.from_numpy(x.astype(d)).requires_grad_() for d in ("f2", "f8"))
    for leaf in (half, double):
        call(refgrad, leaf).sum().backward()
    assert call(refgrad, half).dtype is refgrad.float16
    assert half.grad.dtype is refgrad.float16
    np.testing.assert_allclose(half.grad.numpy(), double.grad.numpy(), rtol=1e-2)
