"""The server with an engine that only pretends: for measuring what the server itself costs, and nothing else.

    python -m bench.simulated [--hz 60] [--layers 32] [--text FILE] -- serve --port 8000 ...

Everything is the product's own but for the engine: a process that sends, so many times a second, the step of
all its runs over the real row channel, with random numbers in place of a model's. So what is measured is a
step's way from the channel to the sockets. vLLM's front end has no part in it but for the end of each reply.

The rank of each token is the moment at which its step was sent (`now`): whoever reads it can tell how long it
was on its way.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import zmq

from steersight.engine import life, loading, service
from steersight.engine.channel import RowSender
from steersight.engine.max_runs import USUAL
from steersight.engine.step import Step
from steersight.engine.submission import OPTIONS_KEY

TICKS = 20_000
"""Of the clock by which ways are measured, per second; the number of one fits into 32 bits for a day."""
WORDS = range(1000, 1100)
"""Tokens of every reply where no text is given, over and over again."""
ROWS = 1 << 14
"""Different ones; each step takes some that follow each other."""
CAPACITY = 10_000_000


def now() -> int:
    """This moment by a clock that all processes of a machine share, in ticks."""
    return int(time.monotonic() * TICKS) & 0x7FFFFFFF


@dataclass
class _Run:
    name: str
    prompt: int
    reply: int
    rev: int
    metrics: tuple[str, ...]
    written: int = 0


class Arrived:
    """A step that has nothing to wait for."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.runs = step.runs
        self.numbers = step.numbers

    def leave_numbers_out(self) -> None:
        """Only positions, revisions and tokens travel."""
        first = np.full_like(self.step.first, -1)
        self.step = replace(self.step, first=first, values=self.step.values[:0], lost=True)

    def arrive(self) -> Step:
        """As it is, with the moment at which it leaves."""
        return replace(self.step, ranks=np.full_like(self.step.ranks, now()))


def compute(rows_at: str, orders_at: str, ends_at: str, hz: float, layers: int, words: Sequence[int]) -> None:
    """The pretended worker: a step of all its runs, so many times a second, until it is told to end."""
    context = zmq.Context()
    orders = context.socket(zmq.PULL)
    orders.connect(orders_at)
    ends = context.socket(zmq.PUSH)
    ends.connect(ends_at)
    sender = RowSender(rows_at)
    runs: dict[str, _Run] = {}
    dice = np.random.default_rng(1)
    numbers = np.empty((0, 0, layers), dtype="<f2")
    due = time.monotonic()
    while True:
        while orders.poll(0):
            order = msgpack.unpackb(orders.recv())
            match order.pop("kind"):
                case "start":
                    run = _Run(**order)
                    runs[run.name] = run
                    if len(run.metrics) > numbers.shape[1]:
                        numbers = _numbers(run.metrics, layers, dice)
                case "steer" if order["name"] in runs:
                    runs[order["name"]].rev = order["rev"]
                case "abort":
                    runs.pop(order["name"], None)
                case "end":
                    return
        if runs:
            sender.put(Arrived(_step(list(runs.values()), numbers, words, dice)))
            over = [run.name for run in runs.values() if run.written == run.reply]
            for name in over:
                del runs[name]
            if over:
                ends.send(msgpack.packb(over))
        due = max(due + 1 / hz, time.monotonic() - 1 / hz)
        time.sleep(max(0.0, due - time.monotonic()))


def _numbers(metrics: Sequence[str], layers: int, dice: np.random.Generator) -> np.ndarray:
    """Rows that a page can draw: none of them negative, and no share of a steering that does nothing."""
    numbers = np.abs(dice.standard_normal((ROWS, len(metrics), layers)) * 4).astype("<f2")
    if "steering_share" in metrics:
        numbers[:, metrics.index("steering_share")] = 0
    return numbers


def _step(runs: list[_Run], numbers: np.ndarray, words: Sequence[int], dice: np.random.Generator) -> Step:
    """One token more for each; before the first one also the rows of its prompt."""
    counts = np.array([1 if run.written else run.prompt for run in runs], dtype="<i4")
    starts = np.array([run.prompt + run.written - 1 if run.written else 0 for run in runs], dtype="<i4")
    rows = int(counts.sum())
    at = int(dice.integers(len(numbers) - rows)) if rows < len(numbers) else 0
    tokens = np.array([words[run.written % len(words)] for run in runs], dtype="<i4")
    revisions = np.repeat(np.array([run.rev for run in runs], dtype="<i4"), counts)
    for run in runs:
        run.written += 1
    return Step(
        runs=[run.name for run in runs], starts=starts, counts=counts,
        first=(np.cumsum(counts) - counts).astype("<i4"), revisions=revisions, tokens=tokens,
        logprobs=np.full(len(runs), -1.0, dtype="<f4"), ranks=np.ones(len(runs), dtype="<i4"),
        watches=np.zeros(len(runs), dtype="<i4"),
        metrics=list(runs[0].metrics), layers=numbers.shape[-1],
        values=numbers[at : at + rows, : len(runs[0].metrics)],
    )  # fmt: skip


class Engine:
    """What the server asks of vLLM's `AsyncLLM`."""

    input_processor = SimpleNamespace(
        generation_config_fields={}, renderer=SimpleNamespace(get_eos_token_id=lambda: None)
    )

    def __init__(self, orders: zmq.Socket[bytes], words: Sequence[int]) -> None:
        self._orders = orders
        self._words = words
        self._over: dict[str, asyncio.Event] = {}

    def order(self, kind: str, **what: Any) -> None:
        """Tell the worker."""
        self._orders.send(msgpack.packb({"kind": kind, **what}))

    def ended(self, names: list[str]) -> None:
        """The worker has come to the end of these."""
        for name in names:
            if name in self._over:
                self._over[name].set()

    async def generate(
        self, prompt: Any, sampling: Any, _request: str, *, lora_request: object = None
    ) -> AsyncGenerator[Any, None]:
        """One output, at the end."""
        options = sampling.extra_args[OPTIONS_KEY]
        name = options["run"]
        over = self._over[name] = asyncio.Event()
        reply = sampling.max_tokens
        self.order(
            "start", name=name, prompt=len(prompt["prompt_token_ids"]), reply=reply,
            rev=options.get("rev", 0), metrics=options["metrics"],
        )  # fmt: skip
        try:
            await over.wait()
            ids = [self._words[index % len(self._words)] for index in range(reply)]
            last = SimpleNamespace(token_ids=ids, finish_reason="length", stop_reason=None)
            yield SimpleNamespace(outputs=[last], prompt_logprobs=None, num_cached_tokens=0)
        finally:
            del self._over[name]
            self.order("abort", name=name)


class Life(life.Life):
    """One pretended engine, from its start to its end."""

    hz = 60.0
    words: Sequence[int] = WORDS

    async def start(self, _vectors: Any, _report: Any) -> loading.Built:
        await asyncio.to_thread(__import__, "vllm.sampling_params")
        folder = Path(self._folder.name)
        context = zmq.Context.instance()
        orders = context.socket(zmq.PUSH)
        orders.bind(f"ipc://{folder}/orders")
        self._pretended = Engine(orders, self.words)
        self._ends = asyncio.create_task(self._hear(f"ipc://{folder}/ends"))
        self._worker = multiprocessing.get_context("spawn").Process(
            target=compute, daemon=True,
            args=(loading.row_address(folder), f"ipc://{folder}/orders", f"ipc://{folder}/ends", self.hz,
                  self.model.layers, self.words),
        )  # fmt: skip
        self._worker.start()
        return loading.Built(self, self.model.dtype, [], CAPACITY, self.options.max_runs or USUAL)

    async def _hear(self, address: str) -> None:
        import zmq.asyncio

        socket = zmq.asyncio.Context.instance().socket(zmq.PULL)
        socket.bind(address)
        while True:
            self._pretended.ended(msgpack.unpackb(await socket.recv()))

    @property
    def engine(self) -> Any:
        return self._pretended

    async def call(self, method: str, *args: Any) -> list[Any]:
        if method == "steersight_steer":
            self._pretended.order("steer", name=args[0], rev=args[1])
        if method == "steersight_load":
            return [{"vllm": 0, "nnsight": 0, "observer": 0, "dropped": 0, "preempted": 0}]
        return [None]

    def lose(self, why: str) -> None:
        self.lost = why

    async def end(self, *, kindly: bool) -> None:
        self._pretended.order("end")
        await asyncio.to_thread(self._worker.join, 5)
        self._ends.cancel()
        self._reader.cancel()
        await asyncio.wait([self._ends, self._reader])
        self._receiver.close()
        self._folder.cleanup()


def _tokens(model: str, text: str) -> list[int]:
    from transformers import AutoTokenizer

    tokens: list[int] = AutoTokenizer.from_pretrained(model).encode(text, add_special_tokens=False)
    return tokens


def main() -> int:
    from steersight.cli import main as steersight

    own, _, rest = " ".join(sys.argv[1:]).partition("-- ")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hz", type=float, default=60.0)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--text", type=Path, help="what every reply says, over and over")
    asked = parser.parse_args(own.split())
    Life.hz = asked.hz
    read = service.read_model

    def read_model(*args: Any) -> loading.Known:
        known = read(*args)
        if asked.text is not None:
            Life.words = _tokens(args[0].model, asked.text.read_text(encoding="utf-8"))
        return replace(known, model=replace(known.model, layers=asked.layers))

    with contextlib.ExitStack() as changed:
        for name, value in {"Life": Life, "read_model": read_model}.items():
            changed.callback(setattr, service, name, getattr(service, name))
            setattr(service, name, value)
        return steersight(rest.split())


if __name__ == "__main__":
    sys.exit(main())
