"""RFC 6455 byte by byte: what the transport answers to each kind of frame, against an echo behind it.

The whole of Autobahn's suite runs with `make prove PROOF=autobahn`, where there is a Python 2.7. These are
its families in small, with an exact answer each, for every test run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct

import pytest

from bench.echo import echo
from steersight.serving import TRANSPORT_LIMIT

from .test_transport import peer, serving, shake_hands

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN = 0x80


def sent(opcode: int, payload: bytes = b"", first: int = FIN) -> bytes:
    """A client's frame, masked with a key that changes every byte."""
    key = b"\x5a\xa5\x3c\xc3"
    size = len(payload)
    if size < 126:
        head = bytes([first | opcode, 0x80 | size])
    elif size < 2**16:
        head = bytes([first | opcode, 0xFE]) + struct.pack(">H", size)
    else:
        head = bytes([first | opcode, 0xFF]) + struct.pack(">Q", size)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def got(opcode: int, payload: bytes = b"") -> bytes:
    """The server's frame: whole and not masked."""
    size = len(payload)
    if size < 126:
        return bytes([FIN | opcode, size]) + payload
    if size < 2**16:
        return bytes([FIN | opcode, 126]) + struct.pack(">H", size) + payload
    return bytes([FIN | opcode, 127]) + struct.pack(">Q", size) + payload


def close(code: int, reason: bytes = b"") -> bytes:
    """Payload of a close frame."""
    return struct.pack(">H", code) + reason


def part(opcode: int, payload: bytes = b"") -> bytes:
    """A piece that is not the last."""
    return sent(opcode, payload, first=0)


BYE = sent(CLOSE, close(1000))
BYE_BACK = got(CLOSE, close(1000))
WHOLE_TEXT = "Grüße, 世界, 🙂".encode()
LENGTHS = (0, 1, 125, 126, 127, 128, 65535, 65536, 100_000)

ANSWERED: dict[str, tuple[list[bytes], bytes]] = {
    **{
        f"echo of {size} bytes": ([sent(BINARY, bytes(size)), BYE], got(BINARY, bytes(size)) + BYE_BACK)
        for size in LENGTHS
    },
    **{
        f"echo of {size} letters": ([sent(TEXT, b"x" * size), BYE], got(TEXT, b"x" * size) + BYE_BACK)
        for size in LENGTHS
    },
    "a frame byte by byte": ([bytes([byte]) for byte in sent(TEXT, b"slow")] + [BYE],
                             got(TEXT, b"slow") + BYE_BACK),
    "a ping": ([sent(PING), BYE], got(PONG) + BYE_BACK),
    "a ping with 125 bytes": ([sent(PING, bytes(125)), BYE], got(PONG, bytes(125)) + BYE_BACK),
    "ten pings": ([sent(PING, bytes([n])) for n in range(10)] + [BYE],
                  b"".join(got(PONG, bytes([n])) for n in range(10)) + BYE_BACK),
    "a pong nobody asked for": ([sent(PONG, b"hm"), sent(PING), BYE], got(PONG) + BYE_BACK),
    "pieces": ([part(TEXT, b"a"), part(CONT, b"b"), sent(CONT, b"c"), BYE], got(TEXT, b"abc") + BYE_BACK),
    "pieces that are empty": ([part(BINARY), part(CONT), sent(CONT), BYE], got(BINARY) + BYE_BACK),
    "a ping between pieces": ([part(TEXT, b"a"), sent(PING, b"p"), sent(CONT, b"b"), BYE],
                              got(PONG, b"p") + got(TEXT, b"ab") + BYE_BACK),
    "a close between pieces": ([part(TEXT, b"a"), BYE], BYE_BACK),
    "text cut inside a character": ([part(TEXT, WHOLE_TEXT[:3]), sent(CONT, WHOLE_TEXT[3:]), BYE],
                                    got(TEXT, WHOLE_TEXT) + BYE_BACK),
    "the last character there is": ([sent(TEXT, "\U0010ffff".encode()), BYE],
                                    got(TEXT, "\U0010ffff".encode()) + BYE_BACK),
    "frames after a close": ([BYE, sent(TEXT, b"late"), sent(PING)], BYE_BACK),
    "two closes": ([BYE, BYE], BYE_BACK),
    "a close without a code": ([sent(CLOSE)], got(CLOSE)),
    "a close with a reason": ([sent(CLOSE, close(1000, b"done"))], got(CLOSE, close(1000, b"done"))),
    "a close with the longest reason": ([sent(CLOSE, close(1000, b"x" * 123))],
                                        got(CLOSE, close(1000, b"x" * 123))),
    **{
        f"a close with {code}": ([sent(CLOSE, close(code))], got(CLOSE, close(code)))
        for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
    },
}  # fmt: skip
REFUSED: dict[str, tuple[list[bytes], int]] = {
    **{f"reserved {bit:#x}": ([sent(TEXT, b"x", first=FIN | bit)], 1002) for bit in (0x10, 0x20, 0x40, 0x70)},
    **{f"opcode {code}": ([sent(code, b"x")], 1002) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a frame without a mask": ([got(TEXT, b"x")], 1002),
    "a ping of 126 bytes": ([sent(PING, bytes(126))], 1002),
    "a ping in pieces": ([part(PING, b"a"), sent(CONT, b"b")], 1002),
    "a close in pieces": ([part(CLOSE, close(1000))], 1002),
    "the end without a beginning": ([sent(CONT, b"x")], 1002),
    "a middle without a beginning": ([part(CONT, b"x")], 1002),
    "a message inside a message": ([part(TEXT, b"a"), sent(TEXT, b"b")], 1002),
    "a close of one byte": ([sent(CLOSE, b"x")], 1002),
    "a close whose reason is no text": ([sent(CLOSE, close(1000, b"\xff\xfe"))], 1007),
    "a close with too long a reason": ([sent(CLOSE, close(1000, b"x" * 124))], 1002),
    **{
        f"a close with {code}": ([sent(CLOSE, close(code))], 1002)
        for code in (0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "text that is none": ([sent(TEXT, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80")], 1007),
    "text that ends inside a character": ([sent(TEXT, WHOLE_TEXT[:-1])], 1007),
    "an overlong zero": ([sent(TEXT, b"\xc0\x80")], 1007),
    "beyond the last character": ([sent(TEXT, b"\xf4\x90\x80\x80")], 1007),
    "text in pieces that is none": ([part(TEXT, b"ok"), sent(CONT, b"\xff")], 1007),
    "a message that is too large": ([b"\x82\xff" + struct.pack(">Q", TRANSPORT_LIMIT + 1) + bytes(4)], 1009),
    "a length beyond all": ([b"\x82\xff" + b"\x7f" + b"\xff" * 7 + bytes(4)], 1009),
    "pieces that are too large": ([part(BINARY, bytes(TRANSPORT_LIMIT - 1)), sent(CONT, b"ab")], 1009),
}  # fmt: skip


async def answer(pieces: list[bytes], before_the_last: int = 0) -> bytes:
    """All that the server says to these pieces, until it ends the connection.

    The last piece waits for the answer to those before it, of so many bytes: a close that comes with a
    message ends the connection before the application has seen the message.
    """
    loop = asyncio.get_running_loop()
    said = bytearray()
    enough = asyncio.Event()
    async with asyncio.timeout(20), serving(echo) as served:
        with peer(served) as sock:
            await shake_hands(sock)

            async def send() -> None:
                for piece in pieces[:-1]:
                    await loop.sock_sendall(sock, piece)
                    await asyncio.sleep(0.001)  # so that each is a piece of TCP's too
                if len(said) < before_the_last:
                    await enough.wait()
                await loop.sock_sendall(sock, pieces[-1])

            sending = asyncio.create_task(send())
            with contextlib.suppress(ConnectionResetError):
                while data := await loop.sock_recv(sock, 65536):
                    said += data
                    if len(said) >= before_the_last:
                        enough.set()
            enough.set()
            await asyncio.gather(sending, return_exceptions=True)
            return bytes(said)


@pytest.mark.parametrize("name", ANSWERED)
async def test_what_is_right_is_answered(name: str) -> None:
    pieces, expected = ANSWERED[name]
    before = len(expected) - len(BYE_BACK) if pieces[-1] == BYE else 0
    assert await answer(pieces, before) == expected


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_wrong_fails_the_connection(name: str, caplog: pytest.LogCaptureFixture) -> None:
    pieces, code = REFUSED[name]
    with caplog.at_level(logging.WARNING):
        said = await answer(pieces)
    assert said[:1] == bytes([FIN | CLOSE]), said[:40]
    assert len(said) == 2 + said[1], "something came beside the close frame"
    assert int.from_bytes(said[2:4], "big") == code
    assert said[4:].decode().isprintable()
    assert caplog.messages == [], "a stranger can fill the log"
