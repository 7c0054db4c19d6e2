"""Programs as JSON, with larger values in an .npz beside; nothing here unpickles or evaluates."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conformance.errors import ProgramError
from conformance.program import (
    OPAQUE,
    Array,
    Call,
    Input,
    Program,
    Ref,
    Symbol,
    Values,
    layout,
)

SCHEMA = "conformance-program/1"

_DTYPE = re.compile(r"(bool|u?int(8|16|32|64)|b?float(16|32|64)|complex(32|64|128))")
_PATH = re.compile(r"torch(\.[A-Za-z_][A-Za-z0-9_]*)+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STORED = {"bfloat16": "float32", "complex32": "complex64"}  # what NumPy holds them as


def structure(program: Program) -> dict[str, Any]:
    """The Program without values, as plain data."""
    return {
        "inputs": [_input_to_json(i) for i in program.inputs],
        "calls": [_call_to_json(c) for c in program.calls],
        "outputs": encode(program.outputs),
    }


def to_json(program: Program, values: Values, *, inline: int = 64) -> dict[str, Any]:
    """The Program as plain data, with the values of at most `inline` elements."""
    small = {
        i.name: _array_to_json(values[i.name])
        for i in program.inputs
        if values[i.name].size <= inline
    }
    return {"schema": SCHEMA, **structure(program), "values": small}


def from_json(data: Any, beside: Mapping[str, Array]) -> tuple[Program, Values]:
    """The Program and its values; raises ProgramError where `data` is not a Program."""
    if not isinstance(data, dict):
        raise ProgramError(f"a Program is a JSON object, not {_kind(data)}")
    if data.get("schema") != SCHEMA:
        raise ProgramError(f"schema is {data.get('schema')!r}; this version reads {SCHEMA!r}")
    program = Program(
        tuple(_input_from_json(i) for i in _get(data, "inputs", list)),
        tuple(_call_from_json(c) for c in _get(data, "calls", list)),
        decode(data.get("outputs")),
    ).check()
    inline = _get(data, "values", dict)
    contents: Values = {}
    for i in program.inputs:
        stored = np.dtype(_STORED.get(i.dtype, i.dtype))
        if i.name in inline:
            contents[i.name] = _array_from_json(inline[i.name], i, stored)
        elif i.name in beside:
            contents[i.name] = beside[i.name]
        else:
            raise ProgramError(f"input {i.name} has no value; keep the .npz beside the JSON")
        if contents[i.name].dtype != stored:
            raise ProgramError(f"input {i.name} is {i.dtype}, not {contents[i.name].dtype}")
    return program, layout(program.inputs, contents)


def save(program: Program, path: Path, values: Values) -> Path:
    """Write `path` (JSON) and, for values over 64 elements, an .npz of the same stem."""
    data = to_json(program, values)
    large = {i.name: values[i.name] for i in program.inputs if i.name not in data["values"]}
    if large:
        beside = path.with_suffix(".npz")
        data["values_file"] = beside.name
        np.savez_compressed(beside, **large)  # type: ignore[arg-type]
    path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def load(path: Path) -> tuple[Program, Values]:
    """Read what `save` wrote; raises ProgramError where it is not a Program."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProgramError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"{path} is not JSON ({error}); save the Program again") from error
    beside: Values = {}
    name = data.get("values_file") if isinstance(data, dict) else None
    if name is not None:
        if not isinstance(name, str) or Path(name).name != name:
            raise ProgramError(f"{path}: values_file must be the name of a file beside it")
        beside = _load_npz(path.with_name(name))
    try:
        return from_json(data, beside)
    except ProgramError as error:
        raise ProgramError(f"{path}: {error}") from error


def _load_npz(path: Path) -> Values:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ProgramError(f"cannot read the values in {path}: {error}") from error


# Trees. Plain JSON where it is exact; everything else is an object with one tag.


def encode(tree: Any) -> Any:
    """A tree of Call arguments as plain JSON data; raises ProgramError for any other value."""
    if tree is None or isinstance(tree, bool | str):
        return tree
    if isinstance(tree, Ref):
        return {"ref": [tree.name, *tree.path]}
    if isinstance(tree, Symbol):
        return {"symbol": tree.path}
    if isinstance(tree, float):
        return float(tree) if math.isfinite(tree) else {"float": repr(float(tree))}
    if isinstance(tree, int):
        return int(tree)
    if isinstance(tree, complex):
        return {"complex": [encode(tree.real), encode(tree.imag)]}
    if isinstance(tree, slice):
        return {"slice": [encode(tree.start), encode(tree.stop), encode(tree.step)]}
    if tree is Ellipsis:
        return {"ellipsis": True}
    if isinstance(tree, tuple):
        return {"tuple": [encode(item) for item in tree]}
    if isinstance(tree, list):
        return [encode(item) for item in tree]
    if isinstance(tree, dict):
        return {"dict": [[encode(key), encode(item)] for key, item in tree.items()]}
    raise ProgramError(f"a {_kind(tree)} cannot stand in a Program: {tree!r:.80}")


def decode(data: Any) -> Any:
    """The inverse of `encode`; raises ProgramError at an unknown tag."""
    if data is None or isinstance(data, bool | str | int | float):
        return data
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict) or len(data) != 1:
        raise ProgramError(f"not a value of a Program: {data!r:.80}")
    (tag, body), *_ = data.items()
    if tag == "float" and body in ("nan", "inf", "-inf"):
        return float(body)
    if tag == "ellipsis" and body is True:
        return Ellipsis
    if tag == "symbol" and isinstance(body, str) and _PATH.fullmatch(body):
        return Symbol(body)
    if isinstance(body, list):
        if tag == "ref" and body and all(_is_key(part) for part in body) and _is_name(body[0]):
            return Ref(body[0], tuple(body[1:]))
        if tag == "tuple":
            return tuple(decode(item) for item in body)
        if tag == "slice" and len(body) == 3:
            return slice(*(decode(item) for item in body))
        if tag == "complex" and len(body) == 2:
            real, imag = (decode(item) for item in body)
            if isinstance(real, float | int) and isinstance(imag, float | int):
                return complex(real, imag)
        if tag == "dict" and all(isinstance(pair, list) and len(pair) == 2 for pair in body):
            pairs = [(decode(key), decode(item)) for key, item in body]
            if all(_is_key(key) for key, _ in pairs):
                return dict(pairs)
    raise ProgramError(f"unknown or malformed tag {tag!r} in a Program: {data!r:.80}")


def _is_key(value: Any) -> bool:
    return isinstance(value, str | int)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _kind(value: Any) -> str:
    return type(value).__name__


def _get(data: Any, key: str, kind: type) -> Any:
    value = data.get(key) if isinstance(data, dict) else None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ProgramError(f"{key!r} should be a {kind.__name__}, not {value!r:.80}")
    return value


# Records.


def _input_to_json(i: Input) -> dict[str, Any]:
    data: dict[str, Any] = {
        "name": i.name,
        "dtype": i.dtype,
        "shape": list(i.shape),
        "strides": list(i.strides),
        "requires_grad": i.requires_grad,
    }
    if i.aliases:
        data["aliases"] = list(i.aliases)
    if i.constant:
        data["constant"] = True
    if i.storage is not None:
        data |= {"storage": i.storage, "offset": i.offset}
    return data


def _input_from_json(data: Any) -> Input:
    name, dtype = _get(data, "name", str), _get(data, "dtype", str)
    if not _is_name(name) or not _DTYPE.fullmatch(dtype):
        raise ProgramError(f"no input can be {name!r:.80} of dtype {dtype!r:.80}")
    storage = data.get("storage")
    if storage is not None and not _is_name(storage):
        raise ProgramError(f"input {name}: storage {storage!r:.80}")
    aliases = data.get("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(a, str) for a in aliases):
        raise ProgramError(f"input {name}: aliases {aliases!r:.80}")
    made = Input(
        name,
        dtype,
        _sizes(data, "shape"),
        _sizes(data, "strides"),
        _get(data, "requires_grad", bool),
        tuple(aliases),
        _get({"constant": False, **data}, "constant", bool),
        storage,
        _sizes({"offset": [data.get("offset", 0)]}, "offset")[0],
    )
    if made.extent + made.offset > 1 << 31:
        raise ProgramError(f"input {name} spans {made.extent} elements, too many to load")
    return made


def _sizes(data: Any, key: str) -> tuple[int, ...]:
    sizes = _get(data, key, list)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes):
        raise ProgramError(f"{key!r} should hold sizes, not {sizes!r:.80}")
    return tuple(sizes)


def _call_to_json(call: Call) -> dict[str, Any]:
    data: dict[str, Any] = {"name": call.name, "target": call.target}
    data["args"] = [encode(arg) for arg in call.args]
    if call.kwargs:
        data["kwargs"] = {key: encode(arg) for key, arg in call.kwargs.items()}
    if not call.grad:
        data["grad"] = False
    return data


def _call_from_json(data: Any) -> Call:
    name, target = _get(data, "name", str), _get(data, "target", str)
    if not _is_name(name):
        raise ProgramError(f"no call can be named {name!r:.80}")
    if not target.startswith(OPAQUE) and not _PATH.fullmatch(target):
        raise ProgramError(f"{name}: no call has the target {target!r:.80}")
    args = tuple(decode(arg) for arg in _get(data, "args", list))
    kwargs = {key: decode(arg) for key, arg in _get({"kwargs": {}, **data}, "kwargs", dict).items()}
    return Call(name, target, args, kwargs, _get({"grad": True, **data}, "grad", bool))


# Arrays. A list of numbers where it is exact, else base64 of the bytes.


def _array_to_json(array: Array) -> Any:
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind in "biuf" and (flat.dtype.kind != "f" or bool(np.isfinite(flat).all())):
        return flat.tolist()
    return {"base64": base64.b64encode(flat.tobytes()).decode()}


def _array_from_json(data: Any, i: Input, dtype: np.dtype[Any]) -> Array:
    try:
        if isinstance(data, list):
            if not all(isinstance(number, bool | int | float) for number in data):
                raise ProgramError(f"the value of {i.name} holds something that is no number")
            flat = np.array(data, dtype)
        else:
            flat = np.frombuffer(base64.b64decode(_get(data, "base64", str), validate=True), dtype)
        return flat.reshape(i.shape)
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise ProgramError(f"the value of {i.name} is not {i.dtype}{list(i.shape)}") from error


__all__ = ["SCHEMA", "decode", "encode", "from_json", "load", "save", "structure", "to_json"]
