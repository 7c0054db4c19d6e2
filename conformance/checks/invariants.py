"""invariants: what must hold of any engine, whatever the function, so that no truth is needed.

Each row of the table is a check of its own, `invariants.NAME`. All are run in the `full` profile
and where they are named; else each sample meets a few of them, in turn, so that over its samples
an op meets each.
"""

from __future__ import annotations

import functools
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator

from conformance import diagnosis
from conformance.checks import (
    invariants_graph,
    invariants_lazy,
    invariants_script,
    invariants_vjp,
)
from conformance.checks.base import Case, Check, Context, Finding, ReferenceFailed
from conformance.checks.claims import Claim, Fault, Invariant
from conformance.checks.compare import Difference, measures
from conformance.errors import EngineError, Unsupported
from conformance.oracles.torch_autograd import scale

GROUP = "invariants"
FEW = 0.1  # of a gradient: what is off by a factor is off by more, and no rounding excuses it
LOST = 100.0  # tolerances of a leaf: what two orders of the same sums may differ by at worst
EACH = 2  # invariants that a sample meets where not all are asked for

_VIEWS = ("view", "view_as", "view_as_complex", "view_as_real", "as_strided")

INVARIANTS: dict[str, Invariant] = {
    row.name: row
    for row in (
        *invariants_graph.INVARIANTS,
        *invariants_vjp.INVARIANTS,
        *invariants_lazy.INVARIANTS,
    )
}


READS_MEMORY = (
    "the gradient has the wrong sign for what is lazily negated, as z.conj().imag is: its kernel "
    "reads memory as it lies, as those in Triton do and torch.compile's; call resolve_neg() before"
)


class InvariantCheck:
    """One invariant."""

    def __init__(self, invariant: Invariant) -> None:
        self.invariant = invariant
        self.name = f"{GROUP}.{invariant.name}"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding; none where the case has nothing to this invariant."""
        if not fits(self.invariant, case):
            return
        if _mutates(case) and self.invariant.name != "unmodified":
            return  # with other values at each run there is nothing to compare
        compared = 0
        try:
            for claim in self.invariant.claims(case):
                found = self._judged(case, claim)
                if found is not None:
                    yield self._blind() if self._reads_memory(case, found) else found
                    return
                compared += claim.compared if isinstance(claim, Claim) else 0
        except EngineError as error:
            yield self._raised(case, error)
            return
        evidence = {"invariant": self.invariant.name, "compared": compared}
        yield Finding("passed", evidence)

    def script(self, case: Case) -> str | None:
        """A short script that exits 1 where this does not hold; None where there is none."""
        return invariants_script.written(self.invariant.name, case)

    def _judged(self, case: Case, claim: Claim | Fault) -> Finding | None:
        if isinstance(claim, Fault):
            leaf = case.alias(claim.leaf) if claim.leaf else ""
            return self._failed(claim.said, {"leaf": leaf} if leaf else {})
        worst = claim.worst(case)
        if worst is None:
            return None
        name, difference = worst
        said, evidence = _described(case, claim, name, difference)
        expected = claim.expected[name]
        size = max(scale(expected) if expected is not None else 0.0, claim.terms.get(name, 0.0))
        lost = max(LOST * case.relative(case.dtype) * size, min(case.nothing(), FEW * size))
        if difference.kind == "value" and difference.error <= lost and not claim.exact:
            loss = difference.error / size
            text = f"precision: {self.invariant.states}; here to {loss:.1e} only, {claim.said}"
            told = {"invariant": self.invariant.name, "verdict": text}
            return Finding("precision", evidence | told)
        return self._failed(said, evidence)

    def _reads_memory(self, case: Case, found: Finding) -> bool:
        """Whether all that is wrong is that a real kernel of one's own sees no lazy sign."""
        kernels = case.sample.by_memory and case.program.opaque
        real = not any(i.dtype.startswith("complex") for i in case.program.leaves)
        return self.invariant.of_signs and kernels and real and found.outcome == "failed"

    def _blind(self) -> Finding:
        return Finding("unsupported", {"invariant": self.invariant.name, "reason": READS_MEMORY})

    def _failed(self, said: str, evidence: dict[str, object]) -> Finding:
        told = {
            "invariant": self.invariant.name,
            "diagnosis": self.invariant.name.replace("_", " "),
            "description": said,
            "verdict": f"engine wrong: {self.invariant.states}; here not: {said}",
        }
        return Finding("failed", evidence | told)

    def _raised(self, case: Case, error: EngineError) -> Finding:
        """What raised though the engine's plain backward pass did not.

        It may where the invariant allows it, and the reference raises too, or the call is one that
        not every layout allows: results may lie in memory in another way than the reference's.
        """
        reason = str(error).partition("\n")[0]
        if self.invariant.twice and case.users and case.settings.order == 1:
            text = f"its backward pass cannot be differentiated: {reason}"
            return Finding("unsupported", {"invariant": self.invariant.name, "reason": text})
        independent = case.context.independent
        if self.invariant.may_refuse and (
            not independent or _of_layout(case, error) or _reference_raises(self.invariant, case)
        ):
            text = f"{self.invariant.states}: {reason}"
            return Finding("unsupported", {"invariant": self.invariant.name, "reason": text})
        return self._failed(reason, {})


def _mutates(case: Case) -> bool:
    """Whether the engine's plain backward pass changes the values that it is given."""
    _ = case.engine_vjp
    return bool(case.mutated)


def _described(
    case: Case, claim: Claim, name: str, difference: Difference
) -> tuple[str, dict[str, object]]:
    """What differs, and how: a sentence, and the worst entry's values."""
    found, expected = claim.found.get(name), claim.expected[name]
    given = next(g for g in (expected, found) if g is not None)
    evidence: dict[str, object] = dict(
        measures(difference, given.dtype) if difference.kind != "none" else {}
    )
    evidence["leaf"] = case.alias(name)
    said = diagnosis.diagnose(found, expected, tuple(given.shape))
    what = "the value" if name.startswith("output ") else "the gradient"
    return f"{claim.said}: {said.sentence.replace('the gradient', what, 1)}", evidence


def _of_layout(case: Case, error: EngineError) -> bool:
    target = next((c.target for c in case.program.calls if c.name == error.call), "")
    return target.rpartition(".")[2] in _VIEWS


def _reference_raises(invariant: Invariant, case: Case) -> bool:
    context = Context(case.reference, case.reference, case.settings, ())
    try:
        for _ in invariant.claims(Case(context, case.sample, case.source)):
            pass
    except (EngineError, Unsupported):
        return True
    return False


def fits(invariant: Invariant, case: Case) -> bool:
    """Whether the case has gradients at all, and something to this invariant."""
    differentiable = bool(case.program.leaves) and any(c is not None for c in case.cotangents)
    return differentiable and invariant.fits(case)


def due(checks: Iterable[Check], case: Case) -> Iterator[Check]:
    """The checks to run on a case: of the invariants all or, unless they were asked for, a few.

    A model meets a few in any case but the full profile.
    """
    asked = bool(case.settings.checks) and not case.loose
    everything = asked or case.settings.profile == "full"
    turn: frozenset[str] | None = None
    for check in checks:
        if not isinstance(check, InvariantCheck):
            yield check
            continue
        if check.invariant.of_engine and case.users:
            continue
        if everything:
            yield check
            continue
        if turn is None:
            turn = in_turn(case)
        if check.name in turn:
            yield check


def in_turn(case: Case) -> frozenset[str]:
    """The names of the invariants that a sample meets, by its number among its op's."""
    numbered = re.search(r"(\d+)$", case.sample.label)
    number = int(numbered[1]) if numbered else int(case.digest, 16)
    start = zlib.crc32(case.sample.op.encode()) + EACH * number
    rows = list(INVARIANTS.values())
    turned = (rows[(start + step) % len(rows)] for step in range(len(rows)))
    try:
        fitting = (f"{GROUP}.{row.name}" for row in turned if fits(row, case))
        return frozenset(itertools.islice(fitting, EACH))
    except ReferenceFailed:  # which the other checks tell
        return frozenset()


def load() -> dict[str, Callable[[], InvariantCheck]]:
    """Every invariant as a check, by its name."""
    return {f"{GROUP}.{n}": functools.partial(InvariantCheck, r) for n, r in INVARIANTS.items()}
