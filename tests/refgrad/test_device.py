"""refgrad.device against torch.device."""

import copy
import pickle
import sys

import pytest
import torch

from refgrad import cuda
from refgrad.device import cpu, device, usable
from refgrad.libraries import Loaded

NAMED = ["cpu", "cpu:0", "cpu:3", "cuda", "cuda:0", "cuda:11", "meta", "mps", "xla:2", "hpu"]
WRONG = [
    "", "foo", "CPU", " cpu", "cpu:", "cuda:a", "cuda:-1", "cuda:01", "cuda:0:1", "cuda: 1",
    "cpu\n", "1", ":1", -1, 0, 1.5, None, True,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_a_named_device_reads_as_torchs(name):
    ours, theirs = device(name), torch.device(name)
    assert (repr(ours), str(ours)) == (repr(theirs), str(theirs))
    assert (ours.type, ours.index) == (theirs.type, theirs.index)


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("other", NAMED)
def test_equality_is_torchs(name, other):
    assert (device(name) == device(other)) == (torch.device(name) == torch.device(other))
    assert (hash(device(name)) == hash(device(other))) == (name == other)


@pytest.mark.parametrize("argument", WRONG, ids=repr)
def test_a_wrong_device_raises_as_torchs(argument):
    with pytest.raises((RuntimeError, TypeError)) as theirs:
        torch.device(argument)
    with pytest.raises(theirs.type) as ours:
        device(argument)
    if theirs.type is RuntimeError:
        assert str(ours.value) == str(theirs.value)


def test_type_and_index_may_be_given_apart():
    assert device("cuda", 1) == device("cuda:1") == device(type="cuda", index=1)
    assert device(device("cuda:1")) == device("cuda:1")
    assert device("cuda", None) == device("cuda")
    with pytest.raises(RuntimeError, match="must not include an index"):
        device("cpu:0", 1)
    with pytest.raises(RuntimeError, match="must not be negative"):
        device("cuda", -1)
    with pytest.raises(TypeError, match="must be int"):
        device("cuda", "a")


def test_an_index_past_torchs_eight_bits_is_refused():
    with pytest.raises(RuntimeError, match="below 128"):
        device("cuda:128")


def test_a_device_is_no_string_and_cannot_change():
    assert cpu != "cpu"
    with pytest.raises(AttributeError, match="not writable"):
        cpu.type = "cuda"


@pytest.mark.parametrize("name", NAMED)
def test_copies_are_equal(name):
    assert pickle.loads(pickle.dumps(device(name))) == device(name)
    assert copy.deepcopy(device(name)) == device(name)


def test_only_the_cpu_is_usable_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it fails
    monkeypatch.setattr(Loaded, "cuda", None)
    assert usable() is usable("cpu") is usable("cpu:0") is usable(device("cpu")) is cpu
    for name in ("mps", "meta"):
        with pytest.raises(RuntimeError, match="there are 'cpu' and 'cuda'"):
            usable(name)
    for name in ("cuda", "cuda:0", 0):
        with pytest.raises(RuntimeError, match="uses CuPy for CUDA"):
            usable(name)
    assert not cuda.is_available()
    assert cuda.device_count() == 0
    with pytest.raises(RuntimeError, match="at start of device string"):
        usable("gpu")
    with device("cpu") as entered:
        assert entered == cpu
    with pytest.raises(RuntimeError, match="uses CuPy"), device("cuda"):
        pass
