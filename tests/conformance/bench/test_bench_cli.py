"""`conformance bench` from the outside: exit codes, files, streams."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.bench.journal import read
from conformance.cli import main
from tests.conformance.bench.fakes import FakeEngine, World
from tests.conformance.bench.sessions import conduct


@pytest.fixture
def journals(tmp_path: Path) -> tuple[Path, Path]:
    """Two sessions, of which the second is slower."""
    paths = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    for path, factor in zip(paths, (0.5, 0.8)):
        world = World(noise=0.02)
        conduct(path, world, [FakeEngine(world, "refgrad", factor)])
    return paths


def test_a_session_of_real_engines_is_timed_and_without_a_gpu_says_so(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    command = [sys.executable, "-m", "conformance", "bench", "run", "-k", "small/product"]
    options = ["--engine", "refgrad", "--device", "cuda", "--quick", "--json"]
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, *options, "--journal", str(path)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["device"] == "cpu"
    assert found["note"].startswith("no GPU was timed: ")
    assert "no GPU was timed" in done.stderr
    journal = read(path)
    assert journal.complete
    assert {r.engine for r in journal.results} == {"torch", "refgrad", "torch (control)"}
    assert {r.outcome for r in journal.results} <= {"timed", "slow"}
    assert journal.header["environment"]["flags"]["OMP_NUM_THREADS"] == "1"


def test_compare_exits_1_on_a_regression_alone(
    journals: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = map(str, journals)
    assert main(["bench", "compare", old, new]) == 1
    said = capsys.readouterr().out
    assert "slower  matmul/100 refgrad backward: 0.50 [" in said
    assert "by a factor of 1.6" in said
    assert main(["bench", "compare", new, old]) == 0
    assert main(["bench", "compare", old, old, "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out[out.index("{") :])["regressed"] is False


def test_compare_refuses_what_is_no_baseline_in_one_line(
    journals: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = journals
    old.write_text("".join(old.read_text().splitlines(keepends=True)[:-1]))
    assert main(["bench", "compare", str(old), str(new)]) == 4
    assert capsys.readouterr().err.count("\n") == 1


def test_report_writes_pages_and_exits_4_for_an_incomplete_session(
    journals: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, _ = journals
    pages = tmp_path / "p.html", tmp_path / "p.md"
    options = ["--html", str(pages[0]), "--markdown", str(pages[1])]
    assert main(["bench", "report", str(old), *options]) == 0
    assert pages[0].read_text().startswith("<!doctype html>")
    assert pages[1].read_text().startswith("# refgrad")
    assert "VALID" in capsys.readouterr().out
    old.write_text("".join(old.read_text().splitlines(keepends=True)[:-1]))
    assert main(["bench", "report", str(old), "-q"]) == 4
    assert "incomplete" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["run", "--threads", "0"], "is not between 1 and"),
        (["run", "--threads", "some"], "neither a number nor all"),
        (["run", "--budget", "0"], "x>0"),
        (["run", "--device", "tpu"], "tpu"),
        (["report", "none.jsonl"], "cannot read none.jsonl"),
        (["weigh"], "No such command 'weigh'"),
    ],
)
def test_wrong_usage_is_one_line_and_exits_4(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *args]) == 4
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
