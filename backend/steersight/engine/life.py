"""One engine from its start to its end: its processes, its folder, its row channel, and who waits for it.

An engine may end at any moment, killed from outside or by a fault of its own, or hang. Whoever waits for it
then has to be told at once, because vLLM (0.32) tells only some of them: an engine that dies raises in its
streams but leaves calls pending for ever, and of one that hangs it knows nothing. `Life` watches the
processes, counts how long an answer is owed, and lets every stream and every call end together.

The service keeps one life at a time and makes a new one when it is lost; a life is never started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

from . import trouble
from .causes import cause, explain
from .channel import FailedRuns, RowReceiver, Stage
from .errors import ERROR, EngineLostError, EngineNotReadyError, StartError
from .family import Family
from .loading import Built, Report, build_engine, import_engine, in_daemon_thread, row_address
from .options import EngineOptions, ModelFacts
from .step import Step
from .watch import Silence

logger = logging.getLogger(__name__)

TICK_SECONDS = 0.2
PROBE_SECONDS = 15.0
"""How long an idle engine may be left alone before it is asked whether it is there."""
SHUTDOWN_SECONDS = 20.0
"""How long an engine that is asked to end may take; vLLM kills its processes after some five."""
ENDED = "The engine ended unexpectedly."

Item = Stage | FailedRuns | Step


class CallError(RuntimeError):
    """A worker could not do what it was asked for; the message is its own."""


class Life:
    """One engine. All methods belong to the event loop; `kill` may be called from anywhere."""

    def __init__(
        self,
        options: EngineOptions,
        model: ModelFacts,
        *,
        take: Callable[[Item], None],
        ended: Callable[[Life, str], None],
        silent: Callable[[Life, float], None],
    ) -> None:
        """Make its folder and channel; nothing runs yet.

        Args:
            options: how to start it.
            model: what it is to serve.
            take: gets what the workers send.
            ended: called once, with a sentence, when it is found dead or hung.
            silent: called with the seconds it has owed an answer, at each quarter of the limit; 0 is over.
        """
        self.options = options
        self.model = model
        self.starting = False
        """Whether a thread of ours is at it, which cannot be interrupted."""
        self.nnsight: Any = None
        """The model that NNsight traces; None until it is up."""
        self.lost: str | None = None
        """The sentence with which it was lost."""
        self.ready_at = 0.0
        """Time of the loop at which it was up."""
        self.load: dict[str, int] = {}
        """What it held when it last said so."""
        self._take = take
        self._ended = ended
        self._silent = silent
        # Where the user wants vLLM's sockets, the whole folder is: their paths may not be long.
        self._folder = tempfile.TemporaryDirectory(
            prefix="steersight-", dir=os.environ.get("VLLM_RPC_BASE_PATH"), ignore_cleanup_errors=True
        )
        self._killed_before = trouble.oom_kills()
        self._family = Family()
        self._receiver = RowReceiver(row_address(Path(self._folder.name)))
        self._reader = asyncio.create_task(self._read(), name="steersight-rows")
        self._watcher: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._silence = Silence(options.stall_seconds)
        self._owed = 0
        """Streams and calls that wait for it."""

    # ------------------------------------------------------------ start

    async def start(self, vectors: list[tuple[str, str]], report: Report) -> Built:
        """Load it; see `build_engine`. Raises StartError; `end` is the caller's to call."""
        folder = Path(self._folder.name)
        self.starting = True
        built: Built = await in_daemon_thread(lambda: self._build(folder, vectors, report))
        self.nnsight = built.nnsight
        self._family.settle(built.roots, [])
        loop = asyncio.get_running_loop()
        self._watcher = asyncio.create_task(self._watch(), name="watch-engine")
        ranks = await self.call("steersight_process")
        self._family.settle(built.roots, ranks)
        self.ready_at = loop.time()
        return built

    def _build(self, folder: Path, vectors: list[tuple[str, str]], report: Report) -> Built:
        try:
            import_engine(report)
            return build_engine(self.options, self.model, vectors, folder, report)
        except Exception as error:
            since = time.time() - trouble.STARTING_SECONDS
            raise StartError(explain(error, trouble.read(folder, self._killed_before, since))) from error
        finally:
            self.starting = False

    def _why_ended(self) -> str:
        """That it has ended, and why, as far as its processes have said so just now."""
        since = time.time() - trouble.ONE_EVENT_SECONDS
        why = cause(trouble.read(Path(self._folder.name), self._killed_before, since))
        return ENDED if why is None else f"{ENDED} {why}"

    # ------------------------------------------------------------ what is asked of it

    @property
    def engine(self) -> Any:
        """vLLM's `AsyncLLM`."""
        return self.nnsight.vllm_entrypoint

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """While somebody waits for it. Any error on the way is an EngineLostError where it was lost."""
        self._check()
        try:
            with self._owing():
                yield
        except Exception as error:
            from vllm.v1.engine.exceptions import EngineDeadError

            if self.lost is None and (isinstance(error, EngineDeadError) or self._family.broken):
                # vLLM knew before the watcher looked.
                self._ended(self, self._why_ended())
            if not isinstance(error, EngineLostError):
                self._check(error)
            raise

    @contextlib.contextmanager
    def _owing(self) -> Iterator[None]:
        self._owed += 1
        try:
            yield
        finally:
            self._owed -= 1

    def _check(self, cause: Exception | None = None) -> None:
        if self.lost is not None:
            raise EngineLostError(self.lost) from cause

    @property
    def caught_up_at(self) -> float:
        """When everything that its workers had sent was taken, last, by `time.monotonic`."""
        return self._receiver.caught_up_at

    def heard(self) -> None:
        """It has given a sign of life."""
        self._silence.heard()

    @property
    def memory(self) -> int:
        """Bytes that its processes have for themselves. Reads /proc."""
        return self._family.memory

    async def call(self, method: str, *args: Any) -> list[Any]:
        """Call a method of every worker; the answers in order of rank.

        Raises: EngineNotReadyError before it is up; EngineLostError; CallError where a worker could not do
            it.
        """
        if self.nnsight is None:
            raise EngineNotReadyError("The engine is not up yet.")
        from vllm.v1.engine.exceptions import EngineDeadError

        with self._waiting():
            try:
                answers: list[Any] = await self.nnsight.vllm_entrypoint.collective_rpc(method, args=args)
            except EngineDeadError:
                raise
            except Exception as error:
                raise CallError(str(error)) from error
            self.heard()
        for answer in answers:
            if isinstance(answer, dict) and ERROR in answer:
                raise CallError(answer[ERROR])
        return answers

    async def forget_prefixes(self) -> None:
        """Let no run that starts from now on read what is in the cache of prefixes."""
        with contextlib.suppress(EngineLostError), self._waiting():
            await self.engine.reset_prefix_cache()

    async def stream(self, outputs: Any) -> AsyncGenerator[Any, None]:
        """A request's outputs. The request is aborted when this is closed before its last."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            while True:
                with self._waiting():
                    output = await anext(outputs, None)
                if output is None:
                    return
                self.heard()
                # Nothing is owed while the reader is at work: what the engine says meanwhile waits for it.
                yield output
        finally:
            # By name: an abandoned stream frees its request only at garbage collection. In a dead engine
            # there is nothing to free, and whoever cancelled is to see that.
            with contextlib.suppress(EngineDeadError), self._owing():
                await outputs.aclose()

    # ------------------------------------------------------------ watching

    async def _read(self) -> None:
        while True:
            item = await self._receiver.receive()
            self.heard()
            if isinstance(item, Stage):
                # The one moment of loading at which its processes are known to be there.
                self._family.note()
            try:
                self._take(item)
            except Exception:
                # Without this task nobody would get rows any more.
                logger.exception("A message of the engine could not be taken")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        then = idle_since = loop.time()
        quarter = 0
        probe_after = min(PROBE_SECONDS, self.options.stall_seconds / 4)
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._family.broken:
                self._ended(self, self._why_ended())
                return
            now = loop.time()
            self._silence.tick(now - then, self._owed > 0)
            then = now
            if self._silence.hung:
                self._ended(self, f"The engine has not answered for {self.options.stall_seconds:g} s.")
                return
            if self._silence.quarter != quarter:
                quarter = self._silence.quarter
                self._silent(self, self._silence.seconds)
            if self._owed:
                idle_since = now
            elif now - idle_since >= probe_after:
                idle_since = now
                self._probe = asyncio.create_task(self._ask(), name="probe-engine")

    async def _ask(self) -> None:
        with contextlib.suppress(EngineLostError, CallError):
            await self.count()

    async def count(self) -> dict[str, int]:
        """What vLLM, NNsight and the observer hold, how many steps' rows were dropped, and how often a run
        was thrown out of the KV cache; the most of any rank."""
        answers = await self.call("steersight_load")
        self.load = {key: max(answer[key] for answer in answers) for key in answers[0]}
        return self.load

    # ------------------------------------------------------------ end

    def lose(self, why: str) -> None:
        """It is dead, or as good as dead: everybody who waits for it gets an EngineLostError now."""
        self.lost = why
        if self.nnsight is None:
            return
        from vllm.v1.engine.exceptions import EngineDeadError

        # What vLLM (0.32) does when it finds its engine dead, and what it leaves out: answers to calls that
        # never come.
        engine = self.nnsight.vllm_entrypoint
        engine.engine_core.resources.engine_dead = True
        for answer in engine.engine_core.utility_results.values():
            if not answer.done():
                answer.set_exception(EngineDeadError())
                answer.exception()  # not all are waited for, and asyncio is not to complain of those
        engine.output_processor.propagate_error(EngineDeadError())
        if engine.output_handler is not None:
            # Or it logs, with a traceback, that its engine is dead.
            engine.output_handler.cancel()

    async def end(self, *, kindly: bool) -> None:
        """End it and remove all that is left of it; again is harmless, and goes on where it was cancelled.

        Args:
            kindly: ask first. One that is lost is killed at once.
        """
        for task in (self._watcher, self._probe):
            if task is not None:
                task.cancel()
        if self.lost is None:
            self.lose("The engine has been ended.")
        if not self.starting:
            if not kindly:
                await in_daemon_thread(self._family.end)
            await self._shut_down()
            await in_daemon_thread(self._family.end)
            if self.nnsight is not None:
                # Collected now and not at interpreter exit, where AsyncLLM.__del__ (vLLM 0.32.0) finds its
                # own imports gone and prints a traceback.
                self.nnsight.vllm_entrypoint = None
                self.nnsight = None
                gc.unfreeze()
                gc.collect()
        self._reader.cancel()
        await asyncio.wait([self._reader])
        self._receiver.close()
        self._folder.cleanup()

    async def _shut_down(self) -> None:
        if self.nnsight is None:
            return
        shutdown = self.nnsight.vllm_entrypoint.shutdown
        try:
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await in_daemon_thread(shutdown)
        except Exception:
            logger.exception("The engine does not end as it should; its processes are killed")

    def kill(self) -> None:
        """Kill its processes and remove its files, without waiting for a thread that still starts it."""
        self._family.end()
        self._folder.cleanup()
