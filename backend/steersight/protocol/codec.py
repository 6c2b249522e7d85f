"""Frames to bytes and back: the one place that knows msgpack.

Decoding never executes or constructs anything but plain msgpack types, has a size limit, and turns every
failure into a `FrameError` that says what to do. The server decodes client frames; `client.py` decodes
server frames.
"""

from typing import Any

import msgpack
from pydantic import TypeAdapter, ValidationError

from .messages import (
    CLIENT_TYPES,
    MAX_FRAME_BYTES,
    SERVER_TYPES,
    AskRows,
    ClientFrame,
    ErrorCode,
    Frame,
    Hello,
    Ping,
    Resume,
    ServerFrame,
    Start,
    Steer,
    Stop,
)

AnyClientFrame = Hello | Start | Steer | Stop | Resume | AskRows | Ping
_client: TypeAdapter[AnyClientFrame] = TypeAdapter(ClientFrame)
_server: TypeAdapter[Any] = TypeAdapter(ServerFrame)
MAX_PATH = 120
"""Longest field path in an error frame, in characters."""


class FrameError(ValueError):
    """A frame that cannot be taken, with the code and the sentence for the one who sent it."""

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        field: str | None = None,
        run: str | None = None,
        id: str | None = None,  # noqa: A002 - the name on the wire
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.run = run
        self.id = id


def encode(frame: Frame) -> bytes:
    """One frame as msgpack. Fields that are null stay in, so that both sides see one shape."""
    packed: bytes = msgpack.packb(frame.model_dump(mode="python"), use_bin_type=True)
    return packed


def decode_client(data: bytes) -> AnyClientFrame:
    """Validate one frame from a client. Raises FrameError; never anything else for any bytes."""
    frame: AnyClientFrame = _decode(data, CLIENT_TYPES, _client, MAX_FRAME_BYTES)
    return frame


def decode_server(data: bytes) -> Any:
    """Validate one frame from a server (any size the transport let through). Raises FrameError."""
    return _decode(data, SERVER_TYPES, _server, len(data))


def _decode(data: bytes, types: dict[str, type[Frame]], adapter: TypeAdapter[Any], limit: int) -> Any:
    if len(data) > limit:
        raise FrameError(
            ErrorCode.TOO_LARGE,
            f"The frame has {len(data)} bytes; at most {limit} are allowed. Send fewer or shorter messages.",
        )
    try:
        value = msgpack.unpackb(
            data, raw=False, strict_map_key=True, ext_hook=_refuse_ext, object_pairs_hook=_map_of
        )
    except _DuplicateKeyError as error:
        raise FrameError(
            ErrorCode.BAD_FRAME,
            f"A map in the frame has the key {error} twice. Send every key once.",
        ) from None
    except Exception as error:  # msgpack raises half a dozen unrelated types, RecursionError among them
        raise FrameError(
            ErrorCode.BAD_FRAME,
            f"The frame is not one valid msgpack value ({type(error).__name__}). "
            "Encode one map per binary frame.",
        ) from None
    if not isinstance(value, dict):
        raise FrameError(
            ErrorCode.BAD_FRAME,
            f"The frame holds a {type(value).__name__}, not a map. Send a map with a `type` field.",
        )
    kind = value.get("type")
    names = ", ".join(types)
    if kind is None:
        raise FrameError(
            ErrorCode.UNKNOWN_TYPE, f"The frame has no `type`. It must be one of: {names}.", field="type"
        )
    if not isinstance(kind, str) or kind not in types:
        shown = repr(kind)[:60]
        raise FrameError(
            ErrorCode.UNKNOWN_TYPE,
            f"The frame's type {shown} is not known. It must be one of: {names}.",
            field="type",
        )
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _explain(kind, value, error) from None


class _DuplicateKeyError(ValueError):
    """Two values under one key: which of them was meant is not ours to guess."""


def _map_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """One msgpack map. By itself msgpack keeps the last of two equal keys and says nothing."""
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _DuplicateKeyError(repr(twice)[:60])
    return made


def _refuse_ext(code: int, _data: bytes) -> Any:
    raise ValueError(f"msgpack extension type {code} is not part of the protocol")


def _explain(kind: str, value: dict[str, Any], error: ValidationError) -> FrameError:
    """The first thing wrong, as a sentence with the path of the field."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    path = ".".join(str(part) for part in first["loc"][1:] if part != "[key]")
    if len(path) > MAX_PATH:  # a client chooses its field names; it must not choose the size of our answer
        path = path[: MAX_PATH - 3] + "..."
    what = first["msg"][0].lower() + first["msg"][1:].rstrip(".")
    if first["type"] == "extra_forbidden":
        what = "this field is not part of the message; leave it out"
    elif first["type"] == "missing":
        what = "this field is missing"
    others = len(problems) - 1
    more = f" ({others} more problem{'s' if others > 1 else ''})" if others else ""
    where = f"field `{path}`: " if path else ""
    return FrameError(
        ErrorCode.INVALID,
        f"The {kind} frame is not valid: {where}{what}{more}.",
        field=path or None,
        run=_name(value.get("run")),
        id=_name(value.get("id")),
    )


def _name(value: Any) -> str | None:
    return value[:64] if isinstance(value, str) else None
