"""What a run's sliders come to: one `Action` for each that is not at 0, with everything decided.

Actions are what the engine gets. They travel as plain maps, of which only vector and strength are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ..interventions import SteeringFunction
from ..text.thoughts import PARTS
from .operators import Operator
from .store import SteeringVector, VectorError

FUNCTION = "function"
"""In the place of an operator: what acts is a function of the server's operator (`interventions.py`)."""
MAX_AT_WORK = 16
"""Vectors that may be at work on one run at once: so many has each row of what the CUDA kernel reads."""


class TooManyVectorsError(VectorError):
    """More vectors are to be at work on one run than can be."""


class OtherAdapterError(VectorError):
    """A vector that was made under a LoRA adapter is to steer a run that is written with another model."""


@dataclass(frozen=True)
class Action:
    """One vector or function at work in one run."""

    vector: str
    strength: float
    operator: str = "add"
    lo: float = -math.inf
    hi: float = math.inf
    start: int = 1
    """First position it acts at. Position 0 is never steered: it is the attention sink, its norm is many
    times the others' and every later token attends to it, so a push there would move the whole run."""
    end: int | None = None
    """First position it does not act at any more; None is never."""
    part: str = ""
    """Part of the reply that it is confined to, `thought` or `answer`; "" is none. Which positions that is,
    the reply's own tokens decide (`text/thoughts.py`)."""
    first: int | None = None
    """With `part`: it acts in so many passes of it, and no more; None is all."""
    layers: tuple[int, int] | None = None
    """First and last layer; None is the vector's own layers."""
    serial: int = field(default=0, compare=False)
    """The vector's `SteeringVector.serial`: its id may be another vector's tomorrow. 0 is not known. Of a
    function `SteeringFunction.serial`."""

    def to_map(self) -> dict[str, Any]:
        """For the way to the worker."""
        return asdict(self)

    @classmethod
    def from_map(cls, found: Mapping[str, Any]) -> Action:
        """The inverse of `to_map`."""
        layers = found.get("layers")
        return cls(**{**found, "layers": None if layers is None else (layers[0], layers[1])})

    @property
    def acts(self) -> bool:
        """Whether it does anything. What is 0 in fp32 is 0 on the device, and would not be for an operator
        that sets to it."""
        return bool(np.float32(self.strength) != 0)

    @property
    def deed(self) -> tuple[int | str, float, str, float, float, tuple[int, int] | None]:
        """What it does to a token it acts on: two tokens with equal deeds are steered alike."""
        return self.serial or self.vector, self.strength, self.operator, self.lo, self.hi, self.layers

    @property
    def is_function(self) -> bool:
        """Whether a function is called, and no vector is pushed along."""
        return self.operator == FUNCTION

    @property
    def code(self) -> Operator:
        """Its operator's number; a function has none."""
        return Operator.named(self.operator)


def acting(actions: Iterable[Action]) -> tuple[Action, ...]:
    """Those that do anything."""
    return tuple(action for action in actions if action.acts)


Slider = SteeringVector | SteeringFunction
"""What a slider steers with."""


def decide(
    vector: Slider,
    strength: float,
    setting: Mapping[str, Any],
    prompt_tokens: int,
    layers: int,
    *,
    thinks: bool = False,
) -> Action:
    """The action of one slider.

    Args:
        vector: the slider's vector or function.
        strength: not 0.
        setting: fields of the wire's `VectorSetting`; empty is the vector's own way.
        prompt_tokens: length of the prompt.
        layers: number of the model's layers.
        thinks: whether its replies have a thought and an answer.

    Raises: VectorError with a sentence, where the vector cannot do what is asked.
    """
    lo, hi = setting.get("lo"), setting.get("hi")
    operator = _operator(vector, setting)
    if operator == "clamp" and lo is None and hi is None:
        raise VectorError(f"To clamp {vector.label}, give a smallest or a largest projection (lo, hi).")
    if lo is not None and hi is not None and lo > hi:
        raise VectorError(f"The smallest projection of {vector.label}, {lo:g}, is above its largest, {hi:g}.")
    between = setting.get("layers")
    if between is not None and not between[0] <= between[1] < layers:
        raise VectorError(
            f"{vector.label} cannot act at layers {between[0]} to {between[1]}: "
            f"the model's are 0 to {layers - 1}."
        )
    if between is not None and isinstance(vector, SteeringVector) and vector.site == "attention":
        raise VectorError(f"{vector.label} acts in the attention of its own layer only.")
    # The pass that reads the prompt's last token writes the reply's first.
    reply = max(1, prompt_tokens - 1)
    scope, first = setting.get("scope", "both"), setting.get("first")
    if scope in PARTS:
        if not thinks:
            raise VectorError(
                f"{vector.label} cannot act in the {scope} only: no marks of a thought are known of this "
                "model. Choose the reply, or start the server with --reasoning-parser."
            )
        return replace(
            decide(vector, strength, {**setting, "scope": "reply", "first": None}, prompt_tokens, layers),
            part=scope, first=first,
        )  # fmt: skip
    end = reply if scope == "prompt" else None if first is None else reply + first
    return Action(
        vector=vector.id, strength=float(strength), operator=operator,
        lo=-math.inf if lo is None else lo, hi=math.inf if hi is None else hi,
        start=reply if scope == "reply" else 1, end=end,
        layers=None if between is None else (between[0], between[1]), serial=vector.serial,
    )  # fmt: skip


def _operator(vector: Slider, setting: Mapping[str, Any]) -> str:
    """What it does. Raises VectorError where it cannot."""
    chosen = setting.get("operator")
    if isinstance(vector, SteeringFunction):
        if any(setting.get(name) is not None for name in ("operator", "lo", "hi")):
            raise VectorError(
                f"{vector.label} is a function of this server, which does what it does: it has no operators "
                "and no bounds. Leave them out."
            )
        return FUNCTION
    operator: str = chosen or vector.operator
    if operator not in vector.operators:
        raise VectorError(f"{vector.label} cannot do {operator!r}; it can do {', '.join(vector.operators)}.")
    return operator


def decide_all(
    strengths: Mapping[str, float],
    settings: Mapping[str, Mapping[str, Any]],
    vectors: Mapping[str, Slider],
    prompt_tokens: int,
    layers: int,
    adapter: str = "",
    *,
    thinks: bool = False,
) -> list[Action]:
    """Actions of all sliders that are not at 0, in the server's order.

    Args:
        strengths: of the sliders.
        settings: of those that act in another way than their vectors say.
        vectors: all there are, functions too.
        prompt_tokens: length of the prompt.
        layers: number of the model's layers.
        adapter: the LoRA adapter that the run is written with; "" is the base model.
        thinks: whether the model's replies have a thought and an answer.

    Raises: TooManyVectorsError where more are at work than can be on one reply, OtherAdapterError where one
        of them belongs to another adapter, VectorError where a vector cannot do what is asked.
    """
    at_work = [name for name in vectors if strengths.get(name)]
    for vector in map(vectors.__getitem__, at_work):
        if isinstance(vector, SteeringVector) and vector.adapter not in ("", adapter):
            raise OtherAdapterError(
                f"{vector.label} was made under the adapter {vector.adapter!r}, and this reply is written "
                f"with {f'the adapter {adapter!r}' if adapter else 'the base model'}. Set it to 0, or ask "
                f"with {vector.adapter!r}."
            )
    if len(at_work) > MAX_AT_WORK:
        raise TooManyVectorsError(
            f"This reply would be steered by {len(at_work)} vectors at once, and {MAX_AT_WORK} are the most. "
            f"Set {len(at_work) - MAX_AT_WORK} of the sliders to 0."
        )
    return [
        decide(vectors[name], strengths[name], settings.get(name, {}), prompt_tokens, layers, thinks=thinks)
        for name in at_work
    ]
