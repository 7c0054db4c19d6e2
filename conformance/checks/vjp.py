"""vjp: the engine's gradient of every leaf against the reference's, entry by entry.

One backward pass with one Gaussian cotangent compares all entries. Where a gradient differs, the
derivative of that one entry, taken without any rule, says who is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from conformance import arbitration, diagnosis
from conformance.checks import blame, doubt
from conformance.checks.base import Case, Finding
from conformance.checks.compare import Difference, compare, measures
from conformance.checks.parting import behaviour, first_call, overwritten
from conformance.engines.base import Engine
from conformance.oracles.noise import Ask
from conformance.program import Array, Values

NOISE = 1 / 8  # of what is allowed for rounding: 2 spreads, as much as most entries are off by


class VjpCheck:
    """The gradients of the leaves."""

    name = "vjp"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all leaves."""
        if not case.program.leaves:
            return
        expected = case.reference_vjp.gradients
        found = case.engine_vjp.gradients
        if case.mutated:
            yield Finding("failed", _mutation(case.mutated))
            return
        worst: tuple[str, Difference] | None = None
        escalated: list[str] = []
        vanishing: list[str] = []
        for leaf in case.program.leaves:
            left, right = found.get(leaf.name), expected[leaf.name]
            dtype = right.dtype if right is not None else np.dtype(leaf.dtype)
            relative = case.relative(dtype)
            difference = compare(left, right, relative=relative)
            if difference is not None and difference.kind == "value":
                difference = _beyond(case, leaf.name, left, right, relative)
                if difference is None:
                    escalated.append(leaf.name)
                elif left is not None and right is not None and case.vanishes(leaf, left, right):
                    difference = None
                    vanishing.append(leaf.name)
            if difference is not None and (
                worst is None or difference.severity > worst[1].severity
            ):
                worst = leaf.name, difference
        compared = sum(g.size for g in expected.values() if g is not None)
        evidence: dict[str, Any] = {"compared": compared}
        if worst is None:
            if escalated:
                evidence["tolerance_from"] = "spread of the reference's gradient under rounding"
                evidence["leaves"] = escalated
            if vanishing:
                text = (
                    "a derivative that vanishes beside the function has lost its relative accuracy"
                )
                evidence |= {"verdict": f"precision: {text}", "leaf": ", ".join(vanishing)}
            yield Finding("precision" if vanishing else "passed", evidence)
            return
        name, difference = worst
        said = describe(case, name, difference)
        finding = Finding(arbitration.outcome(said["verdict"]), evidence | said)
        left, right = found.get(name), expected[name]
        if difference.kind == "value" and difference.index is not None:
            assert left is not None
            assert right is not None
            entry = doubt.entry_of(left, difference.index, right)
            finding = doubt.second_look(
                case, self, finding, _gradients(case), name, entry, difference.error
            )

            def gradient(engine: Engine, near: Values) -> Array | None:
                return engine.vjp(case.program, near, case.cotangents).gradients[name]

            finding = doubt.unless_scattered(
                case, finding, name, right, entry, difference.error, gradient
            )
        yield finding


def _beyond(
    case: Case, leaf: str, left: Array | None, right: Array | None, relative: float
) -> Difference | None:
    """The worst difference that rounding does not explain."""
    difference: Difference | None = None
    for allowed in case.roundings(leaf):
        difference = compare(left, right, relative=relative, absolute=allowed)
        if difference is None:
            break
    return difference


def _gradients(case: Case) -> Ask:
    return lambda program, values: case.reference.vjp(program, values, case.cotangents).gradients


def describe(case: Case, name: str, difference: Difference) -> dict[str, Any]:
    """The evidence for a leaf whose gradient differs: values, diagnosis, verdict, place."""
    engine = case.engine_vjp.gradients.get(name)
    reference = case.reference_vjp.gradients[name]
    leaf = next(i for i in case.program.leaves if i.name == name)
    evidence = measures(difference, leaf.dtype) if difference.kind != "none" else {}
    evidence["leaf"] = case.alias(name)
    evidence["shape"] = list(leaf.shape)
    gradients = dict(case.reference_vjp.gradients)
    if len(case.cotangents) == 1:
        gradients[diagnosis.COTANGENT] = case.cotangents[0]
    noise, allowed = 0.0, np.zeros(1)
    if difference.kind == "value":
        allowed = np.asarray(case.rounding(name))
        noise = NOISE * float(np.median(allowed))
        if allowed.ndim:
            allowed = allowed.reshape((*leaf.shape, -1)).max(axis=-1)  # of a complex entry's parts
    said = diagnosis.diagnose(
        engine, reference, tuple(leaf.shape), case.values,
        leaf=name, gradients=gradients, noise=noise, allowed=allowed,
    )  # fmt: skip
    if difference.kind in ("value", "nan") and engine is not None and reference is not None:
        said = behaviour(case, name, engine, reference) or said
    evidence["diagnosis"] = said.slug
    evidence["description"] = said.sentence
    if difference.index is not None and engine is not None and reference is not None:
        ruling = arbitration.entry(case, leaf, difference)
    else:
        ruling = arbitration.by_form(difference, said, leaf.dtype)
    evidence |= ruling.evidence()
    place = first_call(case, case.witness, name) if len(case.program.calls) > 1 else None
    evidence |= blame.of_gradient(case, place)
    if said.slug == "wrong" and place is not None and place.gradient is not None:
        said = overwritten(case, place.tensor, place.gradient) or said
        evidence |= {"diagnosis": said.slug, "description": said.sentence}
    return evidence


def _mutation(changed: tuple[str, ...]) -> dict[str, Any]:
    names = ", ".join(changed)
    return {
        "leaf": names,
        "diagnosis": "mutates inputs",
        "description": f"the values of {names} were changed by the engine's backward pass",
        "verdict": f"engine wrong: it changed the values that it was given ({names})",
    }
