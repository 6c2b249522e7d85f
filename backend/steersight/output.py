"""Where a server's words go: sentences to the person who started it, everything else to a file.

vLLM, torch and transformers write some twenty lines before the engine is up, the engine's own processes
among them, and some of that comes from C++ that no logger sees. So the two standard streams themselves are
turned to the file, which child processes inherit, and what is for people is written to a copy of the stream
that was there before.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from .engine.status import EnginePhase

if TYPE_CHECKING:
    from .engine.service import EngineService

STANDARD = "-"
"""Name of standard error where a file's is asked for."""


class LogFileError(RuntimeError):
    """The file that was asked for cannot be written; the message says why."""


def log_file(asked: str, log_format: str, data_dir: Path, port: int) -> Path | None:
    """Which file to write to; None for standard error.

    Args:
        asked: the setting: a path, `-`, or nothing. Then it is a file where a person looks on, who is not
            served by the libraries' lines, and standard error where a program takes them in: a container's
            log, a journal, a pipe.
        log_format: `json` is for programs.
        data_dir: holds the file where none is named.
        port: tells the servers of one data folder apart.
    """
    if asked == STANDARD:
        return None
    if asked:
        return Path(asked).expanduser().absolute()
    if log_format == "json" or not sys.stderr.isatty():
        return None
    return data_dir / "logs" / f"server-{port}.log"


def begin(file: Path, *, anywhere: bool) -> tuple[int, Path]:
    """Begin a log; what was there of the start before is kept beside it, with `.1` behind its name.

    Args:
        file: where.
        anywhere: take a new file in the temporary folder where it cannot be written.

    Returns its descriptor and its path. Raises LogFileError.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_file():
            file.replace(file.with_name(f"{file.name}.1"))
        # Only for its owner: it may hold what people have written (--log-prompts).
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), file
    except OSError as error:
        why = "its folder is a file" if isinstance(error, FileExistsError) else error.strerror
    if anywhere:
        with contextlib.suppress(OSError):
            descriptor, name = tempfile.mkstemp(prefix="steersight-", suffix=".log")
            os.set_inheritable(descriptor, False)
            return descriptor, Path(name)
    raise LogFileError(f"The log cannot be written to {file}: {why}. Name another with --log-file.")


@contextlib.contextmanager
def turned_to(descriptor: int) -> Iterator[TextIO]:
    """Let both standard streams lead into a file while the context lasts; gives the output as it was."""
    _flush()
    before = [os.dup(1), os.dup(2)]
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8", errors="replace") as terminal:
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.close(descriptor)
        try:
            yield terminal
        finally:
            _flush()
            for stream, was in enumerate(before, start=1):
                os.dup2(was, stream)
                os.close(was)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


@dataclass
class Progress:
    """The engine's way to ready, one line per stage."""

    terminal: TextIO
    _last: tuple[str, str] = ("", "")

    def follow(self, engine: EngineService) -> None:
        """Write a line whenever the engine comes to a new stage."""

        def changed() -> None:
            status = engine.status
            if (status.state, status.stage) != self._last:
                self._last = (status.state, status.stage)
                share = (
                    f"{status.progress:4.0%}  "
                    if status.state in (EnginePhase.LOADING, EnginePhase.READY)
                    else ""
                )
                self.say(share + status.stage)

        engine.listen(changed)

    def say(self, line: str) -> None:
        """Write one line; a terminal that has been closed hears nothing, and the server goes on."""
        with contextlib.suppress(OSError, ValueError):
            print(line, file=self.terminal, flush=True)
