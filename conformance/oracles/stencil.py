"""Derivatives of black boxes by a scanned 7-point stencil, with measured noise and honest bounds.

The step runs down a geometric ladder. At each step the 7 values give a derivative of order 6 and,
by their 4th to 6th differences, the noise of the function itself (what a smooth function cannot
explain). Three consecutive steps that agree, within that noise, are an estimate; the best triple
wins, and ten times its disagreement and noise is the bound. Truncation and rounding are never
assumed, only seen. Where the two-sided estimate is poor, one-sided ones tell a kink, a jump or the
edge of the domain from a function that is merely hard. A candidate for the derivative may be
confirmed by a few steps of medium length, where these say enough; what they do not confirm has the
whole ladder against it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from conformance.oracles.estimate import Array, Estimate, Kink

Function = Callable[[float], Array]

FACTOR = 10.0  # bound over estimated error: 3 leaves some 5 % of the errors outside
POOR = 1e-7  # a bound above this part of the derivative's scale is looked at from both sides,
COARSELY = 1e4  # or above so many epsilons of a dtype with few digits,
POOREST = 1e-3  # but no more than this
NOISE = 1e-4  # wiggles below this part of the largest value may be noise, above it are the function
EPS = float(np.finfo(float).eps)
ROUNDING = 0.25  # epsilons of a value: so much of it may be rounding that no difference shows
SUDDEN = 1e4  # times as much noise at the step before: jumps, not the 4th power of a step
CLEAN = 5  # steps that must agree, from near, to outweigh noise that was seen from farther
COARSE = 0.03  # differences above this part of the values: the step is too long to see the function
NEAR = 20  # steps down the ladder, where a jump is looked for
FLAT = 5.0  # noise is seen where three steps differ by no more than this
BRIEF = range(4, 11)  # steps that may confirm a candidate: what is smooth is seen best there
QUIET = 1e-11  # noise below this part of the largest value is rounding: smaller steps cannot help


@dataclass(frozen=True)
class Ladder:
    """The steps to try: at most `steps`, from max(|at|, scale) * first down by `ratio`."""

    steps: int = 30
    ratio: float = 2.47  # neither it nor the first step is round: what oscillates must not
    first: float = 0.23  # look smooth at three steps in a row


@dataclass(frozen=True)
class Candidate:
    """What a derivative may be, to within `slack`; with a bound of `enough` it is settled.

    Both are absolute. Where a switch is known to be met, the two sides are looked at first.
    """

    value: float
    slack: float
    enough: float
    kinked: bool = False


@dataclass(frozen=True)
class _Formula:
    """First derivative at 0 from 7 equally spaced values; `center` is the position of offset 0."""

    offsets: tuple[int, ...]
    coefficients: Array

    @property
    def amplification(self) -> float:
        return float(np.abs(self.coefficients).sum())


def _formula(offsets: range, numerators: tuple[int, ...]) -> _Formula:
    return _Formula(tuple(offsets), np.array(numerators, float) / 60)


CENTRAL = _formula(range(-3, 4), (-1, 9, -45, 0, 45, -9, 1))
RIGHT = _formula(range(7), (-147, 360, -450, 400, -225, 72, -10))
LEFT = _formula(range(-6, 1), (10, -72, 225, -400, 450, -360, 147))
# without the value at 0 itself, for the pieces beside a jump
OPEN_RIGHT = _formula(range(1, 8), (-669, 2637, -4745, 4920, -3015, 1019, -147))
OPEN_LEFT = _formula(range(-7, 0), (147, -1019, 3015, -4920, 4745, -2637, 669))


def _differences() -> tuple[Array, Array]:
    """The 4th, 5th and 6th differences of 7 values, scaled to show the size of white noise.

    One row each, the three of the 4th first; and where each order begins.
    """
    orders = []
    for order, variance in ((4, 70), (5, 252), (6, 924)):
        rows = np.diff(np.eye(7), n=order, axis=0)
        orders.append(rows / np.sqrt(variance * len(rows)))
    begins = np.cumsum([0, *map(len, orders[:-1])])
    return np.concatenate(orders), begins


_DIFFERENCES, _ORDERS = _differences()


def derivative(
    f: Function,
    scale: float,
    *,
    at: float = 0.0,
    weights: Array | None = None,
    ladder: Ladder | None = None,
    eps: float = EPS,
    candidate: Candidate | None = None,
) -> Estimate:
    """The derivative of f: R -> R^m at `at`, with a bound on its error.

    f returns an array of any shape (m values). `scale` is the size of a change of the argument that
    matters; the first step is max(|at|, scale) / 4. `weights` (k, m) contracts the m derivatives to
    k numbers: differences are taken of the vector and contracted afterwards, so that the noise is
    that of each value and not of their sum. value and bound have shape (m,), or (k,). `eps` is that
    of the dtype to which f rounds its argument and its values: from nearer f would seem constant.
    With a `candidate` for the one derivative that is asked for, few steps are taken if they confirm
    it.
    """
    scan = _Scan(f, scale, at, weights, ladder or Ladder(), eps)
    if not scan.finite_at_center:
        return scan.undecided("the function is not finite at the point itself")
    if candidate is not None:
        confirmed = None if candidate.kinked else scan.confirm(candidate)
        confirmed = confirmed or _Sides.of(scan, scan.glance).kink
        if confirmed is None and candidate.kinked:
            confirmed = scan.confirm(candidate)
        if confirmed is not None:
            return replace(confirmed, size=scan.size)
    best = scan.run(CENTRAL)
    if not scan.good(best):
        best = _Sides.of(scan, partial(scan.run, briefly=True)).rather_than(best)
    return replace(best, size=scan.size)


def one_sided(
    f: Function,
    scale: float,
    side: int,
    *,
    at: float = 0.0,
    weights: Array | None = None,
    ladder: Ladder | None = None,
    eps: float = EPS,
) -> Estimate:
    """The slope of f at `at` from the right (side=+1) or the left (side=-1); see `derivative`."""
    scan = _Scan(f, scale, at, weights, ladder or Ladder(), eps)
    if not scan.finite_at_center:
        return scan.undecided("the function is not finite at the point itself")
    return scan.run(RIGHT if side > 0 else LEFT)


@dataclass(frozen=True)
class _Sides:
    """A function from its two sides: what tells a kink, a jump and a domain's edge apart.

    Where it jumps the slopes are those of the pieces, without the value at the point itself.
    """

    scan: _Scan
    right: Estimate
    left: Estimate
    jump: bool

    @staticmethod
    def of(scan: _Scan, look: Callable[[_Formula], Estimate]) -> _Sides:
        right, left = look(RIGHT), look(LEFT)
        if not (scan.good(right) and scan.good(left)):
            open_right, open_left = look(OPEN_RIGHT), look(OPEN_LEFT)
            known = scan.good(open_right) and scan.good(open_left)
            if known and scan.jumps(open_right, open_left):
                return _Sides(scan, open_right, open_left, jump=True)
        return _Sides(scan, right, left, jump=False)

    @property
    def smooth(self) -> bool:
        """Whether both slopes are known."""
        return self.scan.good(self.right) and self.scan.good(self.left)

    @property
    def kink(self) -> Estimate | None:
        """The middle of the two slopes, where they are known and differ, or f jumps."""
        right, left = self.right, self.left
        apart = np.abs(right.value - left.value) > right.bound + left.bound
        if not (self.smooth and (self.jump or bool(apart.any()))):
            return None
        low, high = np.minimum(right.value, left.value), np.maximum(right.value, left.value)
        kink = Kink(left.value, right.value, left.bound, right.bound, self.jump)
        bound = (high - low) / 2 + np.maximum(right.bound, left.bound)
        reason = "the function jumps here" if self.jump else "the slopes from the two sides differ"
        return Estimate((low + high) / 2, bound, self.scan.evaluations, reason, kink)

    def rather_than(self, central: Estimate) -> Estimate:
        """What the sides say, where that is more than the two-sided estimate does."""
        right, left, scan = self.right, self.left, self.scan
        evaluations = scan.evaluations
        if self.smooth:
            kink = self.kink
            if kink is not None:
                return kink
            better = right if right.bound.max(initial=0) < left.bound.max(initial=0) else left
            if better.bound.max(initial=0) < central.bound.max(initial=0):
                return replace(better, evaluations=evaluations)
        elif scan.edge is not None:
            inside = right if scan.edge > 0 else left
            side = "right" if scan.edge > 0 else "left"
            if np.isfinite(inside.bound).all():
                reason = f"one-sided, from the {side}: the function is not finite on the other side"
                return replace(inside, evaluations=evaluations, reason=reason)
        reason = central.reason or "the steps of the stencil do not agree"
        return replace(central, evaluations=evaluations, reason=reason)


class _Scan:
    """One function at one point: its values, evaluated once each, and scans of it by a formula."""

    def __init__(
        self,
        f: Function,
        scale: float,
        at: float,
        weights: Array | None,
        ladder: Ladder,
        eps: float,
    ) -> None:
        self.f, self.at, self.ladder, self.rounding = f, at, ladder, ROUNDING * eps
        self.poor = max(POOR, min(COARSELY * eps, POOREST))
        # where f rounds to less than double, steps are this many times the argument's own
        self.nearest = 0.0 if eps <= EPS else 32 * eps * (abs(at) or abs(scale))
        self.first = max(abs(at), abs(scale), np.finfo(float).tiny) * ladder.first
        self.evaluations = 0
        self._cache: dict[float, Array] = {}
        self._active: Array | None = None
        if weights is not None:
            weights = np.atleast_2d(np.asarray(weights, float))
            self._active = np.flatnonzero(np.any(weights != 0, axis=0))
            weights = weights[:, self._active]
        self.weights = weights
        self.center = self.evaluate(0.0)
        self.outputs = len(self.center) if weights is None else len(weights)
        self.center_size = self.project(np.abs(self.center), absolute=True)
        self.size = self.center_size
        self.noise = np.zeros(self.outputs)  # the largest that any scan saw
        self.finite_at_center = bool(np.isfinite(self.center).all())

    def evaluate(self, offset: float) -> Array:
        if offset not in self._cache:
            self.evaluations += 1
            value = np.asarray(self.f(self.at + offset), dtype=float).reshape(-1)
            self._cache[offset] = value if self._active is None else value[self._active]
        return self._cache[offset]

    def project(self, values: Array, *, absolute: bool = False) -> Array:
        """(..., m) to (..., k)."""
        if self.weights is None:
            return values
        weights = np.abs(self.weights) if absolute else self.weights
        return np.asarray(values @ weights.T)

    def undecided(self, reason: str) -> Estimate:
        nothing = np.full(self.outputs, np.nan)
        return Estimate(nothing, np.full(self.outputs, np.inf), self.evaluations, reason)

    @property
    def _finest(self) -> Array:
        """The least bound: x - sin x is 0 from near, and hides its rounding there."""
        return np.asarray(self.rounding * self.size / self.first)

    @property
    def edge(self) -> int | None:
        """+1 where f is finite to the right alone near the point, -1 to the left alone."""
        near = sorted(self._cache, key=abs)[1:13]
        right = all(np.isfinite(self._cache[t]).all() for t in near if t > 0)
        left = all(np.isfinite(self._cache[t]).all() for t in near if t < 0)
        if right == left:
            return None
        return 1 if right else -1

    def good(self, estimate: Estimate) -> bool:
        """Whether every bound is small beside the derivative or beside f over the first step."""
        typical = np.maximum(np.abs(estimate.value), self.size / (self.first / self.ladder.first))
        return bool((estimate.bound <= self.poor * typical).all())

    def jumps(self, right: Estimate, left: Estimate) -> bool:
        """Whether f's limits from the two sides differ from each other or from f itself."""
        *_, near = itertools.islice(self.steps(), NEAR)  # a slope shows less there than a jump
        h = min(near, *(abs(t) for t in self._cache if t))
        noise = 1e3 * h * (np.abs(right.value) + np.abs(left.value)) + 1e-9 * self.size
        beside = self.project(np.abs(self.evaluate(h) - self.center), absolute=True)
        before = self.project(np.abs(self.evaluate(-h) - self.center), absolute=True)
        with np.errstate(invalid="ignore"):
            return bool(((beside > noise) | (before > noise)).any())

    def steps(self) -> Iterator[float]:
        """The ladder; steps are multiples of 8 units in the last place of `at`: at + kh is exact.

        Where `at` is small beside the scale the ladder goes on until steps are small beside `at`.
        """
        ladder = self.ladder
        unit = 8 * float(np.spacing(abs(self.at))) if self.at else 0.0
        for i in range(10 * ladder.steps):
            h = self.first * ladder.ratio**-i
            if unit:
                h = round(h / unit) * unit
            if h <= unit or h < max(1e-300, self.nearest):
                return
            if i >= ladder.steps and not (self.at and h > 2e-3 * abs(self.at)):
                return
            yield h

    def confirm(self, candidate: Candidate) -> Estimate | None:
        """An estimate by two steps that confirms the candidate; None where a few do not.

        Where the steps agree with what is claimed, a third that agrees with them says no more. They
        shorten as long as the bound falls, and lengthen where it rises at once.
        """
        hs = list(itertools.islice(self.steps(), BRIEF.stop + 1))
        looks: dict[float, tuple[Array, ...]] = {}
        least = np.full(self.outputs, np.inf)
        pairs = [(n, hs[n : n + 2]) for n in BRIEF if n + 1 < len(hs)]
        with np.errstate(all="ignore"):
            while pairs:
                n, pair = pairs.pop(0)
                for h in pair:
                    if h not in looks:
                        looks[h] = self._step(CENTRAL, h)
                slopes, smooth, rough, sizes = zip(*(looks[h] for h in pair), strict=True)
                spread, noise = _agreement(pair, slopes, smooth, rough, sizes[0])
                self.size = np.where(self.center_size > 0, self.center_size, sizes[0])
                error = spread + CENTRAL.amplification / pair[-1] * noise
                bound = np.fmax(FACTOR * error, self._finest)
                off = np.abs(slopes[0] - candidate.value)
                still = (candidate.value == 0) & (spread == 0) & (noise <= self.rounding * sizes[0])
                enough = (bound <= candidate.enough) | still  # it is constant, to the last bit
                if (enough & (off <= bound + candidate.slack)).all():
                    return Estimate(slopes[0], bound, self.evaluations, size=self.size)
                rises = bool((bound >= least).any())
                if rises and n == BRIEF.start + 1:
                    pairs = [(k, hs[k : k + 2]) for k in reversed(range(BRIEF.start))]
                elif rises:
                    break
                least = np.fmin(least, bound)
        self.size = self.center_size
        return None

    def glance(self, formula: _Formula) -> Estimate:
        """An estimate by three steps of medium length, where they agree; for what is expected."""
        hs = list(itertools.islice(self.steps(), BRIEF.start, BRIEF.start + 3))
        if len(hs) < 3:
            return self.undecided("the dtype has too few digits for steps of medium length")
        with np.errstate(all="ignore"):
            seen = zip(*(self._step(formula, h) for h in hs), strict=True)
            slopes, smooth, rough, sizes = map(list, seen)
            self.size = np.where(self.center_size > 0, self.center_size, sizes[0])
            return self._judge(formula, np.array(hs), slopes, smooth, rough, sizes)

    def run(self, formula: _Formula, *, briefly: bool = False) -> Estimate:
        """Scans the ladder with one formula and takes, for each output, the best triple of steps.

        It judges twice: believing each step's own noise, and holding that noise once seen is there
        at every step (a function that rounds its values looks smooth, or constant, from too near).
        Where the two disagree the bound covers both. `briefly` ends with the first steps that agree
        without noise: as on one side of a kink, seen from near and from far.
        """
        hs: list[float] = []
        slopes: list[Array] = []
        smooth: list[Array] = []  # noise by the smallest difference
        rough: list[Array] = []  # noise by differences that no symmetry of f makes vanish
        sizes: list[Array] = []
        largest = np.zeros(self.outputs)
        least = np.full(self.outputs, np.inf)
        with np.errstate(all="ignore"):
            for h in self.steps():
                slope, low_noise, noise, size = self._step(formula, h)
                hs.append(h)
                slopes.append(slope)
                smooth.append(low_noise)
                rough.append(noise)
                sizes.append(size)
                largest = np.fmax(largest, size)
                if not self.size.all():  # zero at the point itself: as large as it gets beside it
                    self.size = np.where(self.center_size > 0, self.center_size, size)
                if len(hs) < 3:
                    continue
                low, high = np.minimum.reduce(rough[-3:]), np.maximum.reduce(rough[-3:])
                flat = high <= FLAT * low
                seen = flat & (low < NOISE * largest)
                self.noise = np.where(seen, np.fmax(self.noise, low), self.noise)
                spread = np.ptp(np.stack(slopes[-3:]), axis=0)
                least = np.fmin(least, spread + formula.amplification * high / hs[-2])
                quiet = flat & (high <= QUIET * size)
                if (quiet & (formula.amplification * low / h > 3 * least)).all():
                    break
                clean = briefly and len(hs) >= CLEAN
                if clean and self._clean(slopes[-CLEAN:], smooth[-CLEAN:]).all():
                    break
            return self._judge(formula, np.array(hs), slopes, smooth, rough, sizes)

    def _judge(
        self,
        formula: _Formula,
        hs: Array,
        slopes: list[Array],
        smooth: list[Array],
        rough: list[Array],
        sizes: list[Array],
    ) -> Estimate:
        near, far = _Best.nothing(self.outputs), _Best.nothing(self.outputs)
        for i in range(len(hs) - 2):
            three = slice(i, i + 3)
            seen = (slopes[three], smooth[three], rough[three], sizes[i + 1])
            spread, noise = _agreement(tuple(hs[three]), *seen)
            gain = formula.amplification / hs[i + 1]
            near.offer(slopes[i + 1], spread + gain * noise)
            far.offer(slopes[i + 1], spread + gain * np.maximum(noise, self.noise))
        contradicts = np.abs(far.value - near.value) > FACTOR * (far.error + near.error)
        clean = self._clean_from_near(slopes, smooth, rough) & ~contradicts
        value, error = (
            np.where(clean, near.value, far.value),
            np.where(clean, near.error, far.error),
        )
        reason = "" if np.isfinite(near.error).all() else "no three steps of the stencil are finite"
        bound = np.fmax(FACTOR * error, self._finest)
        between = np.maximum(np.abs(value - near.value), far.rival)
        apart = between > bound + FACTOR * near.error
        if apart.any():
            bound = np.where(apart, bound + between, bound)
            reason = "the function looks different from near and from far: fine wiggles, or noise"
        return Estimate(value, bound, self.evaluations, reason)

    def _clean(self, slopes: list[Array], smooth: list[Array]) -> Array:
        """Whether these steps agree on a slope that is not zero, without noise, (k,)."""
        quiet = np.maximum.reduce(smooth) <= QUIET * self.size
        agree = np.ptp(np.stack(slopes), axis=0) < 1e-6 * np.abs(slopes[0])
        return np.asarray(quiet & agree)

    def _clean_from_near(
        self, slopes: list[Array], smooth: list[Array], rough: list[Array]
    ) -> Array:
        """Whether some five steps in a row agree on a slope that is not zero, without noise, (k,).

        What wiggles at larger steps is then the function: it fades as the steps shorten. Where it
        ends from one step to the next, some value on the way is rounded coarsely (x (1 - tanh x)),
        and between two of its jumps all looks clean.
        """
        clean = np.zeros(self.outputs, bool)
        for i in range(len(slopes) - CLEAN + 1):
            clean |= self._clean(slopes[i : i + CLEAN], smooth[i : i + CLEAN])
        for before, after in itertools.pairwise(rough):
            clean &= ~((before > SUDDEN * after) & (FLAT * before >= self.noise))
        return clean

    def _step(self, formula: _Formula, h: float) -> tuple[Array, Array, Array, Array]:
        """Slope at step h, the values' noise read in two ways, and their size, each (k,)."""
        values = np.array([self.evaluate(k * h) for k in formula.offsets])  # a third of np.stack
        changes = values - values[3]
        slope = self.project(formula.coefficients @ changes) / h
        largest = np.abs(values).max(axis=0)
        rounding = self.rounding * largest
        smooth, rough = (np.maximum(noise, rounding) for noise in _noise(values))
        if self.weights is not None:
            squares = np.square(self.weights).T
            together = _noise(self.project(changes))
            unit = float(largest.max(initial=0.0)) or 1.0  # squares of large values overflow

            def joint(each: Array) -> Array:
                return np.asarray(np.sqrt(np.square(each / unit) @ squares) * unit)

            smooth, rough = (
                np.maximum(joint(each), noise)
                for each, noise in zip((smooth, rough), together, strict=True)
            )
            largest = joint(largest)
        return slope, smooth, rough, largest


def _agreement(
    hs: Sequence[float],
    slopes: Sequence[Array],
    smooth: Sequence[Array],
    rough: Sequence[Array],
    size: Array,
) -> tuple[Array, Array]:
    """How far the slopes at a few steps lie apart, and the noise of the values there, each (k,)."""
    noise = np.maximum.reduce(smooth)
    high, low = np.maximum.reduce(rough), np.minimum.reduce(rough)
    is_noise = high < low * (hs[0] / hs[-1]) ** 2.5  # a smooth f's falls as h^4 or h^5
    spread = np.maximum.reduce(slopes) - np.minimum.reduce(slopes)
    spread = np.where(high > COARSE * size, np.inf, spread)
    return spread, np.asarray(np.where(is_noise, high, noise))


def _noise(values: Array) -> tuple[Array, Array]:
    """The size of what is not smooth in 7 values (7, k), by the best of three or two differences.

    The k-th difference of white noise of deviation s has deviation s sqrt(binomial(2k, k)); what a
    difference also sees of a smooth function is least in the smallest of the three. The 6th alone
    sees nothing of an odd function.
    """
    fourth, fifth, sixth = np.hypot.reduceat(_DIFFERENCES @ values, _ORDERS, axis=0)
    rough = np.minimum(fourth, fifth)
    return np.minimum(rough, sixth), rough


def _confident(value: Array, error: Array) -> Array:
    """Whether an estimate claims three digits, each."""
    return np.asarray(FACTOR * error < 1e-3 * np.abs(value))


@dataclass
class _Best:
    """For each output, the value to believe among those offered, from the largest step down."""

    value: Array
    error: Array
    rival: Array  # how far away is a value that was as sure of itself

    @classmethod
    def nothing(cls, outputs: int) -> _Best:
        return cls(np.full(outputs, np.nan), np.full(outputs, np.inf), np.zeros(outputs))

    def offer(self, value: Array, error: Array) -> None:
        """Takes a smaller error, or a confident value from nearer that contradicts the present."""
        apart = np.abs(value - self.value)
        contradicts = apart > FACTOR * (error + self.error)
        better = (error < self.error) | (contradicts & _confident(value, error))  # false where nan
        self.rival = np.where(
            better & contradicts, np.fmax(self.rival, apart + FACTOR * self.error), self.rival
        )
        self.value = np.where(better, value, self.value)
        self.error = np.where(better, error, self.error)
