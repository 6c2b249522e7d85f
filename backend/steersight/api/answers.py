"""What all handlers share: refusals with a sentence, bodies with a limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..engine.service import EngineLostError, EngineNotReadyError
from ..patience import Patience

BODY_SECONDS = 120.0
"""For a file of 64 MiB that is half a megabyte a second."""

Handler = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):  # noqa: N818 - not an error of ours: an answer
    """Answered as `{"error": sentence}`."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def answered(handler: Handler, key: str = "error") -> Handler:
    """The handler with its refusals as answers, the sentence under `key`."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return JSONResponse({key: str(refusal)}, status_code=refusal.status)
        except (EngineLostError, EngineNotReadyError) as error:
            return JSONResponse({key: str(error)}, status_code=503)

    return answer


async def body(request: Request, limit: int) -> bytes:
    """The whole body; refused as soon as it is longer than `limit` bytes, or takes too long to come."""
    data = bytearray()
    try:
        async with Patience(BODY_SECONDS):
            async for piece in request.stream():
                data += piece
                if len(data) > limit:
                    raise Refusal(413, f"It is larger than {limit >> 20} MiB, which is too large here.")
    except TimeoutError:
        raise Refusal(408, f"It did not arrive within {BODY_SECONDS:g} seconds. Try again.") from None
    return bytes(data)
