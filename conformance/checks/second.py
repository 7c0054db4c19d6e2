"""What the second-order checks of a case share: directions, the reference's product, the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from conformance import arbitration
from conformance.checks import passes
from conformance.checks.beside import may_read_a_triangle
from conformance.checks.compare import compare, same
from conformance.engines.base import Engine
from conformance.engines.variants import Recording, recorded
from conformance.errors import EngineError, Unsupported
from conformance.oracles.directional import EXACT, Opinion, of_gradient
from conformance.oracles.pairs import contracted, direction, flat, inner
from conformance.oracles.stencil import Candidate
from conformance.oracles.torch_autograd import scale, spread
from conformance.program import Array, Values

if TYPE_CHECKING:
    from conformance.checks.base import Case

Product = Mapping[str, Array | None]


class SecondOrder:
    """One case at second order: F = Re <cotangents, outputs>, its Hessian H along `tangents`."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.cotangents = case.steady_cotangents
        self._within = may_read_a_triangle(case)  # else the direction is that of first order
        self.wide = case.direction("direction", 0, within=self._within)
        self.tangents = self._narrow(self.wide)

    @property
    def expected(self) -> Product:
        """The reference's H t by reverse over reverse, the complex step's where it has none.

        Raises ReferenceFailed where neither is there.
        """
        return self._expected[0]

    @property
    def whose(self) -> str:
        """Whose that product is."""
        return self._expected[1]

    @cached_property
    def _expected(self) -> tuple[Product, str]:
        from conformance.checks.base import ReferenceFailed

        case, name = self.case, self.case.reference.name
        try:
            product = self._of_graph() or self._of_reference(case.values)
            return product, f"{name}'s reverse over reverse"
        except (EngineError, Unsupported) as error:
            if self.exact is None:
                raise ReferenceFailed(f"the reference has no second order here: {error}") from error
            exact = {n: h.astype(case.values[n].dtype) for n, h in self.exact.items()}
            return exact, f"far as can be told ({name} has no second order here)"

    @property
    def compared(self) -> int:
        """How many entries are compared."""
        return sum(g.size for g in self.expected.values() if g is not None)

    @property
    def exact(self) -> Mapping[str, Array] | None:
        """H t by the complex step through refgrad's backward pass; None where that is no truth."""
        return None if self._piece is None or self._piece[1] else self._piece[0]

    @property
    def piece(self) -> Mapping[str, Array] | None:
        """The same where switches are met exactly too: of the piece that refgrad chose there."""
        return None if self._piece is None else self._piece[0]

    @cached_property
    def _piece(self) -> tuple[Mapping[str, Array], int] | None:
        try:
            found, first, ties = self.case.step(self.wide).second(self.cotangents)
        except (Unsupported, EngineError):
            return None
        whole = all(np.isfinite(h).all() for h in found.values())
        return (found, ties) if whole and self._first_order_holds(first) else None

    def _first_order_holds(self, gradients: Mapping[str, Array]) -> bool:
        """Whether what the complex step went through is the reference's gradient."""
        case = self.case
        expected = case.reference_vjp.gradients
        for leaf in case.program.leaves:
            left, right = gradients.get(leaf.name), expected[leaf.name]
            if left is None:
                return False
            if right is not None and right.dtype.kind == "f":
                left = left.astype(right.dtype)
            relative = case.loosened(10, leaf.dtype)
            if compare(left, right, relative=relative) is None:
                continue
            lost = case.vanishing(leaf)
            if compare(left, right, relative=relative, absolute=lost) is not None:
                return False
        return True

    @property
    def pushed(self) -> Sequence[Array | None] | None:
        """J t by the complex step; None where that has no reading.

        And where it meets a switch and takes another piece than the engine's gradient.
        """
        try:
            found = self.case.step(self.wide).directional
        except (Unsupported, EngineError):
            return None
        if found.ties:
            ours, size = inner(self.case.engine_vjp.gradients, self.wide)
            piece, _ = contracted(self.case.cotangents, found.tangents)
            if not abs(ours - piece) <= self.case.rounded(self.case.coarsest) * size:
                return None
        return found.tangents

    @cached_property
    def together(self) -> tuple[Product, Sequence[Array | None]] | None:
        """H t by the engine's reverse over reverse, and what <gradient, t> is in each cotangent.

        Both of one forward pass; None where that fails, or the engine has an `hvp` of its own.
        Where the case shares passes by one backward pass too, in which the cotangents require grad,
        as gradgradcheck has it; else by two, for H t with cotangents that are constants.
        """
        case, cotangents, tangents = self.case, self.cotangents, self.tangents
        if not recorded(case.engine):
            return None
        try:
            graph, case.engine_graph = case.engine_graph, None
            graph = graph or Recording(case.engine, case.program, case.values, keep=False)
            if passes.shared(case):
                return graph.at_once(cotangents, tangents)
            slopes = graph.in_cotangents(cotangents, tangents)
            gradients = graph.grad(graph.weighed(cotangents), create_graph=True)
            return graph.product(gradients, tangents), slopes
        except (Unsupported, EngineError):
            return None

    @cached_property
    def floor(self) -> float:
        """The scale of the product and of the gradient: entries of H t often cancel to nothing."""
        first = self.case.reference_vjp.gradients.values()
        sizes = [scale(g) for g in (*self.expected.values(), *first) if g is not None]
        return max(sizes, default=0.0)

    def hidden(self, leaf: str) -> float:
        """What terms of order 1 leave of a product's entries for a leaf that nothing depends on.

        As for a constant that is added to all that softmax is given: its derivative is 0, and that
        of each term is not. 0 where the outputs change along the leaf's direction by as much as a
        bit.
        """
        case = self.case
        along = {n: t if n == leaf else np.zeros_like(t) for n, t in self.wide.items()}
        if not case.constant(along):
            return 0.0
        weights = sum(float(np.abs(c).sum()) for c in self.cotangents if c is not None)
        far = max(map(scale, self.wide.values()), default=0.0)
        return float(np.finfo(case.coarsest).eps) * weights * far

    @cached_property
    def moves(self) -> Mapping[str, Array]:
        """How far rounding at the inputs moves the reference's product."""
        return self._moves(self._of_reference, self.expected, "second order spread")

    def engine_moves(self, route: str) -> Mapping[str, Array]:
        """The same of the engine's own product by a route; nothing where two runs differ."""
        case = self.case

        def product(values: Values) -> Product:
            return case.engine.hvp(case.program, values, self.cotangents, self.tangents, route)

        found, again = product(case.values), product(case.values)
        if not all(same(h, again.get(leaf)) for leaf, h in found.items()):
            return {}
        return self._moves(product, found, f"engine's second order spread by {route}")

    def curvature_moves(self, curvature: float) -> float:
        """How far rounding at the inputs moves the engine's u^T H t by forward over forward."""
        case, onto = self.case, self.narrow_onto

        def along(values: Values) -> Product:
            try:
                moves = case.engine.curvature(case.program, values, self.tangents, onto)
            except (EngineError, Unsupported):
                return {}
            return {"along": np.asarray(contracted(self.cotangents, moves)[0])}

        if not same(along(case.values).get("along"), np.asarray(curvature)):
            return 0.0
        natural = sum(case.natural[n] * float(np.abs(u).sum()) for n, u in onto.items())
        base, rng = {"along": np.asarray(curvature)}, case.rng("engine's curvature spread")
        found = spread(along, case.program, case.values, base, rng, {"along": natural})
        return float(found["along"].max(initial=0.0))

    def _moves(
        self, product: Callable[[Values], Product], base: Product, label: str
    ) -> Mapping[str, Array]:
        case = self.case

        def products(values: Values) -> Product:
            try:
                return product(values)
            except (EngineError, Unsupported):
                return {}

        whole = {
            leaf.name: np.zeros_like(case.values[leaf.name])
            if (h := base.get(leaf.name)) is None
            else h
            for leaf in case.program.leaves
        }
        return spread(products, case.program, case.values, whole, case.rng(label), case.natural)

    @cached_property
    def onto(self) -> dict[str, Array]:
        """A second direction u, zero where the product is not finite."""
        case = self.case
        onto = direction(case.rng("onto"), case.program, case.values, within=self._within)
        for name, weights in onto.items():
            product = self.expected[name]
            if product is not None and product.shape == weights.shape:
                weights[~np.isfinite(product)] = 0
        return onto

    @cached_property
    def narrow_onto(self) -> dict[str, Array]:
        """The second direction in the leaves' own dtypes."""
        return self._narrow(self.onto)

    def opinions(self, onto: Mapping[str, Array]) -> list[Opinion]:
        """What is known of <onto, H t> without a second-order rule, the strongest first."""
        case, found = self.case, []
        stencil = self.stencil(onto)
        if self._piece is not None:
            product, ties = self._piece
            value, size = inner(product, dict(onto))
            bound = 10 * EXACT * max(size, self.floor * _length(onto))
            how = "complex step through refgrad's backward pass"
            if not ties or stencil.kink is not None:  # a slope of that kink
                found.append(Opinion(value, bound, how, ties=ties))
        found.append(stencil)
        return [o for o in found if o.reason != _FAILED] or [
            Opinion(float("nan"), float("inf"), "none", f"{case.reference.name} fails nearby")
        ]

    def stencil(
        self,
        onto: Mapping[str, Array],
        engine: Engine | None = None,
        candidate: Candidate | None = None,
    ) -> Opinion:
        """<onto, H t> by differences of an engine's gradient, by default of one that is right."""
        case = self.case
        engine = self._right if engine is None else engine
        if engine is None:
            text = "neither engine's gradient is known to be right, so its differences say nothing"
            return Opinion(float("nan"), float("inf"), "none", text)
        try:
            given = (*case.numerical, self.cotangents, self.wide, onto)
            return of_gradient(engine, *given, candidate=candidate)
        except (Unsupported, EngineError):
            return Opinion(float("nan"), float("inf"), "none", _FAILED)

    @cached_property
    def first_order(self) -> str:
        """The ruling on the gradients themselves, where they differ; empty where they agree.

        They are those of a pass that is not recorded: torch's of det at a singular matrix is 0 then
        alone, and its product takes such a pass too.
        """
        case = self.case
        for leaf in case.program.leaves:
            left = case.engine_vjp.gradients.get(leaf.name)
            right = case.unrecorded_vjp.gradients[leaf.name]
            difference = compare(left, right, relative=case.loosened(10, leaf.dtype))
            if difference is not None and difference.kind == "value":
                return arbitration.entry(case, leaf, difference).verdict
        return ""

    @property
    def _right(self) -> Engine | None:
        """The reference, or the engine where the reference's gradient is wrong."""
        named = self.first_order.partition(":")[0]
        if named == "reference wrong":
            return self.case.engine
        undecided = named in ("engine and reference wrong", "inconclusive")
        return None if undecided else self.case.reference

    def _of_graph(self) -> Product | None:
        """The reference's product on the graph of its first pass; None where there is none."""
        graph, self.case.reference_graph = self.case.reference_graph, None
        if graph is None or self.cotangents is not self.case.cotangents:
            return None
        recording, gradients = graph
        try:
            return recording.product(gradients, self.tangents)
        except (EngineError, Unsupported):
            return None

    def _of_reference(self, values: Values) -> Product:
        case = self.case
        return case.reference.hvp(case.program, values, self.cotangents, self.tangents)

    def _narrow(self, wide: Mapping[str, Array]) -> dict[str, Array]:
        return {n: t.astype(self.case.values[n].dtype) for n, t in wide.items()}


_FAILED = "the gradient cannot be computed nearby"


def _length(onto: Mapping[str, Array]) -> float:
    return float(sum(np.abs(flat(u)).sum() for u in onto.values()))
