"""Bounds for clients' code in a worker: how long it may run, and how much memory it may take.

The worker computes for everybody, and a block of code runs in the middle of its step, on the thread that
vLLM computes on. So the block's time is everybody's time. A timer interrupts it with an exception, which ends
that block and its run alone, as any error of its own would; one that catches that too ends the process after
some tries, because nothing else would, and the engine is started again. Memory is bounded by the kernel, only
while a block runs: what it asks for beyond is refused where it asks. On a GPU the device's own memory is the
bound.

Pure: no vLLM, no NNsight; `mediators.py` puts it around them.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from greenlet import getcurrent

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 0.5
MOST_TRIES = 4
"""So often a block is interrupted that goes on, before its process ends."""
IGNORED_EXIT = 70
BOUNDS = {"seconds": 30.0, "memory": 2 << 30}
"""Of code in an engine that nobody has told any."""


class BlockLimitError(RuntimeError):
    """A block took more than it may."""


class BlockLeftError(RuntimeError):
    """A block raised what would end the process: `SystemExit`, `KeyboardInterrupt`."""


class Clock:
    """The time that one run's code has taken in all."""

    def __init__(self) -> None:
        self.used = 0.0
        """Seconds."""


class Guard:
    """Runs pieces of clients' code within bounds. One for each worker process."""

    def __init__(self, seconds: float, memory: int, *, on_cpu: bool) -> None:
        """
        Args:
            seconds: that the code of one run may take in all.
            memory: bytes of the host's that all code of clients may take together.
            on_cpu: whether tensors are in the host's memory, so that bounding it bounds them.
        """
        self._seconds = seconds
        self._memory = memory
        self._on_cpu = on_cpu
        self._ceiling: int | None = None
        """Of the process's address space, while code of clients is about; None where none is."""
        self._owner: Any = None
        """The greenlet whose code the timer is set for."""
        self._tries = 0
        self._handles = False

    def idle(self) -> None:
        """No code of clients is about: what the process has now is its own."""
        self._ceiling = None

    @contextmanager
    def watching(self, owner: Any, clock: Clock) -> Iterator[None]:
        """Run what is in the context within bounds.

        Args:
            owner: the greenlet that runs it.
            clock: of the run; the time is put down there.

        Raises:
            BlockLimitError: inside, when the time is over; or at once, when it was over before.
        """
        left = self._seconds - clock.used
        if left <= 0:
            raise BlockLimitError(self._why_time())
        outer, self._owner, tries, self._tries = self._owner, owner, self._tries, 0
        began = time.monotonic()
        self._set_timer(left)
        memory = self._bound_memory()
        try:
            yield
        except BaseException as error:
            self._say_memory(error)
            raise
        finally:
            if memory is not None:
                resource.setrlimit(resource.RLIMIT_AS, memory)
            self._owner, self._tries = outer, tries
            clock.used += time.monotonic() - began
            self._set_timer(0 if outer is None else self._seconds)

    # ------------------------------------------------------------ time

    def _set_timer(self, seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # signals come to the main thread only; whoever hangs is found by the server
        if not self._handles:
            signal.signal(signal.SIGALRM, self._over)
            self._handles = True
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_SECONDS if seconds else 0)

    def _over(self, _number: int, _frame: Any) -> None:
        """The timer's signal, in whatever code runs. A block may be interrupted, and never the model."""
        if self._owner is None or getcurrent() is not self._owner:
            return
        self._tries += 1
        if self._tries > MOST_TRIES:
            logger.critical("%s It went on all the same, so its process ends.", self._why_time())
            os._exit(IGNORED_EXIT)
        raise BlockLimitError(self._why_time())

    def _why_time(self) -> str:
        return (
            f"The code of this run has taken {self._seconds:g} s, which is all that it may "
            "(--nnsight-seconds): while it runs, everybody else waits."
        )

    # ------------------------------------------------------------ memory

    def _bound_memory(self) -> tuple[int, int] | None:
        """Bound the address space; returns what the bound was before."""
        if not self._on_cpu:
            return None
        before = resource.getrlimit(resource.RLIMIT_AS)
        if self._ceiling is None:
            self._ceiling = held_bytes() + self._memory
        hard = before[1]
        soft = self._ceiling if hard == resource.RLIM_INFINITY else min(self._ceiling, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        return before

    def _say_memory(self, error: BaseException) -> None:
        """Say which bound it was, where memory was refused; the error keeps its type."""
        text = str(error)
        if isinstance(error, MemoryError) or "can't allocate memory" in text or "CUDA out of memory" in text:
            bound = (
                f"The server lets clients' code take {self._memory / (1 << 30):g} GiB (--nnsight-memory-gib)."
            )
            error.args = (f"{text or 'Memory was refused.'} {bound if self._on_cpu else ''}".rstrip(),)


def held_bytes() -> int:
    """Address space of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
