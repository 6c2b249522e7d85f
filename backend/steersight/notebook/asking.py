"""A question as people write it in a notebook, as what the client asks with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from ..client.asking import How, Messages
from ..protocol.messages import LensOptions, Sampling, VectorSetting


class Options(TypedDict, total=False):
    """How a run is asked for, beside its question. `protocol.messages.Start` and `Sampling` say what each
    means and what it is where it is not given."""

    system: str | None
    strengths: Mapping[str, float] | None
    settings: Mapping[str, VectorSetting] | None
    metrics: Sequence[str] | None
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int | None
    stop: Sequence[str]
    repetition_penalty: float
    adapter: str | None
    edits: Sequence[str] | None
    template: Mapping[str, str | bool] | None
    lens: LensOptions | None
    entropy: bool
    alternatives: int
    write_on: bool
    read_cache: bool


def asked(question: str | Messages, options: Options) -> tuple[Messages, How]:
    """The conversation and the rest. Raises pydantic's ValidationError for what no server takes."""
    rest: dict[str, Any] = dict(options)
    system = rest.pop("system", None)
    drawn = {name: rest.pop(name) for name in Sampling.model_fields if name in rest}
    if drawn:
        if "stop" in drawn:
            drawn["stop"] = list(drawn["stop"])
        rest["sampling"] = Sampling.model_validate(drawn)
    messages: Messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    return messages, cast(How, rest)
