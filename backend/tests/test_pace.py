"""The pace of messages follows the load of the event loop, by a clock that the test turns; and its rounds."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from itertools import pairwise

import pytest

from steersight.ws.pace import (
    FIRST_SECONDS,
    FREE,
    FULL,
    LATE_SECONDS,
    MOST_SECONDS,
    SENDING_SHARE,
    WINDOW_SECONDS,
    Pace,
)

stand_still = time.sleep


class Loop:
    """A loop that works a given share of its time."""

    def __init__(self) -> None:
        self.now = self.worked = 0.0
        self.pace = Pace(lambda: self.now, lambda: self.worked)

    def live(self, share: float, windows: int) -> list[float]:
        """The intervals over so many windows."""
        found = []
        for _ in range(windows):
            self.now += WINDOW_SECONDS
            self.worked += share * WINDOW_SECONDS
            found.append(self.pace.interval())
        return found


def test_a_loop_with_time_left_sends_at_once() -> None:
    assert set(Loop().live(0.5, 40)) == {0.0}


def test_a_full_loop_slows_down_in_steps_and_no_further_than_two_display_frames() -> None:
    found = Loop().live(1.0, 40)
    assert found[0] == FIRST_SECONDS
    assert found == sorted(found)
    assert found[-1] == MOST_SECONDS


def test_between_the_two_marks_it_stays_and_below_them_it_comes_back() -> None:
    loop = Loop()
    loop.live(1.0, 4)
    (held,) = set(loop.live((FULL + FREE) / 2, 20))
    assert held > 0
    assert loop.live(0.1, 40)[-1] == 0.0


def test_the_load_is_looked_at_once_a_window() -> None:
    loop = Loop()
    loop.now += WINDOW_SECONDS / 2
    loop.worked += WINDOW_SECONDS / 2
    assert loop.pace.interval() == 0.0
    loop.now += WINDOW_SECONDS / 2
    loop.worked += WINDOW_SECONDS / 2
    assert loop.pace.interval() == FIRST_SECONDS


async def test_a_round_calls_each_once_and_comes_next() -> None:
    pace, called = Loop().pace, list[str]()
    sends = [partial(called.append, name) for name in "abc"]
    for send in (sends[0], sends[1], sends[0]):
        pace.soon(send)
    assert called == []
    await asyncio.sleep(0)
    assert called == ["a", "b"]
    # Who asks for another round from within one is in the next.
    pace.soon(lambda: pace.soon(sends[2]))
    await asyncio.sleep(0)
    assert called == ["a", "b"]
    await asyncio.sleep(0)
    assert called == ["a", "b", "c"]


async def test_rounds_of_a_full_loop_keep_their_distance() -> None:
    full = Loop()
    full.live(1.0, 40)
    loop, rounds, over = asyncio.get_running_loop(), list[float](), asyncio.Event()

    def send() -> None:
        rounds.append(loop.time())
        if len(rounds) == 4:
            over.set()
        else:
            full.pace.soon(send)

    full.pace.soon(send)
    await over.wait()
    assert min(later - one for one, later in pairwise(rounds)) >= MOST_SECONDS * 0.9


async def test_a_loop_that_is_behind_slows_down_though_it_works_little() -> None:
    """As where other processes have the processor."""
    idle = Loop()
    idle.pace.soon(lambda: None)
    stand_still(2 * LATE_SECONDS)
    await asyncio.sleep(0)
    assert idle.live(0.1, 1) == [FIRST_SECONDS]
    assert idle.live(0.1, 1) == [0.0]


async def test_rounds_that_take_long_leave_the_loop_time_for_the_rest() -> None:
    pace, loop, began, over = Loop().pace, asyncio.get_running_loop(), list[float](), asyncio.Event()

    def send() -> None:
        began.append(loop.time())
        stand_still(0.02)
        over.set()

    for _ in range(3):
        over.clear()
        pace.soon(send)
        await over.wait()
    assert began[2] - began[1] >= 0.02 / SENDING_SHARE * 0.9


async def test_one_round_that_takes_long_does_not_delay_the_next() -> None:
    pace, loop = Loop().pace, asyncio.get_running_loop()
    for took, pause in (((0.0, 9.0), 0.0), ((9.0, 3.0), 9.0), ((9.0, 9.0), 27.0)):
        pace._last, pace._took, pace._due_at = loop.time(), took, None
        pace.soon(lambda: None)
        assert pace._due_at is not None
        if pause:
            assert pace._due_at - pace._last == pytest.approx(pause)
        else:
            assert pace._due_at <= loop.time(), "it is not to come at once"
