"""Programs as text: the listing that people read, and a standalone script to paste."""

from __future__ import annotations

import base64
import math
import sys
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from conformance.program import (
    OPAQUE,
    Array,
    Call,
    Input,
    Program,
    Ref,
    Symbol,
    Values,
    contiguous,
    refs,
)

_WIDTH = 96
LITERAL = 64  # elements of an array that is written out
UNPACK = [
    "def unpack(text, dtype, shape):",
    "    data = zlib.decompress(base64.b85decode(text))",
    "    return torch.tensor(numpy.frombuffer(data, dtype).reshape(shape))",
    "",
]


_BINDINGS = {"refgrad": "import refgrad as torch", "torch": "import torch"}


def binding(engine: str) -> str:
    """What binds the name torch to the engine of that name, and a device to what is made by it."""
    name, _, device = engine.partition(" on ")
    found = _BINDINGS[name] if runs(engine) else "import torch  # put the engine's import here"
    return f"{found}\ntorch.set_default_device({device!r})" if runs(engine) and device else found


def runs(engine: str) -> bool:
    """Whether a script can be of that engine: torch anywhere, refgrad on the CPU."""
    name, _, device = engine.partition(" on ")
    return name == "torch" or (name == "refgrad" and not device)


def listing(program: Program) -> str:
    """Inputs, calls and outputs, in the form that DESIGN documents."""
    lines = []
    row = "inputs"
    for i in program.inputs:
        entry = f"   {describe(i)}"
        if len(row) + len(entry) > _WIDTH and row.strip() not in ("", "inputs"):
            lines.append(row)
            row = " " * len("inputs")
        row += entry
    lines.append(row)
    lines += [statement(call) + ("" if call.grad else "   # no grad") for call in program.calls]
    lines.append(f"return {expression(program.outputs)}")
    return "\n".join(lines)


def describe(i: Input) -> str:
    """One input: name, dtype, shape, and what is unusual about it."""
    text = f"{i.name}: {i.dtype}{list(i.shape)}"
    if i.strides != contiguous(i.shape) and math.prod(i.shape) > 1:
        text += f" strides {i.strides}"
    if i.storage is not None:
        text += f" in {i.storage}[{i.offset}:]"
    if i.aliases:
        text += f" ({', '.join(i.aliases)})"
    return text


def statement(call: Call) -> str:
    """`v1 = torch.nn.functional.softmax(v0, dim=-1)`"""
    args = [expression(arg) for arg in call.args]
    args += [f"{key}={expression(arg)}" for key, arg in call.kwargs.items()]
    return f"{call.name} = {call.target}({', '.join(args)})"


def expression(tree: Any) -> str:
    """A Python expression for a tree of arguments."""
    if isinstance(tree, Ref):
        return str(tree)
    if isinstance(tree, Symbol):
        return tree.path
    if tree is Ellipsis:
        return "..."
    if isinstance(tree, float) and not math.isfinite(tree):
        return f'float("{tree!r}")'
    if isinstance(tree, complex):
        return f"complex({expression(tree.real)}, {expression(tree.imag)})"
    if isinstance(tree, slice):
        parts = (tree.start, tree.stop, tree.step)
        return f"slice({', '.join(expression(part) for part in parts)})"
    if isinstance(tree, tuple):
        comma = "," if len(tree) == 1 else ""
        return f"({', '.join(expression(item) for item in tree)}{comma})"
    if isinstance(tree, list):
        return f"[{', '.join(expression(item) for item in tree)}]"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k!r}: {expression(v)}" for k, v in tree.items()) + "}"
    return repr(tree)


def standalone(
    program: Program,
    values: Values,
    *,
    engine_import: str = "import torch",
    cotangents: Iterable[Array | None] | None = None,
    expect: Mapping[str, Array] | None = None,
    values_file: str | None = None,
) -> str:
    """A script that runs the Program, differentiates it and prints every gradient.

    Arrays of more than LITERAL elements are read from `values_file` where one is given, and else
    stand in the script, compressed.
    """
    helpers: set[str] = set()
    body = input_lines(program.inputs, values, values_file, helpers)
    body += call_lines(program.calls)
    body += _backward(program, cotangents, expect, helpers)
    head = [engine_import, ""]
    if helpers:
        imports = {"base64": "import base64", "zlib": "import zlib", "numpy": "import numpy"}
        head = [imports[name] for name in ("base64", "zlib", "numpy") if name in helpers]
        head += ["", engine_import, ""]
    if "base64" in helpers:
        head += UNPACK
    if values_file is not None and "file" in helpers:
        head += [f"values = numpy.load({values_file!r})", ""]
    return "\n".join([*head, *body]) + "\n"


def input_lines(
    inputs: tuple[Input, ...], values: Values, values_file: str | None, helpers: set[str]
) -> list[str]:
    """Statements that make the inputs; what they need is added to `helpers`."""
    lines = []
    storages: dict[str, int] = {}
    for i in inputs:
        if i.storage is not None:
            storages[i.storage] = max(storages.get(i.storage, 0), i.offset + i.extent)
    made: set[str] = set()
    for i in inputs:
        text = tensor(values[i.name], i.dtype, i.name if values_file else None, helpers)
        grad = ".requires_grad_()" if i.requires_grad else ""
        note = f"  # {', '.join(i.aliases)}" if i.aliases else ""
        strided = i.strides != contiguous(i.shape) and math.prod(i.shape) != 1
        if i.storage is None and not strided:
            lines.append(f"{i.name} = {text}{grad}{note}")
            continue
        buffer, size = f"{i.name}_storage", i.extent
        if i.storage is not None:
            buffer, size = f"{i.storage}_storage", storages[i.storage]
        if buffer not in made:
            made.add(buffer)
            lines.append(f"{buffer} = torch.zeros({size}, dtype=torch.{i.dtype})")
        layout = f"{i.shape}, {i.strides}, {i.offset}"
        lines.append(f"{i.name} = {buffer}.as_strided({layout}){note}")
        # an expanded dimension repeats one element, which is written once
        once = "".join("[:1]" if s == 0 else "[:]" for s in i.strides).replace("][", ", ")
        part = once if 0 in i.strides and 0 not in i.shape else ""
        lines.append(f"{i.name}{part}.copy_({text}{part})")
        if grad:
            lines.append(f"{i.name}.requires_grad_()")
    return lines


def tensor(array: Array, dtype: str, key: str | None, helpers: set[str]) -> str:
    """An expression that makes the tensor: of a literal, from a file (`key`), or unpacked."""
    if array.size > LITERAL and (array == array.flat[0]).all():
        number = expression(array.flat[0].item())
        return f"torch.full({array.shape}, {number}, dtype=torch.{dtype})"
    if array.size <= LITERAL and array.size:
        return f"torch.tensor({expression(array.tolist())}, dtype=torch.{dtype})"
    if not array.size:
        return f"torch.zeros({array.shape!r}, dtype=torch.{dtype})"
    cast = "" if array.dtype.name == dtype else f".to(torch.{dtype})"
    helpers.add("numpy")
    if key is not None:
        helpers.add("file")
        return f"torch.tensor(values[{key!r}]){cast}"
    helpers.update(("base64", "zlib"))
    packed = base64.b85encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode()
    return f"unpack({packed!r}, {array.dtype.name!r}, {array.shape}){cast}"


def call_lines(calls: tuple[Call, ...]) -> list[str]:
    """A statement for each call; the grad mode is kept."""
    lines: list[str] = []
    for call in calls:
        call_line = statement(call)
        if call.target.startswith(OPAQUE):
            note, name = _of_user(call)
            lines.append(note)
            call_line = call_line.replace(call.target, name, 1)
        if call.grad:
            lines.append(call_line)
        else:
            lines += ["with torch.no_grad():", f"    {call_line}"]
    return lines


def _of_user(call: Call) -> tuple[str, str]:
    """What the line of an opaque call needs before it, and what it calls.

    An autograd.Function that can be imported is, and an operator is looked up in torch.ops; what a
    script cannot reach, as a local function or one with arguments that are no tensors, is named.
    """
    name = call.target.removeprefix(OPAQUE)
    own = call.own
    if type(own).__name__ == "OpOverload":
        return "# after an import of what registers it:", f"torch.ops.{name}"
    function = getattr(own, "__self__", None)
    if isinstance(function, type) and getattr(own, "__name__", "") == "apply":
        module, path = function.__module__, function.__qualname__
        found: Any = sys.modules.get(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is function and module != "__main__":
            return f"import {module}  # run this where it is found", f"{module}.{path}.apply"
    name = name.rpartition(":")[2]
    identifier = "".join(c if c.isalnum() or c in "._" else "_" for c in name)
    return f"# put your own callable {call.target.removeprefix(OPAQUE)!r} here:", identifier


def _backward(
    program: Program,
    cotangents: Iterable[Array | None] | None,
    expect: Mapping[str, Array] | None,
    helpers: set[str],
) -> list[str]:
    lines = [
        "",
        "def tensors(tree):  # the tensors of a result, depth first",
        "    if isinstance(tree, dict):",
        "        tree = tuple(tree.values())",
        "    if isinstance(tree, (tuple, list)):",
        "        return [t for item in tree for t in tensors(item)]",
        "    return [tree]",
        "",
        f"outputs = tensors({expression(program.outputs)})",
    ]
    if not any(True for _ in refs(program.outputs)):
        lines[-1] = "outputs = []"
    leaves = program.leaves
    lines += ["for number, output in enumerate(outputs):", "    print('output', number, output)"]
    if not leaves:
        return lines
    if cotangents is None:
        lines.append("cotangents = [torch.ones_like(output) for output in outputs]")
    else:
        texts = [
            "None" if c is None else tensor(np.asarray(c), np.asarray(c).dtype.name, None, helpers)
            for c in cotangents
        ]
        lines += ["cotangents = [", *(f"    {text}," for text in texts), "]"]
    named = ", ".join(i.name for i in leaves)
    lines += [
        "pairs = [",
        "    (output, cotangent)",
        "    for output, cotangent in zip(outputs, cotangents)",
        "    if output.requires_grad and cotangent is not None",
        "]",
        f"names = {named!r}.split(', ')",
        f"leaves = [{named}]",
        "gradients = torch.autograd.grad(",
        "    [o for o, _ in pairs], leaves, [c for _, c in pairs], allow_unused=True",
        ")",
        "for name, gradient in zip(names, gradients):",
        "    print('gradient', name, gradient)",
    ]
    if expect:
        lines.append("expected = {")
        for name, array in expect.items():
            array = np.asarray(array)
            lines.append(f"    {name!r}: {tensor(array, array.dtype.name, None, helpers)},")
        lines += [
            "}",
            "for name, gradient in zip(names, gradients):",
            "    if name in expected and gradient is not None and gradient.numel():",
            "        difference = (gradient - expected[name]).abs().max()",
            "        print('largest difference', name, difference)",
        ]
    return lines
