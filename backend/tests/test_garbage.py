"""Full collections happen in the pauses, and what loading has made is set aside."""

from __future__ import annotations

import subprocess
import sys

from steersight.garbage import LOOK_SECONDS, OVERDUE_SECONDS, Sweeper


class Server:
    def __init__(self) -> None:
        self.idle = True
        self.swept = 0
        self.sweeper = Sweeper(lambda: self.idle, self._sweep)

    def _sweep(self) -> None:
        self.swept += 1


def test_it_sweeps_once_after_each_time_of_work() -> None:
    server = Server()
    server.sweeper.look(LOOK_SECONDS)
    assert server.swept == 0, "nothing has been done yet"
    server.idle = False
    for _ in range(10):
        server.sweeper.look(LOOK_SECONDS)
    assert server.swept == 0, "somebody was waiting"
    server.idle = True
    for _ in range(10):
        server.sweeper.look(LOOK_SECONDS)
    assert server.swept == 1


def test_a_server_that_is_never_idle_is_swept_when_it_is_overdue() -> None:
    server = Server()
    server.idle = False
    for _ in range(3):
        server.sweeper.look(OVERDUE_SECONDS)
    assert server.swept == 3


SET_ASIDE = """
import gc
from steersight.garbage import set_aside
kept = [[] for _ in range(100_000)]
set_aside()
assert gc.get_freeze_count() >= 100_000
full = gc.get_stats()[2]["collections"]
made = [[[]] for _ in range(400_000)]
assert gc.get_stats()[1]["collections"] > 0
assert gc.get_stats()[2]["collections"] == full, "a full collection has happened by itself"
"""


def test_no_full_collection_happens_by_itself_once_things_are_set_aside() -> None:
    done = subprocess.run([sys.executable, "-c", SET_ASIDE], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
