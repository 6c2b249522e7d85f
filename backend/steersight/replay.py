"""`steersight replay`: a recording with the page around it, on loopback or in one file. No engine: nothing of
vLLM or torch is imported, and it is up at once.

The file is checked as every recording is before anything is served of it. The page gets its bytes and checks
them again: it trusts nobody either.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from .files import why, write_whole
from .hosts import is_loopback
from .recordings import RecordingError, check_recording
from .recordings.meta import Meta
from .serving import PortError, configured, listen
from .standalone import PageError, page_of, page_with
from .ws.doors import Doors
from .ws.entrance import Entrance
from .ws.visits import Visitors

PAGE_BYTES = 512 << 20
"""What the page takes, unpacked."""
ADDRESS = "/index.html#recording=recording&only"
"""Where the page shows the recording, and asks for no server. A redirect from / to / would never end."""


def create_app(recording: Path, ui: Path, host: str) -> Starlette:
    """The application: the page, the recording and nothing else."""

    async def beginning(_: Request) -> Response:
        return RedirectResponse(ADDRESS)

    async def content(_: Request) -> Response:
        return FileResponse(recording, media_type="application/octet-stream", filename=recording.name)

    doors = Doors(host.lower(), names=False)
    return Starlette(
        routes=[
            Route("/", beginning),
            Route("/recording", content),
            Mount("/", StaticFiles(directory=ui)),
        ],
        middleware=[Middleware(Entrance, doors=doors, visitors=Visitors(doors, 1, 1))],
    )


def main(arguments: argparse.Namespace) -> int:
    """Serve it, or write one file; returns the exit status."""
    path: Path = arguments.file
    try:
        meta = check_recording(path, most_bytes=PAGE_BYTES)
        page_of(arguments.ui)
        if arguments.html is not None:
            return _write(path, meta, arguments)
    except RecordingError as error:
        return _refused(f"{path} cannot be shown. {error}")
    except PageError as error:
        return _refused(str(error))
    except OSError as error:
        return _refused(f"{path} cannot be read: {why(error)}.")
    if not (is_loopback(arguments.host) or arguments.open):
        where = arguments.host or "any address of this machine"
        return _refused(f"Whoever reaches {where} could read this recording. Say --open if that is meant.")
    return _serve(path, meta, arguments)


def _write(path: Path, meta: Meta, arguments: argparse.Namespace) -> int:
    page = page_with(path.read_bytes(), meta.title, arguments.ui)
    try:
        write_whole(arguments.html, page.encode())
    except OSError as error:
        return _refused(f"{arguments.html} cannot be written: {why(error)}.")
    print(f"{arguments.html} shows {_described(path, meta)}. Open it in a browser; it needs no server.")
    return 0


def _serve(path: Path, meta: Meta, arguments: argparse.Namespace) -> int:
    from .cli import PORT_TAKEN  # which imports this

    host: str = arguments.host
    try:
        sockets = listen(host, arguments.port)
    except PortError as error:
        print(error, file=sys.stderr)
        return PORT_TAKEN
    port = sockets[0].getsockname()[1]
    called = f"[{host}]" if ":" in host else host or "0.0.0.0"  # noqa: S104
    # The file may be named relative to a folder that is left.
    application = create_app(path.resolve(), arguments.ui.resolve(), host)
    server = uvicorn.Server(configured(application, host, port))

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)  # having done as it was told is no failure

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, end)
    print(f"http://{called}:{port} shows {_described(path, meta)}. Ctrl-C ends it.", flush=True)
    server.run(sockets)
    return 0


def _described(path: Path, meta: Meta) -> str:
    models = sorted({run.model.id for run in meta.runs if run.model is not None})
    replies = "1 reply" if len(meta.turns) == 1 else f"{len(meta.turns)} replies"
    return f"{path.name}, {replies}" + (f" of {', '.join(models)}" if models else "")


def _refused(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 2
