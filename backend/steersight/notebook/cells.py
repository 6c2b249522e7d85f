"""The cells of the notebook that this process runs, where it runs one: whether one is being run, and what is
to be done when it ends.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from typing import Any

Work = Callable[[], bool]
"""Returns whether it need not be called again."""


class Cells:
    """Listens to IPython."""

    def __init__(self, events: Any) -> None:
        self.running = True  # it is made by one
        self._waiting: list[weakref.WeakMethod[Work]] = []
        events.register("pre_run_cell", self._begun)
        events.register("post_run_cell", self._ended)

    def at_the_end(self, work: Work) -> None:
        """Call a method at the end of each cell until it says that it is done, or its object is gone."""
        self._waiting.append(weakref.WeakMethod(work))

    def _begun(self, *_: object) -> None:
        self.running = True

    def _ended(self, *_: object) -> None:
        left = []
        for one in self._waiting:
            work = one()
            if work is not None and not work():
                left.append(one)
        self._waiting = left
        self.running = False


@functools.cache
def _cells() -> Cells | None:
    try:
        from IPython import get_ipython
    except ModuleNotFoundError:
        return None
    shell: Any = get_ipython()
    return None if shell is None else Cells(shell.events)


def running() -> bool:
    """Whether a cell is being run; False where there are none."""
    cells = _cells()
    return cells is not None and cells.running


def at_the_end(work: Work) -> None:
    """Call a method at the end of each cell until it says that it is done; nothing where there are none."""
    if (cells := _cells()) is not None:
        cells.at_the_end(work)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread, where one runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
