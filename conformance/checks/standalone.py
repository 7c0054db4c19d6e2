"""standalone: whether an engine that claims to need no torch does without it.

The first sample of each op is repeated in a process in which torch cannot be imported. An engine
that declares torch is watched for the aten calls that it makes instead, and they are listed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from conformance.checks.base import Case, Finding
from conformance.checks.compare import compare
from conformance.engines.base import Vjp
from conformance.program import Array

SAME = 1e-12  # of the scale: the same engine in another process
LARGEST = 1_000_000  # values; a larger sample is not repeated


class StandaloneCheck:
    """One sample an op, repeated without torch."""

    name = "standalone"

    def run(self, case: Case) -> Iterator[Finding]:
        """At most one finding; none for what was not chosen to be repeated."""
        context, key = case.context, (case.source, case.sample.op)
        full = len(context.met) >= max(case.settings.standalone, 1)
        large = sum(v.size for v in case.values.values()) > LARGEST
        opaque = case.program.opaque
        if key in context.met or full or large or opaque or context.engine.name == "torch":
            return
        context.met.add(key)
        if not context.engine.standalone:
            yield Finding("passed", {"aten": _aten_calls(case), "reason": "declares torch"})
            return
        if context.isolation is None:
            context.isolation = Isolation(case.settings.engine)
        yield _compared(case, context.isolation)


class Isolation:
    """The other process; it lives as long as this object."""

    def __init__(self, engine: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="conformance-")
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "conformance.isolated", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._finalizer = weakref.finalize(self, _end, self._process, self._folder)
        self.refusal = self._answer()

    @property
    def loaded(self) -> bool:
        """Whether the engine could be loaded there; `refusal` says why not."""
        return bool(self.refusal.get("ok"))

    def run(self, case: Case) -> tuple[dict[str, Any], dict[str, Array]]:
        """The answer and, where it is ok, the outputs and gradients by name."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        program = case.program.save(folder / "program.json", case.values)
        cotangents = case.cotangents
        given: dict[str, Any] = {f"c{n}": c for n, c in enumerate(cotangents) if c is not None}
        np.savez(folder / "cotangents.npz", **given)
        results = str(folder / "results.npz")
        request = {
            "program": str(program or folder / "program.json"),
            "cotangents": str(folder / "cotangents.npz"),
            "results": results,
            "outputs": len(cotangents),
        }
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return self._lost(), {}
        reply = self._answer(results)
        arrays: dict[str, Array] = {}
        if reply.get("ok"):
            with np.load(results) as stored:
                arrays = dict(stored)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        return reply, arrays

    def close(self) -> None:
        """End the process."""
        self._finalizer()

    def _answer(self, results: str | None = None) -> dict[str, Any]:
        """The next answer that is of `results`: a fork of this process may have left others."""
        assert self._process.stdout is not None
        for line in iter(self._process.stdout.readline, ""):
            reply: dict[str, Any] = json.loads(line)
            if reply.get("results") == results:
                return reply
        return self._lost()

    def _lost(self) -> dict[str, Any]:
        code = self._process.wait(timeout=10)
        return {"reason": f"the process without torch ended with code {code}", "torch": False}


def _compared(case: Case, isolation: Isolation) -> Finding:
    if not isolation.loaded:
        return _refused(isolation.refusal, "cannot be loaded")
    reply, arrays = isolation.run(case)
    if not reply.get("ok"):
        return _refused(reply, "fails")
    here = case.engine_vjp
    expected = _named(here)
    for name, array in expected.items():
        if compare(arrays.get(name), array, relative=SAME) is not None:
            again = _named(case.engine.vjp(case.program, case.values, case.cotangents))
            if compare(again[name], array, relative=SAME) is not None:
                reason = "the engine gives another result each time, so processes cannot compare"
                return Finding("inconclusive", {"reason": reason})
            leaf = name.removeprefix("gradient:")
            text = f"its {name.replace(':', ' of ')} is another where torch cannot be imported"
            return Finding("fallback", {"leaf": leaf, "verdict": f"not standalone: {text}"})
    if reply.get("torch"):
        text = "it asked for torch and went on without it"
        return Finding("fallback", {"verdict": f"not standalone: {text}"})
    return Finding("passed", {"compared": sum(a.size for a in arrays.values())})


def _named(found: Vjp) -> dict[str, Array | None]:
    named: dict[str, Array | None] = {f"output{n}": o for n, o in enumerate(found.outputs)}
    return named | {f"gradient:{n}": g for n, g in found.gradients.items()}


def _refused(reply: dict[str, Any], what: str) -> Finding:
    evidence = {"reason": reply.get("reason", ""), "error": reply.get("error", "")}
    if reply.get("torch"):
        evidence["verdict"] = f"not standalone: the engine {what} where torch cannot be imported"
        evidence["diagnosis"] = "fallback"
        return Finding("fallback", evidence)
    evidence["verdict"] = f"the engine {what} in a process of its own"
    return Finding("errored", evidence)


def _aten_calls(case: Case) -> list[str]:
    """The aten functions that a torch-based engine runs for this sample."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.seen: dict[str, None] = {}

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            self.seen[str(func)] = None
            return func(*args, **(kwargs or {}))

    with Watch() as watch:
        case.engine.vjp(case.program, case.values, case.cotangents)
    return sorted(watch.seen)


def _end(process: subprocess.Popen[str], folder: tempfile.TemporaryDirectory[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.cleanup()
