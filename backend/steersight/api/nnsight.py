"""The door for code: NNsight's serve protocol (0.8.1), on the engine that everybody shares.

`POST /v1/nnsight/generate` takes a trace that a client has packed, runs its requests as runs of the table,
and answers with what their code has saved, once all of them are over. The answer's head goes out before that
and names the runs (`X-Steersight-Run`), so that they can be watched while they are written. What the entrance
has asked for (a token of its own, no browser) is in `ws/entrance.py`; what bounds the code in
`engine/tracing`.

Nothing in here unpickles: traces are read in a process of their own, and what they save passes through.
"""

from __future__ import annotations

import asyncio
import io
import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .. import logs
from ..engine.service import EngineService
from ..engine.tracing.asked import BlockError, Deferred, Saved, TracedRequest, deferred
from ..engine.tracing.reading import TraceReader
from ..runs.run import Run
from ..runs.table import RunTable
from ..runs.traced import TraceRefusedError, refusals
from ..ws.rates import address_of
from ..ws.visits import Visitors
from .answers import Refusal, body

logger = logging.getLogger(__name__)

MAX_TRACE_BYTES = 256 << 20
QUIET_SECONDS = 20.0
"""After the engine is ready, before the process that reads traces is brought up: that takes as much work as
loading a small model, and whoever has waited for the engine asks now. A trace that comes earlier brings it up
at once."""
MAX_REQUESTS = 64
"""Of one trace."""
RUN_HEADER = "x-steersight-run"


class NnsightApi:
    """The handlers, around one engine and its table of runs."""

    def __init__(self, engine: EngineService, table: RunTable, visitors: Visitors) -> None:
        """
        Args:
            engine: runs the code.
            table: of the runs.
            visitors: who may start how many of them.
        """
        self._engine = engine
        self._table = table
        self._visitors = visitors
        self._reader: tuple[object, TraceReader] | None = None
        self._warming: asyncio.Task[None] | None = None
        engine.listen(self._engine_changed)

    def _engine_changed(self) -> None:
        """The process that reads traces takes a while to come up, so it is there before the first of them."""
        if self._reader is not None and self._reader[0] is self._engine.options:
            return
        if self._engine.status.ready and (self._warming is None or self._warming.done()):
            self._warming = asyncio.create_task(self._warm(), name="warm-trace-reader")

    async def _warm(self) -> None:
        await asyncio.sleep(QUIET_SECONDS)
        try:
            await (await self._reading()).start()
        except RuntimeError:
            logger.exception("The process that reads traces did not come up; the next trace tries again")

    async def _reading(self) -> TraceReader:
        """That of the model that is served."""
        options, model = self._engine.options, self._engine.model
        if model is None:
            raise Refusal(503, "The engine is not up yet. Try again in a moment.")
        if self._reader is None or self._reader[0] is not options:
            if self._reader is not None:
                await self._reader[1].close()
            self._reader = options, TraceReader(options, model.dtype)
        return self._reader[1]

    async def close(self) -> None:
        """End what was started."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait([self._warming])
        if self._reader is not None:
            await self._reader[1].close()

    # ------------------------------------------------------------ what is asked

    async def health(self, _: Request) -> Response:
        """Whether traces can be run now."""
        status = self._engine.status
        if not status.ready:
            raise Refusal(503, f"The engine is {status.state}.")
        return JSONResponse({"status": "ok"})

    async def generate(self, request: Request) -> Response:
        """Run a trace."""
        packed = await body(request, MAX_TRACE_BYTES)
        compressed = request.headers.get("nnsight-compress", "").lower() == "true"
        address = address_of(request.scope)
        logs.event(logger, logging.INFO, "A trace has come.", address=address, bytes=len(packed))
        if not self._engine.status.ready:
            raise Refusal(503, f"The engine is {self._engine.status.state}: {self._engine.status.stage}")
        try:
            reader = await self._reading()
            asked = await reader.read(packed, compressed=compressed)
            self._check(asked)
        except BlockError as error:
            logs.event(logger, logging.INFO, "A trace could not be read.", error=error.error["type_name"])
            return _payload(error.error)
        except RuntimeError as error:
            raise Refusal(503, str(error)) from error
        wake = asyncio.Event()
        try:
            with refusals():
                self._visitors.may_start(address, "trace", len(asked))
                runs = await self._table.admit_traced(asked, wake.set)
        except TraceRefusedError as error:
            if error.later:
                raise Refusal(503, str(error)) from None
            return _payload(deferred("ValueError", str(error)))
        return Answer(runs, self._table, wake, reader)

    def _check(self, asked: list[TracedRequest]) -> None:
        if not asked or len(asked) > MAX_REQUESTS:
            raise BlockError(
                deferred(
                    "ValueError",
                    f"A trace has 1 to {MAX_REQUESTS} requests, and this one has {len(asked)}. Send the "
                    "others in another.",
                )
            )


class Answer(Response):
    """What a trace's runs have saved, sent when they are over. Whoever goes away meanwhile ends them."""

    media_type = "application/octet-stream"

    def __init__(self, runs: list[Run], table: RunTable, wake: asyncio.Event, reader: TraceReader) -> None:
        """`wake` is set when anything has come of one of the runs, which watch it already."""
        super().__init__(headers={RUN_HEADER: ", ".join(run.id for run in runs)})
        del self.headers["content-length"]
        self._runs = runs
        self._table = table
        self._wake = wake
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, wait, and send the rest."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if await self._over(receive):
                await send({"type": "http.response.body", "body": await self._content()})
        finally:
            for run in self._runs:
                self._table.unwatch(run, self._wake.set)

    async def _over(self, receive: Receive) -> bool:
        """Wait for the runs; whether the client is still there then."""
        gone = asyncio.create_task(_gone(receive))
        over = asyncio.create_task(self._finished())
        try:
            await asyncio.wait([gone, over], return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                return True
            for run in self._runs:
                if len(run.watchers) <= 1:  # else somebody else looks on
                    run.cancel()
            return False
        finally:
            for task in (gone, over):
                task.cancel()

    async def _finished(self) -> None:
        while not all(run.done for run in self._runs):
            await self._wake.wait()
            self._wake.clear()

    async def _content(self) -> bytes:
        payloads = [_outcome(run) for run in self._runs]
        try:
            return await self._reader.merge(payloads)
        except (BlockError, RuntimeError) as error:
            found = error.error if isinstance(error, BlockError) else deferred("RuntimeError", str(error))
            return _torch_saved(found)


def _outcome(run: Run) -> bytes:
    """What one run has come to, as NNsight's client reads it."""
    saved: Saved | None = run.saved
    if saved is not None:
        return saved.payload
    error = run.ending.error if run.ending is not None else None
    why = "The run was stopped before its end." if error is None else error.message
    return _torch_saved(deferred("RuntimeError", why))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _payload(error: Deferred) -> Response:
    return Response(_torch_saved(error), media_type="application/octet-stream")


def _torch_saved(error: Deferred) -> bytes:
    """An answer that has nothing but an error."""
    import torch

    buffer = io.BytesIO()
    torch.save({"saves": {}, "error": dict(error)}, buffer)
    return buffer.getvalue()
