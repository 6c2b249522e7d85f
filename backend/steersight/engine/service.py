"""The engine as the rest of the server sees it: load, generate, steer, count, shut down.

Everything slow happens in threads or in the engine's own process, so the event loop goes on serving while
the model loads. Rows come in on their own channel and are handed to the run they belong to; tokens come
from NNsight's stream. Joining the two by position is the business of `runs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..metrics import Registry
from ..vectors.store import READER_FIELDS, VectorError
from . import libnuma
from .bank import ENCODER
from .channel import Failed, RowBlock, RowReceiver, Stage

if TYPE_CHECKING:
    import torch

    from ..vectors.action import Action
    from ..vectors.store import SteeringVector

logger = logging.getLogger(__name__)


ATTENTION_REFUSED = (
    "It acts on what attention adds, which this engine cannot change: it decodes in CUDA graphs "
    "(--engine-mode eager would do), or the model's attention is no part that is simply added."
)


class EngineNotReadyError(RuntimeError):
    """The engine cannot take a run now; the message says why."""


class EngineLostError(RuntimeError):
    """The engine's processes are gone or do not answer; the message says what happens next."""


class RunFailedError(RuntimeError):
    """One run could not be computed as asked; the message says why. The engine goes on."""


@dataclass(frozen=True)
class EngineOptions:
    """How to start the engine."""

    model: str
    """Path of a checkpoint folder, or a name the Hugging Face hub knows."""
    data_dir: Path
    dtype: str = "auto"
    """`auto` is float32 on a CPU and the checkpoint's own type on CUDA."""
    max_model_len: int = 4096
    max_runs: int = 64
    tensor_parallel: int = 1
    kv_cache_gib: int = 1
    """Size of the KV cache on a CPU."""
    gpu_memory: float = 0.9
    """Share of each GPU's memory for weights and KV cache."""
    metrics: tuple[str, ...] = ()
    """Python files with metrics of one's own."""
    layout: str = ""
    """Where the decoder layers are, for a model that Steersight does not know; see engine/layout.py."""
    mode: str = "auto"
    """`graphs` decodes in CUDA graphs, `eager` does not; `auto` is graphs on CUDA."""
    executor: str = "auto"
    """vLLM's way to run its ranks: `mp` (processes), `ray` (other machines too), `auto` (vLLM chooses)."""


@dataclass(frozen=True)
class Status:
    """Where the engine is between a cold start and serving."""

    state: Literal["loading", "ready", "failed", "draining", "stopped"] = "loading"
    stage: str = "Starting"
    progress: float = 0.0


@dataclass(frozen=True)
class ModelFacts:
    """What is known of the served model."""

    id: str
    layers: int
    hidden_size: int
    vocab_size: int
    dtype: str
    max_model_len: int
    special_ids: list[int]


@dataclass(frozen=True)
class GenerateRequest:
    """One generation, in the engine's terms."""

    run: str
    prompt_ids: list[int]
    sampling: dict[str, Any]
    """Keyword arguments of vLLM's SamplingParams."""
    actions: list[Action]
    """What steers it from the first pass on."""
    prompt_rows: bool
    metrics: list[str]
    entropy: bool = False
    lens_stride: int = 0
    """0 is off."""
    lens_top: int = 0
    capture: bool = False
    """Whether the worker sums the stream over its rows; see `EngineService.capture`."""
    rev: int = 0
    """Number of the state that `actions` are."""
    first_row: int | None = None
    """First position with a row, instead of what `prompt_rows` says."""


@dataclass(frozen=True)
class Captured:
    """One example's stream."""

    reply: list[int]
    mean: torch.Tensor
    """[layers, hidden_size] fp32, mean over the tokens"""
    tokens: int
    surprisal: float | None
    """nats per token that counted, where asked for"""


@dataclass(frozen=True)
class TokenStep:
    """New tokens of a reply. vLLM merges steps when the reader lags, so it can be more than one."""

    ids: list[int]
    logprobs: list[float | None]
    ranks: list[int | None]
    """1 for the likeliest token of the model's final distribution."""
    finished: str | None
    """vLLM's finish reason on the last one: `stop` or `length`."""
    stop: str | None
    """The stop string that ended the reply."""
    prompt_logprobs: list[float | None] | None = None
    """Of each token of the prompt; None where not asked for, or already given."""


async def _in_daemon_thread(work: Callable[[], Any]) -> Any:
    """Like asyncio.to_thread, but neither the loop's end nor the interpreter's waits for the thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def body() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=body, name="load-engine", daemon=True).start()
    return await future


@dataclass
class EngineService:
    """One engine. Not thread-safe: all methods belong to the event loop that called `load`."""

    options: EngineOptions
    status: Status = field(default_factory=Status)
    model: ModelFacts | None = None
    tokenizer: Any = None
    vectors: dict[str, SteeringVector] = field(default_factory=dict)
    vector_files: dict[str, Path] = field(default_factory=dict)
    """Where each was read."""
    own_vectors: set[str] = field(default_factory=set)
    """Ids of those in the data folder, which may be deleted; the others are bundled."""
    registry: Registry = field(default_factory=Registry)
    """Metrics that runs may ask for."""
    failed_metrics: dict[str, str] = field(default_factory=dict)
    """Those that raised and are switched off, and what they said."""
    capacity_tokens: int | None = None
    """Tokens that the KV cache holds; None until the engine is ready."""
    abandoned: bool = False
    """Told to end while it was loading: a thread of ours, and processes it starts, may still be at it."""
    _listeners: list[Callable[[], None]] = field(default_factory=list)
    _sinks: dict[str, Callable[[RowBlock], None]] = field(default_factory=dict)
    _lent: dict[str, SteeringVector] = field(default_factory=dict)
    _changing_vectors: asyncio.Lock = field(default_factory=asyncio.Lock)
    _nnsight: Any = None
    _reader: asyncio.Task[None] | None = None
    _receiver: RowReceiver | None = None
    _folder: tempfile.TemporaryDirectory[str] | None = None

    # ------------------------------------------------------------ state

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` at every change of status; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _set(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        for listener in list(self._listeners):
            listener()

    # ------------------------------------------------------------ life

    async def load(self) -> None:
        """Load the model and start the engine; on failure the status says why and nothing is raised."""
        self._folder = tempfile.TemporaryDirectory(prefix="steersight-")
        address = f"ipc://{self._folder.name}/rows"
        self._receiver = RowReceiver(address)
        self._reader = asyncio.create_task(self._read_rows(self._receiver), name="steersight-rows")
        loop = asyncio.get_running_loop()

        def report(stage: str, progress: float) -> None:
            loop.call_soon_threadsafe(lambda: self._set(stage=stage, progress=progress))

        try:
            self._nnsight = await _in_daemon_thread(lambda: self._build(address, report))
            for refused in await self._send_vectors(self.vectors):
                logger.warning("The vector %s is not used. %s", refused, ATTENTION_REFUSED)
                self.vectors.pop(refused)
        except asyncio.CancelledError:
            self.abandoned = self._nnsight is None
            raise
        except Exception as error:
            logger.exception("The engine did not start")
            self._set(state="failed", stage=f"The engine did not start: {error}", progress=0.0)
            return
        self._set(state="ready", stage="Ready", progress=1.0)

    def _build(self, address: str, report: Callable[[str, float], None]) -> Any:
        """Runs in a thread. Everything that imports torch, transformers, vllm or nnsight starts here."""
        options = self.options
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(options.kv_cache_gib))
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        if Path(options.model).is_dir():
            os.environ.setdefault("HF_HUB_OFFLINE", "1")

        report("Reading the model's configuration and tokenizer", 0.02)
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(options.model)
        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        text = config.get_text_config()
        length = min(options.max_model_len, text.max_position_embeddings)
        facts = ModelFacts(
            id=Path(options.model).name if Path(options.model).is_dir() else options.model,
            layers=text.num_hidden_layers,
            hidden_size=text.hidden_size,
            vocab_size=text.vocab_size,
            dtype=options.dtype,
            max_model_len=length,
            special_ids=sorted(self.tokenizer.all_special_ids),
        )
        from ..vectors.store import VectorStore

        chosen = VectorStore(options.data_dir).select(options.model, facts.hidden_size, facts.layers)
        for problem in chosen.problems:
            logger.warning("%s", problem)
        self.vectors, self.vector_files, self.own_vectors = chosen.vectors, chosen.files, chosen.own
        from ..metrics.own import load_own

        named = [(vector.id, vector.label) for vector in chosen.vectors.values()]
        self.registry = Registry(named, load_own(list(options.metrics)))
        self.model = facts

        report("Importing vLLM and NNsight", 0.1)
        libnuma.load()
        from vllm.platforms import current_platform

        from .model import SteersightVLLM

        if current_platform.is_cpu():
            # vLLM 0.32 compiles two helpers of its sampler with torch.compile even in an eager engine. On a
            # CPU that needs a C++ compiler at the first reply: without one the engine died, with one the
            # reply waited for it. The worker process inherits this, and runs the two as plain operations.
            os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
        dtype = options.dtype
        if dtype == "auto":
            dtype = "float32" if current_platform.is_cpu() else str(text.dtype).removeprefix("torch.")
        self.model = replace(facts, dtype=dtype)
        report("Building the model's module tree", 0.3)
        more: dict[str, Any] = {}
        if not current_platform.is_cpu():
            more["gpu_memory_utilization"] = options.gpu_memory
        if options.executor != "auto":
            more["distributed_executor_backend"] = options.executor
        return SteersightVLLM(
            options.model,
            mode="async",
            dispatch=True,
            dtype=dtype,
            max_model_len=length,
            max_num_seqs=options.max_runs,
            tensor_parallel_size=options.tensor_parallel,
            **more,
            additional_config={
                "steersight": {
                    "channel": address,
                    "layout": options.layout,
                    "metrics": list(options.metrics),
                    "vectors": named,
                    "graphs": options.mode != "eager" and not current_platform.is_cpu(),
                }
            },
        )

    async def add_vector(self, vector: SteeringVector, file: Path) -> None:
        """Offer one vector more, from the next step on. `file` is where it is kept.

        Raises: VectorError when this engine cannot use it; nothing has changed then.
        """
        async with self._changing_vectors:
            if await self._send_vectors({**self.vectors, vector.id: vector}):
                raise VectorError(ATTENTION_REFUSED)
            self.vectors[vector.id] = vector
            self.vector_files[vector.id] = file
            self.own_vectors.add(vector.id)
            self._offer()

    async def remove_vector(self, name: str) -> None:
        """Offer it no more. The caller has seen to it that no live run uses it."""
        async with self._changing_vectors:
            await self._send_vectors(
                {other: vector for other, vector in self.vectors.items() if other != name}
            )
            for table in (self.vectors, self.vector_files):
                table.pop(name)
            self.own_vectors.discard(name)
            self._offer()

    def _offer(self) -> None:
        self.registry = self.registry.with_vectors([(v.id, v.label) for v in self.vectors.values()])
        self._set()

    async def _send_vectors(self, vectors: dict[str, SteeringVector]) -> list[str]:
        """Replace the worker's vectors by these; returns those that it cannot use and has left out."""
        from safetensors.torch import save

        tensors: dict[str, torch.Tensor] = {}
        facts: dict[str, dict[str, Any]] = {}
        for vector in (*vectors.values(), *self._lent.values()):
            facts[vector.id] = {"label": vector.label, "site": vector.site}
            for index, layer in enumerate(vector.layers):
                tensors[f"{vector.id}/{layer}"] = vector.directions[index] * vector.lengths[index]
            if vector.reader is not None:
                tensors[f"{vector.id}/{ENCODER}"] = vector.reader.weight.contiguous()
                facts[vector.id]["reader"] = {name: getattr(vector.reader, name) for name in READER_FIELDS}
        answers: list[list[str]] = await self._call("steersight_vectors", save(tensors), facts)
        return answers[0]

    def drain(self) -> None:
        """Take no more runs, because the server is about to end; those under way go on."""
        if self.status.state == "ready":
            self._set(state="draining", stage="The server is about to end")

    async def shutdown(self) -> None:
        """Stop the engine process and the row channel."""
        self._set(state="stopped", stage="Stopped", progress=0.0)
        if self._nnsight is not None:
            engine = self._nnsight.vllm_entrypoint
            await asyncio.to_thread(engine.shutdown)
            # Collected now and not at interpreter exit, where AsyncLLM.__del__ (vLLM 0.32.0) finds its own
            # imports gone and prints a traceback.
            self._nnsight.vllm_entrypoint = None
            self._nnsight = engine = None
            gc.collect()
        if self._reader is not None:
            self._reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        if self._receiver is not None:
            self._receiver.close()
        if self._folder is not None:
            self._folder.cleanup()

    # ------------------------------------------------------------ runs

    async def generate(
        self, request: GenerateRequest, on_rows: Callable[[RowBlock], None]
    ) -> AsyncIterator[TokenStep]:
        """Submit one run and yield its tokens; rows go to `on_rows` as they arrive, before their tokens.

        Closing the iterator (`aclose`) aborts the run in the engine.
        """
        if self._nnsight is None or self.status.state != "ready":
            raise EngineNotReadyError(f"The engine is {self.status.state}: {self.status.stage}")
        from vllm.sampling_params import RequestOutputKind

        options = {
            "run": request.run,
            "actions": [action.to_map() for action in request.actions],
            "first_row": request.first_row
            if request.first_row is not None
            else 0
            if request.prompt_rows
            else len(request.prompt_ids),
            "metrics": request.metrics,
            "entropy": request.entropy,
            "lens_stride": request.lens_stride,
            "lens_top": request.lens_top,
            "capture": request.capture,
        }
        with self._nnsight.trace(
            list(request.prompt_ids),
            **request.sampling,
            logprobs=0,
            detokenize=bool(request.sampling.get("stop")),
            output_kind=RequestOutputKind.DELTA,
            extra_args={"steersight": options},
        ) as tracer:
            pass
        self._sinks[request.run] = on_rows
        # Closed by name: an abandoned NNsight stream frees its request only at garbage collection.
        stream = tracer.backend.__aiter__()
        try:
            async for output in stream:
                yield _token_step(output)
        finally:
            await stream.aclose()
            self._sinks.pop(request.run, None)

    async def steer(self, run: str, rev: int, actions: list[Action]) -> None:
        """Put new actions in force on all ranks between two steps; rows will say from where."""
        await self._call("steersight_steer", run, rev, [action.to_map() for action in actions])

    async def capture(
        self,
        prompt_ids: list[int],
        *,
        reply_tokens: int = 1,
        first: int | None = None,
        actions: list[Action] | None = None,
        surprisal: bool = False,
    ) -> Captured:
        """Let the model reply greedily and average the stream after every layer over some of the tokens.

        Args:
            prompt_ids: the prompt.
            reply_tokens: the most it may write. The last token it writes is never read and does not count.
            first: position of the first token that counts; None is the first of the reply.
            actions: what steers it.
            surprisal: tell how surprising the prompt's tokens from `first` on are.

        Raises: EngineNotReadyError; ValueError where no token counted, because the reply was empty.
        """
        from safetensors.torch import load

        run = f"capture-{secrets.token_hex(8)}"
        start = len(prompt_ids) if first is None else first
        sampling: dict[str, Any] = {"max_tokens": reply_tokens, "temperature": 0.0}
        if surprisal:
            sampling["prompt_logprobs"] = 0
        request = GenerateRequest(
            run=run, prompt_ids=prompt_ids, sampling=sampling, actions=actions or [],
            prompt_rows=False, metrics=[], capture=True, first_row=start,
        )  # fmt: skip
        reply: list[int] = []
        logprobs: list[float] = []
        try:
            async for step in self.generate(request, lambda _block: None):
                reply += step.ids
                if step.prompt_logprobs is not None:
                    logprobs = [value for value in step.prompt_logprobs[start:] if value is not None]
        finally:
            data, counts = (await self._call("steersight_captured", [run]))[0]
        if not counts.get(run):
            raise ValueError("The model had nothing to say.")
        return Captured(
            reply, load(data)[run] / counts[run], counts[run],
            -sum(logprobs) / len(logprobs) if logprobs else None,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def lent(self, vector: SteeringVector) -> AsyncIterator[None]:
        """Let the engine steer with a vector that nobody is offered, for as long as the context lasts."""
        async with self._changing_vectors:
            self._lent[vector.id] = vector
            await self._send_vectors(self.vectors)
        try:
            yield
        finally:
            async with self._changing_vectors:
                self._lent.pop(vector.id)
                await self._send_vectors(self.vectors)

    async def held(self) -> dict[str, int]:
        """How many requests vLLM, NNsight and the lens still hold, and how many steps' rows were dropped."""
        if self._nnsight is None or self.status.state != "ready":
            return {"vllm": 0, "nnsight": 0, "lens": 0, "dropped": 0}
        answers: list[dict[str, int]] = await self._call("steersight_load")
        return {key: max(answer[key] for answer in answers) for key in answers[0]}

    async def _call(self, method: str, *args: Any) -> Any:
        return await self._nnsight.vllm_entrypoint.collective_rpc(method, args=args)

    async def _read_rows(self, receiver: RowReceiver) -> None:
        while True:
            item = await receiver.receive()
            if isinstance(item, Stage):
                if self.status.state == "loading":
                    self._set(stage=item.stage, progress=item.progress)
                continue
            for block in item:
                if isinstance(block, Failed):
                    if block.metrics.keys() - self.failed_metrics.keys():
                        self.failed_metrics = block.metrics
                        self._set()
                    continue
                sink = self._sinks.get(block.run)
                if sink is not None:
                    sink(block)


def _token_step(output: Any) -> TokenStep:
    completion = output.outputs[0]
    ids = list(completion.token_ids)
    known = completion.logprobs or [None] * len(ids)
    drawn = [
        table[token] if table and token in table else None for token, table in zip(ids, known, strict=False)
    ]
    return TokenStep(
        ids=ids,
        logprobs=[None if entry is None else float(entry.logprob) for entry in drawn],
        ranks=[None if entry is None or entry.rank is None else int(entry.rank) for entry in drawn],
        finished=completion.finish_reason,
        stop=completion.stop_reason if isinstance(completion.stop_reason, str) else None,
        prompt_logprobs=_prompt_logprobs(output),
    )


def _prompt_logprobs(output: Any) -> list[float | None] | None:
    if not output.prompt_logprobs:
        return None
    return [
        float(table[token].logprob) if table and token in table else None
        for token, table in zip(output.prompt_token_ids, output.prompt_logprobs, strict=False)
    ]
