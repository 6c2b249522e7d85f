"""All runs that the server knows: admission, the queue for a place in the engine, and how long each is kept.

A run lives longer than the connection that started it. Connections watch runs; a live run that nobody
watches ends after the grace time, and a finished one is forgotten then. So a lost line costs a client
nothing if it comes back in time, and the engine nothing if it does not.

A run needs a place in the engine (`places.py`): what it would have to wait for inside vLLM, unseen, it waits
for here, and its client is told how many are before it. The requests that a vector is built from stand in the
same line.

What a run takes, it gives back where it ends (`_ended`), whichever way that came: its place, and its part in
the memory that live logs share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from ..engine.edits import EditError
from ..engine.service import EngineService
from ..engine.status import EnginePhase
from ..engine.use import Need
from ..protocol.codec import FrameError
from ..protocol.messages import ErrorCode, Origin, Start, StartTogether, Steer, Watch
from ..telemetry import Telemetry
from ..vectors.action import Action, OtherAdapterError, TooManyVectorsError, decide_all
from ..vectors.store import VectorError
from .budget import RowBudget
from .kept import KeptRows
from .notices import Notices
from .places import Places
from .prompt import Built, build_prompt
from .run import Run
from .traced import build_traced, start_of
from .watching import MAX_WATCHES, Watching, decide

if TYPE_CHECKING:
    from ..engine.service import ModelFacts
    from ..engine.tracing.asked import TracedRequest
    from ..text.rendering import Renderer

logger = logging.getLogger(__name__)

END_SECONDS = 5
"""How long `end_all` waits for an engine that does not answer."""
MAX_KEPT = 256
MAX_KEPT_BYTES = 256 << 20
"""Finished runs beyond these are forgotten, the oldest first, though they are watched."""
MAX_LIVE_BYTES = 512 << 20
"""Rows and guesses of all live runs together; beyond it the oldest of the heaviest runs are let go."""
PROMPTS_AT_ONCE = 2
"""Prompts that are made into tokens at the same time, in threads: a long one must not hold up the others."""

Wake = Callable[[], None]


@dataclass(frozen=True)
class RunLimits:
    """How many runs there may be, and how long."""

    max_runs: int | None = None
    """Runs that may be written at once; None is as many as the engine computes."""
    max_queue: int = 64
    """Runs that may wait for a place."""
    max_reply_tokens: int = 0
    """The longest reply; 0 is what the model's length allows."""
    kept_rows_mib: int = 256
    """Memory for rows of prefixes that other runs may begin with."""
    grace_seconds: float = 30.0
    """How long a live run goes on, and a finished one is kept, that nobody watches."""


class RunTable:
    """Admits runs to one engine and keeps them."""

    def __init__(self, engine: EngineService, limits: RunLimits, telemetry: Telemetry) -> None:
        self.engine = engine
        self.telemetry = telemetry
        self.limits = limits
        self.kept = KeptRows(limits.kept_rows_mib << 20)
        """Rows for runs whose prompts begin alike."""
        self.live: dict[str, Run] = {}
        """Those that have not finished, waiting ones among them."""
        self.notices = Notices()
        """What all clients are told of notebooks' runs."""
        self.draining = False
        self._finished: dict[str, Run] = {}  # the oldest first
        self.places = Places(
            self._most_runs,
            lambda: self.engine.capacity_tokens,
            lambda: self.engine.status.ready and not self.draining,
        )
        self._graces: dict[str, asyncio.TimerHandle] = {}
        self._closed = False
        self._renderer = engine.renderer
        self._budget = RowBudget(
            MAX_LIVE_BYTES, lambda: [run.log for run in self.live.values()], telemetry.rows_trimmed
        )
        # Threads of its own: one whose client has gone cannot be stopped, and counts until it is done.
        self._tokenizers = ThreadPoolExecutor(PROMPTS_AT_ONCE, thread_name_prefix="prompt")
        self._unlisten = engine.listen(self._engine_changed)
        engine.use.asked = self._needs

    # ------------------------------------------------------------ admission

    async def admit(self, start: Start, wake: Wake) -> Run:
        """Check a `start` against the engine, and begin the run or let it wait for a place.

        `wake` watches it from its first event on. Raises FrameError and changes nothing.
        """
        try:
            (run,) = await self._admit([start], wake)
        except FrameError as error:
            error.id = start.id
            raise
        return run

    async def admit_together(self, frame: StartTogether, wake: Wake) -> list[Run]:
        """As `admit`, for all starts of a frame: they get their places at the same moment, and none is
        admitted where one is refused."""
        try:
            return await self._admit(frame.starts, wake)
        except FrameError as error:
            for index, start in enumerate(frame.starts):
                if start.id == error.id:
                    error.message = f"No run was started, because of {start.id!r}: {error.message}"
                    error.field = ".".join(filter(None, ("starts", str(index), error.field)))
            error.id = frame.id
            raise

    async def _admit(self, starts: list[Start], wake: Wake, origin: Origin = "chat") -> list[Run]:
        """Raises FrameError, with the id of the start that it is about if it is about one."""
        model = self._ready()
        # It has been read before the engine is ready.
        renderer = cast("Renderer", self.engine.renderer)
        self._check_room(len(starts))
        for start in starts:
            with _about(start):
                self._check_adapter(start, model)
                self._edits(start)
                self._watching(start)
        built = [await self._built(start, renderer, model) for start in starts]
        # While the prompts were made into tokens, anything may have happened.
        model = self._ready()
        if self.engine.renderer is not renderer:
            raise FrameError(ErrorCode.MODEL_CHANGED, "The server's model was changed just now. Ask again.")
        self._check_room(len(starts))
        return self._take_up(
            [self._made(start, its, model, origin) for start, its in zip(starts, built, strict=True)], wake
        )

    async def admit_traced(self, requests: Sequence[TracedRequest], wake: Wake) -> list[Run]:
        """As `admit_together`, for the requests of a trace."""
        self._ready()
        self._check_room(len(requests))
        renderer = cast("Renderer", self.engine.renderer)
        model = self._ready()
        loop = asyncio.get_running_loop()
        built = [
            await loop.run_in_executor(
                self._tokenizers, build_traced, renderer, request.prompt_ids, model.max_model_len - 1
            )
            for request in requests
        ]
        model = self._ready()
        if self.engine.renderer is not renderer:
            raise FrameError(ErrorCode.MODEL_CHANGED, "The server's model was changed just now. Ask again.")
        self._check_room(len(requests))
        return self._take_up(
            [
                self._made(start_of(request, its), its, model, "notebook", request)
                for request, its in zip(requests, built, strict=True)
            ],
            wake,
        )

    def _take_up(self, runs: list[Run], wake: Wake) -> list[Run]:
        """Let them all ask for their places at the same moment."""
        places = self.places.ask_together([(run.most_tokens, run) for run in runs])
        for run, place in zip(runs, places, strict=True):
            run.place = place
            self.live[run.id] = run
            self.telemetry.run_started()
            run.watchers.add(wake)
            run.log.grew = self._budget.grew
            self.notices.add(run)
        self.places.fill()
        return runs

    async def _built(self, start: Start, renderer: Renderer, model: ModelFacts) -> Built:
        """Its prompt, made in a thread."""
        with _about(start):
            return await asyncio.get_running_loop().run_in_executor(
                self._tokenizers,
                partial(
                    build_prompt, renderer, start.messages, model.max_model_len - 1,
                    write_on=start.write_on, prefix=start.prefix_ids,
                    stops=bool(start.sampling.stop), template=start.template,
                ),
            )  # fmt: skip

    def _made(
        self,
        start: Start,
        built: Built,
        model: ModelFacts,
        origin: Origin,
        traced: TracedRequest | None = None,
    ) -> Run:
        with _about(start):
            watching = self._watching(start)
            self._check_adapter(start, model)
            edits = self._edits(start, traced)
            actions = self.actions(start, len(built.prompt.ids), start.adapter)
        return Run(
            run_id=secrets.token_hex(8), start=start, prompt=built.prompt, texts=built.texts,
            opening=built.opening, watching=watching, actions=actions, layers=model.layers,
            engine=self.engine, kept=self.kept, max_reply_tokens=self.limits.max_reply_tokens,
            telemetry=self.telemetry, ended=self._ended, origin=origin, traced=traced,
            edits=edits,
        )  # fmt: skip

    def _ready(self) -> ModelFacts:
        if self.draining:
            raise FrameError(
                ErrorCode.DRAINING,
                "The server is about to end and begins no new replies. Try again in a moment.",
            )
        model = self.engine.model
        if not self.engine.status.ready or model is None:
            raise FrameError(
                ErrorCode.ENGINE_NOT_READY,
                f"The engine is {self.engine.status.state} ({self.engine.status.stage}). "
                "Try again when it is ready.",
            )
        return model

    def _most_runs(self) -> int:
        """Runs that may be written at once; none before the engine is ready, when nobody is let in."""
        return self.limits.max_runs or self.engine.max_runs or 0

    def _check_room(self, runs: int) -> None:
        self.places.check([0] * runs)  # what never fits need not come again later
        if len(self.live) + runs <= self._most_runs() + self.limits.max_queue:
            return
        writing = len(self.live) - self.queued
        raise FrameError(
            ErrorCode.BUSY,
            f"The server writes {writing} replies and {self.queued} more are waiting, which "
            "is all that it takes. Try again when some have finished.",
        )

    def _check_adapter(self, start: Start, model: ModelFacts) -> None:
        names = [adapter.id for adapter in model.adapters]
        if start.adapter is None or start.adapter in names:
            return
        raise FrameError(
            ErrorCode.UNKNOWN_ADAPTER,
            f"There is no adapter {start.adapter!r}; there are {', '.join(names)}."
            if names
            else f"There is no adapter {start.adapter!r}: this server was started without any (--lora).",
            field="adapter",
        )

    def _edits(self, start: Start, traced: TracedRequest | None = None) -> Sequence[str]:
        """Names of the edits that are to act: those that a chat names. For a trace NNsight's rule: all, or
        those that it names, of which an unknown one is an error that its block comes home with."""
        if traced is not None:
            named = traced.block.edits
            return self.engine.edits.names() if named is None else named
        try:
            self.engine.edits.check(start.edits)
        except EditError as error:
            raise FrameError(ErrorCode.UNKNOWN_EDIT, str(error), field="edits") from None
        return start.edits

    def _engine_changed(self) -> None:
        status = self.engine.status
        if self._renderer is not self.engine.renderer:
            # Another model: its tokens are others, and so are the rows of what begins with the same numbers.
            self._renderer = self.engine.renderer
            self.kept.clear()
        if status.state is EnginePhase.FAILED:
            self.places.refuse_all(FrameError(ErrorCode.ENGINE_FAILED, status.stage))
        self.places.fill()

    def _watching(self, frame: Start | Watch, number: int = 0) -> Watching:
        """What a frame asks to see. Raises FrameError for what nobody can compute."""
        return decide(frame, self.engine.offer.registry, self.engine.offer.vectors, number)

    def watch_with(self, frame: Watch, run: Run) -> None:
        """Change what a run is watched with. Raises FrameError and changes nothing."""
        if not run.live:
            raise FrameError(
                ErrorCode.INVALID,
                "This reply has ended, so nothing more is computed of it. Ask again to see other numbers.",
                field="run",
            )
        number = run.watching.number + 1
        if number > MAX_WATCHES:
            raise FrameError(
                ErrorCode.BUSY,
                f"What this reply is watched with has been changed {MAX_WATCHES} times, which is all that it "
                "may be.",
                field="run",
            )
        run.watch(self._watching(frame, number))

    def actions(self, frame: Start | Steer, prompt_tokens: int, adapter: str | None) -> list[Action]:
        """What a frame's sliders come to in a run that is written with an adapter, or with the base model.
        Refuses what cannot be done: it would silently do nothing."""
        vectors, model = self.engine.offer.sliders, self.engine.model
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
            return decide_all(
                frame.strengths, settings, vectors, prompt_tokens, model.layers if model else 0,
                adapter=adapter or "", thinks=model is not None and model.thoughts is not None,
            )  # fmt: skip
        except (OtherAdapterError, TooManyVectorsError) as error:
            raise FrameError(ErrorCode.INVALID, str(error), field="strengths") from None
        except VectorError as error:
            raise FrameError(ErrorCode.INVALID, str(error), field="settings") from None

    def _needs(self) -> Iterator[Need]:
        """What the runs that have not finished need of the vectors, waiting ones among them."""
        for run in self.live.values():
            if not run.done:
                yield Need(
                    frozenset(action.vector for action in run.actions), frozenset(run.watching.metrics)
                )

    def _ended(self, run: Run) -> None:
        self.live.pop(run.id, None)
        run.log.grew = _nobody
        self._finished[run.id] = run
        try:
            self._forget_oldest()
            if not run.watchers:
                self._let_go(run)
        finally:
            if run.place is not None:
                run.place.give_back()

    @property
    def queued(self) -> int:
        """How many runs wait for a place."""
        return sum(not run.begun for run in self.live.values())

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
        if self._closed or run.id in self._graces or self.find(run.id) is None:
            return
        loop = asyncio.get_running_loop()
        self._graces[run.id] = loop.call_later(self.limits.grace_seconds, self._grace_over, run)

    def _grace_over(self, run: Run) -> None:
        self._graces.pop(run.id, None)
        if run.done:
            self._finished.pop(run.id, None)
            self.notices.forget(run.id)
        else:
            logger.info("Run %s is ended: nobody has watched it for the grace time", run.id)
            run.cancel()

    def _forget_oldest(self) -> None:
        weight = sum(run.log.size for run in self._finished.values())
        while len(self._finished) > 1 and (len(self._finished) > MAX_KEPT or weight > MAX_KEPT_BYTES):
            oldest = self._finished.pop(next(iter(self._finished)))
            weight -= oldest.log.size
            # Whoever still watches it keeps the run, and would keep its rows.
            oldest.log.trim(0)
            self.notices.forget(oldest.id)
            if (grace := self._graces.pop(oldest.id, None)) is not None:
                grace.cancel()

    # ------------------------------------------------------------ the end

    async def leave_model(self, why: str) -> None:
        """End all runs, those that wait too, because the model is about to be changed; their clients read
        `why`. What has finished is kept as ever."""
        self.places.refuse_all(FrameError(ErrorCode.MODEL_CHANGED, why))
        live = list(self.live.values())
        for run in live:
            run.fail(ErrorCode.MODEL_CHANGED, why)
        await _all_over(live, END_SECONDS)

    async def drain(self, seconds: float) -> None:
        """Begin no more runs and let live ones finish; what has not after `seconds` is ended and told so."""
        self.draining = True
        self.places.refuse_all(
            FrameError(
                ErrorCode.DRAINING,
                "The server is about to end, and this reply had not begun. Ask again in a moment.",
            )
        )
        began = list(self.live.values())
        await _all_over(began, seconds)
        for run in began:
            run.fail(
                ErrorCode.DRAINING, "The server had to end before this reply did. What was written is kept."
            )
        await _all_over(began, END_SECONDS)

    async def end_all(self) -> None:
        """End every live run, and wait until the engine has let go of each."""
        self.draining = self._closed = True
        live = list(self.live.values())
        for run in live:
            run.cancel()
        await _all_over(live, END_SECONDS)
        self._unlisten()
        for grace in self._graces.values():
            grace.cancel()
        self._graces.clear()
        self.notices.telling.close()
        self._tokenizers.shutdown(wait=False, cancel_futures=True)


async def _all_over(runs: list[Run], seconds: float) -> None:
    """Wait until the engine has let go of them all, or so long."""
    waits = [asyncio.ensure_future(run.over()) for run in runs]
    if waits:
        _, late = await asyncio.wait(waits, timeout=seconds)
        for wait in late:
            wait.cancel()


@contextlib.contextmanager
def _about(start: Start) -> Iterator[None]:
    """What is refused in here is refused because of this start."""
    try:
        yield
    except FrameError as error:
        error.id = start.id
        raise


def _nobody(_size: int) -> None:
    """The rows of a log that is not live count nowhere here."""
