"""Why an engine process failed, written down by that process where the server can read it.

vLLM (0.32) runs its engine and its workers in processes of their own. One that fails to start logs the
exception and ends; the server gets "See root cause above" and an exit status. So every engine process is
given a log handler that writes each logged exception into the engine's folder as well, and has Python write
down there by which signal it crashed. The handler comes in by vLLM's own setting, a file for
`logging.config.dictConfig`, and works from the first import of vLLM on, before any worker exists.

`read` is the server's end; `causes.py` makes a sentence of what it finds. Neither raises: what failed must
not be hidden by a failure to tell it.
"""

from __future__ import annotations

import contextlib
import copy
import faulthandler
import json
import logging
import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RAISED = "raised.jsonl"
CRASHED = "crashed-"
CONFIG = "logging.json"
MOST_CHARACTERS = 4000
"""Of one exception's text: vLLM's list of the architectures that it knows has some ten thousand."""
ONE_EVENT_SECONDS = 10.0
"""Failures that follow each other within this time are one: a rank that fails takes the others along."""
STARTING_SECONDS = 60.0
"""How long the news of a failed process may take until the server gives the engine up; it first waits for the
others to end."""
FATAL = "Fatal Python error: "


@dataclass(frozen=True)
class Raised:
    """An exception, with those that it came from behind it."""

    chain: tuple[tuple[str, str], ...]
    """(name of the class, text), what was raised last first."""

    @classmethod
    def of(cls, error: BaseException) -> Raised:
        """What there is to know of an exception."""
        chain: list[tuple[str, str]] = []
        cause: BaseException | None = error
        while cause is not None and len(chain) < 8:
            chain.append((type(cause).__name__, str(cause)[:MOST_CHARACTERS]))
            cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
        return cls(tuple(chain))


@dataclass(frozen=True)
class Trouble:
    """What the processes of one engine have left behind."""

    raised: tuple[Raised, ...] = ()
    """The exceptions of the last failure, in the order in which they were logged."""
    crashes: tuple[str, ...] = ()
    """How processes crashed, in Python's words, such as `Bus error`."""
    out_of_memory: bool = False
    """Whether the kernel has killed something for want of memory since the engine was started."""


class Recorder(logging.Handler):
    """Writes exceptions that vLLM logs into a folder: in the engine's processes, and in the server's while it
    starts them."""

    def __init__(self, folder: str) -> None:
        super().__init__(logging.ERROR)
        self._file = Path(folder, RAISED)
        if multiprocessing.parent_process() is not None:
            with contextlib.suppress(OSError):
                # Kept open for as long as the process lives: nothing can be opened in a crash.
                self._crash = Path(folder, f"{CRASHED}{os.getpid()}").open("w")  # noqa: SIM115
                faulthandler.enable(self._crash)

    def emit(self, record: logging.LogRecord) -> None:
        """Write down the exception of this record, if it has one."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return
        line = json.dumps({"time": time.time(), "chain": Raised.of(error).chain})
        # In one piece, so that the lines of several processes do not mix.
        with contextlib.suppress(OSError), self._file.open("ab", buffering=0) as file:
            file.write(line.encode() + b"\n")


def logging_config(folder: Path, given: str | None, default: dict[str, Any]) -> Path:
    """Write vLLM's logging configuration with the recorder in it.

    Args:
        folder: the engine's; gets the file and, later, what the recorder writes.
        given: the file that the user has named to vLLM; it is kept and added to.
        default: vLLM's own configuration, where none is given.

    Returns the file to name to vLLM instead. Raises OSError or ValueError where the given one is not to be
    read; vLLM says so better.
    """
    config = json.loads(Path(given).read_text(encoding="utf-8")) if given else copy.deepcopy(default)
    if not isinstance(config, dict):
        raise ValueError(f"{given} holds no logging configuration.")
    config.setdefault("handlers", {})["steersight"] = {"()": f"{__name__}.Recorder", "folder": str(folder)}
    logger = config.setdefault("loggers", {}).setdefault("vllm", {})
    logger["handlers"] = [*logger.get("handlers", []), "steersight"]
    written = folder / CONFIG
    written.write_text(json.dumps(config))
    return written


def read(folder: Path, killed_before: int | None, since: float = 0.0) -> Trouble:
    """What has been written down in an engine's folder.

    Args:
        folder: the engine's.
        killed_before: what `oom_kills` said when the engine was started.
        since: what was logged earlier does not count; seconds since the epoch.
    """
    lines: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in (folder / RAISED).read_text().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    lines = [line for line in lines if line["time"] >= since]
    raised = []
    for line in reversed(lines):
        if lines[-1]["time"] - line["time"] > ONE_EVENT_SECONDS:
            break
        raised.append(Raised(tuple((name, text) for name, text in line["chain"])))
    crashes = []
    for file in sorted(folder.glob(f"{CRASHED}*")):
        with contextlib.suppress(OSError):
            first = file.read_text(errors="replace").partition("\n")[0]
            if first.startswith(FATAL):
                crashes.append(first.removeprefix(FATAL).strip())
    killed = oom_kills()
    return Trouble(
        tuple(reversed(raised)), tuple(crashes),
        killed_before is not None and killed is not None and killed > killed_before,
    )  # fmt: skip


def oom_kills() -> int | None:
    """How many processes the kernel has killed for want of memory so far, by whatever limit; None where it
    does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return None
