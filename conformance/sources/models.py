"""Source `captured`: small real models from transformers, whole and call by call.

Random weights from a fixed seed, float64, eval mode; the configurations stand here, and nothing is
downloaded.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.errors import CaptureError
from conformance.sources.alone import calls_alone
from conformance.sources.base import Item, Sample, Skipped

if TYPE_CHECKING:
    import torch

    from conformance.settings import Settings


@dataclass(frozen=True)
class Model:
    """A class of transformers, its configuration, and the batch of one forward pass."""

    architecture: str
    config: str
    sizes: dict[str, Any]
    batch: Callable[[], dict[str, torch.Tensor]]


def _tokens() -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 61, (2, 7), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}


def _image() -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 12, 12, generator=generator, dtype=torch.float64)
    return {"pixel_values": pixels, "labels": torch.tensor([1, 3])}


MODELS = {
    "gpt2": Model(
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 61, "n_positions": 16, "n_embd": 24, "n_layer": 2, "n_head": 3}
        | {"bos_token_id": 0, "eos_token_id": 0, "use_cache": False},
        _tokens,
    ),
    "llama": Model(
        "LlamaForCausalLM",
        "LlamaConfig",
        {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 16}
        | {"use_cache": False},
        _tokens,
    ),
    "bert": Model(
        "BertForMaskedLM",
        "BertConfig",
        {"vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2}
        | {"num_attention_heads": 3, "max_position_embeddings": 16},
        _tokens,
    ),
    "vit": Model(
        "ViTForImageClassification",
        "ViTConfig",
        {"image_size": 12, "patch_size": 4, "hidden_size": 24, "intermediate_size": 40}
        | {"num_hidden_layers": 2, "num_attention_heads": 3, "num_labels": 5},
        _image,
    ),
    "mamba": Model(
        "MambaForCausalLM",
        "MambaConfig",
        {"vocab_size": 61, "hidden_size": 16, "state_size": 4, "num_hidden_layers": 2}
        | {"time_step_rank": 2, "use_cache": False, "use_mambapy": False},
        _tokens,
    ),
    "qwen2_moe": Model(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {"vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
        | {"num_attention_heads": 2, "num_key_value_heads": 1, "moe_intermediate_size": 8}
        | {"shared_expert_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
        | {"output_router_logits": True, "use_cache": False}
        | {"experts_implementation": "eager"},  # torch has no grouped products in float64
        _tokens,
    ),
    "t5": Model(
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 61, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}
        | {"decoder_start_token_id": 0, "use_cache": False},
        _tokens,
    ),
}


class Models:
    """One item a model: the whole Program, then each distinct call with the values it had."""

    name = "captured"

    def items(self, settings: Settings) -> list[Item]:
        """The models that the settings name."""
        return [Item(self.name, key, f"model.{key}") for key in settings.models]

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """The model, and then its calls alone; Skipped where the model cannot be captured."""
        from conformance.sources.captured import capture

        if item.key not in MODELS:
            known = ", ".join(MODELS)
            yield Skipped(item.op, item.key, f"no such model here; there are {known}")
            return
        try:
            model, forward, batch = build(item.key)
        except ImportError as error:
            reason = f"needs the package transformers ({error}); pip install '.[models]'"
            yield Skipped(item.op, item.key, reason)
            return
        try:
            captured = capture(forward, (), batch, module=model)
        except CaptureError as error:
            yield Skipped(item.op, item.key, str(error))
            return
        program, values = captured.program, captured.values
        yield Sample(item.op, program, values, item.key, "; ".join(captured.notes))
        yield from calls_alone(program, values, item.key)


def build(key: str) -> tuple[Any, Callable[..., Any], dict[str, torch.Tensor]]:
    """The model of that name: see `assemble`."""
    return assemble(MODELS[key])


def assemble(spec: Model) -> tuple[Any, Callable[..., Any], dict[str, torch.Tensor]]:
    """The model in float64 and eval mode, a function that gives its loss, and its batch.

    Raises ImportError without transformers.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    transformers: Any = importlib.import_module("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, spec.config)(**spec.sizes)
        model = getattr(transformers, spec.architecture)(config).double().eval()
        with torch.no_grad():  # zero biases and unit scales would hide faults
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))

    def forward(**batch: torch.Tensor) -> torch.Tensor:
        with _all_double():
            loss: torch.Tensor = model(**batch).loss
        return loss

    return model, forward, spec.batch()


def _all_double() -> Any:
    """A mode under which float32 means float64.

    Models upcast half precision to float32 here and there; in float64 that would round.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    def widen(tree: Any) -> Any:
        if isinstance(tree, tuple | list):
            return type(tree)(widen(item) for item in tree) if _plain(tree) else tree
        return torch.float64 if tree is torch.float32 else tree

    class AllDouble(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            if func is torch.Tensor.float:
                func = torch.Tensor.double
            kwargs = {key: widen(value) for key, value in (kwargs or {}).items()}
            return func(*widen(args), **kwargs)

    return AllDouble()


def _plain(tree: Any) -> bool:
    return type(tree) in (tuple, list)
