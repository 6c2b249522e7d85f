"""WebSocket close codes of the application range, with the sentence that goes with each.

The server sends an `error` frame before it closes wherever the client can still read one.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why the server closed a connection. Values below 4000 belong to RFC 6455."""

    BAD_HANDSHAKE = 4400
    UNAUTHORIZED = 4401
    WRONG_SUBPROTOCOL = 4406
    HELLO_TIMEOUT = 4408
    FRAME_TOO_LARGE = 4413
    TEXT_FRAME = 4415
    TOO_MANY_ERRORS = 4429
    INTERNAL = 4500
    TOO_SLOW = 4508


REASONS: dict[CloseCode, str] = {
    CloseCode.BAD_HANDSHAKE: "The first frame must be a hello.",
    CloseCode.UNAUTHORIZED: "The token in hello is missing or wrong.",
    CloseCode.WRONG_SUBPROTOCOL: "Ask for the WebSocket subprotocol steersight.v1.",
    CloseCode.HELLO_TIMEOUT: "No hello arrived in time.",
    CloseCode.FRAME_TOO_LARGE: "The frame is larger than limits.max_frame_bytes.",
    CloseCode.TEXT_FRAME: "Text frames are not part of this protocol; send msgpack in binary frames.",
    CloseCode.TOO_MANY_ERRORS: "Too many frames of this connection were bad, or came too fast.",
    CloseCode.INTERNAL: "The server failed; its log says why.",
    CloseCode.TOO_SLOW: "The client reads too slowly to keep up.",
}
