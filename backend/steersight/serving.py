"""The server as a process: how it starts, and how it ends.

Ending is a promise to whoever runs it (a shell, a container, systemd): SIGTERM and SIGINT end live replies
and the engine, leave no process behind and give exit status 0, also while the engine is still loading.
Loading cannot be interrupted (it imports and maps for half a minute), so it is left where it is.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from .engine.service import EngineService

# What one WebSocket message may weigh before it is even read; the protocol's own limit is far below.
TRANSPORT_LIMIT = 8 * 1024 * 1024


def serve(application: Starlette, host: str, port: int) -> int:
    """Serve until told to end; returns the exit status. Exits with 3 where the port cannot be had."""
    server = uvicorn.Server(
        uvicorn.Config(
            application, host=host, port=port, ws="websockets-sansio", ws_max_size=TRANSPORT_LIMIT,
            ws_ping_interval=10.0, ws_ping_timeout=10.0, log_level="warning", timeout_graceful_shutdown=5,
        )
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
        leave_now(application.state.engine)
    return 0


def leave_now(engine: EngineService) -> None:
    """End this process and the engine it was starting, without waiting for the thread that is at it."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Multiprocessing's resource tracker is left alone: it frees what this process itself has in shared
    # memory, and ends when it sees it gone.
    engine.kill()
    os._exit(0)
