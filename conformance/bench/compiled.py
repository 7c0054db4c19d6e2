"""A Program as a plain Python function, so that no interpreter of ours is timed.

    def program(x, w):
        t0 = sin(x)
        for _ in range(499):
            t0 = mul(t0, w)
            t0 = sin(t0)
        t0 = sum(t0)
        return t0

Functions are bound once, as globals of the source text. A variable is used again when its value is
not needed any more, so memory is let go as in a loop that a person would write; and so the text of
a repeated block repeats, and is written as a loop.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from conformance.errors import ProgramError, Unsupported
from conformance.program import OPAQUE, Call, Program, Ref, Symbol, map_tree, refs
from conformance.script import expression

_METHOD = "torch.Tensor."
_OPERATORS = {
    "torch.Tensor.__add__": "+",
    "torch.Tensor.__sub__": "-",
    "torch.Tensor.__mul__": "*",
    "torch.Tensor.__truediv__": "/",
    "torch.Tensor.__matmul__": "@",
    "torch.Tensor.__pow__": "**",
}
_VARIABLE = re.compile(r"t\d+$")
_LONGEST = 24  # lines of a block whose repetition is looked for
_TAB = "    "


@dataclass(frozen=True)
class Compiled:
    """A function of the Program's inputs, in their order, and the text that it was made from."""

    function: Callable[..., Any]
    source: str


def compile_program(
    program: Program, resolve: Callable[[str], Any], *, methods: bool = True
) -> Compiled:
    """The Program in the words of one engine.

    `resolve` gives what a name stands for ("torch.nn.functional.softmax", "torch.float32"), and
    raises Unsupported where the engine has nothing for it. With `methods`, torch.Tensor.sum(x, 0)
    is written x.sum(0); without, `resolve` is asked for the function "torch.Tensor.sum". Indexing
    and operators are Python's own in both. `resolve("torch.no_grad")` is asked for where a call ran
    without gradients.
    """
    writer = _Writer(resolve, methods)
    body = "\n".join(_rolled(writer.statements(program)))
    names = ", ".join(i.name for i in program.inputs)
    source = f"def program({names}):\n{indent(body, _TAB)}\n"
    clash = [i.name for i in program.inputs if i.name in writer.bound or _VARIABLE.match(i.name)]
    if clash:
        raise ProgramError(f"rename the input {clash[0]!r}: the function has that name already")
    scope: dict[str, Any] = dict(writer.bound)
    exec(compile(source, "<program>", "exec"), scope)
    return Compiled(scope["program"], source)


class _Writer:
    """Writes statements; `bound` has what their global names stand for."""

    def __init__(self, resolve: Callable[[str], Any], methods: bool) -> None:
        self.bound: dict[str, Any] = {}
        self._resolve = resolve
        self._methods = methods

    def statements(self, program: Program) -> list[str]:
        """A statement for each call, and the return; calls without gradients stand in one block."""
        last = {r.name: n for n, call in enumerate(program.calls) for r in call.refs}
        kept = {r.name for r in refs(program.outputs)}
        variables = {i.name: i.name for i in program.inputs}
        numbers: dict[str, int] = {}  # of the calls whose results live
        free: list[int] = []
        statements: list[str] = []
        quiet: list[str] = []
        for n, call in enumerate(program.calls):
            text = self._statement(call, variables)
            for name in {r.name for r in call.refs} - kept:
                if name in numbers and last[name] == n:
                    heapq.heappush(free, numbers.pop(name))
            if call.name in last or call.name in kept:
                number = heapq.heappop(free) if free else len(numbers)
                numbers[call.name] = number
                variables[call.name] = f"t{number}"
                text = f"t{number} = {text}"
            if call.grad:
                statements += [*self._block(quiet), text]
                quiet = []
            else:
                quiet.append(text)
        statements += self._block(quiet)
        return [*statements, f"return {self._text(program.outputs, variables)}"]

    def _block(self, quiet: list[str]) -> list[str]:
        if not quiet:
            return []
        return [f"with {self._name('torch.no_grad')}():\n{indent(chr(10).join(quiet), _TAB)}"]

    def _statement(self, call: Call, variables: Mapping[str, str]) -> str:
        if call.target.startswith(OPAQUE):
            raise Unsupported(targets=(call.target,))
        args = [self._text(arg, variables) for arg in call.args]
        if call.target in _OPERATORS:
            return f"{args[0]} {_OPERATORS[call.target]} {args[1]}"
        if call.target == "torch.Tensor.__getitem__":
            return f"{args[0]}[{self._subscript(call.args[1], variables)}]"
        if call.target == "torch.Tensor.__setitem__":
            return f"{args[0]}[{self._subscript(call.args[1], variables)}] = {args[2]}"
        args += [f"{key}={self._text(value, variables)}" for key, value in call.kwargs.items()]
        if self._methods and call.target.startswith(_METHOD):
            name = call.target.removeprefix(_METHOD)
            if name.endswith(".__get__"):
                return f"{args[0]}.{name.removesuffix('.__get__')}"
            return f"{args[0]}.{name}({', '.join(args[1:])})"
        return f"{self._name(call.target)}({', '.join(args)})"

    def _subscript(self, key: Any, variables: Mapping[str, str]) -> str:
        """What stands between the brackets, with slices in their own notation."""
        if isinstance(key, slice):
            parts = [key.start, key.stop] + ([] if key.step is None else [key.step])
            return ":".join("" if p is None else self._text(p, variables) for p in parts)
        if isinstance(key, tuple) and key:
            comma = "," if len(key) == 1 else ""
            return ", ".join(self._subscript(k, variables) for k in key) + comma
        return self._text(key, variables)

    def _text(self, tree: Any, variables: Mapping[str, str]) -> str:
        def written(leaf: Any) -> Any:
            if isinstance(leaf, Ref):
                return Ref(variables[leaf.name], leaf.path)
            if isinstance(leaf, Symbol):
                return Ref(self._name(leaf.path))
            if isinstance(leaf, float) and not math.isfinite(leaf):
                name = repr(leaf).replace("-", "minus_")
                self.bound[name] = leaf
                return Ref(name)
            return leaf

        return expression(map_tree(written, tree))

    def _name(self, path: str) -> str:
        """The global name for a path of torch, bound to what the engine has for it."""
        name = path.removeprefix("torch.").replace(".", "_")
        if name not in self.bound:
            self.bound[name] = self._resolve(path)
        return name


def _rolled(statements: list[str]) -> list[str]:
    """The statements with each block that stands there three times or more written as a loop."""
    rolled: list[str] = []
    n = 0
    while n < len(statements):
        length, times = _repetition(statements, n)
        block = statements[n : n + length]
        if times >= 3:
            rolled.append(f"for _ in range({times}):\n{indent(chr(10).join(block), _TAB)}")
            n += length * times
        else:
            rolled.append(statements[n])
            n += 1
    return rolled


def _repetition(statements: list[str], start: int) -> tuple[int, int]:
    """The shortest block from `start` that repeats thrice: its length, and how often it stands."""
    for length in range(1, _LONGEST + 1):
        block = statements[start : start + length]
        end = start + length
        while statements[end : end + length] == block:
            end += length
        times = (end - start) // length
        if times >= 3:
            return length, times
    return 1, 1
