"""The command line: exit codes, one clear line for what is wrong, data and talk kept apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from conformance import run as running
from conformance.cli import main
from conformance.cli import run as run_command
from conformance.cli.options import names
from tests.conformance.journals import result, write
from tests.conformance.misbehaving import HARNESS, Source

SCRIPT = "import torch\nprint(1)\n"
WRONG = result("failed", "mul", repro={"program": "v0 = ...", "script": SCRIPT})


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def line(self) -> str:
        """The one line on stderr."""
        (line,) = self.err.strip().splitlines()
        return line


@pytest.fixture
def conformance(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process."""

    def call(*args: object) -> Said:
        code = main([str(arg) for arg in args])
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Makes `conformance run` meet items of these behaviours, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    real_run, real_resume = running.run, running.resume

    def use(*ops: str) -> None:
        fakes = {"load": lambda name: Source(*ops), "harness": HARNESS, "expected": ()}
        monkeypatch.setattr(running, "run", lambda *a: real_run(*a, **fakes))
        monkeypatch.setattr(running, "resume", lambda *a, **k: real_resume(*a, **k, **fakes))

    yield use
    signal.signal(signal.SIGINT, on_ctrl_c)  # an interrupted run leaves it ignored


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys; from conformance.cli import main; code = main(['--help']);"
        "assert not {'torch', 'numpy', 'rich', 'jinja2'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Exit codes" in done.stdout
    for name in ("run", "verify", "report", "repro", "ops", "engines"):
        assert f"  {name} " in done.stdout


def test_every_command_has_help(conformance: Any) -> None:
    for name in ("run", "verify", "report", "repro", "ops", "engines"):
        said = conformance(name, "--help")
        assert said.code == 0
        assert "Usage: conformance" in said.out


def test_python_m_conformance_works() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "conformance", "repot"], capture_output=True, text=True
    )
    assert done.returncode == 4
    assert "did you mean 'report'" in done.stderr


@pytest.mark.parametrize(
    ("ops", "code"),
    [(["fine"], 0), (["fine wrong"], 1), (["segfault"], 1), (["skipped"], 5), (["unsupported"], 0)],
)
def test_the_exit_code_says_what_a_run_found(
    conformance: Any, faked: Any, ops: list[str], code: int
) -> None:
    faked(*ops)
    said = conformance("run", "-j", 1)
    assert said.code == code
    assert "source" in said.out
    assert "journal: reports/runs/" in said.err


def test_strict_fails_for_what_is_unsupported(conformance: Any, faked: Any) -> None:
    faked("unsupported")
    assert conformance("run", "-j", 1, "--strict").code == 1


def test_plain_runs_do_not_overwrite_each_other(
    conformance: Any, faked: Any, tmp_path: Path
) -> None:
    faked("fine")
    conformance("run", "-j", 1, "--journal", "a.jsonl")
    said = conformance("run", "-j", 1, "--journal", "a.jsonl")
    assert said.code == 4
    assert "a.jsonl exists already: continue it with --resume" in said.line


def test_json_is_all_that_is_on_stdout(conformance: Any, faked: Any) -> None:
    faked("fine wrong skipped")
    said = conformance("run", "-j", 1, "--json")
    data = json.loads(said.out)
    assert data["exit"] == said.code == 1
    assert data["counts"] == {"passed": 3, "failed": 1, "unsupported": 1}
    assert data["failures"][0]["case"].startswith("fake/wrong/")


def test_an_interrupted_run_exits_2_and_says_how_to_go_on(
    conformance: Any, faked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient:
        def begin(self, total: int, done: int) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        def update(self, *args: object) -> None: ...
        def close(self) -> None: ...

    faked("fine slow slow", "fine")
    with monkeypatch.context() as patch:
        patch.setattr("conformance.progress.reporter", lambda console: Impatient())
        said = conformance("run", "-j", 1, "--journal", "a.jsonl")
    assert said.code == 2
    assert "conformance run --resume --journal a.jsonl" in said.err
    assert "INCOMPLETE" in said.out
    assert conformance("report", "a.jsonl").code == 4
    assert conformance("run", "--resume", "--journal", "a.jsonl", "-j", 1).code == 0
    assert conformance("report", "a.jsonl").code == 0


def test_resume_takes_no_other_settings(conformance: Any, faked: Any) -> None:
    faked("fine")
    said = conformance("run", "--resume", "--seed", 3)
    assert said.code == 4
    assert "leave out --seed" in said.line
    assert "there is no journal under reports/runs" in conformance("run", "--resume").line


def test_names_are_joined_by_commas_or_given_one_by_one() -> None:
    @click.command()
    @names("--check", "checks", known=("value", "vjp"))
    @names("--engine", "engines", default="torch,refgrad")
    def command(*, checks: Any, engines: Any) -> Any:
        return checks, engines

    def taken(*args: str) -> Any:
        return command.main(list(args), standalone_mode=False)

    assert taken() == (None, ("torch", "refgrad"))
    both = ("value", "vjp"), ("refgrad",)
    assert taken("--check", "value, vjp,", "--engine", "refgrad") == both
    assert taken("--check", "value", "--check", "vjp,value", "--engine", "refgrad") == both


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--source", "opinf"], "did you mean 'opinfo'?"),
        (["--check", "vpj"], "did you mean 'vjp', 'jvp'?"),
        (["--source", ","], "no name is given"),
        (["--profile", "quick"], "'quick' is not one of"),
        (["--order", "3"], "3 is not in the range"),
        (["--dtype", "flaot32"], "did you mean 'float32'"),
        (["--dtype", "float64,int64"], "'int64' is none of float64, float32"),
        (["--device", "tpu"], "'tpu' is not one of"),
        (["-k", "a and"], "is not an expression"),
        (["-k", "segfalt"], "did you mean 'segfault'?"),
        (["--engine", "absent"], "no engine is named 'absent'"),
        (["--journal", "file/j.jsonl"], "cannot write file/j.jsonl"),
        (["--jobs"], "No such option"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_4(
    conformance: Any, faked: Any, args: list[str], message: str
) -> None:
    Path("file").write_text("")
    faked("segfault")
    said = conformance("run", *args)
    assert said.code == 4
    assert message in said.line
    assert said.out == ""


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("refgard", "no engine is named 'refgard'"),
        ("direct:no.such.module:Engine", "importing no.such.module failed"),
        ("direct:json:Engine", "module json has no 'Engine'"),
    ],
)
def test_an_engine_that_cannot_load_exits_4(
    conformance: Any, tmp_path: Path, engine: str, message: str
) -> None:
    path = tmp_path / "j.jsonl"
    said = conformance("run", "--engine", engine, "--source", "generated", "--journal", path)
    assert said.code == 4
    assert message in said.line
    assert not path.exists()


def test_a_device_that_the_engine_cannot_run_on_exits_4(conformance: Any, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    said = conformance("run", "--device", "cuda", "--source", "corpus", "--journal", path)
    assert said.code == 4
    assert "engine 'refgrad' cannot run on cuda here, but on cpu" in said.line
    assert not path.exists()


def test_our_own_error_exits_3(
    conformance: Any, faked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked("fine")
    assert conformance("run", "--engine", "broken").code == 3

    def breaks() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(run_command, "_cores", breaks)
    said = conformance("run")
    assert said.code == 3
    assert "please report it" in said.err
    assert "ZeroDivisionError" in said.err


def test_report_writes_what_is_asked_for(conformance: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl", result(), WRONG)
    files = {kind: tmp_path / f"out/report.{kind}" for kind in ("html", "markdown", "junit")}
    options = [word for kind, file in files.items() for word in (f"--{kind}", file)]
    said = conformance("report", path, *options, "--badge", tmp_path / "badge.svg", "--quiet")
    assert said.code == 0
    assert said.out == ""
    assert all(file.read_text() for file in (*files.values(), tmp_path / "badge.svg"))
    assert "REGRESSION" in conformance("report", path).out
    assert json.loads(conformance("report", path, "--json").out)["verdict"] == "regression"


def test_report_of_an_incomplete_journal_says_so_and_exits_4(
    conformance: Any, tmp_path: Path
) -> None:
    path = write(tmp_path / "j.jsonl", result(), end=False)
    said = conformance("report", path, "--html", tmp_path / "r.html", "--quiet")
    assert said.code == 4
    assert "is incomplete" in said.err
    assert "Incomplete run" in (tmp_path / "r.html").read_text()
    path.write_bytes(path.read_bytes()[:-5])
    said = conformance("report", path, "--quiet")
    assert said.code == 4
    assert "last line is cut off" in said.line


@pytest.mark.parametrize("command", [["report"], ["repro"], ["run", "--resume", "--journal"]])
def test_what_is_no_journal_exits_4(conformance: Any, tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "notes.txt"
    more = ["case"] if command == ["repro"] else []
    said = conformance(*command, path, *more)
    assert (said.code, "No such file" in said.line) == (4, True)
    path.write_text("Dear diary\n")
    said = conformance(*command, path, *more)
    assert (said.code, "is not a conformance journal" in said.line) == (4, True)


def test_an_unwritable_report_exits_4(conformance: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl", result())
    said = conformance("report", path, "--html", path / "r.html")
    assert said.code == 4
    assert "cannot write" in said.line


def test_repro_prints_the_script_alone(conformance: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "j.jsonl", result(), WRONG)
    for name in (WRONG.case, "mul"):
        said = conformance("repro", path, name)
        assert (said.code, said.out, said.err) == (0, SCRIPT, "")


def test_repro_suggests_near_cases(conformance: Any, tmp_path: Path) -> None:
    other = result("failed", "matmul", digest="f")
    path = write(tmp_path / "j.jsonl", result(), WRONG, other)
    said = conformance("repro", path, WRONG.case.replace("mul", "mull"))
    assert said.code == 4
    assert WRONG.case in said.line
    assert "in the names of 2 cases" in conformance("repro", path, "mul/").line
    assert "holds no script" in conformance("repro", path, "matmul").line
    passed = write(tmp_path / "k.jsonl", result())
    assert "everything in it passed" in conformance("repro", passed, "x").line


def test_engines_lists_what_can_run_here(conformance: Any) -> None:
    rows = {row["name"]: row for row in json.loads(conformance("engines", "--json").out)}
    assert rows["refgrad"]["available"]
    assert rows["refgrad"]["capabilities"]["dtypes"]
    assert "direct:MODULE:NAME" in conformance("engines").out


def test_ops_says_how_much_is_covered(conformance: Any) -> None:
    data = json.loads(conformance("ops", "-k", "exp and not special", "--json").out)
    states = {row["op"]: row["state"] for row in data["ops"]}
    assert states["exp"] == "covered"
    assert data["covered"] == list(states.values()).count("covered")
    said = conformance("ops", "-k", "gelux")
    assert said.code == 4
    assert "did you mean 'nn.functional.gelu'" in said.line


MINE = """
import torch

class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x**2  # it should be 3

def product(x, y):
    return (x * y).sin().sum()
"""


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("Cube", 1, ["failed Cube, numerical", "no opinion, since it lacks opaque:mine.Cube"]),
        ("product", 0, ["OK  All", "second opinion"]),
    ],
)
def test_verify_judges_a_user_s_gradients(
    conformance: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    code: int,
    words: list[str],
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    said = conformance("verify", f"mine.py:{name}")
    assert said.code == code
    for word in words:
        assert word in said.out
    assert len(list(Path("reports/runs").glob("*.jsonl"))) == 2


@pytest.mark.parametrize("subject", ["mine.py:Cub", "no_such_module:f", "mine"])
def test_verify_of_what_is_not_there_exits_4(
    conformance: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, subject: str
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    said = conformance("verify", subject)
    assert said.code == 4
    assert subject.partition(":")[0] in said.line
