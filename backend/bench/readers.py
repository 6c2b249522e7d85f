"""Clients that read everything and cost little: many WebSockets in one process, for measuring a server.

Only what a measurement needs of RFC 6455: a handshake, frames in both directions, pongs. A client of the
`websockets` package takes longer for a frame than the server, and would be what is measured.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from collections.abc import Callable
from typing import Any

import msgpack

from steersight.protocol.messages import SUBPROTOCOL

BINARY, CLOSE, PING, PONG = 0x82, 0x88, 0x89, 0x8A


class Reader(asyncio.Protocol):
    """One connection to a Steersight server."""

    def __init__(self, host: str, port: int, message: Callable[[Reader, bytes], None]) -> None:
        """`message` is called with each message's bytes."""
        self._host, self._port = host, port
        self._message = message
        self._buffer = bytearray()
        self._open = False
        self.lost = asyncio.get_running_loop().create_future()
        """Done when the connection is over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /ws HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        )
        self._transport.write(head.encode())

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)

    def send(self, message: dict[str, Any]) -> None:
        """One message, as msgpack."""
        self._frame(BINARY, msgpack.packb(message))

    def close(self) -> None:
        """End the connection, politely."""
        self._frame(CLOSE, struct.pack(">H", 1000))

    def _frame(self, kind: int, payload: bytes) -> None:
        size = len(payload)
        head = bytes([kind, 0x80 | size]) if size < 126 else struct.pack(">BBH", kind, 0x80 | 126, size)
        self._transport.write(head + bytes(4) + payload)  # masked with zeros, which changes nothing

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        if not self._open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not buffer.startswith(b"HTTP/1.1 101"):
                raise ConnectionError(bytes(buffer[:300]).decode(errors="replace"))
            self._open, at = True, end + 4
            self.send({"type": "hello"})
        while len(buffer) - at >= 2:
            size, head = buffer[at + 1], 2
            if size == 126:
                head = 4
            elif size == 127:
                head = 10
            if len(buffer) - at < head:
                break
            if head > 2:
                size = int.from_bytes(buffer[at + 2 : at + head], "big")
            if len(buffer) - at < head + size:
                break
            payload = bytes(buffer[at + head : at + head + size])
            kind = buffer[at]
            at += head + size
            if kind == BINARY:
                self._message(self, payload)
            elif kind == PING:
                self._frame(PONG, payload)
            elif kind == CLOSE:
                self._transport.close()
        if at:
            del buffer[:at]
