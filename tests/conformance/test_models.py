"""The captured models: recorded whole, proved, and call by call."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conformance import check_gradients
from conformance.engines.torch import TorchEngine
from conformance.program import Program
from conformance.settings import MODELS, Settings
from conformance.sources import Sample, Skipped, load
from conformance.sources.base import Item

pytest.importorskip("transformers")


@pytest.mark.parametrize("key", MODELS)
def test_a_model_becomes_a_program(key: str, tmp_path: Path) -> None:
    source = load("captured")
    item = Item("captured", key, f"model.{key}")
    whole, *alone = list(source.samples(item, Settings()))
    assert isinstance(whole, Sample)
    assert whole.op == f"model.{key}"
    program, values = whole.program, whole.values
    assert {i.dtype for i in program.inputs} <= {"float64", "int64", "bool"}
    assert all(i.aliases for i in program.leaves)
    assert len(program.targets) < 40

    program.save(tmp_path / "m.json", values)
    again, loaded = Program.load(tmp_path / "m.json")
    assert again == program
    engine = TorchEngine()
    one = [engine.run(program, values).outputs[0] * 0 + 1]
    a = engine.vjp(program, values, one).gradients
    b = engine.vjp(again, loaded, one).gradients
    for name, gradient in a.items():
        assert (gradient is None) == (b[name] is None)
        assert gradient is None or gradient.tobytes() == b[name].tobytes()  # type: ignore[union-attr]

    assert all(isinstance(s, Sample) for s in alone)
    assert {s.op for s in alone} == {t for t in program.targets if "empty" not in t}


def test_items_follow_the_settings() -> None:
    items = load("captured").items(Settings(models=("bert",)))
    assert items == [Item("captured", "bert", "model.bert")]


def test_tied_weights_of_gpt2_have_both_names() -> None:
    item = Item("captured", "gpt2", "model.gpt2")
    whole = next(iter(load("captured").samples(item, Settings())))
    assert isinstance(whole, Sample)
    assert ("transformer.wte.weight", "lm_head.weight") in {i.aliases for i in whole.program.leaves}


def test_an_unknown_model_or_no_transformers_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    source = load("captured")
    (found,) = source.samples(Item("captured", "t6", "model.t6"), Settings())
    assert isinstance(found, Skipped)
    assert "gpt2" in found.reason
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    (found,) = source.samples(Item("captured", "gpt2", "model.gpt2"), Settings())
    assert isinstance(found, Skipped)
    assert "pip install" in found.reason


def test_a_gradient_of_zero_in_a_model_is_rounding() -> None:
    """That of a key's bias, beside gradients of 1: the windows of a Swin amplify its rounding."""
    import transformers

    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 2, "embed_dim": 8, "window_size": 4}
    config = transformers.SwinConfig(
        num_channels=1, num_labels=3, depths=[1, 1], num_heads=[2, 2], **sizes
    )
    config._attn_implementation = "eager"
    model = transformers.SwinForImageClassification(config).double().eval()
    image = torch.randn(1, 1, 16, 16, dtype=torch.float64)
    report = check_gradients(model, kwargs={"pixel_values": image, "labels": torch.tensor([1])})
    assert not report.failed, report
