"""What a check asks an engine, as a call and as lines of a script: outputs, gradients, products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from conformance import script
from conformance.engines.base import Engine
from conformance.engines.variants import Recording
from conformance.program import Array, Program, Values, refs

Named = dict[str, Array | None]

_AD = "torch.autograd.forward_ad"
MOST = 10_000  # values that a script may hold
SECOND = ("rr", "fr", "rf")


@dataclass(frozen=True)
class Question:
    """One of "value", "vjp", "jvp", "rr", "fr", "rf", "ff", "cotangent", with what it takes.

    "cotangent" is the derivative of <vjp, tangents> in the cotangents, which is the jvp. Answers go
    by the outputs' numbers for value, jvp, ff and cotangent, by the leaves' names for the others.
    `dtype` is what a script gives cotangents and tangents in, where it is not that of the arrays.
    """

    kind: str
    cotangents: Sequence[Array | None] = ()
    tangents: Mapping[str, Array] | None = None
    others: Mapping[str, Array] | None = None
    dtype: str = ""

    def answer(self, engine: Engine, program: Program, values: Values, *, plain: bool) -> Named:
        """What the engine says; with `plain` by its reverse over reverse, whatever the route."""
        tangents = self.tangents or {}
        if self.kind == "value":
            return _numbered(engine.run(program, values).outputs)
        if self.kind == "jvp" or (self.kind == "cotangent" and plain):
            return _numbered(engine.jvp(program, values, tangents))
        if self.kind == "cotangent":
            graph = Recording(engine, program, values)
            return _numbered(graph.in_cotangents(self.cotangents, tangents))
        if self.kind == "ff":
            return _numbered(engine.curvature(program, values, tangents, self.others or {}))
        if self.kind in SECOND:
            route = "rr" if plain else self.kind
            return engine.hvp(program, values, self.cotangents, tangents, route)
        return engine.vjp(program, values, self.cotangents).gradients

    def lines(self, program: Program, values: Values, helpers: set[str]) -> list[str]:
        """The lines that compute `found`, a dict of tensors; `helpers` collects what is missing."""
        inputs = script.input_lines(program.inputs, values, None, helpers)
        calls = script.call_lines(program.calls)
        outputs = [str(ref) for ref in refs(program.outputs)]
        leaves = [i.name for i in program.leaves]
        if self.kind == "value":
            return [*inputs, *calls, f"found = {_dict(outputs)}"]
        if self.kind == "ff":
            return [*inputs, *self._curvature(calls, outputs, leaves, helpers)]
        if self.kind == "jvp":
            inside = [*self._duals(leaves, helpers), *calls]
            inside.append(f"found = {_dict([f'{_AD}.unpack_dual({y}).tangent' for y in outputs])}")
            return [*inputs, *_dual_level(inside)]
        pairs = [(y, c) for y, c in zip(outputs, self.cotangents, strict=True) if c is not None]
        weights = [
            f"torch.ones_like({y})"
            if (c == 1).all()
            else script.tensor(c, self.dtype or c.dtype.name, None, helpers)
            for y, c in pairs
        ]
        ys, cs, xs = ", ".join(y for y, _ in pairs), ", ".join(weights), ", ".join(leaves)
        again = "allow_unused=True, create_graph=True"
        found = f"found = dict(zip({leaves}, gradients))"
        first = f"gradients = torch.autograd.grad([{ys}], [{xs}], [{cs}], "
        if self.kind in ("rr", "cotangent"):
            of, names = xs, leaves
            if self.kind == "cotangent":
                calls = [*calls, f"weights = [w.requires_grad_() for w in [{cs}]]"]
                first = f"gradients = torch.autograd.grad([{ys}], [{xs}], weights, "
                of = "*weights"
                names = [str(n) for n, c in enumerate(self.cotangents) if c is not None]
            return [
                *inputs, *calls, first + again + ")",
                f"pairs = [p for p in zip(gradients, {self._tangents(leaves, helpers)}) "
                "if p[0] is not None and p[0].requires_grad]",
                "first, tangents = zip(*pairs) if pairs else ((), ())",
                f"gradients = torch.autograd.grad(first, [{of}], tangents, allow_unused=True) "
                f"if pairs else [None] * {len(names)}",
                f"found = dict(zip({names}, gradients))",
            ]  # fmt: skip
        if self.kind == "fr":
            inside = [*self._duals(leaves, helpers), *calls, first + again + ")"]
            inside.append(f"gradients = [{_AD}.unpack_dual(g).tangent for g in gradients]")
            return [*inputs, *_dual_level([*inside, found])]
        if self.kind == "rf":
            moved = ", ".join(f"{_AD}.unpack_dual({y}).tangent" for y, _ in pairs)
            inside = [*self._duals(leaves, helpers), *calls, f"moves = [{moved}]"]
            grad = f"gradients = torch.autograd.grad(moves, [{xs}], [{cs}], allow_unused=True)"
            return [*inputs, *_dual_level([*inside, grad, found])]
        return [*inputs, *calls, first + "allow_unused=True)", found]

    def _tangents(self, leaves: list[str], helpers: set[str], which: str = "tangents") -> str:
        given: Mapping[str, Array] = getattr(self, which) or {}
        made = [
            script.tensor(given[n], self.dtype or given[n].dtype.name, None, helpers)
            for n in leaves
        ]
        return f"[{', '.join(made)}]"

    def _duals(self, leaves: list[str], helpers: set[str]) -> list[str]:
        tangents = self.tangents or {}
        return [
            f"{n} = {_AD}.make_dual({n}, "
            f"{script.tensor(tangents[n], self.dtype or tangents[n].dtype.name, None, helpers)})"
            for n in leaves
        ]

    def _curvature(
        self, calls: list[str], outputs: list[str], leaves: list[str], helpers: set[str]
    ) -> list[str]:
        names = ", ".join(leaves)
        kept = [y for y, c in zip(outputs, self.cotangents, strict=True) if c is not None]
        numbers = [str(n) for n, c in enumerate(self.cotangents) if c is not None]
        t = self._tangents(leaves, helpers)
        u = self._tangents(leaves, helpers, "others")
        return [
            f"def function({names}):",
            *("    " + line for line in calls),
            f"    return {', '.join(kept)},",
            f"t, u = tuple({t}), tuple({u})",
            "inner = lambda *xs: torch.func.jvp(function, xs, t)[1]",
            f"point = tuple(x.detach() for x in [{names}])",
            f"found = dict(zip({numbers}, torch.func.jvp(inner, point, u)[1]))",
        ]


def comparison(
    question: Question,
    program: Program,
    values: Values,
    expected: Mapping[str, Array],
    engine_import: str = "import torch",
    tolerance: float = 1e-9,
) -> str | None:
    """A standalone script that exits 1 where an entry is off by more than the tolerance, else 0.

    None where the values are too many to stand in a short script.
    """
    if sum(x.size for x in (*values.values(), *expected.values())) > MOST:
        return None
    helpers: set[str] = set()
    lines = question.lines(program, values, helpers)
    whole = ".double()" if question.dtype else ""  # NumPy has no bfloat16
    right = ", ".join(f"{name!r}: {_array(np.asarray(y), helpers)}" for name, y in expected.items())
    lines += [
        f"expected = {{{right}}}",
        "wrong = 0",
        "for name, right in expected.items():",
        "    y = found[name]  # None is zero",
        "    ours = numpy.zeros_like(right) if y is None else "
        f"y.detach().clone(){whole}.cpu().numpy()",
        "    print(name, 'is', ours, 'and should be', right)",
        "    wrong |= ours.shape != numpy.shape(right) or not numpy.allclose(",
        f"        ours, right, rtol=0, atol={tolerance:.1g}, equal_nan=True)",
        "sys.exit(int(wrong))",
    ]
    packed = "base64" in helpers
    head = [
        *(["import base64"] if packed else []),
        "import sys",
        *(["import zlib"] if packed else []),
    ]
    head += ["", "import numpy", engine_import, "", *(script.UNPACK if packed else [])]
    return "\n".join([*head, *lines]) + "\n"


def _numbered(arrays: Sequence[Array | None]) -> Named:
    return {str(n): y for n, y in enumerate(arrays)}


def _array(y: Array, helpers: set[str]) -> str:
    """An expression that makes the array, or the lists that are one."""
    if y.size <= script.LITERAL:
        return script.expression(y.tolist())
    return f"{script.tensor(y, y.dtype.name, None, helpers)}.cpu().numpy()"


def _dict(expressions: list[str]) -> str:
    return "{" + ", ".join(f"{str(n)!r}: {y}" for n, y in enumerate(expressions)) + "}"


def _dual_level(lines: list[str]) -> list[str]:
    return [f"with {_AD}.dual_level():", *("    " + line for line in lines)]
