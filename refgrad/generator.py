"""Generators of random numbers, and the default one."""

from __future__ import annotations

import operator
import secrets
from typing import Any

import numpy as np

from refgrad.device import cpu, device, usable
from refgrad.tensor import Tensor, wrap

_FIELDS = (("state", 16), ("inc", 16), ("has_uint32", 1), ("uinteger", 4), ("seed", 8))
_STATE_SIZE = sum(size for _, size in _FIELDS)
_FIRST_SEED = 67280421310721  # PyTorch's default_rng_seed_val


class Generator:
    """A source of random numbers with a state of its own: NumPy's PCG64, seeded.

    Equal seeds give equal numbers in every process, though not the numbers that PyTorch gives.

    Raises:
        RuntimeError: the device is not usable here.
    """

    def __init__(self, device: device | str = cpu) -> None:
        self.device = usable(device)
        self.manual_seed(_FIRST_SEED)

    def manual_seed(self, seed: int) -> Generator:
        """Starts anew from a seed in [-2**63, 2**64), and returns the generator."""
        if not isinstance(seed, (int, np.integer)):
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        seed = operator.index(seed)
        if not -(2**63) <= seed < 2**64:
            raise ValueError("Overflow when unpacking long long")
        self._seed = seed % 2**64
        self.numpy = np.random.Generator(np.random.PCG64(self._seed))
        return self

    def seed(self) -> int:
        """Starts anew from a seed that the system draws, and returns that."""
        self.manual_seed(secrets.randbits(64))
        return self._seed

    def initial_seed(self) -> int:
        """The seed that it last started from."""
        return self._seed

    def get_state(self) -> Tensor:
        """Its state as a tensor of bytes."""
        found = self.numpy.bit_generator.state
        values = {**found, **found["state"], "seed": self._seed}
        packed = b"".join(int(values[name]).to_bytes(size, "little") for name, size in _FIELDS)
        return wrap(np.frombuffer(packed, np.uint8).copy())

    def set_state(self, new_state: Tensor) -> Generator:
        """Takes up a state from `get_state`, and returns the generator.

        Raises:
            RuntimeError: the tensor is not such a state.
        """
        if new_state._array.dtype != np.uint8 or new_state._array.shape != (_STATE_SIZE,):
            raise RuntimeError(
                f"expected a state of {_STATE_SIZE} bytes as get_state gives it, "
                f"found {new_state.numel()} elements of {new_state.dtype!r}"
            )
        packed, start = new_state._array.tobytes(), 0
        values = {}
        for name, size in _FIELDS:
            values[name] = int.from_bytes(packed[start : start + size], "little")
            start += size
        self.manual_seed(values.pop("seed"))
        inner = {"state": values.pop("state"), "inc": values.pop("inc")}
        self.numpy.bit_generator.state = {"bit_generator": "PCG64", "state": inner, **values}
        return self

    def clone_state(self) -> Generator:
        """A generator that goes on as this one would."""
        return Generator(self.device).set_state(self.get_state())


default_generator = Generator()


def numpy_generator(generator: Generator | None) -> np.random.Generator:
    """NumPy's generator inside the one given, or inside the default one.

    Raises:
        TypeError: it is no Generator.
    """
    if generator is None:
        return default_generator.numpy
    if not isinstance(generator, Generator):
        raise TypeError(
            f"argument 'generator' must be torch.Generator, not {type(generator).__name__}"
        )
    return generator.numpy


def manual_seed(seed: Any) -> Generator:
    """Starts the default generator anew from a seed, and returns it."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Starts the default generator anew from a seed that the system draws, and returns that."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default generator last started from."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default generator as a tensor of bytes."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Sets the state of the default generator to one from `get_rng_state`."""
    default_generator.set_state(new_state)
