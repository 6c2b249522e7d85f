"""The server's end of the process that reads clients' traces (`reader.py`)."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import msgpack

from ..loading import without_network
from .asked import Block, BlockError, TracedRequest, deferred, told
from .reader import LENGTH

if TYPE_CHECKING:
    from ..options import EngineOptions

logger = logging.getLogger(__name__)

START_SECONDS = 180.0
"""How long the process may take to come up: it imports vLLM and builds the model's tree."""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1"}


class TraceReader:
    """Reads traces of one model. All methods belong to one event loop."""

    def __init__(self, options: EngineOptions, dtype: str) -> None:
        """Nothing is started yet.

        Args:
            options: how the model is served.
            dtype: what it is served in.
        """
        self._options = options
        self._dtype = dtype
        self._folder = tempfile.TemporaryDirectory(prefix="steersight-", ignore_cleanup_errors=True)
        self._starting: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def read(self, body: bytes, *, compressed: bool) -> list[TracedRequest]:
        """The requests of a trace.

        Args:
            body: as NNsight's client packs it.
            compressed: whether it is packed with zstd.

        Raises:
            BlockError: it is none, or its code raises, hangs, takes too much memory or ends its process.
        """
        found = await self._job("read", body, compressed)
        return [
            TracedRequest(
                [int(token) for token in one["ids"]], dict(one["sampling"]),
                Block(bytes(one["block"]), None if one["edits"] is None else tuple(map(str, one["edits"]))),
            )
            for one in found
        ]  # fmt: skip

    async def merge(self, payloads: list[bytes]) -> bytes:
        """What several requests have saved, in one payload. Raises BlockError."""
        if len(payloads) == 1:
            return payloads[0]
        return bytes(await self._job("merge", payloads))

    async def start(self) -> None:
        """Bring the process up, if it is not. Raises RuntimeError with a sentence."""
        if self._process is not None and self._process.returncode is not None:
            self._starting = self._process = None
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="start-trace-reader")
        try:
            await asyncio.shield(self._starting)
        except RuntimeError:
            self._starting = None
            raise

    async def _start(self) -> None:
        options = self._options
        tree = {
            "dtype": self._dtype, "max_model_len": options.max_model_len,
            "revision": options.revision or None, "trust_remote_code": options.trust_remote_code,
            "quantization": options.quantization or None,
        }  # fmt: skip
        bounds = (options.nnsight_seconds, int(options.nnsight_memory_gib * (1 << 30)))
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "steersight.engine.tracing.reader", self._address, options.model,
            json.dumps(tree), *map(str, bounds), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, env={**os.environ, **ENVIRONMENT, **without_network(options)},
        )  # fmt: skip
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            async with asyncio.timeout(START_SECONDS):
                while (line := await process.stdout.readline()) not in (b"ready\n", b""):
                    pass  # what imports print
        except TimeoutError:
            process.kill()
            line = b""
        if not line:
            raise RuntimeError("The process that reads traces did not come up. The log says why.")

    @property
    def _address(self) -> str:
        return f"{self._folder.name}/traces"

    async def _job(self, job: str, *arguments: Any) -> Any:
        await self.start()
        seconds, memory = self._options.nnsight_seconds, self._options.nnsight_memory_gib
        request = msgpack.packb({"job": job, "arguments": arguments})
        reader, writer = await asyncio.open_unix_connection(self._address)
        try:
            writer.write(LENGTH.pack(len(request)) + request)
            await writer.drain()
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            answer = msgpack.unpackb(await reader.readexactly(length), strict_map_key=False)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise BlockError(
                deferred(
                    "RuntimeError",
                    "The process that read this trace has ended: its code outside of the model's run took "
                    f"more than {seconds:g} s or {memory:g} GiB (--nnsight-seconds, --nnsight-memory-gib), "
                    "or ended it. Nobody else has felt it.",
                )
            ) from None
        finally:
            writer.close()
        if "error" in answer:
            raise BlockError(told(answer["error"]))
        return answer["done"]

    async def close(self) -> None:
        """End the process; again is harmless."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
        self._folder.cleanup()
