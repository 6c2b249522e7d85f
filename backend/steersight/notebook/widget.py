"""The page's own map and sliders in a notebook: a widget for Jupyter and VS Code.

Its script is the front end's third build (`frontend/vite.config.ts`, mode `notebook`), found where the built
page is. Frames come to it through the kernel (`relay.py`). A run that has ended puts its recording into the
widget's state, so that it is shown again where the state was kept and no kernel is.

Importing this needs anywidget, and says so in a sentence where it is missing.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..client import SteersightError
from ..files import REPOSITORY
from ..recordings import Recording, recording_bytes
from . import cells
from .asynchronous import AsyncRun
from .missing import needed
from .relay import Relay
from .session import Run

needed("anywidget", "The map in a notebook")
import anywidget  # noqa: E402
import traitlets  # noqa: E402

SCRIPT = Path("notebook", "widget.js")
"""In the folder of the built page."""
MOST_KEPT = 1_500_000
"""Bytes of a recording that goes into the widget's state: Jupyter's server throws away what is much more."""


class Heatmap(anywidget.AnyWidget):
    """The live map of one run, its text and its sliders. `run.show()` makes one.

    Sliders that are moved there steer the run as `run.steer` does. Shown several times, all show the same.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    widget = traitlets.Unicode().tag(sync=True)
    """Another one for each."""
    run = traitlets.Unicode().tag(sync=True)
    """Name of the run."""
    recording = traitlets.Bytes().tag(sync=True)
    """Of the run, once it has ended; empty before, and where it is too large to be kept."""

    def __init__(self, run: Run | AsyncRun) -> None:
        """Raises SteersightError with a sentence where the front end has not been built."""
        there = run.there if isinstance(run, Run) else run
        super().__init__(_esm=_script(), widget=uuid.uuid4().hex, run=there.id)
        self._there = there
        self._relay = Relay(there.id, there.server.dial, self._say)
        self._loop = there.server.loop
        self.on_msg(self._hear)
        self._answered_anywhere()
        cells.at_the_end(self._keep_now)
        # In no context: what ipykernel finds there would make it an answer to the cell that shows this.
        self._loop.call_soon_threadsafe(self._begin_keeping, context=contextvars.Context())

    def close(self) -> None:
        """End the widget and its lines to the server; the run goes on."""
        if hasattr(self, "_relay") and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._relay.close)
        super().close()

    def __repr__(self) -> str:
        return f"<map of {self._there!r}>" if hasattr(self, "_there") else "<map>"

    def _say(self, said: Mapping[str, Any], buffers: Sequence[bytes]) -> None:
        self.send(dict(said), list(buffers))
        self._answered_anywhere()

    def _answered_anywhere(self) -> None:
        """Take what the browser says also while a cell is run.

        ipykernel 7.4 hands answers to the shell that a comm spoke from last, and that one runs the cell; the
        subshell that JupyterLab sends them by is free. In kernels without subshells there is no such
        attribute, and what is said waits for the cell.
        """
        comm: Any = self.comm
        getattr(comm, "__dict__", {}).pop("_reply_subshell_id", None)

    def _hear(self, _: object, said: Any, buffers: Sequence[Any]) -> None:
        # In the kernel's own thread.
        if isinstance(said, dict):
            self._loop.call_soon_threadsafe(self._relay.take, said, list(buffers))

    def _begin_keeping(self) -> None:
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        """Put the recording into the state when the run has ended; while a cell is run, when that has."""
        try:
            await self._there.wait()
        except SteersightError:
            return
        if not cells.running():
            self._kept(await asyncio.to_thread(recording_bytes, self._there.inner.recording()))

    def _keep_now(self) -> bool:
        """At the end of a cell, in the thread that runs them: what is sent now belongs to that cell, and
        nbclient takes nothing else. False while the run goes on."""
        if self._there.finished is None or self.recording:
            return self._there.finished is not None
        if cells.running_loop() is self._loop:
            recording = self._there.inner.recording()
        else:
            recording = asyncio.run_coroutine_threadsafe(self._recorded(), self._loop).result()
        self._kept(recording_bytes(recording))
        return True

    async def _recorded(self) -> Recording:
        return self._there.inner.recording()

    def _kept(self, recording: bytes) -> None:
        if len(recording) <= MOST_KEPT:
            self.recording = recording
            self._answered_anywhere()


def _script() -> str:
    ui = Path(os.environ.get("STEERSIGHT_UI") or REPOSITORY / "frontend" / "dist")
    try:
        return (ui / SCRIPT).read_text(encoding="utf-8")
    except OSError:
        raise SteersightError(
            "invalid",
            f"The widget has not been built: there is no {ui / SCRIPT}. Run `make build`, or name the folder "
            "of the built page in STEERSIGHT_UI.",
        ) from None
