"""What frames of both directions are made of: names, numbers and their limits, and the base of every frame.

Limits that the types themselves carry stand here. The rest travels in `welcome.limits`.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

SUBPROTOCOL = "steersight.v1"
PROTOCOL_VERSION = 1

MAX_FRAME_BYTES = 256 * 1024
MAX_MESSAGES = 256
MAX_NAME = 64
MAX_VECTORS = 16
"""Vectors that steer one run at once: strengths that are not 0."""
MAX_NAMED = 64
"""Strengths or settings in one frame, those at 0 among them."""
MAX_STRENGTH = 1000.0
MAX_ARGUMENTS = 32
"""Arguments of a chat template in one frame."""
MAX_STOP_STRINGS = 8
MAX_TOP = 20
MAX_EDITS = 16
"""Edits that one run may name."""
MAX_TOGETHER = 9
"""Starts that are admitted together."""
MAX_PREFIX = 65_536
"""Token ids of a reply's beginning."""
MAX_TEMPERATURE = 2.0
"""vLLM (0.32) takes no more; a test holds every limit of `Sampling` against it."""
MIN_REPETITION_PENALTY = 0.01
"""Logits are divided by it: one that is nothing in single precision makes them infinite."""
MAX_ROWS_ASKED = 4096
"""Rows that one `rows` frame of a client may ask for."""

Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
MetricId = Annotated[str, Field(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9_.:-]+$")]
EditName = Annotated[str, Field(min_length=1, max_length=64)]
"""What people call an edit: any text."""
Strength = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)]
Bound = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)]
"""End of a clamp, as a share of the stream's length: beyond ±1 there is nothing that a stream has."""
Strengths = Annotated[dict[Identifier, Strength], Field(max_length=MAX_NAMED)]
LayerRange = Annotated[list[Annotated[int, Field(ge=0, le=10_000)]], Field(min_length=2, max_length=2)]
TemplateName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
TemplateValue = bool | int | float | Annotated[str, Field(max_length=2_000)]
Revision = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=0)]
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Position = Annotated[int, Field(ge=0, le=2**31 - 1)]


READING = "reading"
"""Validation context of a client that reads a server's frames; see `OrNewer`."""


def _or_newer(value: Any, known: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return known(value)
    except ValidationError:
        if info.context == READING and isinstance(value, str):
            return value
        raise


OrNewer = WrapValidator(_or_newer)
"""Marks a choice of words that may grow: whoever reads keeps a word it does not know as plain text."""


Operator = Annotated[
    Literal["add", "add_absolute", "ablate", "clamp", "feature_set", "feature_scale"], OrNewer
]


Origin = Annotated[Literal["chat", "notebook"], OrNewer]
"""What a run was asked for by: a `start`, or a trace of NNsight's, from a notebook."""
MAX_BEGINNING = 120
"""Characters of a prompt that a notice of its run says."""


class ErrorCode(StrEnum):
    """What an `error` frame is about. A client may act on the code and show the message."""

    BAD_FRAME = "bad_frame"
    UNKNOWN_TYPE = "unknown_type"
    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNEXPECTED = "unexpected"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_RUN = "unknown_run"
    UNKNOWN_VECTOR = "unknown_vector"
    UNKNOWN_METRIC = "unknown_metric"
    UNKNOWN_ADAPTER = "unknown_adapter"
    UNKNOWN_EDIT = "unknown_edit"
    STALE_REVISION = "stale_revision"
    DUPLICATE_RUN = "duplicate_run"
    PROMPT_TOO_LONG = "prompt_too_long"
    BUSY = "busy"
    RATE_LIMITED = "rate_limited"
    OTHER_EPOCH = "other_epoch"
    DRAINING = "draining"
    STEERING_FAILED = "steering_failed"
    BLOCK_FAILED = "block_failed"
    """Code of a client's that ran in the run's passes has raised."""
    ENGINE_NOT_READY = "engine_not_ready"
    ENGINE_FAILED = "engine_failed"
    MODEL_CHANGED = "model_changed"
    INTERNAL = "internal"


class Frame(BaseModel):
    """Base of everything on the wire: strict, closed, immutable. What does not fit is not named in the error,
    because errors are logged and prompts are not."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class VectorSetting(Frame):
    """How one vector acts in a run; its strength stands beside it in `strengths`."""

    operator: Operator | None = None
    """What it does to the stream, `docs/steering.md`; null is the vector's own."""
    lo: Bound | None = None
    """`clamp`: the smallest projection it leaves, in the unit of the projection metric; null is no bound."""
    hi: Bound | None = None
    """`clamp`: the largest."""
    scope: Annotated[Literal["both", "prompt", "reply", "thought", "answer"], OrNewer] = "both"
    """Which forward passes it acts in. The pass that reads the prompt's last token writes the reply's first
    and counts to the reply. `thought` and `answer` are parts of a reply, for models with `thoughts`: each
    begins with the pass that reads the last token before its first. While it is open whether the model
    thinks, a reply is neither."""
    first: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Of the reply's tokens only the first so many are written under it, or of its thought's or answer's with
    such a scope; null is all."""
    layers: LayerRange | None = None
    """[first, last] layer at which it acts, both included; null is the vector's own layers. At a layer that
    the vector has no direction for, it acts with that of its nearest one."""


Settings = Annotated[dict[Identifier, VectorSetting], Field(max_length=MAX_NAMED)]
