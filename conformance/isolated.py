"""A process in which torch cannot be imported, that runs Programs on an engine.

    python -m conformance.isolated ENGINE

reads one JSON line a Program from stdin ({"program": path, "cotangents": path, "results": path}),
writes what the engine made to the results' path (.npz) and answers with one JSON line:
{"ok": true, "torch": whether it asked for torch}, or {"error": text, "torch": ...}, each with the
results' path.
"""

from __future__ import annotations

import importlib.abc
import json
import os
import sys
import traceback
from importlib.machinery import ModuleSpec
from typing import Any

BLOCKED = ("torch", "functorch", "torchgen")
MESSAGE = "torch cannot be imported here: the engine claims to stand alone"


class TorchBlocker(importlib.abc.MetaPathFinder):
    """Refuses torch, and remembers that it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Raises ImportError for torch; leaves the rest to others."""
        if fullname.partition(".")[0] in BLOCKED:
            self.asked += 1
            raise ImportError(MESSAGE, name=fullname)
        return None


def install() -> TorchBlocker:
    """Block torch from now on; raises RuntimeError where it is loaded already."""
    if "torch" in sys.modules:
        raise RuntimeError("torch is loaded already in the process that must do without it")
    blocker = TorchBlocker()
    sys.meta_path.insert(0, blocker)
    return blocker


def serve(engine_name: str) -> int:
    """Answer until stdin ends."""
    blocker = install()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    sys.stdout = sys.stderr  # what an engine prints is not an answer

    from conformance import engines

    try:
        engine = engines.load(engine_name)
    except Exception as error:
        _answer(answers, _failure(error, blocker.asked > 0))
        return 0
    _answer(answers, {"ok": True, "engine": engine.name})
    for line in sys.stdin:
        before = blocker.asked
        request = json.loads(line)
        try:
            reply = _run(engine, request)
        except Exception as error:
            reply = _failure(error, blocker.asked > before)
        else:
            reply["torch"] = blocker.asked > before
        _answer(answers, reply | {"results": request["results"]})
    return 0


def _run(engine: Any, request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    from conformance.program import Program

    program, values = Program.load(request["program"])
    with np.load(request["cotangents"]) as stored:
        cotangents = [stored.get(f"c{n}") for n in range(request["outputs"])]
    found = engine.vjp(program, values, cotangents)
    arrays = {f"output{n}": o for n, o in enumerate(found.outputs)}
    arrays |= {f"gradient:{n}": g for n, g in found.gradients.items() if g is not None}
    np.savez(request["results"], **arrays)
    return {"ok": True}


def _failure(error: Exception, torch: bool) -> dict[str, Any]:
    text = "".join(traceback.format_exception(error))
    return {"error": text[-2000:], "reason": f"{type(error).__name__}: {error}", "torch": torch}


def _answer(stream: Any, reply: dict[str, Any]) -> None:
    stream.write(json.dumps(reply) + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1]))
