"""Wrong rules on purpose: one-line mutations of refgrad's own, which the harness must find."""

from __future__ import annotations

from conformance.mutants import engine, rules, shapes, special
from conformance.mutants.mutant import Mutant

MUTANTS: dict[str, Mutant] = {
    m.name: m for m in (*rules.MUTANTS, *shapes.MUTANTS, *special.MUTANTS, *engine.MUTANTS)
}

__all__ = ["MUTANTS", "Mutant"]
