"""All live runs of the server: admission, lookup, and the count the gauge shows."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from ..engine.service import EngineService
from ..metrics import LENS_METRICS
from ..protocol.codec import FrameError
from ..protocol.messages import MAX_VECTORS, ErrorCode, Start, Steer
from ..vectors.action import Action, decide_all
from ..vectors.store import VectorError
from .prompt import build_prompt
from .run import Run

logger = logging.getLogger(__name__)

END_SECONDS = 5
"""How long `end_all` waits for an engine that does not answer."""


class RunTable:
    """Admits runs to one engine and knows those that are still live."""

    def __init__(self, engine: EngineService, max_runs: int, max_reply_tokens: int) -> None:
        self.engine = engine
        self.max_runs = max_runs
        self.max_reply_tokens = max_reply_tokens
        self.live: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # strong references; the loop holds weak ones

    def admit(self, start: Start, wake: Callable[[], None]) -> Run:
        """Check a `start` against the engine and begin the run. Raises FrameError and changes nothing."""
        model = self.engine.model
        if self.engine.status.state != "ready" or model is None:
            raise FrameError(
                ErrorCode.ENGINE_NOT_READY,
                f"The engine is {self.engine.status.state} ({self.engine.status.stage}). "
                "Try again when it is ready.",
                id=start.id,
            )
        if len(self.live) >= self.max_runs:
            raise FrameError(
                ErrorCode.BUSY,
                f"The server already has its {self.max_runs} runs. Try again when one has finished.",
                id=start.id,
            )
        metrics = self._metrics(start)
        try:
            prompt, texts = build_prompt(
                self.engine.tokenizer, start.messages, model.max_model_len - 1, write_on=start.write_on
            )
            actions = self.actions(start, len(prompt.ids))
        except FrameError as error:
            error.id = start.id
            raise
        run = Run(
            run_id=secrets.token_hex(8), start=start, prompt=prompt, texts=texts, metrics=metrics,
            actions=actions, registry=self.engine.registry, layers=model.layers, engine=self.engine,
            max_reply_tokens=self.max_reply_tokens, wake=wake,
        )  # fmt: skip
        self.live[run.id] = run
        task = run.begin()
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(run, done))
        return run

    def _metrics(self, start: Start) -> list[str]:
        """Ids of the metrics the run's rows will have, in the registry's order."""
        registry = self.engine.registry
        asked = registry.defaults() if start.metrics is None else start.metrics
        for name in asked:
            if name not in registry:
                known = ", ".join(metric.id for metric in registry.all())
                raise FrameError(
                    ErrorCode.UNKNOWN_METRIC,
                    f"There is no metric {name!r}; there are {known}.",
                    field="metrics",
                    id=start.id,
                )
            if name in LENS_METRICS and start.lens is None:
                raise FrameError(
                    ErrorCode.INVALID,
                    f"{name!r} needs the logit lens. Give `lens` with a stride, or leave it out.",
                    field="lens",
                    id=start.id,
                )
        return registry.ordered([*asked, *(LENS_METRICS if start.lens else ())])

    async def end_all(self) -> None:
        """End every live run, and wait until the engine has let go of each."""
        for run in list(self.live.values()):
            run.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=END_SECONDS)

    def actions(self, frame: Start | Steer, prompt_tokens: int) -> list[Action]:
        """What a frame's sliders come to. Refuses what cannot be done: it would silently do nothing."""
        vectors, model = self.engine.vectors, self.engine.model
        for field in ("strengths", "settings"):
            for name in getattr(frame, field):
                if name not in vectors:
                    known = ", ".join(vectors) or "none"
                    raise FrameError(
                        ErrorCode.UNKNOWN_VECTOR,
                        f"There is no vector {name!r}; there are {known}.",
                        field=field,
                    )
        settings = {name: setting.model_dump() for name, setting in frame.settings.items()}
        try:
            actions = decide_all(
                frame.strengths, settings, vectors, prompt_tokens, model.layers if model else 0
            )
        except VectorError as error:
            raise FrameError(ErrorCode.INVALID, str(error), field="settings") from None
        at_work = {action.vector for action in actions}.union(
            *({a.vector for a in run.actions} for run in self.live.values())
        )
        if len(at_work) > MAX_VECTORS:
            raise FrameError(
                ErrorCode.BUSY,
                f"All runs together would use {len(at_work)} different vectors, and the engine steers with "
                f"{MAX_VECTORS} at once. Wait for other runs, or set some sliders to 0.",
                field="strengths",
            )
        return actions

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.live.pop(run.id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Run %s failed", run.id, exc_info=error)
