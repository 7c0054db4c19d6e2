"""What a run is asked to do, and the profiles that fill in the numbers.

Imports neither engine; a Settings crosses into the worker processes and into the journal's header.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

SOURCES = ("corpus", "captured", "opinfo", "generated")  # what once was wrong comes first
MORE_SOURCES = ("edges", "pairs")
MODELS = ("gpt2", "llama", "bert", "vit", "mamba", "qwen2_moe", "t5")
DTYPES = ("float64", "float32", "complex128", "complex64")
DEVICES = ("cpu", "cuda")
CHECKS = ("value", "vjp", "numerical", "jvp", "invariants")
SECOND_ORDER_CHECKS = ("rr", "fr", "rf", "ff")
PRECISION_CHECKS = ("precision", "precision2")  # against mpmath: of the source `edges`
HALF_CHECKS = ("half", "half2")  # in float16 and bfloat16: first order and rr
USER_CHECKS = ("reentrant", "narrow", "vmap")  # what custom Functions get wrong and ops do not


@dataclasses.dataclass(frozen=True)
class Settings:
    """One run. Times are in seconds; `None` for a number means no limit.

    `checks` empty means all that `order` asks for: see `chosen_checks`. `expression` is -k.
    """

    engine: str = "refgrad"
    reference: str = "torch"
    sources: tuple[str, ...] = SOURCES
    profile: str = "ci"
    expression: str = ""
    checks: tuple[str, ...] = ()
    order: int = 1
    dtypes: tuple[str, ...] = ()  # empty: float64, and a few others in generated Programs
    device: str = "cpu"
    jobs: int = 2
    seed: int = 0
    fail_fast: bool = False
    strict: bool = False
    journal: str | None = None
    expectations: str | None = None  # a list beside the engine's own
    timeout: float = 120.0
    directions: int = 1
    generated: int = 2000
    block: int = 100
    samples_per_entry: int | None = None
    models: tuple[str, ...] = MODELS
    standalone: int = 50
    inputs: tuple[str, ...] = ()  # of a user's function: see conformance.specs
    draws: int = 8  # sets of inputs drawn from these
    place: str = "cpu"  # the device of a user's function, whichever engine is judged
    rtol: float = 0.0  # of a leaf's scale: what a rule that is approximate by design may be off

    @property
    def chosen_checks(self) -> tuple[str, ...]:
        """The names of the checks to run."""
        if self.checks:
            return self.checks
        if self.sources == ("edges",):
            return PRECISION_CHECKS
        return CHECKS + (SECOND_ORDER_CHECKS if self.order == 2 else ())

    @property
    def main_dtype(self) -> str:
        """The first of the dtypes that are asked for."""
        return self.dtypes[0] if self.dtypes else "float64"

    def to_json(self) -> dict[str, Any]:
        """The settings as plain data, for the journal's header."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """The settings that `to_json` wrote; fields of a later version are ignored."""
        names = {field.name for field in dataclasses.fields(cls)}
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in data.items()
            if key in names
        }
        return cls(**known)


def user_checks(order: int, *, half: bool = False) -> tuple[str, ...]:
    """The checks of a user's own function: those of a run, and what custom Functions get wrong.

    Of the invariants a user's function meets all that are the function's to break. With `half` it
    is judged in 16 bits as well.
    """
    return (
        *Settings(order=order).chosen_checks,
        *USER_CHECKS,
        *HALF_CHECKS[: order if half else 0],
    )


# What a profile says about the numbers; a command-line option outranks it.
PROFILES: dict[str, dict[str, Any]] = {
    # one or two minutes: a look at everything
    "smoke": {
        "samples_per_entry": 2,
        "generated": 100,
        "block": 25,
        "models": ("gpt2",),
        "standalone": 10,
    },
    # five minutes on two cores: all of PyTorch's samples, one numerical direction each
    "ci": {},
    # as long as it takes
    "full": {"directions": 4, "generated": 20_000, "standalone": 500, "timeout": 600.0},
}


def from_profile(profile: str, **options: Any) -> Settings:
    """The settings of a profile, with those options that are not None in place of its numbers.

    Raises KeyError for an unknown profile.
    """
    chosen = {key: value for key, value in options.items() if value is not None}
    return Settings(profile=profile, **{**PROFILES[profile], **chosen})
