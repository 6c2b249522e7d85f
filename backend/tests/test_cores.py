"""Which cores the engine's threads get, on machines of every kind; and what is loaded first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steersight.engine import cores
from steersight.engine.cores import BIND, Processor, threads

from .conftest import Server


def machine(count: int, siblings: int = 1) -> list[Processor]:
    """`count` cores; with two siblings each, the second ones come after all the first, as on most x86."""
    return [Processor(number, (0, number % count)) for number in range(count * siblings)]


@pytest.mark.parametrize(
    ("processors", "share", "ranks", "chosen"),
    [
        (machine(1), None, 1, {BIND: "0"}),
        (machine(2), None, 1, {BIND: "0,1"}),
        (machine(2, siblings=2), None, 1, {BIND: "2,3"}),
        (machine(4), None, 1, {BIND: "0,1,2,3"}),
        (machine(8), None, 1, {}),
        (machine(8)[5:7], None, 1, {BIND: "5,6"}),
        (machine(2), 2.0, 1, {BIND: "0,1"}),
        (machine(8), 2.5, 1, {BIND: "nobind", "OMP_NUM_THREADS": "2"}),
        (machine(8), 0.5, 1, {BIND: "nobind", "OMP_NUM_THREADS": "1"}),
        (machine(8), 4.0, 2, {BIND: "nobind", "OMP_NUM_THREADS": "2"}),
        (machine(2), None, 2, {BIND: "0|1"}),
        (machine(1), None, 2, {BIND: "0|0"}),
        (machine(9), None, 2, {BIND: "0,1,2,3|4,5,6,7"}),
    ],
)
def test_where_threads_run(
    processors: list[Processor], share: float | None, ranks: int, chosen: dict[str, str]
) -> None:
    assert threads(processors, share, ranks) == chosen


def test_ranks_that_have_memory_of_their_own_are_left_to_vllm() -> None:
    assert threads(machine(16), None, 2, nodes=2) == {}
    assert threads(machine(16), None, 3, nodes=2) == {BIND: "0,1,2,3,4|5,6,7,8,9|10,11,12,13,14"}
    assert cores.memory_nodes() >= 1


@pytest.mark.parametrize(
    "given",
    [{BIND: "0"}, {BIND: "auto"}, {"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}],
    ids=lambda given: next(iter(given)),
)
def test_what_the_user_has_set_is_kept(given: dict[str, str]) -> None:
    assert not cores.environment(1, given).keys() & {BIND, "OMP_NUM_THREADS"}


@pytest.mark.parametrize(
    ("files", "share"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_share(
    files: dict[str, str], share: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(cores, "CONTROL_GROUP", tmp_path)
    assert cores.quota() == share


def test_what_is_loaded_first(tmp_path: Path) -> None:
    (tmp_path / "libiomp5.so").touch()
    found = cores.libraries([tmp_path / "none", tmp_path])
    assert found == {"tcmalloc": None, "OpenMP": tmp_path / "libiomp5.so"}
    (tmp_path / "libtcmalloc_minimal.so.4").touch()
    both = cores.libraries([tmp_path])
    openmp, tcmalloc = f"{tmp_path}/libiomp5.so", f"{tmp_path}/libtcmalloc_minimal.so.4"
    assert cores.preloaded(both, "") == f"{tcmalloc}:{openmp}"
    assert cores.preloaded(both, "libjemalloc.so.2") == f"{openmp}:libjemalloc.so.2"
    assert cores.preloaded(both, "/x/libgomp.so.1") == f"{tcmalloc}:/x/libgomp.so.1"
    assert cores.preloaded({"tcmalloc": None}, "") == ""


@pytest.mark.engine
async def test_the_worker_has_it_and_the_server_has_not(server: Server) -> None:
    """Looked at from outside, because a process that has given itself a title has no environment to read."""
    (worker,) = (process for process in server.processes if "Worker" in process.name())
    affinities = [os.sched_getaffinity(thread.id) for thread in worker.threads()]
    bound = {number for affinity in affinities if len(affinity) == 1 for number in affinity}
    where = threads(cores.usable(), cores.quota(), 1).get(BIND, "nobind")
    if where != "nobind":
        assert bound == set(map(int, where.split(","))), "a thread on each core, and none elsewhere"
    maps = {item.path for item in worker.memory_maps()}
    for path in filter(None, cores.libraries().values()):
        assert str(path.resolve()) in maps, "loaded first, and indeed loaded"
    assert not {BIND, "LD_PRELOAD"} & os.environ.keys()
    assert server.engine.status.state == "ready"
