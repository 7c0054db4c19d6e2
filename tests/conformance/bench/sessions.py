"""Sessions in a world of its own time, and their journals."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from conformance.bench import session as sessions
from conformance.bench.journal import Journal, read
from conformance.bench.session import Progress, Session, Settings
from conformance.bench.workload import Workload
from conformance.journal import Writer
from tests.conformance.bench import fakes
from tests.conformance.bench.fakes import FakeEngine, FakePlace, World

WORKLOADS = (
    fakes.workload("chain", "small"),
    fakes.workload("fan_in", "small"),
    fakes.workload("matmul", "products"),
)


def conduct(
    path: Path,
    world: World | None = None,
    engines: Sequence[FakeEngine] = (),
    workloads: Sequence[Workload] = WORKLOADS,
    progress: Progress | None = None,
    device: str = "cpu",
    **settings: Any,
) -> Journal:
    """Run a session of torch and these engines; its journal.

    A KeyboardInterrupt that an engine raises ends the session as Ctrl-C does.
    """
    world = world or World()
    settings = {"quick": True, "device": device, **settings}
    chosen = Settings(**settings)
    place = FakePlace(world, device)
    all_engines = [FakeEngine(world), *engines]
    cases = sessions.plan(workloads, chosen.expression, device, quick=chosen.quick)
    pools = [
        {"internal_api": "openblas", "version": "0.3", "num_threads": 1, "architecture": "Zen"},
        {"internal_api": "openmp", "version": None, "num_threads": 1},
    ]
    threads = {"asked": chosen.threads, "cores": 2, "torch": 1, "pools": pools}
    header = sessions.header(chosen, place, {"mygrad": "not installed"}, all_engines, threads)
    with Writer(path) as writer:
        session = Session(
            chosen,
            place,
            all_engines,
            fakes.agree,
            writer,
            progress or Progress(),
            now=world.now,
            preempted=lambda: world.preempted,
        )
        # A whole collection looks at all that the other tests made: seconds, for a world of fakes.
        with mock.patch.object(gc, "collect"), contextlib.suppress(KeyboardInterrupt):
            session.run(cases, header)
    return read(path)
