"""The backward pass of an engine in other ways than `Engine.vjp`: step by step, on one graph.

`Engine` is the whole port of an engine. What is here needs its tensors, and so a NamespaceEngine:
graphs that are kept, `.grad`, hooks, cotangents on memory of any layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from conformance.engines import routes
from conformance.engines.base import Engine
from conformance.engines.namespace import Failures, NamespaceEngine
from conformance.errors import Unsupported
from conformance.program import Array, Call, Program, Values

Pairs = list[tuple[Any, Any]]


def recorded(engine: Engine) -> bool:
    """Whether a Recording does what the engine's methods do; a subclass may have others."""
    return bool(vars(type(engine)).get("recorded"))


class Recording:
    """One forward pass with its graph.

    `inputs` has the engine's tensors by name, `results` those of the calls, `outputs` the flat
    outputs. Raises Unsupported for an engine that is no NamespaceEngine; every method raises
    Unsupported and EngineError as the engine does.
    """

    def __init__(
        self,
        engine: Engine,
        program: Program,
        values: Values,
        *,
        inputs: dict[str, Any] | None = None,
        flipped: Collection[str] = (),
        keep: bool = True,
    ) -> None:
        """Run the Program; on these `inputs`, if given, and with `flipped` leaves read backward.

        A flipped leaf holds its value in reverse order along every axis, and the Program is given
        the flip of it. Without `keep` there are no `results`.
        """
        if not isinstance(engine, NamespaceEngine):
            raise Unsupported(f"{engine.name} is no NamespaceEngine: its graph is out of reach")
        self.engine = engine
        self.program = program
        self.values = values
        self.results: dict[str, list[Any]] = {}
        with self.failures():
            if inputs is None:
                given = dict(values)
                for name in flipped:
                    given[name] = np.flip(values[name])
                inputs = engine.inputs(program, given, grad=True)
            self.inputs = inputs
            taken = dict(inputs)
            for name in flipped:
                taken[name] = self.flip(inputs[name])
            self.outputs = engine.execute(program, taken, self._keep if keep else None)

    @property
    def leaves(self) -> dict[str, Any]:
        """The tensors of the leaves."""
        return {i.name: self.inputs[i.name] for i in self.program.leaves}

    @property
    def differentiable(self) -> tuple[bool, ...]:
        """Of each flat output, whether it has a derivative."""
        return tuple([bool(o.requires_grad) for o in self.outputs])

    def again(self) -> Recording:
        """A second forward pass on the same leaves; other inputs may have been written into."""
        inputs = self.inputs
        apart = all(i.storage is None for i in self.program.inputs)
        if apart and any(call.in_place for call in self.program.calls):
            with self.failures():
                inputs = self.engine.inputs(self.program, self.values, grad=True) | self.leaves
        return Recording(self.engine, self.program, self.values, inputs=inputs)

    def flip(self, tensor: Any) -> Any:
        """The tensor reversed along every axis."""
        with self.failures():
            return self.engine.namespace.flip(tensor, tuple(range(tensor.ndim)))

    def weighed(self, cotangents: Sequence[Array | None], *, laid: bool = False) -> Pairs:
        """Each differentiable output beside its cotangent: a copy, or where `laid` that memory."""
        with self.failures():
            return [
                (output, self._cotangent(cotangent if laid else cotangent.copy(), output))
                for output, cotangent in zip(self.outputs, cotangents, strict=True)
                if cotangent is not None and output.requires_grad
            ]

    def grad(
        self, pairs: Pairs, wanted: Collection[str] | None = None, **options: Any
    ) -> dict[str, Any]:
        """autograd.grad of the wanted leaves (all where None): tensors, None where none arises.

        `options` are its own: create_graph, retain_graph, is_grads_batched.
        """
        leaves = self.leaves
        names = [n for n in leaves if wanted is None or n in wanted]
        if not pairs or not names:
            return dict.fromkeys(names)
        batched = options.get("is_grads_batched")  # torch tells that a batching rule is missing
        quiet = warnings.catch_warnings(action="ignore") if batched else nullcontext()
        with self.failures(), quiet:
            heads, seeds = map(list, zip(*pairs, strict=True))
            found = self.engine.pulled_back(heads, [leaves[n] for n in names], seeds, **options)
        return dict(zip(names, found, strict=True))

    def in_cotangents(
        self, cotangents: Sequence[Array | None], tangents: Mapping[str, Array]
    ) -> list[Array | None]:
        """The derivative of Re <gradients, tangents> with respect to each output's cotangent."""
        return self._in_cotangents(cotangents, tangents, {})[1]

    def at_once(
        self, cotangents: Sequence[Array | None], tangents: Mapping[str, Array]
    ) -> tuple[dict[str, Array | None], list[Array | None]]:
        """The same beside the Hessian's product with the tangents, by one pass for both."""
        return self._in_cotangents(cotangents, tangents, self.leaves)

    def _in_cotangents(
        self,
        cotangents: Sequence[Array | None],
        tangents: Mapping[str, Array],
        leaves: dict[str, Any],
    ) -> tuple[dict[str, Array | None], list[Array | None]]:
        pairs = self.weighed(cotangents)
        with self.failures():
            seeds = [cotangent.requires_grad_() for _, cotangent in pairs]
        gradients = self.grad(pairs, create_graph=True)
        with self.failures():
            wanted = [*leaves.values(), *seeds]
            made = iter(routes.contracted(self.engine, gradients, tangents, wanted))
            product = self.arrays({name: next(made) for name in leaves})
            weighed = zip(self.outputs, cotangents, strict=True)
            found = [next(made) if o.requires_grad and c is not None else None for o, c in weighed]
            return product, [None if s is None else self.engine.to_numpy(s) for s in found]

    def second(self, gradients: Mapping[str, Any], tangents: Mapping[str, Array]) -> dict[str, Any]:
        """The Hessian's product with the tangents, by gradients made with `create_graph`."""
        leaves = self.leaves
        with self.failures():
            found = routes.contracted(self.engine, gradients, tangents, list(leaves.values()))
        return dict(zip(leaves, found, strict=True))

    def product(
        self, gradients: Mapping[str, Any], tangents: Mapping[str, Array]
    ) -> dict[str, Array | None]:
        """The same, copied to arrays."""
        return self.arrays(self.second(gradients, tangents))

    def backward(self, pairs: Pairs) -> None:
        """autograd.backward: gradients are added to the `.grad` of the leaves."""
        if not pairs:
            return
        with self.failures():
            self.engine.namespace.autograd.backward(
                [output for output, _ in pairs], [cotangent for _, cotangent in pairs]
            )

    def accumulated(self) -> dict[str, Array | None]:
        """A copy of what the leaves have as `.grad`."""
        with self.failures():
            return self.arrays({name: leaf.grad for name, leaf in self.leaves.items()})

    def preset(self, gradients: dict[str, Array]) -> None:
        """Give leaves a `.grad`."""
        dtypes = {i.name: i.dtype for i in self.program.leaves}
        with self.failures():
            for name, gradient in gradients.items():
                self.inputs[name].grad = self.engine.to_tensor(gradient, dtypes[name])

    def overwrite(self, name: str, number: float) -> None:
        """Fill the `.grad` of a leaf."""
        with self.failures(), self.engine.namespace.no_grad():
            self.inputs[name].grad.fill_(number)

    def arrays(self, tensors: dict[str, Any]) -> dict[str, Array | None]:
        """Copies of tensors as arrays."""
        with self.failures():
            return {n: None if t is None else self.engine.to_numpy(t) for n, t in tensors.items()}

    def _cotangent(self, array: Array, output: Any) -> Any:
        return self.engine.seed(array, output)

    def _keep(self, call: Call, result: Any) -> None:
        self.results[call.name] = self.engine.flat(result)

    def failures(self) -> Failures:
        return self.engine.failures()
