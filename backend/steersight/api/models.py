"""The model over HTTP: which is served, which others are here, and, where that door is open, another.

A name from a client is only ever compared with those of the list: nothing is fetched, no path is taken from
it, and a checkpoint's own code is never run.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import logs
from ..engine.options import EngineOptions, for_another_model
from ..engine.service import ChangeError, EngineService
from ..models.fit import Fit, Room
from ..models.here import Here, look_at, models_here
from ..models.listing import described, here_with_fit, room_now
from ..runs.table import RunTable
from ..ws.handshake import model_info
from .answers import Refusal, body

logger = logging.getLogger(__name__)

MAX_BODY = 4096
CLOSED = (
    "The model of this server is chosen by whoever starts it. Started with --change-model, the server lets "
    "whoever may use it change the model."
)


class ModelApi:
    """The handlers, around one engine."""

    def __init__(self, engine: EngineService, table: RunTable, *, may_change: bool) -> None:
        """
        Args:
            engine: whose model it is.
            table: knows how many runs a change would end.
            may_change: whether the door is open.
        """
        self._engine = engine
        self._table = table
        self._may_change = may_change
        self._first = engine.options
        """How the server was started."""
        self._looking: asyncio.Task[tuple[list[Here], Room]] | None = None

    async def served(self, _: Request) -> Response:
        """The model that is served; null until its configuration has been read."""
        info = model_info(self._engine)
        return JSONResponse(None if info is None else info.model_dump())

    async def everything(self, _: Request) -> Response:
        """The models that are here, and which of them it is."""
        self._check_open()
        models, room = await self._look()
        now = self._served(models)
        return JSONResponse(
            {
                "models": [described(one, self._fit(one, room)) for one in models],
                "served": None if now is None else now.id,
                "live": len(self._table.live),
                "failed": self._engine.change_failed or None,
            }
        )  # fmt: skip

    async def change(self, request: Request) -> Response:
        """Begin to serve another of the models that are here; the rest is told over the sockets."""
        self._check_open()
        wanted = _wanted(await body(request, MAX_BODY))
        models, room = await self._look()
        one = next((one for one in models if one.id == wanted), None)
        if one is None:
            raise Refusal(404, "There is no such model here. GET /api/models lists those that there are.")
        if one == self._served(models) and self._engine.status.ready:
            raise Refusal(409, f"{one.id} is served already.")
        found = self._fit(one, room)
        if not found.fits:
            raise Refusal(409, f"{one.id} cannot be served here. {found.why}")
        live = len(self._table.live)
        try:
            await self._engine.change(self._options(one))
        except ChangeError as error:
            raise Refusal(409, str(error)) from None
        logs.event(logger, logging.INFO, "The model is being changed.", model=one.id, runs_ended=live)
        return JSONResponse({"model": one.id, "ended": live}, status_code=202)

    def _check_open(self) -> None:
        if not self._may_change:
            raise Refusal(403, CLOSED)

    async def _look(self) -> tuple[list[Here], Room]:
        """Look through the disk and the machine, once for all who ask meanwhile."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(asyncio.to_thread(self._look_now), name="look-for-models")
        return await asyncio.shield(self._looking)

    def _look_now(self) -> tuple[list[Here], Room]:
        engine = self._engine
        share = engine.options.gpu_memory if engine.status.ready else 0.0
        return self._models(), room_now(engine.memory(), share)

    def _models(self) -> list[Here]:
        found = models_here(self._first.data_dir)
        first = Path(self._first.model)
        if first.is_dir() and not any(_same(one, self._first) for one in found):
            # Of two with one name it is the one that the server was started with.
            one = look_at(first, "folder that the server was started with")
            if one is not None:
                found = [one, *(other for other in found if other.id != one.id)]
        return found

    def _served(self, models: list[Here]) -> Here | None:
        return next((one for one in models if _same(one, self._engine.options)), None)

    def _options(self, one: Here) -> EngineOptions:
        return self._first if _same(one, self._first) else for_another_model(self._first, str(one.folder))

    def _fit(self, one: Here, room: Room) -> Fit:
        return here_with_fit(one, room, self._options(one))


def _same(one: Here, options: EngineOptions) -> bool:
    """Whether options name this checkpoint: by its folder, or as the hub does."""
    path = Path(options.model)
    return one.folder.resolve() == path.resolve() if path.is_dir() else one.id == options.model


def _wanted(data: bytes) -> str:
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(422, "The request is not JSON.") from None
    if not isinstance(asked, dict) or asked.keys() != {"id"} or not isinstance(asked["id"], str):
        raise Refusal(
            422, "A change of the model is asked for with `id`, the name of one of GET /api/models."
        )
    return asked["id"]
