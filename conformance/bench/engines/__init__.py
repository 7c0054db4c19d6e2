"""The engines by name: what is timed side by side."""

from __future__ import annotations

from collections.abc import Iterable

from conformance.bench.engine import Engine
from conformance.bench.engines.autograd import Autograd
from conformance.bench.engines.jax import Jax, JaxJit
from conformance.bench.engines.mygrad import MyGrad
from conformance.bench.engines.refgrad import Refgrad
from conformance.bench.engines.tinygrad import Tinygrad
from conformance.bench.engines.torch import TorchCompile, TorchEager
from conformance.errors import UsageError
from conformance.expression import did_you_mean

_ALL: tuple[Engine, ...] = (
    *(Refgrad(), TorchEager(), TorchCompile()),
    *(Jax(), JaxJit(), Autograd(), MyGrad(), Tinygrad()),
)
ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ALL}


def engines(
    names: Iterable[str] = (), device: str = "cpu"
) -> tuple[dict[str, Engine], dict[str, str]]:
    """The engines of these names (all, if none is given) that can run on the device, by name.

    With them, why each of the others cannot. Raises UsageError for a name that is none.
    """
    able: dict[str, Engine] = {}
    reasons: dict[str, str] = {}
    for name in tuple(names) or tuple(ENGINES):
        if name not in ENGINES:
            known = ", ".join(ENGINES)
            hint = did_you_mean(name, ENGINES)
            raise UsageError(f"no engine is named {name!r}{hint}; there are {known}")
        reason = ENGINES[name].available(device)
        if reason is None:
            able[name] = ENGINES[name]
        else:
            reasons[name] = reason
    return able, reasons


__all__ = ["ENGINES", "engines"]
