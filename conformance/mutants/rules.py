"""Wrong formulas: what is written wrong in the rule of a function, a reduction, a product."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.mutants.mutant import Mutant, rule

F = "torch.nn.functional."


def _times(factor: float) -> Any:
    return lambda right, g: right * factor


def _sign(op: str, argument: str = "input", **more: Any) -> Mutant:
    return rule(f"sign of {op}.{argument}", "sign", op, argument, _times(-1.0), **more)


def _factor(op: str, factor: float, argument: str = "input", **more: Any) -> Mutant:
    name = f"{op}.{argument} times {factor:g}"
    return rule(name, "factor", op, argument, _times(factor), **more)


def _small(op: str, argument: str = "input", **more: Any) -> Mutant:
    name = f"{op}.{argument} off by 1e-7"
    return rule(name, "1e-7 relative", op, argument, _times(1 + 1e-7), **more)


def _bias(op: str, amount: float, argument: str = "input", **more: Any) -> Mutant:
    name = f"{op}.{argument} plus {amount:g}"
    return rule(name, "bias", op, argument, lambda right, g: right + amount, **more)


MUTANTS: tuple[Mutant, ...] = (
    *(_sign(op) for op in ("sin", "cos", "tanh", "exp", "log", "reciprocal", "atan", "sqrt")),
    _sign("sub", "other"),
    _sign("mul", "other"),
    _sign("atan2", "other"),
    _sign("matmul"),
    _sign("var"),
    _factor("square", 0.5),
    _factor("sqrt", 2.0),
    _factor("exp", 1.0009),  # what gradcheck's rtol lets pass
    _factor("mul", 1.0009, "other"),
    _factor("log2", 1 / np.log(2.0)),
    _factor("log10", np.log(10.0)),
    _factor("exp2", 1 / np.log(2.0)),
    _factor("erf", np.sqrt(np.pi) / 2),
    _factor("pow", 0.5),
    _factor("mean", 1.0001),
    _factor("cumsum", 2.0),
    _factor("softmax", 0.999),
    _factor("addcmul", 2.0, "tensor1"),
    _factor("lerp", -1.0, "weight"),
    *(_small(op) for op in ("sin", "sigmoid", "sum", "softmax", "logsumexp", "cumprod", "prod")),
    _small("mul"),
    _small("matmul", "other"),
    _small("linalg.inv", "A"),
    _bias("exp", 1e-6),
    _bias("tanh", 1e-8),
    _bias("sum", 1e-7),
    _bias("matmul", 1e-6),
    # a term that is missing, or another's
    rule("softmax without its mean", "missing term", "softmax", "input",
         lambda right, g, out: g * out),
    rule("log_softmax without its sum", "missing term", "log_softmax", "input",
         lambda right, g: g),
    rule("tanh as sech", "wrong power", "tanh", "input", lambda right, g, out: g * (1 - out)),
    rule("sigmoid as s", "missing term", "sigmoid", "input", lambda right, g, out: g * out),
    rule("div.other without its square", "wrong power", "div", "other",
         lambda right, g, other, out: -g * out),
    rule("rsqrt to the wrong power", "wrong power", "rsqrt", "input",
         lambda right, g, out: -0.5 * g * out),
    rule("reciprocal without its square", "wrong power", "reciprocal", "input",
         lambda right, g, out: -g * out),
    rule("logaddexp as a plain sum", "missing term", "logaddexp", "input", lambda right, g: g),
    _factor("var", 0.999),
    _factor("det", 0.99, "A", targets=("torch.linalg.det",)),
    rule("hypot by the other", "wrong operand", "hypot", "input",
         lambda right, g, other, out: g * (other / out)),
    rule("atan2 by the other", "wrong operand", "atan2", "input",
         lambda right, g, input, other: g * (input / (input * input + other * other))),
    rule("mul by itself", "wrong operand", "mul", "input", lambda right, g, input: g * input),
    rule("xlogy by the other", "wrong operand", "xlogy", "other",
         lambda right, g, other: g / other),
    rule("lerp by the other end", "wrong operand", "lerp", "input",
         lambda right, g, weight: g * weight),
    rule("addcdiv without its sign", "sign", "addcdiv", "tensor2", _times(-1.0)),
    rule("expm1 as exp minus one", "missing term", "expm1", "input",
         lambda right, g, out: g * out),
    rule("log1p as log", "missing term", "log1p", "input",
         lambda right, g, input: g / np.where(input == 0, 1.0, input)),
    rule("asin without its root", "wrong power", "asin", "input",
         lambda right, g, input: g / (1 - input * input)),
    rule("atanh as atan", "sign", "atanh", "input",
         lambda right, g, input: g / (1 + input * input)),
    rule("tan by its value", "missing term", "tan", "input", lambda right, g, out: g * out * out),
    rule("softplus as relu", "missing term", "softplus", "input",
         lambda right, g, input: g * (input > 0), targets=(F + "softplus",)),
    rule("gelu as silu's gate", "missing term", "_gelu", "input",
         lambda right, g, input: g[0] / (1 + np.exp(-input)), targets=(F + "gelu",)),
    rule("softsign without its square", "wrong power", "softsign", "input",
         lambda right, g, input: g / (1 + np.abs(input)), targets=(F + "softsign",)),
    rule("logsigmoid by the wrong side", "sign", "logsigmoid", "input",
         lambda right, g, input: g / (1 + np.exp(-input)), targets=(F + "logsigmoid",)),
    rule("square by its value", "stale save", "square", "input",
         lambda right, g, out: 2 * g * out),
    rule("exp by its input", "stale save", "exp", "input", lambda right, g, input: g * input),
    rule("sqrt by its input", "stale save", "sqrt", "input",
         lambda right, g, input: 0.5 * g / np.sqrt(np.abs(input) + 1e-3)),
    rule("sin keeps the result", "stale save", "sin", "input",
         lambda right, g, out: g * np.cos(out)),
    rule("digamma by its value", "stale save", "digamma", "input",
         lambda right, g, out: g * out),
    # inf / inf above 44, where the function itself is plain
    *(rule(f"{op} by exponentials", "overflow", op, "input",
           lambda right, g, input: right * (np.exp(input * 16) / np.exp(input * 16)))
      for op in ("logsumexp", "sigmoid", "softmax")),
)  # fmt: skip
