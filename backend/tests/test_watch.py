"""When an engine is hung, how often it is started again, and what of it is removed: without an engine."""

from __future__ import annotations

import signal
import subprocess
import sys
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersight.engine import family
from steersight.engine.family import Family
from steersight.engine.watch import HEALTHY_SECONDS, MOST_SECONDS_PER_TICK, TRIES, Restarts, Silence


def ticks(silence: Silence, seconds: float, owed: bool = True) -> None:
    for _ in range(round(seconds / 0.2)):
        silence.tick(0.2, owed)


def test_silence_is_told_early_and_ends_at_the_limit() -> None:
    silence = Silence(60.0)
    ticks(silence, 14.8)
    assert (silence.quarter, silence.hung) == (0, False)
    ticks(silence, 0.6)
    assert (silence.quarter, silence.hung) == (1, False)
    ticks(silence, 45)
    assert (silence.quarter, silence.hung) == (4, True)


def test_a_sign_of_life_and_having_nothing_to_answer_end_it() -> None:
    silence = Silence(4.0)
    ticks(silence, 3)
    silence.heard()
    ticks(silence, 3)
    assert not silence.hung
    ticks(silence, 0.2, owed=False)
    ticks(silence, 3)
    assert not silence.hung
    ticks(silence, 2)
    assert silence.hung


@given(st.lists(st.floats(0, 1e6), max_size=20))
def test_time_in_which_the_server_itself_stood_still_proves_nothing(gaps: list[float]) -> None:
    silence = Silence(60.0)
    for gap in gaps:
        silence.tick(gap, True)
    assert silence.seconds <= len(gaps) * MOST_SECONDS_PER_TICK
    assert not silence.hung


def test_pauses_grow_and_end() -> None:
    restarts = Restarts()
    restarts.lost(10)
    assert [restarts.next_pause() for _ in range(TRIES + 1)] == [1, 2, 4, 8, 16, None]


def test_an_engine_that_keeps_ending_is_given_up_and_one_that_was_healthy_is_not() -> None:
    restarts = Restarts()
    for _ in range(TRIES):
        restarts.lost(HEALTHY_SECONDS - 1)
        assert restarts.next_pause() is not None
    restarts.lost(HEALTHY_SECONDS - 1)
    assert restarts.next_pause() is None
    for _ in range(TRIES + 1):
        restarts.lost(HEALTHY_SECONDS)
        assert restarts.next_pause() == 1


CHILD = """
import multiprocessing, subprocess, sys, time
from multiprocessing import resource_tracker, shared_memory
resource_tracker._resource_tracker._fd = int(sys.argv[1])  # the parent's, as spawned processes have it
memory = shared_memory.SharedMemory(create=True, size=4096)
lock = multiprocessing.get_context("spawn").Lock()
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(memory.name, "sem." + lock._semlock.name.strip("/"), grandchild.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path(family.SHARED_MEMORY).is_dir(), reason="there is no /dev/shm")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_killed_or_stopped_family_leaves_is_removed_and_nothing_else(number: signal.Signals) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    kept = shared_memory.SharedMemory(create=True, size=4096)
    mine = Family()
    tracker = resource_tracker.getfd()
    command = [sys.executable, "-c", CHILD, str(tracker)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, pass_fds=[tracker])  # noqa: S603
    try:
        assert child.stdout is not None
        *remains, grandchild = child.stdout.readline().split()
        mine.settle([child.pid], [int(grandchild), 1])
        assert not mine.broken
        child.send_signal(number)
        if number == signal.SIGKILL:
            child.wait()
            assert mine.broken
        assert all(Path(family.SHARED_MEMORY, name).exists() for name in remains)
        mine.end()
        assert not any(Path(family.SHARED_MEMORY, name).exists() for name in remains)
        assert not psutil.pid_exists(int(grandchild)) or psutil.Process(int(grandchild)).status() == "zombie"
        assert stranger.poll() is None
        assert Path(family.SHARED_MEMORY, kept.name).exists()
    finally:
        for process in (child, stranger):
            process.kill()
            process.wait()
        kept.close()
        kept.unlink()
