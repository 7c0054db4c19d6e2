"""Readings on a fake clock: what is in them, and what is not."""

from __future__ import annotations

import gc

import pytest

from conformance.bench.timing import (
    ACCUMULATE,
    BACKWARD,
    FORWARD,
    HOST,
    MOST_CALLS,
    STEP,
    TARGET,
    TICKS,
    HostClock,
    Timer,
    calls_for,
    collector_share,
    overhead,
    preemptions,
)
from tests.conformance.bench import fakes
from tests.conformance.bench.fakes import FakeClock, FakeEngine, World, unsupported


def timer(world: World, engine: FakeEngine, check: HostClock | None = None) -> Timer:
    prepared = engine.prepare(fakes.workload(), 100, "cpu")
    return Timer(prepared, FakeClock(world), check, lambda: world.preempted, world.now)


def test_each_phase_is_timed_alone() -> None:
    world = World()
    one = timer(world, FakeEngine(world))
    one.calibrate()
    assert one.read() == pytest.approx(
        {
            FORWARD: fakes.FORWARD,
            BACKWARD: fakes.BACKWARD,
            STEP: fakes.FORWARD + fakes.BACKWARD,
            ACCUMULATE: 1.5 * fakes.BACKWARD,
        }
    )


def test_calibration_makes_readings_of_the_target_and_says_what_a_round_costs() -> None:
    world = World()
    one = timer(world, FakeEngine(world, factor=0.01))
    cost = one.calibrate()
    found = one.read()
    assert one.calls[FORWARD] * (found[FORWARD] + found[BACKWARD]) >= TARGET
    assert one.calls[STEP] * found[STEP] >= TARGET
    before = world.time
    one.read()
    assert world.time - before == pytest.approx(cost, rel=0.2)


@pytest.mark.parametrize(
    ("factor", "calls", "first"), [(0.01, 34, "step"), (1.0, 1, "step"), (100.0, 1, "forward")]
)
def test_a_turn_begins_with_a_step_that_does_not_count_unless_steps_are_long(
    factor: float, calls: int, first: str
) -> None:
    world = World()
    engine = FakeEngine(world, factor=factor)
    one = timer(world, engine)
    one.calibrate()
    assert one.calls[STEP] == calls
    log = engine.prepared[0].log
    log.clear()
    one.read()
    assert log[0] == first
    assert log.count("step") == calls + (first == "step")


def test_the_number_of_calls_looks_at_the_clock_and_has_an_end() -> None:
    clock = HostClock(lambda: None, resolution=1e-9)
    coarse = HostClock(lambda: None, resolution=1e-3)
    assert calls_for([1.0], clock) == 1
    assert calls_for([TARGET / 100, TARGET / 10], clock) == 10
    assert calls_for([0.1, 0.5], coarse) == TICKS * 1e-3 / 0.1
    assert calls_for([0.0], clock) == MOST_CALLS


def test_gradients_are_none_before_a_call_but_for_accumulation() -> None:
    world = World()
    engine = FakeEngine(world)
    one = timer(world, engine)
    one.calibrate()
    seen = []
    prepared = engine.prepared[0]
    for name in ("backward", "step", "accumulate"):
        method = getattr(prepared, name)
        setattr(
            prepared,
            name,
            lambda *a, name=name, method=method: (seen.append((name, prepared.live)), method(*a)),
        )
    one.read()
    first = {name: [live for n, live in seen if n == name] for name, _ in seen}
    assert set(first["step"]) == {0}
    assert set(first["accumulate"]) == {1}
    assert set(first["backward"]) == {0}
    assert prepared.live == 0


def test_a_call_in_which_the_processor_was_taken_away_is_left_out() -> None:
    world = World()
    engine = FakeEngine(world)
    one = timer(world, engine)
    one.calls = dict.fromkeys((FORWARD, BACKWARD, STEP, ACCUMULATE), 4)
    prepared = engine.prepared[0]
    whole, taken = prepared.step, iter([False, True, False, True, False])

    def step() -> object:
        made = whole()
        if next(taken):
            world.take(1.0)
            world.preempted += 1
        return made

    prepared.step = step  # type: ignore[method-assign]
    assert one.read()[STEP] == pytest.approx(fakes.FORWARD + fakes.BACKWARD)
    assert one.counts.disturbed == 2
    assert one.counts.calls == 16


def test_with_one_thread_a_disturbed_call_counts_by_its_processor_time() -> None:
    world = World()
    engine = FakeEngine(world)
    prepared = engine.prepare(fakes.workload(), 100, "cpu")
    away = 0.0

    def worked() -> float:
        return world.time - away

    one = Timer(prepared, FakeClock(world), None, lambda: world.preempted, world.now, worked)
    one.calls = dict.fromkeys((FORWARD, BACKWARD, STEP, ACCUMULATE), 3)
    whole = prepared.step

    def step() -> object:
        nonlocal away
        made = whole()
        away += 1.0
        world.take(1.0)
        world.preempted += 1
        return made

    prepared.step = step  # type: ignore[method-assign]
    assert one.read()[STEP] == pytest.approx(fakes.FORWARD + fakes.BACKWARD)
    assert prepared.log.count("step") == 1 + 3  # the first finds the caches cold
    assert one.counts.disturbed == 3


def test_a_reading_that_is_disturbed_throughout_tries_some_more_and_then_is_kept() -> None:
    world = World()
    engine = FakeEngine(world)
    one = timer(world, engine)
    one.calls = dict.fromkeys((FORWARD, BACKWARD, STEP, ACCUMULATE), 1)
    prepared = engine.prepared[0]
    whole = prepared.step

    def step() -> object:
        world.preempted += 1
        return whole()

    prepared.step = step  # type: ignore[method-assign]
    assert one.read()[STEP] == pytest.approx(fakes.FORWARD + fakes.BACKWARD)
    assert prepared.log.count("step") == 1 + 5  # the first warms up
    assert one.counts.disturbed == 5


@pytest.mark.parametrize(
    ("fails", "left"),
    [
        ({"backward"}, {FORWARD, STEP}),  # which accumulation needs
        ({"accumulate"}, {FORWARD, BACKWARD, STEP}),
        ({"forward"}, {STEP}),
    ],
)
def test_a_phase_that_an_engine_lacks_is_named_and_not_asked_for_again(
    fails: set[str], left: set[str]
) -> None:
    world = World()
    engine = FakeEngine(world, fails=dict.fromkeys(fails, unsupported("one compiled call")))
    one = timer(world, engine)
    one.calibrate()
    assert set(one.read()) == left
    assert set(one.missing.values()) == {"one compiled call"}
    asked = engine.prepared[0].log.count(next(iter(fails)))
    one.read()
    assert fails == {"forward"} or engine.prepared[0].log.count(next(iter(fails))) == asked


def test_a_second_clock_times_the_step_once_more() -> None:
    world = World()
    check = HostClock(lambda: world.take(1e-4), now=world.now, resolution=1e-9)
    one = timer(world, FakeEngine(world), check)
    one.calibrate()
    found = one.read()
    assert found[HOST] == pytest.approx(found[STEP] + 1e-4)  # waiting is in the second mark


def test_a_host_clock_flushes_then_waits_before_a_call() -> None:
    said: list[str] = []
    clock = HostClock(lambda: said.append("wait"), flush=lambda: said.append("flush"))
    clock.before()
    assert said == ["flush", "wait"]


def test_the_overhead_of_a_clock_is_what_it_reads_of_nothing() -> None:
    world = World()

    class Slow(FakeClock):
        def mark(self) -> float:
            world.take(3e-7)
            return super().mark()

    assert overhead(Slow(world)) == pytest.approx(3e-7)


def test_the_collectors_share_is_between_on_and_off_and_leaves_it_as_it_was() -> None:
    world = World()

    def step() -> None:
        world.take(3.0 if gc.isenabled() else 2.0)

    assert gc.isenabled()
    assert collector_share(step, world.now) == (3.0, 2.0)
    assert gc.isenabled()


def test_the_kernels_count_of_preemptions_never_falls() -> None:
    assert 0 <= preemptions() <= preemptions()
