"""The server as a process: how it starts, and how it ends.

Ending is a promise to whoever runs it (a shell, a container, systemd): SIGTERM and SIGINT end live replies
and the engine, leave no process behind and give exit status 0, also while the engine is still loading.
Loading cannot be interrupted (it imports and maps for half a minute), so it is left where it is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

# What one WebSocket message may weigh before it is even read; the protocol's own limit is far below.
TRANSPORT_LIMIT = 8 * 1024 * 1024


def configured(application: ASGIApp, host: str, port: int) -> uvicorn.Config:
    """How this server speaks HTTP and WebSocket; tests of the transport serve other applications with it."""
    return uvicorn.Config(
        application, host=host, port=port, ws="websockets-sansio", ws_max_size=TRANSPORT_LIMIT,
        ws_ping_interval=10.0, ws_ping_timeout=10.0, log_level="warning", timeout_graceful_shutdown=5,
    )  # fmt: skip


def serve(application: Starlette, host: str, port: int) -> int:
    """Serve until told to end; returns the exit status. Exits with 3 where the port cannot be had."""
    server = uvicorn.Server(configured(application, host, port))

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
