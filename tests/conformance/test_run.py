"""Runs: what a crash, a hang, Ctrl-C and a kill cost, and how a run goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance import journal as jl
from conformance import run as running
from conformance.errors import JournalError, UsageError, WorkerError
from conformance.expectations import Expectation
from conformance.settings import Settings
from conformance.worker import ENVIRONMENT
from tests.conformance.misbehaving import HARNESS, Source

ROOT = Path(__file__).parents[2]


class Silent:
    """A reporter that keeps what it is told."""

    def begin(self, total: int, done: int) -> None:
        self.began = (total, done)

    def update(self, done: int, doing: str, counts: Mapping[str, int]) -> None:
        self.last = (done, doing, dict(counts))

    def close(self) -> None:
        self.closed = True


def run(path: Path, *ops: str, source: Source | None = None, **options: Any) -> jl.Journal:
    """Run these items and read the journal."""
    expected = options.pop("expected", ())
    fake = source or Source(*ops)
    settings = Settings(sources=("fake",), journal=str(path), **{"jobs": 1, **options})
    finished = running.run(
        settings, Silent(), load=lambda name: fake, harness=HARNESS, expected=expected
    )
    read = jl.read(finished.journal)
    assert (read.end or {}).get("exit") == finished.exit
    return read


def outcomes(read: jl.Journal) -> list[tuple[str, str]]:
    """The op and the outcome of the last result of each sample."""
    by_sample = {(entry.item, entry.sample): entry.result for entry in read.entries}
    return [(result.op, result.outcome) for _, result in sorted(by_sample.items())]


def test_a_run_records_every_sample_and_its_end(tmp_path: Path) -> None:
    read = run(tmp_path / "j.jsonl", "fine fine", "fine unsupported skipped", jobs=2)
    assert read.complete
    assert Counter(r.outcome for r in read.results) == {"passed": 7, "unsupported": 2}
    assert read.end is not None
    assert read.end["counts"] == {"passed": 7, "unsupported": 2}
    assert read.end["exit"] == 0
    assert [item.samples for item in sorted(read.items, key=lambda item: item.item)] == [2, 3]
    assert read.header["planned"] == {"fake": 2}
    assert read.header["capabilities"] == {"name": "fake"}
    assert read.header["environment"]["numpy"]


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason"),
    [
        ("segfault", "crashed", "the worker died of SIGSEGV"),
        ("leaves", "crashed", "the worker left with status 3"),
        (
            "loses_device",
            "crashed",
            "the device failed, and with it all that would follow in the worker",
        ),
        ("hangs", "timeout", "no answer within 1.5 s"),
        ("raises", "errored", "ZeroDivisionError: the check broke"),
    ],
)
def test_what_goes_wrong_costs_one_case(
    tmp_path: Path, behaviour: str, outcome: str, reason: str
) -> None:
    read = run(tmp_path / "j.jsonl", f"fine {behaviour} fine", "fine", timeout=1.5)
    expected = [("fine", "passed"), (behaviour, outcome), ("fine", "passed"), ("fine", "passed")]
    assert outcomes(read) == expected
    (result,) = [r for r in read.results if r.outcome == outcome]
    assert result.evidence["reason"] == reason
    assert behaviour == "leaves" or "misbehaving.py" in result.evidence["error"]
    assert result.repro is not None
    assert "torch.sin" in result.repro["script"]
    assert read.complete
    assert read.end is not None
    assert read.end["exit"] == 1


def test_one_item_may_crash_again_and_again(tmp_path: Path) -> None:
    read = run(tmp_path / "j.jsonl", "leaves leaves fine leaves")
    assert [o for _, o in outcomes(read)] == ["crashed", "crashed", "passed", "crashed"]


@pytest.mark.parametrize(
    ("behaviour", "outcome"), [("undrawable", "errored"), ("dies_drawing", "crashed")]
)
def test_a_sample_that_cannot_be_made_ends_its_item_alone(
    tmp_path: Path, behaviour: str, outcome: str
) -> None:
    read = run(tmp_path / "j.jsonl", f"fine {behaviour} fine", "fine")
    assert [o for _, o in outcomes(read)] == ["passed", outcome, "passed"]
    assert read.complete


def test_evidence_that_json_cannot_hold_is_an_error_of_that_case(tmp_path: Path) -> None:
    read = run(tmp_path / "j.jsonl", "unwritable fine")
    assert [o for _, o in outcomes(read)] == ["errored", "passed"]


def test_only_unexpected_failures_make_the_exit_code(tmp_path: Path) -> None:
    known = [Expectation("wrong", "vjp", "a known fault")]
    read = run(tmp_path / "j.jsonl", "fine wrong", expected=known)
    assert read.end is not None
    assert read.end["exit"] == 0
    by_verdict = [Expectation("*", "vjp", "a known fault", verdict="*wrong*")]
    assert run(tmp_path / "v.jsonl", "wrong", expected=by_verdict).end["exit"] == 0  # type: ignore[index]
    assert run(tmp_path / "k.jsonl", "fine wrong").end["exit"] == 1  # type: ignore[index]
    assert run(tmp_path / "l.jsonl", "skipped").end["exit"] == 5  # type: ignore[index]


def test_fail_fast_stops_at_the_first_unexpected_failure(tmp_path: Path) -> None:
    ops = ["fine", "wrong", *["slow slow slow slow"] * 5]
    read = run(tmp_path / "j.jsonl", *ops, fail_fast=True)
    assert Counter(r.outcome for r in read.results)["failed"] == 1
    assert "stopped early: at the first failure, fake/wrong/" in str(read.trouble)
    assert len(read.items) < 4
    known = [Expectation("wrong", "vjp", "a known fault")]
    whole = run(tmp_path / "k.jsonl", "wrong", "fine", fail_fast=True, expected=known)
    assert len(whole.items) == 2
    assert whole.trouble is None


def test_an_expression_chooses_items_samples_and_results(tmp_path: Path) -> None:
    source = Source("fine", "wrong", "segfault")
    read = run(tmp_path / "j.jsonl", source=source, expression="fine or wrong and value")
    found = [(r.op, r.check, r.outcome) for r in read.results]
    assert sorted(found) == [
        ("fine", "value", "passed"),
        ("fine", "vjp", "passed"),
        ("wrong", "value", "passed"),
    ]


def test_an_unknown_op_is_a_usage_error_with_near_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'segfalt' matches none of 2 ops.*mean 'segfault'"):
        run(tmp_path / "j.jsonl", "fine", "segfault", expression="segfalt")
    assert not (tmp_path / "j.jsonl").exists()


@pytest.mark.parametrize(
    ("engine", "error", "message"),
    [
        ("absent", UsageError, "no engine is named 'absent'"),
        ("broken", WorkerError, "the engine broke as it loaded"),
        ("dies", WorkerError, "the worker left with status 7"),
    ],
)
def test_an_engine_that_cannot_load_leaves_no_journal(
    tmp_path: Path, engine: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path / "j.jsonl", "fine", engine=engine)
    assert not (tmp_path / "j.jsonl").exists()


def test_an_existing_journal_is_kept(tmp_path: Path) -> None:
    run(tmp_path / "j.jsonl", "fine")
    before = (tmp_path / "j.jsonl").read_bytes()
    with pytest.raises(JournalError, match="exists already"):
        run(tmp_path / "j.jsonl", "fine")
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_the_digest_of_the_cases_tells_runs_apart(tmp_path: Path) -> None:
    def digest(name: str, *ops: str, **options: Any) -> str:
        return str(run(tmp_path / name, *ops, **options).header["cases_digest"])

    assert digest("a", "fine") == digest("b", "fine", jobs=2)
    assert len({digest("c", "fine"), digest("d", "wrong"), digest("e", "fine", seed=1)}) == 3


def test_workers_have_one_thread_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    harness = f"{__name__}:TellsEnvironment"
    settings = Settings(sources=("fake",), journal=str(tmp_path / "j.jsonl"), jobs=1)
    running.run(settings, Silent(), load=lambda name: Source(), harness=harness, expected=())
    told = jl.read(tmp_path / "j.jsonl").header["capabilities"]
    assert told == {**ENVIRONMENT, "OMP_NUM_THREADS": "3"}
    assert "GOMP_SPINCOUNT" not in os.environ


class TellsEnvironment:
    """A harness that describes its process."""

    def __init__(self, settings: Settings) -> None:
        self.seen = {name: os.environ.get(name) for name in ENVIRONMENT}

    def describe(self) -> dict[str, Any]:
        return self.seen


def _resume(path: Path, source: Source, **options: Any) -> jl.Journal:
    running.resume(
        path, Silent(), load=lambda name: source, harness=HARNESS, expected=(), **options
    )
    return jl.read(path)


def test_a_run_goes_on_where_any_cut_left_it(tmp_path: Path) -> None:
    """Wherever the journal is cut, resuming it ends with the results of a whole run, each once."""
    source = Source("fine wrong fine", "fine leaves skipped")
    whole = run(tmp_path / "whole.jsonl", source=source)
    lines = (tmp_path / "whole.jsonl").read_bytes().splitlines(keepends=True)
    expected = sorted((e.item, e.sample, e.result.case, e.result.outcome) for e in whole.entries)
    for kept in range(1, len(lines), 3):
        path = tmp_path / f"{kept}.jsonl"
        path.write_bytes(b"".join(lines[:kept]) + lines[kept][:-4])
        read = _resume(path, source)
        found = [(e.item, e.sample, e.result.case, e.result.outcome) for e in read.entries]
        assert sorted(found) == expected
        assert read.complete
        assert read.end is not None
        assert read.end["counts"] == (whole.end or {})["counts"]
        assert path.read_text().count('"kind":"result"') == len(expected)


def test_a_complete_journal_is_left_alone(tmp_path: Path) -> None:
    source = Source("fine")
    run(tmp_path / "j.jsonl", source=source)
    before = (tmp_path / "j.jsonl").read_bytes()
    _resume(tmp_path / "j.jsonl", source)
    assert (tmp_path / "j.jsonl").read_bytes() == before


def test_other_versions_do_not_go_on_with_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    run(path, "fine")
    header, *_ = path.read_text().splitlines(keepends=True)
    torch = jl.read(path).header["environment"]["torch"]
    path.write_text(header.replace(f'"torch":"{torch}"', '"torch":"1.0"'))
    with pytest.raises(UsageError, match=r"begun with torch 1.0"):
        _resume(path, Source("fine"))


# A whole program, so that signals meet what they meet in use.
PROGRAM = """
import sys
from pathlib import Path
from conformance import run as running
from conformance.progress import Lines
from conformance.settings import Settings
from rich.console import Console
from tests.conformance.misbehaving import HARNESS, Source

if __name__ == "__main__":
    source = Source(*["slow " * 30] * 4)
    settings = Settings(sources=("fake",), journal=sys.argv[1], jobs=2)
    finished = running.run(
        settings, Lines(Console(stderr=True)), load=lambda n: source, harness=HARNESS, expected=()
    )
    sys.exit(finished.exit)
"""


@pytest.fixture
def started(tmp_path: Path) -> Callable[[], tuple[subprocess.Popen[str], Path]]:
    """Starts a long run and waits for its first results."""

    def start() -> tuple[subprocess.Popen[str], Path]:
        script, path = tmp_path / "program.py", tmp_path / "j.jsonl"
        script.write_text(PROGRAM)
        process = subprocess.Popen(
            [sys.executable, script, path],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while not path.exists() or path.read_text().count("\n") < 4:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process, path

    return start


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_until_gone(group: int) -> None:
    deadline = time.monotonic() + 20
    while _alive(group):
        assert time.monotonic() < deadline, "a worker outlived its run"
        time.sleep(0.05)


@pytest.mark.parametrize("presses", [1, 100])
def test_ctrl_c_keeps_everything_so_far(
    started: Callable[[], tuple[subprocess.Popen[str], Path]], presses: int
) -> None:
    process, path = started()
    for _ in range(presses):
        with contextlib.suppress(ProcessLookupError):  # it may be gone before the last one
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        time.sleep(0.01)
    _, talk = process.communicate(timeout=20)
    assert process.returncode == 2, talk
    assert "Traceback" not in talk
    read = jl.read(path)
    assert not read.complete
    assert not read.cut_off
    assert read.results
    _wait_until_gone(process.pid)


def test_a_killed_run_keeps_everything_so_far_and_leaves_no_worker(
    started: Callable[[], tuple[subprocess.Popen[str], Path]],
) -> None:
    process, path = started()
    process.kill()
    process.communicate(timeout=20)
    read = jl.read(path)
    assert not read.complete
    assert read.results
    _wait_until_gone(process.pid)
