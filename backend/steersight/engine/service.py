"""The engine as the rest of the server sees it: load, generate, steer, count, shut down.

Everything slow happens in threads or in the engine's own process, so the event loop goes on serving while
the model loads. Rows and tokens come in on their own channel, one message for each step; what belongs to a
reply is handed to its run.

An engine that is lost (killed, crashed, hung) costs the runs that were live in it, and is started again by
itself; `life.py` is one engine, and this is what outlives it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..metrics import Registry
from ..patience import Patience
from ..text.rendering import UnknownTokenError, outside
from ..vectors.store import VectorError
from .arrivals import described, pieces
from .causes import explain
from .channel import FailedRuns, Stage
from .errors import EngineLostError as EngineLostError
from .errors import EngineNotReadyError as EngineNotReadyError
from .errors import RunFailedError as RunFailedError
from .errors import StartError
from .life import CallError, Item, Life
from .loading import in_daemon_thread, read_model
from .options import EngineOptions as EngineOptions
from .options import ModelFacts as ModelFacts
from .reply import Entry, Reply, entries
from .request import RunOptions, RunRequest, Wants
from .step import NO_TOKEN, Step
from .submission import submission
from .use import Need, VectorUse
from .watch import TRIES, Restarts

if TYPE_CHECKING:
    import torch

    from ..text.rendering import Renderer
    from ..vectors.action import Action
    from ..vectors.store import SteeringVector

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

HELD_SECONDS = 2.0
"""How long `held` waits for an engine that may be busy with a long prompt."""
LAST_STEPS_SECONDS = 2.0
"""Steps lead vLLM's own outputs by a millisecond or so; what has not come after this was lost on the way."""


@dataclass(frozen=True)
class Status:
    """Where the engine is between a cold start and serving."""

    state: Literal["loading", "ready", "failed", "draining", "stopped"] = "loading"
    stage: str = "Starting"
    progress: float = 0.0


@dataclass(frozen=True)
class StreamMean:
    """One example's stream."""

    reply: list[int]
    mean: torch.Tensor
    """[layers, hidden_size] fp32, mean over the tokens"""
    tokens: int
    surprisal: float | None
    """nats per token that counted, where asked for"""


@dataclass(frozen=True)
class Ended:
    """How a generation ended by itself."""

    reason: Literal["stop", "length"]
    stop: str | None
    """The stop string that ended the reply."""
    prompt_logprobs: list[float | None] | None = None
    """Of each token of the prompt; None where not asked for."""


@dataclass
class _Live:
    """A run that is in the engine."""

    reply: Reply
    take: Callable[[Entry], None]
    failed: str | None = None
    """Why it has failed, in a sentence."""
    deadline: asyncio.Timeout | None = None
    """What interrupts whoever waits for it."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self, released: list[Entry]) -> None:
        """Hand on what is known to belong to the reply."""
        if self.failed is None and released:
            for entry in released:
                self.take(entry)
            self.changed.set()

    def fail(self, why: str) -> None:
        """Let `generate` raise; the first reason counts."""
        if self.failed is None:
            self.failed = why
            if self.deadline is not None:
                self.deadline.reschedule(asyncio.get_running_loop().time())


@dataclass
class EngineService:
    """One engine. Not thread-safe: all methods belong to the event loop that called `load`."""

    options: EngineOptions
    status: Status = field(default_factory=Status)
    model: ModelFacts | None = None
    renderer: Renderer | None = None
    """Makes prompts for the model; None until its tokenizer has been read."""
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
    restarts: int = 0
    """How often an engine that was lost has been brought back."""
    on_step: Callable[[], None] = lambda: None
    """Called for each step whose rows have come."""
    abandoned: bool = False
    """Told to end while it was loading: a thread of ours, and processes it starts, may still be at it."""
    _listeners: list[Callable[[], None]] = field(default_factory=list)
    _live: dict[str, _Live] = field(default_factory=dict)
    use: VectorUse = field(default_factory=VectorUse)
    """Which vectors the runs need."""
    _changing_vectors: asyncio.Lock = field(default_factory=asyncio.Lock)
    _life: Life | None = None
    _tries: Restarts = field(default_factory=Restarts)
    _again: str = ""
    """What the stage begins with while a lost engine is started again."""
    _rebuilding: asyncio.Task[None] | None = None

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer; None until it has been read."""
        return None if self.renderer is None else self.renderer.tokenizer

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
        report = self._reporter()
        try:
            known = await in_daemon_thread(lambda: read_model(self.options, report))
            self.model, self.renderer, self.registry = known.model, known.renderer, known.registry
            chosen = known.vectors
            self.vectors, self.vector_files, self.own_vectors = chosen.vectors, chosen.files, chosen.own
            for problem in (*known.problems, *chosen.problems):
                logger.warning("%s", problem)
            await self._start(known.model)
        except asyncio.CancelledError:
            self.abandoned = self._life is None
            raise
        except Exception as error:
            logger.exception("The engine did not start")
            why = str(error) if isinstance(error, StartError) else explain(error)
            self._set(state="failed", stage=f"The engine did not start. {why}", progress=0.0)

    def _reporter(self) -> Callable[[str, float], None]:
        loop = asyncio.get_running_loop()

        def report(stage: str, progress: float) -> None:
            loop.call_soon_threadsafe(self._loading, stage, progress)

        return report

    def _loading(self, stage: str, progress: float) -> None:
        if self.status.state == "loading":
            self._set(stage=f"{self._again} {stage}".lstrip(), progress=progress)

    async def _start(self, model: ModelFacts) -> None:
        """Take one engine into service. Raises what went wrong, and leaves nothing of it then.

        Cancelled, it leaves everything to `shutdown`.
        """
        life = self._life = Life(self.options, model, take=self._take, ended=self._lose, silent=self._silent)
        named = [(vector.id, vector.label) for vector in self.vectors.values()]
        try:
            built = await life.start(named, self._reporter())
            async with self._changing_vectors:
                await self._send_all()
        except Exception:
            await life.end(kindly=False)
            raise
        self.model = replace(model, dtype=built.dtype)
        self.capacity_tokens = built.capacity_tokens
        self.failed_metrics = {}
        self._again = ""
        self._set(state="ready", stage="Ready", progress=1.0)

    def _lose(self, life: Life, why: str) -> None:
        """An engine is dead or hung: first nobody is sent to it any more, then all who wait for it hear."""
        if life is not self._life or life.lost is not None:
            return
        if self.status.state != "ready":
            life.lose(why)  # whoever starts it, or ends it, sees that
            return
        logger.error("%s", why)
        self._tries.lost(asyncio.get_running_loop().time() - life.ready_at)
        pause = self._next_try(why)
        again = (
            "It is being started again. Try once more when it is ready."
            if pause is not None
            else "It is not started again."
        )
        life.lose(f"{why} {again}")
        self._rebuilding = asyncio.create_task(self._rebuild(life, why, pause), name="rebuild-engine")

    def _next_try(self, why: str, last: str = "") -> float | None:
        """Announce one more try to bring the engine back; the pause before it, or None to give up."""
        pause = self._tries.next_pause()
        if pause is None:
            stage = f"{why} It was started again {TRIES} times, and that did not last. {last}".rstrip()
            self._set(state="failed", stage=f"{stage} The log says more.", progress=0.0)
            return None
        self._again = f"{why} It is being started again (try {self._tries.tries} of {TRIES})."
        self._set(state="loading", stage=self._again, progress=0.0)
        return pause

    async def _rebuild(self, dead: Life, why: str, pause: float | None) -> None:
        await dead.end(kindly=False)
        while pause is not None:
            await asyncio.sleep(pause)
            try:
                await self._start(dead.model)
            except Exception as error:
                logger.exception("The engine did not start again")
                last = str(error) if isinstance(error, StartError) else explain(error)
                pause = self._next_try(why, f"The last time: {last}")
            else:
                self.restarts += 1
                return

    def _silent(self, life: Life, seconds: float) -> None:
        """An engine owes an answer; or it has given one after all."""
        if life is not self._life or self.status.state != "ready":
            return
        stage = "Ready"
        if seconds:
            limit = self.options.stall_seconds
            stage = (
                f"The engine has not answered for {seconds:.0f} s. "
                f"After {limit:g} s it counts as hung and is started again."
            )
        self._set(stage=stage)

    async def shutdown(self) -> None:
        """Stop the engine process and the row channel, wherever they are between start and end."""
        self._set(state="stopped", stage="Stopped", progress=0.0)
        if self._rebuilding is not None:
            self._rebuilding.cancel()
            await asyncio.wait([self._rebuilding])
        if self._life is not None:
            self.abandoned = self.abandoned or self._life.starting
            await self._life.end(kindly=True)

    def kill(self) -> None:
        """Kill what an abandoned thread has started; from any thread, when the event loop is gone."""
        if self._life is not None:
            self._life.kill()

    def _serving(self) -> Life:
        if self._life is None or self.status.state != "ready":
            raise EngineNotReadyError(f"The engine is {self.status.state}: {self.status.stage}")
        return self._life

    # ------------------------------------------------------------ vectors

    async def add_vector(self, vector: SteeringVector, file: Path) -> None:
        """Offer one vector more, from the next step on. `file` is where it is kept.

        Raises: VectorError when this engine cannot use it. Then, and where it is cancelled, nothing has
            changed.
        """
        async with self._changing_vectors:
            if vector.id in self.vectors:
                raise VectorError(f"There is a vector {vector.id!r} already.")
            await self._send(vector.id, vector)
            self.vectors[vector.id] = vector
            self.vector_files[vector.id] = file
            self.own_vectors.add(vector.id)
            self._offer()

    async def remove_vector(self, name: str) -> None:
        """Offer it no more.

        Raises: VectorInUseError while an unfinished run is steered by it or watches it. Then, and where the
            engine is lost meanwhile, nothing has changed.
        """
        async with self._changing_vectors:
            vector = self.vectors.get(name)
            if vector is None:
                raise VectorError(f"There is no vector {name!r}.")
            self.use.check_free(name, vector.label)
            # Nobody may begin to use it while the workers let go of it.
            before = dict(self.vectors)
            del self.vectors[name]
            self._offer()
            try:
                await uninterrupted(self._call("steersight_remove_vector", name))
            except Exception:
                self.vectors.clear()
                self.vectors.update(before)
                self._offer()
                raise
            finally:
                if name not in self.vectors:
                    self.vector_files.pop(name, None)
                    self.own_vectors.discard(name)

    def _offer(self) -> None:
        self.registry = self.registry.with_vectors([(v.id, v.label) for v in self.vectors.values()])
        self._set()

    async def _send_all(self) -> None:
        """Give all vectors to an engine that has none; what it cannot use is not offered."""
        for vector in list(self.vectors.values()):
            try:
                await self._send(vector.id, vector)
            except VectorError as error:
                logger.warning("The vector %s is not used. %s", vector.id, error)
                del self.vectors[vector.id]
        self._offer()

    async def _send(self, name: str, vector: SteeringVector) -> None:
        """Let all ranks steer with one vector more, under a name that is free.

        Its pieces are made in threads, so the event loop serves meanwhile, and no step waits for more than
        one piece. First every rank makes the vector, which may fail; then all of them take it up.

        Raises: VectorError where this engine cannot use it, or a rank could not take it. Then, and where it
            is cancelled, no rank has it.
        """
        try:
            made = pieces(vector)
            while (piece := await asyncio.to_thread(next, made, None)) is not None:
                await self._call("steersight_vector_piece", name, piece)
            refusals = await self._call("steersight_prepare_vector", name, described(vector))
            if any(refusals):
                raise VectorError(next(filter(None, refusals)))
            await uninterrupted(self._call("steersight_add_vector", name))
        except BaseException as error:
            await self._take_back(name)
            if isinstance(error, CallError):
                raise VectorError(f"The engine could not take it. {error}") from error
            raise

    async def _take_back(self, name: str) -> None:
        """Let no rank steer with a vector that nobody is offered. A lost engine has taken it along."""
        with contextlib.suppress(EngineLostError, EngineNotReadyError, CallError):
            await uninterrupted(self._call("steersight_remove_vector", name))

    def drain(self) -> None:
        """Take no more runs, because the server is about to end; those under way go on."""
        if self.status.state == "ready":
            self._set(state="draining", stage="The server is about to end")

    # ------------------------------------------------------------ runs

    async def generate(self, request: RunRequest, take: Callable[[Entry], None]) -> Ended:
        """Submit one run and wait for its end; `take` gets rows and tokens as they are computed, in order.

        Cancelling it aborts the run in the engine. When it has returned, `take` has had the whole reply.

        Raises:
            EngineNotReadyError: it takes no runs now.
            UnknownTokenError, ValueError: the prompt has ids that the model has no row for, or none at all.
            EngineLostError: it was lost while the run was live.
            RunFailedError: it could not steer or observe this run. The engine says so before that step's
            rows.
        """
        life = self._serving()
        self._check(request)
        asked = submission(life.engine, request, life.model.max_model_len)
        live = self._live[request.run] = _Live(Reply(len(request.prompt_ids), asked.ends), take)
        need = Need(
            frozenset(action.vector for action in request.options.actions),
            frozenset(request.options.wants.metrics),
        )
        try:
            # No deadline: whatever fails the run lets it expire.
            async with asyncio.timeout(None) as live.deadline:
                with self.use.running(request.run, need):
                    return await _follow(live, life.stream(asked.outputs(life.engine)))
        except TimeoutError:
            if live.failed is None:
                raise
            raise RunFailedError(live.failed) from None
        finally:
            self._live.pop(request.run, None)

    def _check(self, request: RunRequest) -> None:
        """The last look at a prompt, wherever it was made: an id without a row ends vLLM's process."""
        if not request.prompt_ids:
            raise ValueError("The prompt has no tokens.")
        rows = self._serving().model.vocab_size
        foreign = outside(request.prompt_ids, rows)
        if foreign:
            raise UnknownTokenError(
                f"The prompt has token {foreign[0]}, and the model knows only tokens 0 to {rows - 1}."
            )

    async def steer(self, run: str, rev: int, actions: list[Action]) -> None:
        """Put new actions in force on all ranks between two steps; rows will say from where.

        Raises:
            EngineLostError: nobody is steered any more.
            RunFailedError: the engine could not do it. The run fails with it: some ranks may have done it.
        """
        try:
            with self.use.steering(run, (action.vector for action in actions)):
                await self._call("steersight_steer", run, rev, [action.to_map() for action in actions])
        except CallError as error:
            why = f"The engine could not steer this reply, so it was ended. {error}"
            self._fail({run: why})
            raise RunFailedError(why) from error

    async def stream_mean(
        self,
        prompt_ids: list[int],
        *,
        reply_tokens: int = 1,
        first: int | None = None,
        actions: list[Action] | None = None,
        surprisal: bool = False,
    ) -> StreamMean:
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

        run = f"sums-{secrets.token_hex(8)}"
        start = len(prompt_ids) if first is None else first
        sampling: dict[str, Any] = {"max_tokens": reply_tokens, "temperature": 0.0}
        if surprisal:
            sampling["prompt_logprobs"] = 0
        options = RunOptions(run=run, first_row=start, wants=Wants(sums=True), actions=tuple(actions or ()))
        reply: list[int] = []

        def take(entry: Entry) -> None:
            if entry.token != NO_TOKEN:
                reply.append(entry.token)

        try:
            ended = await self.generate(RunRequest(prompt_ids, sampling, options), take)
        finally:
            data, counts = (await self._call("steersight_stream_sums", [run]))[0]
        if not counts.get(run):
            raise ValueError("The model had nothing to say.")
        logprobs = [value for value in (ended.prompt_logprobs or [])[start:] if value is not None]
        return StreamMean(
            reply, load(data)[run] / counts[run], counts[run],
            -sum(logprobs) / len(logprobs) if logprobs else None,
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def lent(self, vector: SteeringVector) -> AsyncIterator[str]:
        """Let the engine steer with a vector that nobody is offered, for as long as the context lasts.

        Yields: the name for actions with it. Its id may belong to another vector, which others steer with.

        Raises: VectorError where this engine cannot use it, or has no room for it.
        """
        name = f"lent-{secrets.token_hex(8)}"
        with self.use.lending(name):
            async with self._changing_vectors:
                await self._send(name, vector)
            try:
                yield name
            finally:
                await self._take_back(name)

    async def held(self) -> dict[str, int]:
        """How many requests vLLM, NNsight and the observer still hold, and how many steps' rows were dropped.

        Where the engine does not say so soon: what it said last.
        """
        nothing = {"vllm": 0, "nnsight": 0, "observer": 0, "dropped": 0}
        life = self._life
        if life is None:
            return nothing
        try:
            async with asyncio.timeout(HELD_SECONDS):
                return await life.count()
        except TimeoutError:
            return life.load or nothing
        except (EngineNotReadyError, EngineLostError, CallError):
            return nothing

    async def _call(self, method: str, *args: Any) -> list[Any]:
        if self._life is None:
            raise EngineNotReadyError(f"The engine is {self.status.state}: {self.status.stage}")
        return await self._life.call(method, *args)

    # ------------------------------------------------------------ what the workers send

    def _take(self, item: Item) -> None:
        if isinstance(item, Stage):
            self._loading(item.stage, item.progress)
        elif isinstance(item, FailedRuns):
            self._fail(item.runs)
        else:
            self._take_step(item)

    def _take_step(self, step: Step) -> None:
        self.on_step()
        if step.failed.keys() - self.failed_metrics.keys():
            self.failed_metrics = step.failed
            self._set()
        for run, entry in entries(step):
            live = self._live.get(run)
            if live is None:
                continue
            try:
                live.release(live.reply.take(entry))
            except Exception as error:
                # The other runs get their rows by the same task.
                logger.exception("Run %s could not take its rows", run)
                live.fail(f"The rows of this reply could not be taken, so it was ended: {error}")

    def _fail(self, runs: dict[str, str]) -> None:
        """Let `generate` of these runs raise."""
        for run, why in runs.items():
            live = self._live.get(run)
            if live is not None:
                live.fail(why)


async def uninterrupted(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of what must not stop half done; where the caller is cancelled, that is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # nobody asks for it any more
        raise cancelled
    return task.result()


async def _follow(live: _Live, outputs: AsyncGenerator[Any, None]) -> Ended:
    """Follow a request's outputs to the last, and hand on what they make certain."""
    ids: list[int] = []
    async with contextlib.aclosing(outputs):
        async for output in outputs:
            (completion,) = output.outputs
            ids += completion.token_ids
            live.release(live.reply.confirm(len(ids)))
            if completion.finish_reason is None:
                continue
            await _last_steps(live, len(ids))
            live.release(live.reply.finish(ids))
            return Ended(
                reason="stop" if completion.finish_reason == "stop" else "length",
                stop=completion.stop_reason if isinstance(completion.stop_reason, str) else None,
                prompt_logprobs=_prompt_logprobs(output),
            )
    raise RunFailedError("The engine ended this reply without saying why.")


async def _last_steps(live: _Live, tokens: int) -> None:
    """Wait until the steps of all tokens are here; what has not come soon was lost on the way."""
    with contextlib.suppress(TimeoutError):
        async with Patience(LAST_STEPS_SECONDS):
            while live.reply.tokens < tokens:
                live.changed.clear()
                await live.changed.wait()


def _prompt_logprobs(output: Any) -> list[float | None] | None:
    if not output.prompt_logprobs:
        return None
    return [
        float(table[token].logprob) if table and token in table else None
        for token, table in zip(output.prompt_token_ids, output.prompt_logprobs, strict=False)
    ]
