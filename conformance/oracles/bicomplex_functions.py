"""Functions of complex numbers that move along a direction, for `BicomplexArray`.

`call` and `method` read ufuncs, FUNCTIONS the rest. An argument that moves is a `Moving`. Sums,
products and what NumPy makes of them are differentiated by arithmetic; of a holomorphic function
the slope stands here, by the formulas of any table of derivatives and by none of refgrad's rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from conformance.errors import Unsupported
from conformance.oracles import factors
from conformance.oracles.complex_functions import meet

Reading = Callable[..., Any]


class Moving(NamedTuple):
    """Values, real or complex, and how they move, in units of the step."""

    value: Any
    slope: Any


def value(x: Any) -> Any:
    """Where an argument is; itself where it does not move."""
    return x.value if isinstance(x, Moving) else x


def slope(x: Any) -> Any:
    """How an argument moves."""
    return x.slope if isinstance(x, Moving) else 0.0


# f'(z), given z and f(z); on a cut both are continued from the side that NumPy's value is on
_SLOPES: dict[Any, Callable[[Any, Any], Any]] = {
    np.exp: lambda z, f: f, np.exp2: lambda z, f: f * np.log(2.0), np.expm1: lambda z, f: np.exp(z),
    np.log: lambda z, f: 1 / z, np.log2: lambda z, f: 1 / (z * np.log(2.0)),
    np.log10: lambda z, f: 1 / (z * np.log(10.0)), np.log1p: lambda z, f: 1 / (1 + z),
    np.sqrt: lambda z, f: 0.5 / f, np.square: lambda z, f: 2 * z,
    np.reciprocal: lambda z, f: -f * f,
    np.sin: lambda z, f: np.cos(z), np.cos: lambda z, f: -np.sin(z),
    np.tan: lambda z, f: 1 / np.cos(z) ** 2,
    np.sinh: lambda z, f: np.cosh(z), np.cosh: lambda z, f: np.sinh(z),
    np.tanh: lambda z, f: 1 / np.cosh(z) ** 2,
    np.arcsin: lambda z, f: 1 / np.cos(f), np.arccos: lambda z, f: -1 / np.sin(f),
    np.arctan: lambda z, f: 1 / (1 + z * z), np.arcsinh: lambda z, f: 1 / np.cosh(f),
    np.arccosh: lambda z, f: 1 / np.sinh(f), np.arctanh: lambda z, f: 1 / (1 - z * z),
}  # fmt: skip
_LINEAR = {np.add, np.subtract, np.negative, np.positive, np.conjugate}
_PREDICATES = {
    np.isnan, np.isinf, np.isfinite, np.logical_not, np.logical_and, np.logical_or, np.logical_xor,
}  # fmt: skip


def call(ufunc: Any, args: list[Any], trace: Any) -> Any:
    """ufunc(*args)."""
    values = [value(a) for a in args]
    with np.errstate(all="ignore"):
        if ufunc in _LINEAR:
            return Moving(ufunc(*values), ufunc(*map(slope, args)))
        if ufunc in _SLOPES:
            made = ufunc(*values)
            return Moving(made, slope(args[0]) * _SLOPES[ufunc](values[0], made))
        if ufunc in _UFUNCS:
            return _UFUNCS[ufunc](trace, *args)
        if ufunc in (np.equal, np.not_equal):
            met = meet(*values) & (slope(args[0]) != slope(args[1]))
            trace.ties += int(np.count_nonzero(met))
            return ufunc(*values)
        if ufunc in _PREDICATES:
            return ufunc(*values)
    raise Unsupported(f"complex step: {ufunc.__name__} has no reading for complex numbers")


def method(ufunc: Any, name: str, args: list[Any], kwargs: dict[str, Any], trace: Any) -> Any:
    """ufunc.reduce and the like."""
    if ufunc is np.add and name in ("reduce", "accumulate", "reduceat"):
        return _multilinear(getattr(ufunc, name))(trace, *args, **kwargs)
    if ufunc is np.multiply and name == "reduce":
        return _prod(trace, *args, **kwargs)
    if ufunc is np.multiply and name == "accumulate":
        return _cumprod(trace, *args, **kwargs)
    if name == "outer":
        a, b = args
        column = np.shape(value(a)) + (1,) * np.ndim(value(b))
        return call(ufunc, [_each(lambda x: np.reshape(x, column), a), b], trace)
    raise Unsupported(f"complex step: {ufunc.__name__}.{name} of complex numbers")


def _each(function: Reading, x: Any) -> Any:
    """A linear function of one argument."""
    return Moving(function(x.value), function(x.slope)) if isinstance(x, Moving) else function(x)


# --- ufuncs by formula ---------------------------------------------------------------------------


def _product(ufunc: Any) -> Reading:
    def reading(trace: Any, a: Any, b: Any) -> Any:
        moved = 0.0
        if isinstance(a, Moving):
            moved = ufunc(a.slope, value(b))
        if isinstance(b, Moving):
            moved = moved + ufunc(value(a), b.slope)
        return Moving(ufunc(value(a), value(b)), moved)

    return reading


def _quotient(trace: Any, a: Any, b: Any) -> Any:
    made = np.true_divide(value(a), value(b))
    return Moving(made, (slope(a) - made * slope(b)) / value(b))


def _power(trace: Any, a: Any, b: Any) -> Any:
    z, w = value(a), value(b)
    made = np.power(np.asarray(z, complex), w)
    moved = 0.0
    if isinstance(a, Moving):
        moved = np.where(np.equal(w, 0), 0, w * np.power(np.asarray(z, complex), w - 1)) * a.slope
    if isinstance(b, Moving):
        moved = moved + np.where(np.equal(made, 0), 0, made * np.log(z)) * b.slope
    return Moving(made, moved)


def _abs(trace: Any, a: Any) -> Any:
    z, w = a
    size = np.abs(z)
    trace.ties += int(np.count_nonzero((size == 0) & (w != 0)))
    return Moving(size, np.where(size == 0, 0, np.real(np.conj(np.sign(z)) * w)))


def _sign(trace: Any, a: Any) -> Any:
    """z / |z|: only what is across z turns it."""
    z, w = a
    sign, size = np.sign(z), np.abs(z)
    trace.ties += int(np.count_nonzero((size == 0) & (w != 0)))
    across = np.imag(np.conj(sign) * w)
    return Moving(sign, np.where(size == 0, 0, 1j * sign * across / np.where(size == 0, 1, size)))


_UFUNCS: dict[Any, Reading] = {
    np.multiply: _product(np.multiply), np.matmul: _product(np.matmul),
    np.vecdot: _product(np.vecdot), np.true_divide: _quotient,
    np.power: _power, np.float_power: _power, np.abs: _abs, np.sign: _sign,
}  # fmt: skip


# --- functions -----------------------------------------------------------------------------------


def _multilinear(function: Any) -> Reading:
    """A function that is linear in each array: conjugating one, as vdot does, is allowed."""

    def reading(trace: Any, *args: Any, **kwargs: Any) -> Any:
        found = list(_movings(args))
        fixed = _put(args, iter(found), [m.value for m in found])
        moved = 0.0
        for n, moving in enumerate(found):
            parts = [m.value for m in found]
            parts[n] = moving.slope
            moved = moved + function(*_put(args, iter(found), parts), **kwargs)
        return Moving(function(*fixed, **kwargs), moved)

    return reading


def _movings(tree: Any) -> Iterator[Moving]:
    if isinstance(tree, Moving):
        yield tree
    elif isinstance(tree, tuple | list):
        for item in tree:
            yield from _movings(item)


def _put(tree: Any, found: Iterator[Moving], parts: list[Any]) -> Any:
    """The tree with these parts in place of what moves, in order."""
    left = iter(parts)

    def put(item: Any) -> Any:
        if isinstance(item, Moving):
            return next(left)
        return type(item)(map(put, item)) if isinstance(item, tuple | list) else item

    return put(tree)


def _prod(trace: Any, a: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """Of the others at each place, times how it moves."""
    z, w = a
    axes = tuple(range(z.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(n % z.ndim for n in axes)
    kept = [n for n in range(z.ndim) if n not in axes]
    shape = tuple(1 if n in axes else z.shape[n] for n in range(z.ndim))
    z, w = (np.transpose(x, (*kept, *axes)) for x in (z, w))
    z, w = (x.reshape(*(x.shape[: len(kept)]), -1) for x in (z, w))
    moved = np.sum(_before(z) * np.flip(_before(np.flip(z, -1)), -1) * w, axis=-1)
    made = np.prod(z, axis=-1)
    if keepdims:
        made, moved = made.reshape(shape), moved.reshape(shape)
    return Moving(made, moved)


def _before(z: Any) -> Any:
    """The product of all that stand before, along the last axis."""
    ones = np.ones((*z.shape[:-1], 1), z.dtype)
    return np.cumprod(np.concatenate([ones, z[..., :-1]], axis=-1), axis=-1)


def _cumprod(trace: Any, a: Any, axis: int = 0) -> Any:
    z, w = (np.moveaxis(x, axis, 0) for x in a)
    made, moved = np.cumprod(z, axis=0), np.array(w, copy=True)
    for n in range(1, len(z)):
        moved[n] = moved[n - 1] * z[n] + made[n - 1] * w[n]
    return Moving(np.moveaxis(made, 0, axis), np.moveaxis(moved, 0, axis))


def _inv(trace: Any, a: Any) -> Any:
    made = np.linalg.inv(a.value)
    return Moving(made, -made @ a.slope @ made)


def _solve(trace: Any, a: Any, b: Any) -> Any:
    made = np.linalg.solve(value(a), value(b))
    rest = np.broadcast_to(slope(b), np.shape(value(b)))
    if isinstance(a, Moving):
        times = np.matvec if np.ndim(value(b)) == 1 else np.matmul
        rest = rest - times(a.slope, made)
    return Moving(made, np.linalg.solve(value(a), rest))


def _trace_of_inverse(a: Moving) -> Any:
    return np.trace(np.linalg.solve(a.value, a.slope), axis1=-2, axis2=-1)


def _det(trace: Any, a: Any) -> Any:
    made = np.linalg.det(a.value)
    return Moving(made, made * _trace_of_inverse(a))


def _slogdet(trace: Any, a: Any) -> Any:
    sign, size = np.linalg.slogdet(a.value)
    moved = _trace_of_inverse(a)
    return Moving(sign, 1j * sign * np.imag(moved)), Moving(size, np.real(moved))


def _cholesky(trace: Any, a: Any, *, upper: bool = False) -> Any:
    """L phi(L^-1 dA L^-H): phi takes the lower triangle, and half of the diagonal."""
    z, w = (x.mT.conj() for x in a) if upper else a
    factor = np.linalg.cholesky(z)
    w = np.tril(w) + np.tril(w, -1).mT.conj()  # of which one triangle is read
    part = np.linalg.solve(factor, np.linalg.solve(factor, w).mT.conj()).mT.conj()
    lower = np.tril(part)
    lower = lower - 0.5 * np.eye(z.shape[-1]) * lower
    made = Moving(factor, factor @ lower)
    return _each(lambda x: x.mT.conj(), made) if upper else made


def _svd(trace: Any, a: Any, *, full_matrices: bool = True) -> Any:
    if full_matrices and a.value.shape[-2] != a.value.shape[-1]:
        raise Unsupported("complex step: numpy.linalg.svd with bases of what the matrix leaves out")
    return tuple(Moving(*part) for part in factors.svd(*a))


def _eigh(trace: Any, a: Any, UPLO: str = "L") -> Any:
    return tuple(Moving(*part) for part in factors.eigh(a.value, a.slope, UPLO))


def _qr(trace: Any, a: Any, mode: str = "reduced") -> Any:
    if mode != "reduced":
        raise Unsupported(f"complex step: numpy.linalg.qr of mode {mode!r}")
    return tuple(Moving(*part) for part in factors.qr(*a))


def _norm(trace: Any, a: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    if ord not in (None, 2, "fro") or (ord == 2 and np.ndim(value(a)) > 1 and axis is None):
        raise Unsupported(f"complex step: numpy.linalg.norm of order {ord}")
    z, w = a
    made = np.linalg.norm(z, axis=axis, keepdims=keepdims)
    along = np.sum(np.real(np.conj(z) * w), axis=axis, keepdims=keepdims)
    trace.ties += int(np.count_nonzero(made == 0))
    return Moving(made, np.where(made == 0, 0, along / np.where(made == 0, 1, made)))


def _of_value(function: Any) -> Reading:
    """A function that only looks at the values."""

    def reading(trace: Any, *args: Any, **kwargs: Any) -> Any:
        found = list(_movings(args))
        return function(*_put(args, iter(found), [m.value for m in found]), **kwargs)

    return reading


_SUMS_AND_PRODUCTS = (
    np.sum, np.mean, np.cumsum, np.cumulative_sum, np.diff, np.trace, np.linalg.trace, np.dot,
    np.vdot, np.inner, np.outer, np.linalg.outer, np.tensordot, np.einsum, np.kron, np.cross,
    np.convolve, np.linalg.multi_dot, np.average, np.trapezoid,
)  # fmt: skip
TRANSFORMS = (
    np.fft.fft, np.fft.ifft, np.fft.fft2, np.fft.ifft2, np.fft.fftn, np.fft.ifftn, np.fft.rfft,
    np.fft.irfft, np.fft.rfft2, np.fft.irfft2, np.fft.rfftn, np.fft.irfftn, np.fft.hfft,
    np.fft.ihfft,
)  # fmt: skip

FUNCTIONS: dict[Any, Reading] = {
    **{f: _multilinear(f) for f in (*_SUMS_AND_PRODUCTS, *TRANSFORMS)},
    **{f: _of_value(f) for f in (np.shape, np.ndim, np.size, np.any, np.all, np.count_nonzero)},
    **{f: _of_value(f) for f in (np.isclose, np.nonzero, np.flatnonzero, np.argwhere)},
    **{f: _of_value(f) for f in (np.allclose, np.array_equal, np.iscomplexobj, np.isrealobj)},
    np.prod: _prod, np.cumprod: _cumprod, np.linalg.norm: _norm,
    np.linalg.inv: _inv, np.linalg.solve: _solve, np.linalg.det: _det,
    np.linalg.slogdet: _slogdet, np.linalg.cholesky: _cholesky, np.linalg.svd: _svd,
    np.linalg.eigh: _eigh, np.linalg.qr: _qr,
}  # fmt: skip
