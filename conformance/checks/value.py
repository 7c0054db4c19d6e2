"""value: the engine's outputs against the reference's: how many, shape, dtype, every entry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from conformance.checks import doubt
from conformance.checks.base import Case, Finding
from conformance.checks.compare import compare, measures, same
from conformance.engines.base import ALL
from conformance.oracles.noise import Ask
from conformance.oracles.torch_autograd import SPREADS
from conformance.program import Array, Ref, refs
from conformance.writes import held

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
            order = difference is not None and difference.kind == "value" and left.dtype.kind == "i"
            if order and _orders_alike(case, number, left, right):
                difference = None
                note = {"note": "equal elements may be sorted in any order"}
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


def _orders_alike(case: Case, number: int, left: Array, right: Array) -> bool:
    """Whether an output is the indices of a sort that need not be stable, and both order alike."""
    kept = case.reference.run(case.program, case.values, keep=ALL).kept
    for ref in refs(case.program.outputs):
        count = 1 if ref.path else len(kept.get(ref.name, (None,)))
        if number >= count:
            number -= count
            continue
        call = next((c for c in case.program.calls if c.name == ref.name), None)
        if call is None or call.target.rpartition(".")[2] not in _ORDERS:
            return False
        given = dict(zip(("input", "dim"), call.args, strict=False)) | call.kwargs
        of, dim = given.get("input"), -1 if call.target.endswith("topk") else given.get("dim", -1)
        if call.kwargs.get("stable") or not isinstance(of, Ref) or not isinstance(dim, int):
            return False
        there = held(case.reference, case.program, case.values, call, {**case.values, **kept})
        found = there[of.name]
        x = np.asarray(found[int(of.path[0]) if of.path else 0] if type(found) is tuple else found)
        if not x.ndim or left.min(initial=0) < 0 or left.max(initial=0) >= x.shape[dim]:
            return False
        ours, theirs = (np.take_along_axis(x, i, dim) for i in (left, right))
        alone = np.diff(np.sort(left, dim), axis=dim).all()
        return bool(alone) and same(ours, theirs)
    return False


_ORDERS = frozenset(("sort", "argsort", "topk"))


def _outputs(case: Case) -> Ask:
    return lambda program, values: {
        str(n): o for n, o in enumerate(case.reference.run(program, values).outputs)
    }


_KINDS = {"value": "wrong value", "none": "missing"}
