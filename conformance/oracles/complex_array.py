"""An array that carries x + ih and passes for real: the complex step through ordinary NumPy code.

It speaks NEP 13 and 18, reports a real dtype, and gives each function its holomorphic meaning:
`conj` is the identity; `abs`, `sign`, comparisons, `maximum`, `where` and sorting go by the real
part; a value is that of the real function, and only the imaginary part comes from the complex one.
What has no such reading raises `Unsupported`. Where a comparison is decided by equal real parts, or
a function meets its own corner, the `Trace` counts a tie: there the derivative is one of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.errors import Unsupported
from conformance.oracles import complex_functions as table


@dataclass
class Trace:
    """What happened on the way: how often a switch was met exactly where it switches."""

    ties: int = 0


class ComplexArray(np.lib.mixins.NDArrayOperatorsMixin):
    """x + ih as one array; `dtype` is the real dtype that it passes for."""

    __array_priority__ = 1000

    def __init__(self, z: Any, trace: Trace, dtype: Any = np.float64) -> None:
        self.z = np.asarray(z)
        self.trace = trace
        self.dtype = np.dtype(dtype)

    # --- what it shows ---------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.z.shape

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.z.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.z.size

    @property
    def itemsize(self) -> int:
        """Bytes an element, of the dtype that it passes for."""
        return int(self.dtype.itemsize)

    @property
    def strides(self) -> tuple[int, ...]:
        """The strides in bytes, of the dtype that it passes for."""
        return tuple(s * self.itemsize // self.z.itemsize for s in self.z.strides)

    @property
    def flags(self) -> Any:
        """The flags of the memory."""
        return self.z.flags

    @property
    def base(self) -> Any:
        """The array whose memory this is, where it is a view."""
        return self.z.base

    @property
    def real(self) -> ComplexArray:
        """Itself: the numbers that it stands for are real."""
        return self

    @property
    def T(self) -> Any:
        """The transpose."""
        return self._like(self.z.T)

    @property
    def mT(self) -> Any:
        """The transpose of the last two dimensions."""
        return self._like(self.z.mT)

    def __repr__(self) -> str:
        return f"ComplexArray({self.z!r})"

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise Unsupported("complex step: an array would lose its imaginary part here")

    def __len__(self) -> int:
        return len(self.z)

    def __iter__(self) -> Iterator[ComplexArray]:
        return (self[i] for i in range(len(self.z)))

    def __bool__(self) -> bool:
        return bool(self.z.real)

    def __float__(self) -> float:
        raise Unsupported("complex step: a number would lose its imaginary part here")

    def item(self) -> float:
        """Not possible: raises Unsupported."""
        return float(self)

    # --- methods that forwards and rules use -----------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        return self._like(self.z[table.plain(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        self.z[table.plain(index)] = value.z if isinstance(value, ComplexArray) else value

    def astype(self, dtype: Any, **kwargs: Any) -> Any:
        """Another floating dtype in name alone; integers and booleans of the real part."""
        dtype = np.dtype(dtype)
        if dtype.kind == "f":
            return ComplexArray(self.z.copy(), self.trace, dtype)
        if dtype.kind == "c":
            return bicomplex().BicomplexArray.of(self, self.trace, dtype)
        return self.z.real.astype(dtype)

    def copy(self, order: Any = "C") -> Any:
        """A copy."""
        return self._like(self.z.copy(order))

    def reshape(self, *shape: Any) -> Any:
        """The same elements in another shape."""
        return self._like(self.z.reshape(*shape))

    def transpose(self, *axes: Any) -> Any:
        """The axes permuted."""
        return self._like(self.z.transpose(*axes))

    def swapaxes(self, first: int, second: int) -> Any:
        """Two axes exchanged."""
        return self._like(self.z.swapaxes(first, second))

    def as_strided(self, shape: Any, strides: Any) -> Any:
        """The same memory in another shape; strides in bytes, of the dtype that it passes for."""
        steps = [s * self.z.itemsize // self.itemsize for s in strides]
        return self._like(np.lib.stride_tricks.as_strided(self.z, shape, steps))

    def ravel(self) -> Any:
        """The same elements in one dimension."""
        return self._like(self.z.ravel())

    def view(self, dtype: Any) -> Any:
        """Pairs along the last axis as complex numbers. As another dtype: raises Unsupported."""
        if np.dtype(dtype) != np.result_type(self.dtype, np.complex64):
            raise Unsupported(f"complex step: real numbers viewed as {dtype}")
        return bicomplex().BicomplexArray(self.z.view(bicomplex().NUMBER), self.trace, dtype)

    def conj(self) -> ComplexArray:
        """Itself."""
        return self

    def sum(self, axis: Any = None, keepdims: bool = False) -> Any:
        """The sum over axes."""
        return self._like(self.z.sum(axis=axis, keepdims=keepdims))

    # --- NumPy's protocols -----------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        dtype = _dtype(inputs)
        if dtype.kind == "c":
            return bicomplex().complex_ufunc(self.trace, ufunc, method, *inputs, **kwargs)
        out = kwargs.pop("out", None)
        kwargs.pop("dtype", None)
        if method == "at":
            return self._write_at(ufunc, inputs)
        zs = [x.z if isinstance(x, ComplexArray) else x for x in inputs]
        if method == "__call__":
            where = kwargs.pop("where", True)
            if where is not True and out is None:
                raise Unsupported(f"complex step: {ufunc.__name__} with where=")
            result = table.call(ufunc, zs, self.trace)
            if where is not True:
                result = np.where(where, result, out[0].z)
        elif method in ("reduce", "accumulate", "outer", "reduceat"):
            result = table.method(ufunc, method, zs, kwargs, self.trace)
        else:
            raise Unsupported(f"complex step: {ufunc.__name__}.{method}")
        if out is not None:
            return self._into(out, result)
        if isinstance(result, tuple):
            return tuple(self._like(r, dtype) for r in result)
        return self._like(result, dtype)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        dtype = _dtype(args)
        asked = kwargs.get("dtype")
        reading: Callable[..., Any] | None = table.FUNCTIONS.get(func)
        complex_ = dtype if asked is None else np.dtype(asked)
        if complex_.kind == "c" or (reading is None and func in bicomplex().TRANSFORMS):
            return bicomplex().complex_function(self.trace, func, args, kwargs)
        if reading is None:
            raise Unsupported(f"complex step: numpy.{func.__name__} has no reading")
        if asked is not None:
            kwargs = {k: v for k, v in kwargs.items() if k != "dtype"}
            dtype = np.dtype(asked)
        out = kwargs.pop("out", None)
        named = table.plain(kwargs) if kwargs else kwargs
        result = reading(self.trace, *table.plain(args), **named)
        if out is not None:
            return self._into((out,), result)
        if dtype.kind not in "fc" and isinstance(result, np.ndarray):
            return result.real.astype(dtype)
        return mapped(lambda r: self._like(r, dtype), result)

    def _like(self, z: Any, dtype: Any = None) -> Any:
        """A result: real, boolean and integer ones are plain arrays."""
        if not isinstance(z, np.ndarray):
            z = np.asarray(z)
        if z.dtype.kind != "c":
            return z
        made = object.__new__(ComplexArray)
        made.z, made.trace, made.dtype = z, self.trace, self.dtype if dtype is None else dtype
        return made

    def _into(self, out: tuple[Any, ...], result: Any) -> Any:
        if not isinstance(out[0], ComplexArray):
            raise Unsupported("complex step: a real array as out=")
        out[0].z[...] = result
        return out[0]

    def _write_at(self, ufunc: Any, inputs: tuple[Any, ...]) -> None:
        target, index, *rest = inputs
        if not isinstance(target, ComplexArray) or ufunc not in (np.add, np.subtract, np.multiply):
            raise Unsupported(f"complex step: {ufunc.__name__}.at")
        ufunc.at(target.z, table.plain(index), *(table.plain(r) for r in rest))


def bicomplex() -> Any:
    """What reads complex numbers, which is made of this."""
    from conformance.oracles import bicomplex_array

    return bicomplex_array


def _dtype(tree: Iterable[Any], dtype: Any = None) -> Any:
    """The dtype of a result made of these; complex where any of them is."""
    for v in tree:
        if isinstance(v, ComplexArray):
            found = v.dtype
        elif isinstance(v, np.ndarray):
            if not (v.dtype.kind == "c" or (v.ndim and v.dtype.kind == "f")):
                continue
            found = v.dtype
        elif isinstance(v, tuple | list):
            dtype = _dtype(v, dtype)
            continue
        elif isinstance(v, complex | np.complexfloating):
            found = np.dtype(np.complex64)
        else:
            continue
        if dtype is None:
            dtype = found
        elif dtype is not found:
            dtype = np.promote_types(dtype, found)
    return dtype


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    if isinstance(tree, list):
        return [mapped(function, item) for item in tree]
    if isinstance(tree, tuple):
        items = [mapped(function, item) for item in tree]
        return type(tree)(*items) if hasattr(tree, "_fields") else tuple(items)
    return function(tree) if isinstance(tree, np.ndarray | np.generic) else tree
