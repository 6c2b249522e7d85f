"""What a client sends: frames that ask for a run, steer it, watch it and end it."""

from typing import Annotated, Literal

from pydantic import Field

from .parts import (
    MAX_ARGUMENTS,
    MAX_EDITS,
    MAX_MESSAGES,
    MAX_PREFIX,
    MAX_ROWS_ASKED,
    MAX_STOP_STRINGS,
    MAX_TEMPERATURE,
    MAX_TOGETHER,
    MAX_TOP,
    MIN_REPETITION_PENALTY,
    Count,
    EditName,
    Frame,
    Identifier,
    MetricId,
    Position,
    Settings,
    Strengths,
    TemplateName,
    TemplateValue,
    TokenId,
)


class ChatMessage(Frame):
    """One turn of the conversation that makes the prompt."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=200_000)]
    thought: Annotated[str, Field(max_length=200_000)] | None = None
    """Of an earlier reply: what the model thought before it wrote `content`, without the marks around it. It
    goes to chat templates that read one, and nowhere else."""


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


class Start(Frame):
    """Start a run. `id` is the client's own name for it, used to match `started` or `error` to this frame."""

    type: Literal["start"] = "start"
    id: Identifier
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    adapter: Identifier | None = None
    """The LoRA adapter to write with, one of `ModelInfo.adapters`; null is the base model."""
    sampling: Sampling = Sampling()
    edits: Annotated[list[EditName], Field(max_length=MAX_EDITS)] = []
    """Names of the edits that act in the run; the others do not. They act in the order in which they were
    installed, as far as their blocks go: one without a loop acts in the first pass."""
    strengths: Strengths = {}
    """Revision 0 of the run: in force from the first forward pass on."""
    settings: Settings = {}
    """How vectors of `strengths` act; one that is not named acts as its maker meant it."""
    write_on: bool = False
    """The last message is the beginning of the reply, and the run goes on from its end."""
    prefix_ids: Annotated[list[TokenId], Field(max_length=MAX_PREFIX)] = []
    """The reply's beginning as token ids, behind what the messages make; the run goes on from its end. A text
    may become other tokens than those that were written. Not together with `write_on`."""
    template: Annotated[dict[TemplateName, TemplateValue], Field(max_length=MAX_ARGUMENTS)] = {}
    """What the chat template is told beside the messages: arguments of `model.template` by name."""
    metrics: Annotated[list[MetricId], Field(max_length=64)] | None = None
    """Metric ids to send rows of; null means the default ones; an empty list means no rows. Those of the
    family `logit_lens` come with `lens` and need not be named."""
    lens: LensOptions | None = None
    """Read every step through the logit lens; null is off."""
    entropy: bool = False
    """Whether rows carry the entropy of the model's final distribution."""
    alternatives: Annotated[int, Field(ge=0, le=MAX_TOP)] = 0
    """So many of the likeliest tokens of the model's final distribution are named for each position that the
    model wrote; 0 is none. Rows come then also where no metric is asked for."""
    prompt_rows: bool = True
    """Whether rows of the prompt are sent too."""
    rows_from: Position = 0
    """Of the prompt's rows only those of positions from here on: those of an earlier turn have been had. What
    comes before is neither sent nor a `gap`."""
    read_cache: bool = True
    """Whether the engine may take the beginning of the prompt from its cache of prefixes. No forward pass
    runs over it then; its rows are those of the run that computed it, which the server has kept. What it has
    kept no rows of is computed all the same where that is not much, and is a `gap` with `cached` where it
    is. With false all of it is computed, and all its rows come."""


class StartTogether(Frame):
    """Start several runs that begin at the same moment and are computed in the same steps: all are admitted,
    or none. Each is answered by its own `started`; an `error` of them names this frame by its `id`, and in
    `field` which of them it is about."""

    type: Literal["start_together"] = "start_together"
    id: Identifier
    starts: Annotated[list[Start], Field(min_length=2, max_length=MAX_TOGETHER)]
    """Their ids are names like that of this frame, all different."""


class Steer(Frame):
    """Replace a run's strengths. The full set travels: a vector that is not named has strength 0."""

    type: Literal["steer"] = "steer"
    run: Identifier
    rev: Annotated[int, Field(ge=1, le=2**31 - 1)]
    """The client's number of this state; it must be larger than every number the run has had."""
    strengths: Strengths
    settings: Settings = {}


class Watch(Frame):
    """Change what a live run is watched with, from the next step of the engine on. The full set travels, with
    the meanings and defaults of `start`; the server answers `watched`. A run that waits for a place begins
    with it."""

    type: Literal["watch"] = "watch"
    run: Identifier
    metrics: Annotated[list[MetricId], Field(max_length=64)] | None = None
    lens: LensOptions | None = None
    entropy: bool = False
    alternatives: Annotated[int, Field(ge=0, le=MAX_TOP)] = 0


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


ClientFrame = Annotated[
    Hello | Start | StartTogether | Steer | Watch | Stop | Resume | AskRows | Ping,
    Field(discriminator="type"),
]

CLIENT_TYPES: dict[str, type[Frame]] = {
    "hello": Hello, "start": Start, "start_together": StartTogether, "steer": Steer, "watch": Watch,
    "stop": Stop,
    "resume": Resume, "rows": AskRows, "ping": Ping,
}  # fmt: skip
