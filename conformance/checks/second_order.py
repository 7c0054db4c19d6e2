"""rr, fr, rf, ff: second order by every route, against the reference's and against each other.

Each is reverse (r) or forward (f) mode over the other. The reference's own product is by reverse
over reverse; truth is the complex step through refgrad's first-order backward pass, which is exact
and uses no derivative of a rule, or the stencil on the reference's gradient. Entries of a
Hessian-vector product often cancel to nothing, so they are compared on the scale of the whole
product and of the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from conformance import arbitration, diagnosis
from conformance.arbitration import shown
from conformance.checks import blame, cotangent, doubt
from conformance.checks.base import Case, Finding
from conformance.checks.beside import beside
from conformance.checks.compare import Difference, compare, measures, plain
from conformance.checks.forward import GOES_ON
from conformance.checks.second import SecondOrder
from conformance.errors import EngineError
from conformance.oracles.directional import Opinion
from conformance.oracles.frozen import forward_goes_on
from conformance.oracles.noise import Ask
from conformance.oracles.pairs import contracted, flat, inner
from conformance.oracles.stencil import Candidate
from conformance.oracles.torch_autograd import SPREADS
from conformance.program import Array

FACTOR = 10.0  # times the tolerance of first order: a rule applied to a rule
POOR = 1e-4
FEW = 4  # entries that are not finite are looked at one by one

_EXACTLY: dict[str, Any] = {
    "oracle": "complex step through refgrad's backward pass",
    "bound": FACTOR * 1e-12,
}
_WRITTEN = "has been modified by an inplace operation"
REFUSED = (
    "the tangents that torch's own rules make are written in place, so that reverse mode refuses "
    "them: as of softmax"
)

TOLD = "it is as the engine's reverse over reverse, which rr judges at this kink"
ROUNDED = "rounding at the inputs moves the engine's own as far"

ROUTES = {
    "rr": "reverse over reverse",
    "fr": "forward over reverse",
    "rf": "reverse over forward",
    "ff": "forward over forward",
}


class SecondOrderCheck:
    """One route."""

    def __init__(self, route: str) -> None:
        self.name = route

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding: for rr also against the numerical derivative of the gradient.

        And by rr the gradient is differentiated in the cotangent too.
        """
        if not case.program.leaves or all(c is None for c in case.cotangents):
            return
        second = case.second
        for finding in self._judged(case, second):
            if finding.outcome == "failed" and self.name != "rr" and forward_goes_on(case.program):
                finding = Finding("unsupported", {"reason": GOES_ON})
            yield cotangent.judged(case, self, finding) if self.name == "rr" else finding

    def _judged(self, case: Case, second: SecondOrder) -> Iterator[Finding]:
        if self.name == "ff":
            yield self._curvature(case, second)
            return
        settled = self._at_once(case, second) if self.name == "rr" else None
        if settled is not None:
            yield settled
            return
        given = (case.program, case.values, second.cotangents, second.tangents)
        try:
            found = case.engine.hvp(*given, self.name)
        except EngineError as error:
            if case.users and self.name == "rf" and _WRITTEN in str(error):
                yield Finding("unsupported", {"reason": REFUSED})
                return
            raise
        worst = _worst(case, second, found, second.expected)
        evidence: dict[str, Any] = {"compared": second.compared}
        if worst is not None and worst[1].kind == "value":
            moves = second.engine_moves(self.name)
            worst = _worst(case, second, found, second.expected, moves)
            evidence |= {"note": ROUNDED} if worst is None else {}
        if worst is not None and self.name != "rr" and _is(case, second, found, second.exact):
            note = f"{case.reference.name}'s reverse over reverse differs; the complex step agrees"
            yield Finding("passed", evidence | {"note": note})
        elif worst is not None:
            said = self._described(case, second, found, *worst)
            if self._told_by_rr(case, said):
                own = case.engine.hvp(*given, "rr")
                if _worst(case, second, found, own) is None:
                    yield Finding("passed", evidence | {"note": TOLD})
                    return
            finding = self._finding(case, evidence, said)
            name, difference = worst
            if difference.kind == "value" and difference.index is not None:
                left, right = _filled(found.get(name), second.expected[name])
                assert left is not None
                assert right is not None
                entry = doubt.entry_of(left, difference.index, right)
                finding = doubt.second_look(
                    case, self, finding, _products(case, second), name, entry, difference.error
                )
            yield finding
        elif self.name == "rr":
            finding = self._numerical(case, second, found, evidence)
            kinked = finding.outcome == "passed" and finding.evidence.get("diagnosis") == "kink"
            near = beside(case, self) if kinked else None
            yield finding if near is None or near.outcome != "failed" else near
        else:
            yield Finding("passed", evidence)

    def _at_once(self, case: Case, second: SecondOrder) -> Finding | None:
        """Passed, where both agree with the complex step, as nearly always; else None."""
        piece = second.exact is None and case.context.independent
        truth = second.piece if piece else second.exact
        if truth is None or second.together is None:
            return None
        found, _ = second.together
        if not _is(case, second, found, truth) or _worst(case, second, found, second.expected):
            return None
        kinked = {"diagnosis": "kink"} if piece else {}
        return Finding("passed", {"compared": second.compared} | _EXACTLY | kinked)

    def _described(
        self,
        case: Case,
        second: SecondOrder,
        found: Mapping[str, Array | None],
        name: str,
        difference: Difference,
    ) -> dict[str, Any]:
        """The evidence for a leaf whose product differs: values, diagnosis, verdict."""
        shape = tuple(case.values[name].shape)
        left, right = _filled(found.get(name), second.expected[name])
        said = diagnosis.diagnose(left, right, shape)
        evidence = measures(difference, case.values[name].dtype)
        evidence |= {"leaf": case.alias(name), "diagnosis": said.slug, "route": ROUTES[self.name]}
        evidence["description"] = f"{ROUTES[self.name]}: {said.sentence}"
        if difference.index is None:
            return (
                evidence
                | {"verdict": f"engine wrong: {said.sentence}"}
                | blame.of_second(case, self.name)
            )
        onto = {n: np.zeros_like(t) for n, t in second.wide.items()}
        onto[name][difference.index], ours, theirs = difference.part
        nothing = case.nothing(second.wide)
        ruling = arbitration.decide(ours, theirs, second.opinions(onto), second.whose, nothing)
        evidence |= ruling.evidence()
        blamed = blame.of_second(case, self.name)
        if not blamed and second.first_order:  # what is wrong is wrong at first order alone
            blamed = blame.of_gradient(case)
            if evidence["verdict"].startswith("both defensible"):
                evidence["verdict"] = second.first_order
        return evidence | blamed

    def _numerical(
        self,
        case: Case,
        second: SecondOrder,
        found: Mapping[str, Array | None],
        evidence: dict[str, Any],
    ) -> Finding:
        """rr against a derivative of the gradient that uses no rule's own derivative."""
        if _is(case, second, found, second.exact):
            return Finding("passed", evidence | _EXACTLY)
        if case.context.independent and _is(case, second, found, second.piece):
            return Finding("passed", evidence | _EXACTLY | {"diagnosis": "kink"})
        lost = self._lost(case, second, found)
        if lost is not None:
            return lost
        onto = second.onto
        ours, size = inner(found, onto)
        size = max(size, second.floor)
        slack = case.loosened(100, case.coarsest) * size
        kinked = second.exact is None and second.piece is not None
        candidate = Candidate(ours, slack, slack, kinked)
        opinion = second.stencil(onto, case.engine, candidate)  # first order, which vjp has judged
        evidence |= {"engine": ours, "reference": inner(second.expected, onto)[0]}
        evidence |= shown(opinion)
        if not np.isfinite(opinion.value):
            reason = opinion.reason or "no numerical derivative is finite"
            return Finding("inconclusive", evidence | {"reason": reason})
        if opinion.kink is not None:
            return Finding("passed", evidence | {"diagnosis": "kink"})
        error = abs(ours - opinion.value)
        if error <= opinion.bound + slack:
            if opinion.decides(size, case.poor(POOR)):
                return Finding("passed", evidence)
            if opinion.bound <= case.hidden(second.cotangents, onto, abs(ours)):
                return Finding("passed", evidence)
            why = opinion.reason or f"the bound is {opinion.bound:.1e} of {size:.1e}"
            return Finding("inconclusive", evidence | {"reason": why})
        hidden = sum(second.hidden(n) * float(np.abs(u).sum()) for n, u in onto.items())
        if error <= opinion.bound + slack + hidden:
            return Finding("passed", evidence)
        return Finding("failed", evidence | self._agreeing(case, opinion, error))

    def _lost(
        self, case: Case, second: SecondOrder, found: Mapping[str, Array | None]
    ) -> Finding | None:
        """The first entry that is not finite where the gradient has a derivative; FEW are tried."""
        tried = 0
        for leaf in case.program.leaves:
            ours, theirs = found.get(leaf.name), second.expected[leaf.name]
            if ours is None or theirs is None or ours.shape != theirs.shape:
                continue
            for place in np.flatnonzero(~np.isfinite(ours) & ~np.isfinite(theirs))[: FEW - tried]:
                tried += 1
                index = tuple(int(n) for n in np.unravel_index(place, ours.shape))
                onto = {n: np.zeros_like(t) for n, t in second.wide.items()}
                onto[leaf.name][index] = 1.0
                opinion = second.stencil(onto, case.engine)
                if not opinion.sure(POOR):
                    continue
                value = plain(ours[index].item())
                said = shown(opinion) | {
                    "leaf": case.alias(leaf.name), "index": list(index), "engine": value,
                    "reference": plain(theirs[index].item()), "diagnosis": "not finite",
                    "description": f"the product is {value} where the gradient is smooth",
                }  # fmt: skip
                return Finding("failed", said | self._agreeing(case, opinion, np.inf))
        return None

    def _agreeing(self, case: Case, opinion: Opinion, error: float) -> dict[str, Any]:
        """Nothing contradicts the engine's product but the derivative of its own gradient."""
        said: dict[str, Any] = {"diagnosis": "wrong"}
        if np.isfinite(error):
            said["absolute"] = error
        if case.context.independent:
            text = "engine and reference wrong: they agree, and"
            said["diagnosis"] = "reference"
        else:
            text = "engine wrong:"
        text = f"{text} the {opinion.oracle} has another derivative"
        blamed = blame.of_gradient(case)  # of a gradient that is off in its tenth digit
        return said | {"verdict": text} | (blamed or blame.of_second(case, self.name))

    def _curvature(self, case: Case, second: SecondOrder) -> Finding:
        """ff: the outputs' second derivatives along t and u, against u^T H t."""
        onto = second.onto
        moves = case.engine.curvature(
            case.program, case.values, second.tangents, second.narrow_onto
        )
        ours, terms = contracted(second.cotangents, moves)
        theirs, size = inner(second.expected, onto)
        moved, _ = inner({n: SPREADS * m for n, m in second.moves.items()}, _absolute(onto))
        slack = case.loosened(100, case.coarsest) * max(size, terms, second.floor) + moved
        slack += sum(
            case.vanishing(leaf) * float(np.abs(onto[leaf.name]).sum())
            for leaf in case.program.leaves
            if leaf.name in onto
        )
        evidence: dict[str, Any] = {"compared": 1, "engine": ours, "reference": theirs}
        evidence["route"] = ROUTES["ff"]
        if abs(ours - theirs) <= slack:
            return Finding("passed", evidence)
        if not (_finite(moves) or _finite(second.expected.values())):
            return Finding("passed", evidence | {"note": "neither route has finite derivatives"})
        if second.exact is not None and abs(ours - inner(second.exact, onto)[0]) <= slack:
            note = f"{case.reference.name}'s reverse over reverse differs; the complex step agrees"
            return Finding("passed", evidence | {"note": note})
        opinions = second.opinions(onto)
        nothing = case.nothing(second.wide, onto)
        ruling = arbitration.decide(ours, theirs, opinions, second.whose, nothing)
        if self._told_by_rr(case, ruling.evidence()):
            given = (case.program, case.values, second.cotangents, second.tangents)
            if abs(ours - inner(case.engine.hvp(*given, "rr"), onto)[0]) <= slack:
                return Finding("passed", evidence | {"note": TOLD})
        error = abs(ours - theirs)
        said: dict[str, Any] = {
            "absolute": error,
            "relative": error / abs(theirs or 1.0),
            "tolerance": slack,
        }
        said |= {"diagnosis": "nan" if np.isnan(ours) else "wrong"}
        said["description"] = f"{ROUTES['ff']}: u^T H t is {ours:.10g}, not {theirs:.10g}"
        said |= ruling.evidence() | blame.of_second(case, self.name)
        finding = self._finding(case, evidence, said)
        if finding.outcome == "failed" and error <= slack + SPREADS * second.curvature_moves(ours):
            return Finding("passed", evidence | {"note": ROUNDED})
        return finding

    def _told_by_rr(self, case: Case, said: Mapping[str, Any]) -> bool:
        """Whether a route that is as the engine's reverse over reverse is for rr to judge.

        Where the reference keeps another convention at a kink, or its product is wrong beside one,
        all routes differ from it alike.
        """
        asked = case.settings.checks
        tied = "slopes" in said or str(said["verdict"]).startswith("both defensible")
        return tied and self.name != "rr" and (not asked or "rr" in asked)

    def _finding(self, case: Case, evidence: dict[str, Any], said: dict[str, Any]) -> Finding:
        """By the verdict; but a reference's wrong reverse over reverse is told once, by rr."""
        both = "engine and reference wrong"
        if said["verdict"].startswith(both) and not case.context.independent:
            said["verdict"] = "engine wrong (rr as well)" + said["verdict"].removeprefix(both)
        if self.name != "rr" and said["verdict"].startswith("reference wrong"):
            return Finding("passed", evidence | {"note": said["verdict"]})
        return Finding(arbitration.outcome(said["verdict"]), evidence | said)


def _products(case: Case, second: SecondOrder) -> Ask:
    return lambda program, values: case.reference.hvp(
        program, values, second.cotangents, second.tangents
    )


def _worst(
    case: Case,
    second: SecondOrder,
    found: Mapping[str, Array | None],
    expected: Mapping[str, Array | None],
    moves: Mapping[str, Array] | None = None,
) -> tuple[str, Difference] | None:
    """The leaf whose product differs most; None where all agree.

    `moves` has how far rounding moves the engine's own product, for which there is an allowance
    too: of terms that cancel either engine's may be the one that nothing is left of.
    """
    worst: tuple[str, Difference] | None = None
    for leaf in case.program.leaves:
        left, right = _filled(found.get(leaf.name), expected[leaf.name])
        relative = case.loosened(FACTOR, leaf.dtype)
        difference = compare(left, right, relative=relative, floor=second.floor)
        if difference is not None and difference.kind == "value":
            allowed = SPREADS * second.moves[leaf.name] + case.vanishing(leaf)
            given: dict[str, Any] = {"relative": relative, "floor": second.floor}
            difference = compare(left, right, **given, absolute=allowed)
            if difference is not None and difference.kind == "value":
                allowed = allowed + second.hidden(leaf.name)
                allowed = allowed + SPREADS * (moves or {}).get(leaf.name, 0.0)
                difference = compare(left, right, **given, absolute=allowed)
        if difference is not None and (worst is None or difference.severity > worst[1].severity):
            worst = leaf.name, difference
    return worst


def _is(
    case: Case,
    second: SecondOrder,
    found: Mapping[str, Array | None],
    expected: Mapping[str, Array] | None,
) -> bool:
    """Whether the product is the complex step's, entry by entry."""
    if expected is None:
        return False
    exact = {
        leaf.name: expected[leaf.name].astype(leaf.dtype, copy=False)
        for leaf in case.program.leaves
    }
    return _worst(case, second, found, exact) is None


def _finite(arrays: Iterable[Array | None]) -> bool:
    return all(bool(np.isfinite(a).all()) for a in arrays if a is not None)


def _absolute(onto: Mapping[str, Array]) -> dict[str, Array]:
    return {n: np.abs(flat(u)) for n, u in onto.items()}


def _filled(left: Array | None, right: Array | None) -> tuple[Array | None, Array | None]:
    """None and zeros mean the same in second order, where a graph may end early."""
    if left is None and right is not None:
        return np.zeros_like(right), right
    if right is None and left is not None:
        return left, np.zeros_like(left)
    return left, right
