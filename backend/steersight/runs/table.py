"""All runs that the server knows: admission, the queue for a place in the engine, and how long each is kept.

A run lives longer than the connection that started it. Connections watch runs; a live run that nobody
watches ends after the grace time, and a finished one is forgotten then. So a lost line costs a client
nothing if it comes back in time, and the engine nothing if it does not.

Places in the engine are given in the order of asking. A run needs one of `max_runs` places and room in the KV
cache for all that it may write; what it would have to wait for inside vLLM, unseen, it waits for here, and
its client is told how many are before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.service import EngineService
from ..engine.use import Need, TooManyVectorsError
from ..metrics import LENS_METRICS
from ..protocol.codec import FrameError
from ..protocol.messages import ErrorCode, Start, Steer
from ..telemetry import Telemetry
from ..vectors.action import Action, decide_all
from ..vectors.store import VectorError
from .prompt import build_prompt
from .run import Run

if TYPE_CHECKING:
    from ..engine.service import ModelFacts
    from ..protocol.messages import Prompt
    from .prompt import TokenTexts

logger = logging.getLogger(__name__)

END_SECONDS = 5
"""How long `end_all` waits for an engine that does not answer."""
MAX_KEPT = 256
MAX_KEPT_BYTES = 256 << 20
"""Finished runs beyond these are forgotten, the oldest first, though they are watched."""
PROMPTS_AT_ONCE = 2
"""Prompts that are made into tokens at the same time, in threads: a long one must not hold up the others."""

Wake = Callable[[], None]


@dataclass(frozen=True)
class RunLimits:
    """How many runs there may be, and how long."""

    max_runs: int = 64
    """Runs that the engine computes at once."""
    max_queue: int = 64
    """Runs that may wait for a place."""
    max_reply_tokens: int = 0
    """The longest reply; 0 is what the model's length allows."""
    grace_seconds: float = 30.0
    """How long a live run goes on, and a finished one is kept, that nobody watches."""


class RunTable:
    """Admits runs to one engine and keeps them."""

    def __init__(self, engine: EngineService, limits: RunLimits, telemetry: Telemetry) -> None:
        self.engine = engine
        self.telemetry = telemetry
        self.limits = limits
        self.live: dict[str, Run] = {}
        """Those that have not finished, waiting ones among them."""
        self.draining = False
        self._finished: dict[str, Run] = {}  # the oldest first
        self._waiting: deque[Run] = deque()
        self._tokens: dict[str, int] = {}  # run id -> tokens of the KV cache that it may come to need
        self._graces: dict[str, asyncio.TimerHandle] = {}
        self._tokenizing = asyncio.Semaphore(PROMPTS_AT_ONCE)
        self._unlisten = engine.listen(self._engine_changed)
        engine.use.asked = self._needs

    # ------------------------------------------------------------ admission

    async def admit(self, start: Start, wake: Wake) -> Run:
        """Check a `start` against the engine, and begin the run or let it wait for a place.

        `wake` watches it from its first event on. Raises FrameError and changes nothing.
        """
        try:
            model = self._ready()
            self._check_room()
            self._metrics(start)
            async with self._tokenizing:
                prompt, texts = await asyncio.to_thread(
                    build_prompt, self.engine.tokenizer, start.messages, model.max_model_len - 1,
                    write_on=start.write_on,
                )  # fmt: skip
            # While the prompt was made into tokens, anything may have happened.
            model = self._ready()
            self._check_room()
            metrics = self._metrics(start)
            actions = self.actions(start, len(prompt.ids))
            run = self._made(start, prompt, texts, actions, metrics, model.layers)
            self._check_size(run)
        except FrameError as error:
            error.id = start.id
            raise
        self.live[run.id] = run
        self.telemetry.run_started()
        run.watchers.add(wake)
        self._waiting.append(run)
        self._fill()
        return run

    def _made(
        self, start: Start, prompt: Prompt, texts: TokenTexts, actions: list[Action], metrics: list[str],
        layers: int,
    ) -> Run:  # fmt: skip
        return Run(
            run_id=secrets.token_hex(8), start=start, prompt=prompt, texts=texts, metrics=metrics,
            actions=actions, registry=self.engine.registry, layers=layers, engine=self.engine,
            max_reply_tokens=self.limits.max_reply_tokens, telemetry=self.telemetry, ended=self._ended,
        )  # fmt: skip

    def _ready(self) -> ModelFacts:
        if self.draining:
            raise FrameError(
                ErrorCode.DRAINING,
                "The server is about to end and begins no new replies. Try again in a moment.",
            )
        model = self.engine.model
        if self.engine.status.state != "ready" or model is None:
            raise FrameError(
                ErrorCode.ENGINE_NOT_READY,
                f"The engine is {self.engine.status.state} ({self.engine.status.stage}). "
                "Try again when it is ready.",
            )
        return model

    def _check_room(self) -> None:
        if len(self._tokens) + len(self._waiting) < self.limits.max_runs + self.limits.max_queue:
            return
        raise FrameError(
            ErrorCode.BUSY,
            f"The server writes {len(self._tokens)} replies and {len(self._waiting)} more are waiting, which "
            "is all that it takes. Try again when some have finished.",
        )

    def _check_size(self, run: Run) -> None:
        capacity = self.engine.capacity_tokens
        if capacity is not None and run.most_tokens > capacity:
            raise FrameError(
                ErrorCode.PROMPT_TOO_LONG,
                f"Prompt and reply may come to {run.most_tokens} tokens, and the engine's KV cache holds "
                f"{capacity}. Ask for fewer tokens or shorten the conversation.",
                field="sampling.max_tokens",
            )

    def _fits(self, run: Run) -> bool:
        if len(self._tokens) >= self.limits.max_runs:
            return False
        capacity = self.engine.capacity_tokens
        return capacity is None or sum(self._tokens.values()) + run.most_tokens <= capacity

    def _fill(self) -> None:
        """Give free places to those who wait, and tell the others how many are before them."""
        while self._waiting and self.engine.status.state == "ready" and self._fits(self._waiting[0]):
            run = self._waiting.popleft()
            self._tokens[run.id] = run.most_tokens
            run.begin()
        for position, run in enumerate(self._waiting, start=1):
            run.wait_at(position)

    def _engine_changed(self) -> None:
        state = self.engine.status.state
        if state == "failed":
            for run in list(self._waiting):
                run.fail(ErrorCode.ENGINE_FAILED, self.engine.status.stage)
        self._fill()

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
                )
            if name in LENS_METRICS and start.lens is None:
                raise FrameError(
                    ErrorCode.INVALID,
                    f"{name!r} needs the logit lens. Give `lens` with a stride, or leave it out.",
                    field="lens",
                )
        return registry.ordered([*asked, *(LENS_METRICS if start.lens else ())])

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
        try:
            self.engine.use.check_room(action.vector for action in actions)
        except TooManyVectorsError as error:
            raise FrameError(ErrorCode.BUSY, str(error), field="strengths") from None
        return actions

    def _needs(self) -> Iterator[Need]:
        """What the runs that have not finished need of the vectors, waiting ones among them."""
        for run in self.live.values():
            if not run.done:
                yield Need(frozenset(action.vector for action in run.actions), frozenset(run.log.metrics))

    def _ended(self, run: Run) -> None:
        self.live.pop(run.id, None)
        self._tokens.pop(run.id, None)
        with contextlib.suppress(ValueError):
            self._waiting.remove(run)
        self._finished[run.id] = run
        self._forget_oldest()
        if not run.watchers:
            self._let_go(run)
        self._fill()

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    # ------------------------------------------------------------ watching

    def find(self, run_id: str) -> Run | None:
        """A run by its name, as long as it is kept."""
        return self.live.get(run_id) or self._finished.get(run_id)

    def watch(self, run: Run, wake: Wake) -> None:
        """Let `wake` be called whenever the run's log grows; the run stays as long as somebody watches."""
        run.watchers.add(wake)
        if (grace := self._graces.pop(run.id, None)) is not None:
            grace.cancel()

    def unwatch(self, run: Run, wake: Wake) -> None:
        """Stop watching. If nobody else does, the grace time begins."""
        run.watchers.discard(wake)
        if not run.watchers:
            self._let_go(run)

    def _let_go(self, run: Run) -> None:
        if run.id in self._graces or self.find(run.id) is None:
            return
        loop = asyncio.get_running_loop()
        self._graces[run.id] = loop.call_later(self.limits.grace_seconds, self._grace_over, run)

    def _grace_over(self, run: Run) -> None:
        self._graces.pop(run.id, None)
        if run.done:
            self._finished.pop(run.id, None)
        else:
            logger.info("Run %s is ended: nobody has watched it for the grace time", run.id)
            run.cancel()

    def _forget_oldest(self) -> None:
        weight = sum(run.log.size for run in self._finished.values())
        while len(self._finished) > 1 and (len(self._finished) > MAX_KEPT or weight > MAX_KEPT_BYTES):
            oldest = self._finished.pop(next(iter(self._finished)))
            weight -= oldest.log.size
            if (grace := self._graces.pop(oldest.id, None)) is not None:
                grace.cancel()

    # ------------------------------------------------------------ the end

    async def drain(self, seconds: float) -> None:
        """Begin no more runs and let live ones finish; what has not after `seconds` is ended and told so."""
        self.draining = True
        for run in list(self._waiting):
            run.fail(
                ErrorCode.DRAINING,
                "The server is about to end, and this reply had not begun. Ask again in a moment.",
            )
        began = [run for run in self.live.values() if run.begun]
        if began:
            await asyncio.wait([asyncio.ensure_future(run.over()) for run in began], timeout=seconds)
        for run in began:
            run.fail(
                ErrorCode.DRAINING, "The server had to end before this reply did. What was written is kept."
            )
        await self._over(began)

    async def end_all(self) -> None:
        """End every live run, and wait until the engine has let go of each."""
        self.draining = True
        live = list(self.live.values())
        for run in live:
            run.cancel()
        await self._over(live)
        self._unlisten()
        for grace in self._graces.values():
            grace.cancel()
        self._graces.clear()

    async def _over(self, runs: list[Run]) -> None:
        if runs:
            await asyncio.wait([asyncio.ensure_future(run.over()) for run in runs], timeout=END_SECONDS)
