"""Steersight in a notebook, or in any Python program, in a few lines.

    from steersight import notebook

    server = notebook.open("127.0.0.1:8000")
    run = server.ask("Tell me about Paris.", strengths={"joy": 0.1}, max_tokens=80)
    run.show()                       # the page's own map and sliders, live
    run.steer({"joy": 0.2})          # while it is written
    run.wait()
    run.rows("residual_norm")        # numpy, with named axes
    run.frame()                      # pandas, tidy

`await aopen(...)` is the same for programs that have an event loop. Both stand on `steersight.client`, which
has everything besides. Nothing here needs torch, vLLM or NNsight; pandas is imported by `frame`, anywidget by
`show`, and vLLM and NNsight by `meta_model`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..client import SteersightError
from .arrays import Rows
from .asynchronous import AsyncRun, AsyncServer, aopen
from .meta import meta_model
from .session import Run, Server, open  # noqa: A004 - read as notebook.open

if TYPE_CHECKING:
    from .widget import Heatmap

__all__ = [
    "AsyncRun", "AsyncServer", "Heatmap", "Rows", "Run", "Server", "SteersightError", "aopen", "meta_model",
    "open",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Only who shows something needs anywidget.
    if name == "Heatmap":
        from .widget import Heatmap

        return Heatmap
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
