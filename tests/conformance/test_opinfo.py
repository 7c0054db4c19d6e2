"""PyTorch's own samples as Programs."""

from __future__ import annotations

import pytest

from conformance.settings import Settings
from conformance.sources import Sample, Skipped, load
from conformance.sources.base import Item

pytest.importorskip("expecttest")


def samples(key: str, **settings: int) -> list[Sample | Skipped]:
    source = load("opinfo")
    return list(source.samples(Item("opinfo", key, key), Settings(**settings)))  # type: ignore[arg-type]


def test_every_entry_that_supports_autograd_is_an_item() -> None:
    keys = [item.key for item in load("opinfo").items(Settings())]
    assert len(keys) == len(set(keys))
    assert {"nn.functional.linear", "norm.fro", "cholesky"} <= set(keys)
    assert len(keys) > 500


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("mul", "torch.mul"),
        ("cat", "torch.cat"),
        ("nn.functional.linear", "torch.nn.functional.linear"),
        ("__rpow__", "torch.pow"),
        ("index_put", "torch.index_put"),
        ("atleast_1d", "torch.atleast_1d"),
        ("complex", "torch.complex"),
    ],
)
def test_an_entry_is_captured_with_its_leaves(key: str, target: str) -> None:
    found = samples(key, samples_per_entry=4)
    assert found
    for sample in found:
        assert isinstance(sample, Sample)
        assert target in sample.program.targets
        assert sample.program.leaves
        assert sample.op == key


def test_wrapper_and_output_process_are_applied() -> None:
    (first, *_) = samples("cholesky", samples_per_entry=1)
    assert isinstance(first, Sample)
    assert len(first.program.calls) > 1  # the input is made symmetric first
    (first, *_) = samples("linalg.eigh", samples_per_entry=1)
    assert isinstance(first, Sample)
    assert "torch.abs" in first.program.targets  # eigenvectors have no sign


def test_samples_repeat() -> None:
    def digests() -> list[str]:
        made = samples("addmm", samples_per_entry=5)
        return [s.program.digest(s.values) for s in made if isinstance(s, Sample)]

    first = digests()
    assert len(first) == 5
    assert digests() == first


def test_what_is_left_out_is_listed_with_its_reason() -> None:
    (found,) = samples("istft")
    assert isinstance(found, Skipped)
    assert "float64" in found.reason
    assert any(isinstance(s, Skipped) and "random" in s.reason for s in samples("bernoulli"))
    huge = samples("grid_sampler_3d")
    assert any(isinstance(s, Skipped) and "limit" in s.reason for s in huge)
    (found,) = samples("no.such.entry")
    assert isinstance(found, Skipped)


def test_dropout_has_its_mask_recorded() -> None:
    found = [s for s in samples("nn.functional.dropout") if isinstance(s, Sample)]
    masked = [s for s in found if s.program.targets == ("torch.mul",)]
    assert masked
    assert "constant" in masked[0].note
