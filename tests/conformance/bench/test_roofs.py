"""Roofs: the best of what was measured, by any library at any time."""

from __future__ import annotations

from typing import Any

from conformance.bench import roofs


def measured(copy: float, gemm: float, call: float) -> dict[str, Any]:
    return {
        "copy": {"numpy": copy, "torch": copy / 2},
        "gemm": {"float32": {"torch": gemm}, "float64": {"torch": gemm / 2}},
        "call": {"numpy": call, "torch": 3 * call},
    }


def test_a_roof_is_what_nothing_passed() -> None:
    found = roofs.best([measured(1e9, 2e10, 5e-7), measured(3e9, 1e10, 4e-7)], "float64")
    assert found == {"copy": 3e9, "gemm": 1e10, "call": 4e-7}


def test_without_a_measurement_there_is_no_roof() -> None:
    assert roofs.best([], "float32") == {}
