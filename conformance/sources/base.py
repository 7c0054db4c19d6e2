"""What a source is: something that makes Programs to verify."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from conformance.program import Program, Values

if TYPE_CHECKING:
    from conformance.settings import Settings


@dataclass(frozen=True)
class Item:
    """A unit of work for one worker: one op_db entry, one model, one block of seeds."""

    source: str
    key: str
    op: str


@dataclass(frozen=True)
class Sample:
    """A Program and its values; `label` says where it comes from, `note` what to know of it.

    `by_memory` says that kernels which read memory as it lies may run in it.
    """

    op: str
    program: Program
    values: Values
    label: str = ""
    note: str = ""
    by_memory: bool = False


@dataclass(frozen=True)
class Skipped:
    """A sample that could not be made, and why; it is counted and listed, never silent."""

    op: str
    label: str
    reason: str
    outcome: str = "unsupported"


class Source(Protocol):
    """The port that every source implements."""

    name: str

    def items(self, settings: Settings) -> list[Item]:
        """The units of work; cheap, and called in the parent."""

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """The samples of one item, in a worker; the same for the same item and settings."""
