"""uvicorn's two protocols, made proof against peers that do not read or do not go on.

uvicorn 0.54 trusts a peer to take what it is sent. One that pings and never reads makes the server's buffer
grow without end, because pongs do not look at it. One that never reads keeps its socket for ever, because a
transport that is closed waits until its buffer has been taken. And one that never sends its request, or never
takes the answer, is waited for as long. Each of these ends here within seconds, and holds a bounded amount of
memory until then.

Nothing here knows Steersight: it is what every server on uvicorn could use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from uvicorn._types import ASGISendEvent
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

CLOSING_SECONDS = 5.0
"""How long a closed connection may take to deliver what it still holds."""
UNREAD_PONGS = 64 * 1024
"""Bytes of pongs for a peer that has stopped reading."""
MAX_FRAGMENTS = 1024
"""Pieces of one message. Empty ones weigh nothing on the wire, and a list entry each here."""
MAX_WAITING = 1024
"""Messages that wait for the application. Reading stops at the first; so many came with it in one piece."""
REQUEST_SECONDS = 20.0
"""From the first byte of a request, or the beginning of the connection, to the end of its headers."""
MAX_HEAD = 64 * 1024
"""Bytes of a request's line and headers."""
STALL_SECONDS = 60.0
"""How long the answer to a request may wait for a peer that takes none of it."""

WRITABLE = "steersight.writable"
"""Extension in a WebSocket's scope: an `asyncio.Event` that is set while the transport takes more."""
SEND_ALL = "steersight.send_all"
"""Extension in a WebSocket's scope: `WebSocketProtocol.send_all`."""

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class BoundedTransport(asyncio.Transport):
    """A connection that is over soon after it is closed: what has not been taken by then is dropped."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._last: asyncio.TimerHandle | None = None
        self._over = False

    def close(self) -> None:
        """Close when all has been delivered, and after `CLOSING_SECONDS` in any case."""
        self._inner.close()
        if self._last is None and not self._over:
            self._last = self._loop.call_later(CLOSING_SECONDS, self._inner.abort)

    def over(self) -> None:
        """The connection is lost: there is nothing more to end."""
        self._over = True
        if self._last is not None:
            self._last.cancel()

    # What uvicorn asks of a transport besides; anything else would raise NotImplementedError.

    def abort(self) -> None:
        self._inner.abort()

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._inner.write(data)

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._inner.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)


class HttpProtocol(HttpToolsProtocol):
    """HTTP with a limit on a request's head, and on the time of both directions."""

    _head = 0
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(BoundedTransport(transport, self.loop))
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_here()
        self.resume_writing()
        super().connection_lost(exc)
        cast(BoundedTransport, self.transport).over()

    def eof_received(self) -> None:
        # Left to itself asyncio would close the real transport, and wait for ever until it is empty.
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        super().data_received(data)
        if self._deadline is not None:
            self._head += len(data)
            if self._head > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's headers are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:  # of a request that comes while the one before is still answered
            self._await_head()

    def on_headers_complete(self) -> None:
        self._head_is_here()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self._stalled or self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _await_head(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.close)

    def _head_is_here(self) -> None:
        self._head = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Conversation(ServerProtocol):
    """websockets' protocol, with a close allowed where RFC 6455 (5.4) allows it."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            # Between the pieces of a message it is a close like any other; websockets answers it with 1002.
            self.current_size = None
        super().recv_frame(frame)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """WebSockets for peers that do not read, or send a thousand nothings."""

    _unread_pongs = 0

    def __init__(self, config: Config, *rest: Any, **more: Any) -> None:
        super().__init__(config, *rest, **more)
        self.conn = Conversation(extensions=[], max_size=config.ws_max_size, logger=self.logger)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The HTTP protocol hands over what it has bounded already.
        super().connection_made(cast(BoundedTransport, transport))
        self.close_timeout = CLOSING_SECONDS  # for the peer's answer to a close frame; then it is closed

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.handshake_complete:  # it has not been refused
            # The application has not begun: its task takes its first step after this.
            extensions = cast("dict[str, Any]", self.scope["extensions"])
            extensions[WRITABLE], extensions[SEND_ALL] = self.writable, self.send_all

    def connection_lost(self, exc: Exception | None) -> None:
        if self.handshake_complete and self.conn.close_rcvd is None:
            # Gone without a word. uvicorn would say 1005, which is a close frame without a code.
            self._tell(CloseCode.ABNORMAL_CLOSURE)
        super().connection_lost(exc)
        cast(BoundedTransport, self.transport).over()

    def eof_received(self) -> None:
        self.transport.close()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        if self.conn.close_sent is not None and self.conn.close_rcvd is None:
            self._tell(self.conn.close_sent.code)  # uvicorn lets the application find out for itself

    def resume_writing(self) -> None:
        self._unread_pongs = 0
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            # Headers that the HTTP parser takes and the WebSocket one does not: uvicorn says nothing and
            # waits.
            self.transport.write(b"".join(self.conn.data_to_send()) or BAD_REQUEST)
            self.transport.close()

    def handle_ping(self) -> None:
        pongs = b"".join(self.conn.data_to_send())
        if self.transport.is_closing():
            return
        if not self.writable.is_set():
            self._unread_pongs += len(pongs)
            if self._unread_pongs > UNREAD_PONGS:
                self.transport.abort()
                return
        self.transport.write(pongs)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:
            self._fail("The message comes in too many pieces.")
        elif not self.close_sent:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            # uvicorn writes a traceback for every text that is none: a stranger could fill the log.
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail("The text is not UTF-8.", CloseCode.INVALID_DATA)
                return
        if self.queue.qsize() >= MAX_WAITING:
            self._fail("Too many messages at once.")
        else:
            super().send_receive_event_to_app()

    def send_all(self, messages: Sequence[bytes]) -> None:
        """Send binary messages in one write, which costs little more than one message; the handshake is over.

        What the transport does not take at once it keeps: whoever calls this looks at `WRITABLE` first.

        Raises: OSError where the connection has ended, or is about to.
        """
        if self.disconnected or self.close_sent:
            raise ClientDisconnected
        try:
            for message in messages:
                self.conn.send_binary(message)
        except InvalidState:
            raise ClientDisconnected from None
        self.transport.write(b"".join(self.conn.data_to_send()))

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "websocket.close":
            # A close frame is small, and a peer that does not read must not hold up its own end.
            self.writable.set()
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            # uvicorn takes a handshake that was answered with a refusal for one that was forgotten, and
            # complains in the log.
            self.handshake_complete = True

    def _tell(self, code: int) -> None:
        """Let the application know how the connection ended; it takes the first word for it."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": int(code), "reason": ""})

    def _fail(self, reason: str, code: CloseCode = CloseCode.POLICY_VIOLATION) -> None:
        if not self.close_sent:
            self.frames = []
            self.conn.fail(code, reason)
            self.handle_parser_exception()
