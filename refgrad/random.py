"""Random tensors, and the seed that they depend on; also `torch.random`.

Every function takes `generator`; without it the default generator draws. What is drawn from a
tensor of parameters is differentiable in PyTorch's sense: its gradient is zero.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from refgrad import dtypes
from refgrad.draws import (
    integers,
    need_inexact,
    probability,
    scaled_normal,
    standard_normal,
    uniform,
)
from refgrad.dtypes import dtype
from refgrad.factory import (
    beside_input,
    check_tensor,
    empty_array_like,
    finish,
    integer,
    number,
    one_size,
    pick_dtype,
    pick_size,
)
from refgrad.generator import (
    Generator,
    default_generator,
    get_rng_state,
    initial_seed,
    manual_seed,
    numpy_generator,
    seed,
    set_rng_state,
)
from refgrad.libraries import beside, to_host
from refgrad.limits import iinfo
from refgrad.ops.op import op
from refgrad.tensor import Tensor

__all__ = [
    "Generator", "bernoulli", "default_generator", "get_rng_state", "initial_seed",
    "manual_seed", "multinomial", "normal", "poisson", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip


@contextlib.contextmanager
def fork_rng(devices: Any = (), enabled: bool = True) -> Iterator[None]:
    """After a `with` block the default generator goes on as if the block had drawn nothing."""
    before = get_rng_state() if enabled else None
    try:
        yield
    finally:
        if before is not None:
            set_rng_state(before)


def _in_order_of(input: Tensor, of: dtype, drawn: Any, options: Any) -> Tensor:
    """The draws in the memory order of `input`."""
    array = empty_array_like(input._array, of, options.get("memory_format"))
    array[...] = beside(drawn, array)
    return finish(array, beside_input(input, options))


# --- of a size -----------------------------------------------------------------------------------


def rand(*sizes: Any, generator: Generator | None = None, **options: Any) -> Tensor:
    """Uniform on [0, 1), of a size: loose integers or one tuple (or `size=`)."""
    shape = pick_size("rand", sizes, options)
    of = pick_dtype("rand", options)
    return finish(np.asarray(uniform(numpy_generator(generator), shape, of)), options)


def randn(*sizes: Any, generator: Generator | None = None, **options: Any) -> Tensor:
    """Standard normal, of a size: loose integers or one tuple (or `size=`)."""
    shape = pick_size("randn", sizes, options)
    of = pick_dtype("randn", options)
    return finish(np.asarray(standard_normal(numpy_generator(generator), shape, of)), options)


def rand_like(input: Tensor, *, generator: Generator | None = None, **options: Any) -> Tensor:
    """Uniform on [0, 1), in the shape and dtype of `input`."""
    of = pick_dtype("rand_like", options, check_tensor("rand_like", input).dtype)
    drawn = uniform(numpy_generator(generator), input._array.shape, of)
    return _in_order_of(input, of, drawn, options)


def randn_like(input: Tensor, *, generator: Generator | None = None, **options: Any) -> Tensor:
    """Standard normal, in the shape and dtype of `input`."""
    of = pick_dtype("randn_like", options, check_tensor("randn_like", input).dtype)
    drawn = standard_normal(numpy_generator(generator), input._array.shape, of)
    return _in_order_of(input, of, drawn, options)


def randint(*args: Any, generator: Generator | None = None, **options: Any) -> Tensor:
    """Integers in [low, high), as randint(high, size) or randint(low, high, size).

    Raises:
        RuntimeError: the range is empty, or wider than the dtype.
    """
    low, high, (size,) = _bounds("randint", args, options, ("size",))
    shape = one_size("randint", size)
    of = pick_dtype("randint", options, dtypes.int64)
    return finish(integers(numpy_generator(generator), low, high, shape, of), options)


def randint_like(
    input: Tensor, *args: Any, generator: Generator | None = None, **options: Any
) -> Tensor:
    """Integers in [low, high) in the shape and dtype of `input`; [0, high) with one bound."""
    low, high, _ = _bounds("randint_like", args, options, ())
    of = pick_dtype("randint_like", options, check_tensor("randint_like", input).dtype)
    drawn = integers(numpy_generator(generator), low, high, input._array.shape, of)
    return _in_order_of(input, of, drawn, options)


def _bounds(
    name: str, args: tuple[Any, ...], options: Any, others: tuple[str, ...]
) -> tuple[int, int, list[Any]]:
    """`low` (0 unless given), `high`, and the other arguments."""
    by_name = sum(key in options for key in ("high", *others))
    names = ("low", "high", *others) if len(args) + by_name > 1 + len(others) else ("high", *others)
    if len(args) > len(names):
        raise TypeError(
            f"{name}() takes {len(names)} positional arguments but {len(args)} were given"
        )
    given = {"low": 0, **dict(zip(names, args, strict=False))}
    for key in ("low", "high", *others):
        if key in options:
            given[key] = options.pop(key)
    for key in ("high", *others):
        if key not in given:
            raise TypeError(f"{name}() missing 1 required argument: '{key}'")
    low, high = (integer(name, key, given[key]) for key in ("low", "high"))
    if max(abs(low), high) >= 2**63 and low != -(2**63):
        raise ValueError("Overflow when unpacking long long")
    return low, high, [given[key] for key in others]


def randperm(n: Any, *, generator: Generator | None = None, **options: Any) -> Tensor:
    """The integers below `n` in random order."""
    (count,) = one_size("randperm", (integer("randperm", "n", n),))
    of = pick_dtype("randperm", options, dtypes.int64)
    most = 2.0**53 if of.is_floating_point or of.is_complex else iinfo(of).max
    if count - 1 > most:
        raise RuntimeError(f"n cannot be larger than {of!r} can hold")
    return finish(numpy_generator(generator).permutation(count).astype(of.numpy), options)


# --- of parameters -------------------------------------------------------------------------------


@op(node_name="BernoulliBackward0", method=False)
def _bernoulli(input, drawn):  # type: ignore[no-untyped-def]
    """0 or 1, whatever the probability: the draw does not follow small changes of it."""
    return drawn


@op(node_name="PoissonBackward0", method=False)
def _poisson(input, drawn):  # type: ignore[no-untyped-def]
    return drawn


@op(node_name="NormalBackward3", method=False)
def _normal(mean, std, drawn):  # type: ignore[no-untyped-def]
    return drawn


_bernoulli.vjp(input=lambda g: np.zeros_like(g))
_poisson.vjp(input=lambda g: np.zeros_like(g))
_normal.vjp(mean=lambda g: np.zeros_like(g), std=lambda g: np.zeros_like(g))


def bernoulli(input: Tensor, p: Any = None, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that `input` (or the number `p`) gives, else 0; in input's dtype.

    Raises:
        RuntimeError: a probability is outside [0, 1].
    """
    array = check_tensor("bernoulli", input)._array
    if p is None:
        need_inexact("bernoulli", input.dtype)
    chance = to_host(array) if p is None else probability("bernoulli_", number("bernoulli", "p", p))
    if not np.all((chance >= 0) & (chance <= 1)):
        raise RuntimeError("Expected p_in >= 0 && p_in <= 1 to be true, but got false.")
    drawn = numpy_generator(generator).random(array.shape) < chance
    made: Tensor = _bernoulli(input, beside(np.asarray(drawn).astype(array.dtype), array))
    return made


def normal(
    mean: Any,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    **options: Any,
) -> Tensor:
    """Normal of the means and the standard deviations given: tensors, or numbers and a size.

    Raises:
        RuntimeError: a deviation is negative; the shapes do not broadcast.
    """
    rng = numpy_generator(generator)
    mean_tensor, std_tensor = isinstance(mean, Tensor), isinstance(std, Tensor)
    if not (mean_tensor or std_tensor):
        if size is None:
            raise TypeError("normal() of two numbers needs a size")
        shape, of = one_size("normal", size), pick_dtype("normal", options)
        drawn = scaled_normal(
            rng, shape, of, number("normal", "mean", mean), number("normal", "std", std)
        )
        return finish(drawn, options)
    if size is not None or options:
        raise TypeError("normal() takes a size and options only with two numbers")
    of = mean.dtype if mean_tensor else std.dtype
    means, deviations = (to_host(x._array) if isinstance(x, Tensor) else x for x in (mean, std))
    try:
        shape = np.broadcast_shapes(np.shape(means), np.shape(deviations))
    except ValueError as error:
        raise RuntimeError(
            f"normal(): the shapes of mean and std do not broadcast: {error}"
        ) from error
    drawn = scaled_normal(rng, shape, of, means, deviations)
    made: Tensor = _normal(mean, std, beside(drawn, mean if mean_tensor else std))
    return made


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson with the rates that `input` gives, in its dtype.

    Raises:
        RuntimeError: a rate is negative.
    """
    array = check_tensor("poisson", input)._array
    if array.dtype.kind != "f":
        raise NotImplementedError(f'"poisson" not implemented for {input.dtype!r}')
    if not np.all(array >= 0):
        raise RuntimeError("invalid Poisson rate, expected rate to be non-negative")
    drawn = np.asarray(numpy_generator(generator).poisson(to_host(array)))
    made: Tensor = _poisson(input, beside(drawn.astype(array.dtype), array))
    return made


def multinomial(
    input: Tensor,
    num_samples: int,
    replacement: bool = False,
    *,
    generator: Generator | None = None,
) -> Tensor:
    """Indices drawn with the weights in each row of `input`, (n,) or (m, n).

    Raises:
        RuntimeError: weights are negative, not finite or all zero; more indices are wanted than
            there are, without replacement.
    """
    weights = to_host(check_tensor("multinomial", input)._array)
    if weights.ndim not in (1, 2):
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    if weights.dtype.kind != "f":
        raise RuntimeError(
            f"multinomial only supports floating-point dtypes for input, got: {input.dtype!r}"
        )
    if num_samples <= 0:
        raise RuntimeError("cannot sample n_sample <= 0 samples")
    if not replacement and num_samples > weights.shape[-1]:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement"
        )
    if not np.all((weights >= 0) & (weights < np.inf)):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    weights = weights.astype(np.float64)
    totals = weights.sum(-1, keepdims=True)
    if not np.all(totals > 0):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    rng = numpy_generator(generator)
    if not replacement:  # the first arrivals of Poisson processes with these rates
        with np.errstate(divide="ignore"):
            arrivals = rng.standard_exponential(weights.shape) / weights
        drawn = np.argsort(arrivals, axis=-1, kind="stable")[..., :num_samples]
        return finish(drawn.astype(np.int64), {"device": input.device})
    bounds = np.cumsum(weights / totals, axis=-1)
    bounds /= bounds[..., -1:]
    chances = rng.random((*weights.shape[:-1], num_samples))
    rows = zip(np.atleast_2d(bounds), np.atleast_2d(chances), strict=True)
    drawn = np.array([np.searchsorted(row, chance, side="right") for row, chance in rows])
    return finish(drawn.reshape(chances.shape).astype(np.int64), {"device": input.device})
