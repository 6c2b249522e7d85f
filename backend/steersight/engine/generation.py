"""The runs that are in the engine: each is handed in, steered, given what belongs to its reply, and ended.

Two streams tell of a run. Its rows and tokens come from the worker, one message for each step of all runs;
that a reply has ended, and why, comes from vLLM. `Generations` joins them by position, never by arrival.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..patience import Patience
from ..text.rendering import UnknownTokenError, outside
from .errors import RunFailedError
from .life import CallError, Life
from .reply import Entry, Reply, entries
from .request import RunRequest, Wants
from .saves import forget, saved
from .step import Step
from .submission import submission
from .use import Need, VectorUse

if TYPE_CHECKING:
    from ..vectors.action import Action
    from .tracing.asked import Saved

logger = logging.getLogger(__name__)

LAST_STEPS_SECONDS = 2.0
"""Steps lead vLLM's own outputs by a millisecond or so. What has not come so long after the one before was
lost on the way, unless the server is behind with taking steps."""


@dataclass(frozen=True)
class Ended:
    """How a generation ended by itself."""

    reason: Literal["stop", "length"]
    stop: str | None
    """The stop string that ended the reply."""
    prompt_logprobs: list[float | None] | None = None
    """Of each token of the prompt; None where not asked for."""
    cached_tokens: int = 0
    """So many tokens of the prompt were not read, because they were in the cache of prefixes."""
    saved: Saved | None = None
    """What its block has left behind; None without one."""


@dataclass
class _Live:
    """A run that is in the engine."""

    reply: Reply
    take: Callable[[Entry], None]
    failed: str | None = None
    """Why it has failed, in a sentence."""
    kind: type[RunFailedError] = RunFailedError
    """What that is."""
    deadline: asyncio.Timeout | None = None
    """What interrupts whoever waits for it."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    delta: bool = True
    """Whether vLLM's outputs tell only what is new, or everything each time."""

    def release(self, released: list[Entry]) -> None:
        """Hand on what is known to belong to the reply."""
        if self.failed is None and released:
            for entry in released:
                self.take(entry)
            self.changed.set()

    def fail(self, why: str, kind: type[RunFailedError] = RunFailedError) -> None:
        """Let `generate` raise; the first reason counts."""
        if self.failed is None:
            self.failed, self.kind = why, kind
            if self.deadline is not None:
                self.deadline.reschedule(asyncio.get_running_loop().time())


class CatchesUp(Protocol):
    """What says how far behind the server is."""

    @property
    def caught_up_at(self) -> float:
        """When all steps that had been sent were taken, last, by `time.monotonic`."""


class Generations:
    """The runs in the engine. Not thread-safe: all methods belong to one event loop."""

    def __init__(
        self, serving: Callable[[], Life], call: Callable[..., Awaitable[list[Any]]], use: VectorUse
    ) -> None:
        """None yet.

        Args:
            serving: the engine that takes runs now; raises EngineNotReadyError.
            call: a method of all workers, by its name and arguments.
            use: told which vectors the runs need.
        """
        self._serving = serving
        self._call = call
        self._use = use
        self._live: dict[str, _Live] = {}
        self._forgetting: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._live)

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
        asked = submission(life.engine, request, life.model)
        live = self._live[request.run] = _Live(
            Reply(len(request.prompt_ids), asked.ends), take, delta=request.block is None
        )
        need = Need(
            frozenset(action.vector for action in request.options.actions),
            frozenset(request.options.wants.metrics),
        )
        try:
            # No deadline: whatever fails the run lets it expire.
            async with asyncio.timeout(None) as live.deadline:
                with self._use.running(request.run, need):
                    outputs = life.stream(asked.outputs(life.engine))
                    if request.block is None:
                        return (await _follow(live, outputs, life))[0]
                    return await self._with_saves(life, asked.request_id, _follow(live, outputs, life))
        except TimeoutError:
            if live.failed is None:
                raise
            raise live.kind(live.failed) from None
        finally:
            self._live.pop(request.run, None)

    async def _with_saves(
        self, life: Life, request_id: str, following: Awaitable[tuple[Ended, Any]]
    ) -> Ended:
        """Follow a request that has a block, and bring home what that has saved. Whatever becomes of it, the
        workers forget it."""
        asked_for = False
        try:
            ended, output = await following
            asked_for = True
            return replace(ended, saved=await saved(life, request_id, output))
        finally:
            if not asked_for:
                task = asyncio.create_task(forget(life, request_id), name="forget-block")
                self._forgetting.add(task)
                task.add_done_callback(self._forgetting.discard)

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
            with self._use.steering(run, (action.vector for action in actions)):
                await self._call("steersight_steer", run, rev, [action.to_map() for action in actions])
        except CallError as error:
            why = f"The engine could not steer this reply, so it was ended. {error}"
            self.fail({run: why})
            raise RunFailedError(why) from error

    async def watch(self, run: str, number: int, wants: Wants) -> None:
        """Let all ranks compute other numbers for a run from between two steps on; entries will say from
        where, by the number.

        Raises: as `steer`: ranks that differ in what they compute could wait for each other for ever.
        """
        try:
            with self._use.watching(run, wants.metrics):
                await self._call("steersight_watch", run, number, wants.to_map())
        except CallError as error:
            why = f"The engine could not change what this reply is watched with, so it was ended. {error}"
            self.fail({run: why})
            raise RunFailedError(why) from error

    def take(self, step: Step) -> None:
        """Hand each run its part of a step that has come."""
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

    def fail(self, runs: dict[str, str], kind: type[RunFailedError] = RunFailedError) -> None:
        """Let `generate` of these runs raise."""
        for run, why in runs.items():
            live = self._live.get(run)
            if live is not None:
                live.fail(why, kind)


async def _follow(live: _Live, outputs: AsyncGenerator[Any, None], life: CatchesUp) -> tuple[Ended, Any]:
    """Follow a request's outputs to the last, and hand on what they make certain; returns that too."""
    ids: list[int] = []
    async with contextlib.aclosing(outputs):
        async for output in outputs:
            (completion,) = output.outputs
            # A block's are whole each time, the others' what has come since.
            ids[len(ids) if live.delta else 0 :] = completion.token_ids
            live.release(live.reply.confirm(len(ids)))
            if completion.finish_reason is None:
                continue
            await _last_steps(live, len(ids), life)
            live.release(live.reply.finish(ids))
            ended = Ended(
                reason="stop" if completion.finish_reason == "stop" else "length",
                stop=completion.stop_reason if isinstance(completion.stop_reason, str) else None,
                prompt_logprobs=_prompt_logprobs(output),
                cached_tokens=max(0, output.num_cached_tokens or 0),
            )
            return ended, output
    raise RunFailedError("The engine ended this reply without saying why.")


async def _last_steps(live: _Live, tokens: int, life: CatchesUp) -> None:
    """Wait until the steps of all tokens are here, or nothing more of them can be on its way."""
    ended = time.monotonic()
    while live.reply.tokens < tokens:
        live.changed.clear()
        try:
            async with Patience(LAST_STEPS_SECONDS):
                await live.changed.wait()
        except TimeoutError:
            if life.caught_up_at >= ended:
                return


def _prompt_logprobs(output: Any) -> list[float | None] | None:
    if not output.prompt_logprobs:
        return None
    return [
        float(table[token].logprob) if table and token in table else None
        for token, table in zip(output.prompt_token_ids, output.prompt_logprobs, strict=False)
    ]
