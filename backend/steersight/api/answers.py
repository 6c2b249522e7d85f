"""What all handlers share: refusals with a sentence, the guard against other sites, bodies with a limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..ws.handshake import is_foreign

Handler = Callable[[Request], Awaitable[Response]]


class Refusal(Exception):  # noqa: N818 - not an error of ours: an answer
    """Answered as `{"error": sentence}`."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def answered(handler: Handler, *, changes: bool = False) -> Handler:
    """The handler with its refusals as answers; what changes something is not for other sites' pages."""

    async def answer(request: Request) -> Response:
        try:
            if changes and is_foreign(request):
                raise Refusal(403, "A page of another site may not change this server's vectors.")
            return await handler(request)
        except Refusal as refusal:
            return JSONResponse({"error": str(refusal)}, status_code=refusal.status)

    return answer


async def body(request: Request, limit: int) -> bytes:
    """The whole body; refused as soon as it is longer than `limit` bytes."""
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > limit:
            raise Refusal(413, f"It is larger than {limit >> 20} MiB, which is too large here.")
    return bytes(data)
