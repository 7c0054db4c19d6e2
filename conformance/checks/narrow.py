"""narrow: the engine's gradients in float32 against its own in float64, at the same numbers.

A rule that is right in float64 can overflow, cancel or hard-code a constant in float32. How far a
right float32 gradient may be off is measured at the point: by what an epsilon at the inputs does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from conformance import diagnosis
from conformance.checks.base import VANISHING, Case, Finding
from conformance.checks.compare import compare, measures
from conformance.engines.base import Vjp
from conformance.errors import EngineError, Unsupported
from conformance.oracles.pairs import flat
from conformance.oracles.torch_autograd import SPREADS, scale, spread
from conformance.program import Array, Input, Program, Symbol, Values, map_tree

_NARROW = {"float64": "float32", "complex128": "complex64"}
_WIDE = {narrow: wide for wide, narrow in _NARROW.items()}
APART = 0.5  # of the values' scale: rounding moves them by less
UNDERFLOW = 2.0**20  # of float32's smallest normal numbers: terms below them are lost
FACTOR = 4.0  # times the tolerance of two float32 results: one whole forward and backward in it


class NarrowCheck:
    """float32 beside float64."""

    name = "narrow"

    def run(self, case: Case) -> Iterator[Finding]:
        """One finding for all leaves; none where no leaf has a dtype with a narrower one."""
        program = case.program
        if not any(i.dtype in (*_NARROW, *_WIDE) for i in program.leaves):
            return
        narrow, low = cast(program, case.values, _NARROW)
        wide, high = cast(narrow, low, _WIDE)
        try:
            ours = case.engine.vjp(narrow, low, self._cotangents(case, narrow))
        except (EngineError, Unsupported) as error:
            text = f"it does not run in float32: {str(error).splitlines()[0]}"
            yield Finding("unsupported", {"reason": text})
            return
        yield self._compared(case, (narrow, low), (wide, high), ours)

    def _cotangents(self, case: Case, narrow: Program) -> list[Array | None]:
        made: list[Array | None] = []
        for cotangent in case.steady_cotangents:
            if cotangent is None:
                made.append(None)
                continue
            to = _NARROW.get(cotangent.dtype.name, cotangent.dtype.name)
            made.append(cotangent.astype(to))
        return made

    def _compared(
        self,
        case: Case,
        narrow: tuple[Program, Values],
        wide: tuple[Program, Values],
        ours: Vjp,
    ) -> Finding:
        program, high = wide
        cotangents = [
            None if c is None else c.astype(_WIDE.get(c.dtype.name, c.dtype.name))
            for c in self._cotangents(case, narrow[0])
        ]

        def gradients(values: Values) -> Mapping[str, Array | None]:
            return case.engine.vjp(program, values, cotangents).gradients

        right_vjp = case.engine.vjp(program, high, cotangents)
        for a, b in zip(ours.outputs, right_vjp.outputs, strict=True):
            if a.shape != b.shape or not np.isfinite(b).all():
                continue
            if not np.isfinite(a).all():
                text = "its values are not finite in float32"
            elif float(np.abs(flat(a) - flat(b)).max(initial=0.0)) > APART * scale(b):
                text = "its values in float32 are others: signs that are free, or a jump"
            else:
                continue
            return Finding("unsupported", {"reason": text})
        truth = right_vjp.gradients

        def moved(values: Values) -> Mapping[str, Array | None]:
            return gradients({n: v.astype(high[n].dtype) for n, v in values.items()})

        spreads = spread(moved, *narrow, truth, case.rng("narrow"))
        compared = 0
        for leaf in narrow[0].leaves:
            found, right = ours.gradients.get(leaf.name), truth[leaf.name]
            if found is not None and found.dtype.name != leaf.dtype:
                text = f"the gradient of a {leaf.dtype} leaf is {found.dtype.name}"
                said = {"leaf": case.alias(leaf.name), "diagnosis": "dtype", "description": text}
                return Finding("failed", said | {"verdict": f"engine wrong: {text}"})
            if found is None or right is None:
                if (found is None) is (right is None):
                    continue
                text = "a gradient arises in one of float32 and float64 alone"
                said = {"leaf": case.alias(leaf.name), "verdict": f"engine wrong: {text}"}
                return Finding("failed", said | {"diagnosis": "float32"})
            compared += found.size
            limits = np.finfo(found.dtype)
            allowed = SPREADS * spreads[leaf.name] + 2 * float(limits.eps) * np.abs(flat(right))
            allowed = allowed + UNDERFLOW * float(limits.tiny)
            relative = FACTOR * case.relative(leaf.dtype)
            difference = compare(
                found.astype(right.dtype), right, relative=relative, absolute=allowed
            )
            if difference is None:
                continue
            if difference.kind == "value" and self._vanishes(case, leaf, found, right):
                continue
            if difference.kind == "nan" and scale(right) > float(np.finfo(found.dtype).max):
                continue  # the right gradient is beyond float32
            said_of = diagnosis.diagnose(found.astype(right.dtype), right, tuple(leaf.shape))
            text = "its float32 gradient is not the float64 one, by more than rounding"
            evidence = measures(difference, leaf.dtype) | {"leaf": case.alias(leaf.name)}
            evidence |= {"diagnosis": "float32", "description": said_of.sentence}
            return Finding("failed", evidence | {"verdict": f"engine wrong: {text}"})
        return Finding("passed", {"compared": compared})

    def _vanishes(self, case: Case, leaf: Input, found: Array, right: Array) -> bool:
        """Whether both are no more than what rounding in float32 leaves of terms that cancel."""
        eps = float(np.finfo(found.dtype).eps)
        return max(scale(found), scale(right)) <= VANISHING * eps * case.natural[leaf.name]


def cast(program: Program, values: Values, dtypes: Mapping[str, str]) -> tuple[Program, Values]:
    """The Program and its values with every dtype of the table replaced."""

    def named(leaf: object) -> object:
        if isinstance(leaf, Symbol):
            to = dtypes.get(leaf.path.removeprefix("torch."))
            return leaf if to is None else Symbol(f"torch.{to}")
        return leaf

    made = {
        i.name: rounded(values[i.name], dtypes[i.dtype]) if i.dtype in dtypes else values[i.name]
        for i in program.inputs
    }
    inputs = tuple(replace(i, dtype=dtypes.get(i.dtype, i.dtype)) for i in program.inputs)
    calls = tuple(
        replace(call, args=args, kwargs=kwargs)
        for call in program.calls
        for args, kwargs in [map_tree(named, (call.args, call.kwargs))]
    )
    return Program(inputs, calls, program.outputs), made


def rounded(array: Array, dtype: str) -> Array:
    """The nearest numbers of a dtype; those of bfloat16 are held in float32, as NumPy has none."""
    with np.errstate(over="ignore"):
        if dtype != "bfloat16":
            return array.astype(dtype)
        bits = array.astype(np.float32).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)  # half way goes to the even one
        halves = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
        return np.where(np.isfinite(array), halves.view(np.float32), array).astype(np.float32)
