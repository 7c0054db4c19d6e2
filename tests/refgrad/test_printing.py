"""refgrad.printing against repr of torch's tensors, character by character."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from refgrad import dtypes, printing
from refgrad.device import device

DTYPES = sorted(dtypes.DTYPES.values(), key=str)
SPECIAL = [0.0, -0.0, 1.0, -2.0, 0.5, 1e-4, 9.9e-5, 1000.0, 1001.0, 1e8, 1.5e8, 1e-300, 1e300]
SPECIAL += [np.nan, np.inf, -np.inf]


@pytest.fixture(autouse=True)
def options():
    """Every test begins and ends with the options and the default dtype as they are at first."""
    yield
    torch.set_printoptions(profile="default")
    printing.set_printoptions(profile="default")
    torch.set_default_dtype(torch.float32)
    dtypes.set_default_dtype(dtypes.float32)


def ours(array, **facts):
    return printing.format(array, dtypes.from_numpy(array.dtype), **facts)


def theirs(array):
    return repr(torch.from_numpy(np.array(array)))


def agree(array):
    assert ours(array) == theirs(array)


@st.composite
def arrays(draw, max_dims=3):
    d = draw(st.sampled_from(DTYPES)).numpy
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=max_dims, min_side=0, max_side=8))
    if d.kind in "iu":
        info = np.iinfo(d)
        small = st.integers(max(info.min, -100), 100)
        elements = draw(st.sampled_from([small, st.integers(info.min, info.max)]))
    elif d.kind == "b":
        elements = st.booleans()
    else:
        power = draw(st.sampled_from([0, 3, 9, 30]))
        numbers = draw(st.sampled_from([
            st.sampled_from(SPECIAL),
            st.integers(-10, 10).map(float),
            st.integers(-2000, 2000).map(lambda x: x / 2),
            st.floats(-(10.0**power), 10.0**power),
            st.floats(),
        ]))  # fmt: skip
        elements = st.builds(complex, numbers, numbers) if d.kind == "c" else numbers
    count = int(np.prod(shape))
    listed = draw(st.lists(elements, min_size=count, max_size=count))
    with np.errstate(over="ignore"):
        return np.array(listed, dtype=d).reshape(shape)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(arrays())
def test_arrays_print_as_torchs(array):
    agree(array)


printoptions = st.fixed_dictionaries(
    {},
    optional={
        "precision": st.sampled_from([0, 1, 8]),
        "threshold": st.sampled_from([0, 5, 50]),
        "edgeitems": st.integers(0, 4),
        "linewidth": st.sampled_from([1, 10, 40, 200]),
        "profile": st.sampled_from(["default", "short", "full"]),
        "sci_mode": st.sampled_from([True, False, None]),
    },
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(arrays(), printoptions, printoptions)
def test_printoptions_mean_what_torchs_mean(array, first, second):
    torch.set_printoptions(profile="default")
    printing.set_printoptions(profile="default")
    for chosen in (first, second):  # what the second does not name stays
        torch.set_printoptions(**chosen)
        printing.set_printoptions(**chosen)
        assert printing.get_printoptions() == torch._tensor_str.get_printoptions()
        agree(array)


@pytest.mark.parametrize("shape", [(1000,), (1001,), (7, 200), (200, 7), (6, 6, 40), (3, 400)])
@pytest.mark.parametrize("d", ["float32", "int64", "bool", "complex128"])
def test_large_arrays_are_summarised(shape, d):
    agree(np.arange(np.prod(shape)).astype(d).reshape(shape))
    edge = np.zeros(shape)
    edge[len(edge) // 2] = 1e20  # not shown, so without a say in the notation
    agree(edge)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0), (1, 0, 4)])
@pytest.mark.parametrize("d", DTYPES, ids=repr)
def test_empty_arrays_print_as_torchs(shape, d):
    agree(np.zeros(shape, d.numpy))


@pytest.mark.parametrize("default", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("d", DTYPES, ids=repr)
@pytest.mark.parametrize("shape", [(), (2,), (0,)])
def test_the_dtype_is_named_where_torch_names_it(default, d, shape):
    torch.set_default_dtype(getattr(torch, default))
    dtypes.set_default_dtype(getattr(dtypes, default))
    array = np.ones(shape, d.numpy)
    agree(array)
    dtypes.set_default_dtype(dtypes.float32)
    assert ours(array, default_dtype=getattr(dtypes, default)) == theirs(array)


@pytest.mark.parametrize("columns", range(1, 13))
@pytest.mark.parametrize("d", ["float32", "float64"])
def test_gradient_notes_wrap_as_torchs(columns, d):
    array = np.full((2, columns), 1.25, d)
    leaf = torch.from_numpy(array.copy()).requires_grad_()
    assert ours(array, requires_grad=True) == repr(leaf)
    product = leaf * 1
    name = type(product.grad_fn).__name__
    assert ours(array, requires_grad=True, grad_fn_name=name) == repr(product)
    assert ours(array[:0], requires_grad=True) == repr(leaf.detach()[:0].requires_grad_())


def test_a_device_other_than_the_cpu_is_named():
    shown = ours(np.zeros((0, 3)), device=device("cuda:0"))
    assert shown == "tensor([], device='cuda:0', size=(0, 3), dtype=torch.float64)"


def test_printoptions_hold_within_a_with_block():
    before = printing.get_printoptions()
    with printing.printoptions(precision=1):
        assert ours(np.array([1.25], "f4")) == "tensor([1.2])"
        with pytest.raises(KeyError), printing.printoptions(precision=2):
            raise KeyError
        assert printing.get_printoptions()["precision"] == 1
    assert printing.get_printoptions() == before


def test_an_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="default, short, full"):
        printing.set_printoptions(profile="tiny")
