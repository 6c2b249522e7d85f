"""The Starlette application: routes and lifespan, nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator

# nnsight 0.8.1 mounts `.save` on every object of the process once it is imported (PYMOUNT), and anyio 4.16
# cannot define its typed attributes any more after that. anyio loads them at the first file it serves: a page
# first opened after the engine had come up was answered with 500. So they are loaded here, before the engine.
import anyio._backends._asyncio  # noqa: F401
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

from . import logs
from .api import routes
from .api.building import BuildApi
from .api.edits import EditApi
from .api.models import ModelApi
from .api.nnsight import NnsightApi
from .api.recordings import RecordingApi
from .api.vectors import VectorApi
from .config import Settings
from .engine.service import EngineService
from .flags import part_of
from .garbage import Sweeper
from .runs.table import RunLimits, RunTable
from .telemetry import Telemetry
from .ws import handshake
from .ws.connection import Connection
from .ws.doors import Doors
from .ws.entrance import SOCKET, Entrance, failed
from .ws.pace import Pace
from .ws.visits import Visitors

TELL_SECONDS = 2.0
"""How long the end of the server waits for clients to take their last frames."""


def create_app(settings: Settings) -> Starlette:
    """The application; its engine starts loading in the background when the server starts."""
    engine = EngineService(settings.engine)
    telemetry = Telemetry()
    engine.on_step = telemetry.step_arrived
    doors = Doors.of(settings)
    visitors = Visitors(doors, settings.max_connections, settings.starts_per_minute)
    table = RunTable(engine, part_of(RunLimits, settings), telemetry)
    vector_api = VectorApi(engine, settings.data_dir / "vectors", settings.vector_quota_mib << 20)
    building = BuildApi(vector_api, table.places)
    epoch = secrets.token_hex(8)
    offering = handshake.Offering(
        engine, table.limits, settings.name, epoch, change_model=settings.change_model
    )
    model_api = ModelApi(engine, table, may_change=settings.change_model)
    recording_api = RecordingApi(engine, table, settings.name, epoch)
    edit_api = EditApi(engine)
    nnsight = NnsightApi(engine, table, visitors) if settings.nnsight else None
    pace = Pace()

    async def leave(why: str) -> None:
        await building.close()
        await table.leave_model(why)

    engine.on_leaving = leave
    connections: set[Connection] = set()

    async def socket(websocket: WebSocket) -> None:
        visit = websocket.scope["visit"]
        connection = Connection(websocket, engine, table, offering, visit, telemetry, pace)
        connections.add(connection)
        try:
            await connection.serve()
        finally:
            connections.discard(connection)

    async def drain() -> None:
        engine.drain()
        await building.close()
        await table.drain(settings.drain_seconds)
        told = [asyncio.ensure_future(connection.told()) for connection in connections]
        if told:
            _, late = await asyncio.wait(told, timeout=TELL_SECONDS)
            for task in late:
                task.cancel()

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok", "name": settings.name, "epoch": epoch})

    async def readyz(request: Request) -> Response:
        status = engine.status
        told = {**vars(status), "max_runs": engine.max_runs}
        # A stage may say what an exception said: paths, names. Whoever has shown a token here has shown the
        # right one, or the entrance would have refused.
        if doors.token and "authorization" not in request.headers:
            del told["stage"]
        return JSONResponse(told, status_code=200 if status.ready else 503)

    asked: asyncio.Task[dict[str, int]] | None = None

    async def metrics(_: Request) -> Response:
        nonlocal asked
        # However many ask at once, the engine is asked once.
        if asked is None or asked.done():
            asked = asyncio.create_task(engine.held(), name="held")
        held = await asyncio.shield(asked)
        telemetry.state(
            runs_live=len(table.live),
            runs_queued=table.queued,
            engine_requests=max(held["vllm"], held["nnsight"], held["observer"]),
            engine_ready=engine.status.ready,
            engine_restarts=engine.restarts,
            steps_dropped=held["dropped"],
            kept_rows_bytes=table.kept.size,
        )
        return Response(telemetry.render(), media_type="text/plain; version=0.0.4")

    async def no_page(_: Request) -> Response:
        return PlainTextResponse(
            "The page has not been built. Run `make build`, or give its folder with --ui.\n", status_code=503
        )

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        logs.follow(engine)
        loading = asyncio.create_task(engine.load(), name="load-engine")
        sweeping = asyncio.create_task(Sweeper(lambda: not table.live).run(), name="sweep-garbage")
        try:
            yield
        finally:
            sweeping.cancel()
            await building.close()
            await table.end_all()
            if nnsight is not None:
                await nnsight.close()
            loading.cancel()
            await asyncio.wait([loading])
            await engine.shutdown()

    page: BaseRoute = Route("/", no_page)
    if (settings.ui / "index.html").is_file():
        page = Mount("/", StaticFiles(directory=settings.ui, html=True))
    application = Starlette(
        routes=[
            WebSocketRoute(SOCKET, socket),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            *(routes.code_routes(nnsight, edit_api) if nnsight is not None else ()),
            *routes.routes(vector_api, building, model_api, recording_api, edit_api),
            page,
        ],
        middleware=[Middleware(Entrance, doors=doors, visitors=visitors)],
        exception_handlers={Exception: failed},
        lifespan=lifespan,
    )
    application.state.engine = engine
    application.state.table = table
    application.state.drain = drain
    return application
