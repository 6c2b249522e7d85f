"""Which cores the CPU engine computes on, and the two libraries that make it faster there.

vLLM (0.32) binds one thread per core and, wherever it can, leaves one core per rank to its scheduler and to
whoever serves. That is right for a machine of many cores and costs a two-core laptop half of them. It also
knows nothing of a container's share of processor time, and binds a thread to every core of the host. And it
asks for tcmalloc and Intel's OpenMP in LD_PRELOAD, and warns where they are missing.

What the user has set is kept: these are defaults for variables that are not there.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BIND = "VLLM_CPU_OMP_THREADS_BIND"
RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"
FEW = 4
"""Cores up to which all of them compute. One of five or more is a smaller loss than a server that waits for
its engine's threads."""
TOPOLOGY = Path("/sys/devices/system/cpu")
NODES = Path("/sys/devices/system/node")
CONTROL_GROUP = Path("/sys/fs/cgroup")
LIBRARIES = {"tcmalloc": "libtcmalloc_minimal.so.4", "OpenMP": "libiomp5.so"}
ALIKE = {
    # What does the same job and may be in LD_PRELOAD already: two of a kind do not get along.
    "tcmalloc": ("tcmalloc", "jemalloc", "mimalloc"),
    "OpenMP": ("libiomp", "libomp", "libgomp"),
}
FOLDERS = (
    Path(sys.prefix, "lib"),
    *sorted(Path("/usr/lib").glob("*-linux-gnu")),
    Path("/usr/lib64"),
    Path("/usr/lib"),
)


@dataclass(frozen=True)
class Processor:
    """One logical processor."""

    number: int
    core: tuple[int, int]
    """(package, core): those alike share the units that compute."""


def usable() -> list[Processor]:
    """The logical processors that this process may run on."""
    found = []
    for number in sorted(os.sched_getaffinity(0)):
        try:
            package, core = (
                int((TOPOLOGY / f"cpu{number}" / "topology" / name).read_text())
                for name in ("physical_package_id", "core_id")
            )
        except (OSError, ValueError):
            package, core = 0, number
        found.append(Processor(number, (package, core)))
    return found


def quota() -> float | None:
    """How many processors' time the control group may use; None for no limit."""
    with contextlib.suppress(OSError, ValueError):
        allowed, period = (CONTROL_GROUP / "cpu.max").read_text().split()
        return int(allowed) / int(period)
    with contextlib.suppress(OSError, ValueError):
        allowed, period = (
            (CONTROL_GROUP / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
        )
        return int(allowed) / int(period) if int(allowed) > 0 else None
    return None


def memory_nodes() -> int:
    """How many parts of memory the machine has, each near to some of the cores."""
    return max(1, len(list(NODES.glob("node[0-9]*"))))


def threads(
    processors: Sequence[Processor], share: float | None, ranks: int, nodes: int = 1
) -> dict[str, str]:
    """The variables that say where the engine's threads run; none leaves it to vLLM.

    Args:
        processors: those that may be used.
        share: the control group's quota, in processors.
        ranks: tensor-parallel ranks, each a process with threads of its own.
        nodes: parts of memory. vLLM gives each rank one of them with its cores, and refuses where there are
            too few.
    """
    # One thread per core: two on one share its units. The last of them, as vLLM takes it.
    cores = sorted({processor.core: processor.number for processor in processors}.values())
    if share is not None and share < len(cores):
        # Bound threads would all be there and take turns being stopped; and two containers of one machine
        # would be bound to the same cores. So fewer threads, and the kernel says where.
        return {BIND: "nobind", "OMP_NUM_THREADS": str(max(1, int(share) // ranks))}
    if len(cores) > FEW and ranks <= nodes:
        return {}
    if len(cores) > FEW:
        cores = cores[: len(cores) - 1]
    each = len(cores) // ranks
    mine = [
        cores[rank * each : (rank + 1) * each] if each else [cores[rank % len(cores)]]
        for rank in range(ranks)
    ]
    return {BIND: "|".join(",".join(map(str, numbers)) for numbers in mine)}


def libraries(folders: Sequence[Path] = FOLDERS) -> dict[str, Path | None]:
    """Where each library that is worth loading first lies; None where it is missing."""
    return {
        what: next((folder / name for folder in folders if (folder / name).is_file()), None)
        for what, name in LIBRARIES.items()
    }


def preloaded(found: Mapping[str, Path | None], given: str) -> str:
    """LD_PRELOAD with these in it, unless something alike is there."""
    names = [
        str(path)
        for what, path in found.items()
        if path is not None and not any(word in given for word in ALIKE[what])
    ]
    return ":".join([*names, *([given] if given else [])])


def environment(ranks: int, given: Mapping[str, str]) -> dict[str, str]:
    """What a CPU engine's processes are to find in their environment, beside what is given."""
    chosen: dict[str, str] = {}
    if not given.keys() & {BIND, RESERVED}:
        chosen = threads(usable(), quota(), ranks, memory_nodes())
        if "OMP_NUM_THREADS" in given:
            chosen.pop("OMP_NUM_THREADS", None)
    if sys.platform == "linux" and (first := preloaded(libraries(), given.get("LD_PRELOAD", ""))):
        chosen["LD_PRELOAD"] = first
    return chosen
