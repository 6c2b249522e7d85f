"""The server as a process: how it starts, and how it ends.

Ending is a promise to whoever runs it (a shell, a container, systemd). At the first SIGTERM or SIGINT the
server takes no new runs, lets live replies finish for `drain_seconds` and tells those that could not; a
second one does not wait. Either way it leaves no process behind and gives exit status 0, also while the
engine is still loading. Loading cannot be interrupted (it imports and maps for half a minute), so it is left
where it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from . import machine
from .engine.service import EngineService
from .ws.transport import HttpProtocol, WebSocketProtocol

# What one WebSocket message may weigh before it is even read; the protocol's own limit is below, and is the
# one that a client is told of in a sentence.
TRANSPORT_LIMIT = 1024 * 1024
OPEN_FILES = 65_536
BACKLOG = 2048
"""Connections that may wait to be taken; uvicorn's own."""


def configured(application: ASGIApp, host: str, port: int) -> uvicorn.Config:
    """How an application is served; tests serve it alike."""
    return uvicorn.Config(
        application, host=host, port=port, http=HttpProtocol, ws=WebSocketProtocol,
        ws_max_size=TRANSPORT_LIMIT, ws_ping_interval=10.0, ws_ping_timeout=10.0,
        # Blocks of half floats hardly shrink: deflate took 7 % off blocks of one row of a real reply, 22 %
        # off blocks of 16. Every connection would pay a window's memory for it, and what is compressed
        # together with text of a stranger's choice tells him about itself by its length (CRIME).
        ws_per_message_deflate=False,
        log_config=None, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=5,
    )  # fmt: skip


class PortError(RuntimeError):
    """The server cannot listen where it was told to; the message is one sentence that says what to do."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Take a port at every address of a host; connections wait until the server serves.

    Args:
        host: name or address; empty is every address of this machine.
        port: 0 lets the system choose, the same at every address.

    Raises: PortError.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, (name, _, *more) in dict.fromkeys(found):
            taken = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bound(family, kind, protocol, (name, taken, *more)))
            except OSError as error:
                # A machine without IPv6 may name its address all the same.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or len(found) == 1:
                    raise
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, "no address of it belongs to this machine")
    except OSError as error:
        for taken_socket in sockets:
            taken_socket.close()
        raise PortError(_refusal(host, port, error)) from error
    return sockets


def _bound(family: int, kind: int, protocol: int, address: tuple[str | int, ...]) -> socket.socket:
    taken = socket.socket(family, kind, protocol)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(address)
        # From here on nobody else can have it. Who comes early waits in the queue.
        taken.listen(BACKLOG)
    except OSError:
        taken.close()
        raise
    return taken


def _refusal(host: str, port: int, error: OSError) -> str:
    user, trouble = machine.listening(host, port)
    if user is not None:
        return (
            f"Port {port} is taken by {'another ' if user == 'Steersight' else ''}{user}; end it, or take "
            "another port: --port 8001, or `make run PORT=8001`."
        )
    return (
        f"The server cannot listen at {host or 'any address'}, port {port}: {trouble or error.strerror}; "
        "name another address of this machine with --host, or another port with --port."
    )


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which lets the application finish what it is at before it closes its doors."""

    def __init__(
        self, config: uvicorn.Config, drain: Callable[[], Awaitable[None]], started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._said_started = started
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop: a signal handler has none."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._said_started()

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


def serve(application: Starlette, sockets: list[socket.socket], host: str, say: Callable[[str], None]) -> int:
    """Serve until told to end; returns the exit status.

    Args:
        application: what `create_app` has made.
        sockets: what `listen` has taken.
        host: what it is called.
        say: gets the sentence that it serves, once that is so.
    """
    port = sockets[0].getsockname()[1]
    called = f"[{host}]" if ":" in host else host or "0.0.0.0"  # noqa: S104
    server = DrainingServer(
        configured(application, host, port),
        application.state.drain,
        lambda: say(f"Steersight serves http://{called}:{port} while the engine loads."),
    )

    def end(_signal: int, _frame: FrameType | None) -> None:
        # uvicorn takes the signals over while it serves, and raises them once more when it is done, so that
        # a process ends by the signal that ended it. Having done as it was told is no failure.
        if not server.should_exit:
            raise SystemExit(0)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, end)
    allow_many_files()
    server.run(sockets)
    if application.state.engine.abandoned:
        leave_now(application.state.engine)
    return 0


def allow_many_files() -> None:
    """Every connection is an open file, and most systems let a process have 1024 unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def leave_now(engine: EngineService) -> None:
    """End this process and the engine it was starting, without waiting for the thread that is at it."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Multiprocessing's resource tracker is left alone: it frees what this process itself has in shared
    # memory, and ends when it sees it gone.
    engine.kill()
    os._exit(0)
