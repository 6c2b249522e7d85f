"""Every frame of the wire contract as a typed model, by one name to import from.

`client_frames.py` has what a client sends, `server_frames.py` what a server sends, `descriptions.py` what it
says of itself in them, and `parts.py` what all are made of.

Client frames are validated strictly (no coercion, no unknown fields, no NaN or infinity); what fails
becomes an `error` frame with a sentence and changes nothing. Server frames use the same kind of model so
that one JSON Schema describes both directions. They are strict where they are made; a client reads them with
`codec.read_server`, which lets pass what only a newer server knows: fields, types of frames, and the words of
`OrNewer`.
"""

from .client_frames import (
    CLIENT_TYPES,
    AskRows,
    ChatMessage,
    ClientFrame,
    Hello,
    LensOptions,
    Ping,
    Resume,
    Sampling,
    Start,
    StartTogether,
    Steer,
    Stop,
    Watch,
)
from .descriptions import (
    AdapterInfo,
    ColorScale,
    EditInfo,
    EngineStatus,
    ExpertsInfo,
    Limits,
    MetricInfo,
    ModelInfo,
    RunNotice,
    TemplateArgument,
    ThoughtMarks,
    VectorInfo,
)
from .parts import (
    MAX_ARGUMENTS,
    MAX_BEGINNING,
    MAX_EDITS,
    MAX_FRAME_BYTES,
    MAX_MESSAGES,
    MAX_PREFIX,
    MAX_ROWS_ASKED,
    MAX_STOP_STRINGS,
    MAX_STRENGTH,
    MAX_TEMPERATURE,
    MAX_TOGETHER,
    MAX_TOP,
    MAX_VECTORS,
    MIN_REPETITION_PENALTY,
    PROTOCOL_VERSION,
    READING,
    SUBPROTOCOL,
    ErrorCode,
    Frame,
    Operator,
    Origin,
    VectorSetting,
)
from .server_frames import (
    SERVER_TYPES,
    Alternatives,
    Applied,
    Edits,
    Engine,
    Error,
    Finished,
    Gap,
    Lens,
    NotebookRuns,
    Part,
    Pong,
    Prompt,
    Queued,
    Resumed,
    Rows,
    RunError,
    ServerFrame,
    Span,
    Started,
    Timing,
    Tokens,
    Usage,
    Watched,
    Welcome,
)

__all__ = [
    "CLIENT_TYPES", "MAX_ARGUMENTS", "MAX_BEGINNING", "MAX_EDITS", "MAX_FRAME_BYTES", "MAX_MESSAGES",
    "MAX_PREFIX", "MAX_ROWS_ASKED",
    "MAX_STOP_STRINGS", "MAX_STRENGTH", "MAX_TEMPERATURE", "MAX_TOGETHER", "MAX_TOP", "MAX_VECTORS",
    "MIN_REPETITION_PENALTY", "PROTOCOL_VERSION", "READING", "SERVER_TYPES", "SUBPROTOCOL", "AdapterInfo",
    "Alternatives", "Applied", "AskRows", "ChatMessage",
    "ClientFrame", "ColorScale", "EditInfo", "Edits", "Engine", "EngineStatus", "Error",
    "ErrorCode", "ExpertsInfo", "Finished", "Frame", "Gap", "Hello", "Lens", "LensOptions", "Limits",
    "MetricInfo", "ModelInfo", "NotebookRuns",
    "Operator", "Origin", "Part", "Ping", "Pong", "Prompt", "Queued", "Resume", "Resumed", "Rows", "RunError",
    "RunNotice",
    "Sampling", "ServerFrame", "Span", "Start", "StartTogether", "Started", "Steer", "Stop",
    "TemplateArgument", "ThoughtMarks", "Timing", "Tokens", "Usage", "VectorInfo", "VectorSetting", "Watch",
    "Watched", "Welcome",
]  # fmt: skip
