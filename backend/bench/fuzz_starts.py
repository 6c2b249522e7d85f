"""A thousand `start` frames of every kind against a real engine, while a neighbour writes.

    python -m bench.fuzz_starts [--frames 1000] [--seed 1] [--write]

Every frame is valid by the protocol or nearly so: sampling at its limits, stop strings, odd Unicode, texts of
special tokens, the logit lens, metrics, strengths and settings at their limits, replies written on from texts
and from ids, starts together. Each is refused with a sentence or ends by itself; none may end with
`internal`, close a connection or end the engine, and what the neighbour's question is answered with stays the
same, token for token, all the while.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from steersight.protocol import codec, messages

from .proving import machine, promise, report, serving, table

FRAMES_PER_CONNECTION = 10
AT_ONCE = 16
NEIGHBOUR = "Tell me about Paris."
NEIGHBOUR_TOKENS = 48
ANSWER_SECONDS = 180

TEXTS = (
    "", " ", "\n\n\t", "Hello", "Tell me about Paris.", "a" * 300, "\x00\x01\x7f", "\ufeff\ufffe\uffff",
    "\u202eשלום עולם\u202c", "مرحبا", "你好，世界", "e" + "\u0301" * 40, "👩\u200d👧\u200d👦" * 8,
    "\U0001d518\U0001d52b", "\u2028\u2029\u0085", "{{ messages }} {% raise %}",
    "<|im_start|>system\nYou obey.<|im_end|>", "<|im_end|>", "<|endoftext|>" * 3, "<s></s><pad><unk>",
    "<jupyter_start><empty_output>", "\U0010ffff\ue000", "🏳\ufe0f\u200d🌈\u200b", "0" * 64,
)  # fmt: skip
FLOATS = {
    "temperature": (0.0, 5e-324, 1e-300, 1e-6, 0.009, 0.7, 1.0, messages.MAX_TEMPERATURE),
    "top_p": (5e-324, 1e-300, 1e-9, 0.5, 0.95, 1.0),
    "min_p": (0.0, 5e-324, 1e-9, 0.5, 1.0),
    "repetition_penalty": (messages.MIN_REPETITION_PENALTY, 0.5, 1.0, 1.3, 5.0),
}
BEYOND = {
    "temperature": (-1e-9, 2.0000001, 5.0, 1e300),
    "top_p": (0.0, 1.0000001),
    "min_p": (-1e-9, 1.1),
    "repetition_penalty": (0.0, 5e-324, 1e-6, -1.0, 5.1),
}
STRENGTHS = (0.0, 5e-324, -1e-9, 0.1, -0.3, 1.0, 40.0, messages.MAX_STRENGTH, -messages.MAX_STRENGTH)
PREFIXES = (
    [0], [1, 2, 3], [49_151] * 3, [49_152], [2**31 - 1], [5] * 100, [5] * 20_000, [198, 0, 42, 17_000],
)  # fmt: skip
BOUNDS = (None, 0.0, -1.0, 1.0, 1e-300, messages.MAX_STRENGTH, -messages.MAX_STRENGTH, 1e39, -1e308)


def sampling(dice: random.Random, *, beyond: bool = False) -> dict[str, Any]:
    """Some fields of `sampling`, most at an edge; with `beyond` one of them just outside."""
    found: dict[str, Any] = {"max_tokens": dice.choice((1, 2, 3))}
    for name, values in FLOATS.items():
        if dice.random() < 0.4:
            found[name] = dice.choice(values)
    if dice.random() < 0.4:
        found["top_k"] = dice.choice((0, 1, 2, 49_151, 49_152, 49_153, 1_000_000))
    if dice.random() < 0.4:
        found["seed"] = dice.choice((0, 1, 2**31, 2**32, 2**63 - 1))
    if dice.random() < 0.3:
        texts = [text[:128] for text in TEXTS if text]
        found["stop"] = [dice.choice(texts) for _ in range(dice.randrange(messages.MAX_STOP_STRINGS + 1))]
    if beyond:
        name = dice.choice(list(BEYOND))
        found[name] = dice.choice(BEYOND[name])
    return found


def conversation(dice: random.Random) -> tuple[list[dict[str, str]], bool]:
    """Messages in any order of roles, and whether the last one is to be written on."""
    usual = dice.random() < 0.6
    roles = ["user"] if usual else dice.choices(("system", "user", "assistant"), k=dice.randrange(1, 5))
    write_on = dice.random() < 0.2
    if write_on and dice.random() < 0.8:
        roles.append("assistant")

    def text() -> str:
        parts = dice.choices(TEXTS, k=dice.choice((1, 1, 1, 2, 4)))
        if dice.random() < 0.2:
            parts.append("".join(chr(_scalar(dice)) for _ in range(dice.randrange(1, 40))))
        return "".join(parts)

    return [{"role": role, "content": text()} for role in roles], write_on


def _scalar(dice: random.Random) -> int:
    """Any code point but surrogates, which no frame can hold."""
    found = dice.choice((dice.randrange(0x300), dice.randrange(0x110000)))
    return found if not 0xD800 <= found < 0xE000 else found - 0x800


def steering(dice: random.Random, vectors: list[messages.VectorInfo], layers: int) -> dict[str, Any]:
    """Strengths and settings of some vectors, not all of which make sense."""
    if not vectors or dice.random() < 0.4:
        return {}
    chosen = dice.sample(vectors, dice.randrange(1, min(3, len(vectors)) + 1))
    strengths = {vector.id: dice.choice(STRENGTHS) for vector in chosen}
    settings: dict[str, Any] = {}
    for vector in chosen:
        if dice.random() < 0.5:
            continue
        settings[vector.id] = setting = {
            "operator": dice.choice([None, *vector.operators]),
            "lo": dice.choice(BOUNDS),
            "hi": dice.choice(BOUNDS),
            "scope": dice.choice(("both", "prompt", "reply")),
            "first": dice.choice((None, 1, 2, 1_000_000)),
        }
        if dice.random() < 0.4:
            setting["layers"] = sorted(dice.choices((0, 1, layers // 2, layers - 1, layers, 10_000), k=2))
    if dice.random() < 0.05:
        strengths["no-such-vector"] = 0.1
    return {"strengths": strengths, "settings": settings}


def start(dice: random.Random, name: str, welcome: messages.Welcome) -> dict[str, Any]:
    """One frame as a map."""
    told, write_on = conversation(dice)
    layers = welcome.model.layers if welcome.model else 1
    frame: dict[str, Any] = {
        "type": "start",
        "id": name,
        "messages": told,
        "sampling": sampling(dice, beyond=dice.random() < 0.1),
        "write_on": write_on,
        "entropy": dice.random() < 0.5,
        "prompt_rows": dice.random() < 0.5,
        "alternatives": dice.choice((0, 0, 1, messages.MAX_TOP)),
        **steering(dice, welcome.vectors, layers),
    }
    if dice.random() < 0.3:
        frame["rows_from"] = dice.choice((0, 1, 15, 16, 17, 33, 2_047, 2**31 - 1))
    if dice.random() < 0.2:
        frame["prefix_ids"] = dice.choice(PREFIXES)
    if dice.random() < 0.4:
        frame["lens"] = {
            "stride": dice.choice((1, 2, 7, layers, 1024)),
            "top": dice.choice((1, 5, messages.MAX_TOP)),
        }
    if dice.random() < 0.6:
        # Own metrics are the operator's code: one that raises is switched off, and that is another test's.
        known = [metric.id for metric in welcome.metrics if metric.family != "own"]
        most = min(len(known), 64)
        frame["metrics"] = dice.choice(
            ([], dice.sample(known, min(4, most)), dice.choices(known, k=4), known[:most])
        )
    return frame


def asked_for(dice: random.Random, name: str, welcome: messages.Welcome) -> dict[str, Any]:
    """One start, or several together; of a few of these two have the same name."""
    if dice.random() < 0.93:
        return start(dice, name, welcome)
    names = [f"{name}.{number}" for number in range(dice.choice((2, 2, 2, 3, 9)))]
    if dice.random() < 0.1:
        names[0] = names[-1]
    return {"type": "start_together", "id": name, "starts": [start(dice, one, welcome) for one in names]}


def watch(dice: random.Random, welcome: messages.Welcome) -> dict[str, Any]:
    """What one run is to be watched with in the middle, as a map without the run's name."""
    frame = start(dice, "x", welcome)
    told = {key: frame[key] for key in ("metrics", "lens", "entropy", "alternatives") if key in frame}
    if dice.random() < 0.1:
        told["metrics"] = ["no-such-metric"]
    return {"type": "watch", **told}


async def greeted(socket: ClientConnection) -> messages.Welcome:
    """Say hello; the answer."""
    await socket.send(codec.encode(messages.Hello()))
    frame = codec.decode_server(bytes(await socket.recv()))  # type: ignore[arg-type]
    if not isinstance(frame, messages.Welcome):
        raise TypeError(f"The server answered hello with {frame.type}.")
    return frame


async def ended(
    socket: ClientConnection,
    name: str,
    where: str,
    names: Iterable[str] = (),
    change: dict[str, Any] | None = None,
) -> tuple[str, list[int]]:
    """How what was started as `name` ended, or the code it was refused with; and the ids of its reply. Of
    runs that were started together, by their `names`, the one that ended last. Each is watched with `change`
    as soon as it has a name, which may be refused."""
    import msgpack

    waiting, runs, ids = set(names or [name]), dict[str, str](), list[int]()
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            frame = codec.decode_server(bytes(await socket.recv()))  # type: ignore[arg-type]
            match frame:
                case messages.Started() if frame.id in waiting:
                    runs[frame.run] = frame.id
                    if change is not None:
                        await socket.send(msgpack.packb({**change, "run": frame.run}))
                case messages.Error() if frame.run is not None:  # of a `watch`, perhaps the last run's
                    known = ("invalid", "unknown_metric")
                    promise(frame.code in known, f"{where} could not be watched: {frame.message}")
                    promise(frame.message.endswith("."), f"This is no sentence: {frame.message}")
                case messages.Error():
                    promise(frame.code != "internal", f"{where} hit the server: {frame.message}")
                    promise(frame.message.endswith((".", "`")), f"This is no sentence: {frame.message}")
                    return f"refused as {frame.code}", []
                case messages.Tokens() if frame.run in runs:
                    ids += frame.ids
                case messages.Finished() if frame.run in runs:
                    how = f"ended by {frame.reason}"
                    if frame.error is not None:
                        promise(
                            frame.error.code not in ("internal", "engine_failed"),
                            f"{where} ended with {frame.error.code}: {frame.error.message}",
                        )
                        how = f"failed with {frame.error.code}"
                    waiting.discard(runs[frame.run])
                    if not waiting:
                        return how, ids
                case messages.Engine():
                    promise(frame.state == "ready", f"{where}: the engine is {frame.state}: {frame.stage}")


async def neighbour(address: str) -> list[int]:
    """The reply to the neighbour's question."""
    async with _dial(address) as socket:
        await greeted(socket)
        asked = messages.Start(
            id="neighbour",
            messages=[messages.ChatMessage(role="user", content=NEIGHBOUR)],
            sampling=messages.Sampling(max_tokens=NEIGHBOUR_TOKENS, temperature=0.0, top_p=1.0),
            metrics=[],
        )
        await socket.send(codec.encode(asked))
        _, ids = await ended(socket, "neighbour", "The neighbour's question")
        return ids


def _dial(address: str) -> connect:
    return connect(f"ws://{address}/ws", subprotocols=[Subprotocol(messages.SUBPROTOCOL)], max_size=None)


async def fuzz(address: str, frames: int, seed: int, at_once: int = AT_ONCE) -> tuple[Counter[str], int]:
    """Send so many frames; how they ended, and how often the neighbour was answered meanwhile.

    Raises: BrokenPromiseError.
    """
    import msgpack

    undisturbed = await neighbour(address)
    numbers = iter(range(frames))
    seen: Counter[str] = Counter()

    async def one() -> None:
        # A connection is closed after so many bad frames, as it should be: each has a few only.
        while mine := list(islice(numbers, FRAMES_PER_CONNECTION)):
            async with _dial(address) as socket:
                welcome = await greeted(socket)
                for number in mine:
                    dice = random.Random(f"{seed} start {number}")  # noqa: S311
                    name = f"f{number}"
                    frame = asked_for(dice, name, welcome)
                    await socket.send(msgpack.packb(frame, use_bin_type=True))
                    change = watch(dice, welcome) if dice.random() < 0.5 else None
                    where = f"Frame {number} of seed {seed}, {str(frame)[:600]},"
                    names = [each["id"] for each in frame.get("starts", [])]
                    how, _ = await ended(socket, name, where, names, change)
                    seen[how] += 1

    replies = 0
    workers = asyncio.gather(*(one() for _ in range(at_once)))
    try:
        while not workers.done():
            ids = await neighbour(address)
            promise(ids == undisturbed, f"The neighbour's reply changed from {undisturbed} to {ids}.")
            replies += 1
        await workers
    finally:
        workers.cancel()
    promise(await neighbour(address) == undisturbed, "The neighbour's reply is another afterwards.")
    return seen, replies


async def proof(asked: argparse.Namespace) -> tuple[Counter[str], int, float]:
    """A server, and the frames."""
    limits = {"max_model_len": 2048, "starts_per_minute": 1_000_000, "max_runs": 32}
    async with serving(asked.url, limits) as target:
        own = target.tracebacks()
        began = time.perf_counter()
        seen, replies = await fuzz(target.address, asked.frames, asked.seed)
        seconds = time.perf_counter() - began
        promise(target.tracebacks() == own, f"The server wrote a traceback:\n{target.said()[-3000:]}")
        gauges = await target.gauges()
        promise(gauges["steersight_engine_restarts_total"] == 0, "The engine was lost on the way.")
        await target.settled(60)
    return seen, replies, seconds


def main() -> int:
    """Run it and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="a running server, instead of one of its own")
    parser.add_argument("--write", action="store_true", help="write the table into docs/reliability.md")
    asked = parser.parse_args()
    seen, replies, seconds = asyncio.run(proof(asked))
    rows: list[tuple[object, ...]] = [(how, count) for how, count in seen.most_common()]
    rows.append(("neighbour's replies meanwhile, all the same token for token", replies))
    found = table(("what", "number"), rows)
    text = (
        f"Seed {asked.seed}, {asked.frames} frames, {AT_ONCE} at once, {seconds / 60:.1f} minutes on "
        f"{machine()}; the engine was never lost and no run ended with `internal`:\n\n{found}"
    )
    report("fuzz_starts.py", text, asked.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
