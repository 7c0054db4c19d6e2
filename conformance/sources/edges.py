"""Source `edges`: elementwise ops at the values where rules lose, one call a Program.

An op meets every class of values: zeros, tiny ones, ordinary ones, tails, huge ones, those beside
overflow, the infinities, and the edges of its own domain or pieces. Two-argument ops meet pairs.
The check `precision` holds the derivatives there against mpmath.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from conformance.program import Array, Call, Input, Program, Ref
from conformance.sources.base import Item, Sample, Skipped

if TYPE_CHECKING:
    from conformance.settings import Settings

inf = float("inf")

CLASSES: dict[str, tuple[float, ...]] = {
    "zero": (0.0, -0.0),
    "tiny": (1e-300, -1e-300, 1e-30, -1e-30, 1e-9, -1e-9),
    "ordinary": (1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 0.1, -0.3, 3.0, -3.0),
    "tails": (9.0, -9.0, 20.0, -20.0, 40.0, -40.0, 100.0, -100.0),
    "big": (1e3, -1e3, 1e4, -1e4, 1e16, -1e16),
    "overflow": (709.0, -709.0, 745.0, -745.0, 1e154, -1e154),
    "infinite": (inf, -inf),
}
_NARROW = {
    "tiny": (1e-38, -1e-38, 1e-20, -1e-20, 1e-5, -1e-5),
    "overflow": (88.0, -88.0, 103.0, -103.0, 1e19, -1e19),
}
PAIRED = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0, 1e-9, 20.0, -40.0, 1e3, -1e3, 1e9, inf, -inf)
_NN = "torch.nn.functional"
_SPECIAL = "torch.special"


@dataclass(frozen=True)
class Op:
    """An elementwise op: its call, and the values that are edges of its own.

    `before` stands before x in the call and `after` behind; `pairs` says that it takes two tensors,
    drawn from `first` and `second`, and `constant` that the second of them has no gradient.
    """

    name: str
    target: str
    before: tuple[Any, ...] = ()
    after: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)
    edges: tuple[float, ...] = ()
    pairs: bool = False
    constant: bool = False
    first: tuple[float, ...] = PAIRED
    second: tuple[float, ...] = PAIRED


def _around(*points: float) -> tuple[float, ...]:
    """Each point, its neighbours, and values a little away."""
    near = (0.0, 1e-15, -1e-15, 1e-7, -1e-7, 1e-3, -1e-3)
    return tuple(p + d * (abs(p) or 1.0) for p in points for d in near)


def _unary() -> Iterator[Op]:
    plain = (
        "abs acosh asinh atan ceil cos cosh deg2rad digamma erf erfc exp exp2 expm1 floor "
        "frac i0 lgamma log log10 log1p log2 neg positive rad2deg reciprocal relu round rsqrt sgn "
        "sigmoid sign sin sinc sinh sqrt square tan tanh trunc"
    )
    own = {
        "acosh": _around(1.0),
        "digamma": (-0.5, -1.5, -2.3, 1.4616321449683622, 0.25, 5.5, 10.0, 15.0),
        "lgamma": (-0.5, -1.5, -2.3, 1.4616321449683622, 0.25, 5.5, 10.0, 15.0),
        "log1p": _around(-1.0),
        "log": _around(1.0),
        "sinc": (1e-3, 1e-5, 1e-8, 1.5, 10.5, 0.01),
        "round": (0.5, 1.5, 2.5),
        "frac": (1.5, -1.5),
    }
    for name in plain.split():
        yield Op(name, f"torch.{name}", edges=own.get(name, ()))
    for name in ("acos", "asin", "atanh", "erfinv"):
        yield Op(name, f"torch.{name}", edges=_around(1.0, -1.0))
    yield Op("logit", "torch.logit", edges=_around(1.0, 0.5))
    for p in (1, 3, 5):
        yield Op("mvlgamma", "torch.mvlgamma", keywords={"p": p}, edges=(2.5, 5.5, 10.0))
    for n in range(1, 5):
        yield Op("polygamma", "torch.polygamma", before=(n,), edges=(0.25, 1.4, 5.5, 10.0, -0.5))
    for decimals in (3, -3):
        yield Op("round", "torch.round", keywords={"decimals": decimals})
    for limits in ({"min": -1.0}, {"max": 2.0}, {"min": -1.0, "max": 2.0}):
        yield Op("clamp", "torch.clamp", keywords=limits)
    for name in ("entr", "erfcx", "i0e", "i1", "i1e", "log_ndtr", "ndtr", "ndtri"):
        edges = (1e-5, -1e-5, 1e-3, -1e-3, 7.5, 8.5, -7.5, 27.0, -26.0, -30.0, -35.0)
        own_edges = _around(1.0, 0.5) if name == "ndtri" else edges
        yield Op(f"special.{name}", f"{_SPECIAL}.{name}", edges=own_edges)


def _activations() -> Iterator[Op]:
    edges: dict[str, tuple[float, ...]] = {
        "celu": (),
        "elu": (),
        "gelu": (5.0, -5.0, -14.0, -38.0),
        "hardshrink": _around(0.5),
        "hardsigmoid": _around(3.0),
        "hardswish": _around(3.0),
        "hardtanh": _around(1.0),
        "leaky_relu": (),
        "logsigmoid": (37.0, -37.0),
        "mish": (-30.0, 25.0),
        "relu6": _around(6.0),
        "selu": (),
        "silu": (-30.0, 37.0),
        "softplus": _around(20.0) + (37.0,),
        "softshrink": _around(0.5),
        "softsign": (),
        "tanhshrink": (1e-4, 1e-2),
    }
    for name, own in edges.items():
        yield Op(f"nn.functional.{name}", f"{_NN}.{name}", edges=own)
    for name, keywords in (
        ("celu", {"alpha": 0.5}),
        ("elu", {"alpha": 1.5}),
        ("gelu", {"approximate": "tanh"}),
        ("leaky_relu", {"negative_slope": 0.2}),
        ("softplus", {"beta": 2.0, "threshold": 5.0}),
    ):
        yield Op(f"nn.functional.{name}", f"{_NN}.{name}", keywords=keywords, edges=edges[name])
    threshold = f"{_NN}.threshold"
    yield Op("nn.functional.threshold", threshold, after=(0.5, -2.0), edges=_around(0.5))


def _binary() -> Iterator[Op]:
    plain = (
        "add atan2 clamp_max clamp_min div float_power fmax fmin fmod hypot ldexp logaddexp "
        "logaddexp2 maximum minimum mul pow remainder rsub sub xlogy"
    )
    for name in plain.split():
        yield Op(name, f"torch.{name}", pairs=True)
    signed = tuple(x for x in PAIRED if x or not np.signbit(x))  # -0.0 has no sign in mpmath
    yield Op("copysign", "torch.copysign", pairs=True, second=signed)
    for mode in ("floor", "trunc"):
        yield Op("div", "torch.div", keywords={"rounding_mode": mode}, pairs=True)
    yield Op("special.xlog1py", f"{_SPECIAL}.xlog1py", pairs=True)
    unit = (0.0, 1e-300, 1e-30, 1e-9, 0.3, 0.5, 1.0, 1.0 - 1e-9)
    inside = (1e-3, 0.3, 0.5, 0.999)  # at 1e-12 from 0 and 1 its gradient is held, by design
    targets = (0.0, 0.25, 1.0)
    drawn = {
        "binary_cross_entropy": (inside, targets),
        "binary_cross_entropy_with_logits": (PAIRED, targets),
        "kl_div": (PAIRED, unit),
        "soft_margin_loss": (PAIRED, (1.0, -1.0)),
    }
    losses: tuple[tuple[str, dict[str, Any]], ...] = (
        ("binary_cross_entropy", {}),
        ("binary_cross_entropy_with_logits", {}),
        ("huber_loss", {}),
        ("huber_loss", {"delta": 0.5}),
        ("kl_div", {}),
        ("kl_div", {"log_target": True}),
        ("l1_loss", {}),
        ("mse_loss", {}),
        ("poisson_nll_loss", {}),
        ("smooth_l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.5}),
        ("soft_margin_loss", {}),
    )
    for name, settings in losses:
        yield _loss(name, settings, *drawn.get(name, (PAIRED, PAIRED)))
    yield _loss("poisson_nll_loss", {"log_input": False}, unit + (40.0, 1e9), PAIRED)


def _loss(
    name: str, settings: dict[str, Any], first: tuple[float, ...], second: tuple[float, ...]
) -> Op:
    return Op(
        f"nn.functional.{name}",
        f"{_NN}.{name}",
        keywords={**settings, "reduction": "none"},
        pairs=True,
        constant=name == "soft_margin_loss",
        first=first,
        second=second,
    )


def ops() -> tuple[Op, ...]:
    """Every op of this source, some with several settings."""
    return (*_unary(), *_activations(), *_binary())


class Edges:
    """The source `edges`: one item an op."""

    name = "edges"
    items_name_ops = True

    def items(self, settings: Settings) -> list[Item]:
        """The ops, by name."""
        names = dict.fromkeys(op.name for op in ops())
        return [Item(self.name, name, name) for name in names]

    def samples(self, item: Item, settings: Settings) -> Iterator[Sample | Skipped]:
        """Each setting of the op, in float64 and float32, a class of values at a time."""
        for op in ops():
            if op.name == item.key:
                for dtype in ("float64", "float32"):
                    yield from (_pairs(op, dtype) if op.pairs else _classes(op, dtype))


def _classes(op: Op, dtype: str) -> Iterator[Sample]:
    classes = CLASSES | (_NARROW if dtype == "float32" else {}) | {"edges": op.edges}
    for label, numbers in classes.items():
        x = _distinct(np.array(numbers, dtype))
        if x.size:
            yield _sample(op, (x,), f"{label}, {dtype}")


def _pairs(op: Op, dtype: str) -> Iterator[Sample]:
    whole = np.array(list(itertools.product(op.first, op.second)), dtype)
    if op.name == "atan2":  # it has no limit at the origin
        whole = whole[whole.any(axis=1)]
    left, right = whole.T
    infinite = np.isinf(whole).any(axis=1)
    tied = (left == right) & ~infinite
    zero = (whole == 0).any(axis=1) & ~infinite & ~tied
    rest = ~(infinite | tied | zero)
    for label, which in (("ties", tied), ("zero", zero), ("apart", rest), ("infinite", infinite)):
        if which.any():
            yield _sample(op, (left[which].copy(), right[which].copy()), f"{label}, {dtype}")


def _distinct(x: Array) -> Array:
    """The values, each bit pattern once, in their order."""
    _, first = np.unique(x.view(f"u{x.itemsize}"), return_index=True)
    return np.ascontiguousarray(x[np.sort(first)])


def _sample(op: Op, arrays: tuple[Array, ...], label: str) -> Sample:
    values = {f"x{n}": array for n, array in enumerate(arrays)}
    inputs = tuple(
        Input.of(name, array, requires_grad=not (op.constant and name == "x1"))
        for name, array in values.items()
    )
    arguments = (*op.before, *(Ref(name) for name in values), *op.after)
    call = Call("v0", op.target, arguments, dict(op.keywords))
    setting = ", ".join(f"{k}={v}" for k, v in op.keywords.items() if k != "reduction")
    text = f"{label}; {setting}" if setting else label
    return Sample(op.name, Program(inputs, (call,), Ref("v0")), values, label=text)
