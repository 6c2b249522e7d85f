"""Edits over HTTP: what is installed, and an end to it for whoever is let in. To install one is to bring
code, so that has the door of code (`/v1/nnsight/register`, NNsight's serve protocol 0.8.1) and its token.
"""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import logs
from ..engine.edits import MAX_EDIT_BYTES, EditError
from ..engine.service import EngineService
from ..ws.handshake import edit_infos
from ..ws.rates import address_of
from .answers import Refusal, body

logger = logging.getLogger(__name__)


class EditApi:
    """The handlers, around one engine."""

    def __init__(self, engine: EngineService) -> None:
        self._engine = engine

    async def everything(self, _: Request) -> Response:
        """All edits, in the order in which they act."""
        return JSONResponse([info.model_dump() for info in edit_infos(self._engine)])

    async def remove(self, request: Request) -> Response:
        """Let no more runs begin with an edit."""
        edit_id = request.path_params["id"]
        try:
            await self._engine.edits.remove(edit_id)
        except EditError as error:
            raise Refusal(404, str(error)) from None
        logs.event(
            logger, logging.INFO, "An edit was removed.", edit=edit_id, address=address_of(request.scope)
        )
        return Response(status_code=204)

    async def install(self, request: Request) -> Response:
        """NNsight's `register`: let runs have a block."""
        status = self._engine.status
        if not status.ready:
            raise Refusal(503, f"The engine is {status.state}: {status.stage}")
        payload = await body(request, MAX_EDIT_BYTES)
        edit_id, address = request.path_params["id"], address_of(request.scope)
        try:
            edit = await self._engine.edits.install(edit_id, request.query_params.get("name"), payload)
        except EditError as error:
            logs.event(logger, logging.INFO, "An edit was not taken.", edit=edit_id, address=address)
            raise Refusal(400, str(error)) from None
        logs.event(
            logger, logging.INFO, "An edit was installed.", edit=edit_id, address=address, bytes=len(payload)
        )
        return JSONResponse({"status": "ok", "id": edit.id, "name": edit.name})

    async def clear(self, request: Request) -> Response:
        """NNsight's `clear`, which is no error for an edit that is gone already."""
        edit_id = request.path_params["id"]
        if any(edit.id == edit_id for edit in self._engine.edits.listing()):
            await self.remove(request)
        return JSONResponse({"status": "ok", "id": edit_id})
