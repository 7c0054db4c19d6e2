"""An array of bicomplex numbers that passes for complex: the complex step of complex Programs.

A number x + jy has a real and an imaginary part that are complex themselves, x + ih and y + ik: how
they move is the imaginary part of each, and i is not j. The two lie side by side in one array of
NUMBER, so that views, the parts of a complex number among them, are views here too. Its real and
imaginary part are each a `ComplexArray`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from conformance.errors import Unsupported
from conformance.oracles import bicomplex_functions as table
from conformance.oracles.bicomplex_functions import Moving
from conformance.oracles.complex_array import ComplexArray, Trace, mapped
from conformance.oracles.complex_functions import MOVES, plain

NUMBER = np.dtype([("re", complex), ("im", complex)])
_FILLED = {np.zeros_like, np.ones_like, np.empty_like, np.full_like}
TRANSFORMS = frozenset(table.TRANSFORMS)  # complex numbers come of real ones
_WRITING = {np.copyto, np.put_along_axis}


class BicomplexArray(ComplexArray):
    """(x + ih) + j(y + ik) as one array; `dtype` is the complex dtype that it passes for."""

    def __init__(self, z: Any, trace: Trace, dtype: Any = np.complex128) -> None:
        super().__init__(z, trace, dtype)

    @staticmethod
    def of(x: Any, trace: Trace, dtype: Any = np.complex128) -> BicomplexArray:
        """From what is plain, from a ComplexArray, or from a Moving."""
        return BicomplexArray(_lifted(x), trace, dtype)

    @property
    def real(self) -> ComplexArray:
        """The real parts: a view."""
        return ComplexArray(self.z["re"], self.trace, _part(self.dtype))

    @real.setter
    def real(self, value: Any) -> None:
        self.real[...] = value

    @property
    def imag(self) -> ComplexArray:
        """The imaginary parts: a view."""
        return ComplexArray(self.z["im"], self.trace, _part(self.dtype))

    @imag.setter
    def imag(self, value: Any) -> None:
        self.imag[...] = value

    @property
    def value(self) -> Any:
        """The complex numbers that it stands for, without how they move."""
        return _joined(self.z["re"].real, self.z["im"].real)

    @property
    def slope(self) -> Any:
        """How they move, in units of the step."""
        return _joined(self.z["re"].imag, self.z["im"].imag)

    def __bool__(self) -> bool:
        return bool(self.value)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.z[plain(index)] = _lifted(value)

    def astype(self, dtype: Any, **kwargs: Any) -> Any:
        """Another complex dtype in name alone; what is real of the real part."""
        dtype = np.dtype(dtype)
        if dtype.kind == "c":
            return BicomplexArray(self.z.copy(), self.trace, dtype)
        return self.real.astype(dtype)

    def conj(self) -> Any:
        """The conjugates."""
        return np.conjugate(self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        """The sum over axes."""
        return np.sum(self, axis=axis, keepdims=keepdims)

    def view(self, dtype: Any) -> Any:
        """As real numbers: the last axis is twice as long. Of another dtype: raises Unsupported."""
        if np.dtype(dtype) != _part(self.dtype):
            raise Unsupported(f"complex step: complex numbers viewed as {dtype}")
        return ComplexArray(self.z.view(complex), self.trace, dtype)

    def _like(self, z: Any, dtype: Any = None) -> Any:
        return BicomplexArray(z, self.trace, self.dtype if dtype is None else dtype)

    # --- NumPy's protocols -----------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return complex_ufunc(self.trace, ufunc, method, *inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return complex_function(self.trace, func, args, kwargs)


def complex_ufunc(trace: Trace, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """NEP 13 where complex numbers are among the inputs."""
    out = kwargs.pop("out", None)
    kwargs.pop("dtype", None)
    where = kwargs.pop("where", True)
    if method == "at":
        return _write_at(ufunc, inputs)
    args = [_moving(x) for x in inputs]
    if method == "__call__":
        result = table.call(ufunc, args, trace)
    else:
        result = table.method(ufunc, method, args, kwargs, trace)
    if where is not True:
        if out is None:
            raise Unsupported(f"complex step: {ufunc.__name__} with where=")
        result = np.where(where, _lifted(result), out[0].z)
    return _made(result, trace, _name(inputs)) if out is None else _into(out[0], result)


def complex_function(trace: Trace, func: Any, args: Any, kwargs: Any) -> Any:
    """NEP 18 where complex numbers are among the arguments, or come of them."""
    name = _name(args)
    out = kwargs.pop("out", None)
    if func in _FILLED:
        asked = np.dtype(kwargs.pop("dtype", None) or name)
        made = func(*(table.value(_moving(a)) for a in args), **{**kwargs, "dtype": asked})
        return made if asked.kind in "iub" else _made(Moving(made, 0.0), trace, name)
    if func is np.real or func is np.imag:
        return args[0].real if func is np.real else args[0].imag
    if func is np.result_type:
        return np.result_type(*(a.dtype if isinstance(a, ComplexArray) else a for a in args))
    if func is np.where:
        condition, *values = args
        picked = np.where(table.value(_moving(condition)) != 0, *map(_lifted, values))
        return _made(picked, trace, name)
    if func is np.may_share_memory or func is np.shares_memory:
        return func(*(getattr(a, "z", a) for a in args))
    if func in _WRITING:
        target, *rest = args
        if not isinstance(target, BicomplexArray):
            raise Unsupported("complex step: complex numbers written into real ones")
        return func(target.z, *map(_unless_index, rest), **kwargs)
    if func in MOVES:
        made = func(*_map(_unless_index, args), **kwargs)
        return mapped(lambda z: _made(z, trace, name), made)
    reading: Callable[..., Any] | None = table.FUNCTIONS.get(func)
    if reading is None:
        raise Unsupported(f"complex step: numpy.{func.__name__} has no reading for complex numbers")
    asked = kwargs.pop("dtype", None)
    made = reading(trace, *_map(_moving, args), **kwargs)
    if asked is not None:
        name = np.result_type(asked, np.complex64)
    if out is not None:
        return _into(out, made)
    if isinstance(made, tuple) and not isinstance(made, Moving):
        return tuple(_made(part, trace, name) for part in made)
    return _made(made, trace, name)


def _moving(x: Any) -> Any:
    """An array that moves as its values and slopes; everything else as it is."""
    if isinstance(x, BicomplexArray):
        return Moving(x.value, x.slope)
    return Moving(x.z.real, x.z.imag) if isinstance(x, ComplexArray) else x


def _lifted(x: Any) -> Any:
    """Numbers of any kind as an array of NUMBER."""
    if isinstance(x, BicomplexArray):
        return x.z
    if isinstance(x, np.ndarray) and x.dtype == NUMBER:
        return x
    x = _moving(x)
    value, slope = (x.value, x.slope) if isinstance(x, Moving) else (x, 0.0)
    made = np.zeros(np.shape(value), NUMBER)
    for name, part in (("re", np.real), ("im", np.imag)):
        made[name].real, made[name].imag = part(value), part(slope)
    undefined = np.isnan(value)
    if undefined.any():
        made["re"].imag[undefined] = made["im"].imag[undefined] = np.nan
    return made


def _unless_index(x: Any) -> Any:
    """Floating and complex arrays lifted; indices, shapes and numbers as they are."""
    if isinstance(x, ComplexArray) or (isinstance(x, np.ndarray) and x.dtype.kind in "fc"):
        return _lifted(x)
    return x


def _made(result: Any, trace: Trace, name: np.dtype[Any]) -> Any:
    """What refgrad is given: what moves as an array of its kind, and the rest as it is."""
    if isinstance(result, np.ndarray | np.void) and result.dtype == NUMBER:
        return BicomplexArray(result, trace, name)
    if not isinstance(result, Moving):
        return result
    if np.iscomplexobj(result.value):
        return BicomplexArray.of(result, trace, name)
    return ComplexArray(_joined(result.value, np.real(result.slope)), trace, _part(name))


def _into(out: Any, result: Any) -> Any:
    if isinstance(out, BicomplexArray):
        out.z[...] = _lifted(result)
    elif isinstance(out, ComplexArray) and isinstance(result, Moving):
        if np.iscomplexobj(result.value):
            raise Unsupported("complex step: complex numbers written into real ones")
        out.z[...] = _joined(result.value, np.real(result.slope))
    else:
        raise Unsupported("complex step: a plain array as out=")
    return out


def _write_at(ufunc: Any, inputs: tuple[Any, ...]) -> None:
    target, index, *rest = inputs
    if not isinstance(target, BicomplexArray) or ufunc not in (np.add, np.subtract):
        raise Unsupported(f"complex step: {ufunc.__name__}.at of complex numbers")
    for part in ("re", "im"):
        ufunc.at(target.z[part], plain(index), *(_lifted(r)[part] for r in rest))


def _joined(real: Any, imag: Any) -> Any:
    made = np.empty(np.broadcast_shapes(np.shape(real), np.shape(imag)), complex)
    made.real, made.imag = real, imag
    return made


def _name(args: Iterable[Any]) -> np.dtype[Any]:
    """The complex dtype of a result made of these."""
    arrays = [v for v in _leaves(args) if isinstance(v, ComplexArray | np.ndarray)]
    dtypes = [v.dtype for v in arrays if v.dtype.kind in "fc" and v.ndim]
    return np.result_type(*(dtypes or [v.dtype for v in arrays]), np.complex64)


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from _leaves(item)
    else:
        yield tree


def _part(dtype: Any) -> np.dtype[Any]:
    """The real dtype of the parts."""
    return np.dtype(np.float32 if np.dtype(dtype) == np.complex64 else np.float64)


def _map(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, tuple | list):
        return type(tree)(_map(function, item) for item in tree)
    return function(tree)
