"""What a server sends: who it is, and the events of runs.

Positions count tokens of prompt and reply together from 0. Row p belongs to the forward pass whose input
was token p, so the last token of a reply has no row. `seq` numbers the events of one run from 1; both run
ids and sequence numbers mean something only together with the `epoch` of the welcome they came after.
"""

from typing import Annotated, Literal

from pydantic import Field

from .client_frames import LensOptions, Sampling
from .descriptions import (
    EditInfo,
    EngineState,
    EngineStatus,
    Limits,
    MetricInfo,
    ModelInfo,
    RunNotice,
    VectorInfo,
)
from .parts import (
    MAX_NAME,
    PROTOCOL_VERSION,
    Count,
    EditName,
    ErrorCode,
    Frame,
    Identifier,
    MetricId,
    Origin,
    OrNewer,
    Revision,
    Settings,
    Strengths,
)


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
    change_model: bool = False
    """Whether whoever is let in may change the model (`POST /api/model`)."""
    edits: list[EditInfo] = Field(default_factory=list)
    """What `start` may name as `edits`, in the order in which they act."""


class Engine(Frame):
    """The engine's state changed, or a metric failed. `model` and `vectors` come once they are known, and are
    others when the model has been changed."""

    type: Literal["engine"] = "engine"
    state: EngineState
    stage: str
    progress: Annotated[float, Field(ge=0, le=1)]
    model: ModelInfo | None
    metrics: list[MetricInfo]
    vectors: list[VectorInfo]


class Edits(Frame):
    """The edits that there are now; sent when they have changed, or a run has been begun with one."""

    type: Literal["edits"] = "edits"
    edits: list[EditInfo]


class NotebookRuns(Frame):
    """The newest runs of notebooks that the server keeps, live ones and finished ones, the newest first. Sent
    after `welcome` where there are any, and whenever they have changed: whatever is not named is kept no
    longer, or there are too many newer ones."""

    type: Literal["notebook_runs"] = "notebook_runs"
    runs: list[RunNotice]


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
    model: str = ""
    """Id of the model that writes it: that of the server may have been changed since. Empty where a server
    does not say."""
    adapter: Identifier | None = None
    """The LoRA adapter that it is written with; null is the base model."""
    strengths: Strengths | None = None
    """Of revision 0, in force from the first forward pass on unless an `applied` says otherwise. This and the
    next two are null where a server does not say."""
    settings: Settings | None = None
    """Of revision 0: how the vectors of `strengths` act."""
    sampling: Sampling | None = None
    """How its tokens are drawn, as `start` asked for it; `max_tokens` is what there is room for."""
    edits: list[EditName] = Field(default_factory=list)
    """Those that act in it."""
    origin: Origin = "chat"
    """What asked for it. The prompt of a notebook's run is a text without messages, so it has no spans."""


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


class Part(Frame):
    """A part of the reply has begun, or is about to: it reaches to the next part or to the reply's end. Only
    models with `thoughts` have any. A reply that begins with an answer has no thought."""

    type: Literal["part"] = "part"
    run: Identifier
    seq: Count
    part: Annotated[Literal["thought", "answer"], OrNewer]
    start: Count
    """Position of its first token; the pass of the position before writes it, and is the first that a vector
    of this scope acts in. Tokens of the reply before the thought are the mark that begins it; the mark that
    ends it is its last."""


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


class Alternatives(Frame):
    """The likeliest tokens of the model's final distribution, before temperature and the like: what could
    have been written instead."""

    type: Literal["alternatives"] = "alternatives"
    run: Identifier
    seq: Count
    start: Count
    """Position of the first; what is named here was for the position after each. The first of a run is that
    of the prompt's last token."""
    count: Count
    top: Count
    ids: bytes
    """count x top int32, C order, little endian, likeliest first."""
    logprobs: bytes
    """count x top single-precision floats, natural logarithms, little endian."""
    new_ids: list[Count]
    """Tokens that `alternatives` of this run have not named yet."""
    new_texts: list[str]
    """Their texts."""


class Applied(Frame):
    """The first row computed with revision `rev` has come back; it is the row of `position`."""

    type: Literal["applied"] = "applied"
    run: Identifier
    seq: Count
    rev: Revision
    position: Count
    strengths: Strengths | None = None
    """Of this revision, as its `steer` said them. This and `settings` are null where the server does not say:
    one keeps a few megabytes of them for each run."""
    settings: Settings | None = None


class Watched(Frame):
    """What the run is watched with has changed: the row of `position` is the first that was computed so. Rows
    before it have the columns of before."""

    type: Literal["watched"] = "watched"
    run: Identifier
    seq: Count
    position: Count
    metrics: list[MetricId]
    """Of its rows, those of the logit lens among them."""
    lens: LensOptions | None
    entropy: bool
    alternatives: Count
    live: list[MetricInfo] = Field(default_factory=list)
    """What those of `metrics` are that a block of Python in the run computes: `live:NAME`. Nobody can ask for
    them."""


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
    | Edits
    | NotebookRuns
    | Started
    | Resumed
    | Queued
    | Tokens
    | Part
    | Rows
    | Lens
    | Alternatives
    | Applied
    | Watched
    | Gap
    | Finished
    | Error
    | Pong,
    Field(discriminator="type"),
]

SERVER_TYPES: dict[str, type[Frame]] = {
    "welcome": Welcome, "engine": Engine, "edits": Edits, "notebook_runs": NotebookRuns,
    "started": Started,
    "resumed": Resumed, "queued": Queued, "tokens": Tokens, "part": Part, "rows": Rows,
    "lens": Lens, "alternatives": Alternatives,
    "applied": Applied, "watched": Watched, "gap": Gap, "finished": Finished, "error": Error, "pong": Pong,
}  # fmt: skip
