"""refgrad.limits against torch's finfo and iinfo."""

import pytest
import torch

from refgrad import dtypes, limits
from refgrad.dtypes import ALL


def theirs(d):
    return getattr(torch, d.name)


def said(function, *args):
    """What a call gives, as text: its result's repr, or its error's class and message."""
    try:
        return repr(function(*args))
    except TypeError as error:
        return f"TypeError: {error}"


@pytest.mark.parametrize("d", ALL, ids=repr)
@pytest.mark.parametrize("info", ["finfo", "iinfo"])
def test_limits_are_torchs(info, d):
    ours, other = getattr(limits, info), getattr(torch, info)
    assert said(ours, d) == said(other, theirs(d))
    if said(ours, d).startswith("TypeError"):
        return
    assert ours(d) == ours(d)
    assert hash(ours(d)) == hash(ours(d))
    names = ["bits", "max", "min", "dtype"]
    if info == "finfo":
        names += ["eps", "tiny", "smallest_normal", "resolution"]
    for name in names:
        assert getattr(ours(d), name) == getattr(other(theirs(d)), name), name


@pytest.mark.parametrize("info", [limits.finfo, limits.iinfo])
def test_what_is_no_dtype_is_refused(info):
    with pytest.raises(TypeError, match=r"must be torch\.dtype, not str"):
        info("float32")


def test_finfo_without_a_dtype_is_the_defaults():
    assert limits.finfo().dtype == "float32"
    try:
        dtypes.set_default_dtype(dtypes.float64)
        torch.set_default_dtype(torch.float64)
        assert limits.finfo().dtype == torch.finfo().dtype == "float64"
    finally:
        dtypes.set_default_dtype(dtypes.float32)
        torch.set_default_dtype(torch.float32)
