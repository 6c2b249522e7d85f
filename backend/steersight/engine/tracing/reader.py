"""The process that reads clients' traces; `reading.py` starts it and talks to it.

To read a trace is to run code of its sender: it is a pickle, and what stands around its invokes is executed
to find them. In the server's process a loop there would stand still for everybody, and `os._exit` would end
it. So it happens here, beside a tree of the model without weights, and each trace in a fork of its own that
has a limit on time and memory. What comes of it are plain values (`asked.py`).

NNsight (0.8.1) does the same in `modeling/vllm/serve/server.py`, in the one process that it has.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

LENGTH = struct.Struct("<Q")
MIB = 1 << 20
TICK_SECONDS = 0.25

SAMPLING = (
    "temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "min_tokens", "stop", "stop_token_ids",
    "ignore_eos", "presence_penalty", "frequency_penalty", "repetition_penalty", "bad_words", "logprobs",
    "prompt_logprobs", "skip_special_tokens", "spaces_between_special_tokens", "include_stop_str_in_output",
    "logit_bias", "allowed_token_ids",
)  # fmt: skip
"""vLLM's sampling parameters that a trace may name."""
NOT_SAMPLING = ("extra_args", "output_kind", "skip_reading_prefix_cache", "detokenize")
"""Those that say how a request is carried out and not what is drawn: NNsight or the server sets them."""


@dataclass
class Child:
    """A fork that is at work."""

    pid: int
    until: float
    """By `time.monotonic`: when it is killed."""


class Reader:
    """Answers one socket; each connection is one job, done in a fork."""

    def __init__(self, model: Any, address: str, seconds: float, memory: int) -> None:
        """
        Args:
            model: NNsight's tree of the served model, without weights.
            address: path of the Unix socket to listen at.
            seconds: how long one job may take.
            memory: bytes that one job may take more than this process has.
        """
        self._model = model
        self._seconds = seconds
        self._memory = memory
        # The objects that a trace refers to by name in place of bringing them along.
        self._known = model._remoteable_persistent_objects()
        self._children: list[Child] = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address)  # of one that was before this
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)

    def serve(self) -> None:
        """Until standard input ends: that is how whoever started it says so, also by dying."""
        while True:
            ready, _, _ = select.select([self._listener, sys.stdin], [], [], TICK_SECONDS)
            self._look_after_children()
            if sys.stdin in ready:
                break
            if self._listener in ready:
                connection, _ = self._listener.accept()
                self._fork(connection)
        for child in self._children:
            os.kill(child.pid, signal.SIGKILL)

    def _fork(self, connection: socket.socket) -> None:
        pid = os.fork()
        if pid:
            connection.close()
            self._children.append(Child(pid, time.monotonic() + self._seconds + 1))
            return
        code = 1
        try:
            self._listener.close()
            job = msgpack.unpackb(receive(connection))
            limit(self._seconds, self._memory)
            send(connection, msgpack.packb(self._answer(job)))
            code = 0
        finally:
            os._exit(code)

    def _look_after_children(self) -> None:
        left = []
        for child in self._children:
            if os.waitpid(child.pid, os.WNOHANG)[0]:
                continue
            if time.monotonic() > child.until:
                os.kill(child.pid, signal.SIGKILL)
            left.append(child)
        self._children = left

    def _answer(self, job: dict[str, Any]) -> dict[str, Any]:
        from nnsight.intervention.errors import capture_exception

        jobs: dict[str, Callable[..., Any]] = {"read": self._read, "merge": _merged}
        try:
            return {"done": jobs[job["job"]](*job["arguments"])}
        except BaseException as error:  # SystemExit too: it is the client's
            return {"error": dict(capture_exception(error))}

    def _read(self, body: bytes, compressed: bool) -> list[dict[str, Any]]:
        """The requests of a trace that `RequestModel.serialize` has packed."""
        import ast
        import linecache

        from nnsight.schema.request import RequestModel

        tracer: Any = RequestModel.deserialize(body, self._known, compress=compressed)
        if getattr(tracer, "prepare", None) is None:
            raise TypeError(
                f"This is a {type(tracer).__name__}, and the server runs traces of a model: send "
                "`model.trace(..., serve=URL)`."
            )
        # Its blocks are packed once more for the workers, which takes the syntax tree; the trace brings its
        # source.
        source: Any = linecache.cache[tracer.info.frame.f_code.co_filename]
        tracer.node = ast.parse("".join(source[2]))
        _, invokes, trace_settings = tracer.prepare(tracer.info.code)
        prompts, parameters, loras = invokes
        self._model._serving = True  # edits are the engine's, and unknown here
        self._model._attach_mediators(parameters, **trace_settings)
        if any(lora is not None for lora in loras):
            raise ValueError("A trace brings no LoRA adapter to this server: leave lora_request out.")
        return [
            {"ids": self._tokens(prompt), "sampling": named(settings), **block_of(settings)}
            for prompt, settings in zip(prompts, parameters, strict=True)
        ]

    def _tokens(self, prompt: Any) -> list[int]:
        """A prompt as token ids, a text as vLLM would make them of it."""
        if isinstance(prompt, dict) and "prompt_token_ids" in prompt:
            return [int(token) for token in prompt["prompt_token_ids"]]
        text = prompt.get("prompt") if isinstance(prompt, dict) else prompt
        if not isinstance(text, str):
            raise ValueError("A prompt is a text or a list of token ids; this server takes no other kind.")
        return [int(token) for token in self._model.tokenizer(text)["input_ids"]]


def named(settings: Any) -> dict[str, Any]:
    """Of vLLM's `SamplingParams` what differs from the defaults. Raises ValueError for what is not taken."""
    usual = type(settings)()
    chosen = {
        name: value
        for name in settings.__struct_fields__
        if not name.startswith("_") and (value := getattr(settings, name)) != getattr(usual, name)
    }
    if chosen.pop("n", 1) != 1:
        raise ValueError("n is 1 here: each reply is a run of its own. Give each an invoke.")
    for name in NOT_SAMPLING:
        chosen.pop(name, None)
    unknown = [name for name in chosen if name not in SAMPLING]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)} cannot be given in a trace here; these can: {', '.join(SAMPLING)}."
        )
    return chosen


def block_of(settings: Any) -> dict[str, Any]:
    """The code of a request, and the edits that it names."""
    extra = settings.extra_args or {}
    return {"block": extra["nnsight_mediator"], "edits": extra.get("nnsight_edits")}


def _merged(payloads: list[bytes]) -> bytes:
    """What several requests of one trace have saved, in one payload: of a name that comes twice the later
    one, of errors the first."""
    import io

    import torch

    saves: dict[str, Any] = {}
    error = None
    for payload in payloads:
        found = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=False)
        saves.update(found["saves"])
        error = error or found["error"]
    buffer = io.BytesIO()
    torch.save({"saves": saves, "error": error}, buffer)
    return buffer.getvalue()


def limit(seconds: float, memory: int) -> None:
    """End this process after so long, and give it so many bytes more than it has."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with open("/proc/self/statm", encoding="ascii") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + memory, held + memory))


def receive(connection: socket.socket) -> bytes:
    """One message. Raises ConnectionError where it does not come whole."""
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = connection.recv(min(length - len(data), MIB))
        if not piece:
            raise ConnectionError("The other end has closed the connection in the middle of a message.")
        data += piece
    return bytes(data)


def send(connection: socket.socket, data: bytes) -> None:
    """One message."""
    connection.sendall(LENGTH.pack(len(data)) + data)


def main() -> None:
    """Build the tree, say so, and serve."""
    os.nice(10)  # the engine goes first
    address, model, options, seconds, memory = sys.argv[1:6]
    from ..libnuma import load

    load()
    from ..nnsight_adapter import module_tree

    reader = Reader(module_tree(model, **json.loads(options)), address, float(seconds), int(memory))
    print("ready", flush=True)  # noqa: T201 - read by who has started it
    # What clients' code prints is for the log.
    os.dup2(2, 1)
    reader.serve()


if __name__ == "__main__":
    main()
