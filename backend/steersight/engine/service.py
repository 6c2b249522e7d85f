"""The engine as the rest of the server sees it: load, generate, steer, count, shut down.

Everything slow happens in threads or in the engine's own process, so the event loop goes on serving while
the model loads. Rows and tokens come in on their own channel, one message for each step; what belongs to a
reply is handed to its run.

An engine that is lost (killed, crashed, hung) costs the runs that were live in it, and is started again by
itself; so does one whose model is changed, which makes place for another. `life.py` is one engine, and this
is what outlives it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import garbage
from .causes import explain
from .channel import FailedRuns, Stage
from .edits import EditError, Edits
from .errors import ChangeError as ChangeError
from .errors import CodeFailedError as CodeFailedError
from .errors import EngineLostError as EngineLostError
from .errors import EngineNotReadyError as EngineNotReadyError
from .errors import RunFailedError as RunFailedError
from .errors import StartError
from .examples import Examples
from .generation import Ended as Ended
from .generation import Generations
from .life import CallError, Item, Life
from .loading import Known, in_daemon_thread, read_model
from .offer import Offer
from .options import EngineOptions as EngineOptions
from .options import ModelFacts as ModelFacts
from .reply import Entry
from .request import RunRequest, Wants
from .status import NEXT_PHASES, EnginePhase, Status
from .step import Step
from .use import VectorUse
from .watch import TRIES, Restarts

if TYPE_CHECKING:
    from ..text.rendering import Renderer
    from ..vectors.action import Action

logger = logging.getLogger(__name__)

CHANGEABLE = (EnginePhase.READY, EnginePhase.FAILED)
"""Phases in which the model can be changed."""
HELD_SECONDS = 2.0
"""How long `held` waits for an engine that may be busy with a long prompt."""


class EngineService:
    """One engine. Not thread-safe: all methods belong to the event loop that called `load`."""

    def __init__(self, options: EngineOptions) -> None:
        """Nothing is loaded yet; see `load`."""
        self.options = options
        self.status = Status()
        self.model: ModelFacts | None = None
        self.renderer: Renderer | None = None
        """Makes prompts for the model; None until its tokenizer has been read."""
        self.capacity_tokens: int | None = None
        """Tokens that the KV cache holds; None until the engine is ready."""
        self.max_runs: int | None = options.max_runs
        """How many runs it computes at once; where that is chosen for it, None until it is ready."""
        self.restarts = 0
        """How often an engine that was lost has been brought back."""
        self.on_step: Callable[[], None] = lambda: None
        """Called for each step whose rows have come."""
        self.on_leaving: Callable[[str], Awaitable[None]] = _nobody_leaves
        """Called before the engine ends because its model is changed, with the sentence for those whose runs
        end with it; waited for."""
        self.abandoned = False
        """Told to end while it was loading: a thread of ours, and processes it starts, may still be at it."""
        self.use = VectorUse()
        """Which vectors the runs need."""
        self.offer = Offer(self._call, self.use, self._tell)
        """The vectors and metrics that clients may choose from."""
        self.edits = Edits(self._call)
        """Blocks of Python that runs may name."""
        self.generations = Generations(self._serving, self._call, self.use)
        """The runs that are in the engine."""
        self.examples = Examples(self.generations, self._call)
        """Streams of what vectors are made from."""
        self._listeners: list[Callable[[], None]] = []
        self._life: Life | None = None
        self._tries = Restarts()
        self._again = ""
        """What the stage begins with while a lost engine is started again."""
        self._rebuilding: asyncio.Task[None] | None = None
        self._reading = False
        """Whether somebody reads another model, to which this one may be changed."""
        self._changing: asyncio.Task[None] | None = None
        self.change_failed = ""
        """Why the last change of the model failed, in a sentence; empty when it did not."""
        self._forgetting: set[asyncio.Task[None]] = set()

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer; None until it has been read."""
        return None if self.renderer is None else self.renderer.tokenizer

    # ------------------------------------------------------------ state

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` at every change of status; returns a function that ends it."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _is(self, phase: EnginePhase) -> bool:
        return self.status.state is phase

    def _become(self, phase: EnginePhase, stage: str) -> None:
        self.status = self.status.become(phase, stage)
        self._tell()

    def _say(self, stage: str, progress: float | None = None) -> None:
        self.status = self.status.say(stage, progress)
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()

    # ------------------------------------------------------------ life

    async def load(self) -> None:
        """Load the model and start the engine; on failure the status says why and nothing is raised."""
        report = self._reporter()
        try:
            known: Known = await in_daemon_thread(lambda: read_model(self.options, report))
            await self._serve(self.options, known)
        except asyncio.CancelledError:
            self.abandoned = self._life is None
            raise
        except Exception as error:
            if self._is(EnginePhase.STOPPED):
                return  # it was told to end, and that is what it says
            logger.exception("The engine did not start")
            if self._is(EnginePhase.LOADING):
                self._become(EnginePhase.FAILED, f"The engine did not start. {_why(error)}")

    async def _serve(self, options: EngineOptions, known: Known) -> None:
        """Take a model that has been read into service, in place of any before it. Raises as `_start`."""
        self.options = options
        self.model, self.renderer = known.model, known.renderer
        self.capacity_tokens, self.max_runs = None, options.max_runs
        await self.offer.begin_again(known.vectors, known.registry, known.functions)
        await self.edits.forget_all()
        self._tell()
        for problem in (*known.problems, *known.vectors.problems):
            logger.warning("%s", problem)
        await self._start(known.model)

    def _reporter(self) -> Callable[[str, float], None]:
        loop = asyncio.get_running_loop()

        def report(stage: str, progress: float) -> None:
            loop.call_soon_threadsafe(self._loading, stage, progress)

        return report

    def _loading(self, stage: str, progress: float) -> None:
        if self._is(EnginePhase.LOADING):
            self._say(f"{self._again} {stage}".lstrip(), progress)

    async def _start(self, model: ModelFacts) -> None:
        """Take one engine into service. Raises what went wrong, and leaves nothing of it then.

        Cancelled, it leaves everything to `shutdown`.
        """
        life = self._life = Life(self.options, model, take=self._take, ended=self._lose, silent=self._silent)
        try:
            built = await life.start(self.offer.labels(), self._reporter())
            await self.offer.give_all()
            await self.edits.give_all()
        except Exception:
            await life.end(kindly=False)
            raise
        garbage.set_aside()
        self.model = replace(model, dtype=built.dtype)
        self.capacity_tokens, self.max_runs = built.capacity_tokens, built.max_runs
        self._again = ""
        if self._is(EnginePhase.LOADING):  # a server that drains meanwhile takes no runs
            self._become(EnginePhase.READY, "Ready")

    def _lose(self, life: Life, why: str) -> None:
        """An engine is dead or hung: first nobody is sent to it any more, then all who wait for it hear."""
        if life is not self._life or life.lost is not None:
            return
        if not self.status.ready:
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
            self._become(EnginePhase.FAILED, f"{stage} The log says more.")
            return None
        self._again = f"{why} It is being started again (try {self._tries.tries} of {TRIES})."
        if self._is(EnginePhase.LOADING):
            self._say(self._again, 0.0)
        else:
            self._become(EnginePhase.LOADING, self._again)
        return pause

    async def _rebuild(self, dead: Life, why: str, pause: float | None) -> None:
        await dead.end(kindly=False)
        while pause is not None:
            await asyncio.sleep(pause)
            if not self._is(EnginePhase.LOADING):
                return  # the server is about to end
            try:
                await self._start(dead.model)
            except Exception as error:
                logger.exception("The engine did not start again")
                if not self._is(EnginePhase.LOADING):
                    return
                pause = self._next_try(why, f"The last time: {_why(error)}")
            else:
                self.restarts += 1
                return

    # ------------------------------------------------------------ another model

    async def change(self, options: EngineOptions) -> None:
        """Serve another model in place of this one.

        Returns once that has been read, while this one is still served. What comes then goes on by itself,
        and the status tells of it: live runs end (`on_leaving`), the engine ends, and another is started. If
        it does not start, the model before is served again, and the status says why.

        Args:
            options: how the other model is to be served.

        Raises:
            ChangeError: not now, or not this model. Nothing has changed then.
        """
        self._check_changeable()
        self._reading = True
        try:
            known: Known = await in_daemon_thread(lambda: read_model(options, lambda *_: None))
        except Exception as error:
            logger.exception("A model could not be read")
            raise ChangeError(f"It cannot be served. {_why(error)}") from error
        finally:
            self._reading = False
        self._check_changeable()  # meanwhile anything may have happened
        self.change_failed, served = "", self.status.ready
        self._again = f"The model is being changed to {known.model.id}."
        self._become(EnginePhase.LOADING, self._again)
        self._changing = asyncio.create_task(
            self._change(options, known, go_back=served), name="change-model"
        )

    def _check_changeable(self) -> None:
        if self._reading:
            raise ChangeError("Somebody else is changing the model just now.")
        if self.status.state not in CHANGEABLE:
            raise ChangeError(f"The engine is {self.status.state}: {self.status.stage}")

    async def _change(self, options: EngineOptions, known: Known, *, go_back: bool) -> None:
        before, name = self.options, known.model.id
        old = "?" if self.model is None else self.model.id
        await self.on_leaving(
            f"The server's model is being changed to {name}, which ends this reply. What was written is kept."
        )
        if self._life is not None:
            await self._life.end(kindly=True)
        try:
            await self._afresh(options, known)
        except Exception as error:
            logger.exception("The model could not be changed")
            self.change_failed = f"{name} could not be served. {_why(error)}"
        else:
            return
        if not self._is(EnginePhase.LOADING):
            return  # the server is about to end
        if not go_back:
            self._become(EnginePhase.FAILED, self.change_failed)
            return
        self._again = f"{self.change_failed} {old} is started again."
        self._say(self._again, 0.0)
        try:
            report = self._reporter()
            known = await in_daemon_thread(lambda: read_model(before, report))
            await self._afresh(before, known)
        except Exception as error:
            logger.exception("The model before could not be started again")
            if self._is(EnginePhase.LOADING):
                stage = f"{self.change_failed} Neither could {old}. {_why(error)}"
                self._become(EnginePhase.FAILED, stage)
        else:
            if self.status.ready:
                self._say(f"{self.change_failed} {old} is served again.")

    async def _afresh(self, options: EngineOptions, known: Known) -> None:
        """As `_serve`, with all tries of an engine that was never lost."""
        self._tries = Restarts()
        await self._serve(options, known)

    def memory(self) -> int:
        """Bytes that would be free without the engine. Reads /proc; from any thread."""
        life = self._life
        return 0 if life is None else life.memory

    # ------------------------------------------------------------ its end

    def _silent(self, life: Life, seconds: float) -> None:
        """An engine owes an answer; or it has given one after all."""
        if life is not self._life or not self.status.ready:
            return
        stage = "Ready"
        if seconds:
            limit = self.options.stall_seconds
            stage = (
                f"The engine has not answered for {seconds:.0f} s. "
                f"After {limit:g} s it counts as hung and is started again."
            )
        self._say(stage)

    def drain(self) -> None:
        """Take no more runs, because the server is about to end; those under way go on."""
        if EnginePhase.DRAINING in NEXT_PHASES[self.status.state]:
            self._become(EnginePhase.DRAINING, "The server is about to end")

    async def shutdown(self) -> None:
        """Stop the engine process and the row channel, wherever they are between start and end.

        Again is harmless.
        """
        if not self._is(EnginePhase.STOPPED):
            self._become(EnginePhase.STOPPED, "Stopped")
        for task in (self._rebuilding, self._changing):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._life is not None:
            self.abandoned = self.abandoned or self._life.starting
            await self._life.end(kindly=True)

    def kill(self) -> None:
        """Kill what an abandoned thread has started; from any thread, when the event loop is gone."""
        if self._life is not None:
            self._life.kill()

    def _serving(self) -> Life:
        if self._life is None or not self.status.ready:
            raise EngineNotReadyError(f"The engine is {self.status.state}: {self.status.stage}")
        return self._life

    # ------------------------------------------------------------ runs

    async def generate(self, request: RunRequest, take: Callable[[Entry], None]) -> Ended:
        """Submit one run and wait for its end; see `Generations.generate`."""
        if request.block is None:  # a block comes home with NNsight's own error
            self._check_edits(request.edits)
        self.edits.began(request.edits)
        return await self.generations.generate(request, take)

    def _check_edits(self, names: tuple[str, ...]) -> None:
        try:
            self.edits.check(names)
        except EditError as error:
            raise RunFailedError(f"{error} It was removed before this reply began.") from error

    async def steer(self, run: str, rev: int, actions: list[Action]) -> None:
        """Put new actions in force on all ranks between two steps; see `Generations.steer`."""
        await self.generations.steer(run, rev, actions)

    async def watch(self, run: str, number: int, wants: Wants) -> None:
        """Let all ranks compute other numbers for a run; see `Generations.watch`."""
        await self.generations.watch(run, number, wants)

    async def held(self) -> dict[str, int]:
        """How many requests vLLM, NNsight and the observer still hold, how many steps' rows were dropped, and
        how often a run was thrown out of the KV cache.

        Where the engine does not say so soon: what it said last. Where a worker fails at it: -1 each.
        """
        nothing = {"vllm": 0, "nnsight": 0, "observer": 0, "dropped": 0, "preempted": 0}
        life = self._life
        if life is None:
            return nothing
        try:
            async with asyncio.timeout(HELD_SECONDS):
                return await life.count()
        except TimeoutError:
            return life.load or nothing
        except (EngineNotReadyError, EngineLostError):
            return nothing
        except CallError as error:
            logger.warning("The workers could not say what they hold: %s", error)
            return dict.fromkeys(nothing, -1)

    async def _call(self, method: str, *args: Any) -> list[Any]:
        if self._life is None:
            raise EngineNotReadyError(f"The engine is {self.status.state}: {self.status.stage}")
        return await self._life.call(method, *args)

    # ------------------------------------------------------------ what the workers send

    def _take(self, item: Item) -> None:
        if isinstance(item, Stage):
            self._loading(item.stage, item.progress)
        elif isinstance(item, FailedRuns):
            self.generations.fail(item.runs, CodeFailedError if item.edits else RunFailedError)
            self.edits.failed(item.edits)
            if not item.edits:
                self._distrust()
        else:
            self._take_step(item)

    def _distrust(self) -> None:
        """A run has failed in the worker: what it left in the cache of prefixes may be half steered."""
        life = self._life
        if life is not None and life.lost is None and life.nnsight is not None:
            task = asyncio.create_task(life.forget_prefixes(), name="forget-prefixes")
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    def _take_step(self, step: Step) -> None:
        self.on_step()
        self.offer.note_failed(step.failed)
        self.generations.take(step)


async def _nobody_leaves(_why: str) -> None:
    """Nobody has runs in an engine that serves nobody."""


def _why(error: Exception) -> str:
    """Why an engine did not start, in a sentence."""
    return str(error) if isinstance(error, StartError) else explain(error)
