"""What a server says of itself: its engine, its model, its metrics and vectors, and what it accepts."""

from typing import Annotated, Literal

from pydantic import Field

from .parts import (
    MAX_BEGINNING,
    Count,
    EditName,
    Frame,
    Identifier,
    MetricId,
    Operator,
    Origin,
    OrNewer,
    TemplateName,
    TemplateValue,
)

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


class ExpertsInfo(Frame):
    """The experts of a layer of the model, in the layers that have some."""

    count: Count
    """Experts among which the router chooses."""
    chosen: Count
    """How many it takes for each token."""


class AdapterInfo(Frame):
    """One LoRA adapter that a run may be written with."""

    id: Identifier
    rank: Count
    """The largest rank of what it changes."""


class ThoughtMarks(Frame):
    """The texts that a thinking model writes around its thought, such as `<think>` and `</think>`."""

    start: str
    end: str


class TemplateArgument(Frame):
    """Something that the model's chat template can be told, found in the template itself."""

    name: TemplateName
    kind: Annotated[Literal["switch", "choice", "text", "number"], OrNewer]
    """`switch` is true or false, `choice` one of `choices`."""
    choices: list[str]
    default: TemplateValue | None
    """What the template takes where nothing is said; null where it does not say so plainly."""


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
    experts: ExpertsInfo | None = None
    """Null where the model has none."""
    adapters: Annotated[list[AdapterInfo], Field(default_factory=list)]
    """LoRA adapters that `start` may name."""
    thoughts: ThoughtMarks | None = None
    """For a model that thinks before it answers; null for one that does not."""
    template: list[TemplateArgument] = Field(default_factory=list)
    """What `start.template` may say."""


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
    family: Annotated[
        Literal["residual", "parts", "projection", "steering", "router", "logit_lens", "own", "live"], OrNewer
    ]
    """`live`: a block of Python in the run computes it; such a metric is described in `watched` alone."""
    cost: str
    """What computing it means for the engine."""
    default: bool
    """Whether a run that names no metrics gets it."""
    error: str | None
    """Why this metric is switched off; null when it works."""


class VectorInfo(Frame):
    """What one slider steers with: a vector that the server knows, or a function of its own files."""

    id: Identifier
    label: str
    description: str
    layers: list[int]
    range: Annotated[list[float], Field(min_length=2, max_length=2)]
    """[lo, hi]: the strengths a slider should offer; outside them text usually degenerates."""
    suggested: float
    """A strength at which the effect is plain to see."""
    kind: Annotated[Literal["direction", "feature", "function"], OrNewer]
    """A feature of a sparse autoencoder can be read as well as written. A function is code of the server's
    operator: it has no direction, no projection metrics and no file to take away."""
    operator: Operator | None
    """What it does unless a setting says otherwise; `range` and `suggested` are meant for this one. Null for
    a function, which does what it does."""
    operators: list[Operator]
    """All that it can do; none for a function."""
    feature: Count | None = None
    """Number of the feature in its autoencoder; with its layer, people's name for it: 28:8401. Null for
    directions, and where nobody noted it."""
    adapter: Identifier | None = None
    """The LoRA adapter that it was made under: it steers runs with that adapter and no others. Null for one
    of the base model, which steers any."""
    file: str | None = None
    """For a function the name of the server's file in which it stands."""
    own: bool
    """Whether it is this server's own, so that it can be deleted; bundled ones cannot."""


class EditInfo(Frame):
    """A block of Python that a notebook has installed in the engine, and that runs may name."""

    id: Identifier
    name: EditName
    """No two have the same."""
    since: float
    """When it was installed, in seconds since 1970 by the server's clock."""
    bytes: Count
    """Of its code and what it brings along, as they came."""
    runs: Count
    """How many it has acted on."""
    error: str | None
    """What it raised last, in one of them; null where it has not."""


class RunNotice(Frame):
    """A run that clients are told of who have not asked for it; `resume` lets them watch it."""

    run: Identifier
    origin: Origin
    prompt: Annotated[str, Field(max_length=MAX_BEGINNING)]
    """How its prompt begins, without special tokens."""
    since: float
    """When it was admitted, in seconds since 1970 by the server's clock."""
    state: Annotated[Literal["waiting", "writing", "finished"], OrNewer]


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
