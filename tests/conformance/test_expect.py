"""conformance expect: what a run's failures add to a list, and what no longer fails leaves it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from conformance import checks, expectations
from conformance import journal as jl
from conformance.cli import main
from conformance.engines.base import Engine
from conformance.engines.refgrad import RefgradEngine
from conformance.engines.torch import TorchEngine
from conformance.errors import UsageError
from conformance.expectations import Expectation, Verdict, judge, parse
from conformance.expectations.edit import ListFile, propose
from conformance.results import Result
from conformance.settings import Settings
from tests.conformance import journals
from tests.conformance.journals import result
from tests.conformance.test_checks import MATMUL, SIN, SQUARE, TANH
from tests.fakes import engines as fakes

WHOLE = {"settings": Settings(sources=("opinfo", "generated")).to_json()}
HAND_MADE = """[
  { "op": "linalg.*",  "check": "vjp", "reason": "known (\\u00e9)" },
  { "op": "add", "check": "*",
    "reason": "threads", "flaky": true }
]
"""


@pytest.fixture
def conformance(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `conformance expect`; gives the exit code, stdout and stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        code = main(["expect", *map(str, args)])
        return (code, *capsys.readouterr())

    return call


def found(*engines: Engine) -> list[Result]:
    """What the checks say of four ops on these engines."""
    results = []
    for engine in engines:
        context = checks.context_for(Settings(), engine=engine, reference=TorchEngine())
        for op, one in (("sin", SIN), ("square", SQUARE), ("matmul", MATMUL), ("tanh", TANH)):
            sample = dataclasses.replace(one, op=op)
            results += checks.check_sample(sample, context, "opinfo")
    return results


def judged(journal: Path, file: Path) -> Verdict:
    """The verdict on a journal with the expectations of a file."""
    return judge(jl.read(journal).results, parse(file.read_text(), "the list"), whole=False)


@pytest.mark.parametrize(
    "engines",
    [
        (fakes.WrongSign,),
        (fakes.MissingFactor, fakes.Transposed),
        (fakes.WrongSign, fakes.NotANumber, fakes.WrongDtype),
        (fakes.Raises,),
        (fakes.MutatesInputs, RefgradEngine),
    ],
)
def test_what_is_accepted_is_expected_and_what_holds_again_is_pruned(
    conformance: Any, tmp_path: Path, engines: tuple[type[Engine], ...]
) -> None:
    wrong = journals.write(tmp_path / "wrong.jsonl", *found(*(make() for make in engines)))
    file = tmp_path / "known.json"
    failing = [r for r in jl.read(wrong).results if r.outcome in expectations.FAILING]
    assert failing
    code, out, _ = conformance("accept", wrong, "--reason", "a fake", "--file", file)
    assert code == 0
    assert f"for {len(failing)} failures added to {file}" in out
    verdict = judged(wrong, file)
    assert verdict.name == "ok"
    assert len(verdict.expected) == len(failing)
    assert not verdict.improvements
    before = file.read_text()
    assert (
        "all that fails is expected"
        in conformance("accept", wrong, "--reason", "again", "--file", file)[1]
    )
    assert conformance("prune", wrong, "--file", file)[0] == 0
    assert file.read_text() == before

    right = journals.write(tmp_path / "right.jsonl", *found(RefgradEngine()))
    certain = [e for e in parse(before, "the list") if not e.flaky]
    assert list(judged(right, file).improvements) == certain
    _, out, _ = conformance("prune", right, "--file", file)
    assert out.count(": a fake") == len(certain)
    assert not judged(right, file).improvements
    assert parse(file.read_text(), "the list") == tuple(
        e for e in parse(before, "the list") if e.flaky
    )


def test_one_fault_is_one_entry_that_excuses_no_other() -> None:
    proposals = propose([r for r in found(fakes.WrongSign()) if r.outcome == "failed"], "a fake")
    by_call = {p.expectation.call: p.expectation for p in proposals}
    entry = by_call["torch.sin"]
    assert entry.op == "sin"
    assert {"vjp", "numerical"} <= set(entry.checks)
    assert entry.verdict == "engine wrong*"
    assert entry.witness_case == entry.witness
    others = [r for r in found(fakes.Transposed(), fakes.NotANumber()) if r.outcome == "failed"]
    assert others
    assert not any(p.expectation.covers(r) for p in proposals for r in others)


BLAMED = {"culprit": "torch.sin", "verdict": "engine wrong: complex step gives 2.7 (bound 1e-13)"}
BACKWARD = {"culprit": "torch.sin", "verdict": "engine wrong (backward): complex step gives 1"}
BOTH = {"culprit": "torch.sin", "verdict": "engine and reference wrong: stencil gives 2"}
RAISED = {"reason": "EngineError: e raised RuntimeError in torch.f2: sizes [3, 4] and 5 differ"}


@pytest.mark.parametrize(
    ("failures", "entries"),
    [
        (  # one call, seen in two ops by two checks
            [
                result("failed", "sin", evidence=BLAMED),
                result("failed", "cos", check="jvp", evidence=BACKWARD),
            ],
            [("*", "vjp|jvp", "torch.sin", "engine wrong*")],
        ),
        (  # another party is wrong
            [result("failed", evidence=BLAMED), result("failed", digest="f", evidence=BOTH)],
            [
                ("add", "vjp", "torch.sin", "engine wrong*"),
                ("add", "vjp", "torch.sin", "engine and reference wrong*"),
            ],
        ),
        (  # no call to blame: by op
            [
                result("failed", "sin", evidence={"verdict": "engine wrong: a kink"}),
                result("crashed", "cos", evidence={"reason": "SIGSEGV"}),
                result("crashed", "sin", evidence={"reason": "SIGSEGV"}),
            ],
            [
                ("sin", "vjp", "*", "engine wrong*"),
                ("cos", "vjp", "*", "SIGSEGV*"),
                ("sin", "vjp", "*", "SIGSEGV*"),
            ],
        ),
        (  # one message, whatever the op and the shapes
            [
                result("errored", "sin", evidence=RAISED),
                result("errored", "cos", evidence={"reason": RAISED["reason"].replace("3", "9")}),
            ],
            [("*", "vjp", "*", "EngineError: e raised RuntimeError in torch.f2: sizes *")],
        ),
    ],
)
def test_how_failures_are_grouped(
    failures: list[Result], entries: list[tuple[str, str, str, str]]
) -> None:
    made = [p.expectation for p in propose(failures, "why", "link")]
    assert [(e.op, e.check, e.call, e.verdict) for e in made] == entries
    assert all(sum(e.covers(r) for e in made) == 1 for r in failures)


def test_a_pattern_s_own_characters_are_taken_as_they_are() -> None:
    failure = result("errored", "a[0]*", evidence={"reason": "IndexError: x?"})
    (made,) = propose([failure], "why")
    assert made.expectation.covers(failure)
    other = result("errored", "a0b", evidence={"reason": "IndexError: xy"})
    assert not made.expectation.covers(other)


def test_case_pins_the_program_and_k_chooses(conformance: Any, tmp_path: Path) -> None:
    failures = [result("failed", op, digest=d) for op in ("sin", "cos") for d in ("aa11", "bb22")]
    journal = journals.write(tmp_path / "j.jsonl", *failures)
    file = tmp_path / "known.json"
    conformance("accept", journal, "--reason", "x", "--file", file, "--case", "cos/bb22")
    assert json.loads(file.read_text()) == [
        {
            "op": "cos",
            "check": "vjp",
            "case": "*/bb22/*",
            "reason": "x",
            "witness": "opinfo/cos/bb22/vjp/float64/cpu",
        }
    ]
    conformance("accept", journal, "--reason", "y", "--file", file, "-k", "sin")
    left = judged(journal, file).regressions
    assert [r.case for r in left] == ["opinfo/cos/aa11/vjp/float64/cpu"]


def test_entries_that_stay_keep_their_text(conformance: Any, tmp_path: Path) -> None:
    file = tmp_path / "known.json"
    file.write_text(HAND_MADE)
    failure = result("failed", "sin", evidence=BLAMED)
    journal = journals.write(tmp_path / "j.jsonl", failure)
    conformance("accept", journal, "--reason", "né", "--file", file)
    start, end = HAND_MADE.removesuffix("\n]\n"), "\n]\n"
    text = file.read_text()
    assert text.startswith(start + ",\n  {")
    assert text.endswith(end)
    assert "né" in text
    holds = journals.write(tmp_path / "k.jsonl", result(op="sin"))
    conformance("prune", holds, "--file", file)
    assert file.read_text() == HAND_MADE


@pytest.mark.parametrize("engine", ["torch", "refgrad"])
def test_the_lists_that_are_shipped_are_read_and_written_as_they_are(
    engine: str, tmp_path: Path
) -> None:
    path = expectations.place(engine)
    assert path is not None
    text = path.read_text()
    copy = tmp_path / "copy.json"
    copy.write_text(text)
    target = ListFile(copy)
    assert target.text == text
    extra = Expectation("sin", "vjp", "why", flaky=True)
    target.add([extra])
    target.save()
    assert parse(copy.read_text(), "copy") == (*parse(text, "it"), extra)
    target.remove([extra])
    target.save()
    assert copy.read_text() == text


def test_a_file_that_cannot_be_replaced_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "known.json"
    file.write_text(HAND_MADE)
    target = ListFile(file)
    target.add([Expectation("sin", "vjp", "why")])

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(UsageError, match="No space left"):
            target.save()
    assert file.read_text() == HAND_MADE
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_the_reference_s_fault_goes_into_its_list(
    conformance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = {name: tmp_path / f"{name}.json" for name in ("torch", "refgrad")}
    monkeypatch.setattr(expectations, "place", lists.get)
    theirs = {"culprit": "torch.digamma", "verdict": "reference wrong: complex step gives 1"}
    failures = [
        result("failed", "digamma", evidence=theirs),
        result("failed", "sin", evidence=BLAMED),
    ]
    journal = journals.write(tmp_path / "j.jsonl", *failures)
    assert conformance("accept", journal, "--reason", "x")[0] == 0
    (own,), (shared,) = (json.loads(lists[n].read_text()) for n in ("refgrad", "torch"))
    assert own["call"] == "torch.sin"
    assert (shared["call"], shared["verdict"]) == ("torch.digamma", "engine wrong*")
    assert judge(failures, expectations.load("refgrad"), whole=False).name == "ok"

    # no run of refgrad shows that torch is right again, and one of torch alone is not enough
    right = [result(op="digamma"), result(op="sin")]
    refgrad = journals.write(tmp_path / "refgrad.jsonl", *right)
    torch = journals.write(tmp_path / "torch.jsonl", *right, engine="torch")
    assert not any(
        e.call == "torch.digamma"
        for e in judge(right, expectations.load("refgrad"), whole=True).improvements
    )
    conformance("prune", refgrad)
    assert [len(json.loads(lists[n].read_text())) for n in ("refgrad", "torch")] == [0, 1]
    conformance("prune", torch, journal)
    assert len(json.loads(lists["torch"].read_text())) == 1
    conformance("prune", torch, refgrad)
    assert len(json.loads(lists["torch"].read_text())) == 0


def test_prune_keeps_what_a_run_does_not_show(conformance: Any, tmp_path: Path) -> None:
    case = "opinfo/sin/aa11/vjp/float64/cpu"
    kept = [
        Expectation("cos", "vjp", "another op"),
        Expectation("sin", "jvp", "another check"),
        Expectation("sin", "vjp|jvp", "one of its checks did not run"),
        Expectation("sin", "vjp", "another case fails", case="*/bb22/*"),
        Expectation("sin", "vjp", "another Program failed", witness=case.replace("aa11", "cc33")),
        Expectation("*", "vjp", "a call that may stand anywhere", call="torch.sin"),
        Expectation("sin", "vjp", "may pass", flaky=True),
    ]
    gone = [
        Expectation("sin", "vjp", "no witness"),
        Expectation("*", "vjp", "its witness holds", call="torch.tan", witness=case),
    ]
    file = tmp_path / "known.json"
    target = ListFile(file)
    target.add(kept + gone)
    target.save()
    before = file.read_text()
    run = [result(op="sin", digest="aa11"), result("failed", "sin", digest="bb22")]
    run[1] = dataclasses.replace(run[1], evidence=BOTH)
    part = {"settings": Settings(sources=("opinfo",)).to_json()}
    journal = journals.write(tmp_path / "j.jsonl", *run, **part)
    # what fails in the run is expected for another reason
    assert "would be removed" in conformance("prune", journal, "--file", file, "--dry-run")[1]
    assert file.read_text() == before
    data = json.loads(conformance("prune", journal, "--file", file, "--json")[1])
    assert data["written"] is True
    assert [r["entry"]["reason"] for r in data["removed"]] == ["its witness holds"]
    assert len(json.loads(file.read_text())) == len(kept) + 1
    holds = journals.write(tmp_path / "k.jsonl", run[0], **part)
    conformance("prune", holds, "--file", file)
    assert parse(file.read_text(), "it") == tuple(kept)


def test_what_met_no_case_goes_only_with_missing_and_after_a_whole_run(
    conformance: Any, tmp_path: Path
) -> None:
    file = tmp_path / "known.json"
    target = ListFile(file)
    target.add([Expectation("gone", "vjp", "x"), Expectation("gone", "ff", "not run")])
    target.save()
    whole = journals.write(tmp_path / "whole.jsonl", result(), **WHOLE)
    conformance("prune", whole, "--file", file)
    assert len(json.loads(file.read_text())) == 2
    part = journals.write(
        tmp_path / "part.jsonl",
        result(),
        settings={**WHOLE["settings"], "expression": "add"},
    )
    code, _, err = conformance("prune", part, "--file", file, "--missing")
    assert (code, "is of a part of the cases" in err) == (4, True)
    _, out, _ = conformance("prune", whole, "--file", file, "--missing")
    assert "met no case: gone vjp: x" in out
    assert [e["check"] for e in json.loads(file.read_text())] == ["ff"]


def test_a_flaky_case_is_accepted_as_one(conformance: Any, tmp_path: Path) -> None:
    results = [result(op="sin"), result("failed", "sin", evidence=BLAMED)]
    journal = journals.write(tmp_path / "j.jsonl", *results)
    file = tmp_path / "known.json"
    assert judge(results, ()).name == "flaky"
    conformance("accept", journal, "--reason", "threads", "--file", file)
    assert json.loads(file.read_text())[0]["flaky"] is True
    assert judged(journal, file).name == "ok"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["accept", "JOURNAL"], "Missing option '--reason'"),
        (["accept", "JOURNAL", "--reason", " "], "say why they fail"),
        (["accept", "notes.txt", "--reason", "x"], "is not a conformance journal"),
        (["accept", "absent", "--reason", "x"], "No such file"),
        (["accept", "JOURNAL", "--reason", "x", "-k", "sinn"], "did you mean 'sin'"),
        (["accept", "JOURNAL", "--reason", "x", "--case", "nowhere"], "no unexpected failure"),
        (["accept", "JOURNAL", "--reason", "x", "--file", "notes.txt"], "no list of expectations"),
        (["accept", "OUTSIDE", "--reason", "x"], "name one with --file"),
        (["prune", "notes.txt"], "is not a conformance journal"),
        (["prune", "CUT"], "does not show what no longer fails"),
        (["prune", "OUTSIDE"], "name one with --file"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_4(
    conformance: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("Dear diary\n")
    failure = result("failed", "sin", evidence=BLAMED)
    journals.write(Path("JOURNAL"), failure)
    journals.write(Path("OUTSIDE"), failure, engine="direct:my.engine:E")
    journals.write(Path("CUT"), failure, end=False)
    code, out, err = conformance(*args)
    (line,) = err.strip().splitlines()
    assert code == 4
    assert message in line
    assert out == ""


def test_a_run_is_accepted_and_pruned_from_the_command_line(
    conformance: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, wrong = tmp_path / "known.json", "direct:tests.fakes.engines:MissingFactor"

    def run(engine: str, *options: object) -> tuple[int, Path]:
        journal = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        fixed = f"run --engine {engine} --source corpus -k pow -j 1 --journal {journal}"
        code = main([*fixed.split(), *map(str, options)])
        capsys.readouterr()
        return code, journal

    code, journal = run(wrong)
    assert code == 1
    assert conformance("accept", journal, "--reason", "x", "--file", file, "--json")[0] == 0
    (entry,) = json.loads(file.read_text())
    assert entry["call"] == "torch.pow"

    code, journal = run(wrong, "--expectations", file)
    assert code == 0
    assert main(["report", str(journal)]) == 0
    assert "OK" in capsys.readouterr().out
    assert "all that fails is expected" in conformance("accept", journal, "--reason", "x")[1]

    code, journal = run("refgrad", "--expectations", file)
    assert code == 0
    assert f"from {file}, 0 left" in conformance("prune", journal)[1]
    assert json.loads(file.read_text()) == []


def test_a_list_that_is_not_there_stops_a_run(conformance: Any, tmp_path: Path) -> None:
    absent, journal = tmp_path / "absent.json", tmp_path / "j.jsonl"
    with pytest.raises(UsageError, match=r"cannot read the expectations in .*absent.json"):
        expectations.load("refgrad", str(absent))
    options = ["--journal", str(journal), "--expectations", str(absent)]
    assert main(["run", "--source", "corpus", *options]) == 4
    assert not journal.exists()
