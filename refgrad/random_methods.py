"""Tensor's methods that fill it with random numbers, in place.

What stood there before no longer matters, so its gradient is zero.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.draws import integers, need_inexact, probability, scaled_normal, uniform
from refgrad.generator import Generator, numpy_generator
from refgrad.libraries import beside
from refgrad.limits import finfo, iinfo
from refgrad.ops.op import op
from refgrad.tensor import Tensor

_OVERWRITES = {}
for _name in ("Bernoulli", "Cauchy", "Exponential", "Geometric", "LogNormal", "Normal", "Random",
              "Uniform"):  # fmt: skip

    @op(node_name=f"{_name}Backward0", method=False)
    def _overwrite(input, drawn):  # type: ignore[no-untyped-def]
        """The draws, whatever stood there before."""
        return drawn

    _overwrite.vjp(input=lambda g: np.zeros_like(g))
    _OVERWRITES[_name] = _overwrite


def _fill(self: Tensor, name: str, drawn: Any) -> Tensor:
    self.check_writable()
    with np.errstate(all="ignore"):
        array = beside(np.asarray(drawn).astype(self._array.dtype), self)
    return self.become(_OVERWRITES[name](self.snapshot(), array))


def _need_continuous(name: str, input: Tensor) -> None:
    if not input.is_floating_point():
        raise RuntimeError(
            f"{name} distribution is a continuous probability distribution. dtype must be a "
            f"floating point but you specified {input.dtype!r}"
        )


def uniform_(
    self: Tensor,
    from_: float = 0.0,
    to: float = 1.0,
    *,
    generator: Generator | None = None,
    **kwargs: float,
) -> Tensor:
    """Uniform on [from, to).

    Raises:
        RuntimeError: `to` is below `from`.
    """
    low = kwargs.pop("from", from_)  # PyTorch's name for it, which Python reserves
    if kwargs:
        raise TypeError(f"uniform_() got an unexpected keyword argument '{next(iter(kwargs))}'")
    need_inexact("uniform", self.dtype)
    if low > to:
        raise RuntimeError(
            f"uniform_ expects to return a [from, to) range, but found from={low} > to={to}"
        )
    drawn = uniform(numpy_generator(generator), self._array.shape, self.dtype)
    return _fill(self, "Uniform", drawn * (to - low) + low)


def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Normal with this mean and standard deviation.

    Raises:
        RuntimeError: `std` is negative.
    """
    rng = numpy_generator(generator)
    return _fill(self, "Normal", scaled_normal(rng, self._array.shape, self.dtype, mean, std))


def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """e to a normal number with this mean and standard deviation.

    Raises:
        RuntimeError: `std` is not positive.
    """
    need_inexact("log_normal", self.dtype)
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std}")
    drawn = numpy_generator(generator).lognormal(mean, std, self._array.shape)
    return _fill(self, "LogNormal", drawn)


def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """1 with probability `p`, a number or a tensor that broadcasts, else 0.

    Raises:
        RuntimeError: a probability is outside [0, 1].
    """
    if isinstance(p, Tensor):
        chance = p._array
        if not np.all((chance >= 0) & (chance <= 1)):
            raise RuntimeError("bernoulli_ expects p to be in [0, 1]")
    else:
        chance = probability("bernoulli_", p)
    drawn = numpy_generator(generator).random(self._array.shape) < chance
    return _fill(self, "Bernoulli", drawn)


def random_(self: Tensor, *bounds: int, generator: Generator | None = None) -> Tensor:
    """Integers in [low, high), as random_(), random_(high) or random_(low, high).

    Without bounds, all that the dtype holds from 0 on; for a floating one, all that are exact.

    Raises:
        RuntimeError: the range is empty, or wider than the dtype.
    """
    of = self.dtype
    if not bounds:
        exact = of.is_floating_point
        most = (
            round(2 / finfo(of).eps)
            if exact
            else 1
            if of is dtypes.bool
            else (iinfo(of).max - (of.itemsize == 8))
        )
        bounds = (0, most + 1)
    low, high = bounds if len(bounds) == 2 else (0, *bounds)
    drawn = integers(numpy_generator(generator), low, high, self._array.shape, of)
    return _fill(self, "Random", drawn)


def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Exponential with rate `lambd`.

    Raises:
        RuntimeError: the rate is not positive.
    """
    _need_continuous("Exponential", self)
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd}")
    drawn = numpy_generator(generator).standard_exponential(self._array.shape) / lambd
    return _fill(self, "Exponential", drawn)


def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Cauchy with this median and scale.

    Raises:
        RuntimeError: the scale is not positive.
    """
    _need_continuous("Cauchy", self)
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma}")
    turns = numpy_generator(generator).random(self._array.shape) - 0.5
    return _fill(self, "Cauchy", median + sigma * np.tan(math.pi * turns))


def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """The number of trials until one of probability `p` succeeds.

    Raises:
        RuntimeError: `p` is not in (0, 1).
    """
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p}")
    return _fill(self, "Geometric", numpy_generator(generator).geometric(p, self._array.shape))


for _method in (uniform_, normal_, log_normal_, bernoulli_, random_, exponential_, cauchy_,
                geometric_):  # fmt: skip
    setattr(Tensor, _method.__name__, _method)
