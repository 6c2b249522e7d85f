"""What a run is asked for with: from Python's words to the frame that asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from ..protocol.messages import ChatMessage, LensOptions, Sampling, Start, VectorSetting
from ..protocol.parts import TemplateValue

Messages = Sequence[Mapping[str, str | None]]


class How(TypedDict, total=False):
    """How a run is started, beside its messages: the fields of `messages.Start`, which says what each means.
    None is a field's default."""

    adapter: str | None
    edits: Sequence[str] | None
    sampling: Sampling | None
    strengths: Mapping[str, float] | None
    settings: Mapping[str, VectorSetting] | None
    write_on: bool
    prefix_ids: Sequence[int]
    template: Mapping[str, TemplateValue] | None
    metrics: Sequence[str] | None
    lens: LensOptions | None
    entropy: bool
    alternatives: int
    prompt_rows: bool
    rows_from: int
    read_cache: bool


class Asked(How):
    """One run of several that are started together."""

    messages: Messages


def start_frame(name: str, messages: Messages, **how: Unpack[How]) -> Start:
    """The frame that asks for one run.

    Raises: pydantic's ValidationError for what no server takes.
    """
    said = [ChatMessage.model_validate(dict(message)) for message in messages]
    fields = {field: _plain(value) for field, value in how.items() if value is not None}
    return Start.model_validate({"id": name, "messages": said, **fields})


def _plain(value: object) -> object:
    """Lists and dicts of what is like one: the wire's models take nothing else."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return value
