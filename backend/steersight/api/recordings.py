"""Recordings over HTTP: one run of the server in one file, while it is written and as long as it is kept.

Its numbers are copied once and packed in a thread. So only a few are made and sent at once, and whoever takes
nothing of his is not waited for: a recording that nobody fetches must not hold its memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .. import __version__
from ..engine.service import EngineService
from ..patience import Patience
from ..recordings import SUFFIX, recording_bytes
from ..recordings.recording import now, one_run
from ..runs.recording import About, frames_of, question, recorded
from ..runs.run import Run
from ..runs.table import RunTable
from ..ws.handshake import metric_infos, model_info_of, vector_infos
from .answers import Refusal

MAX_AT_ONCE = 2
"""Recordings that are being made or sent."""
PIECE = 256 << 10
PIECE_SECONDS = 30.0
"""How long a client may take for one piece."""


class RecordingApi:
    """The handler, around one table of runs."""

    def __init__(self, engine: EngineService, table: RunTable, name: str, epoch: str) -> None:
        """
        Args:
            engine: says what metrics and vectors are.
            table: of the runs.
            name: of this server.
            epoch: of this life of it.
        """
        self._engine = engine
        self._table = table
        self._name = name
        self._epoch = epoch
        self._busy = 0

    async def recording(self, request: Request) -> Response:
        """A run as it is now."""
        run = self._table.find(request.path_params["run"])
        if run is None:
            name, kept = request.path_params["run"][:64], self._table.limits.grace_seconds
            raise Refusal(
                404,
                f"There is no run {name!r} here. One that has finished is kept for {kept:g} seconds after "
                "somebody has last watched it.",
            )
        if self._busy >= MAX_AT_ONCE:
            raise Refusal(503, f"{MAX_AT_ONCE} recordings are being made already. Try again in a moment.")
        self._busy += 1
        try:
            frames = await frames_of(run)
            about = self._about(run)
            content = await asyncio.to_thread(
                lambda: recording_bytes(
                    one_run(
                        recorded(run, frames, about), question(run), made_by=f"steersight {__version__}",
                        made_at=now(),
                    )
                )
            )  # fmt: skip
        except BaseException:
            self._sent()
            raise
        return Unhurried(content, f"{run.id}{SUFFIX}", self._sent)

    def _sent(self) -> None:
        self._busy -= 1

    def _about(self, run: Run) -> About:
        return About(
            server=self._name,
            epoch=self._epoch,
            model=None if run.facts is None else model_info_of(run.facts),
            metrics={info.id: info for info in metric_infos(self._engine)},
            vectors={info.id: info for info in vector_infos(self._engine)},
        )


class Unhurried(Response):
    """A file in pieces, for a client that takes one after the other."""

    media_type = "application/octet-stream"

    def __init__(self, content: bytes, name: str, over: Callable[[], None]) -> None:
        """`over` is called once it is sent or given up."""
        super().__init__(content, headers={"content-disposition": f'attachment; filename="{name}"'})
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and let go of it however that ends."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            content = memoryview(self.body)
            for at in range(0, len(content), PIECE):
                piece = bytes(content[at : at + PIECE])
                async with Patience(PIECE_SECONDS):
                    await send(
                        {"type": "http.response.body", "body": piece, "more_body": at + PIECE < len(content)}
                    )
        except TimeoutError:
            return  # what is left is not sent, and the connection closed
        finally:
            self._over()
