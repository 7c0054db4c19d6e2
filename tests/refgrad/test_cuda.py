"""refgrad on a real GPU: PyTorch's samples on CuPy against refgrad on the CPU, all at once.

    python -m pytest -m cuda tests/refgrad/test_cuda.py tests/refgrad/test_devices.py

CuPy compiles each kernel at its first use, which takes most of the time, so several processes
share the entries, in the order of their importance; what was not reached in time is counted, not
failed. REFGRAD_CUDA_SECONDS (150), REFGRAD_CUDA_WORKERS (8) and REFGRAD_CUDA_SAMPLES (2 an entry)
say how much; REFGRAD_CUDA_REPORT names a file that gets every entry's report as a line of JSON.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.refgrad.gpu import NEEDS_GPU

pytestmark = [pytest.mark.cuda, NEEDS_GPU]

ROOT = pathlib.Path(__file__).parents[2]


def _setting(name: str, default: int) -> int:
    return int(os.environ.get(f"REFGRAD_CUDA_{name}", default))


def _reports(folder: pathlib.Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The reports of all entries that were reached, and how each process ended."""
    workers, limit = _setting("WORKERS", 8), str(_setting("SAMPLES", 2))
    command = [
        sys.executable,
        "-m",
        "tests.refgrad.on_device",
        "--cupy",
        "--json",
        "--limit",
        limit,
        "--order",
        "2",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = []
    for k in range(workers):
        with (
            (folder / f"{k}.out").open("w") as out,
            (folder / f"{k}.err").open("w") as err,
        ):
            running.append(
                subprocess.Popen(
                    [*command, "--part", f"{k}/{workers}"],
                    stdout=out, stderr=err, cwd=ROOT, env=environment,
                )
            )  # fmt: skip
    deadline = time.monotonic() + _setting("SECONDS", 150)
    ends = []
    for k, process in enumerate(running):
        try:
            code: Any = process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "out of time"
        if code != 0:
            lines = (folder / f"{k}.err").read_text().strip().splitlines()
            ends.append(
                f"process {k}: {code} {lines[-1] if lines and code != 'out of time' else ''}"
            )
    found = []
    for k in range(workers):
        for line in (folder / f"{k}.out").read_text().splitlines():
            if line.endswith("}"):  # the last one may be cut
                found.append(json.loads(line))
    return found, ends


def test_op_db_on_cupy(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, ends = _reports(tmp_path)
    if name := os.environ.get("REFGRAD_CUDA_REPORT"):
        pathlib.Path(name).write_text("".join(json.dumps(r) + "\n" for r in found))
    broken = [r for r in found if r["failures"]]
    agree = [r for r in found if r["agree"] and not r["failures"]]
    slow = sorted(found, key=lambda r: -r["seconds"])[:5]
    with capsys.disabled():
        print(
            f"\n{len(found)} entries of op_db reached on CuPy: {len(agree)} agree with the CPU "
            f"({sum(r['agree'] for r in found)} samples), {len(broken)} do not"
        )
        for r in found:
            if r["undetermined"]:
                print(
                    f"  {r['entry']}: {r['undetermined']} samples left out, which write several "
                    f"values to one place ({r['agree']} of the others agree)"
                )
        for r in broken:
            print(f"  {r['entry']} ({r['agree']} agree): {r['failures'][0]}")
        for end in ends:
            print(f"  {end}")
        print("  slowest: " + ", ".join(f"{r['entry']} {r['seconds']:.1f} s" for r in slow))
    assert found, ends
    assert not broken, f"{len(broken)} of {len(found)} entries differ"
    assert all("out of time" in end for end in ends), ends
