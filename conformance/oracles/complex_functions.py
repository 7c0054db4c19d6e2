"""The holomorphic reading of NumPy's and SciPy's functions, for `ComplexArray`.

`call` and `method` read ufuncs, FUNCTIONS the rest; all take and give complex arrays z = x + ih (or
real ones, where an argument has no imaginary part), with h so small that h^2 vanishes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special as special

from conformance.errors import Unsupported
from conformance.oracles import factors

Reading = Callable[..., Any]


# ufuncs whose complex loop is the analytic continuation of the real one
_HOLOMORPHIC = {
    np.add, np.subtract, np.multiply, np.true_divide, np.negative, np.positive, np.square,
    np.reciprocal, np.sqrt, np.exp, np.exp2, np.expm1, np.log, np.log2, np.log10, np.log1p,
    np.sin, np.cos, np.tan, np.sinh, np.cosh, np.tanh, np.arcsin, np.arccos, np.arctan,
    np.arcsinh, np.arccosh, np.arctanh, np.matmul,
    special.erf, special.erfc, special.erfcx, special.erfi, special.dawsn, special.wofz,
    special.psi, special.gamma, special.rgamma, special.ndtr, special.log_ndtr, special.spence,
}  # fmt: skip
# ufuncs that no rounding of their argument hurts; the value alone decides where they end
_EXACT = {np.add, np.subtract, np.multiply, np.negative, np.positive, np.square, np.matmul}
# ufuncs of the real part alone, constant between their steps
_STEPS = {np.sign, np.floor, np.ceil, np.rint, np.trunc}
_COMPARISONS = {np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal}
_PREDICATES = {
    np.isnan, np.isinf, np.isfinite, np.signbit, np.logical_and, np.logical_or, np.logical_not,
    np.logical_xor,
}  # fmt: skip


def plain(tree: Any) -> Any:
    """A tree of arguments with each ComplexArray replaced by its complex values."""
    if isinstance(tree, tuple):
        return tuple([plain(item) for item in tree])
    if isinstance(tree, list):
        return [plain(item) for item in tree]
    if isinstance(tree, dict):
        return {key: plain(item) for key, item in tree.items()}
    return getattr(tree, "z", tree)


def real(x: Any) -> Any:
    """The real part of an array or number."""
    return x.real if _is_complex(x) else x


def imag(x: Any) -> Any:
    """The imaginary part; 0 for what is real."""
    return x.imag if _is_complex(x) else 0.0


def _is_complex(x: Any) -> bool:
    return bool(x.dtype.kind == "c") if isinstance(x, np.ndarray) else isinstance(x, complex)


def join(value: Any, z: Any) -> Any:
    """The value of the real function with the imaginary part of z; nan where the value is nan."""
    shape, other = np.shape(value), np.shape(z)
    made = np.empty(shape if shape == other else np.broadcast_shapes(shape, other), complex)
    made.real = value
    made.imag = imag(z)
    undefined = np.isnan(value)
    if undefined.any():
        made.imag = np.where(undefined, np.nan, made.imag)
    return made


def call(ufunc: Any, zs: list[Any], trace: Any) -> Any:
    """ufunc(*zs), read holomorphically."""
    if ufunc in _EXACT:
        return ufunc(*zs)
    with np.errstate(all="ignore"):
        if ufunc in _HOLOMORPHIC:
            return join(ufunc(*map(real, zs)), ufunc(*zs))
        if ufunc in _UFUNCS:
            return _UFUNCS[ufunc](trace, *zs)
        if ufunc in _STEPS:
            _tie(trace, _at_a_step(ufunc, real(zs[0])) & (imag(zs[0]) != 0))
            return ufunc(real(zs[0])) + 0j
        if ufunc in _COMPARISONS:
            left, right = zs
            _tie(trace, meet(real(left), real(right)) & (imag(left) != imag(right)))
            return ufunc(real(left), real(right))
        if ufunc in _PREDICATES:
            return ufunc(*map(real, zs))
    raise Unsupported(f"complex step: {ufunc.__name__} has no complex loop or formula")


def method(ufunc: Any, name: str, zs: list[Any], kwargs: dict[str, Any], trace: Any) -> Any:
    """ufunc.reduce and the like."""
    if ufunc in (np.add, np.multiply):
        return getattr(ufunc, name)(*zs, **kwargs)
    if name == "reduce" and ufunc in (np.maximum, np.minimum):
        reading = _largest if ufunc is np.maximum else _smallest
        return reading(trace, *zs, **kwargs)
    if name == "reduce" and ufunc in (np.logical_and, np.logical_or):
        return ufunc.reduce(real(zs[0]) != 0, *zs[1:], **kwargs)
    if name == "accumulate" and ufunc in _UFUNCS:
        return _accumulated(ufunc, trace, *zs, **kwargs)
    if name == "outer":
        a, b = (np.asarray(z) for z in zs)
        return call(ufunc, [a.reshape(a.shape + (1,) * b.ndim), b], trace)
    raise Unsupported(f"complex step: {ufunc.__name__}.{name}")


def _accumulated(ufunc: Any, trace: Any, z: Any, axis: int = 0) -> Any:
    made = [z.take(0, axis)]
    for n in range(1, z.shape[axis]):
        made.append(call(ufunc, [made[-1], z.take(n, axis)], trace))
    return np.stack(made, axis)


def _tie(trace: Any, where: Any) -> None:
    trace.ties += int(np.count_nonzero(where))


def meet(x: Any, y: Any) -> Any:
    """Where x and y are equal and may part as they move; what is infinite stays so."""
    return np.equal(x, y) & np.isfinite(x)


def _at_a_step(ufunc: Any, x: Any) -> Any:
    if ufunc is np.sign:
        return np.equal(x, 0)
    if ufunc is np.rint:
        return np.equal(np.abs(x - np.trunc(x)), 0.5)
    return np.equal(x, np.trunc(x))


# --- ufuncs by formula ---------------------------------------------------------------------------


def _abs(trace: Any, z: Any) -> Any:
    _tie(trace, (real(z) == 0) & (imag(z) != 0))
    return z * np.sign(real(z))


def _power(trace: Any, z: Any, w: Any) -> Any:
    """z^w = (+-1)^w exp(w log|z|); complex pow's branch cut would leak into the imaginary part."""
    x, y = real(z), real(w)
    _tie(trace, (np.equal(x, 0)) & ((imag(z) != 0) & (y < 1) & (y != 0) | (imag(w) != 0)))
    value = np.power(x, y) if np.asarray(x).dtype.kind == "f" else np.power(np.asarray(x, float), y)
    if np.ndim(w) == 0 and not np.any(imag(w)) and float(y) == int(y) and abs(y) <= 64:
        n = int(y)  # exact products: right at zero, where the logarithm is not
        return join(value, np.asarray(z, complex) ** n)
    sign = np.where(np.less(x, 0), np.where(np.remainder(y, 2) == 1, -1.0, 1.0), 1.0)
    body = np.exp(w * np.log(np.where(np.less(x, 0), -1.0, 1.0) * z))
    at_zero = np.equal(x, 0) & (y >= 1)
    imaginary = np.where(at_zero, np.where(np.equal(y, 1), imag(z), 0.0), sign * imag(body))
    imaginary = np.where(np.equal(y, 0) & (imag(w) == 0), 0.0, imaginary)
    return join(value, 1j * imaginary)


def _choose_larger(trace: Any, a: Any, b: Any) -> Any:
    return _choose(trace, a, b, np.maximum)


def _choose_smaller(trace: Any, a: Any, b: Any) -> Any:
    return _choose(trace, a, b, np.minimum)


def _choose(trace: Any, a: Any, b: Any, ufunc: Any) -> Any:
    tied = np.equal(real(a), real(b))
    _tie(trace, meet(real(a), real(b)) & (imag(a) != imag(b)))
    value = ufunc(real(a), real(b))
    one = np.where(value == real(a), imag(a), imag(b))
    return join(value, 1j * np.where(tied, (imag(a) + imag(b)) / 2, one))


def _logaddexp(trace: Any, a: Any, b: Any) -> Any:
    swap = np.less(real(a), real(b))
    high, low = np.where(swap, b, a), np.where(swap, a, b)
    both = np.isinf(real(high)) & (real(high) == real(low))
    made = high + np.log1p(np.exp(np.where(both, 0.0, low - high)))
    return join(np.logaddexp(real(a), real(b)), made)


def _logaddexp2(trace: Any, a: Any, b: Any) -> Any:
    two = np.log(2.0)
    return join(np.logaddexp2(real(a), real(b)), _logaddexp(trace, a * two, b * two) / two)


def _expit(trace: Any, z: Any) -> Any:
    small = np.exp(np.where(real(z) >= 0, -z, z))
    made = np.where(real(z) >= 0, 1.0, small) / (1 + small)
    return join(special.expit(real(z)), made)


def _log_expit(trace: Any, z: Any) -> Any:
    small = np.exp(np.where(real(z) >= 0, -z, z))
    made = np.where(real(z) >= 0, 0.0, z) - np.log1p(small)
    return join(special.log_expit(real(z)), made)


def _logit(trace: Any, z: Any) -> Any:
    return join(special.logit(real(z)), np.log(z) - np.log1p(-z))


def _arctan2(trace: Any, y: Any, x: Any) -> Any:
    """atan(y/x) or -atan(x/y), whichever is the better conditioned, up to a constant."""
    flat = np.abs(real(y)) <= np.abs(real(x))
    made = np.where(flat, np.arctan(y / np.where(flat, x, 1.0)), 0)
    made = np.where(flat, made, -np.arctan(x / np.where(flat, 1.0, y)))
    both = (real(x) == 0) & (real(y) == 0)
    _tie(trace, both & ((imag(x) != 0) | (imag(y) != 0)))
    return join(np.arctan2(real(y), real(x)), np.where(both, 0.0, made))


def _hypot(trace: Any, a: Any, b: Any) -> Any:
    value = np.hypot(real(a), real(b))
    scale = np.where((value == 0) | ~np.isfinite(value), 1.0, value)
    _tie(trace, (value == 0) & ((imag(a) != 0) | (imag(b) != 0)))
    made = scale * np.sqrt((a / scale) ** 2 + (b / scale) ** 2)
    return join(value, np.where(value == 0, 0.0, made))


def _copysign(trace: Any, a: Any, b: Any) -> Any:
    _tie(trace, ((real(a) == 0) & (imag(a) != 0)) | ((real(b) == 0) & (imag(b) != 0)))
    value = np.copysign(real(a), real(b))
    return join(value, a * np.sign(value) * np.sign(real(a)))


def _remainder(trace: Any, a: Any, b: Any) -> Any:
    value = np.remainder(real(a), real(b))
    _tie(trace, (value == 0) & ((imag(a) != 0) | (imag(b) != 0)))
    return join(value, a - b * np.floor_divide(real(a), real(b)))


def _fmod(trace: Any, a: Any, b: Any) -> Any:
    value = np.fmod(real(a), real(b))
    _tie(trace, (value == 0) & ((imag(a) != 0) | (imag(b) != 0)))
    return join(value, a - b * np.trunc(real(a) / real(b)))


def _floor_divide(trace: Any, a: Any, b: Any) -> Any:
    value = np.floor_divide(real(a), real(b))
    exact = np.remainder(real(a), real(b)) == 0
    _tie(trace, exact & ((imag(a) != 0) | (imag(b) != 0)))
    return value + 0j


def _cbrt(trace: Any, z: Any) -> Any:
    sign = np.sign(real(z))
    _tie(trace, (sign == 0) & (imag(z) != 0))
    return join(np.cbrt(real(z)), sign * np.exp(np.log(sign * z) / 3))


def _gammaln(trace: Any, z: Any) -> Any:
    """log|gamma|; left of 1/2 by reflection, since loggamma's branches would leak."""
    left = real(z) < 0.5
    direct = special.loggamma(np.where(left, 1 - z, z))
    sine = np.sin(np.pi * z)
    made = np.where(left, -np.log(np.sign(real(sine)) * sine) - direct, direct)
    return join(special.gammaln(real(z)), made)


def _xlogy(trace: Any, a: Any, b: Any) -> Any:
    return _x_log(trace, a, b, special.xlogy, np.log)


def _xlog1py(trace: Any, a: Any, b: Any) -> Any:
    return _x_log(trace, a, b, special.xlog1py, np.log1p)


def _x_log(trace: Any, a: Any, b: Any, ufunc: Any, log: Any) -> Any:
    logs = log(b)
    ends = (real(a) == 0) & ~np.isfinite(real(logs))
    _tie(trace, ends & ((imag(a) != 0) | (imag(b) != 0)))
    return join(ufunc(real(a), real(b)), np.where(ends, 0.0, a * logs))


def _zeta(trace: Any, s: Any, z: Any) -> Any:
    """d zeta(s, z) = -s zeta(s + 1, z) dz; s itself has no derivative."""
    if np.any(imag(s)):
        raise Unsupported("complex step: the derivative of zeta by its first argument")
    s, value = real(s), real(z)
    return join(special.zeta(s, value), -1j * imag(z) * s * special.zeta(s + 1, value))


def _erfinv(trace: Any, z: Any) -> Any:
    """One Newton step from the real solution, exact to first order."""
    value = special.erfinv(real(z))
    step = np.sqrt(np.pi) / 2 * np.exp(value * value)
    return join(value, 1j * imag(z) * step)


def _ndtri(trace: Any, z: Any) -> Any:
    value = special.ndtri(real(z))
    return join(value, 1j * imag(z) * np.sqrt(2 * np.pi) * np.exp(value * value / 2))


def _bessel(ufunc: Any, general: Any, order: int) -> Reading:
    def reading(trace: Any, z: Any) -> Any:
        return join(ufunc(real(z)), general(order, z))

    return reading


def _bessel_i(ufunc: Any, order: int, *, scaled: bool) -> Reading:
    def reading(trace: Any, z: Any) -> Any:
        if scaled:  # ive's own factor is exp(-|re z|), which is not analytic
            _tie(trace, (real(z) == 0) & (imag(z) != 0))
            made = special.ive(order, z) * np.exp(-1j * np.sign(real(z)) * imag(z))
        else:
            made = special.iv(order, z)
        return join(ufunc(real(z)), made)

    return reading


_UFUNCS: dict[Any, Reading] = {
    np.abs: _abs, np.fabs: _abs, np.power: _power, np.float_power: _power,
    np.maximum: _choose_larger, np.minimum: _choose_smaller,
    np.fmax: _choose_larger, np.fmin: _choose_smaller,
    np.logaddexp: _logaddexp, np.logaddexp2: _logaddexp2,
    np.arctan2: _arctan2, np.hypot: _hypot, np.copysign: _copysign,
    np.remainder: _remainder, np.fmod: _fmod, np.floor_divide: _floor_divide, np.cbrt: _cbrt,
    np.conjugate: lambda trace, z: z,
    np.deg2rad: lambda trace, z: z * (np.pi / 180), np.radians: lambda trace, z: z * (np.pi / 180),
    np.rad2deg: lambda trace, z: z * (180 / np.pi), np.degrees: lambda trace, z: z * (180 / np.pi),
    special.expit: _expit, special.log_expit: _log_expit, special.logit: _logit,
    special.gammaln: _gammaln, special.xlogy: _xlogy, special.xlog1py: _xlog1py,
    special.erfinv: _erfinv, special.ndtri: _ndtri, special._ufuncs._zeta: _zeta,
    special.i0: _bessel_i(special.i0, 0, scaled=False),
    special.i1: _bessel_i(special.i1, 1, scaled=False),
    special.i0e: _bessel_i(special.i0e, 0, scaled=True),
    special.i1e: _bessel_i(special.i1e, 1, scaled=True),
    special.j0: _bessel(special.j0, special.jv, 0), special.j1: _bessel(special.j1, special.jv, 1),
    special.k0: _bessel(special.k0, special.kv, 0), special.k1: _bessel(special.k1, special.kv, 1),
}  # fmt: skip


# --- functions -----------------------------------------------------------------------------------


def _through(function: Any) -> Reading:
    """A function that moves numbers, or adds and multiplies them: the complex one is right."""
    return lambda trace, *args, **kwargs: function(*args, **kwargs)


def _of_real(function: Any) -> Reading:
    """A function that only looks at the real part."""

    def reading(trace: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        return function(real(x), *args, **kwargs)

    return reading


def _pick(function: Any) -> Reading:
    """max or min: the element that the real parts choose; equal ones that differ are a tie."""

    def reading(trace: Any, z: Any, axis: Any = None, keepdims: bool = False, **kwargs: Any) -> Any:
        if kwargs:
            raise Unsupported(f"complex step: {function.__name__} with {', '.join(kwargs)}")
        value = function(real(z), axis=axis, keepdims=True)
        chosen = (real(z) == value) | (np.isnan(real(z)) & np.isnan(value))
        count = np.maximum(chosen.sum(axis=axis, keepdims=True), 1)
        mean = np.where(chosen, imag(z), 0.0).sum(axis=axis, keepdims=True) / count
        _tie(trace, chosen & np.isfinite(value) & (imag(z) != mean) & (count > 1))
        made = join(value, 1j * mean)
        if keepdims:
            return made
        axes = tuple(range(np.ndim(z))) if axis is None else axis
        return np.squeeze(made, axis=axes)

    return reading


_largest, _smallest = _pick(np.max), _pick(np.min)


def _argsort(trace: Any, z: Any, axis: int = -1, **kwargs: Any) -> Any:
    order = np.argsort(real(z), axis=axis, **kwargs)
    _tie_neighbours(trace, np.take_along_axis(z, order, axis), axis)
    return order


def _sort(trace: Any, z: Any, axis: int = -1, **kwargs: Any) -> Any:
    order = np.argsort(real(z), axis=axis, kind="stable")
    made = np.take_along_axis(z, order, axis)
    _tie_neighbours(trace, made, axis)
    return made


def _tie_neighbours(trace: Any, z: Any, axis: int) -> None:
    step = np.diff(z, axis=axis)
    _tie(trace, (real(step) == 0) & (imag(step) != 0))


def _arg(function: Any) -> Reading:
    picked = _largest if "max" in function.__name__ else _smallest

    def reading(trace: Any, z: Any, axis: Any = None, **kwargs: Any) -> Any:
        picked(trace, z, axis)
        return function(real(z), axis=axis, **kwargs)

    return reading


def _clip(trace: Any, z: Any, low: Any = None, high: Any = None, **kwargs: Any) -> Any:
    made = z
    for limit, outside in ((low, np.less), (high, np.greater)):
        if limit is not None:
            _tie(trace, meet(real(z), real(limit)) & (imag(z) != imag(limit)))
            made = np.where(outside(real(made), real(limit)), limit, made)
    return np.where(np.isnan(real(z)), z, made)


def _var(trace: Any, z: Any, axis: Any = None, *, ddof: Any = 0, keepdims: bool = False) -> Any:
    mean = np.mean(z, axis=axis, keepdims=True)
    count = np.size(z) / max(np.size(mean), 1)
    return np.sum((z - mean) ** 2, axis=axis, keepdims=keepdims) / max(count - ddof, 0)


def _std(trace: Any, z: Any, axis: Any = None, *, ddof: Any = 0, keepdims: bool = False) -> Any:
    return call(np.sqrt, [_var(trace, z, axis, ddof=ddof, keepdims=keepdims)], trace)


def _norm(trace: Any, z: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in (None, 2, "fro") or (ord == 2 and np.ndim(z) > 1 and axis is None):
        raise Unsupported(f"complex step: numpy.linalg.norm of order {ord}")
    return call(np.sqrt, [np.sum(z * z, axis=axis, keepdims=keepdims)], trace)


def _slogdet(trace: Any, z: Any) -> Any:
    sign, value = np.linalg.slogdet(real(z))
    inverse = np.linalg.inv(real(z))
    made = np.einsum("...ij,...ji->...", inverse, imag(z))  # d log|det A| = tr(A^-1 dA)
    return sign, join(value, 1j * made)


def _cholesky(trace: Any, z: Any, *, upper: bool = False) -> Any:
    """Column by column, by the formula that holds for a complex symmetric matrix."""
    symmetric = (np.tril(z) + np.tril(z, -1).mT) if not upper else (np.triu(z) + np.triu(z, 1).mT)
    factor = np.zeros_like(symmetric)
    for j in range(z.shape[-1]):
        rest = symmetric[..., j:, j] - np.einsum(
            "...ik,...k->...i", factor[..., j:, :j], factor[..., j, :j]
        )
        factor[..., j:, j] = rest / np.sqrt(rest[..., :1])
    factor = factor.mT if upper else factor
    return join(np.linalg.cholesky(real(z), upper=upper), factor)


def _svd(trace: Any, z: Any, *, full_matrices: bool = True) -> Any:
    if full_matrices and z.shape[-2] != z.shape[-1]:
        raise Unsupported("complex step: numpy.linalg.svd with bases of what the matrix leaves out")
    return _factors(factors.svd(real(z), imag(z)))


def _eigh(trace: Any, z: Any, UPLO: str = "L") -> Any:
    return _factors(factors.eigh(real(z), imag(z), UPLO))


def _qr(trace: Any, z: Any, mode: str = "reduced") -> Any:
    if mode != "reduced":
        raise Unsupported(f"complex step: numpy.linalg.qr of mode {mode!r}")
    return _factors(factors.qr(real(z), imag(z)))


def _factors(moved: factors.Moved) -> Any:
    return tuple(join(value, 1j * slope) for value, slope in moved)


def _where(trace: Any, condition: Any, *values: Any) -> Any:
    condition = real(condition) != 0 if np.asarray(condition).dtype.kind == "c" else condition
    return np.where(condition, *values)


def _filled(function: Any) -> Reading:
    """zeros_like and the like: complex, so that it can be written into."""

    def reading(trace: Any, z: Any, *args: Any, **kwargs: Any) -> Any:
        return function(z, *args, dtype=complex, **kwargs)

    return reading


def _nan_to_num(trace: Any, z: Any, copy: bool = True, **kwargs: Any) -> Any:
    value = np.nan_to_num(real(z), **kwargs)
    return join(value, np.where(np.isfinite(real(z)), z, 0.0))


MOVES = (
    np.reshape, np.ravel, np.transpose, np.moveaxis, np.swapaxes, np.rollaxis, np.expand_dims,
    np.squeeze, np.broadcast_to, np.broadcast_arrays, np.concatenate, np.stack, np.vstack,
    np.hstack, np.dstack, np.column_stack, np.split, np.array_split, np.tile, np.repeat, np.roll,
    np.flip, np.fliplr, np.flipud, np.rot90, np.take, np.take_along_axis, np.put_along_axis,
    np.pad, np.copy, np.diag, np.diagonal, np.diagflat, np.tril, np.triu, np.delete, np.insert,
    np.append, np.copyto,
    np.atleast_1d, np.atleast_2d, np.atleast_3d, np.meshgrid, np.compress, np.extract, np.choose,
    np.lib.stride_tricks.sliding_window_view, np.lib.stride_tricks.as_strided, np.permute_dims,
    np.matrix_transpose, np.linalg.matrix_transpose, np.linalg.diagonal, np.unstack,
)  # fmt: skip
_ALGEBRA = (
    np.sum, np.prod, np.mean, np.cumsum, np.cumprod, np.cumulative_sum, np.cumulative_prod, np.diff,
    np.dot, np.inner, np.outer, np.tensordot, np.einsum, np.kron, np.trace, np.cross, np.convolve,
    np.average, np.sinc, np.linalg.inv, np.linalg.solve, np.linalg.det, np.linalg.matrix_power,
    np.linalg.multi_dot, np.linalg.trace, np.linalg.outer, np.trapezoid, np.vander,
)  # fmt: skip

FUNCTIONS: dict[Any, Reading] = {
    **{f: _through(f) for f in (*MOVES, *_ALGEBRA, np.may_share_memory, np.shares_memory)},
    **{f: _filled(f) for f in (np.zeros_like, np.ones_like, np.empty_like, np.full_like)},
    **{f: _of_real(f) for f in (np.shape, np.ndim, np.size, np.any, np.all, np.count_nonzero)},
    **{f: _of_real(f) for f in (np.isclose, np.nonzero, np.flatnonzero, np.argwhere)},
    **{f: _of_real(f) for f in (np.isposinf, np.isneginf)},
    **{f: _arg(f) for f in (np.argmax, np.argmin)},
    np.where: _where,
    np.real: lambda trace, z: z,
    np.iscomplexobj: lambda trace, z: False, np.isrealobj: lambda trace, z: True,
    np.result_type: lambda trace, *values: np.result_type(*map(real, values)),
    np.max: _largest, np.amax: _largest, np.min: _smallest, np.amin: _smallest,
    np.argsort: _argsort, np.sort: _sort, np.clip: _clip,
    np.var: _var, np.std: _std, np.linalg.norm: _norm, np.nan_to_num: _nan_to_num,
    np.linalg.slogdet: _slogdet, np.linalg.cholesky: _cholesky, np.linalg.svd: _svd,
    np.linalg.eigh: _eigh, np.linalg.qr: _qr,
}  # fmt: skip
