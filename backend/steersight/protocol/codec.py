"""Frames to bytes and back: the one place that knows msgpack.

Decoding never executes or constructs anything but plain msgpack types, has limits on size, depth and count,
and turns every failure into a `FrameError` that says what to do. The server takes client frames as strictly
as it writes its own. A client may be older than its server, so `read_server` ignores what it does not know;
`decode_server` holds a server to the contract, and is for tests and tools.
"""

from collections.abc import Callable
from typing import Any

import msgpack
from pydantic import TypeAdapter, ValidationError

from .messages import (
    CLIENT_TYPES,
    MAX_FRAME_BYTES,
    MAX_PREFIX,
    READING,
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
    StartTogether,
    Steer,
    Stop,
    Watch,
)

AnyClientFrame = Hello | Start | StartTogether | Steer | Watch | Stop | Resume | AskRows | Ping
_client: TypeAdapter[AnyClientFrame] = TypeAdapter(ClientFrame)
_server: TypeAdapter[Any] = TypeAdapter(ServerFrame)
WireMap = dict[str, Any]
"""A frame of this side as it goes out: all of its model's fields, in the model's order, in plain types."""
MAX_PATH = 120
"""Longest field path in an error frame, in characters."""
MAX_DEPTH = 8
"""Maps and lists within one another in a client's frame; the protocol has 6."""
MAX_LENGTH = 1024
"""Entries of one map or list in a client's frame, if it is no list of whole numbers; the protocol has 256."""
MAX_VALUES = 20_000
"""Entries of all maps and lists of a client's frame together, but for whole numbers in lists, such as token
ids: those take a few bytes here for each on the wire. The largest valid frame has about 15,000. A byte on
the wire can be an empty list of 56 bytes here, so that it is not the frame's size that bounds its memory."""


TOO_LONG = f"a map or list of more than {MAX_LENGTH} entries"


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
        rev: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.run = run
        self.id = id
        self.rev = rev


def encode(frame: Frame | WireMap) -> bytes:
    """One frame as msgpack. Fields that are null stay in, so that both sides see one shape.

    Tokens and rows come as maps: to make a model of each and to take it apart again costs several times as
    much as all the rest of sending it. Tests hold the maps against the models.
    """
    fields = frame if isinstance(frame, dict) else frame.model_dump(mode="python")
    packed: bytes = msgpack.packb(fields, use_bin_type=True)
    return packed


def decode_client(data: bytes) -> AnyClientFrame:
    """Validate one frame from a client. Raises FrameError; never anything else for any bytes."""
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(
            ErrorCode.TOO_LARGE,
            f"The frame has {len(data)} bytes; at most {MAX_FRAME_BYTES} are allowed. "
            "Send fewer or shorter messages.",
        )
    limits = _Limits()
    value = _unpack(
        data, limits.map_of, list_hook=limits.list_of, max_array_len=MAX_PREFIX, max_map_len=MAX_LENGTH
    )
    if _is_deeper(value, MAX_DEPTH):
        raise _too_much(f"maps and lists within one another more than {MAX_DEPTH} deep")
    frame: AnyClientFrame = _validate(value, CLIENT_TYPES, _client)
    return frame


def decode_server(data: bytes) -> Any:
    """Validate one frame from a server of exactly this version, of any size. Raises FrameError."""
    return _validate(_unpack(data, _map_of), SERVER_TYPES, _server)


def read_server(data: bytes) -> Frame | None:
    """One frame from a server of this version or a newer one; None for a type that is not known here.

    Fields that are not known are left out, words of `OrNewer` stay as they are. Raises FrameError
    where what is known is missing or wrong; its `run` and `id` say whom that concerns, where the frame does.
    """
    value = _unpack(data, _map_of)
    if isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] not in SERVER_TYPES:
        return None
    frame: Frame = _validate(value, SERVER_TYPES, _server, extra="ignore", context=READING)
    return frame


def _unpack(data: bytes, map_of: Callable[[list[tuple[Any, Any]]], Any], **limits: Any) -> Any:
    try:
        return msgpack.unpackb(
            data, raw=False, strict_map_key=True, ext_hook=_refuse_ext, object_pairs_hook=map_of, **limits
        )
    except FrameError:
        raise
    except _DuplicateKeyError as error:
        raise FrameError(
            ErrorCode.BAD_FRAME,
            f"A map in the frame has the key {error} twice. Send every key once.",
        ) from None
    except Exception as error:  # msgpack raises half a dozen unrelated types, RecursionError among them
        if isinstance(error, ValueError) and " exceeds max_" in str(error):
            longest = f"a list of more than {MAX_PREFIX} entries"
            raise _too_much(longest if "max_array_len" in str(error) else TOO_LONG) from None
        raise FrameError(
            ErrorCode.BAD_FRAME,
            f"The frame is not one valid msgpack value ({type(error).__name__}). "
            "Encode one map per binary frame.",
        ) from None


def _validate(value: Any, types: dict[str, type[Frame]], adapter: TypeAdapter[Any], **how: Any) -> Any:
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
            run=_name(value.get("run")),
            id=_name(value.get("id")),
        )
    try:
        return adapter.validate_python(value, **how)
    except ValidationError as error:
        raise _explain(kind, value, error) from None


class _DuplicateKeyError(ValueError):
    """Two values under one key: which of them was meant is not ours to guess."""


class _Limits:
    """Counts what a frame unfolds to while it is decoded."""

    def __init__(self) -> None:
        self._values = 0

    def list_of(self, items: list[Any]) -> list[Any]:
        others = 0 if set(map(type, items)) == {int} else len(items)
        if others > MAX_LENGTH:
            raise _too_much(TOO_LONG)
        self._count(others)
        return items

    def map_of(self, pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        self._count(len(pairs))
        return _map_of(pairs)

    def _count(self, more: int) -> None:
        self._values += max(1, more)  # an empty one weighs too
        if self._values > MAX_VALUES:
            raise _too_much(f"more than {MAX_VALUES} entries in its maps and lists")


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in value)


def _too_much(what: str) -> FrameError:
    return FrameError(ErrorCode.BAD_FRAME, f"The frame holds {what}. No valid frame does; send less.")


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
        rev=_revision(value.get("rev")) if kind == "steer" else None,
    )


def _name(value: Any) -> str | None:
    return value[:64] if isinstance(value, str) else None


def _revision(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None
