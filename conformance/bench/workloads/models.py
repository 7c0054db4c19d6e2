"""One block of each of five models of transformers, captured: embedding, block, head and loss.

Random weights, float32, eval mode, 2 sequences of 64 tokens (ViT: 2 images of 64 patches; Mamba: 16
tokens, since its scan is a loop in Python). The size is the width of the residual stream.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from conformance.bench.counted import counted
from conformance.bench.workload import Cost, Made, Workload
from conformance.errors import Unsupported
from conformance.sources.models import MODELS, Model, assemble

if TYPE_CHECKING:
    import torch

_SEQUENCES, _TOKENS, _SCANNED, _VOCABULARY = 2, 64, 16, 512
_HEAD = 16  # floats in a head
_PATCH = 4  # pixels on a patch's side
_BLOCKS = ("gpt2", "llama", "bert", "vit", "mamba")


def _spec(key: str, width: int) -> Model:
    """The model's configuration with one block of this width."""
    wide: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": width // _HEAD,
        "max_position_embeddings": _TOKENS,
        "vocab_size": _VOCABULARY,
    }
    own: dict[str, dict[str, Any]] = {
        "gpt2": {"n_embd": width, "n_layer": 1, "n_head": width // _HEAD, "n_positions": _TOKENS},
        "llama": {"num_key_value_heads": width // _HEAD // 2},
        "vit": {"image_size": 8 * _PATCH, "patch_size": _PATCH},
        "mamba": {"state_size": 16, "time_step_rank": max(width // 16, 1)},
    }
    model = MODELS[key]
    known = {name: value for name, value in wide.items() if name in model.sizes}
    batch = {"vit": _image, "mamba": lambda: _tokens(_SCANNED)}.get(key, _tokens)
    return replace(model, sizes=model.sizes | known | own.get(key, {}), batch=batch)


def _tokens(length: int = _TOKENS) -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, _VOCABULARY, (_SEQUENCES, length), generator=generator)
    return {"input_ids": ids, "labels": ids.clone()}


def _image() -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(1)
    shape = (_SEQUENCES, 3, 8 * _PATCH, 8 * _PATCH)
    pixels = torch.randn(shape, generator=generator, dtype=torch.float64)
    return {"pixel_values": pixels, "labels": torch.tensor([1, 3])}


@functools.lru_cache(maxsize=2)
def _captured(key: str, width: int) -> Made:
    """The model in float32, as it was captured in float64; Unsupported without transformers."""
    from conformance.checks.narrow import cast
    from conformance.sources.captured import capture

    try:
        model, forward, batch = assemble(_spec(key, width))
    except ImportError as error:
        reason = f"needs the package transformers ({error}); pip install '.[models]'"
        raise Unsupported(reason) from error
    found = capture(forward, (), batch, module=model)
    program, values = cast(found.program, found.values, {"float64": "float32"})
    calls = tuple(
        replace(call, target="torch.Tensor.float") if call.target == "torch.Tensor.double" else call
        for call in program.calls
    )
    return replace(program, calls=calls), values


def _making(key: str) -> Callable[[int], Made]:
    return lambda width: _captured(key, width)


@functools.lru_cache(maxsize=32)
def _cost(key: str, width: int) -> Cost:
    """Counted from the shapes of the captured calls: see `counted`."""
    return counted(*_captured(key, width))


WORKLOADS = tuple(
    Workload(
        name=key,
        group="models",
        title=f"{MODELS[key].architecture}, one block, loss",
        make=_making(key),
        cost=functools.partial(_cost, key),
        sizes=(32, 128, 512),
        quick=32,
        size_means="width",
        cuda_sizes=(512,),
    )
    for key in _BLOCKS
)
