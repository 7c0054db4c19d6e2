"""Wrong rules on purpose: one-line mutations of refgrad's own, which the harness must find."""

from __future__ import annotations

from conformance.mutants import engine, rules, shapes, special
from conformance.mutants.mutant import Mutant

MUTANTS: dict[str, Mutant] = {
    m.name: m for m in (*rules.MUTANTS, *shapes.MUTANTS, *special.MUTANTS, *engine.MUTANTS)
}


def script_with(mutant: Mutant, text: str) -> str:
    """A script that runs another (its text) on refgrad with the mutant in force."""
    put = f"MUTANTS[{mutant.name!r}].put(mutant.Reached())"
    return f"from conformance.mutants import MUTANTS, mutant\n\n{put}\n\n{text}"


__all__ = ["MUTANTS", "Mutant", "script_with"]
