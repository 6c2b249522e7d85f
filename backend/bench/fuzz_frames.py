"""A hundred thousand damaged frames, against the decoder and against a live socket.

    python -m bench.fuzz_frames [--frames 100000] [--sent 20000] [--seed 1] [--write]

The decoder may raise `FrameError` and nothing else, with a sentence of bounded length; what it takes must be
the same after a round trip. Over the socket every damaged frame is an `error` frame or the end of that one
connection with a code of its own; the server never says 1011 or 4500, writes no traceback, does not grow, and
answers a ping to a new client afterwards. No engine is loaded: the server is started with a model that does
not exist, and serves what there is to say of that.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from steersight.protocol import codec, messages
from steersight.protocol.codec import FrameError

from .mutations import mutated
from .proving import Target, golden, machine, promise, report, serving, table

LONGEST_SENTENCE = 1000
FORBIDDEN_CLOSES = (1011, 4500)
MOST_GROWTH_MIB = 16.0
"""In the second half: allocators keep some of what was freed, and fill what they keep at first."""
BEFORE_A_PING = 12
"""Damaged frames in one go; a server closes after 20 bad ones."""


def decode_all(frames: int, seed: int) -> Counter[str]:
    """Try so many damaged frames on both decoders; how often they were taken or refused, by error code."""
    seen: Counter[str] = Counter()
    for side, decode in (("client", codec.decode_client), ("server", codec.decode_server)):
        dice = random.Random(f"{seed} {side}")  # noqa: S311
        whole = list(golden(side).values())
        for number in range(frames // 2):
            data = mutated(whole, dice)
            seen[examine(data, decode, f"number {number} of seed {seed}, {side}")] += 1
    return seen


def examine(data: bytes, decode: object, where: str) -> str:
    """`taken` or the error's code. Raises BrokenPromiseError for anything else."""
    assert callable(decode)  # noqa: S101
    try:
        frame = decode(data)
    except FrameError as error:
        sentence = error.message
        promise(
            sentence[:1].isupper()
            and sentence.rstrip(")").endswith(".")
            and len(sentence) < LONGEST_SENTENCE,
            f"The answer to frame {where} is no sentence: {sentence[:2000]!r}",
        )
        return str(error.code)
    except Exception as error:
        promise(False, f"Frame {where} raised {error!r}: {data[:200].hex()}")
        raise
    promise(decode(codec.encode(frame)) == frame, f"Frame {where} is another after a round trip.")
    return "taken"


async def over_the_wire(target: Target, frames: int, seed: int, clients: int = 4) -> Counter[str]:
    """Send so many damaged frames; what came back, by type, error code and close code."""
    seen: Counter[str] = Counter()
    whole = list(golden("client").values())

    async def one(number: int) -> None:
        dice = random.Random(f"{seed} client {number}")  # noqa: S311
        left = frames // clients
        while left > 0:
            try:
                async with connect(
                    f"ws://{target.address}/ws",
                    subprotocols=[Subprotocol(messages.SUBPROTOCOL)],
                    max_size=None,
                    compression=None,
                ) as socket:
                    seen["connections"] += 1
                    if dice.random() < 0.9:
                        await socket.send(codec.encode(messages.Hello()))
                    while left > 0:
                        count = min(left, dice.randrange(1, BEFORE_A_PING))
                        left -= count
                        for _ in range(count):
                            await socket.send(mutated(whole, dice))
                        await until_pong(socket, seen)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
                seen[f"closed with {code}"] += 1
                promise(code not in FORBIDDEN_CLOSES, f"A damaged frame closed a connection with {code}.")
                promise(code != 1006, "A damaged frame cut a connection without a word.")

    await asyncio.gather(*(one(number) for number in range(clients)))
    return seen


async def until_pong(socket: ClientConnection, seen: Counter[str]) -> None:
    """Ask for a pong and read until it comes: all damaged frames before it have been answered then."""
    asked = random.random()  # noqa: S311
    await socket.send(codec.encode(messages.Ping(t=asked)))
    async with asyncio.timeout(60):
        while True:
            data = await socket.recv()
            promise(isinstance(data, bytes), "The server sent a text frame.")
            frame = codec.decode_server(data)  # type: ignore[arg-type]
            if isinstance(frame, messages.Error):
                seen[f"error {frame.code}"] += 1
                promise("Traceback" not in frame.message, f"A traceback went to a client: {frame.message}")
                promise(frame.code != "internal", f"A damaged frame hit the server: {frame.message}")
                promise(len(frame.message) < LONGEST_SENTENCE, "An error is longer than a sentence.")
            elif isinstance(frame, messages.Pong) and frame.t == asked:
                return


async def engine_known(target: Target) -> None:
    """Wait until the engine is ready or has failed: nothing more happens by itself then."""
    async with asyncio.timeout(300), httpx.AsyncClient() as client:
        while True:
            answer = await client.get(f"{target.url}/readyz", timeout=60)
            if answer.json()["state"] != "loading":
                return
            await asyncio.sleep(0.5)


async def socket_part(asked: argparse.Namespace) -> tuple[Counter[str], Target]:
    """The live half."""
    model = "nobody/no-such-model"
    async with serving(asked.url, {}, model=model, ready=False) as target:
        await engine_known(target)
        own = target.tracebacks()  # the engine's, which says why it did not start
        await over_the_wire(target, 2000, asked.seed + 1)
        await target.weigh("after 2000 frames")
        seen = await over_the_wire(target, asked.sent // 2, asked.seed)
        await target.weigh("half-way")
        seen += await over_the_wire(target, asked.sent - asked.sent // 2, asked.seed + 2)
        await target.weigh("at the end")
        async with connect(
            f"ws://{target.address}/ws", subprotocols=[Subprotocol(messages.SUBPROTOCOL)]
        ) as socket:
            await socket.send(codec.encode(messages.Hello()))
            await until_pong(socket, Counter())
        promise(target.tracebacks() == own, f"The server wrote a traceback:\n{target.said()[-3000:]}")
        _, half, end = (weight for _, weight in target.memory)
        promise(end - half < MOST_GROWTH_MIB, f"The server grew from {half:.0f} to {end:.0f} MiB.")
    return seen, target


def main() -> int:
    """Both halves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=100_000, help="for the decoder")
    parser.add_argument("--sent", type=int, default=20_000, help="over the socket")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a running server, instead of one of its own")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    asked = parser.parse_args()
    decode_all(2000, asked.seed + 1)
    weighed = psutil.Process().memory_info().rss
    began = time.perf_counter()
    decoded = decode_all(asked.frames, asked.seed)
    seconds = time.perf_counter() - began
    grown = (psutil.Process().memory_info().rss - weighed) / 2**20
    promise(grown < MOST_GROWTH_MIB, f"Decoding has left {grown:.0f} MiB behind.")
    seen, target = asyncio.run(socket_part(asked))
    closes = {what: count for what, count in seen.items() if what.startswith("closed")}
    errors = {what: count for what, count in seen.items() if what.startswith("error")}
    weights = ", ".join(f"{weight:.0f} MiB {when}" for when, weight in target.memory)
    refused = {what: count for what, count in sorted(decoded.items()) if what != "taken"}
    said = ", ".join(f"{what} {count}" for what, count in refused.items())
    rows = [
        ["damaged frames, decoder", f"{asked.frames} in {seconds:.0f} s; {decoded['taken']} were still good"],
        ["raised", f"FrameError and nothing else ({said})"],
        ["memory the decoder left behind", f"{grown:.1f} MiB"],
        ["damaged frames, live socket", f"{asked.sent} on {seen['connections']} connections"],
        ["answers", ", ".join(f"{what} {count}" for what, count in sorted(errors.items()))],
        ["ends of connections", ", ".join(f"{what} {count}" for what, count in sorted(closes.items()))],
        ["memory of the server", weights],
        ["afterwards", "a new client is answered"],
    ]
    text = f"Seed {asked.seed}, {machine()}:\n\n{table(['what', 'seen'], rows)}"
    report(Path(__file__).name, text, asked.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
