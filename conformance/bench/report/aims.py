"""The aims for refgrad, as ratios to torch eager on one CPU thread, and whether they are met.

An aim that names several cases is held to their geometric mean, and the worst of them is named.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from conformance.bench.journal import BASELINE
from conformance.bench.report.summary import Case, Summary, peak_ratio, per_node
from conformance.bench.statistics import Interval, geometric_mean
from conformance.bench.timing import BACKWARD, STEP


@dataclasses.dataclass(frozen=True)
class Aim:
    """At most `at_most` for the ratio of a phase over the cases of some workloads.

    `sizes` empty means every size; `workloads` empty every workload.
    """

    title: str
    at_most: float
    phase: str
    workloads: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()

    def of(self, case: Case) -> bool:
        """Whether the aim is about this case."""
        return (not self.workloads or case.workload in self.workloads) and (
            not self.sizes or case.size in self.sizes
        )


@dataclasses.dataclass(frozen=True)
class Standing:
    """What was found: the value (None where nothing was timed), its interval if it is of one case,
    the number of cases and the worst of them."""

    title: str
    at_most: float
    value: float | None
    interval: Interval | None = None
    n: int = 0
    worst: str = ""
    beside: str = ""

    @property
    def met(self) -> bool | None:
        """Whether it is met; None where nothing was timed."""
        return None if self.value is None else self.value <= self.at_most

    @property
    def verdict(self) -> str:
        """hit, miss or not timed."""
        return "not timed" if self.met is None else "hit" if self.met else "miss"


AIMS = (
    Aim(
        "backward, chains and fans of small tensors",
        0.45,
        BACKWARD,
        ("chain", "fan_in", "fan_out"),
    ),
    Aim(
        "create_graph backward, small tensors",
        0.8,
        BACKWARD,
        ("chain_create_graph", "fan_out_create_graph"),
    ),
    Aim("seed program, forward + backward", 0.4, STEP, ("product",)),
    Aim(
        "elementwise chain on 1e6 floats, backward", 0.85, BACKWARD, ("elementwise",), (1_000_000,)
    ),
    Aim("matmul 512, backward", 1.0, BACKWARD, ("matmul",), (512,)),
    Aim("MLP, backward", 1.0, BACKWARD, ("mlp",)),
    Aim(
        "softmax, layer norm, batch norm, backward",
        1.2,
        BACKWARD,
        ("softmax", "layer_norm", "batch_norm"),
    ),
    Aim("conv2d 3x3, backward", 1.2, BACKWARD, ("conv2d_3x3",)),
    Aim("broadcasting sum, backward", 1.1, BACKWARD, ("broadcast",)),
    Aim("GPT-2 block, forward + backward", 1.2, STEP, ("gpt2",)),
)
PEERS = ("mygrad", "autograd", "tinygrad", "jax")
FLAT_FROM = 1_000  # nodes


def standings(summary: Summary) -> list[Standing]:
    """Where our engine stands on every aim."""
    found = [_of_aim(summary, aim) for aim in AIMS]
    found.append(_of_suite(summary))
    found += [_ahead_of(summary, peer) for peer in PEERS]
    found += [_flat(summary), _memory(summary)]
    return found


def _of_aim(summary: Summary, aim: Aim) -> Standing:
    ratios = {
        case.name: ratio
        for case in summary.cases
        if aim.of(case) and (ratio := case.ratio(summary.ours, aim.phase))
    }
    value = geometric_mean(r.median for r in ratios.values())
    only = next(iter(ratios.values())) if len(ratios) == 1 else None
    return Standing(aim.title, aim.at_most, value, only, len(ratios), _worst(ratios))


def _worst(ratios: dict[str, Interval]) -> str:
    if len(ratios) < 2:
        return next(iter(ratios), "")
    name = max(ratios, key=lambda n: ratios[n].median)
    return f"{name} {ratios[name].median:.2f}"


def _of_suite(summary: Summary) -> Standing:
    title = "geometric mean of the suite, backward"
    means = summary.means.get(summary.ours, {})
    if BACKWARD not in means:
        return Standing(title, 0.8, None)
    beside = f"forward + backward {means[STEP].value:.2f}" if STEP in means else ""
    mean = means[BACKWARD]
    return Standing(title, 0.8, mean.value, n=mean.n, beside=beside)


def _ahead_of(summary: Summary, peer: str) -> Standing:
    title = f"time over that of {peer}, forward + backward"
    mean = summary.against.get(peer, {}).get(STEP)
    if mean is None:
        return Standing(title, 1.0, None)
    return Standing(title, 1.0, mean.value, n=mean.n, beside=f"slower in {mean.slower}")


def _flat(summary: Summary) -> Standing:
    """The largest time a node over the smallest, on chains of 1,000 nodes and more."""
    title = f"time a node of chains from {FLAT_FROM:,} nodes on, largest over smallest"
    chains = [c for c in summary.cases if c.workload == "chain" and c.size >= FLAT_FROM]
    ours = _times(chains, lambda c: per_node(c.engines[summary.ours], BACKWARD), summary.ours)
    theirs = _times(chains, lambda c: per_node(c.baseline, BACKWARD), None)
    if len(ours) < 2:
        return Standing(title, 2.0, None)
    beside = f"{BASELINE} {max(theirs) / min(theirs):.2f}" if theirs else ""
    return Standing(title, 2.0, max(ours) / min(ours), n=len(ours), beside=beside)


def _times(
    cases: Sequence[Case], time: Callable[[Case], float | None], engine: str | None
) -> list[float]:
    taking_part = [c for c in cases if engine is None or engine in c.engines]
    return [value for case in taking_part if (value := time(case)) is not None]


def _memory(summary: Summary) -> Standing:
    title = "peak memory on large tensors"
    found = {c.name: r for c in summary.cases if (r := peak_ratio(c, summary.ours)) is not None}
    if not found:
        return Standing(title, 1.2, None)
    worst = max(found, key=lambda name: found[name])
    value = geometric_mean(found.values())
    return Standing(title, 1.2, value, n=len(found), worst=f"{worst} {found[worst]:.2f}")
