"""value: the engine's outputs against the reference's: how many, shape, dtype, every entry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.checks.base import Case, Finding
from conformance.checks.compare import compare, measures
from conformance.errors import EngineError, Unsupported
from conformance.oracles.torch_autograd import SPREADS, spread
from conformance.program import Array, Values


class ValueCheck:
    """The outputs, without derivatives."""

    name = "value"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all outputs."""
        expected = case.reference_run.outputs
        found = case.engine.run(case.program, case.values).outputs
        if len(found) != len(expected):
            verdict = f"the engine gives {len(found)} outputs, the reference {len(expected)}"
            yield Finding("failed", {"diagnosis": "outputs", "verdict": verdict})
            return
        moves: dict[str, Array] | None = None
        worst = None
        note = {}
        for number, (left, right) in enumerate(zip(found, expected, strict=True)):
            relative = case.relative(right.dtype)
            difference = compare(left, right, relative=relative)
            if difference is not None and difference.kind == "value":
                moves = _spread(case) if moves is None else moves
                allowed = SPREADS * moves.get(str(number), np.zeros(1))
                difference = compare(left, right, relative=relative, absolute=allowed)
                note = {"tolerance_from": "spread of the reference's value under rounding"}
            if difference is not None and (
                worst is None or difference.severity > worst[1].severity
            ):
                worst = number, difference
        compared = sum(o.size for o in expected)
        if worst is None:
            yield Finding("passed", {"compared": compared, **note})
            return
        number, difference = worst
        evidence = measures(difference, expected[number].dtype)
        evidence |= {"leaf": f"output {number}", "compared": compared}
        evidence |= {"diagnosis": _KINDS.get(difference.kind, difference.kind)}
        evidence |= {
            "verdict": f"the engine's forward differs from the reference's at output {number}"
        }
        yield Finding("failed", evidence)


_KINDS = {"value": "wrong value", "none": "missing"}


def _spread(case: Case) -> dict[str, Array]:
    """How far an epsilon at the inputs moves each floating output, by its number."""

    def outputs(values: Values) -> dict[str, Array | None]:
        try:
            flat = case.reference.run(case.program, values).outputs
        except (EngineError, Unsupported):
            return {}
        return {str(n): o for n, o in enumerate(flat)}

    base: dict[str, Array | None] = {
        str(n): o for n, o in enumerate(case.reference_run.outputs) if o.dtype.kind in "fc"
    }
    return spread(outputs, case.program, case.values, base, case.rng("value spread"))
