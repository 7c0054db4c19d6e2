"""Elementwise ops as functions of germs, by their names in torch: the truth to any digits.

They are written from what torch's documentation says of the op. nan is outside the domain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmath import mp, mpf

from conformance.oracles.germs import (
    Germ,
    asin,
    atan,
    besseli,
    cos,
    cosh,
    erf,
    erfc,
    erfinv,
    exp,
    expm1,
    floor,
    lgamma,
    log,
    log1p,
    nan,
    power,
    psi,
    sin,
    sinh,
    sqrt,
    start,
    tanh,
)

Function = Callable[..., Any]


def _sign(x: Any) -> Any:
    return mpf((x > 0) - (x < 0))


def _trunc(x: Any) -> Any:
    return floor(x) if x >= 0 else -floor(-x)


def _round(x: Any, decimals: int = 0) -> Any:
    return floor(x * mpf(10) ** decimals + mpf(1) / 2) / mpf(10) ** decimals


def _clip(x: Any, low: float, high: float) -> Any:
    return min(max(x, mpf(low)), mpf(high))


def _clamp(x: Any, min: float | None = None, max: float | None = None) -> Any:
    x = x if min is None or x > min else mpf(min)
    return x if max is None or x < max else mpf(max)


def _asinh(x: Any) -> Any:
    return log(x + sqrt(x * x + 1)) if x > 0 else -log(-x + sqrt(x * x + 1))


def _acosh(x: Any) -> Any:
    return log(x + sqrt(x - 1) * sqrt(x + 1)) if x >= 1 else nan


def _sinc(x: Any) -> Any:
    z = mp.pi * x
    if abs(start(x)) < mpf(10) ** -20:  # terms that agree to 900 digits would cancel
        return 1 - z * z / 6 + z * z * z * z / 120
    return sin(z) / z


def _logit(x: Any, eps: float | None = None) -> Any:
    x = x if eps is None else _clip(x, eps, 1 - eps)
    return log(x) - log1p(-x)


def _ndtr(x: Any) -> Any:
    return erfc(-x / mp.sqrt(2)) / 2


def _mvlgamma(x: Any, p: int = 1) -> Any:
    return sum(lgamma(x - mpf(j) / 2) for j in range(p)) if x > mpf(p - 1) / 2 else nan


def _entr(x: Any) -> Any:
    return -x * log(x)


# of two arguments


def _atan2(y: Any, x: Any) -> Any:
    return -atan(x / y) if abs(y) > abs(x) else atan(y / x)  # up to a constant


def _hypot(x: Any, y: Any) -> Any:
    if start(x) == 0 and start(y) == 0:
        return max(abs(x), abs(y))  # of which one is constant
    return sqrt(x * x + y * y)


def _pow(x: Any, y: Any) -> Any:
    if not isinstance(y, Germ) and y == mp.floor(y) and abs(y) < 64:
        return x ** int(y) if y >= 0 else 1 / x ** int(-y)
    if not isinstance(x, Germ) and x == 0:
        return mpf(0) if y > 0 else nan
    return power(x, y)


def _xlogy(x: Any, y: Any) -> Any:
    return mpf(0) if not isinstance(x, Germ) and x == 0 else x * log(y)


def _xlog1py(x: Any, y: Any) -> Any:
    return mpf(0) if not isinstance(x, Germ) and x == 0 else x * log1p(y)


def _logaddexp(x: Any, y: Any) -> Any:
    return max(x, y) + log1p(exp(-abs(x - y)))


def _logaddexp2(x: Any, y: Any) -> Any:
    two = mp.log(2)
    return _logaddexp(x * two, y * two) / two


def _div(x: Any, y: Any, rounding_mode: str | None = None) -> Any:
    return {None: lambda q: q, "floor": floor, "trunc": _trunc}[rounding_mode](_ratio(x, y))


def _ratio(x: Any, y: Any) -> Any:
    return x * nan if not isinstance(y, Germ) and y == 0 else x / y


def _fmod(x: Any, y: Any) -> Any:
    return x - y * _trunc(_ratio(x, y))


def _remainder(x: Any, y: Any) -> Any:
    return x - y * floor(_ratio(x, y))


def _copysign(x: Any, y: Any) -> Any:
    return abs(x) * (1 if y >= 0 else -1)


# activations and losses


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + exp(-x))


def _softplus(x: Any, beta: float = 1, threshold: float = 20) -> Any:
    """The identity beyond the threshold, as documented."""
    return x if x * beta > threshold else log1p(exp(x * beta)) / beta


def _elu(x: Any, alpha: float = 1.0, scale: float = 1.0) -> Any:
    return x * mpf(scale) if x > 0 else expm1(x) * mpf(alpha) * mpf(scale)


def _celu(x: Any, alpha: float = 1.0) -> Any:
    return x if x > 0 else expm1(x / mpf(alpha)) * mpf(alpha)


_SELU = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "none":
        return x * _ndtr(x)
    return x * (1 + tanh(mp.sqrt(2 / mp.pi) * (x + mpf(0.044715) * x**3))) / 2


def _huber(x: Any, y: Any, delta: float = 1.0) -> Any:
    d = abs(x - y)
    return d * d / 2 if d < delta else delta * (d - mpf(delta) / 2)


def _smooth_l1(x: Any, y: Any, beta: float = 1.0) -> Any:
    d = abs(x - y)
    return d * d / 2 / beta if d < beta else d - mpf(beta) / 2


def _bce(p: Any, t: Any) -> Any:
    """Logarithms are held above -100, as documented."""
    return -(t * max(log(p), mpf(-100)) + (1 - t) * max(log1p(-p), mpf(-100)))


def _kl_div(x: Any, t: Any, log_target: bool = False) -> Any:
    return exp(t) * (t - x) if log_target else _xlogy(t, t) - t * x


def _poisson(x: Any, t: Any, log_input: bool = True, eps: float = 1e-8) -> Any:
    return exp(x) - t * x if log_input else x - t * log(x + mpf(eps))


def _named(prefix: str, **functions: Function) -> dict[str, Function]:
    return {f"{prefix}.{name}": function for name, function in functions.items()}


FUNCTIONS: dict[str, Function] = (
    _named(
        "torch",
        abs=abs,
        acos=lambda x: -asin(x),  # up to a constant
        acosh=_acosh,
        asin=asin,
        asinh=_asinh,
        atan=atan,
        atanh=lambda x: (log1p(x) - log1p(-x)) / 2,
        ceil=lambda x: -floor(-x),
        clamp=_clamp,
        cos=cos,
        cosh=cosh,
        deg2rad=lambda x: x * mp.pi / 180,
        digamma=psi(0),
        erf=erf,
        erfc=erfc,
        erfinv=erfinv,
        exp=exp,
        exp2=lambda x: exp(x * mp.log(2)),
        expm1=expm1,
        floor=floor,
        frac=lambda x: x - _trunc(x),
        i0=besseli(0),
        lgamma=lgamma,
        log=log,
        log10=lambda x: log(x) / mp.log(10),
        log1p=log1p,
        log2=lambda x: log(x) / mp.log(2),
        logit=_logit,
        mvlgamma=_mvlgamma,
        neg=lambda x: -x,
        polygamma=lambda n, x: psi(n)(x),
        positive=lambda x: x,
        rad2deg=lambda x: x * 180 / mp.pi,
        reciprocal=lambda x: 1 / x,
        relu=lambda x: max(x, mpf(0)),
        round=_round,
        rsqrt=lambda x: 1 / sqrt(x),
        sgn=_sign,
        sigmoid=_sigmoid,
        sign=_sign,
        sin=sin,
        sinc=_sinc,
        sinh=sinh,
        sqrt=sqrt,
        square=lambda x: x * x,
        tan=lambda x: sin(x) / cos(x),
        tanh=tanh,
        trunc=_trunc,
    )
    | _named(
        "torch",
        add=lambda x, y: x + y,
        atan2=_atan2,
        clamp_max=lambda x, y: min(x, y),
        clamp_min=lambda x, y: max(x, y),
        copysign=_copysign,
        div=_div,
        float_power=_pow,
        fmax=lambda x, y: max(x, y),
        fmin=lambda x, y: min(x, y),
        fmod=_fmod,
        hypot=_hypot,
        ldexp=lambda x, y: x * exp(y * mp.log(2)),
        logaddexp=_logaddexp,
        logaddexp2=_logaddexp2,
        maximum=lambda x, y: max(x, y),
        minimum=lambda x, y: min(x, y),
        mul=lambda x, y: x * y,
        pow=_pow,
        remainder=_remainder,
        rsub=lambda x, y: y - x,
        sub=lambda x, y: x - y,
        xlogy=_xlogy,
    )
    | _named(
        "torch.special",
        entr=_entr,
        erfcx=lambda x: exp(x * x) * erfc(x),
        i0e=lambda x: besseli(0)(x) * exp(-abs(x)),
        i1=besseli(1),
        i1e=lambda x: besseli(1)(x) * exp(-abs(x)),
        log_ndtr=lambda x: log(_ndtr(x)),
        ndtr=_ndtr,
        ndtri=lambda p: erfinv(2 * p - 1) * mp.sqrt(2),
        xlog1py=_xlog1py,
    )
    | _named(
        "torch.nn.functional",
        celu=_celu,
        elu=_elu,
        gelu=_gelu,
        hardshrink=lambda x, lambd=0.5: x if abs(x) > lambd else mpf(0),
        hardsigmoid=lambda x: _clip(x + 3, 0, 6) / 6,
        hardswish=lambda x: x * _clip(x + 3, 0, 6) / 6,
        hardtanh=lambda x: _clip(x, -1, 1),
        leaky_relu=lambda x, negative_slope=0.01: x if x > 0 else mpf(negative_slope) * x,
        logsigmoid=lambda x: -log1p(exp(-x)),
        mish=lambda x: x * tanh(log1p(exp(x))),
        relu6=lambda x: _clip(x, 0, 6),
        selu=lambda x: _elu(x, _SELU[1], _SELU[0]),
        silu=lambda x: x * _sigmoid(x),
        softplus=_softplus,
        softshrink=lambda x, lambd=0.5: x - _sign(x) * lambd if abs(x) > lambd else mpf(0),
        softsign=lambda x: x / (1 + abs(x)),
        tanhshrink=lambda x: x - tanh(x),
        threshold=lambda x, threshold, value: x if x > threshold else mpf(value),
        binary_cross_entropy=_bce,
        binary_cross_entropy_with_logits=lambda x, t: (1 - t) * x + log1p(exp(-x)),
        huber_loss=_huber,
        kl_div=_kl_div,
        l1_loss=lambda x, y: abs(x - y),
        mse_loss=lambda x, y: (x - y) * (x - y),
        poisson_nll_loss=_poisson,
        prelu=lambda x, weight: x if x > 0 else weight * x,
        smooth_l1_loss=_smooth_l1,
        soft_margin_loss=lambda x, y: log1p(exp(-x * y)),
    )
)
"""By the call's name in torch; the arguments are those of the call."""
