"""One run: joins the engine's tokens and rows by position and writes both into the log.

Rows lead their tokens and come by another way, so neither may wait for the other while the run goes on. The
engine tells of the end when the last rows are here, or will not come.

A run belongs to no connection. Whoever watches it has a place in its log and is woken when the log grows;
how long it goes on without anybody is the table's business. Whatever goes wrong in the engine ends the run
with a sentence: a reply that looks steered and is not would be the worst of all outcomes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from .. import logs
from ..engine.service import (
    EngineLostError,
    EngineNotReadyError,
    EngineService,
    GenerateRequest,
    RunFailedError,
    TokenStep,
)
from ..metrics import LENS_METRICS, Registry
from ..metrics.logit_lens import lens_layers
from ..protocol.messages import ErrorCode, Prompt, RunError, Start, Steer, Timing, Usage, VectorSetting
from .log import (
    AppliedEvent,
    FinishedEvent,
    GapEvent,
    LensEvent,
    QueuedEvent,
    RowsEvent,
    RunLog,
    StartedEvent,
    TokensEvent,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..engine.channel import RowBlock, TopBlock
    from ..telemetry import Telemetry
    from ..text.pieces import TokenTexts
    from ..vectors.action import Action

logger = logging.getLogger(__name__)

Reason = Literal["stop", "length", "cancelled", "error"]


class Run:
    """One generation, from admission to its `finished` event."""

    def __init__(
        self,
        *,
        run_id: str,
        start: Start,
        prompt: Prompt,
        texts: TokenTexts,
        actions: list[Action],
        metrics: list[str],
        registry: Registry,
        layers: int,
        engine: EngineService,
        max_reply_tokens: int,
        telemetry: Telemetry,
        ended: Callable[[Run], None],
    ) -> None:
        self.id = run_id
        self.log = RunLog(run_id, start.id, metrics, layers)
        self.rev = 0
        self.actions = actions
        """What steers it by its newest revision."""
        self.strengths: dict[str, float] = dict(start.strengths)
        """The same as its clients say it."""
        self.settings: dict[str, VectorSetting] = dict(start.settings)
        self.done = False
        self.watchers: set[Callable[[], None]] = set()
        """Called whenever the log has grown."""
        self._start = start
        self._prompt = prompt
        self._texts = texts
        self._engine = engine
        self._max_reply_tokens = max_reply_tokens
        self._telemetry = telemetry
        self._ended = ended
        self._registry = registry
        # The engine reads for all runs of a step together: rows can hold layers that this one did not ask
        # for.
        self._lens_layers = lens_layers(layers, start.lens.stride) if start.lens else []
        self._named: set[int] = set()
        self._tokens = 0
        self._rows_end = 0 if start.prompt_rows else len(prompt.ids)
        self._revs_seen = 0
        self._began = time.perf_counter()
        self._first: float | None = None
        self._newest: float | None = None
        self._asked: dict[int, tuple[float, int]] = {}  # revision -> when, and how many tokens there were
        self._queued = 0
        self._sent_rev = 0
        self._ending: tuple[Reason, RunError | None] | None = None
        self._stream_task: asyncio.Task[None] | None = None
        self._steer_task: asyncio.Task[None] | None = None
        self.log.append(StartedEvent(prompt))

    # ------------------------------------------------------------ life

    def wait_at(self, position: int) -> None:
        """Say that it waits in the server's queue, and where: 1 is the next to begin."""
        if position != self._queued:
            self._queued = position
            self.log.append(QueuedEvent(position))
            self._wake()

    def begin(self) -> None:
        """Start generating, with what the sliders say now."""
        if self._queued:
            self.wait_at(0)
        self._sent_rev = self.rev
        self._stream_task = asyncio.create_task(self._generate(), name=f"run-{self.id}")

    @property
    def begun(self) -> bool:
        """Whether the engine has been asked for it."""
        return self._stream_task is not None

    def cancel(self) -> None:
        """End the run; idempotent."""
        self._end("cancelled", None)

    def fail(self, code: ErrorCode, sentence: str) -> None:
        """End the run as failed, and say why; idempotent."""
        self._end("error", RunError(code=code, message=sentence))

    def _end(self, reason: Reason, error: RunError | None) -> None:
        if self.done or self._ending is not None:
            return
        self._ending = (reason, error)
        if self._stream_task is None:
            self._finish(reason, None, error)
        else:
            self._stream_task.cancel()

    async def over(self) -> None:
        """Wait until the engine has let go of it."""
        if self._stream_task is not None:
            await asyncio.wait([self._stream_task])

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
        if self.begun and (self._steer_task is None or self._steer_task.done()):
            self._steer_task = asyncio.create_task(self._hand_over(), name=f"steer-{self.id}")

    async def _hand_over(self) -> None:
        while self._sent_rev != self.rev and not self.done:
            rev = self.rev
            try:
                await self._engine.steer(self.id, rev, self.actions)
            except (EngineLostError, EngineNotReadyError) as error:
                self.fail(ErrorCode.ENGINE_FAILED, str(error))
            except RunFailedError as error:
                self.fail(ErrorCode.STEERING_FAILED, str(error))
            except Exception as error:
                logger.exception("Run %s could not be steered", self.id)
                self.fail(
                    ErrorCode.STEERING_FAILED,
                    f"The new slider settings could not be applied, so the reply was ended: {error}",
                )
            self._sent_rev = rev

    def _wake(self) -> None:
        for wake in list(self.watchers):
            wake()

    async def _generate(self) -> None:
        logs.run.set(self.id)
        logs.event(logger, logging.INFO, "A run has started.", prompt_tokens=self.prompt_tokens)
        logs.event(logs.prompts, logging.INFO, "What was asked.", prompt="".join(self._prompt.texts))
        reason: Reason = "error"
        stop: str | None = None
        error: RunError | None = None
        try:
            stream = self._engine.generate(self._request(), self._take_rows)
            async with contextlib.aclosing(stream) as steps:  # type: ignore[type-var]
                async for step in steps:
                    self._take_tokens(step)
                    if step.finished is not None:
                        reason = "stop" if step.finished == "stop" else "length"
                        stop = step.stop
                        self._miss_rows()
            if reason == "error":
                error = RunError(
                    code=ErrorCode.INTERNAL, message="The engine ended this reply without saying why."
                )
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            reason, error = self._ending
        except (EngineLostError, EngineNotReadyError) as lost:
            reason, error = "error", RunError(code=ErrorCode.ENGINE_FAILED, message=str(lost))
        except RunFailedError as failed:
            reason, error = "error", RunError(code=ErrorCode.STEERING_FAILED, message=str(failed))
        except Exception as unexpected:
            logger.exception("Run %s failed", self.id)
            sentence = f"The reply could not be written: {unexpected}"
            reason, error = "error", RunError(code=ErrorCode.INTERNAL, message=sentence)
        finally:
            self._finish(reason, stop, error)

    def _reply_limit(self) -> int:
        room = self._engine.model.max_model_len - len(self._prompt.ids) if self._engine.model else 1
        return min(self._start.sampling.max_tokens, room, self._max_reply_tokens or room)

    def _request(self) -> GenerateRequest:
        sampling = self._start.sampling.model_dump()
        sampling["max_tokens"] = self._reply_limit()
        return GenerateRequest(
            run=self.id,
            prompt_ids=self._prompt.ids,
            sampling=sampling,
            actions=self.actions,
            rev=self.rev,
            prompt_rows=self._start.prompt_rows,
            metrics=self.log.metrics,
            entropy=self._start.entropy,
            lens_stride=self._start.lens.stride if self._start.lens else 0,
            lens_top=self._start.lens.top if self._start.lens else 0,
        )

    # ------------------------------------------------------------ what the engine sends

    def _take_tokens(self, step: TokenStep) -> None:
        if not step.ids:
            return
        now = time.perf_counter()
        if self._first is None:
            self._first = now
        self._telemetry.tokens_written(
            len(step.ids), None if self._newest is None else (now - self._newest) * 1e3
        )
        self._newest = now
        self.log.append(
            TokensEvent(
                start=len(self._prompt.ids) + self._tokens,
                ids=step.ids,
                texts=[self._texts.next(token) for token in step.ids],
                logprobs=step.logprobs,
                ranks=step.ranks,
            )
        )
        self._tokens += len(step.ids)
        self._wake()

    def _take_rows(self, block: RowBlock) -> None:
        if self.done:
            return
        if block.start > self._rows_end:
            self._lose_rows(self._rows_end, block.start - self._rows_end)
        skip = max(0, self._rows_end - block.start)
        revs, values = block.revs[skip:], block.values[skip:]
        if not revs:
            return
        start = block.start + skip
        self._telemetry.rows_written(len(revs))
        if self.log.metrics or self._start.entropy:
            self.log.append(
                RowsEvent(
                    start, revs, self._wire_values(values, block.metrics), self._wire_entropy(block, skip)
                )
            )
        if block.top is not None and block.top.position >= start:
            self._take_top(block.top)
        for offset, rev in enumerate(revs):
            if rev > self._revs_seen:
                self._revs_seen = rev
                self._apply(rev, start + offset)
        self._rows_end = start + len(revs)
        self._wake()

    def _lose_rows(self, start: int, count: int) -> None:
        self.log.append(GapEvent(start, count))
        self._telemetry.rows_dropped(count)

    def _apply(self, rev: int, position: int) -> None:
        self.log.append(AppliedEvent(rev, position))
        asked = self._asked.get(rev)
        # What it replaced before any row was computed with it has no first row.
        self._asked = {other: when for other, when in self._asked.items() if other > rev}
        if asked is not None:
            when, tokens = asked
            # Of a change while the prompt was read: in force somewhere in it.
            self._telemetry.steer_applied(max(0, position - (tokens - 1)), (time.perf_counter() - when) * 1e3)

    def _wire_values(self, values: NDArray[np.float32], names: list[str]) -> NDArray[np.float16]:
        """[rows, metrics, layers] of this run's metrics; NaN where the engine had none."""
        import numpy as np

        mine = np.full((len(values), len(self.log.metrics), self.log.layers), np.nan, dtype=np.float32)
        for column, name in enumerate(self.log.metrics):
            if name not in names:
                continue  # it has failed since this run began
            found = values[:, names.index(name)]
            if name in LENS_METRICS:
                mine[:, column, self._lens_layers] = found[:, self._lens_layers]
            else:
                mine[:, column] = found
        return self._registry.to_wire(mine, self.log.metrics)

    def _wire_entropy(self, block: RowBlock, skip: int) -> NDArray[np.float16] | None:
        import numpy as np

        if not self._start.entropy:
            return None
        if block.entropy is None:
            return np.full(len(block.revs) - skip, np.nan, dtype="<f2")
        return block.entropy[skip:].astype("<f2")

    def _take_top(self, top: TopBlock) -> None:
        if self._start.lens is None:
            return
        rows = [top.layers.index(layer) for layer in self._lens_layers]
        ids = top.ids[rows, : self._start.lens.top]
        fresh = sorted(set(ids.ravel().tolist()) - self._named)
        self._named.update(fresh)
        self.log.append(
            LensEvent(
                position=top.position,
                layers=self._lens_layers,
                ids=ids,
                probabilities=top.probabilities[rows, : self._start.lens.top].astype("<f2"),
                names=[(token, self._texts.alone(token)) for token in fresh],
            )
        )

    def _miss_rows(self) -> None:
        """Say which rows never came. The engine has waited for them before it told of the end; the last token
        was never an input and has none."""
        wanted = len(self._prompt.ids) + self._tokens - 1
        if self._rows_end < wanted:
            self._lose_rows(self._rows_end, wanted - self._rows_end)

    def _finish(self, reason: Reason, stop: str | None, error: RunError | None) -> None:
        now = time.perf_counter()
        speed = None
        if self._first is not None and self._tokens > 1 and now > self._first:
            speed = (self._tokens - 1) / (now - self._first)
        self.done = True
        logs.event(
            logger, logging.INFO, "A run has finished.", reason=reason, tokens=self._tokens,
            revisions=self._revs_seen, ms=round((now - self._began) * 1e3),
            error=None if error is None else error.code,
        )  # fmt: skip
        if logs.prompts.isEnabledFor(logging.INFO):
            pieces = [text for e in self.log.events if isinstance(e, TokensEvent) for text in e.texts]
            logs.event(logs.prompts, logging.INFO, "What was answered.", reply="".join(pieces))
        self.log.append(
            FinishedEvent(
                reason=reason,
                stop=stop,
                error=error,
                usage=Usage(prompt_tokens=len(self._prompt.ids), reply_tokens=self._tokens),
                timing=Timing(
                    first_token_ms=None if self._first is None else (self._first - self._began) * 1e3,
                    total_ms=(now - self._began) * 1e3,
                    tokens_per_s=speed,
                ),
            )
        )
        self._telemetry.run_finished(
            reason, None if self._first is None else (self._first - self._began) * 1e3
        )
        self._wake()
        self._ended(self)
