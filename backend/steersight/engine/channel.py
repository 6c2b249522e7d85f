"""Rows and loading stages out of the worker process: one ZeroMQ message per engine step.

The worker must never wait for the server. `RowSender` hands finished steps to a thread through a bounded
queue; when the queue or the socket is full the step's rows are dropped and counted, and the server, which
counts positions, reports the hole as a `gap`. `RowReceiver` is the server's end.

A step message is a msgpack map and then the arrays it names, little endian and in C order:
{kind: "rows", runs: [[run, start, [rev, ...]], ...], bare: [the same, without numbers], metrics, layers,
dropped,
failed: {metric: error}, arrays: [name, ...], top: {runs: [[run, position], ...], layers, k} or null}.
`values` is fp32 [tokens, metrics, layers], runs one after the other; `entropy` fp32 [tokens]; `top_ids` int32
and `top_probabilities` fp32 [runs, layers, k]. A stage message has one part, {kind: "stage", stage,
progress}, and so has the news of runs that failed, {kind: "failed", runs: {run: sentence}}, which is never
dropped once it is queued.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack
import zmq

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

# Steps that may wait for the sender thread, and messages that may wait in ZeroMQ: some seconds of a fast GPU.
QUEUED_STEPS = 1024


@dataclass
class TopTokens:
    """The likeliest next tokens by the logit lens, for the newest position of some runs."""

    runs: list[tuple[str, int]]
    """(run, position)"""
    layers: list[int]
    ids: Any
    """[runs, layers, k] int32, likeliest first"""
    probabilities: Any
    """[runs, layers, k] fp32"""


@dataclass
class StepRows:
    """What one step produced. Tensors of the worker's device until `to_host`, then what makes them arrays.

    On CUDA the copy to the host may still be under way when the step is queued: the sender thread waits for
    it, the forward pass does not.
    """

    runs: list[tuple[str, int, list[int]]]
    """(run, first position, revision per row), in the order of the values."""
    bare: list[tuple[str, int, list[int]]]
    """The same of runs that asked for no numbers."""
    metrics: list[str]
    layers: int
    values: Any
    """[tokens, metrics, layers] fp32; None when all runs are bare."""
    entropy: Any = None
    """[tokens] fp32, NaN where not known; None when nobody asked."""
    top: TopTokens | None = None
    failed: dict[str, str] = field(default_factory=dict)
    """Metrics that are switched off, and why."""

    def to_host(self) -> StepRows:
        """Start the copies now, in place of the tensors the functions that wait for them."""
        self.values = _to_host(self.values)
        self.entropy = _to_host(self.entropy)
        if self.top is not None:
            self.top.ids = _to_host(self.top.ids)
            self.top.probabilities = _to_host(self.top.probabilities)
        return self

    def arrays(self) -> dict[str, NDArray[Any]]:
        """By name, once the copies have ended."""
        waiting = {"values": self.values, "entropy": self.entropy}
        if self.top is not None:
            waiting |= {"top_ids": self.top.ids, "top_probabilities": self.top.probabilities}
        return {name: wait() for name, wait in waiting.items() if wait is not None}


def _to_host(tensor: torch.Tensor | None) -> Callable[[], NDArray[Any]] | None:
    import torch

    if tensor is None:
        return None
    if tensor.device.type == "cpu":
        return tensor.contiguous().numpy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> NDArray[Any]:
        copied.synchronize()
        return host.numpy()

    return wait


@dataclass(frozen=True)
class RowBlock:
    """Rows of consecutive positions of one run, as they arrive at the server."""

    run: str
    start: int
    revs: list[int]
    metrics: list[str]
    """What the step computed; it may be more than this run asked for."""
    values: NDArray[np.float32]
    """[rows, metrics, layers] fp32, not yet transformed; NaN where not computed."""
    entropy: NDArray[np.float32] | None = None
    """[rows] fp32 nats: of the distribution that the token after each row was drawn from."""
    top: TopBlock | None = None


@dataclass(frozen=True)
class TopBlock:
    """The logit lens' likeliest tokens for the last row of a block."""

    position: int
    layers: list[int]
    ids: NDArray[np.int32]
    """[layers, k], likeliest first"""
    probabilities: NDArray[np.float32]
    """[layers, k]"""


@dataclass(frozen=True)
class Failed:
    """Metrics that raised in the worker and are switched off: id -> error."""

    metrics: dict[str, str]


@dataclass(frozen=True)
class FailedRuns:
    """Runs that the lens could not steer or observe: run -> a sentence that says why."""

    runs: dict[str, str]


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
    _steps: queue.Queue[StepRows | Stage | FailedRuns | None] = field(init=False)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._steps = queue.Queue(maxsize=QUEUED_STEPS)
        self._thread = threading.Thread(target=self._send_all, name="steersight-rows", daemon=True)
        self._thread.start()

    def put(self, item: StepRows | Stage | FailedRuns) -> bool:
        """Queue it, or drop it, counted, where the queue is full; whether it was queued."""
        try:
            self._steps.put_nowait(item)
        except queue.Full:
            self.dropped += 1
            return False
        return True

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
                self._send(socket, item)
        finally:
            socket.close()
            context.term()

    def _send(self, socket: zmq.Socket[bytes], item: StepRows | Stage | FailedRuns) -> None:
        try:
            parts = pack(item, self.dropped)
        except Exception as error:
            # Numbers that do not reach the host, say. Nobody else would notice: these runs' rows would just
            # be missing, and without this thread everybody's.
            logger.exception("A step's rows could not be sent")
            lost = [run for run, _, _ in (*item.runs, *item.bare)] if isinstance(item, StepRows) else []
            item = FailedRuns(dict.fromkeys(lost, f"This reply's numbers could not be read: {error}"))
            parts = pack(item, self.dropped)
        try:
            # News of a failure waits for room. The rows behind it are dropped meanwhile, the engine goes on.
            socket.send_multipart(parts, 0 if isinstance(item, FailedRuns) else zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += 1


def pack(item: StepRows | Stage | FailedRuns, dropped: int) -> list[bytes]:
    """One step, stage or piece of news as the parts of a ZeroMQ message."""
    if isinstance(item, Stage):
        return [msgpack.packb({"kind": "stage", "stage": item.stage, "progress": item.progress})]
    if isinstance(item, FailedRuns):
        return [msgpack.packb({"kind": "failed", "runs": item.runs})]
    arrays = item.arrays()
    head = {
        "kind": "rows", "runs": item.runs, "bare": item.bare, "metrics": item.metrics, "layers": item.layers,
        "dropped": dropped, "failed": item.failed, "arrays": list(arrays),
        "top": item.top and {
            "runs": item.top.runs, "layers": item.top.layers, "k": arrays["top_ids"].shape[-1],
        },
    }  # fmt: skip
    return [msgpack.packb(head), *(array.tobytes() for array in arrays.values())]


def unpack(parts: list[bytes]) -> Stage | list[RowBlock | Failed | FailedRuns]:
    """The inverse of `pack`: the blocks of all runs of one step, news of failed ones, or a loading stage."""
    import numpy as np

    head: dict[str, Any] = msgpack.unpackb(parts[0])
    if head["kind"] == "stage":
        return Stage(head["stage"], head["progress"])
    if head["kind"] == "failed":
        return [FailedRuns(head["runs"])]
    metrics, layers = head["metrics"], head["layers"]
    raw = dict(zip(head["arrays"], parts[1:], strict=True))
    entropy = np.frombuffer(raw["entropy"], dtype="<f4") if "entropy" in raw else None
    tops = _unpack_top(head["top"], raw) if head["top"] else {}
    found: list[RowBlock | Failed | FailedRuns] = []
    if head["failed"]:
        found.append(Failed(head["failed"]))
    for run, start, revs in head["bare"]:
        found.append(RowBlock(run, start, revs, [], np.empty((len(revs), 0, layers), dtype=np.float32)))
    rows = sum(len(revs) for _, _, revs in head["runs"])
    values = np.frombuffer(raw.get("values", b""), dtype="<f4").reshape(rows, len(metrics), layers)
    offset = 0
    for run, start, revs in head["runs"]:
        mine = slice(offset, offset + len(revs))
        known = None if entropy is None else entropy[mine]
        found.append(RowBlock(run, start, revs, metrics, values[mine], known, tops.get(run)))
        offset += len(revs)
    return found


def _unpack_top(head: dict[str, Any], raw: dict[str, bytes]) -> dict[str, TopBlock]:
    import numpy as np

    shape = (len(head["runs"]), len(head["layers"]), head["k"])
    ids = np.frombuffer(raw["top_ids"], dtype="<i4").reshape(shape)
    probabilities = np.frombuffer(raw["top_probabilities"], dtype="<f4").reshape(shape)
    return {
        run: TopBlock(position, head["layers"], ids[index], probabilities[index])
        for index, (run, position) in enumerate(head["runs"])
    }


class RowReceiver:
    """The server's end: binds the address and gives out messages in order."""

    def __init__(self, address: str) -> None:
        import zmq.asyncio

        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.bind(address)

    async def receive(self) -> Stage | list[RowBlock | Failed | FailedRuns]:
        """Wait for the next message."""
        return unpack(await self._socket.recv_multipart())

    def close(self) -> None:
        """Close the socket; nothing can be received afterwards."""
        self._socket.close(linger=0)
        self._context.term()
