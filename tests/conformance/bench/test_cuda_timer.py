"""The GPU's timer on a device that is a few numbers: a queue, a clock, a cache."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.bench.cuda_timer import DeviceClock, parse_state, state
from conformance.bench.timing import BACKWARD, FORWARD, STEP, HostClock, Timer
from tests.conformance.bench import fakes
from tests.conformance.bench.fakes import FakeEngine, World

FLUSH = 5e-4  # seconds


class FakeDevice:
    """A GPU whose work is done later: the host goes on, events are reached when it is."""

    name = "fake events"
    resolution = 5e-7

    def __init__(self, host: World) -> None:
        self.host = host
        self.busy_until = host.time
        self.cold = False
        self.said: list[str] = []

    def launch(self, seconds: float) -> None:
        """Queue a kernel; launching takes the host a little."""
        self.host.take(1e-5)
        self.busy_until = max(self.busy_until, self.host.time) + seconds

    def record(self) -> float:
        self.said.append("record")
        return max(self.busy_until, self.host.time)

    def wait(self, event: float) -> None:
        self.said.append("wait")
        self.host.time = max(self.host.time, event)

    def elapsed(self, start: float, end: float) -> float:
        assert self.host.time >= end, "read before the device was there"
        return end - start

    def synchronize(self) -> None:
        self.said.append("synchronize")
        self.host.time = max(self.host.time, self.busy_until)

    def flush(self) -> None:
        self.said.append("flush")
        self.busy_until = max(self.busy_until, self.host.time) + FLUSH
        self.cold = True


class Launching(fakes.FakePrepared):
    """Queues its work on a device, which is faster when its cache is warm."""

    def __init__(self, device: FakeDevice, engine: FakeEngine) -> None:
        super().__init__(engine, 100)
        self.device = device

    def _do(self, method: str, seconds: float) -> None:
        self.log.append(method)
        self.device.launch(seconds if self.device.cold else seconds / 4)
        self.device.cold = False

    def synchronize(self) -> None:
        self.device.synchronize()


def timed() -> tuple[FakeDevice, dict[str, float]]:
    world = World()
    device = FakeDevice(world)
    prepared = Launching(device, FakeEngine(world))
    check = HostClock(device.synchronize, flush=device.flush, now=world.now, resolution=1e-9)
    one = Timer(prepared, DeviceClock(device), check, lambda: 0, world.now)
    one.warm_up(2)
    one.calibrate()
    return device, one.read()


def test_events_hold_the_work_of_the_call_alone_on_a_cold_cache() -> None:
    _, found = timed()
    launch = 1e-5  # the host launches while the device waits
    assert found[FORWARD] == pytest.approx(fakes.FORWARD + launch)
    assert found[BACKWARD] == pytest.approx(fakes.BACKWARD + launch)
    assert found[STEP] == pytest.approx(fakes.FORWARD + fakes.BACKWARD + launch)


def test_the_hosts_clock_agrees_where_it_waits() -> None:
    _, found = timed()
    assert found["host"] == pytest.approx(found[STEP])


def test_the_device_is_flushed_and_idle_before_each_call() -> None:
    device, _ = timed()
    said = device.said
    starts = [i for i in range(2, len(said)) if said[i - 2 : i] == ["flush", "synchronize"]]
    assert starts
    assert all(said[i] in ("record", "synchronize") for i in starts)
    assert said.count("record") == 2 * said.count("wait")


ANSWER = "NVIDIA H100 80GB HBM3, 550.90.07, P0, 1755, 1980, 2619, 41, 212.35, {bits}, 1024\n"


@pytest.mark.parametrize(
    ("bits", "slowed"),
    [
        ("0x0000000000000000", []),
        ("0x0000000000000001", []),  # idle
        ("0x0000000000000004", ["power cap"]),
        ("0x0000000000000060", ["thermal, by software", "thermal, by hardware"]),
        ("[N/A]", None),
    ],
)
def test_what_slows_a_gpu_is_read_in_words(bits: str, slowed: list[str] | None) -> None:
    found = parse_state(ANSWER.format(bits=bits))
    assert found["slowed"] == slowed
    assert (found["sm_mhz"], found["sm_max_mhz"], found["watts"]) == (1755.0, 1980.0, 212.35)
    assert found["name"] == "NVIDIA H100 80GB HBM3"


def test_a_figure_that_a_gpu_does_not_have_is_none() -> None:
    answer = ANSWER.format(bits="0x0").replace("212.35", "[N/A]")
    assert parse_state(answer)["watts"] is None


@pytest.mark.parametrize("answer", ["", "No devices were found\n"])
def test_an_answer_that_is_none_is_said(answer: str) -> None:
    assert "answered" in parse_state(answer)["absent"]


def test_without_nvidia_smi_the_state_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert state() == {"absent": "nvidia-smi is not installed"}


def test_nvidia_smi_is_only_asked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho \"$@\" >> {tmp_path}/asked\nprintf '{ANSWER.strip()}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert state()["driver"] == "550.90.07"
    asked = (tmp_path / "asked").read_text().split()
    assert [word.partition("=")[0] for word in asked] == ["--id", "--query-gpu", "--format"]
