"""What a request's code has saved, fetched from the workers when the request is over.

NNsight keeps it there until somebody asks, for ever if nobody does; so it is asked for whatever has become of
the request. What was saved is of any type, and is handed on as it comes: unpickling it would run code.
"""

from __future__ import annotations

import contextlib
import pickle
from typing import TYPE_CHECKING, Any

from .errors import EngineLostError, EngineNotReadyError
from .life import CallError, Life
from .tracing.asked import Saved, told

if TYPE_CHECKING:
    from collections.abc import Mapping


async def saved(life: Life, request_id: str, output: Any) -> Saved:
    """What a request's code has saved.

    Args:
        life: of the engine that has computed it.
        request_id: as it was handed in.
        output: vLLM's last `RequestOutput`, which blocks may read; None where it was aborted.

    Raises:
        EngineLostError, CallError: it could not be fetched.
    """
    answers = await life.call(
        "steersight_saves", request_id, None if output is None else pickle.dumps(output)
    )
    payload, _ = answers[0]
    error: Mapping[str, Any] | None = next((error for _, error in answers if error is not None), None)
    return Saved(bytes(payload), None if error is None else told(error))


async def forget(life: Life, request_id: str) -> None:
    """Let the workers forget an aborted request's code."""
    with contextlib.suppress(EngineLostError, EngineNotReadyError, CallError):
        await saved(life, request_id, None)
