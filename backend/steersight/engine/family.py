"""The processes of one engine, and what they leave behind when they are killed.

An engine that is asked to end cleans up after itself. One that was killed, or hangs, does not: its workers
may live on without their parent, and its shared memory stays in /dev/shm for as long as the server runs,
because the one process that would remove it (multiprocessing's resource tracker) waits for the server's end.
What is ours is known by looking at the processes while they live: who they are, and which files of /dev/shm
they have mapped. Nothing is told by its name, so that another program's memory is never touched: a semaphore
is mapped under another name than the one it is found by, and only the file itself (its inode) is the same.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable
from multiprocessing import resource_tracker
from pathlib import Path

import psutil

logger = logging.getLogger(__name__)

SHARED_MEMORY = "/dev/shm/"  # noqa: S108  # where Linux keeps it
KILL_SECONDS = 10.0


class Family:
    """One engine's processes. Blocking calls: they read /proc, and `end` waits for the dead."""

    def __init__(self) -> None:
        # Started now, so that it counts as one of those that were there before.
        resource_tracker.ensure_running()
        self._before = set(psutil.Process().children(recursive=True))
        self._roots: list[psutil.Process] | None = None
        self._members: set[psutil.Process] = set()
        self._vital: list[psutil.Process] = []
        self._remains: set[int] = set()

    def settle(self, roots: Iterable[int], ranks: Iterable[int]) -> None:
        """Told once the engine is up.

        Args:
            roots: ids of the processes that this server has started for it.
            ranks: ids of its workers, as they say themselves. Those of other machines are not ours to watch.
        """
        self._roots = [psutil.Process(pid) for pid in roots]
        self._members.clear()
        self.note()
        named = set(ranks)
        self._vital = [*self._roots, *(member for member in self._members if member.pid in named)]

    def note(self) -> None:
        """Look who belongs to it by now, and what shared memory they have."""
        if self._roots is None:
            # While it loads nobody says which processes are the engine's: all that are new.
            self._members |= set(psutil.Process().children(recursive=True)) - self._before
        for root in self._roots or []:
            self._members.add(root)
            with contextlib.suppress(psutil.NoSuchProcess):
                self._members.update(root.children(recursive=True))
        for member in self._members:
            self._remains |= shared_memory(member.pid)

    @property
    def broken(self) -> bool:
        """Whether a process is gone that the engine cannot do without."""
        return any(not _alive(process) for process in self._vital)

    @property
    def memory(self) -> int:
        """Bytes that its processes have for themselves, and that would be free without them."""
        total = 0
        for member in list(self._members):
            with contextlib.suppress(psutil.Error):
                held = member.memory_info()
                total += held.rss - held.shared
        return total

    def end(self) -> None:
        """Kill what lives, stopped processes too, and remove what they had in shared memory."""
        self.note()
        # Parents first: nobody is there to start, or to miss, the others.
        for process in sorted(self._members, key=lambda member: member not in (self._roots or [])):
            with contextlib.suppress(psutil.Error):
                process.kill()
        # Not psutil.wait_procs: it would take the exit status of our own children, whom multiprocessing would
        # then believe alive for ever.
        until = time.monotonic() + KILL_SECONDS
        while (
            left := [member.pid for member in self._members if _alive(member)]
        ) and time.monotonic() < until:
            time.sleep(0.02)
        if left:
            logger.error("Processes %s of a lost engine do not end.", left)
        self._remove_remains()

    def _remove_remains(self) -> None:
        files = _files()
        left = [path for path, inode in files.items() if inode in self._remains]
        if left:
            # What somebody still uses is not a remain: the server has semaphores of its own in common with
            # the engine, and frees them itself.
            used = set().union(*map(shared_memory, psutil.pids()))
            for path in left:
                if files[path] not in used:
                    path.unlink(missing_ok=True)
                    _untrack(path.name)
        self._remains.clear()
        for member in self._members:
            # Intel's OpenMP registers a process under its id, and one that is killed does not take that back.
            if not _alive(member):
                for path in Path(SHARED_MEMORY).glob(f"__KMP_REGISTERED_LIB_{member.pid}_*"):
                    with contextlib.suppress(OSError):
                        path.unlink()


def shared_memory(pid: int) -> set[int]:
    """Inodes of the files of /dev/shm that a process has mapped; none where it is gone, or not ours to look
    at."""
    found = set()
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
            # address, permissions, offset, device, inode, path
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5].startswith(SHARED_MEMORY):
                found.add(int(fields[4]))
    return found


def _files() -> dict[Path, int]:
    """What is in /dev/shm now, with its inode."""
    try:
        with os.scandir(SHARED_MEMORY) as entries:
            return {Path(entry.path): entry.inode() for entry in entries}
    except OSError:
        return {}


def _untrack(name: str) -> None:
    """Let the resource tracker forget a file, or it warns at the server's end that it has leaked.

    The engine's processes share the server's tracker (spawned processes inherit it). It knows what Python
    made, by the names that Python gives: others were never its own.
    """
    if name.startswith("psm_"):
        resource_tracker.unregister(f"/{name}", "shared_memory")
    elif name.startswith("sem.mp-"):
        resource_tracker.unregister(f"/{name.removeprefix('sem.')}", "semaphore")


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
