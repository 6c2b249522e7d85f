"""Bounds of clients' code: only the code is interrupted, and it is told why; nothing of them is left."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time

import pytest
from greenlet import greenlet

from steersight.engine.tracing.guard import IGNORED_EXIT, BlockLimitError, Clock, Guard

MEMORY = 256 << 20


@pytest.fixture
def guard() -> Guard:
    return Guard(0.2, MEMORY, on_cpu=True)


def within(guard: Guard, clock: Clock, code: object) -> object:
    """Run it as a block is run, in a greenlet of its own; what it returns or raises."""
    worker = greenlet(code)
    with guard.watching(worker, clock):
        return worker.switch()


def test_a_loop_is_interrupted_and_its_time_is_over_for_good(guard: Guard) -> None:
    def loop() -> None:
        while True:
            pass

    clock = Clock()
    with pytest.raises(
        BlockLimitError, match=r"has taken 0.2 s, which is all that it may \(--nnsight-seconds\)"
    ):
        within(guard, clock, loop)
    assert clock.used >= 0.2
    with pytest.raises(BlockLimitError):
        within(guard, clock, lambda: "never run")
    assert within(guard, Clock(), lambda: "another run's") == "another run's"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_only_the_code_is_interrupted_and_never_who_waits_for_it(guard: Guard) -> None:
    """The model goes on computing in the greenlet that a block has parked in; the timer may still be set."""
    other = greenlet(lambda: None)
    began = time.monotonic()
    with guard.watching(other, Clock()):
        while time.monotonic() - began < 0.5:
            pass  # the signal comes in here, and this is not the code


def test_code_inside_of_code_has_its_own_time(guard: Guard) -> None:
    outer, inner = Clock(), Clock()

    def code() -> str:
        return str(within(guard, inner, lambda: "inner"))

    assert within(guard, outer, code) == "inner"
    assert 0 < inner.used <= outer.used < 0.2


def test_memory_is_refused_where_it_is_asked_for_and_the_bound_is_gone_afterwards(guard: Guard) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)

    def hoard() -> int:
        return len(bytearray(1 << 32))

    with pytest.raises(MemoryError, match=r"take 0.25 GiB \(--nnsight-memory-gib\)"):
        within(guard, Clock(), hoard)
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert within(guard, Clock(), lambda: len(bytearray(1 << 20))) == 1 << 20


def test_on_a_gpu_the_host_is_not_bounded() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    seen = within(Guard(1.0, MEMORY, on_cpu=False), Clock(), lambda: resource.getrlimit(resource.RLIMIT_AS))
    assert seen == before


def test_code_that_catches_its_interruption_ends_its_process() -> None:
    """Nothing else would end it."""
    code = """
from greenlet import greenlet
from steersight.engine.tracing import guard
guard.AGAIN_SECONDS = 0.05
def stubborn():
    while True:
        try:
            while True: sum(range(1000))
        except BaseException: pass
worker = greenlet(stubborn)
with guard.Guard(0.05, 1 << 30, on_cpu=False).watching(worker, guard.Clock()):
    worker.switch()
"""
    done = subprocess.run(  # noqa: S603 - what stands above
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == IGNORED_EXIT
    assert "It went on all the same, so its process ends." in done.stderr
