"""What is expected to fail, and the verdict on a run: ok, regression, improvement, expected, flaky
or missing.

The lists lie beside this module, one `<engine>.json` an engine. What torch.json says of PyTorch
also covers other engines, where the verdict is that the reference is wrong:

    [{"op": "linalg.eigh", "check": "vjp", "reason": "...", "link": "...", "witness": "..."}]

`op` and `check` are names or patterns of fnmatch ("linalg.*", "*"), several with | between them
("vjp|jvp"); half and half2 have to be named. Three patterns may be left out: `case`, held against
the whole case; `call`, against the call that is to blame, wherever in a Program it stands
("torch.norm|torch.dist"); `verdict`, against the sentence ("reference wrong*"; what an error said,
where there is no verdict), so that another fault of the same op is not excused. `"flaky": true`
says that it may pass as well. A `witness` is code, or the name of a case that failed.
`conformance expect` adds to the lists and removes from them (`conformance.expectations.edit`).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from conformance.errors import UsageError
from conformance.results import FAILING, UNDECIDED, Result
from conformance.settings import HALF_CHECKS

JUDGED_BY = ("culprit", "verdict", "reason")  # what an expectation looks at in the evidence
INCONCLUSIVE_CAP = 0.005  # of what was judged: above it, deciding has failed
REFERENCE = "torch"
_BLAMED = "*reference wrong*"  # in what a verdict says of a fault that is not the engine's alone
_CASE = re.compile(r"\w+/[^\s/]+/[0-9a-f]+/[^\s/]+/\w+/\w+")


@dataclasses.dataclass(frozen=True)
class Expectation:
    """A failure that is known: of whom, why, and where it is written down."""

    op: str
    check: str
    reason: str
    link: str = ""
    witness: str = ""
    case: str = "*"
    call: str = "*"
    verdict: str = "*"
    flaky: bool = False

    def concerns(self, op: str, check: str) -> bool:
        """Whether this is about such an op and check."""
        return self.of_op(op) and self.of_check(check)

    def of_op(self, op: str) -> bool:
        """Whether this is about such an op."""
        return any(fnmatch.fnmatchcase(op, pattern) for pattern in self.op.split("|"))

    def of_check(self, check: str) -> bool:
        """Whether this is about such a check."""
        named = check in HALF_CHECKS  # what is lost in 16 bits is another fault
        return any(
            fnmatch.fnmatchcase(check, pattern) and not (named and pattern == "*")
            for pattern in self.checks
        )

    def meets(self, result: Result) -> bool:
        """Whether that result is of an op, a check and a case that this is about."""
        return self.concerns(result.op, result.check) and fnmatch.fnmatchcase(
            result.case, self.case
        )

    def covers(self, result: Result) -> bool:
        """Whether that result fails as this foretells, by the call to blame and by the verdict."""
        culprit = str(result.evidence.get("culprit", ""))
        return (
            result.outcome in FAILING
            and self.meets(result)
            and any(fnmatch.fnmatchcase(culprit, pattern) for pattern in self.call.split("|"))
            and fnmatch.fnmatchcase(sentence(result), self.verdict)
        )

    def on(self, devices: Iterable[str]) -> bool:
        """Whether its cases, which end with their device, can be on one of these."""
        pattern = self.case.rpartition("/")[2]
        return any(fnmatch.fnmatchcase(device, pattern) for device in devices)

    @property
    def checks(self) -> list[str]:
        """The patterns of the checks."""
        return self.check.split("|")

    @property
    def borrowed(self) -> bool:
        """Whether it comes from the reference's list: an excuse, which a run need not meet."""
        return self.verdict == _BLAMED

    @property
    def witness_case(self) -> str | None:
        """The case that is the witness; None where the witness is code."""
        return self.witness if _CASE.fullmatch(self.witness) else None

    def __str__(self) -> str:
        limits = [p for p in (self.case, self.call, self.verdict) if p != "*"]
        about = f"{self.op} {self.check}" + (f" ({', '.join(limits)})" if limits else "")
        return f"{about}: {self.reason}" + (f" [{self.link}]" if self.link else "")


def sentence(result: Result) -> str:
    """What a result says of its failure: the verdict, or what an error said."""
    return str(result.evidence.get("verdict") or result.evidence.get("reason") or "")


def load(engine: str, file: str | None = None) -> tuple[Expectation, ...]:
    """The expectations of an engine, and the known faults of the reference it is held against.

    `file` is a list beside the engine's own. Raises UsageError for a list that is not there or
    not well formed.
    """
    own = _listed(engine)
    if file is not None:
        try:
            own += parse(Path(file).read_text(encoding="utf-8"), file)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(
                f"cannot read the expectations in {file} ({error}): `conformance expect accept "
                "JOURNAL --file FILE` makes such a list"
            ) from error
    if engine == REFERENCE:
        return own
    return own + tuple(borrowed(e) for e in _listed(REFERENCE))


def borrowed(expectation: Expectation) -> Expectation:
    """What the reference's list says, as it holds for the other engines."""
    return dataclasses.replace(expectation, verdict=_BLAMED)


def _listed(engine: str) -> tuple[Expectation, ...]:
    """What stands in an engine's list; nothing where it has none."""
    file = place(engine)
    if file is None or not file.is_file():
        return ()
    return parse(file.read_text(encoding="utf-8"), str(file))


def place(engine: str) -> Path | None:
    """The file of an engine's list; None for an engine from outside, which has none here."""
    if ":" in engine:
        return None
    return Path(__file__).with_name(f"{engine}.json")


def parse(text: str, name: str) -> tuple[Expectation, ...]:
    """The expectations in a JSON text; `name` is what an error calls it."""
    try:
        return tuple(Expectation(**entry) for entry in json.loads(text))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{name} is no list of expectations ({error}): each has op, check and reason, and may "
            "have link, witness, case, call, verdict and flaky"
        ) from error


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a run's results mean, given what was expected.

    `regressions` fail unexpectedly; `expected` fail as foretold; an expectation is an
    `improvement` where the run shows that it no longer fails, and `missing` where it met no case;
    `flaky` cases both passed and failed.
    """

    counts: Mapping[str, int]
    regressions: tuple[Result, ...]
    expected: tuple[tuple[Result, Expectation], ...]
    flaky: tuple[Result, ...]
    improvements: tuple[Expectation, ...]
    missing: tuple[Expectation, ...]

    @property
    def decided(self) -> int:
        """How many results are neither unsupported nor inconclusive."""
        return sum(n for outcome, n in self.counts.items() if outcome not in UNDECIDED)

    @property
    def inconclusive_share(self) -> float:
        """The part of what could be judged that was not decided."""
        undecided = self.counts.get("inconclusive", 0)
        return undecided / max(1, self.decided + undecided)

    @property
    def name(self) -> str:
        """The verdict in a word; "nothing" where nothing was checked."""
        if self.regressions:
            return "regression"
        if self.flaky:
            return "flaky"
        return "ok" if self.decided else "nothing"

    def strict_failures(self) -> list[str]:
        """What --strict holds against a run that is otherwise ok, one phrase each."""
        count, share = self.counts, self.inconclusive_share
        return [
            phrase
            for wrong, phrase in (
                (count.get("unsupported"), f"{count.get('unsupported', 0):,} unsupported"),
                (count.get("precision"), f"{count.get('precision', 0):,} of lost precision"),
                (self.improvements, f"{len(self.improvements)} expectations no longer fail"),
                (self.missing, f"{len(self.missing)} expectations met no case"),
                (share > INCONCLUSIVE_CAP, f"{share:.1%} inconclusive"),
            )
            if wrong
        ]

    def exit_code(self, *, strict: bool = False) -> int:
        """0, 1 or 5, as `conformance run` returns it for a run that came to its end."""
        if self.name in ("regression", "flaky"):
            return 1
        if self.name == "nothing":
            return 5
        return 1 if strict and self.strict_failures() else 0


def judge(
    results: Iterable[Result], expectations: Sequence[Expectation], *, whole: bool = True
) -> Verdict:
    """The verdict. `whole` says that the run left nothing out, so that an expectation which met
    no case is missing.
    """
    results = list(results)
    by_case: dict[str, set[bool]] = {}
    for result in results:
        if result.outcome not in UNDECIDED:
            by_case.setdefault(result.case, set()).add(result.outcome in FAILING)
    regressions, expected, flaky = [], [], []
    met: dict[Expectation, set[str]] = defaultdict(set)  # the checks of its cases
    failing: set[Expectation] = set()
    # a million pairs of ops are a million names: patterns are held against each, and check, once
    of_op: dict[str, list[Expectation]] = {}
    of_check: dict[str, set[int]] = {}
    near: dict[tuple[str, str], list[Expectation]] = {}  # those of an op and check
    unmet: dict[tuple[str, str], list[Expectation]] = {}  # and of these, those that met no case yet
    for result in results:
        if result.outcome in UNDECIDED:
            continue
        failed = result.outcome in FAILING
        of = result.op, result.check
        if of not in near:
            if result.op not in of_op:
                of_op[result.op] = [e for e in expectations if e.of_op(result.op)]
            if result.check not in of_check:
                of_check[result.check] = {id(e) for e in expectations if e.of_check(result.check)}
            near[of] = [e for e in of_op[result.op] if id(e) in of_check[result.check]]
            unmet[of] = list(near[of])
        covering = [known for known in near[of] if failed and known.covers(result)]
        failing.update(covering)
        if unmet[of]:
            found = [e for e in unmet[of] if fnmatch.fnmatchcase(result.case, e.case)]
            for known in found:
                met[known].add(result.check)
                unmet[of].remove(known)
        if failed and covering:
            expected.append((result, covering[0]))
        elif failed and len(by_case[result.case]) > 1:
            flaky.append(result)
        elif failed:
            regressions.append(result)
    ran = {result.check for result in results}
    devices = {result.device for result in results}
    return Verdict(
        counts=Counter(result.outcome for result in results),
        regressions=tuple(regressions),
        expected=tuple(expected),
        flaky=tuple(flaky),
        improvements=tuple(
            e
            for e, checks in met.items()
            if not (e in failing or e.flaky or e.borrowed)
            and _all_met(e, checks)
            and (whole or _shown(e, by_case))
        ),
        missing=tuple(
            e
            for e in dict.fromkeys(expectations)
            if whole and e not in met and not e.borrowed and _all_met(e, ran) and e.on(devices)
        ),
    )


def _all_met(expectation: Expectation, checks: Collection[str]) -> bool:
    """Whether each check that it names is among these."""
    return all(fnmatch.filter(checks, pattern) for pattern in expectation.checks)


def _shown(expectation: Expectation, cases: Collection[str]) -> bool:
    """Whether a run that left something out shows that it no longer fails.

    It does with the very case that failed. One that names the call to blame may stand anywhere.
    """
    witness = expectation.witness_case
    return expectation.call == "*" if witness is None else witness in cases
