"""Vectors over HTTP: list, look at, bring, fetch, delete; the running engine follows at once.

Errors are `{"error": sentence}`. Requests that change something are refused from pages of other sites. A name
from a client is never used as a path.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ..engine.service import EngineService
from ..files import removed, why, write_whole
from ..vectors.store import (
    MAX_FILE_BYTES,
    SUFFIX,
    SteeringVector,
    VectorError,
    check_adapter,
    vector_bytes,
)
from ..ws.handshake import vector_info, vector_infos
from .answers import Refusal, body

if TYPE_CHECKING:
    from ..vectors.importers import Choice

MAX_OWN_VECTORS = 256
MAX_UPLOADS = 4
"""Files that may be on their way at once: each is held in memory, several times over while it is read."""


WHO_MENDS = "Whoever runs it has to make room in its data folder, or let it write there."


class NoRoomError(VectorError):
    """The vector is right, but this server cannot keep it."""


class VectorApi:
    """The handlers, around one engine; `folder` is where vectors that people bring or make are kept,
    in `quota` bytes."""

    def __init__(self, engine: EngineService, folder: Path, quota: int) -> None:
        self.engine = engine
        self._folder = folder
        self._quota = quota
        self._uploads = 0
        # One at a time: two that are kept at once must not choose the same name, or share the last of the
        # room.
        self._keeping = asyncio.Lock()

    @property
    def adapters(self) -> list[str]:
        """Names of the LoRA adapters that are served."""
        model = self.engine.model
        return [] if model is None else [adapter.id for adapter in model.adapters]

    async def everything(self, _: Request) -> Response:
        """All vectors of the served model."""
        return JSONResponse([info.model_dump() for info in vector_infos(self.engine)])

    async def card(self, request: Request) -> Response:
        """One vector with where it comes from."""
        vector = self._vector(request)
        info = vector_info(vector, own=vector.id in self.engine.offer.own)
        size = self._there(vector).stat().st_size
        return JSONResponse({"info": info.model_dump(), "provenance": vector.provenance, "file_bytes": size})

    async def file(self, request: Request) -> Response:
        """The vector as one file, to keep or to share."""
        vector = self._vector(request)
        return FileResponse(
            self._there(vector), media_type="application/octet-stream",
            filename=f"{vector.id}{SUFFIX}",
        )  # fmt: skip

    async def bring(self, request: Request) -> Response:
        """Read a file of any known format; unless it is only tried, keep what fits and offer it at once."""
        if self._uploads >= MAX_UPLOADS:
            raise Refusal(503, f"{MAX_UPLOADS} files are on their way already. Try again in a moment.")
        self._uploads += 1
        try:
            return await self._bring(request)
        finally:
            self._uploads -= 1

    async def _bring(self, request: Request) -> Response:
        from ..vectors.importers import read_import

        model = self.engine.model
        if not self.engine.status.ready or model is None:
            raise Refusal(
                503, "The engine is not ready yet, so it is not known what would fit. Try again then."
            )
        name = request.query_params.get("name", "")[:200] or "vector"
        data = await body(request, MAX_FILE_BYTES)
        try:
            report = await asyncio.to_thread(
                read_import, name, data, model=model.id, hidden_size=model.hidden_size, layers=model.layers,
                label=request.query_params.get("label", "")[:200], choose=_choice(request),
            )  # fmt: skip
        except VectorError as error:
            raise Refusal(422, str(error)) from None
        now = self.engine.model
        if now is None or now.id != model.id:
            raise Refusal(409, "The server's model was changed meanwhile. Try again when it is ready.")
        vectors, problems, status = report.vectors, list(report.problems), 422
        if not request.query_params.get("try"):
            vectors = []
            for vector in report.vectors:
                try:
                    vectors.append(await self.keep(vector))
                except VectorError as error:
                    problems.append(f"{vector.label} is not used. {error}")
                    if isinstance(error, NoRoomError):
                        status = 507
        if not vectors:
            raise Refusal(status, " ".join(problems) or "There is no vector in it.")
        return JSONResponse(
            {
                "format": report.format, "found": report.found, "problems": problems,
                "vectors": [vector_info(vector, own=True).model_dump() for vector in vectors],
            }
        )  # fmt: skip

    async def keep(self, vector: SteeringVector) -> SteeringVector:
        """Under a free id: one that is taken may be at work in somebody's run.

        Raises: NoRoomError when there is no room for it; VectorError when the engine cannot use it. Nothing
        has changed then, on disk or in the engine.
        """
        async with self._keeping:
            if len(self.engine.offer.own) >= MAX_OWN_VECTORS:
                raise NoRoomError(f"This server already keeps {MAX_OWN_VECTORS} vectors. Delete some first.")
            check_adapter(vector, self.adapters)
            vector = vector.renamed(self._free(vector.id))
            path = self._folder / f"{vector.id}{SUFFIX}"
            try:
                await asyncio.to_thread(self._save, vector, path)
            except OSError as error:
                raise NoRoomError(
                    f"The server could not write it to its disk: {why(error)}. {WHO_MENDS}"
                ) from error
            try:
                await self.engine.offer.add(vector, path)
            except BaseException:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    path.unlink(missing_ok=True)
                raise
            return vector

    def _save(self, vector: SteeringVector, path: Path) -> None:
        content = vector_bytes(vector)
        kept = sum(file.stat().st_size for file in self._folder.glob(f"*{SUFFIX}"))
        if kept + len(content) > self._quota:
            raise NoRoomError(
                f"This server keeps {self._quota >> 20} MiB of vectors, and this would be more. "
                "Delete some first."
            )
        write_whole(path, content)

    def _free(self, wanted: str) -> str:
        names, number = self.engine.offer.sliders, 2
        # A leading dot would make a hidden file, which nobody reads.
        wanted = base = wanted.lstrip(".") or "vector"
        while wanted in names or (self._folder / f"{wanted}{SUFFIX}").exists():
            wanted = f"{base[:58]}-{number}"
            number += 1
        return wanted

    async def delete(self, request: Request) -> Response:
        """Forget an own vector that no unfinished run is steered by or watches."""
        vector = self._vector(request)
        if vector.id not in self.engine.offer.own:
            raise Refusal(409, f"{vector.label} came with Steersight and cannot be deleted.")
        try:
            with removed(self.engine.offer.files[vector.id]):
                await self.engine.offer.remove(vector.id)
        except VectorError as error:
            raise Refusal(409, str(error)) from None
        except OSError as error:
            raise Refusal(
                507, f"The server could not delete the file of {vector.label}: {why(error)}. {WHO_MENDS}"
            ) from error
        return Response(status_code=204)

    def _there(self, vector: SteeringVector) -> Path:
        """The vector's file. The engine has the vector in memory, also when somebody took the file away."""
        path = self.engine.offer.files[vector.id]
        if not path.is_file():
            raise Refusal(410, f"The file of {vector.label} is gone from the server's disk: {path.name}.")
        return path

    def _vector(self, request: Request) -> SteeringVector:
        name, offer = request.path_params["id"], self.engine.offer
        vector = offer.vectors.get(name)
        if (function := offer.functions.get(name)) is not None:
            raise Refusal(
                409,
                f"{function.label} is a function in {function.file.name}, with which this server was "
                "started, and no vector: there is no file to take away, and nobody can delete it here.",
            )
        if vector is None:
            raise Refusal(404, f"There is no vector {request.path_params['id']!r}.")
        return vector


def _choice(request: Request) -> Choice:
    """What a file may leave open: the layer of a lone direction."""
    from ..vectors.importers import Choice

    layer = request.query_params.get("layer", "")
    if layer and not (layer.isascii() and layer.isdigit() and len(layer) < 6):
        raise Refusal(422, f"{layer[:20]!r} is not the number of a layer.")
    return Choice(layer=int(layer) if layer else None)
