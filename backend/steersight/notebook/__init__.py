"""Steersight in a notebook, or in any Python program, in a few lines.

    from steersight import notebook

    server = notebook.open("127.0.0.1:8000")
    run = server.ask("Tell me about Paris.", strengths={"joy": 0.1}, max_tokens=80)
    run.steer({"joy": 0.2})          # while it is written
    run.wait()
    run.rows("residual_norm")        # numpy, with named axes
    run.frame()                      # pandas, tidy

`await aopen(...)` is the same for programs that have an event loop. Both stand on `steersight.client`, which
has everything besides. Nothing here needs torch, vLLM or NNsight; pandas is imported by `frame`, and vLLM and
NNsight by `meta_model`.
"""

from ..client import SteersightError
from .arrays import Rows
from .asynchronous import AsyncRun, AsyncServer, aopen
from .meta import meta_model
from .session import Run, Server, open  # noqa: A004 - read as notebook.open

__all__ = [
    "AsyncRun", "AsyncServer", "Rows", "Run", "Server", "SteersightError", "aopen", "meta_model",
    "open",
]  # fmt: skip
