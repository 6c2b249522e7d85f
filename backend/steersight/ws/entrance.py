"""The way in: every request and every socket comes through here, before anything else has looked at it.

Asked of all: the Host. Of sockets and of requests that change something: the Origin. Of `/api` and
`/metrics`, where the server has a token: the token (a socket shows it in `hello`; `/readyz` says less without
one). Of `/v1/nnsight`, where code comes in: a token of its own, and that no browser sends it. Of sockets:
whether there is room. What is refused gets a status and a sentence; a socket gets them in place of its
handshake. Every answer, refusals too, goes out with the security headers.

A socket's scope carries its `Visit` under the key `visit`.
"""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import logs
from ..protocol.close import REASONS, CloseCode
from .doors import Doors
from .rates import Bucket, address_of
from .visits import TOO_MANY_GUESSES, Visitors

logger = logging.getLogger(__name__)

HEADERS = {
    # The page is made of its own files and its own socket, and 'self' means the socket too. React sets styles
    # through the object model, which no policy forbids.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LOGGED_PER_SECOND, LOGGED_AT_ONCE = 1, 20
"""Refusals that are logged: a flood of them must not become a flood of lines."""

SOCKET = "/ws"
CODE = "/v1/nnsight/"
"""Where code of clients comes in."""
CODE_TOKEN = "ndif-api-key"  # noqa: S105 - the name of a header
"""The header in which NNsight (0.8.1) sends `api_key`."""
CODE_TYPE = "application/octet-stream"

Refusal = tuple[int, str]


class Entrance:
    """The application behind its doors. Plain ASGI, because sockets must be refused before they are
    accepted."""

    def __init__(self, app: ASGIApp, doors: Doors, visitors: Visitors) -> None:
        self.app = app
        self._doors = doors
        self._visitors = visitors
        self._logged = Bucket(LOGGED_PER_SECOND, LOGGED_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        send = _with_headers(scope["path"], send)
        address = address_of(scope)
        if scope["path"].startswith(CODE):
            logs.door.set(logs.CODE_DOOR)
        refused = self._refusal(scope, address)
        if refused is not None:
            if self._logged.take():
                logs.event(
                    logger, logging.WARNING, "Refused at the door.", status=refused[0], why=refused[1],
                    address=address, path=scope["path"][:80],
                )  # fmt: skip
            await _answer(scope["path"], *refused)(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._visit(address, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, scope: Scope, address: str) -> Refusal | None:
        headers = Headers(scope=scope)
        # A header that comes twice is none of those that are allowed, whichever of the two would count.
        host = ",".join(headers.getlist("host")) or None
        origin = ",".join(headers.getlist("origin")) or None
        if (why := self._doors.host_refusal(host)) is not None:
            return 421, why
        is_socket = scope["type"] == "websocket"
        changes = is_socket or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and (why := self._doors.origin_refusal(origin, host)) is not None:
            return 403, why
        if is_socket:
            if scope["path"] != SOCKET:
                return 404, f"There is no socket here; there is one at {SOCKET}."
            return self._visitors.full_for(address)
        if scope["path"].startswith(CODE):
            return self._code_refusal(headers, scope["method"], address)
        shown = headers.get("authorization")
        # Who shows a token where none is asked for wants to read more, and has to show the right one.
        more = scope["path"] == "/readyz" and shown is not None
        if more or scope["path"].startswith(("/api/", "/metrics")):
            return self._unknown(shown, address)
        return None

    def _code_refusal(self, headers: Headers, method: str, address: str) -> Refusal | None:
        """Why a request that brings code, or asks about that, is not taken."""
        if self._doors.code_token is None:
            return 404, "This server runs no code that clients send. Whoever starts it can let it: --nnsight."
        if (why := self._doors.browser_refusal(headers)) is not None:
            return 403, why
        shown = headers.get(CODE_TOKEN)
        match self._visitors.show_code_token(address, None if shown is None else shown.encode("latin-1")):
            case "wrong":
                return 401, (
                    f"The token for code is missing or wrong. Send it as `{CODE_TOKEN}` (NNsight: "
                    "api_key=...); it is not the one that the page is opened with."
                )
            case "too many":
                return 429, TOO_MANY_GUESSES
        if method == "POST" and headers.get("content-type") not in (CODE_TYPE, None):
            return 415, f"Code comes as {CODE_TYPE}."
        return None

    def _unknown(self, authorization: str | None, address: str) -> Refusal | None:
        scheme, _, token = (authorization or "").partition(" ")
        shown = token.strip().encode("latin-1") if scheme.lower() == "bearer" else None
        match self._visitors.show_token(address, shown):
            case "wrong":
                return 401, "The token is missing or wrong. Send it as `Authorization: Bearer TOKEN`."
            case "too many":
                return 429, TOO_MANY_GUESSES
            case _:
                return None

    async def _visit(self, address: str, scope: Scope, receive: Receive, send: Send) -> None:
        """One socket from its handshake to its end."""
        codes: list[int] = []
        began = time.monotonic()
        visit = self._visitors.enter(address)
        try:
            logs.connection.set(visit.id)
            logs.event(logger, logging.INFO, "A connection has come.", address=address)
            await self.app({**scope, "visit": visit}, _noting(receive, codes), _noting_sent(send, codes))
        finally:
            self._visitors.leave(visit)
            logs.event(
                logger, logging.INFO, "A connection has ended.", code=codes[0] if codes else None,
                seconds=round(time.monotonic() - began, 3),
            )  # fmt: skip


async def failed(request: Request, _: Exception) -> Response:
    """What a request gets that ran into a fault of ours. Starlette answers it outside of the entrance."""
    answer = _answer(request.url.path, 500, REASONS[CloseCode.INTERNAL])
    answer.headers.update(HEADERS)
    return answer


def _noting(receive: Receive, codes: list[int]) -> Receive:
    async def noting() -> Message:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            codes.append(message.get("code", 1005))
        return message

    return noting


def _noting_sent(send: Send, codes: list[int]) -> Send:
    async def noting(message: Message) -> None:
        if message["type"] == "websocket.close":
            codes.append(message.get("code", 1000))
        await send(message)

    return noting


def _with_headers(path: str, send: Send) -> Send:
    added = dict(HEADERS)
    if path.startswith(("/api/", "/metrics", "/healthz", "/readyz", CODE)):
        added["cache-control"] = "no-store"
    more = [(name.encode(), value.encode()) for name, value in added.items()]

    async def with_headers(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            message = {**message, "headers": [*message.get("headers", []), *more]}
        await send(message)

    return with_headers


def _answer(path: str, status: int, sentence: str) -> Response:
    headers = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    elif status in (429, 503):
        headers["retry-after"] = "60"
    if path.startswith("/api/"):
        return JSONResponse({"error": sentence}, status, headers)
    if path.startswith(CODE):
        return JSONResponse({"detail": sentence}, status, headers)  # where NNsight's client looks for it
    return PlainTextResponse(sentence + "\n", status, headers)
