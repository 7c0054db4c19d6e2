"""Changing a list of expectations: what a run's failures add to it, and what no longer fails."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from conformance.errors import UsageError
from conformance.expectations import Expectation, parse, sentence
from conformance.results import Result

_DETAIL = re.compile(r"(?<![\w.])[-+]?\d|\[| \(")  # where an error turns to the case at hand
_PARTY = re.compile(r"[^:(]*[^:( ]")  # of a verdict: "engine wrong", "reference wrong"


@dataclasses.dataclass(frozen=True)
class Proposal:
    """An expectation, and the results that it is made for."""

    expectation: Expectation
    results: tuple[Result, ...]


def propose(
    failures: Iterable[Result],
    reason: str,
    link: str = "",
    *,
    flaky: Collection[Result] = (),
    pinned: bool = False,
    to_reference: bool = False,
) -> list[Proposal]:
    """The fewest expectations that say no more than these failures do.

    One for each call to blame and party in the wrong, over all ops and checks in which they were
    seen; without a call, one for each op; for what the engine raised, one for each message.
    `pinned` holds each to the Program that failed; `to_reference` words them for the reference's
    own list, where it is the engine. The first case is the witness.
    """
    uncertain = {id(result) for result in flaky}
    groups: dict[tuple[object, ...], list[Result]] = {}
    for result in failures:
        call = str(result.evidence.get("culprit") or "")
        pattern = _pattern(result)
        if to_reference:
            pattern = pattern.replace("reference wrong", "engine wrong", 1)
        apart = "" if call or result.outcome == "errored" else result.op
        program = result.digest if pinned else ""
        key = (call, pattern, apart, program, id(result) in uncertain)
        groups.setdefault(key, []).append(result)
    return [
        Proposal(
            Expectation(
                op=_only({r.op for r in group}),
                check="|".join(dict.fromkeys(r.check for r in group)),
                reason=reason,
                link=link,
                witness=group[0].case,
                case=f"*/{program}/*" if program else "*",
                call=glob.escape(str(call)) or "*",
                verdict=str(pattern),
                flaky=bool(uncertain_one),
            ),
            tuple(group),
        )
        for (call, pattern, _, program, uncertain_one), group in groups.items()
    ]


def _only(ops: set[str]) -> str:
    return glob.escape(next(iter(ops))) if len(ops) == 1 else "*"


def _pattern(result: Result) -> str:
    """What the sentences of the same fault begin with: who is wrong, or what was raised."""
    text = sentence(result)
    found = _PARTY.match(text) if result.outcome == "failed" else None
    if found:
        text = found.group()
    elif detail := _DETAIL.search(text):
        text = text[: detail.start()]
    return glob.escape(text) + "*"


class ListFile:
    """The text of a list, entry by entry, so that those which stay are not touched.

    A file that is not there is an empty list. Raises UsageError for one that is no list.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else "[]\n"
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path} ({error})") from error
        self.expectations = list(parse(text, str(path)))
        spans = _spans(text)
        self._texts = [text[start:end] for start, end in spans]
        if spans:
            self._head, self._tail = text[: spans[0][0]], text[spans[-1][1] :]
        else:
            self._head, self._tail = "[\n  ", "\n]\n"
        indent = self._head.rpartition("\n")[2] if "\n" in self._head else ""
        several = len(spans) > 1
        self._between = text[spans[0][1] : spans[1][0]] if several else f",\n{indent}"
        self._indent = indent if not indent.strip() else ""
        self._wide = bool(spans) and "\n" not in self._texts[0]

    @property
    def text(self) -> str:
        """The file's content."""
        if not self._texts:
            return "[]\n"
        return self._head + self._between.join(self._texts) + self._tail

    def add(self, new: Iterable[Expectation]) -> None:
        """Put expectations at the end."""
        for expectation in new:
            self.expectations.append(expectation)
            self._texts.append(self._written(expectation))

    def remove(self, old: Collection[Expectation]) -> None:
        """Take these out."""
        pairs = zip(self.expectations, self._texts, strict=True)
        kept = [(e, text) for e, text in pairs if e not in old]
        self.expectations, self._texts = [e for e, _ in kept], [text for _, text in kept]

    def save(self) -> None:
        """Write the file as a whole or not at all."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=self.path.parent, prefix=".", delete=False
            ) as file:
                file.write(self.text)
            try:
                os.chmod(file.name, self.path.stat().st_mode if self.path.exists() else 0o644)
                os.replace(file.name, self.path)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(file.name)
                raise
        except OSError as error:
            raise UsageError(
                f"cannot write {self.path} ({error.strerror}): choose another place with --file"
            ) from error

    def _written(self, expectation: Expectation) -> str:
        fields = as_data(expectation)
        if self._wide:
            return json.dumps(fields, ensure_ascii=False)
        lines = json.dumps(fields, indent=2, ensure_ascii=False)
        return lines.replace("\n", "\n" + self._indent)


_ORDER = ("op", "check", "case", "call", "verdict", "reason", "link", "witness", "flaky")


def as_data(expectation: Expectation) -> dict[str, object]:
    """An expectation as it stands in a list: what is not said is left out."""
    said = {name: getattr(expectation, name) for name in _ORDER}
    unsaid = {f.name: f.default for f in dataclasses.fields(Expectation)}
    return {name: value for name, value in said.items() if value != unsaid[name]}


def _spans(text: str) -> list[tuple[int, int]]:
    """Where the entries of a JSON array begin and end."""
    spans: list[tuple[int, int]] = []
    start = text.find("{")
    while start >= 0:
        _, end = json.JSONDecoder().raw_decode(text, start)
        spans.append((start, end))
        start = text.find("{", end)
    return spans
