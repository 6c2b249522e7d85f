"""Opens connections: where people come in, and where a client comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from ..address import server_at
from ..protocol import codec
from ..protocol.messages import SUBPROTOCOL, Hello
from .connection import Client, Dial
from .errors import SteersightError

PATIENCE_SECONDS = 30.0
"""As long as a server keeps a run that nobody watches, unless it was told otherwise."""


@asynccontextmanager
async def connect(
    url: str, token: str | None = None, *, patience: float = PATIENCE_SECONDS
) -> AsyncIterator[Client]:
    """Open a connection and say hello; `client.engine` is known once `ready` has returned.

    Args:
        url: address of the server in any form that `address.server_at` reads, such as 127.0.0.1:8000.
        token: what the server asks for, if it does; without one, that of STEERSIGHT_TOKEN.
        patience: seconds to try to come back when the line is lost; 0 gives up at once. Runs are resumed.

    Raises: SteersightError when no server answers, or it refuses; ValueError for what is no address.
    """
    call = dialer(url, token)
    client = Client(await call())
    reader = asyncio.create_task(client.keep(call, patience))
    try:
        yield client
    finally:
        reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reader
        await client.leave()


def dialer(url: str, token: str | None = None) -> Dial:
    """What opens one connection to a server and says hello, each time it is called.

    Args:
        url: as for `connect`.
        token: as for `connect`.

    Raises: ValueError for what is no address; what is returned raises SteersightError when no server answers.
    """
    socket_url = server_at(url).socket
    token = token or os.environ.get("STEERSIGHT_TOKEN") or None

    async def call() -> ClientConnection:
        try:
            socket = await dial(socket_url, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=None)
            await socket.send(codec.encode(Hello(token=token)))
        except InvalidStatus as error:
            said = (error.response.body or b"").decode(errors="replace").strip()
            raise SteersightError(
                "disconnected", said or f"The server at {socket_url} answered {error.response.status_code}."
            ) from None
        except (OSError, InvalidHandshake, ConnectionClosed) as error:
            raise SteersightError(
                "disconnected",
                f"No Steersight server answers at {socket_url} ({error}). Start one with `make run`.",
            ) from None
        return socket

    return call
