"""Wrong under a condition only: ties, signs, sizes, dtypes, layouts, second order."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.mutants.mutant import Mutant, claim, rule

F = "torch.nn.functional."


def _array(x: Any) -> Any:
    return getattr(x, "_array", x)


def _where(
    name: str, fault: str, op: str, condition: Any, factor: float = 2.0, **more: Any
) -> Mutant:
    """Times a factor where `condition(input)` holds, entry by entry."""

    def wrong(right: Any, g: Any, input: Any) -> Any:
        there = condition(_array(input))
        return right * np.where(there, factor, 1.0).astype(_array(right).real.dtype)

    return rule(name, fault, op, more.pop("argument", "input"), wrong, **more)


def _when(
    name: str, fault: str, op: str, condition: Any, factor: float = 2.0, **more: Any
) -> Mutant:
    """Times a factor where `condition(gradient)` of the whole array holds."""

    def wrong(right: Any, g: Any) -> Any:
        return right * factor if condition(_array(right)) else right

    return rule(name, fault, op, more.pop("argument", "input"), wrong, **more)


def _cotangent(name: str, fault: str, op: str, condition: Any, **more: Any) -> Mutant:
    """Times two where `condition(cotangent)` holds."""

    def wrong(right: Any, g: Any) -> Any:
        return right * 2.0 if condition(_array(g)) else right

    return rule(name, fault, op, more.pop("argument", "input"), wrong, reading="raw", **more)


def _at(name: str, fault: str, op: str, index: int, **more: Any) -> Mutant:
    """One entry wrong by 1e-9 of the scale."""

    def wrong(right: Any, g: Any) -> Any:
        a = _array(right)
        if a.size <= abs(index):
            return right
        bump = np.zeros(a.size, a.dtype)
        bump[index] = 1e-9 * np.abs(a).max()
        return right + bump.reshape(a.shape)

    return rule(name, fault, op, more.pop("argument", "input"), wrong, **more)


def _tail(right: Any, g: Any) -> Any:
    a = _array(right)
    rest = a.size % 8
    keep = np.ones(a.size, a.real.dtype)
    if rest:
        keep[-rest:] = 0.0
    return right * keep.reshape(a.shape)


def _detached(right: Any, g: Any) -> Any:
    return right.detach()


def _narrow(right: Any, g: Any) -> Any:
    return right.astype(np.float32).astype(right.dtype) if right.dtype == np.float64 else right


def _half_detached(right: Any, g: Any) -> Any:
    return 0.5 * right + 0.5 * right.detach()


def _ties(x: Any) -> bool:
    a = _array(x)
    return bool(a.size > len(np.unique(a)))


def _inside(x: Any, low: Any, high: Any) -> Any:
    a = _array(x)
    inside = np.ones(a.shape)
    if low is not None:
        inside = inside * (a != _array(low))
    if high is not None:
        inside = inside * (a != _array(high))
    return inside


MUTANTS: tuple[Mutant, ...] = (
    # at switches
    rule("maximum gives ties to the first", "ties", "maximum", "input",
         lambda right, g, input, other: g * (input >= other)),
    rule("maximum gives ties to neither", "ties", "minimum", "input",
         lambda right, g, input, other: g * (input < other)),
    rule("abs has slope 1 at zero", "ties", "abs", "input",
         lambda right, g, input: g * np.where(_array(input) >= 0, 1.0, -1.0)),
    rule("amax gives ties to all", "ties", "amax", "input",
         lambda right, g, input, dim: right * float(1 + (_ties(input)))),
    rule("clamp closes its interval", "clamp edge", "clamp", "input",
         lambda right, g, input, min, max: right * _inside(input, min, max)),
    rule("relu passes at zero", "clamp edge", "clamp", "input",
         lambda right, g, input: right * 1.5 if (_array(input) == 0).any() else right,
         targets=("torch.relu", "torch.clamp")),
    rule("max takes the last of ties", "ties", "max", "input",
         lambda right, g: np.flip(right, 0) if right.ndim and _ties(right) else right),
    # by the value of the input
    _where("sin for negatives", "negative only", "sin", lambda x: x < 0),
    _where("square for negatives", "negative only", "square", lambda x: x < 0, -1.0),
    _where("softplus for negatives", "negative only", "softplus", lambda x: x < 0,
           targets=(F + "softplus",)),
    _where("tanh for negatives", "negative only", "tanh", lambda x: x < 0, 1.001),
    _where("exp for zeros", "exact zero", "exp", lambda x: x == 0),
    _where("sin for zeros", "exact zero", "sin", lambda x: x == 0, 0.0),
    _where("atan for zeros", "exact zero", "atan", lambda x: x == 0),
    _where("softplus above 30", "|x| > 30 only", "softplus", lambda x: x > 30, 0.0,
           targets=(F + "softplus",)),
    _where("atan above 30", "|x| > 30 only", "atan", lambda x: np.abs(x) > 30),
    _where("sin above 30", "|x| > 30 only", "sin", lambda x: np.abs(x) > 30, 0.99),
    _where("asinh above 30", "|x| > 30 only", "asinh", lambda x: np.abs(x) > 30, 1.01),
    rule("mul by zero", "zero factor", "mul", "input",
         lambda right, g, other: right + g * (_array(other) == 0)),
    rule("pow at a zero exponent", "zero factor", "pow", "other",
         lambda right, g, other: right * np.where(_array(other) == 0, 2.0, 1.0)),
    rule("pow with an integer exponent", "integer argument", "pow", "input",
         lambda right, g, other: right * 1.5
         if not hasattr(_array(other), "shape") or _array(other).ndim == 0 else right),
    # by size and rank
    *(_when(f"{op} of size-1 axes", "size-1 only", op, lambda a: 1 in a.shape)
      for op in ("exp", "sum", "matmul", "softmax")),
    *(_when(f"{op} of a 0-d tensor", "0-d", op, lambda a: a.ndim == 0)
      for op in ("exp", "mul", "sum")),
    *(_when(f"{op} of rank 4 and more", "rank 4+", op, lambda a: a.ndim >= 4)
      for op in ("tanh", "sum", "permute")),
    *(_when(f"{op} above a hundred elements", "above 100 elements", op, lambda a: a.size > 100)
      for op in ("exp", "add", "matmul")),
    *(_when(f"{op} above a thousand elements", "above 1,000 elements", op, lambda a: a.size > 1000)
      for op in ("exp", "add", "matmul")),
    rule("exp drops the tail", "SIMD tail", "exp", "input", _tail),
    rule("add drops the tail", "SIMD tail", "add", "other", _tail),
    *(rule(f"{op} reduces what is empty", "empty", op, "input",
           lambda right, g: right * (g.max() / g.max()))
      for op in ("sin", "reshape", "cumsum")),
    _at("exp, one entry", "one entry by 1e-9", "exp", 0),
    _at("sum, the last entry", "one entry by 1e-9", "sum", -1),
    _at("matmul, one entry", "one entry by 1e-9", "matmul", 1),
    # by the layout of the cotangent
    *(_cotangent(f"{op} for a transposed cotangent", "non-contiguous cotangent", op,
                 lambda g: g.ndim > 1 and not g.flags.c_contiguous and 0 not in g.strides)
      for op in ("exp", "mul", "sin", "matmul")),
    *(_cotangent(f"{op} for an expanded cotangent", "expanded cotangent", op,
                 lambda g: g.size > 1 and 0 in g.strides)
      for op in ("exp", "mul", "sigmoid", "softmax")),
    # by dtype
    *(rule(f"{op} through float32", "dtype leak", op, "input", _narrow, reading="raw")
      for op in ("exp", "tanh", "matmul", "softmax")),
    *(_when(f"{op} in float32", "float32 only", op, lambda a: a.dtype == np.float32, 1.001,
            dtype="float32")
      for op in ("exp", "tanh", "sum", "matmul")),
    *(rule(f"{op} without its conj", "missing conj", op, "input",
           lambda right, g: np.conj(right) if _array(right).dtype.kind == "c" else right,
           dtype="complex128")
      for op in ("exp", "sin", "mul", "matmul", "reciprocal")),
    _when("mul in complex", "complex only", "mul", lambda a: a.dtype.kind == "c",
          dtype="complex128"),
    _when("tanh in complex", "complex only", "tanh", lambda a: a.dtype.kind == "c",
          dtype="complex128"),
    # second order
    *(rule(f"{op} detached in the recorded pass", "second order only", op, "input", _detached,
           reading="graph")
      for op in ("sin", "exp", "mul", "tanh", "softmax", "matmul", "logsumexp", "div")),
    *(rule(f"{op} half detached", "second order only", op, "input", _half_detached,
           reading="graph")
      for op in ("square", "sigmoid")),
    rule("sin by a detached cotangent", "detached cotangent", "sin", "input",
         lambda right, g, input: g.detach() * np.cos(input), reading="graph"),
    rule("exp by a detached cotangent", "detached cotangent", "exp", "input",
         lambda right, g, out: g.detach() * out, reading="graph"),
    *(rule(f"{op} by a detached cotangent", "detached cotangent", op, "input", _detached,
           reading="graph")
      for op in ("sum", "cumsum", "neg")),
    *(rule(f"{op} off when recorded", "create_graph", op, "input",
           lambda right, g: right * (1 + 1e-9), reading="graph")
      for op in ("sin", "cumsum", "prod")),
    # forward mode
    *(claim(f"{op} said to be linear", "forward only", op, "linear_in", frozenset({0}))
      for op in ("prod", "cumprod", "var", "logsumexp")),
    claim("cumprod said to be elementwise", "forward only", "cumprod", "elementwise", True),
    claim("softmax said to be elementwise", "forward only", "softmax", "elementwise", True,
          equivalent="softmax's Jacobian is symmetric: its own transpose, as of an elementwise op "
          "(in rounding the form for vjp loses digits of 1e-8 beside 1, as 5,416 samples showed)"),
)  # fmt: skip
