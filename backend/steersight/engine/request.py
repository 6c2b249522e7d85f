"""A generation as it is asked for: the one spelling of a request on both sides of the process border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from typing import Any

from ..text.thoughts import Opening
from ..vectors.action import Action
from .tracing.asked import Block


@dataclass(frozen=True)
class Wants:
    """What a run has asked to see."""

    metrics: tuple[str, ...] = ()
    entropy: bool = False
    """Entropy of the final distribution, per token."""
    lens_stride: int = 0
    """Logit lens at every so many layers, counted down from the last; 0 is off."""
    lens_top: int = 0
    """How many likeliest tokens the logit lens names per layer."""
    alternatives: int = 0
    """So many of the likeliest tokens of the final distribution, per token; they need no rows."""
    sums: bool = False
    """Sums of the stream over its tokens, kept in the worker until they are fetched."""

    @property
    def no_rows(self) -> bool:
        """Whether nothing is to be computed from this run's streams."""
        return not (self.metrics or self.entropy or self.lens_stride or self.sums)

    def to_map(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"metrics": list(self.metrics)}

    @classmethod
    def from_map(cls, told: Mapping[str, Any]) -> Wants:
        """The inverse of `to_map`; what is not named is not wanted, and other names are let be."""
        mine = {field.name: told[field.name] for field in fields(cls) if field.name in told}
        return cls(**mine | {"metrics": tuple(told.get("metrics", ()))})


@dataclass(frozen=True)
class RunOptions:
    """What the worker has to know of a run beside its prompt and its sampling."""

    run: str
    _: KW_ONLY
    first_row: int = 0
    """Rows of positions below this are not wanted."""
    wants: Wants = field(default_factory=Wants)
    watch: int = 0
    """Number of what `wants` is; a change has another (`RunStates.watch`)."""
    actions: tuple[Action, ...] = ()
    """What steers it from the first pass on."""
    rev: int = 0
    """Number of the state that `actions` are."""
    read_most: int | None = None
    """So many tokens of its prompt may come from the cache, and no more; None is any number."""
    adapter: str = ""
    """Name of the LoRA adapter that it is computed with; "" is the base model."""
    opening: Opening | None = None
    """Where its reply begins, for a model that thinks: whoever parts the reply begins with this."""

    def to_wire(self) -> dict[str, Any]:
        """As plain values, for the way to the worker."""
        return {
            "run": self.run, "rev": self.rev, "actions": [action.to_map() for action in self.actions],
            "first_row": self.first_row, **self.wants.to_map(), "watch": self.watch,
            "read_most": self.read_most, "adapter": self.adapter,
            "opening": None if self.opening is None else self.opening.to_map(),
        }  # fmt: skip

    @classmethod
    def from_wire(cls, told: Mapping[str, Any]) -> RunOptions:
        """The inverse of `to_wire`; only `run` is needed."""
        return cls(
            run=told["run"],
            rev=told.get("rev", 0),
            actions=tuple(map(Action.from_map, told.get("actions", ()))),
            first_row=told.get("first_row", 0),
            read_most=told.get("read_most"),
            adapter=told.get("adapter", ""),
            opening=None if told.get("opening") is None else Opening.from_map(told["opening"]),
            wants=Wants.from_map(told),
            watch=told.get("watch", 0),
        )


@dataclass(frozen=True)
class RunRequest:
    """One generation, in the engine's terms."""

    prompt_ids: list[int]
    sampling: dict[str, Any]
    """Keyword arguments of vLLM's SamplingParams."""
    options: RunOptions
    block: Block | None = None
    """Code that runs in its passes."""
    edits: tuple[str, ...] = ()
    """Names of those that act in it."""
    read_cache: bool = True
    """Whether the beginning of the prompt may come from the cache of prefixes: without a pass, and so without
    rows. What is summed is computed in any case."""

    @property
    def run(self) -> str:
        """Its name."""
        return self.options.run
