"""The next turn of a long conversation, and a long prompt among other people's replies: Steersight beside
vLLM's own server, in one run.

    python -m bench.turns [--words 3500] [--rounds 3] [--write]
    make bench-turns

Both servers are started as `bench.serve` starts them, each with its own defaults: both keep what they have
read of a prompt, and both read long prompts in pieces. In each round, on each side:

- a conversation nobody has asked before: time to the first token, nothing kept ("first turn");
- the same conversation with its answer and one question more ("second turn");
- eight replies are being written when a long prompt nobody has asked before comes in: the gaps between
  messages of the eight, from its arrival to its first token.

Steersight's runs have three metrics, prompts included.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx

from .proving import free_port, machine, quantile, report, table
from .serve import DOCUMENT, Asked, Messages, OurClient, Reply, ask_vllm, both_servers, ours, server, vllms

NEIGHBOURS = 8
WORDS = ("river", "mill", "bread", "town")
REPLY = 24
LONG_REPLY = 400


def long_question(number: int, words: int) -> str:
    """A text that no other number has, from its first word on."""
    return " ".join(str(number) if at % 7 == 0 else WORDS[at % 4] for at in range(words))


async def ask(asked: Asked, messages: Messages) -> Reply:
    """One reply, over the wire."""
    if asked.side == "ours":
        client = OurClient(asked, 0, messages)
        await client.open()
        reply = await client.ask()
    else:
        async with httpx.AsyncClient(timeout=600) as http:
            reply = await ask_vllm(asked, 0, http, messages)
    if reply.problem:
        raise SystemExit(f"{asked.side} refused: {reply.problem}")
    return reply


def first_ms(reply: Reply) -> float:
    return (reply.arrivals[0][0] - reply.began) * 1e3


async def turns(side: str, port: int, number: int, words: int) -> dict[str, float]:
    """One round on one side."""
    asked = Asked(side, port, "metrics" if side == "ours" else "plain", REPLY, 1, [])
    messages = [{"role": "user", "content": long_question(number, words)}]
    first = await ask(asked, messages)
    more = [
        *messages, {"role": "assistant", "content": first.text}, {"role": "user", "content": "And then?"}
    ]  # fmt: skip
    second = await ask(asked, more)
    alone = await ask(asked, [{"role": "user", "content": f"{number}, and a short question?"}])

    writing = Asked(side, port, asked.kind, LONG_REPLY, 1, [])
    # A round's eight have questions of their own.
    eight = [
        asyncio.ensure_future(ask(writing, [{"role": "user", "content": f"Tell story {number}-{n}."}]))
        for n in range(NEIGHBOURS)
    ]
    await asyncio.sleep(max(2.0, 4 * first_ms(alone) / 1e3))
    late = await ask(asked, [{"role": "user", "content": long_question(number + 1000, words)}])
    replies = await asyncio.gather(*eight)
    during = (late.began, late.arrivals[0][0])
    gaps = [
        b[0] - a[0]
        for reply in replies
        for a, b in zip(reply.arrivals, reply.arrivals[1:], strict=False)
        if a[0] <= during[1] and b[0] >= during[0]
    ]
    if not gaps:
        raise SystemExit("The eight had ended before the long prompt came. Give them longer replies.")
    return {
        "first": first_ms(first), "second": first_ms(second),
        "late": first_ms(late), "gap_p50": quantile(gaps, 0.5) * 1e3, "gap_p99": quantile(gaps, 0.99) * 1e3,
    }  # fmt: skip


def run(asked: argparse.Namespace) -> str:
    """All of it; gives the table."""
    import torch

    cuda = torch.cuda.is_available()
    asked.runs = [64]
    ports = {"vllm": free_port(), "ours": free_port()}
    found: dict[str, list[dict[str, float]]] = {side: [] for side in ports}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        log = Path(folder)
        command, environment = ours(asked, ports["ours"], log, cuda)
        servers.enter_context(server(command, ports["ours"], "/readyz", log / "ours.log", environment))
        same: dict[str, str] = {}
        if not cuda:
            from steersight.engine import cores

            same = dict(cores.environment(1, {}))
        own = vllms(asked, ports["vllm"], cuda)
        servers.enter_context(server(own, ports["vllm"], "/health", log / "vllm.log", same))
        for number in range(asked.rounds + 1):
            for side, port in list(ports.items())[:: 1 if number % 2 else -1]:
                words = asked.words if number else 50
                seen = asyncio.run(turns(side, port, number, words))
                print(side, number, {k: round(v, 1) for k, v in seen.items()}, file=sys.stderr)
                if number:  # the first of them warms up
                    found[side].append(seen)
    rows = []
    for side, name in (("vllm", "vLLM's server"), ("ours", "Steersight, three metrics")):
        middle = {key: statistics.median(one[key] for one in found[side]) for key in found[side][0]}
        rows.append(
            [
                name, f"{middle['first']:.0f}", f"{middle['second']:.0f}", f"{middle['late']:.0f}",
                f"{middle['gap_p50']:.0f} / {middle['gap_p99']:.0f}",
            ]
        )  # fmt: skip
    head = ["server", "first turn", "second turn", "the late prompt", "gaps of the eight, p50 / p99"]
    where = torch.cuda.get_device_name() if cuda else machine()
    return (
        f"{Path(asked.model).name}, prompts of {asked.words} words, medians of {asked.rounds} rounds, on "
        f"{where}. Time to the first token, and gaps, in ms:\n\n{table(head, rows)}"
    )


def main() -> None:
    parser = both_servers(__doc__)
    parser.add_argument("--words", type=int, default=3500, help="of a long prompt; some 4,000 tokens")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    report("turns.py", run(asked), asked.write, DOCUMENT)


if __name__ == "__main__":
    main()
