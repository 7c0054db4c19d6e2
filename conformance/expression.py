"""-k: words joined by and, or, not and parentheses; a word matches where a case's name has it."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable, Iterator

from conformance.errors import UsageError

_TOKEN = re.compile(r"\s*(\(|\)|[^\s()]+)")
_DIGEST = re.compile(r"[0-9a-f]{6,}\Z")  # shorter words, such as add, are no part of a digest

# What a word says of a name of which only the beginning is known: True, False or not yet (None).
_Judge = Callable[[str], bool | None]


@dataclasses.dataclass(frozen=True)
class Expression:
    """A parsed -k expression; the empty one matches everything. Case is ignored, as in pytest.

    Raises UsageError for an expression that does not parse.
    """

    text: str

    def __post_init__(self) -> None:
        self._evaluate(lambda word: True)

    def __bool__(self) -> bool:
        return bool(self.text.strip())

    @property
    def words(self) -> tuple[str, ...]:
        """The words that are looked for."""
        found: list[str] = []

        def collect(word: str) -> bool:
            found.append(word)
            return True

        self._evaluate(collect)
        return tuple(found)

    def matches(self, case: str, digest: str) -> bool:
        """Whether a case is chosen; only long words and those with a slash look at its digest."""
        case = case.lower()
        bare = case.replace(f"/{digest}/", "/", 1)
        return (
            self._evaluate(lambda word: word.lower() in (case if _looks_at_digest(word) else bare))
            is True
        )

    def may_match(self, beginning: str, later: Iterable[str] = (), *, digest: str = "") -> bool:
        """Whether a case whose name starts with "source/op/" can be chosen.

        `digest` is the part that follows, where it is known; `later` holds what follows somewhere
        behind it: names of checks, dtypes, devices.
        """
        beginning = beginning.lower()
        rest = [part.lower() for part in later]

        def judge(word: str) -> bool | None:
            word = word.lower()
            if word in (f"{beginning}{digest}/" if _looks_at_digest(word) else beginning):
                return True
            if "/" in word or any(word in part for part in rest):
                return None
            return None if _DIGEST.match(word) and not digest else False

        return self._evaluate(judge) is not False

    def _evaluate(self, judge: _Judge) -> bool | None:
        """The expression's value in three-valued logic."""
        if not self:
            return True
        tokens = [token.group(1) for token in _TOKEN.finditer(self.text)]
        parser = _Parser(iter(tokens), self.text, judge)
        value = parser.either()
        if parser.token is not None:
            raise parser.error()
        return value


def _looks_at_digest(word: str) -> bool:
    return "/" in word or bool(_DIGEST.match(word.lower()))


class _Parser:
    """Recursive descent over the tokens, judging as it goes."""

    def __init__(self, tokens: Iterator[str], text: str, judge: _Judge) -> None:
        self.tokens, self.text, self.judge = tokens, text, judge
        self.token = next(tokens, None)

    def error(self) -> UsageError:
        where = f"at {self.token!r}" if self.token else "at its end"
        return UsageError(
            f"-k {self.text!r} is not an expression ({where}): join words with and, or, not and "
            "parentheses, as in -k 'softmax and not log'"
        )

    def take(self) -> str:
        if self.token is None:
            raise self.error()
        token, self.token = self.token, next(self.tokens, None)
        return token

    def either(self) -> bool | None:
        value = self.both()
        while self.token == "or":
            self.take()
            other = self.both()
            value = True if True in (value, other) else None if None in (value, other) else False
        return value

    def both(self) -> bool | None:
        value = self.negation()
        while self.token == "and":
            self.take()
            other = self.negation()
            value = False if False in (value, other) else None if None in (value, other) else True
        return value

    def negation(self) -> bool | None:
        token = self.take()
        if token == "not":
            value = self.negation()
            return None if value is None else not value
        if token == "(":
            value = self.either()
            if self.take() != ")":
                raise self.error()
            return value
        if token in (")", "and", "or"):
            raise UsageError(
                f"-k {self.text!r} is not an expression (a word is missing before {token!r}): join "
                "words with and, or, not and parentheses, as in -k 'softmax and not log'"
            )
        return self.judge(token)


def near(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like `word`: those with a like last part count as like it."""
    by_key: dict[str, str] = {}
    for name in names:
        by_key.setdefault(name.lower(), name)
        by_key.setdefault(name.lower().rpartition(".")[2], name)
    keys = difflib.get_close_matches(word.lower(), by_key, n=2 * count, cutoff=0.6)
    return list(dict.fromkeys(by_key[key] for key in keys))[:count]


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """ " (did you mean 'a', 'b'?)", or nothing."""
    found = near(word, names)
    return f" (did you mean {', '.join(map(repr, found))}?)" if found else ""
