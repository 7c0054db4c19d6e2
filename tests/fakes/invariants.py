"""Engines that break one invariant each: refgrad with a fault that one gradient does not show.

None imports torch here. `BREAKS` names the invariant that each is to break.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

import refgrad
from conformance.engines.base import Run, Vjp
from conformance.engines.namespace import NamespaceEngine
from conformance.engines.refgrad import RefgradEngine
from conformance.program import Array, Call, Program, Values, contiguous


class _Namespace:
    """refgrad with some names replaced."""

    def __init__(self, **replaced: Any) -> None:
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(refgrad, name)


class _Faulty(RefgradEngine):
    """refgrad whose autograd.grad, autograd.backward and flip can be got at."""

    def __init__(self) -> None:
        autograd = SimpleNamespace(grad=self.taken, backward=self.ran_backward)
        NamespaceEngine.__init__(self, _Namespace(autograd=autograd, flip=self.flipped))
        self.device = "cpu"
        self.tensors: dict[str, Any] = {}

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        """autograd.grad."""
        return refgrad.autograd.grad(outputs, inputs, cotangents, **options)

    def ran_backward(self, outputs: Any, cotangents: Any) -> None:
        """autograd.backward."""
        refgrad.autograd.backward(outputs, cotangents)

    def flipped(self, tensor: Any, dims: Any) -> Any:
        """flip."""
        return refgrad.flip(tensor, dims)

    @property
    def leaves(self) -> list[Any]:
        """The leaves of the latest Program that was begun."""
        return [t for t in self.tensors.values() if t.requires_grad]

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        self.tensors = super().inputs(program, values, grad=grad)
        return self.tensors


def _doubled(gradients: Any) -> Any:
    return tuple(g if g is None else 2 * g for g in gradients)


class CreateGraph(_Faulty):
    """Another formula where a graph of the backward pass is wanted, and a wrong one."""

    name = "create-graph"

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        return tuple(g * 1.001 for g in found) if options.get("create_graph") else found


class RetainGraph(_Faulty):
    """What the first backward pass leaves in the graph, the second adds to."""

    name = "retain-graph"

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        again = any(outputs[0] is seen for seen in self.kept)
        if options.get("retain_graph"):
            self.kept.append(outputs[0])
        return _doubled(found) if again else found


class Subset(_Faulty):
    """Gradients that are not asked for go to the one that is."""

    name = "subset"

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        return _doubled(found) if len(inputs) < len(self.leaves) else found


class FlippedInputs(_Faulty):
    """A rule that reads a leaf with negative strides from the wrong end."""

    name = "flipped-inputs"

    def flipped(self, tensor: Any, dims: Any) -> Any:
        flipped = super().flipped(tensor, dims)
        if tensor.is_leaf and tensor.requires_grad:
            flipped.register_hook(lambda g: refgrad.flip(g, dims))
        return flipped


class FlippedCotangents(_Faulty):
    """A rule that reads a gradient with negative strides from the wrong end."""

    name = "flipped-cotangents"

    def flipped(self, tensor: Any, dims: Any) -> Any:
        flipped = super().flipped(tensor, dims)
        if not tensor.is_leaf and tensor.requires_grad:
            flipped.register_hook(lambda g: refgrad.flip(g, dims))
        return flipped


class _ByCotangent(_Faulty):
    """Wrong for cotangents in one kind of memory."""

    kind = ""

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        met = {_memory(tuple(c.shape), tuple(c.stride())) for c in cotangents}
        return _doubled(found) if self.kind in met else found


class TransposedCotangents(_ByCotangent):
    """Cotangents are read in the order of memory."""

    name, kind = "transposed-cotangents", "transposed"


class StridedCotangents(_ByCotangent):
    """Gaps in the memory of a cotangent are not skipped."""

    name, kind = "strided-cotangents", "strided"


class ExpandedCotangents(_ByCotangent):
    """An expanded cotangent counts as often as it is one number."""

    name, kind = "expanded-cotangents", "expanded"


class _ByBit(_Faulty):
    """Wrong for tensors that have a bit set, though no number of refgrad's is lazy."""

    bit = ""
    of_cotangents = True

    def __init__(self) -> None:
        super().__init__()
        self.lazy: list[Any] = []
        setters = {"_neg_view": refgrad.neg, "conj": refgrad.conj}
        self.namespace.__dict__.update({n: partial(self.seen, n, f) for n, f in setters.items()})

    def seen(self, bit: str, setter: Any, tensor: Any) -> Any:
        """The tensor with its bit set."""
        made = setter(tensor)
        if bit == self.bit:
            self.lazy.append(made)
        return made

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        given = cotangents if self.of_cotangents else inputs
        met = any(tensor is lazy for tensor in given for lazy in self.lazy)
        return _doubled(found) if met else found


class NegatedCotangents(_ByBit):
    """A kernel reads the memory of a cotangent, and not its negative bit."""

    name, bit = "negated-cotangents", "_neg_view"


class ConjugatedCotangents(_ByBit):
    """A kernel reads the memory of a cotangent, and not its conjugate bit."""

    name, bit = "conjugated-cotangents", "conj"


class NegatedInputs(_ByBit):
    """A kernel reads the memory of a leaf, and not its negative bit."""

    name, bit, of_cotangents = "negated-inputs", "_neg_view", False


class ConjugatedInputs(_ByBit):
    """A kernel reads the memory of a leaf, and not its conjugate bit."""

    name, bit, of_cotangents = "conjugated-inputs", "conj", False


class Unmodified(_Faulty):
    """The backward pass uses the cotangent's memory as scratch."""

    name = "unmodified"

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        copies = tuple(None if g is None else g.clone() for g in found)
        if not options.get("retain_graph") and cotangents[0].is_contiguous():
            cotangents[0].detach().fill_(0.5)
        return copies


class Form(_Faulty):
    """Gradients require grad."""

    name = "form"

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        return tuple(None if g is None else g.detach().requires_grad_() for g in found)


class Accumulated(_Faulty):
    """backward() forgets what an earlier backward() left in .grad."""

    name = "accumulated"
    own = True

    def __init__(self) -> None:
        super().__init__()
        self.made: list[Any] = []

    def ran_backward(self, outputs: Any, cotangents: Any) -> None:
        for leaf in self.leaves:
            if leaf.grad is not None and any(leaf.grad is g for g in self.made) is self.own:
                leaf.grad = None
        super().ran_backward(outputs, cotangents)
        self.made += [leaf.grad for leaf in self.leaves]


class PresetGrad(Accumulated):
    """backward() forgets a .grad that it did not make."""

    name = "preset-grad"
    own = False


class Readable(_Faulty):
    """Gradients have no memory, and crash who reads them unaware of that."""

    name = "readable"

    def memoryless(self, tensor: Any) -> bool:
        tensor.numpy = lambda force: os.abort()
        return True


class OwnMemory(_Faulty):
    """Two leaves with equal gradients get one tensor as .grad."""

    name = "own-memory"

    def ran_backward(self, outputs: Any, cotangents: Any) -> None:
        for leaf in self.leaves:
            leaf.grad = None if leaf.grad is None else leaf.grad.clone()
        super().ran_backward(outputs, cotangents)
        first, second = self.leaves
        if np.array_equal(first.grad.numpy(), second.grad.numpy()):
            second.grad = first.grad


class Batched(_Faulty):
    """Of a batch of cotangents the first counts for all."""

    name = "batched"

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        found = super().taken(outputs, inputs, cotangents, **options)
        if options.get("is_grads_batched"):
            return tuple(refgrad.stack([g[0], g[0]]) for g in found)
        return found


class Hooks(_Faulty):
    """Hooks and retain_grad of a result act on a copy that no gradient reaches."""

    name = "hooks"
    plain = False

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        self.plain = True
        found = super().vjp(program, values, cotangents, keep=keep)
        self.plain = False
        return found

    def execute(self, program: Program, tensors: Any, keeper: Any = None, **options: Any) -> Any:
        def aside(call: Call, result: Any) -> None:
            keeper(call, result if self.plain else result.clone())

        return super().execute(program, tensors, keeper and aside, **options)


class _WrongVjp(_Faulty):
    """Gradients that are changed where the arguments of vjp ask for it."""

    def changed(self, program: Program, cotangents: list[Array | None]) -> float | None:
        """The factor; None for none."""
        raise NotImplementedError

    def vjp(
        self,
        program: Program,
        values: Values,
        cotangents: Sequence[Array | None],
        *,
        keep: Collection[str] = (),
    ) -> Vjp:
        found = super().vjp(program, values, cotangents, keep=keep)
        factor = self.changed(program, list(cotangents))
        if factor is None:
            return found
        gradients = {n: None if g is None else g * factor for n, g in found.gradients.items()}
        return Vjp(found.outputs, gradients, found.kept, found.differentiable)


class Linear(_Faulty):
    """Gradients lose their sign on their way into a leaf."""

    name = "linear"

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        tensors = super().inputs(program, values, grad=grad)
        for leaf in self.leaves:
            leaf.register_hook(lambda g: abs(g))
        return tensors


class Scaled(_Faulty):
    """Gradients are clipped on their way into a leaf, but none of the usual size."""

    name = "scaled"

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        tensors = super().inputs(program, values, grad=grad)
        for leaf in self.leaves:
            leaf.register_hook(lambda g: g.clip(-1e3, 1e3))
        return tensors


class Undefined(_WrongVjp):
    """A zero cotangent beside others is not told from one."""

    name = "undefined"

    def changed(self, program: Program, cotangents: list[Array | None]) -> float | None:
        given = [c.any() for c in cotangents if c is not None]
        return 2.0 if any(given) and not all(given) else None


class Apart(_WrongVjp):
    """Several outputs without a cotangent throw the count off."""

    name = "apart"

    def changed(self, program: Program, cotangents: list[Array | None]) -> float | None:
        return 2.0 if sum(c is None for c in cotangents) > 1 else None


class Zero(_WrongVjp):
    """0 / 0 for cotangents of zeros."""

    name = "zero"

    def changed(self, program: Program, cotangents: list[Array | None]) -> float | None:
        return None if any(c is not None and c.any() for c in cotangents) else float("nan")


class Mask(_WrongVjp):
    """A leaf that does not require grad leaves its gradient to the others."""

    name = "mask"

    def changed(self, program: Program, cotangents: list[Array | None]) -> float | None:
        return None if all(i.requires_grad for i in program.inputs) else 2.0


class SameTensor(_Faulty):
    """A tensor that is passed twice to one call gets the gradient of the first place."""

    name = "same-tensor"

    def _call(self, call: Call, fill: Any, *, grad: bool) -> Any:
        met: list[Any] = []

        def once(leaf: Any) -> Any:
            value = fill(leaf)
            if any(value is seen for seen in met):
                return value.detach()
            met.append(value)
            return value

        return super()._call(call, once if grad else fill, grad=grad)


class _ByInput(_Faulty):
    """Wrong for leaves in one kind of memory."""

    kind = ""

    def inputs(self, program: Program, values: Values, *, grad: bool) -> dict[str, Any]:
        tensors = super().inputs(program, values, grad=grad)
        for i in program.leaves:
            if grad and _memory(i.shape, i.strides) == self.kind:
                tensors[i.name].register_hook(lambda g: 2 * g)
        return tensors


class TransposedInputs(_ByInput):
    """A rule reads what it saved in the order of memory."""

    name, kind = "transposed-inputs", "transposed"


class StridedInputs(_ByInput):
    """A rule does not skip gaps in memory."""

    name, kind = "strided-inputs", "strided"


class ExpandedInputs(_ByInput):
    """A rule takes an expanded leaf for several."""

    name, kind = "expanded-inputs", "expanded"


class Deterministic(_WrongVjp):
    """The last bits change from run to run."""

    name = "deterministic"
    runs = 0

    def changed(self, program: Program, cotangents: list[Array | None]) -> float | None:
        self.runs += 1
        return 1 + self.runs * 2.0**-52


class Recording(_Faulty):
    """Without a graph another kernel runs, with less precision."""

    name = "recording"

    def run(self, program: Program, values: Values, *, keep: Collection[str] = ()) -> Run:
        found = super().run(program, values, keep=keep)
        return Run(tuple(y * (1 + 1e-9) for y in found.outputs), found.kept)


class RaisesAgain(_Faulty):
    """A graph that is kept does not live through its first backward pass."""

    name = "raises-again"

    def taken(self, outputs: Any, inputs: Any, cotangents: Any, **options: Any) -> Any:
        if options.get("retain_graph"):
            raise RuntimeError("retain_graph is not implemented for this graph")
        return super().taken(outputs, inputs, cotangents, **options)


def _memory(shape: tuple[int, ...], strides: tuple[int, ...]) -> str:
    """What kind of memory these strides make: contiguous, transposed, strided or expanded."""
    real = [(n, s) for n, s in zip(shape, strides, strict=True) if n > 1]
    dense = [(n, s) for n, s in zip(shape, contiguous(shape), strict=True) if n > 1]
    if real == dense:
        return "contiguous"
    if any(s == 0 for _, s in real):
        return "expanded"
    whole = 1 + sum((n - 1) * s for n, s in real)
    return "transposed" if whole == int(np.prod(shape)) else "strided"


BREAKS: dict[str, type[_Faulty]] = {
    made.name.replace("-", "_"): made
    for made in (
        *(CreateGraph, RetainGraph, Subset, FlippedInputs, FlippedCotangents),
        *(TransposedCotangents, StridedCotangents, ExpandedCotangents, Unmodified, Form),
        *(Accumulated, PresetGrad, Readable, OwnMemory, Batched, Hooks, Linear, Scaled, Undefined),
        *(Apart, Zero, Mask, SameTensor, TransposedInputs, StridedInputs, ExpandedInputs),
        *(Deterministic, Recording, NegatedCotangents, ConjugatedCotangents, NegatedInputs),
        ConjugatedInputs,
    )
}
