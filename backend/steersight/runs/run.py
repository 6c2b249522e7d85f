"""One run: its life, and what it does with what the engine sends. Rows are written by `rows.py`.

Rows and tokens come together, one entry for each step that computed something of it. The engine tells of
the end when the last of them is here, or will not come.

A run's life is a `RunPhase` (`phase.py`), and only the steps in `NEXT_PHASES` are possible. Its end is noted
by a callback of its task, not by the task's own code: a task that is cancelled before its first step never
runs any of it, no `finally` either.

A run belongs to no connection. Whoever watches it has a place in its log and is woken when the log grows;
how long it goes on without anybody is the table's business. Whatever goes wrong in the engine ends the run
with a sentence: a reply that looks steered and is not would be the worst of all outcomes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING

from .. import logs
from ..engine.request import RunOptions, RunRequest
from ..engine.run_state import Revision, RunState
from ..engine.service import (
    CodeFailedError,
    EngineLostError,
    EngineNotReadyError,
    EngineService,
    RunFailedError,
)
from ..engine.step import NO_TOKEN
from ..protocol.codec import FrameError
from ..protocol.messages import (
    ErrorCode,
    Origin,
    Prompt,
    Start,
    Steer,
    Timing,
    Usage,
    VectorSetting,
)
from ..text.thoughts import PARTS, ReplyParts
from ..vectors.action import acting
from .events import AppliedEvent, FinishedEvent, GapEvent, PartEvent, QueuedEvent, StartedEvent
from .log import RunLog
from .phase import NEXT_PHASES, Ending, RunPhase, failure
from .rows import RowWriter

if TYPE_CHECKING:
    from ..engine.reply import Entry
    from ..engine.tracing.asked import Saved, TracedRequest
    from ..telemetry import Telemetry
    from ..text.pieces import TokenTexts
    from ..text.thoughts import Opening
    from ..vectors.action import Action
    from .kept import KeptRows, Prefix
    from .places import Place
    from .watching import Watching

logger = logging.getLogger(__name__)

READ_AGAIN_TOKENS = 256
"""A prompt of which the last so many tokens have no rows is computed from there on, whatever the engine's
cache has: some 20 ms on a GPU, a third of a second on two cores. Of a longer one what it had has no rows."""

MOST_OF_AN_ERROR = 2000
"""Characters of what a client's code said when it raised."""

Said = tuple[dict[str, float], dict[str, VectorSetting]]
"""Strengths and settings of a revision, as a client says them."""


class Run:
    """One generation, from admission to its `finished` event."""

    def __init__(
        self,
        *,
        run_id: str,
        start: Start,
        prompt: Prompt,
        texts: TokenTexts,
        opening: Opening | None = None,
        actions: list[Action],
        watching: Watching,
        layers: int,
        engine: EngineService,
        kept: KeptRows,
        max_reply_tokens: int,
        telemetry: Telemetry,
        ended: Callable[[Run], None],
        origin: Origin = "chat",
        traced: TracedRequest | None = None,
        edits: Sequence[str] = (),
    ) -> None:
        self.id = run_id
        self.origin: Origin = origin
        """What it was asked for by."""
        self.log = RunLog(run_id, start.id, watching.metrics, layers, watching.columns)
        self.rev = 0
        self.actions = actions
        """What steers it by its newest revision."""
        self.strengths: dict[str, float] = dict(start.strengths)
        """The same as its clients say it."""
        self.settings: dict[str, VectorSetting] = dict(start.settings)
        self.watching = watching
        """What it is watched with, by the newest that was asked for."""
        self.phase = RunPhase.WAITING
        self.done = False
        """Whether it has ended."""
        self.place: Place | None = None
        """Its lease on a place in the engine, from the moment at which it asks for one."""
        self.watchers: set[Callable[[], None]] = set()
        """Called whenever the log has grown."""
        self.moved: Callable[[], None] = _nobody
        """Called when it is in another phase of its life."""
        self.facts = engine.model
        """Of the model that writes it."""
        self.traced = traced
        """The code that runs in its passes, and how its tokens are drawn; None for a chat's."""
        self.ending: Ending | None = None
        """How it ended; None before that."""
        self.saved: Saved | None = None
        """What that code has saved, once it has ended by itself."""
        self._start = start
        self._prompt = prompt
        self._texts = texts
        self._engine = engine
        self._max_reply_tokens = max_reply_tokens
        self._telemetry = telemetry
        self._ended = ended
        self._tokens = 0
        self._first_row = min(start.rows_from, len(prompt.ids)) if start.prompt_rows else len(prompt.ids)
        """Rows of positions below this are not wanted."""
        self._rows = RowWriter(
            self.log, watching, self._first_row, texts=texts, telemetry=telemetry, applied=self._apply,
            read=self._read_prefix,
        )  # fmt: skip
        self._kept = kept
        self.adapter = start.adapter
        """The LoRA adapter it is written with; None is the base model."""
        self.edits = tuple(edits)
        """Names of the edits that act in it."""
        self._opening = opening
        self._parts = None if opening is None else ReplyParts(opening, engine.tokenizer)
        self._past = self._begun()
        """What acted on each position so far, as the rows say it."""
        self._past_is_open = False
        """Whether it changed at a position that no row has told."""
        self._parts_told: set[str] = set()
        self._sent: dict[int, tuple[Action, ...]] = {}
        """What each revision is that the engine was told and no row has shown yet."""
        self._said: dict[int, Said] = {}
        """The same as clients said it, and of the revision that the run began with."""
        self._cached_tokens = 0
        self._began = time.perf_counter()
        self._first: float | None = None
        self._newest: float | None = None
        self._asked: dict[int, tuple[float, int]] = {}  # revision -> when, and how many tokens there were
        self._queued = 0
        self._sent_rev = self._sent_watch = 0
        self._told: Ending | None = None
        self._stream_task: asyncio.Task[Ending] | None = None
        self._steer_task: asyncio.Task[None] | None = None
        self.log.append(
            StartedEvent(
                prompt, engine.model.id if engine.model else "", start.adapter, self.strengths, self.settings,
                start.sampling.model_copy(update={"max_tokens": self._reply_limit()}), origin,
                self.edits,
            )
        )  # fmt: skip
        if start.prompt_rows and self._first_row:
            # Not everybody who watches has asked, and knows.
            self.log.append(GapEvent(0, self._first_row, cached=True))
        self._tell_parts()

    # ------------------------------------------------------------ life

    def wait_at(self, position: int) -> None:
        """Say that it waits in the server's queue, and where: 1 is the next to begin."""
        if position != self._queued:
            self._queued = position
            self.log.append(QueuedEvent(position))
            self._wake()

    def begin(self) -> None:
        """Start generating, with what the sliders say now, watched as was asked for last."""
        self._become(RunPhase.WRITING)
        self._sent_rev, self._sent_watch = self.rev, self.watching.number
        self._said[self.rev] = (self.strengths, self.settings)
        self._past = self._begun()
        # Of its own: whoever gave the place back may have been another run, and the log names the task's.
        context = copy_context()
        context.run(logs.run.set, self.id)
        context.run(logs.door.set, logs.CODE_DOOR if self.traced is not None else None)
        self._stream_task = asyncio.create_task(self._generate(), name=f"run-{self.id}", context=context)
        self._stream_task.add_done_callback(self._generated, context=context)
        self.wait_at(0)  # last: whoever is woken by it may end the run at once

    def _begun(self) -> RunState:
        """What acts on its positions before any has been computed."""
        options = RunOptions(self.id, rev=self.rev, adapter=self.adapter or "")
        return RunState.begin(options, acting(self.actions), self._parts)

    @property
    def asked(self) -> Start:
        """What its client asked for."""
        return self._start

    @property
    def begun(self) -> bool:
        """Whether the engine has been asked for it."""
        return self._stream_task is not None

    def cancel(self) -> None:
        """End the run; idempotent."""
        self._end(Ending("cancelled"))

    def fail(self, code: ErrorCode, sentence: str) -> None:
        """End the run as failed, and say why; idempotent."""
        self._end(failure(code, sentence))

    def refuse(self, why: FrameError) -> None:
        """End the run, because it gets no place."""
        self.fail(why.code, why.message)

    def _end(self, ending: Ending) -> None:
        if self._stream_task is None:
            if not self.done:
                self._finish(ending)
        elif self.phase is RunPhase.WRITING:
            self._become(RunPhase.ENDING)
            self._told = ending
            self._stream_task.cancel()

    def _become(self, phase: RunPhase) -> None:
        if phase not in NEXT_PHASES[self.phase]:
            raise RuntimeError(f"Run {self.id} cannot go from {self.phase.value} to {phase.value}.")
        self.phase = phase
        # Asked for at every token: Python 3.11 takes longer to look up an enum's member than for all else.
        self.done = phase is RunPhase.FINISHED
        self.moved()

    async def over(self) -> None:
        """Wait until the engine has let go of it."""
        if self._stream_task is not None:
            await asyncio.wait([self._stream_task])

    @property
    def prompt(self) -> Prompt:
        """What it goes on from."""
        return self._prompt

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self._prompt.ids)

    @property
    def most_tokens(self) -> int:
        """Tokens of prompt and reply together, at most."""
        return len(self._prompt.ids) + self._reply_limit()

    def steer(self, frame: Steer, actions: list[Action]) -> None:
        """Take the sliders' new state. The caller has checked that `frame.rev` is newer.

        The newest state wins: while the engine takes one, those that came meanwhile replace each other.
        """
        self.rev = frame.rev
        self.actions = actions
        self.strengths, self.settings = dict(frame.strengths), dict(frame.settings)
        self._asked[frame.rev] = (time.perf_counter(), self.prompt_tokens + self._tokens)
        self._telemetry.steered()
        self._change()

    @property
    def live(self) -> bool:
        """Whether anything of it may still change: it waits, or is being written."""
        return self.phase in (RunPhase.WAITING, RunPhase.WRITING)

    def watch(self, watching: Watching) -> None:
        """Be watched otherwise from the next step on, or from the first where it waits. As with `steer`, the
        newest wins; its number is the next."""
        self.watching = watching
        self._rows.expect(watching)
        self._change()

    def _change(self) -> None:
        """Hand over what has changed, if nobody is at it. One call at a time: what a run needs of the vectors
        is what is in force and what is on its way (`VectorUse`)."""
        if self.begun and (self._steer_task is None or self._steer_task.done()):
            self._steer_task = asyncio.create_task(self._hand_over(), name=f"steer-{self.id}")

    async def _hand_over(self) -> None:
        while self.live:
            steers = self._sent_rev != self.rev
            if not steers and self._sent_watch == self.watching.number:
                return
            try:
                await (self._hand_over_sliders() if steers else self._hand_over_watching())
            except (EngineLostError, EngineNotReadyError) as error:
                self.fail(ErrorCode.ENGINE_FAILED, str(error))
            except RunFailedError as error:
                self.fail(ErrorCode.STEERING_FAILED, str(error))
            except Exception as error:
                logger.exception("Run %s could not be changed", self.id)
                what = "The new slider settings" if steers else "What was to be watched from now on"
                self.fail(
                    ErrorCode.STEERING_FAILED,
                    f"{what} could not be applied, so the reply was ended: {error}",
                )

    async def _hand_over_sliders(self) -> None:
        rev = self._sent_rev = self.rev
        self._sent[rev] = acting(self.actions)
        self._said[rev] = (self.strengths, self.settings)
        await self._engine.steer(self.id, rev, self.actions)

    async def _hand_over_watching(self) -> None:
        self._sent_watch = self.watching.number
        await self._engine.watch(self.id, self.watching.number, self.watching.wants())

    def _wake(self) -> None:
        for wake in list(self.watchers):
            wake()

    async def _generate(self) -> Ending:
        logs.event(logger, logging.INFO, "A run has started.", prompt_tokens=self.prompt_tokens)
        logs.event(logs.prompts, logging.INFO, "What was asked.", prompt="".join(self._prompt.texts))
        try:
            ended = await self._engine.generate(self._request(), self._take)
            self._rows.close(self.prompt_tokens + self._tokens - 1)
            self._cached_tokens = ended.cached_tokens
            self.saved = ended.saved
            if self.saved and self.saved.error and not self.saved.error["is_control_flow"]:
                error = self.saved.error
                what = f"The code of this run raised {error['type_name']}: {error['message']}"
                return failure(ErrorCode.BLOCK_FAILED, what[:MOST_OF_AN_ERROR])
            return Ending(ended.reason, ended.stop)
        except (EngineLostError, EngineNotReadyError) as lost:
            return failure(ErrorCode.ENGINE_FAILED, str(lost))
        except CodeFailedError as failed:
            return failure(ErrorCode.BLOCK_FAILED, str(failed))
        except RunFailedError as failed:
            return failure(ErrorCode.STEERING_FAILED, str(failed))
        except Exception as unexpected:
            logger.exception("Run %s failed", self.id)
            return failure(ErrorCode.INTERNAL, f"The reply could not be written: {unexpected}")

    def _generated(self, task: asyncio.Task[Ending]) -> None:
        """The task is over: it has run to its end, was cancelled on its way, or never began."""
        if task.cancelled():
            self._finish(self._told or Ending("cancelled"))
        elif (error := task.exception()) is not None:
            self._finish(failure(ErrorCode.INTERNAL, f"The reply could not be written: {error}"))
        else:
            self._finish(task.result())

    def _reply_limit(self) -> int:
        room = self._engine.model.max_model_len - len(self._prompt.ids) if self._engine.model else 1
        return min(self._start.sampling.max_tokens, room, self._max_reply_tokens or room)

    def _request(self) -> RunRequest:
        start = self._start
        sampling = start.sampling.model_dump()
        sampling["max_tokens"] = self._reply_limit()
        options = RunOptions(
            run=self.id,
            first_row=self._first_row,
            wants=self.watching.wants(),
            watch=self.watching.number,
            actions=tuple(self.actions),
            rev=self.rev,
            read_most=self._read_most(),
            adapter=self.adapter or "",
            opening=self._opening,
        )
        block = None
        if self.traced is not None:
            sampling, block = {**self.traced.sampling, "max_tokens": self._reply_limit()}, self.traced.block
        return RunRequest(self._prompt.ids, sampling, options, block, self.edits, read_cache=start.read_cache)

    def _read_most(self) -> int | None:
        """How much of its prompt it may read from the engine's cache: a map has to be whole where that costs
        little, so what has no rows is computed, unless it is long."""
        if not self.watching.metrics or self._first_row == self.prompt_tokens or self._has_code:
            return None
        columns = self.watching.columns
        reach = self._kept.reach(columns, self._prompt.ids, self._past, self._first_row)
        return reach if self.prompt_tokens - reach <= READ_AGAIN_TOKENS else None

    # ------------------------------------------------------------ what the engine sends

    def _take(self, entry: Entry) -> None:
        if self.done:
            return
        if entry.token != NO_TOKEN:
            self._take_token(entry)
        self._rows.take(entry)
        if entry.end == self.prompt_tokens:
            self._keep_rows()  # others may ask the same while this one writes
        self._wake()

    def _read_prefix(self, first: int, until: int, rev: int) -> Iterable[Prefix]:
        """The rows of what the engine had in its cache, from one position on."""
        self._cached_tokens = until
        self._show(rev, 0)
        columns = self._rows.watching.columns
        return self._kept.find(columns, self.log.layers, self._prompt.ids, self._past, until, first)

    @property
    def _has_code(self) -> bool:
        """Whether clients' code acts in its passes: nobody else computes the same."""
        return self.traced is not None or bool(self.edits)

    def _keep_rows(self) -> None:
        if self._past_is_open or self._has_code:
            return  # they would be known by what did not act on the positions before them
        self._kept.keep(self.log, [*self._prompt.ids, *self.log.tokens.ids], self._past)

    def _take_token(self, entry: Entry) -> None:
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        self._telemetry.tokens_written(1, None if self._newest is None else (now - self._newest) * 1e3)
        self._newest = now
        self.log.add_token(entry.end, entry.token, self._texts.next(entry.token), entry.logprob, entry.rank)
        self._tokens += 1
        if self._parts is not None and not self._parts.settled:
            self._parts.tell(entry.end, entry.token)
            self._tell_parts()

    def _tell_parts(self) -> None:
        """Say which parts of the reply have begun."""
        if self._parts is None:
            return
        for part in PARTS:
            begins = self._parts.begins(part)
            if begins is not None and part not in self._parts_told:
                self._parts_told.add(part)
                self.log.append(PartEvent(part, begins + 1))

    def _apply(self, rev: int, position: int, sure: bool) -> None:
        if not sure and rev in self._sent:
            self._past_is_open = True
        self._show(rev, position)
        self.log.append(AppliedEvent(rev, position, *self._said[rev]))
        self._said = {other: said for other, said in self._said.items() if other > rev}
        asked = self._asked.get(rev)
        # What it replaced before any row was computed with it has no first row.
        self._asked = {other: when for other, when in self._asked.items() if other > rev}
        if asked is not None:
            when, tokens = asked
            # Of a change while the prompt was read: in force somewhere in it.
            self._telemetry.steer_applied(max(0, position - (tokens - 1)), (time.perf_counter() - when) * 1e3)

    def _show(self, rev: int, position: int) -> None:
        """A row tells that a revision is in force from a position on."""
        if (told := self._sent.get(rev)) is not None:
            self._past.next_position = position
            self._past.steer(Revision(rev, told))
            self._sent = {other: told for other, told in self._sent.items() if other > rev}

    def _finish(self, ending: Ending) -> None:
        self._become(RunPhase.FINISHED)
        self.ending = ending
        if ending.reason != "error":
            self._keep_rows()
        try:
            self._note_end(ending)
        finally:
            self._ended(self)

    def _note_end(self, ending: Ending) -> None:
        now = time.perf_counter()
        speed = None
        if self._first is not None and self._tokens > 1 and now > self._first:
            speed = (self._tokens - 1) / (now - self._first)
        logs.event(
            logger, logging.INFO, "A run has finished.", reason=ending.reason, tokens=self._tokens,
            revisions=self._rows.revs_seen, ms=round((now - self._began) * 1e3),
            error=None if ending.error is None else ending.error.code,
        )  # fmt: skip
        if logs.prompts.isEnabledFor(logging.INFO):
            reply = "".join(self.log.tokens.texts)
            logs.event(logs.prompts, logging.INFO, "What was answered.", reply=reply)
        first_ms = None if self._first is None else (self._first - self._began) * 1e3
        self.log.append(
            FinishedEvent(
                reason=ending.reason,
                stop=ending.stop,
                error=ending.error,
                usage=Usage(
                    prompt_tokens=len(self._prompt.ids),
                    reply_tokens=self._tokens,
                    cached_tokens=self._cached_tokens,
                ),
                timing=Timing(
                    first_token_ms=first_ms, total_ms=(now - self._began) * 1e3, tokens_per_s=speed
                ),
            )
        )
        if first_ms is not None:
            self._telemetry.prompt_read(self.prompt_tokens, self._cached_tokens)
        self._telemetry.run_finished(ending.reason, first_ms)
        self._wake()


def _nobody() -> None:
    """Nobody is told how it goes on."""
