"""Sessions of fake engines: who is timed, in which order, for how long, and what is written."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from conformance.bench import case
from conformance.bench.engine import Engine
from conformance.bench.journal import CONTROL, Journal, Result
from conformance.bench.patience import Patience
from conformance.bench.session import plan
from conformance.bench.workload import Workload
from conformance.errors import UsageError
from tests.conformance.bench import fakes
from tests.conformance.bench.fakes import FakeEngine, World, unsupported
from tests.conformance.bench.sessions import WORKLOADS, conduct

ONE = (fakes.workload(),)


def result(journal: Journal, engine: str) -> Result:
    found = [r for r in journal.results if r.engine == engine]
    assert len(found) == 1
    return found[0]


def test_ratios_are_what_the_engines_cost_whatever_the_machine_does(tmp_path: Path) -> None:
    world = World(noise=0.05)
    journal = conduct(tmp_path / "j", world, [FakeEngine(world, "refgrad", 0.5)], ONE)
    ours = result(journal, "refgrad")
    for phase in ("forward", "backward", "step", "accumulate"):
        ratio = ours.phases[phase].ratio
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low - 0.01 < 0.5 < ratio.high + 0.01
        assert ratio.n >= 6
    assert ours.phases["backward"].spread.median == pytest.approx(fakes.BACKWARD / 2, rel=0.1)
    assert journal.verdict == "valid"
    assert result(journal, CONTROL).control


def test_a_wrong_engine_is_shown_as_wrong_and_not_timed(tmp_path: Path) -> None:
    world = World()
    wrong = FakeEngine(world, "autograd", mistake=1.5)
    journal = conduct(tmp_path / "j", world, [wrong], ONE)
    found = result(journal, "autograd")
    assert (found.outcome, found.reason) == ("wrong", "the gradient of x is off")
    assert not found.phases
    assert wrong.prepared[0].log == ["step"]


RAISED = [
    (unsupported("no convolution"), "unsupported", "no convolution"),
    (MemoryError("of host"), "out of memory", "MemoryError: of host"),
    (RuntimeError("CUDA out of memory. Tried"), "out of memory", "RuntimeError: CUDA out"),
    (RuntimeError("RESOURCE_EXHAUSTED: x"), "out of memory", "RuntimeError: RESOURCE"),
    (type("OutOfMemoryError", (Exception,), {})("gpu"), "out of memory", "OutOfMemoryError: g"),
    (ValueError("a\nb"), "errored", "ValueError: a b"),
]
# A phase that is unsupported later is struck off: see test_timing.
WHERE = [(raised, "prepare", 0) for raised in RAISED] + [(raised, "step", 0) for raised in RAISED]
LATER = [(raised, "step", 40) for raised in RAISED if raised[1] != "unsupported"]


@pytest.mark.parametrize(("raised", "where", "after"), WHERE + LATER)
def test_what_an_engine_raises_is_its_outcome_and_the_others_go_on(
    tmp_path: Path, raised: tuple[Exception, str, str], where: str, after: int
) -> None:
    error, outcome, reason = raised
    world = World()
    bad = FakeEngine(world, "jax", fails={where: error}, fails_after=after)
    journal = conduct(tmp_path / "j", world, [bad, FakeEngine(world, "refgrad", 0.5)], ONE)
    found = result(journal, "jax")
    assert found.outcome == outcome
    assert found.reason.startswith(reason)
    assert not found.phases
    assert result(journal, "refgrad").outcome == "timed"
    assert journal.end is not None


def test_without_torch_there_is_nothing_to_hold_others_to() -> None:
    world = World()
    engines: list[Engine] = [
        FakeEngine(world, fails={"step": MemoryError()}),
        FakeEngine(world, "refgrad"),
    ]
    place = fakes.FakePlace(world)
    tools = case.Tools(place, fakes.agree, random.Random(0), world.time + 99, now=world.now)
    cost = case.costs(ONE[0], 100)
    entries = case.run(ONE[0], 100, cost, engines, 1.0, tools, Patience(1, 1, 99.0))
    assert [entry.outcome for entry in entries] == ["out of memory", "errored", "errored"]
    assert "torch has no gradients" in entries[1].reason


def test_engines_take_turns_in_an_order_that_the_seed_draws(tmp_path: Path) -> None:
    def order(seed: int) -> list[str]:
        world = World()
        said: list[str] = []

        class Telling(FakeEngine):
            def prepare(self, workload: Workload, size: int, device: str) -> fakes.FakePrepared:
                prepared = super().prepare(workload, size, device)
                whole = prepared.accumulate

                def accumulate(made: object) -> None:  # the last phase of a turn
                    said.append(self.name)
                    whole(made)

                prepared.accumulate = accumulate  # type: ignore[method-assign]
                return prepared

        engines = [Telling(world, name) for name in ("refgrad", "jax", "autograd")]
        conduct(
            tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}", world, engines, ONE, seed=seed
        )
        return [a for a, b in zip(said, said[1:] + [""]) if a != b]

    first = order(0)
    assert order(0) == first
    assert order(1) != first
    assert len({tuple(first[i : i + 3]) for i in range(6, len(first) - 3, 3)}) > 2


def test_an_engine_that_is_slow_sits_out_rounds_and_keeps_its_pairs(tmp_path: Path) -> None:
    world = World(noise=0.02)
    journal = conduct(tmp_path / "j", world, [FakeEngine(world, "jax", 60.0)], ONE)
    slow, torch = result(journal, "jax"), result(journal, "torch")
    assert slow.phases["step"].spread.n < torch.phases["step"].spread.n
    assert set(slow.phases["step"].rounds) < set(torch.phases["step"].rounds)
    assert slow.phases["step"].ratio is not None
    assert slow.phases["step"].ratio.median == pytest.approx(60, rel=0.05)


def test_an_engine_of_which_a_smaller_size_took_long_is_not_begun(tmp_path: Path) -> None:
    world = World()
    compiler = FakeEngine(world, "jax.jit", prepares=8.0)
    ladder = (fakes.workload(sizes=(100, 1000), quick=100),)
    journal = conduct(tmp_path / "j", world, [compiler], ladder, quick=False)
    small, large = (r for r in journal.results if r.engine == "jax.jit")
    assert (small.outcome, large.outcome) == ("timed", "slow")
    assert large.reason == "would take 80 s to prepare, by a smaller size"


def test_compiling_is_kept_apart(tmp_path: Path) -> None:
    world = World()
    journal = conduct(
        tmp_path / "j", world, [FakeEngine(world, "jax.jit", compile_seconds=3.5)], ONE
    )
    assert result(journal, "jax.jit").compile_seconds == 3.5


def test_the_budget_is_kept_and_each_group_was_seen(tmp_path: Path) -> None:
    world = World()
    began = world.time
    many = [
        fakes.workload(f"w{i}", f"g{i % 3}", sizes=(500, 1000, 2000), quick=1000) for i in range(6)
    ]
    journal = conduct(
        tmp_path / "j", world, [FakeEngine(world, "refgrad")], many, quick=False, budget=12.0
    )
    assert journal.end is not None
    assert journal.end["stopped"] == "budget"
    # no alarm rings in this world: what was begun last is prepared to its end, up to 20 steps
    last = 20 * 20 * (fakes.FORWARD + fakes.BACKWARD)
    assert journal.end["duration"] <= 12.0 + last
    assert world.time - began <= 12.0 + last
    seen = [r.group for r in journal.results if r.engine == "torch"]
    assert set(seen[:3]) == {"g0", "g1", "g2"}
    reached = {(r.workload, r.size) for r in journal.results}
    unreached = {(name, size) for name, size in journal.end["unreached"]}
    planned = {(name, size) for name, size in journal.header["planned"]}
    assert reached
    assert unreached
    assert reached | unreached == planned
    assert not reached & unreached


def test_ctrl_c_ends_the_journal(tmp_path: Path) -> None:
    world = World()
    interrupted = FakeEngine(world, "jax", fails={"step": KeyboardInterrupt()}, fails_after=30)  # type: ignore[dict-item]
    journal = conduct(tmp_path / "j", world, [interrupted])
    assert journal.end is not None
    assert journal.end["stopped"] == "interrupted"
    assert journal.verdict == "incomplete"
    assert journal.trouble == "The session was interrupted."


def test_a_workload_that_cannot_be_made_is_an_outcome_of_all(tmp_path: Path) -> None:
    def cost(size: int) -> object:
        raise unsupported("transformers is not installed")

    broken = Workload(
        "gpt2",
        "models",
        "",
        make=lambda size: None,
        cost=cost,  # type: ignore[arg-type, return-value]
        sizes=(1,),
        quick=1,
        size_means="width",
    )
    journal = conduct(tmp_path / "j", workloads=[broken, *ONE])
    assert [(r.workload, r.outcome) for r in journal.results][:2] == [
        ("gpt2", "unsupported"),
        ("matmul", "timed"),
    ]


def test_memory_and_the_gpus_state_are_written(tmp_path: Path) -> None:
    world = World()
    journal = conduct(tmp_path / "j", world, [FakeEngine(world, "refgrad")], ONE, device="cuda")
    assert result(journal, "refgrad").memory == {"resident": {"peak": 22 << 20, "held": None}}
    assert result(journal, CONTROL).memory == {}
    assert [state["sm_mhz"] for state in journal.states] == [1000.0]
    assert journal.header["gpu"]["watts"] == 100.0
    step = result(journal, "torch").phases["step"]
    assert step.host == pytest.approx(step.spread.median)


def test_the_collectors_share_is_measured_on_long_chains_alone(tmp_path: Path) -> None:
    ladder = (fakes.workload("chain", sizes=(100, 10_000), quick=100),)
    journal = conduct(tmp_path / "j", workloads=ladder, quick=False)
    found = {r.size: r.collector for r in journal.results if r.engine == "torch"}
    assert found[100] is None
    assert found[10_000] == {"on": pytest.approx(0.3), "off": pytest.approx(0.3)}


class TestPlan:
    def names(self, expression: str = "", device: str = "cpu", *, quick: bool = False) -> list[str]:
        return [f"{w.name}/{n}" for w, n in plan(WORKLOADS, expression, device, quick=quick)]

    def test_groups_take_turns_and_quick_sizes_come_first(self) -> None:
        assert self.names()[:4] == ["chain/100", "matmul/100", "fan_in/100", "matmul/10"]

    def test_quick_is_one_size_of_each(self) -> None:
        assert sorted(self.names(quick=True)) == ["chain/100", "fan_in/100", "matmul/100"]

    def test_an_expression_chooses_by_group_name_and_size(self) -> None:
        assert self.names("small and not chain") == ["fan_in/100", "fan_in/10", "fan_in/1000"]
        assert self.names("matmul/1000") == ["matmul/1000"]

    def test_extra_sizes_are_planned_where_they_are_named(self) -> None:
        one = fakes.workload("chain", "small", extra_sizes=(10**6,))
        assert 10**6 not in [n for _, n in plan([one], "chain", "cpu", quick=False)]
        assert [n for _, n in plan([one], "chain/1000000", "cpu", quick=True)] == [10**6]

    def test_a_gpu_has_sizes_of_its_own(self) -> None:
        one = fakes.workload(cuda_sizes=(512, 2048))
        assert [n for _, n in plan([one], "", "cuda", quick=False)] == [512, 2048]
        assert [n for _, n in plan([one], "", "cuda", quick=True)] == [512]
        assert [n for _, n in plan([fakes.workload()], "", "cuda", quick=False)] == [100]

    def test_an_expression_that_chooses_nothing_says_what_is_like_it(self) -> None:
        with pytest.raises(UsageError, match="did you mean 'matmul'"):
            self.names("matmull")
