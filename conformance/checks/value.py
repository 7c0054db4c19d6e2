"""value: the engine's outputs against the reference's: how many, shape, dtype, every entry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.checks import doubt
from conformance.checks.base import Case, Finding
from conformance.checks.compare import compare, measures
from conformance.oracles.noise import Ask
from conformance.oracles.torch_autograd import SPREADS

CLOSE = 1e-9  # relative: nearer, the digits of one forward are worse, and no oracle says whose


class ValueCheck:
    """The outputs, without derivatives."""

    name = "value"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all outputs."""
        expected = case.reference_run.outputs
        found = case.engine_outputs
        if len(found) != len(expected):
            name = case.reference.name
            verdict = f"engine wrong: it gives {len(found)} outputs, {name} {len(expected)}"
            yield Finding("failed", {"diagnosis": "outputs", "verdict": verdict})
            return
        worst = None
        note = {}
        for number, (left, right) in enumerate(zip(found, expected, strict=True)):
            relative = case.relative(right.dtype)
            difference = compare(left, right, relative=relative)
            if difference is not None and difference.kind == "value":
                allowed = SPREADS * case.output_spread.get(str(number), np.zeros(1))
                difference = compare(left, right, relative=relative, absolute=allowed)
                note = {"tolerance_from": "spread of the reference's value under rounding"}
            if difference is not None and difference.kind == "value":
                narrowed = case.outputs_narrowed
                if number < len(narrowed) and narrowed[number].any():
                    allowed = np.maximum(allowed, SPREADS * np.max(narrowed[number]))
                    difference = compare(left, right, relative=relative, absolute=allowed)
                    note = {"tolerance_from": "rounding on the way, in less than float64"}
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
        if difference.kind == "value" and evidence.get("relative", 1.0) < CLOSE:
            text = f"precision: output {number} agrees to {evidence['relative']:.1e} only"
            yield Finding("precision", evidence | {"leaf": f"output {number}", "verdict": text})
            return
        evidence |= {"leaf": f"output {number}", "compared": compared}
        evidence |= {"diagnosis": _KINDS.get(difference.kind, difference.kind)}
        name = case.reference.name
        evidence["verdict"] = f"engine wrong: its forward is not {name}'s at output {number}"
        finding = Finding("failed", evidence)
        if difference.kind == "value" and difference.index is not None:
            entry = doubt.entry_of(expected[number], difference.index, found[number])
            ask = _outputs(case)
            finding = doubt.second_look(
                case, self, finding, ask, str(number), entry, difference.error
            )
        yield finding


def _outputs(case: Case) -> Ask:
    return lambda program, values: {
        str(n): o for n, o in enumerate(case.reference.run(program, values).outputs)
    }


_KINDS = {"value": "wrong value", "none": "missing"}
