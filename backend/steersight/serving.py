"""The server as a process: how it starts, and how it ends.

Ending is a promise to whoever runs it (a shell, a container, systemd). At the first SIGTERM or SIGINT the
server takes no new runs, lets live replies finish for `drain_seconds` and tells those that could not; a
second one does not wait. Either way it leaves no process behind and gives exit status 0, also while the
engine is still loading. Loading cannot be interrupted (it imports and maps for half a minute), so it is left
where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType

import psutil
import uvicorn
from starlette.applications import Starlette

# What one WebSocket message may weigh before it is even read; the protocol's own limit is far below.
TRANSPORT_LIMIT = 8 * 1024 * 1024


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which lets the application finish what it is at before it closes its doors."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(config)
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop: a signal handler has none."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end, the second does not wait for it."""
        if self._loop is None or self._draining is not None:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._begin_to_end, sig, frame)

    def _begin_to_end(self, sig: int, frame: FrameType | None) -> None:
        async def end() -> None:
            try:
                await self._drain()
            finally:
                super(DrainingServer, self).handle_exit(sig, frame)

        if self._draining is None:
            self._draining = asyncio.create_task(end(), name="drain")


def serve(application: Starlette, host: str, port: int) -> int:
    """Serve until told to end; returns the exit status. Exits with 3 where the port cannot be had."""
    server = DrainingServer(
        uvicorn.Config(
            application, host=host, port=port, ws="websockets-sansio", ws_max_size=TRANSPORT_LIMIT,
            ws_ping_interval=10.0, ws_ping_timeout=10.0, log_level="warning", timeout_graceful_shutdown=5,
        ),
        application.state.drain,
    )  # fmt: skip

    def end(_signal: int, _frame: FrameType | None) -> None:
        # uvicorn takes the signals over while it serves, and raises them once more when it is done, so that
        # a process ends by the signal that ended it. Having done as it was told is no failure.
        if not server.should_exit:
            raise SystemExit(0)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, end)
    server.run()
    if application.state.engine.abandoned:
        leave_now()
    return 0


def leave_now() -> None:
    """End this process and everything it started, without waiting for the thread that still loads."""
    sys.stdout.flush()
    sys.stderr.flush()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(0)
