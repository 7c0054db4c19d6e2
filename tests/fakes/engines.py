"""Engines that go wrong: `--engine direct:tests.fakes.engines:WrongSign`, and so on.

All but the last are refgrad with one fault put into the backward pass, where such a fault arises:
in one op's rule, in the walk, or at the boundary. None imports torch here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from conformance.engines.base import ALL, Vjp
from conformance.engines.refgrad import RefgradEngine
from conformance.mutants.spoilt import WrongAtTheEnd
from conformance.program import Array, Call, Program, Values

Rule = Callable[[Any], Any]


class _WrongRule(RefgradEngine):
    """The gradient that reaches an operand through some calls passes through `wrong` first."""

    targets: tuple[str, ...] = ()

    def wrong(self, gradient: Any, operand: Any, result: Any) -> Any:
        """The wrong gradient of an operand (tensors of refgrad)."""
        raise NotImplementedError

    def _call(self, call: Call, fill: Callable[[Any], Any], *, grad: bool) -> Any:
        if call.target not in self.targets or not grad:
            return super()._call(call, fill, grad=grad)
        made: list[Any] = []

        def tampered(leaf: Any) -> Any:
            value = fill(leaf)
            if not self.is_tensor(value) or not value.requires_grad:
                return value
            alias = value.clone()
            alias.register_hook(lambda g: self.wrong(g, value.detach(), made[0].detach()))
            return alias

        made.append(super()._call(call, tampered, grad=grad))
        return made[0]


class WrongSign(_WrongRule):
    """d sin = -cos."""

    name = "wrong-sign"
    targets = ("torch.sin",)

    def wrong(self, gradient: Any, operand: Any, result: Any) -> Any:
        return -gradient


class MissingFactor(_WrongRule):
    """d x^2 = x dx: the 2 is forgotten."""

    name = "missing-factor"
    targets = ("torch.pow", "torch.square")

    def wrong(self, gradient: Any, operand: Any, result: Any) -> Any:
        return gradient / 2


class Transposed(_WrongRule):
    """A matrix product whose gradient is transposed, which only a square operand lets pass."""

    name = "transposed"
    targets = ("torch.matmul", "torch.mm")

    def wrong(self, gradient: Any, operand: Any, result: Any) -> Any:
        square = operand.ndim == 2 and operand.shape[0] == operand.shape[1]
        return gradient.mT.clone() if square else gradient


class NotANumber(_WrongRule):
    """0 / 0 in the rule of tanh, at the first element."""

    name = "nan"
    targets = ("torch.tanh",)

    def wrong(self, gradient: Any, operand: Any, result: Any) -> Any:
        return _changed(self, gradient, lambda g: g * np.nan)


class SingleEntry(_WrongRule):
    """One entry of exp's gradient is off by 1e-9 of the gradient's scale."""

    name = "single-entry"
    targets = ("torch.exp",)

    def wrong(self, gradient: Any, operand: Any, result: Any) -> Any:
        scale = float(np.abs(gradient.numpy()).max(initial=0.0))
        return _changed(self, gradient, lambda g: g + 1e-9 * scale)


class Stale(_WrongRule):
    """exp's saved result is kept by shape alone: the first sample's serves all that follow."""

    name = "stale"
    targets = ("torch.exp",)

    def __init__(self) -> None:
        super().__init__()
        self.saved: dict[tuple[int, ...], Any] = {}

    def wrong(self, gradient: Any, operand: Any, result: Any) -> Any:
        saved = self.saved.setdefault(tuple(result.shape), result.clone())
        return gradient / result * saved


class Overwrites(RefgradEngine):
    """A tensor that is used twice gets the gradient of its first use alone."""

    name = "overwrites"

    def _call(self, call: Call, fill: Callable[[Any], Any], *, grad: bool) -> Any:
        def once(leaf: Any) -> Any:
            value = fill(leaf)
            if not grad or not self.is_tensor(value) or not value.requires_grad:
                return value
            if any(value is seen for seen in self.used):
                return value.detach()
            self.used.append(value)
            return value

        return super()._call(call, once, grad=grad)

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        self.used: list[Any] = []
        return super().inputs(program, values, grad=grad)


class Unreduced(WrongAtTheEnd):
    """The gradient of a broadcast addend keeps the shape of the sum."""

    name = "unreduced"
    keeps = ALL

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        for call, leaf in _broadcast_addends(program, values, found):
            gradients[leaf] = found.kept[call][0]


class FirstOfBroadcast(WrongAtTheEnd):
    """The gradient of a broadcast addend is that of its first copy, so the shape is right."""

    name = "first-of-broadcast"
    keeps = ALL

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        for call, leaf in _broadcast_addends(program, values, found):
            gradient = found.kept[call][0]
            assert gradient is not None
            while gradient.ndim > values[leaf].ndim:
                gradient = gradient[0]
            for axis, length in enumerate(values[leaf].shape):
                if length == 1:
                    gradient = gradient.take([0], axis)
            gradients[leaf] = gradient.copy()


class WrongShape(WrongAtTheEnd):
    """The gradient of a matrix comes flat."""

    name = "wrong-shape"

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        for name, gradient in gradients.items():
            if gradient is not None and gradient.ndim > 1:
                gradients[name] = gradient.reshape(-1)


class WrongDtype(WrongAtTheEnd):
    """Gradients come in float32."""

    name = "wrong-dtype"

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        for name, gradient in gradients.items():
            if gradient is not None:
                gradients[name] = gradient.astype(np.float32)


class MutatesInputs(WrongAtTheEnd):
    """The backward pass uses the first leaf's memory as scratch."""

    name = "mutates-inputs"

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        for leaf in program.leaves[:1]:
            values[leaf.name][...] = 0.5


class Nondeterministic(WrongAtTheEnd):
    """Each backward pass adds other noise, as sums in a race do, but far too much."""

    name = "nondeterministic"

    def __init__(self) -> None:
        super().__init__()
        self.seeds = itertools.count()

    def finish(
        self, program: Program, values: Values, found: Vjp, gradients: dict[str, Array | None]
    ) -> None:
        rng = np.random.default_rng(next(self.seeds))
        for name, gradient in gradients.items():
            if gradient is not None:
                gradients[name] = gradient * (1 + 1e-7 * rng.standard_normal(gradient.shape))


class Raises(RefgradEngine):
    """The backward pass raises."""

    name = "raises"

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        raise ZeroDivisionError("a bug in the backward pass")


class Pretender:
    """Claims to stand alone, and answers right by calling torch itself."""

    name = "pretender"
    standalone = True

    def __getattr__(self, name: str) -> Any:
        from conformance.engines.torch import TorchEngine

        return getattr(TorchEngine(), name)

    def describe(self) -> Any:
        """What torch can do."""
        return self.__getattr__("describe")()

    def missing(self, program: Program) -> tuple[str, ...]:
        """What torch lacks: nothing."""
        return ()

    def run(self, program: Program, values: Values, *, keep: Collection[str] = ()) -> Any:
        """torch's answer."""
        return self.__getattr__("run")(program, values, keep=keep)

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Any:
        """torch's answer."""
        return self.__getattr__("vjp")(program, values, cotangents, keep=keep)

    def hvp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        tangents: Mapping[str, Array],
    ) -> Any:
        """torch's answer."""
        return self.__getattr__("hvp")(program, values, cotangents, tangents)

    def jvp(self, program: Program, values: Values, tangents: Mapping[str, Array]) -> Any:
        """torch's answer."""
        return self.__getattr__("jvp")(program, values, tangents)


def _changed(engine: RefgradEngine, gradient: Any, change: Callable[[Any], Any]) -> Any:
    """The gradient with its first entry changed."""
    array = np.array(gradient.detach().numpy(), copy=True)
    if array.size:
        array.flat[0] = change(array.flat[0])
    return engine.namespace.from_numpy(array)


def _broadcast_addends(program: Program, values: Values, found: Vjp) -> list[tuple[str, str]]:
    """Calls of torch.add with a leaf that is smaller than the sum."""
    leaves = {leaf.name for leaf in program.leaves}
    pairs = []
    for call in program.calls:
        gradient = found.kept.get(call.name, (None,))[0]
        if call.target == "torch.add" and gradient is not None:
            pairs += [
                (call.name, ref.name)
                for ref in call.refs
                if ref.name in leaves and values[ref.name].shape != gradient.shape
            ]
    return pairs
