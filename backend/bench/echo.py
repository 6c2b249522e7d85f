"""What comes back is what was sent: the smallest ASGI application, for tests of what is below the protocol.

Steersight's own socket refuses text and closes on what is no frame of its protocol, so a conformance suite
cannot talk to it. This application is served by exactly the product's transport (`serving.configured`) and
says every message back, so what such a suite finds is true of the product's transport.
"""

from __future__ import annotations

import argparse

import uvicorn
from starlette.types import Receive, Scope, Send

from steersight.serving import configured


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Say every message back until the other side is gone. HTTP gets an empty answer: the server is up."""
    await receive()
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})
        return
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        kind = {"bytes": message["bytes"]} if text is None else {"text": text}
        await send({"type": "websocket.send", **kind})


def server(port: int) -> uvicorn.Server:
    """A server of the echo, as the product would be served. Run it or await its `serve()`."""
    found = configured(echo, "127.0.0.1", port)
    found.lifespan = "off"
    return uvicorn.Server(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9001)
    server(parser.parse_args().port).run()
