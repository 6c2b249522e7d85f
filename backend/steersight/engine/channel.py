"""Rows and loading stages out of the worker process: one ZeroMQ message per engine step.

The worker must never wait for the server. `RowSender` hands finished steps to a thread through a bounded
queue; when the queue or the socket is full the step's rows are dropped and counted, and the server, which
counts positions, reports the hole as a `gap`. `RowReceiver` is the server's end.

A step message has two parts: a msgpack map {kind: "rows", metrics, layers, dropped,
runs: [[run, start, [rev, ...]], ...]} and the values, fp32 little endian, C order
[tokens, metrics, layers], runs one after the other. A stage message has one part,
{kind: "stage", stage, progress}.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack
import zmq

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Steps that may wait for the sender thread, and messages that may wait in ZeroMQ: some seconds of a fast GPU.
QUEUED_STEPS = 1024


@dataclass
class StepRows:
    """What one step produced, before it is packed.

    `values` is a callable because on CUDA the copy to the host may still be under way when the step is
    queued: the sender thread waits for it, the forward pass does not.
    """

    runs: list[tuple[str, int, list[int]]]
    """(run, first position, revision per row), in the order of the values."""
    metrics: list[str]
    layers: int
    values: Callable[[], NDArray[np.float32]]
    """[tokens, metrics, layers] fp32."""


@dataclass(frozen=True)
class RowBlock:
    """Rows of consecutive positions of one run, as they arrive at the server."""

    run: str
    start: int
    revs: list[int]
    metrics: list[str]
    values: NDArray[np.float32]
    """[rows, metrics, layers] fp32, not yet transformed."""


@dataclass(frozen=True)
class Stage:
    """How far the worker is with loading."""

    stage: str
    progress: float


@dataclass
class RowSender:
    """The worker's end. `put` never blocks; the socket lives in the sender thread alone."""

    address: str
    dropped: int = 0
    _steps: queue.Queue[StepRows | Stage | None] = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._steps = queue.Queue(maxsize=QUEUED_STEPS)
        self._thread = threading.Thread(target=self._send_all, name="steersight-rows", daemon=True)
        self._thread.start()

    def put(self, item: StepRows | Stage) -> None:
        """Queue one step or stage; drop it, counted, where the queue is full."""
        try:
            self._steps.put_nowait(item)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Send what is queued and end the thread."""
        self._steps.put(None)
        self._thread.join(timeout=5)

    def _send_all(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, QUEUED_STEPS)
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(self.address)
        try:
            while (item := self._steps.get()) is not None:
                try:
                    socket.send_multipart(pack(item, self.dropped), zmq.NOBLOCK)
                except zmq.Again:
                    self.dropped += 1
        finally:
            socket.close()
            context.term()


def pack(item: StepRows | Stage, dropped: int) -> list[bytes]:
    """One step or stage as the parts of a ZeroMQ message."""
    if isinstance(item, Stage):
        return [msgpack.packb({"kind": "stage", "stage": item.stage, "progress": item.progress})]
    head = {
        "kind": "rows", "runs": item.runs, "metrics": item.metrics, "layers": item.layers, "dropped": dropped,
    }  # fmt: skip
    return [msgpack.packb(head), item.values().tobytes()]


def unpack(parts: list[bytes]) -> Stage | list[RowBlock]:
    """The inverse of `pack`: the blocks of all runs of one step, or a loading stage."""
    import numpy as np

    head: dict[str, Any] = msgpack.unpackb(parts[0])
    if head["kind"] == "stage":
        return Stage(head["stage"], head["progress"])
    values = np.frombuffer(parts[1], dtype="<f4").reshape(-1, len(head["metrics"]), head["layers"])
    blocks: list[RowBlock] = []
    offset = 0
    for run, start, revs in head["runs"]:
        blocks.append(RowBlock(run, start, revs, head["metrics"], values[offset : offset + len(revs)]))
        offset += len(revs)
    return blocks


class RowReceiver:
    """The server's end: binds the address and gives out messages in order."""

    def __init__(self, address: str) -> None:
        import zmq.asyncio

        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.bind(address)

    async def receive(self) -> Stage | list[RowBlock]:
        """Wait for the next message."""
        return unpack(await self._socket.recv_multipart())

    def close(self) -> None:
        """Close the socket; nothing can be received afterwards."""
        self._socket.close(linger=0)
        self._context.term()
