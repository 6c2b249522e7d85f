"""The application behind its doors, served without an engine: it says that it is loading, and goes on so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from steersight.app import create_app
from steersight.serving import configured

from .settings import settings


@asynccontextmanager
async def served(folder: Path, *words: str) -> AsyncIterator[tuple[str, Starlette]]:
    """Address and application of `steersight serve WORDS`; the listening socket is on loopback all the
    same."""
    (folder / "page").mkdir(parents=True)
    (folder / "page" / "index.html").write_text("<!doctype html><title>The page</title>")
    app = create_app(settings("--data-dir", str(folder), "--ui", str(folder / "page"), *words))
    config: Any = configured(app, "127.0.0.1", 0)
    config.lifespan = "off"
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn does not tell
        await asyncio.sleep(0.01)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}", app
    finally:
        server.should_exit = True
        await task
