"""Steps and loading stages out of the worker process: one ZeroMQ message per engine step.

The worker must never wait for the server, and neither side's memory may grow without end while the server is
busy or stopped. `RowSender` hands steps to a thread. Their numbers may weigh `HELD_BYTES` while they wait;
beyond that a step travels without them (`Step.without_numbers`), is counted, and the server says to its
clients which rows are missing. Tokens are never left out: they are what `QUEUED_STEPS` bounds, at some 40
bytes each. In ZeroMQ's own buffers, on both sides together, no more than 2 * `IN_TRANSIT` messages of
`PIECE_BYTES` wait.

Other messages have one part each: {kind: "stage", stage, progress} while the model loads, and {kind:
"failed", runs: {run: sentence}, edits: {name: sentence}}, the news of runs that failed, which is never
dropped once it is queued.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgpack
import zmq

from .step import Step

logger = logging.getLogger(__name__)

HELD_BYTES = 64 << 20
"""Numbers that may wait for the sender thread."""
QUEUED_STEPS = 16_384
"""Steps that may wait for the sender thread: minutes, even of a fast GPU."""
IN_TRANSIT = 32
"""Messages that may wait in ZeroMQ, on each side."""
TURN_SECONDS = 0.005
"""So long messages are received one after the other before the rest of the event loop has a turn."""


@dataclass(frozen=True)
class FailedRuns:
    """Runs that the observer could not steer or observe: run -> a sentence that says why."""

    runs: dict[str, str]
    edits: dict[str, str] = field(default_factory=dict)
    """Edits that have raised, and what each said, where they are why: such runs have a cache of their own."""


@dataclass(frozen=True)
class Stage:
    """How far the worker is with loading."""

    stage: str
    progress: float


class StepOnItsWay(Protocol):
    """A step whose arrays may still be on their way from the device."""

    @property
    def runs(self) -> Sequence[str]:
        """Names of those that have a part in it."""

    @property
    def numbers(self) -> int:
        """Bytes of its numbers."""

    def leave_numbers_out(self) -> None:
        """Only its positions, revisions and tokens are to travel."""

    def arrive(self) -> Step:
        """Wait for the arrays; called in the sender thread."""


Item = StepOnItsWay | Stage | FailedRuns


@dataclass
class RowSender:
    """The worker's end. `put` never blocks; the socket lives in the sender thread alone."""

    address: str
    held_bytes: int = HELD_BYTES
    dropped: int = 0
    """Steps whose numbers were left out, or that were dropped whole."""
    _items: queue.Queue[Item | None] = field(init=False)
    _held: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._items = queue.Queue(maxsize=QUEUED_STEPS)
        self._thread = threading.Thread(target=self._send_all, name="steersight-rows", daemon=True)
        self._thread.start()

    def put(self, item: Item) -> bool:
        """Queue it, a step without its numbers where they find no room. False where it was dropped whole."""
        if not isinstance(item, Stage | FailedRuns):
            with self._lock:
                room = self._held + item.numbers <= self.held_bytes
                if room:
                    self._held += item.numbers
            if not room:
                item.leave_numbers_out()
                self.dropped += 1
        try:
            self._items.put_nowait(item)
        except queue.Full:
            self._let_go(item)
            self.dropped += 1
            return False
        return True

    @property
    def held(self) -> int:
        """Bytes of numbers that wait for the sender thread."""
        return self._held

    def close(self) -> None:
        """Send what is queued and end the thread, if the server takes it within 5 s."""
        self._items.put(None)
        self._thread.join(timeout=5)

    def _let_go(self, item: Item) -> None:
        if not isinstance(item, Stage | FailedRuns):
            with self._lock:
                self._held -= item.numbers

    def _send_all(self) -> None:
        context = zmq.Context()
        socket = context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, IN_TRANSIT)
        socket.setsockopt(zmq.LINGER, 1000)
        socket.connect(self.address)
        try:
            while (item := self._items.get()) is not None:
                self._send(socket, item)
        finally:
            socket.close()
            context.term()

    def _send(self, socket: zmq.Socket[bytes], item: Item) -> None:
        if isinstance(item, Stage | FailedRuns):
            socket.send(pack(item))
            return
        try:
            for piece in item.arrive().pieces():
                # Waits while the server is busy; steps queue up behind it meanwhile.
                socket.send_multipart(piece.pack(), copy=False)
        except zmq.ZMQError:
            raise
        except Exception as error:
            # The thread is the only way to the server.
            logger.exception("A step could not be sent")
            reason = f"{type(error).__name__}: {error}"
            why = f"The engine could not send this reply's rows, so it was ended ({reason})."
            socket.send(pack(FailedRuns(dict.fromkeys(item.runs, why))))
        finally:
            self._let_go(item)


def pack(item: Stage | FailedRuns) -> bytes:
    """A stage, or a piece of news."""
    if isinstance(item, Stage):
        return bytes(msgpack.packb({"kind": "stage", "stage": item.stage, "progress": item.progress}))
    return bytes(msgpack.packb({"kind": "failed", "runs": item.runs, "edits": item.edits}))


def unpack(parts: list[bytes]) -> Step | Stage | FailedRuns:
    """What a message of the worker says."""
    head: dict[str, Any] = msgpack.unpackb(parts[0])
    match head["kind"]:
        case "stage":
            return Stage(head["stage"], head["progress"])
        case "failed":
            return FailedRuns(head["runs"], head["edits"])
        case _:
            return Step.unpack(head, parts[1:])


class RowReceiver:
    """The server's end: binds the address and gives out messages in order."""

    def __init__(self, address: str) -> None:
        import zmq.asyncio

        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, IN_TRANSIT)
        self._socket.bind(address)
        self._turn_ends = 0.0
        self.caught_up_at = 0.0
        """When no message was waiting, last, by `time.monotonic`."""

    async def receive(self) -> Step | Stage | FailedRuns:
        """Wait for the next message.

        One that is here already is received without a pause of the caller's task. A server that has fallen
        behind would then take steps, and more of them as they come, and send nothing of them to anybody; so
        the other tasks have their turn.
        """
        now = time.monotonic()
        if now >= self._turn_ends:
            await asyncio.sleep(0)
            self._turn_ends = time.monotonic() + TURN_SECONDS
        if not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self.caught_up_at = time.monotonic()
        return unpack(await self._socket.recv_multipart())

    def close(self) -> None:
        """Close the socket; nothing can be received afterwards."""
        self._socket.close(linger=0)
        self._context.term()
