"""`meta.json`: what the numbers of a recording mean, as models that validate what they are made of.

They are strict where they are made. `read_meta` is lenient as a client is with a newer server: it leaves out
fields that it does not know, and keeps words of `OrNewer`. Whether meta agrees with itself is checked here;
whether it agrees with the members, in `reader.py`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..protocol.messages import (
    READING,
    Frame,
    LensOptions,
    MetricInfo,
    ModelInfo,
    RunError,
    Sampling,
    Span,
    Timing,
    Usage,
    VectorInfo,
    VectorSetting,
)
from ..protocol.parts import Count, MetricId, Origin, OrNewer, Revision, TemplateValue
from .errors import RecordingError, shown

FORMAT: Final = "steersight-recording"
VERSION: Final = 1
META = "meta.json"
MAX_META_BYTES = 32 << 20


class RevisionInfo(Frame):
    """One state of the sliders."""

    rev: Revision
    position: Count
    """Of the first row computed with it."""
    strengths: dict[str, float] | None
    """By the names of vectors; null where whoever recorded it was not told."""
    settings: dict[str, VectorSetting] = Field(default_factory=dict)


class Watched(Frame):
    """What a run was watched with from a position on."""

    from_: Count = Field(alias="from")
    metrics: list[MetricId]
    lens: LensOptions | None = None
    entropy: bool = False
    alternatives: Count = 0
    """How many of the likeliest tokens of the final distribution; 0 is none."""


class PromptInfo(Frame):
    """How many of the run's tokens are its prompt, and which message made which of them."""

    tokens: Count
    spans: list[Span]


class Parts(Frame):
    """Position of the first token of the reply's parts; null where there is none, or it is not known yet."""

    thought: Count | None = None
    answer: Count | None = None


class Ended(Frame):
    """As in the `finished` frame."""

    reason: Annotated[Literal["stop", "length", "cancelled", "error"], OrNewer]
    stop: str | None
    error: RunError | None
    usage: Usage
    timing: Timing


class Problem(Frame):
    """Why no more of a run came here, though it may have gone on."""

    code: str
    message: str


class RunInfo(Frame):
    """One run: what its members mean."""

    name: str | None = None
    """The server's name for it."""
    server: str = ""
    epoch: str | None = None
    model: ModelInfo | None = None
    """As in `welcome` when it was written; null where that is not known."""
    adapter: str | None = None
    origin: Origin = "chat"
    edits: list[str] = Field(default_factory=list)
    """Names of the edits that acted in it."""
    metrics: list[MetricInfo]
    """Those whose rows are here, in the order of the run."""
    vectors: list[VectorInfo] = Field(default_factory=list)
    """Those that its revisions name."""
    sampling: Sampling | None = None
    template: dict[str, TemplateValue] = Field(default_factory=dict)
    prompt: PromptInfo
    revisions: list[RevisionInfo] = Field(default_factory=list)
    watched: list[Watched] = Field(default_factory=list)
    parts: Parts = Parts()
    cached: list[Annotated[list[Count], Field(min_length=2, max_length=2)]] = Field(default_factory=list)
    """[start, count] of positions without a row, because they were in the engine's cache of prefixes."""
    finished: Ended | None = None
    """Null: it was not over."""
    problem: Problem | None = None
    remembered: str | None = None
    """The reply as it was read, where none of its tokens are here any more: a page that was reloaded."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [metric.id for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ValueError("a metric stands twice in `metrics`")
        revs = [revision.rev for revision in self.revisions]
        if any(later <= rev for rev, later in pairwise(revs)):
            raise ValueError("`revisions` do not ascend")
        if any(span.start > span.end or span.end > self.prompt.tokens for span in self.prompt.spans):
            raise ValueError("a span of `prompt` does not lie in it")
        if any(start + count > self.prompt.tokens for start, count in self.cached):
            raise ValueError("`cached` names positions beyond the prompt")
        return self


def unknown_metric(name: str) -> MetricInfo:
    """A metric that nobody describes: its rows are kept, and nobody says what they mean."""
    return MetricInfo.model_validate(
        {
            "id": name, "label": name, "description": "", "unit": "", "transform": "unknown",
            "scale": {"kind": "sequential", "lo": None, "hi": None}, "family": "own", "cost": "",
            "default": False, "error": None,
        },
        context=READING,
    )  # fmt: skip


class Turn(Frame):
    """One question and its reply; turns are a tree."""

    id: str
    parent: str | None = None
    user: str
    before: list[Count] = Field(default_factory=list)
    """Runs that wrote the beginning of the reply, the oldest first."""
    run: Count
    """The run that wrote the rest, or all of it."""


class Meta(Frame):
    """All of `meta.json`."""

    format: Literal["steersight-recording"] = FORMAT
    version: Literal[1] = VERSION
    made_by: str = ""
    made_at: str = ""
    """ISO 8601, in UTC."""
    title: str = ""
    turns: list[Turn]
    runs: list[RunInfo]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if any(run >= len(self.runs) for turn in self.turns for run in (*turn.before, turn.run)):
            raise ValueError("a turn names a run that is not there")
        parents = {turn.id: turn.parent for turn in self.turns}
        if len(parents) != len(self.turns):
            raise ValueError("two turns have the same id")
        settled: set[str] = set()
        for turn in self.turns:
            path: set[str] = set()
            at: str | None = turn.id
            while at is not None and at not in settled:
                if at in path:
                    raise ValueError("turns are parents of one another in a circle")
                if at not in parents:
                    raise ValueError("a turn's parent is not there")
                path.add(at)
                at = parents[at]
            settled |= path
        return self


class _Version(Frame):
    format: str
    version: int


def read_meta(data: bytes) -> Meta:
    """Meta of a file's bytes. Raises RecordingError."""
    how: dict[str, Any] = {"extra": "ignore", "context": READING}
    try:
        found = _Version.model_validate_json(data, **how)
    except ValidationError as error:
        raise RecordingError(f"{META} is not that of a recording: {_first(error)}.") from None
    if found.format != FORMAT:
        raise RecordingError(f"{META} is of the format {shown(found.format)!r}, not of {FORMAT!r}.")
    if found.version > VERSION:
        raise RecordingError(
            f"It was made by a newer Steersight: version {found.version}, this one reads {VERSION}. "
            "Update Steersight to open it."
        )
    try:
        return Meta.model_validate_json(data, **how)
    except ValidationError as error:
        raise RecordingError(f"{META} is damaged: {_first(error)}.") from None


def meta_bytes(meta: Meta) -> bytes:
    """Meta as it stands in a file."""
    # Words that only a newer server knows are written as they came.
    return meta.model_dump_json(by_alias=True, warnings=False).encode()


def _first(error: ValidationError) -> str:
    """The first thing wrong, with the path of its field."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = shown(".".join(str(part) for part in problem["loc"] if part != "[key]"))
    what = problem["msg"].removeprefix("Value error, ").rstrip(".")
    what = shown(what[0].lower() + what[1:])
    return f"`{path}`: {what}" if path else what
