"""A vector's way to the workers: all ranks steer with it from the same step on, or none does.

A vector may have hundreds of megabytes, so it goes in pieces, and no step waits for more than one of them.
First every rank makes the vector of its pieces, which may fail; only then do all of them take it up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from ..vectors.store import VectorError
from .arrivals import described, pieces
from .errors import EngineLostError, EngineNotReadyError
from .life import CallError

if TYPE_CHECKING:
    from ..vectors.store import SteeringVector

_T = TypeVar("_T")
Call = Callable[..., Coroutine[Any, Any, list[Any]]]
"""Calls a method of every worker, by its name and arguments; the answers are in order of rank."""


async def send(call: Call, name: str, vector: SteeringVector) -> None:
    """Let all ranks steer with one vector more, under a name that is free.

    Its pieces are made in threads, so the event loop serves meanwhile.

    Raises: VectorError where this engine cannot use it, or a rank could not take it. Then, and where it
        is cancelled, no rank has it.
    """
    try:
        made = pieces(vector)
        while (piece := await asyncio.to_thread(next, made, None)) is not None:
            await call("steersight_vector_piece", name, piece)
        refusals = await call("steersight_prepare_vector", name, described(vector))
        if any(refusals):
            raise VectorError(next(filter(None, refusals)))
        await uninterrupted(call("steersight_add_vector", name))
    except BaseException as error:
        await take_back(call, name)
        if isinstance(error, CallError):
            raise VectorError(f"The engine could not take it. {error}") from error
        raise


async def take_back(call: Call, name: str) -> None:
    """Let no rank steer with a vector that nobody is offered. A lost engine has taken it along."""
    with contextlib.suppress(EngineLostError, EngineNotReadyError, CallError):
        await withdraw(call, name)


async def withdraw(call: Call, name: str) -> None:
    """Let no rank steer with a vector any more. Raises what the call raises."""
    await uninterrupted(call("steersight_remove_vector", name))


async def uninterrupted(work: Awaitable[_T]) -> _T:
    """The result of what must not stop half done; where the caller is cancelled, that is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # nobody asks for it any more
        raise cancelled
    return task.result()
