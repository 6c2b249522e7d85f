"""A proxy that serves another server behind a path prefix, on the loopback interface.

It does what nginx, Caddy and Traefik do when they are told to strip a prefix: the prefix goes from the
request's path, its `Host` stays, and a connection that is upgraded is passed on byte by byte. It knows
nothing of Steersight.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from urllib.parse import urlsplit

HEAD_BYTES = 64 * 1024


class PrefixProxy:
    """Serves `target` at `url`, which ends in the prefix and has no slash at its end."""

    def __init__(self, target: str, prefix: str) -> None:
        self._target = urlsplit(target)
        self._prefix = prefix.encode()
        self.url = ""
        self.elsewhere: list[str] = []
        """Request lines that did not begin with the prefix: the page left its place."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A connection may be cut by either side, and by the end of the loop.
        cut = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.closing(writer), contextlib.suppress(*cut):
            line, *headers = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
            method, path, version = line.split(b" ")
            if path == self._prefix:
                location = self._prefix + b"/"
                writer.write(_answer(b"308 Permanent Redirect", b"Location: " + location))
            elif not path.startswith(self._prefix + b"/"):
                self.elsewhere.append(line.decode("latin-1"))
                writer.write(_answer(b"404 Not Found"))
            else:
                upgrades = any(header.lower().startswith(b"upgrade:") for header in headers)
                if not upgrades:
                    # One request a connection, so that only its first bytes have to be read.
                    headers = [one for one in headers if not one.lower().startswith(b"connection:")]
                    headers.append(b"Connection: close")
                head = b" ".join((method, path.removeprefix(self._prefix), version))
                await self._pass_on(b"\r\n".join([head, *headers, b"", b""]), reader, writer)
            await writer.drain()

    async def _pass_on(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._target.hostname, self._target.port)
        with contextlib.closing(back):
            back.write(head)
            ways = [asyncio.create_task(_copy(reader, back)), asyncio.create_task(_copy(there, writer))]
            # The server's end of it is the end; what the browser still says then is for nobody.
            await ways[1]
            ways[0].cancel()

    @contextlib.contextmanager
    def running(self) -> Iterator[PrefixProxy]:
        """Serve in a thread of its own: Playwright's loop occupies the main one."""
        began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        thread = threading.Thread(target=lambda: asyncio.run(self._run(began)))
        thread.start()
        loop, end = began.result()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(end.set)
            thread.join()

    async def _run(self, began: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
        end = asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES)
        host, port = server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}{self._prefix.decode()}"
        began.set_result((asyncio.get_running_loop(), end))
        await end.wait()
        server.close()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()


def _answer(status: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join(
        [b"HTTP/1.1 " + status, *headers, b"Content-Length: 0", b"Connection: close", b"", b""]
    )
