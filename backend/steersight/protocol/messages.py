"""Every frame of the wire contract as a typed model.

Client frames are validated strictly (no coercion, no unknown fields, no NaN or infinity); what fails
becomes an `error` frame with a sentence and changes nothing. Server frames use the same kind of model so
that one JSON Schema describes both directions. They are strict where they are made; a client reads them with
`codec.read_server`, which lets pass what only a newer server knows: fields, types of frames, and the words of
`OrNewer`.

Positions count tokens of prompt and reply together from 0. Row p belongs to the forward pass whose input
was token p, so the last token of a reply has no row. `seq` numbers the events of one run from 1; both run
ids and sequence numbers mean something only together with the `epoch` of the welcome they came after.
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

# Limits that the types themselves carry. The rest travels in `welcome.limits`.
MAX_FRAME_BYTES = 256 * 1024
MAX_MESSAGES = 256
MAX_NAME = 64
MAX_VECTORS = 16
"""Vectors that steer one run at once: strengths that are not 0."""
MAX_NAMED = 64
"""Strengths or settings in one frame, those at 0 among them."""
MAX_STRENGTH = 1000.0
MAX_STOP_STRINGS = 8
MAX_TOP = 20
MAX_TEMPERATURE = 2.0
"""vLLM (0.32) takes no more; a test holds every limit of `Sampling` against it."""
MIN_REPETITION_PENALTY = 0.01
"""Logits are divided by it: one that is nothing in single precision makes them infinite."""
MAX_ROWS_ASKED = 4096
"""Rows that one `rows` frame of a client may ask for."""

Identifier = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
MetricId = Annotated[str, Field(min_length=1, max_length=96, pattern=r"^[A-Za-z0-9_.:-]+$")]
Strength = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)]
Bound = Annotated[float, Field(ge=-MAX_STRENGTH, le=MAX_STRENGTH, allow_inf_nan=False)]
"""End of a clamp, as a share of the stream's length: beyond ±1 there is nothing that a stream has."""
Strengths = Annotated[dict[Identifier, Strength], Field(max_length=MAX_NAMED)]
LayerRange = Annotated[list[Annotated[int, Field(ge=0, le=10_000)]], Field(min_length=2, max_length=2)]
Revision = Annotated[int, Field(ge=0, le=2**31 - 1)]
Count = Annotated[int, Field(ge=0)]


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
    STALE_REVISION = "stale_revision"
    DUPLICATE_RUN = "duplicate_run"
    PROMPT_TOO_LONG = "prompt_too_long"
    BUSY = "busy"
    RATE_LIMITED = "rate_limited"
    OTHER_EPOCH = "other_epoch"
    DRAINING = "draining"
    STEERING_FAILED = "steering_failed"
    ENGINE_NOT_READY = "engine_not_ready"
    ENGINE_FAILED = "engine_failed"
    INTERNAL = "internal"


class Frame(BaseModel):
    """Base of everything on the wire: strict, closed, immutable. What does not fit is not named in the error,
    because errors are logged and prompts are not."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


# ---------------------------------------------------------------- client to server


class ChatMessage(Frame):
    """One turn of the conversation that makes the prompt."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=200_000)]


class Sampling(Frame):
    """How the next token is drawn. Temperature 0 is greedy and reproducible."""

    max_tokens: Annotated[int, Field(ge=1, le=131_072)] = 256
    temperature: Annotated[float, Field(ge=0, le=MAX_TEMPERATURE)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """0 means: do not limit to the k likeliest tokens."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=MAX_STOP_STRINGS)
    ] = []
    repetition_penalty: Annotated[float, Field(ge=MIN_REPETITION_PENALTY, le=5)] = 1.0


class Hello(Frame):
    """The first frame of a connection; the server answers `welcome`."""

    type: Literal["hello"] = "hello"
    token: Annotated[str, Field(max_length=1024)] | None = None


class LensOptions(Frame):
    """What the logit lens shows of a run."""

    stride: Annotated[int, Field(ge=1, le=1024)] = 1
    """Every so many layers, counted down from the last one, which is always among them."""
    top: Annotated[int, Field(ge=1, le=MAX_TOP)] = 5
    """How many of the likeliest tokens to name per layer."""


class VectorSetting(Frame):
    """How one vector acts in a run; its strength stands beside it in `strengths`."""

    operator: Operator | None = None
    """What it does to the stream, `docs/steering.md`; null is the vector's own."""
    lo: Bound | None = None
    """`clamp`: the smallest projection it leaves, in the unit of the projection metric; null is no bound."""
    hi: Bound | None = None
    """`clamp`: the largest."""
    scope: Annotated[Literal["both", "prompt", "reply"], OrNewer] = "both"
    """Which forward passes it acts in. The pass that reads the prompt's last token writes the reply's first
    and counts to the reply."""
    first: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Of the reply's tokens only the first so many are written under it; null is all."""
    layers: LayerRange | None = None
    """[first, last] layer at which it acts, both included; null is the vector's own layers. At a layer that
    the vector has no direction for, it acts with that of its nearest one."""


Settings = Annotated[dict[Identifier, VectorSetting], Field(max_length=MAX_NAMED)]


class Start(Frame):
    """Start a run. `id` is the client's own name for it, used to match `started` or `error` to this frame."""

    type: Literal["start"] = "start"
    id: Identifier
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    sampling: Sampling = Sampling()
    strengths: Strengths = {}
    """Revision 0 of the run: in force from the first forward pass on."""
    settings: Settings = {}
    """How vectors of `strengths` act; one that is not named acts as its maker meant it."""
    write_on: bool = False
    """The last message is the beginning of the reply, and the run goes on from its end."""
    metrics: Annotated[list[MetricId], Field(max_length=64)] | None = None
    """Metric ids to send rows of; null means the default ones; an empty list means no rows. Those of the
    family `logit_lens` come with `lens` and need not be named."""
    lens: LensOptions | None = None
    """Read every step through the logit lens; null is off."""
    entropy: bool = False
    """Whether rows carry the entropy of the model's final distribution."""
    prompt_rows: bool = True
    """Whether rows of the prompt are sent too."""
    read_cache: bool = True
    """Whether the engine may take the beginning of the prompt from its cache of prefixes. No forward pass
    runs over it then; its rows are those of the run that computed it, where the server has kept them, and a
    `gap` with `cached` where not. With false all of it is computed, and all its rows come."""


class Steer(Frame):
    """Replace a run's strengths. The full set travels: a vector that is not named has strength 0."""

    type: Literal["steer"] = "steer"
    run: Identifier
    rev: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """The client's number of this state; it must be larger than every number the run has had."""
    strengths: Strengths
    settings: Settings = {}


class Stop(Frame):
    """End a run now, also one that waits; `finished` follows with reason `cancelled`. Stopping a finished run
    is no error."""

    type: Literal["stop"] = "stop"
    run: Identifier


class Resume(Frame):
    """Watch a run from now on: one's own after a lost connection, or one that another connection started.

    The server answers `resumed` and then sends everything after event `after`, and goes on. Frames that came
    before without moving `seq` may come again; they say the same.
    """

    type: Literal["resume"] = "resume"
    run: Identifier
    epoch: Annotated[str, Field(min_length=1, max_length=64)]
    """Of the `welcome` under which the run's name was learned; another epoch does not know the run."""
    after: Count = 0
    """The newest `seq` that this client has had of the run; 0 is from the beginning."""


class AskRows(Frame):
    """Send rows of `count` positions from `start` again: those that a `gap` with `kept` named."""

    type: Literal["rows"] = "rows"
    run: Identifier
    start: Count
    count: Annotated[int, Field(ge=1, le=MAX_ROWS_ASKED)]


class Ping(Frame):
    """Ask for a `pong` with the same `t`, whatever it is to the client (milliseconds, say)."""

    type: Literal["ping"] = "ping"
    t: float


ClientFrame = Annotated[Hello | Start | Steer | Stop | Resume | AskRows | Ping, Field(discriminator="type")]

# ---------------------------------------------------------------- server to client


EngineState = Annotated[Literal["loading", "ready", "failed", "draining", "stopped"], OrNewer]
"""`loading` is also said of an engine that is being built again after a fault; its stage says so. `draining`:
the server is about to end and takes no new runs, live ones go on for a while."""


class EngineStatus(Frame):
    """Where the engine is between a cold start and serving."""

    state: EngineState
    stage: str
    """A short sentence for people: what is happening now, or why it failed."""
    progress: Annotated[float, Field(ge=0, le=1)]
    """Share of the expected loading time; an estimate, 1 when ready."""


class ModelInfo(Frame):
    """The served model. Null in `welcome` until its configuration has been read."""

    id: str
    layers: Count
    hidden_size: Count
    vocab_size: Count
    dtype: str
    max_model_len: Count
    special_ids: list[int]
    """Ids of special tokens: columns of the heatmap, but not part of the reply's text."""
    chat: Annotated[Literal["template", "file", "none"], OrNewer] = "template"
    """What makes a prompt of a conversation: the model's own chat template, the one of `--chat-template`, or
    none. Without one the messages' contents are joined and the model continues that text."""


class ColorScale(Frame):
    """How a metric is coloured when the client has no better idea."""

    kind: Annotated[Literal["sequential", "diverging"], OrNewer]
    lo: float | None
    """Fixed lower end in display units, or null to fit the data."""
    hi: float | None
    mid: float | None = None
    """Value of the neutral colour of a diverging scale, in display units."""


class MetricInfo(Frame):
    """One metric: one number per token and layer."""

    id: MetricId
    label: str
    description: str
    unit: str
    transform: Annotated[Literal["linear", "log2"], OrNewer]
    """What the server did before the cast to fp16. `log2`: value = 2 ** sent."""
    scale: ColorScale
    family: Annotated[Literal["residual", "parts", "projection", "steering", "logit_lens", "own"], OrNewer]
    cost: str
    """What computing it means for the engine."""
    default: bool
    """Whether a run that names no metrics gets it."""
    error: str | None
    """Why this metric is switched off; null when it works."""


class VectorInfo(Frame):
    """One steering vector the server knows."""

    id: Identifier
    label: str
    description: str
    layers: list[int]
    range: Annotated[list[float], Field(min_length=2, max_length=2)]
    """[lo, hi]: the strengths a slider should offer; outside them text usually degenerates."""
    suggested: float
    """A strength at which the effect is plain to see."""
    kind: Annotated[Literal["direction", "feature"], OrNewer]
    """A feature of a sparse autoencoder can be read as well as written."""
    operator: Operator
    """What it does unless a setting says otherwise; `range` and `suggested` are meant for this one."""
    operators: list[Operator]
    """All that it can do."""
    feature: Count | None = None
    """Number of the feature in its autoencoder; with its layer, people's name for it: 28:8401. Null for
    directions, and where nobody noted it."""
    own: bool
    """Whether it is this server's own, so that it can be deleted; bundled ones cannot."""


class Limits(Frame):
    """What this server accepts."""

    max_frame_bytes: Count
    max_messages: Count
    max_vectors: Count
    max_strength: float
    max_runs_per_connection: Count
    max_reply_tokens: Count
    """A reply is cut to so many tokens, whatever `sampling.max_tokens` asks for."""
    grace_seconds: float
    """How long a run goes on that nobody watches, and how long a finished one is kept after that."""


class Welcome(Frame):
    """Answer to `hello`."""

    type: Literal["welcome"] = "welcome"
    protocol: int = PROTOCOL_VERSION
    server: str
    name: Annotated[str, Field(max_length=MAX_NAME)]
    """What people call this server: tells two replicas apart."""
    epoch: str
    engine: EngineStatus
    model: ModelInfo | None
    metrics: list[MetricInfo]
    vectors: list[VectorInfo]
    limits: Limits


class Engine(Frame):
    """The engine's state changed, or a metric failed. `model` and `vectors` come once they are known."""

    type: Literal["engine"] = "engine"
    state: EngineState
    stage: str
    progress: Annotated[float, Field(ge=0, le=1)]
    model: ModelInfo | None
    metrics: list[MetricInfo]
    vectors: list[VectorInfo]


class Span(Frame):
    """Tokens [start, end) of the prompt that belong to one message; the rest is the chat template's."""

    role: str
    start: Count
    end: Count


class Prompt(Frame):
    """The prompt as the model reads it."""

    ids: list[int]
    texts: list[str]
    """One piece per token; joined they are the prompt. A token that ends inside a character is ''."""
    spans: list[Span]


class Started(Frame):
    """A run was admitted. `run` is its name from now on; `id` is what `start` called it."""

    type: Literal["started"] = "started"
    run: Identifier
    seq: Count
    id: Identifier
    prompt: Prompt
    metrics: list[MetricId]


class Resumed(Frame):
    """Answer to `resume`; the events after the client's own come next."""

    type: Literal["resumed"] = "resumed"
    run: Identifier
    seq: Count
    """What the client said it has: this frame brings nothing of the run itself."""
    newest: Count
    """The run's newest event at this moment."""
    rev: Revision
    """Its newest revision; a `steer` must say a larger one."""
    strengths: Strengths
    settings: Settings


class Queued(Frame):
    """The run waits for a place in the engine."""

    type: Literal["queued"] = "queued"
    run: Identifier
    seq: Count
    position: Count
    """1 is the next one to begin; 0 says that it has begun."""


class Tokens(Frame):
    """New tokens of the reply, in order, none twice."""

    type: Literal["tokens"] = "tokens"
    run: Identifier
    seq: Count
    start: Count
    """Position of the first of them."""
    ids: list[int]
    texts: list[str]
    logprobs: list[float | None]
    """Natural logarithm of the probability that the model's final distribution gave each, before temperature
    and the like; minus this is the surprisal in nats. Null when not known."""
    ranks: list[Count | None]
    """Place of each in that distribution, 1 for the likeliest; null when not known."""


class Rows(Frame):
    """Rows of `count` consecutive positions."""

    type: Literal["rows"] = "rows"
    run: Identifier
    seq: Count
    start: Count
    count: Count
    revs: list[int]
    """Per row: the revision its forward pass used."""
    metrics: list[MetricId]
    layers: Count
    dtype: Literal["f2"] = "f2"
    data: bytes
    """count x metrics x layers IEEE half floats, C order, little endian, transformed as the metric says. NaN
    where nothing was computed: the logit lens skips layers, and all prompt positions but the last."""
    entropy: bytes | None
    """count half floats, nats: entropy of the final distribution from which the token after each position was
    drawn; NaN in the prompt. Null when not asked for."""


class Lens(Frame):
    """The likeliest next tokens by the raw logit lens: a layer's stream through final norm and
    unembedding."""

    type: Literal["lens"] = "lens"
    run: Identifier
    seq: Count
    start: Count
    """Position of the first; what is named here was guessed for the position after each."""
    count: Count
    layers: list[Count]
    """Layers that were read, ascending; the last layer is among them."""
    top: Count
    ids: bytes
    """count x layers x top int32, C order, little endian, likeliest first."""
    probabilities: bytes
    """count x layers x top half floats."""
    new_ids: list[Count]
    """Tokens that this run has not been told of yet."""
    new_texts: list[str]
    """Their texts."""


class Applied(Frame):
    """The first row computed with revision `rev` has come back; it is the row of `position`."""

    type: Literal["applied"] = "applied"
    run: Identifier
    seq: Count
    rev: Revision
    position: Count


class Gap(Frame):
    """Rows of `count` positions from `start` were skipped."""

    type: Literal["gap"] = "gap"
    run: Identifier
    seq: Count
    start: Count
    count: Count
    kept: bool
    """Skipped because this client reads too slowly: a `rows` frame brings them while the run is kept. If
    false, nobody has them: they were lost between engine and server, let go to save memory, or `cached`."""
    cached: bool = False
    """The engine had these positions in its cache of prefixes, and the server has kept no rows of them. A
    `start` with `read_cache` false computes them."""


class Usage(Frame):
    """Tokens of a finished run."""

    prompt_tokens: Count
    reply_tokens: Count
    cached_tokens: Count = 0
    """Of the prompt's, those that the engine took from its cache of prefixes."""


class Timing(Frame):
    """Measured by the server, in milliseconds from the moment it took the `start` frame."""

    first_token_ms: float | None
    total_ms: float
    tokens_per_s: float | None
    """Reply tokens after the first, over the time after the first; null for fewer than two tokens."""


class RunError(Frame):
    """Why a run failed."""

    code: Annotated[ErrorCode, Field(strict=False), OrNewer]
    message: str
    """A sentence for people."""


class Finished(Frame):
    """The run's last event."""

    type: Literal["finished"] = "finished"
    run: Identifier
    seq: Count
    reason: Annotated[Literal["stop", "length", "cancelled", "error"], OrNewer]
    stop: str | None
    """The stop string that ended the reply; the reply's text ends before it."""
    error: RunError | None
    """Why, where the reason is `error`. What was written until then is right, but it is not all."""
    usage: Usage
    timing: Timing


class Error(Frame):
    """Something was refused or went wrong. `message` is a sentence for people."""

    type: Literal["error"] = "error"
    # Strict mode would take only the Python enum; from the wire comes its text.
    code: Annotated[ErrorCode, Field(strict=False), OrNewer]
    message: str
    run: str | None = None
    id: str | None = None
    """The `id` of the `start` that was refused."""
    rev: Revision | None = None
    """The `rev` of the `steer` that was refused; `run` names its run."""
    field: str | None = None
    """Path of the field that is wrong, such as `sampling.top_p`."""


class Pong(Frame):
    """Answer to `ping`."""

    type: Literal["pong"] = "pong"
    t: float


ServerFrame = Annotated[
    Welcome
    | Engine
    | Started
    | Resumed
    | Queued
    | Tokens
    | Rows
    | Lens
    | Applied
    | Gap
    | Finished
    | Error
    | Pong,
    Field(discriminator="type"),
]

CLIENT_TYPES: dict[str, type[Frame]] = {
    "hello": Hello, "start": Start, "steer": Steer, "stop": Stop, "resume": Resume, "rows": AskRows,
    "ping": Ping,
}  # fmt: skip
SERVER_TYPES: dict[str, type[Frame]] = {
    "welcome": Welcome, "engine": Engine, "started": Started, "resumed": Resumed, "queued": Queued,
    "tokens": Tokens, "rows": Rows, "lens": Lens, "applied": Applied, "gap": Gap, "finished": Finished,
    "error": Error, "pong": Pong,
}  # fmt: skip

JsonDict = dict[str, Any]
