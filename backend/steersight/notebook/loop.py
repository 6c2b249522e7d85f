"""An event loop in a thread of its own, for those who call and wait.

A notebook's own loop stands still while a cell runs, so a client that lived in it would hear nothing then.
The thread is a daemon: it keeps no interpreter from ending.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..client import SteersightError

T = TypeVar("T")


class Loop:
    """One loop in one thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="steersight-notebook", daemon=True)
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for what it returns or raises. Ctrl+C ends the waiting and this work, and
        nothing else in the loop."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("This would wait for itself: in the client's own loop use `notebook.aopen`.")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except SteersightError as error:
            # It says all in its sentence; the way through the loop says nothing to whoever called.
            raise error.with_traceback(None) from None
        except BaseException:
            future.cancel()
            raise

    def call(self, work: Callable[[], T]) -> T:
        """Call a function there, between two frames, and wait for what it returns or raises."""
        if threading.current_thread() is self._thread:
            return work()

        async def called() -> T:
            return work()

        return self.wait(called())

    def start(self, work: Coroutine[Any, Any, Any]) -> concurrent.futures.Future[Any]:
        """Run it there and go on. Cancel what is returned to end it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)


@functools.cache
def shared() -> Loop:
    """The one that all of a process use."""
    return Loop()
