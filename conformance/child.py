"""A forked process that computes something and may crash."""

from __future__ import annotations

import faulthandler
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 10.0  # should it hang


def in_child(compute: Callable[[], T], seconds: float = SECONDS) -> T | None:
    """What `compute` returns in a forked process; None where that crashes, raises or hangs."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            faulthandler.disable()  # a crash here is an answer
            if (torch := sys.modules.get("torch")) is not None:
                torch.set_num_threads(1)  # a fork has no threads of OpenMP's pool to wait for
            os.close(reader)
            data = pickle.dumps(compute())
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(len(data).to_bytes(8, "big") + data)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    end = time.monotonic() + seconds
    data = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(end - time.monotonic(), 0.0))[0]:
            part = pipe.read(1 << 16)
            if not part:
                break
            data += part
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    whole = len(data) > 8 and len(data) - 8 == int.from_bytes(data[:8], "big")
    return pickle.loads(data[8:]) if whole else None
