"""Peers that do not read, or do not go on, against uvicorn with our protocols: each is gone within seconds.

No engine and nothing of Steersight's: tiny applications, raw sockets, and both event loops, because what a
transport does when it is closed is the loop's own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, cast

import pytest
import uvicorn
import uvloop
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from steersight.serving import configured
from steersight.ws import transport
from steersight.ws.transport import BoundedTransport

Body = Callable[[], Coroutine[Any, Any, None]]

SOON = 0.3
"""What the limits on time are set to here."""
PING = b"\x89\xfd" + bytes(4) + b"p" * 125
"""One ping of a client: masked with zeros, 125 bytes of payload."""


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    for name in ("CLOSING_SECONDS", "REQUEST_SECONDS", "STALL_SECONDS"):
        monkeypatch.setattr(transport, name, SOON)

    def run(body: Body) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(body(), 30))

    return run


async def until(there: Callable[[], object]) -> None:
    """Look again and again: neither uvicorn nor a transport tells."""
    while not there():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


class Served:
    """A running server."""

    def __init__(self, server: uvicorn.Server) -> None:
        self.server = server
        self.port = server.servers[0].sockets[0].getsockname()[1]

    @property
    def connections(self) -> list[Any]:
        return list(self.server.server_state.connections)

    def unsent(self) -> int:
        """Bytes that the server holds for its peers."""
        held = 0
        for protocol in self.connections:
            bounded = cast(BoundedTransport, protocol.transport)
            held += bounded._inner.get_write_buffer_size()
        return held

    async def until_nobody_is_left(self, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            await until(lambda: not self.connections)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, **changes: Any) -> AsyncIterator[Served]:
    config = configured(cast(Any, app), "127.0.0.1", 0)
    for name, value in {"lifespan": "off", **changes}.items():
        setattr(config, name, value)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    try:
        yield Served(server)
    finally:
        server.should_exit = True
        await task


@contextlib.contextmanager
def peer(served: Served) -> Any:
    """A socket with little room, on which nothing is read unless the test does."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", served.port))
        yield sock


async def shake_hands(sock: socket.socket, more: str = "") -> bytes:
    loop = asyncio.get_running_loop()
    key = base64.b64encode(bytes(16)).decode()
    request = (
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
    )
    await loop.sock_sendall(sock, request.encode())
    return await loop.sock_recv(sock, 4096)


async def until_refused(sock: socket.socket, data: bytes, most: int) -> int:
    """Send the same again and again; how many bytes went out until the server had enough."""
    loop = asyncio.get_running_loop()
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most:
            await loop.sock_sendall(sock, data)
            sent += len(data)
    return sent


async def listen(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, and take whatever comes."""
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


def talk(then: Callable[[Send], Awaitable[None]] | None = None) -> ASGIApp:
    """Accept, and send until the peer holds it up; then do something else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            async with asyncio.timeout(None if then is None else SOON):
                while True:
                    await send({"type": "websocket.send", "bytes": bytes(1 << 16)})
        except TimeoutError:
            assert then is not None
            await then(send)

    return app


def test_a_peer_that_pings_and_never_reads(run: Callable[[Body], None]) -> None:
    async def body() -> None:
        most = 0
        async with serving(listen) as served:

            async def watch() -> None:
                nonlocal most
                while True:
                    most = max(most, served.unsent())
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            with peer(served) as sock:
                assert b" 101 " in await shake_hands(sock)
                sent = await until_refused(sock, PING * 100, 64 << 20)
                await served.until_nobody_is_left(5)
            watching.cancel()
        assert sent < 64 << 20, "the server took all of it"
        assert most < 1 << 20, f"the server held {most} bytes"

    run(body)


def test_pongs_reach_a_peer_that_reads(run: Callable[[Body], None]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        async with serving(listen) as served:
            with peer(served) as sock:
                await shake_hands(sock)

                async def read(bytes_left: int) -> None:
                    while bytes_left:
                        bytes_left -= len(await loop.sock_recv(sock, min(65536, bytes_left)))

                pongs = asyncio.create_task(read(20_000 * 127))
                assert await until_refused(sock, PING * 100, 20_000 * len(PING)) == 20_000 * len(PING)
                await pongs

    run(body)


def test_closing_does_not_wait_for_a_peer_that_never_reads(run: Callable[[Body], None]) -> None:
    took: list[float] = []

    async def close(send: Send) -> None:
        began = time.monotonic()
        await send({"type": "websocket.close", "code": 4508})
        took.append(time.monotonic() - began)

    async def body() -> None:
        async with serving(talk(close)) as served:
            with peer(served) as sock:
                await shake_hands(sock)
                await served.until_nobody_is_left(SOON + 2 * SOON + 2)
        assert took[0] < SOON

    run(body)


def test_a_peer_that_never_reads_and_misses_its_ping(run: Callable[[Body], None]) -> None:
    async def body() -> None:
        async with serving(talk(), ws_ping_interval=SOON, ws_ping_timeout=SOON) as served:
            with peer(served) as sock:
                await shake_hands(sock)
                await served.until_nobody_is_left(3 * SOON + 2)

    run(body)


def test_a_peer_that_never_reads_and_says_it_is_done(run: Callable[[Body], None]) -> None:
    async def body() -> None:
        async with serving(talk()) as served:
            with peer(served) as sock:
                await shake_hands(sock)
                await until(lambda: served.unsent() > 1 << 16)
                sock.shutdown(socket.SHUT_WR)
                await served.until_nobody_is_left(SOON + 2)

    run(body)


def test_the_application_sees_whether_the_peer_takes_what_it_is_sent(run: Callable[[Body], None]) -> None:
    seen: list[bool] = []
    full = asyncio.Event()
    empty = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        writable = scope["extensions"][transport.WRITABLE]
        await receive()
        await send({"type": "websocket.accept"})
        seen.append(writable.is_set())
        while writable.is_set():
            await send({"type": "websocket.send", "bytes": bytes(1 << 16)})
        full.set()
        await writable.wait()
        empty.set()

    async def body() -> None:
        loop = asyncio.get_running_loop()
        async with serving(app) as served:
            with peer(served) as sock:
                await shake_hands(sock)
                await full.wait()
                while not empty.is_set():
                    await loop.sock_recv(sock, 1 << 16)

    run(body)
    assert seen == [True]


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("here")(scope, receive, send)


async def answer_at_length(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000):
        await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})


@pytest.mark.parametrize(
    "first",
    [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\n"],
    ids=["nothing", "half a line", "half the headers", "empty lines after a request"],
)
def test_a_request_that_does_not_come(run: Callable[[Body], None], first: bytes) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        async with serving(answer) as served:
            with peer(served) as sock:
                await loop.sock_sendall(sock, first)
                await until(lambda: served.connections)
                drip = asyncio.create_task(until_refused_slowly(sock, b"\r\n" if b"\n\n" in first else b"a"))
                await served.until_nobody_is_left(SOON + 5 + 2)
                drip.cancel()

    run(body)


async def until_refused_slowly(sock: socket.socket, byte: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, byte)
            await asyncio.sleep(0.05)


def test_headers_without_end(run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "REQUEST_SECONDS", 20)

    async def body() -> None:
        async with serving(answer) as served:
            with peer(served) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"GET / HTTP/1.1\r\n")
                assert await until_refused(sock, b"a: " + b"b" * 1000 + b"\r\n", 16 << 20) < 16 << 20
                await served.until_nobody_is_left(5)

    run(body)


def test_an_answer_that_nobody_takes(run: Callable[[Body], None]) -> None:
    async def body() -> None:
        async with serving(answer_at_length) as served:
            with peer(served) as sock:
                await asyncio.get_running_loop().sock_sendall(sock, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await until(served.unsent)
                await served.until_nobody_is_left(SOON + 2)

    run(body)


def masked(first: int, payload: bytes = b"") -> bytes:
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (masked(0x02, b"x") + masked(0x00) * 2000, b"The message comes in too many pieces."),
        (masked(0x82, b"x") * 5000, b"Too many messages at once."),
    ],
    ids=["pieces", "messages"],
)
def test_a_thousand_nothings(run: Callable[[Body], None], data: bytes, sentence: bytes) -> None:
    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(1)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        async with serving(never) as served:
            with peer(served) as sock:
                await shake_hands(sock)
                await loop.sock_sendall(sock, data)
                closed = await loop.sock_recv(sock, 4096)
                assert closed[2:4] == (1008).to_bytes(2, "big")
                assert closed[4:] == sentence
                await served.until_nobody_is_left(SOON + 2)

    run(body)


def test_a_handshake_with_too_many_headers_is_answered(run: Callable[[Body], None]) -> None:
    async def body() -> None:
        async with serving(listen) as served:
            with peer(served) as sock:
                many = "".join(f"X-{number}: 1\r\n" for number in range(200))
                assert b" 431 " in await shake_hands(sock, many)
                await served.until_nobody_is_left(SOON + 2)

    run(body)


def test_a_refused_handshake_is_no_error_of_ours(
    run: Callable[[Body], None], caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("Not you.", 403)(scope, receive, send)

    async def body() -> None:
        async with serving(refuse) as served:
            with peer(served) as sock:
                said = await shake_hands(sock)
                assert b" 403 " in said
                assert said.endswith(b"Not you.")
                await served.until_nobody_is_left(SOON + 2)

    with caplog.at_level(logging.WARNING):
        run(body)
    assert caplog.messages == []


async def say_goodbye(sock: socket.socket, payload: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, masked(0x88, payload))


async def hang_up(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_RDWR)


async def vanish(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def say_nothing(_sock: socket.socket) -> None:
    pass


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (lambda sock: say_goodbye(sock, b"\x03\xe9"), 1001),
        (lambda sock: say_goodbye(sock, b""), 1005),
        (hang_up, 1006),
        (vanish, 1006),
        (say_nothing, 1011),
    ],
    ids=["with a code", "without a code", "FIN", "RST", "no pong"],
)
def test_the_application_hears_how_it_ended(
    run: Callable[[Body], None], how: Callable[[socket.socket], Awaitable[None]], code: int
) -> None:
    heard: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        heard.append(message["code"])

    async def body() -> None:
        silence = {"ws_ping_interval": SOON, "ws_ping_timeout": SOON} if how is say_nothing else {}
        async with serving(app, **silence) as served:
            with peer(served) as sock:
                await shake_hands(sock)
                await how(sock)
                async with asyncio.timeout(10):
                    await until(lambda: bool(heard))

    run(body)
    assert heard == [code]
