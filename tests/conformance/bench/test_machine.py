"""What is set before libraries are imported, and what is written down of a machine."""

from __future__ import annotations

import json

import pytest

from conformance.bench import machine
from conformance.journal import plain


def test_threads_are_set_for_every_library_and_wait_patiently() -> None:
    env = {"XLA_FLAGS": "--xla_dump_to=x", "GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "9"}
    machine.prepare(1, "cpu", env)
    assert {env[name] for name in env if name.endswith("_NUM_THREADS")} == {"1"}
    assert env["XLA_FLAGS"] == "--xla_dump_to=x --xla_cpu_multi_thread_eigen=false"
    assert (env["OMP_WAIT_POLICY"], env["GOMP_SPINCOUNT"]) == ("PASSIVE", "7")
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in env
    machine.prepare(1, "cpu", env)
    assert env["XLA_FLAGS"].count("multi_thread_eigen") == 1


def test_on_a_gpu_no_engine_takes_all_memory_and_more_threads_keep_xlas_pool() -> None:
    env: dict[str, str] = {}
    machine.prepare(4, "cuda", env)
    assert env["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert env["NPROC"] == "4"
    assert "XLA_FLAGS" not in env


def test_openblas_gets_the_processors_own_kernels_unless_others_are_to_be_kept() -> None:
    env = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "512"}
    assert machine.prepare(1, "cpu", env, keep_kernels=True) == ""
    assert env["OPENBLAS_CORETYPE"] == "Haswell"
    aside = machine.prepare(1, "cpu", env)
    assert aside == "OPENBLAS_CORETYPE=Haswell OPENBLAS_L2_SIZE=512"
    assert "OPENBLAS_CORETYPE" not in env
    assert machine.description(env)["flags"]["CONFORMANCE_SET_ASIDE"] == aside
    assert machine.prepare(1, "cpu", env) == ""


def test_a_description_is_json_and_holds_flags_and_blas() -> None:
    found = machine.description({"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "SECRET": "no"})
    assert json.loads(json.dumps(plain(found))) == found
    assert found["flags"] == {"MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "1"}
    assert {
        "python",
        "numpy",
        "torch",
        "cpu",
        "blas",
        "libc",
        "collector",
        "commit",
    } <= found.keys()
    assert "threads" not in found


def test_threads_are_set_and_read_back() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        found = machine.limit(1)
    finally:
        torch.set_num_threads(before)
    assert (found["asked"], found["torch"]) == (1, 1)
    assert all(pool["num_threads"] == 1 for pool in found["pools"])
    assert found["cores"] >= 1
