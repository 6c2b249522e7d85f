"""A person's own interventions: functions of a Python file named with `--interventions`, each one a slider.

The file is code of whoever starts the server, run in the server and its workers; nothing of it ever comes
from a client. Every public function of it that takes `(hidden, context, strength)` steers:

    def quieter(hidden, context, strength):
        '''Quieter

        Makes the stream shorter: at strength 1 nothing is left of it.
        '''
        return hidden * (1 - strength)

Its name is the slider's id, the first line of its docstring the label, the rest of it the description.
`@intervention(...)` above it says at which layers it acts, and which strengths are worth offering; without
it the function acts after the middle layer, from 0 to 1.

`hidden` is [tokens, hidden_size] fp32 on the model's device, whatever type the model computes in: the
residual stream after one layer (and after the vectors there), of those tokens of one run that this forward
pass computes and the slider steers. The first token of a prompt is never among them. A prompt comes in pieces
where it is long, and a reply token by token. What the function gives is the stream in its place: a floating
point tensor of the same shape. It may change `hidden` in place, and still has to give it back. `strength` is
the slider's number; at 0 the function is not called.

A function that raises, gives anything else or a number that is not finite ends the run that it was to steer,
with a sentence that names it, and no other run. With tensor parallelism each rank calls it, and each must
come to the same: what is random needs a seed of its own. While it acts, the steps of all runs are not
replayed from CUDA graphs.

Importing this module imports neither torch nor an engine.
"""

from __future__ import annotations

import inspect
import itertools
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .python_files import import_file

if TYPE_CHECKING:
    import torch

OPTION = "--interventions"
PARAMETERS = ["hidden", "context", "strength"]
MAX_DOCSTRING = 4000
DECLARED = "steersight_intervention"
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")
_serials = itertools.count(1)


class InterventionError(ValueError):
    """A file or a function that cannot be used, or what one has given; the message is a sentence."""


@dataclass(frozen=True)
class Context:
    """What a function is told beside the stream."""

    layer: int
    """After which decoder layer it is called, from 0."""
    layers: int
    """How many the model has."""
    positions: torch.Tensor
    """[tokens] int64: where each token stands in prompt and reply together, from 0."""
    token_ids: torch.Tensor
    """[tokens] int64: which token stands there."""
    prompt_tokens: int
    """How many tokens the prompt has; at this position the reply begins."""
    device: torch.device
    dtype: torch.dtype
    """What the model computes in. `hidden` is fp32 in any case."""
    direction: Callable[[str], torch.Tensor]
    """The direction [hidden_size] of one of the server's vectors at this layer, fp32 and of length 1. Where
    the vector has none here, that of its nearest layer. Raises InterventionError where there is none."""
    text: Callable[[int], str]
    """The text of one token."""
    tokens: Callable[[str], list[int]]
    """The tokens of a text, without any that the tokenizer would put around it."""


Function = Callable[["torch.Tensor", Context, float], "torch.Tensor"]
Layers = int | Sequence[int] | Literal["all"]


def intervention(
    *,
    layers: Layers | None = None,
    range: tuple[float, float] = (0.0, 1.0),  # noqa: A002 - the name it has everywhere
    suggested: float | None = None,
    label: str = "",
    per_token: bool = False,
) -> Callable[[Function], Function]:
    """Say more of a function than its docstring does.

    Args:
        layers: after which it acts, unless a run says otherwise: one, several, or "all"; a negative number
            counts from the last one. None is the middle layer.
        range: [lo, hi], the strengths that its slider offers.
        suggested: one of them with a plain effect; None is `hi`.
        label: of the slider, in the place of the docstring's first line.
        per_token: True says that what it does to a token depends on nothing but that token's part of
            `hidden`, its id, its position and the strength: not on the other tokens of the pass, on
            `prompt_tokens`, on what it remembers, or on a vector that may be another one tomorrow. What has
            been read of a prompt is then kept for the next run that begins alike; else it is read again.
    """

    def declare(function: Function) -> Function:
        function.__dict__[DECLARED] = {
            "layers": layers, "range": range, "suggested": suggested, "label": label, "per_token": per_token,
        }  # fmt: skip
        return function

    return declare


def _serial() -> int:
    # Negative: those of vectors are not.
    return -next(_serials)


@dataclass(frozen=True, eq=False)
class SteeringFunction:
    """One function as a slider: what a client is told of it, and what is called."""

    id: str
    label: str
    description: str
    layers: list[int]
    """After which it acts, ascending."""
    range: tuple[float, float]
    suggested: float
    file: Path
    call: Function
    per_token: bool
    _own_serial: int = field(init=False, default_factory=_serial)

    @property
    def serial(self) -> int:
        """As `SteeringVector.serial`: what two tokens have in common that it has acted on alike. Where what
        it does to a token depends on more than the token, no two runs have anything in common."""
        return self._own_serial if self.per_token else _serial()


def load_functions(files: Iterable[str], model_layers: int) -> dict[str, SteeringFunction]:
    """The functions of these files by id, in the order in which they stand there.

    Args:
        files: paths.
        model_layers: how many layers the served model has.

    Raises:
        InterventionError: with a sentence, where a file or a function of it cannot be used.
    """
    found: dict[str, SteeringFunction] = {}
    for file in files:
        path = Path(file)
        mine = _functions_of(path, model_layers)
        if not mine:
            raise InterventionError(
                f"{path} has no public function (hidden, context, strength), so nothing in it steers."
            )
        for function in mine:
            if function.id in found:
                raise InterventionError(
                    f"{path} and {found[function.id].file} both have a function {function.id!r}. Rename one."
                )
            found[function.id] = function
    return found


def check_names(functions: Iterable[SteeringFunction], vectors: Collection[str]) -> None:
    """Raise InterventionError where a function has the id of a vector."""
    for function in functions:
        if function.id in vectors:
            raise InterventionError(
                f"{function.file} has a function {function.id!r}, and there is a vector of that name. "
                "Rename the function."
            )


def _functions_of(path: Path, model_layers: int) -> list[SteeringFunction]:
    module = import_file(path, OPTION, InterventionError)
    found = []
    for name, value in vars(module).items():
        if name.startswith("_") or not inspect.isfunction(value) or value.__module__ != module.__name__:
            continue  # what it has imported is its own business
        declared: Mapping[str, Any] | None = vars(value).get(DECLARED)
        parameters = list(inspect.signature(value).parameters)
        if parameters != PARAMETERS:
            if declared is None and parameters[:1] != PARAMETERS[:1]:
                continue  # a helper
            raise InterventionError(
                f"{path}: the function {name!r} takes ({', '.join(parameters)}), and one that steers takes "
                "(hidden, context, strength). A helper's name begins with an underscore."
            )
        found.append(_described(path, name, value, declared or {}, model_layers))
    return found


def _described(
    path: Path, name: str, function: Function, declared: Mapping[str, Any], model_layers: int
) -> SteeringFunction:
    whose = f"{path}: the function {name!r}"
    said = inspect.cleandoc(function.__doc__ or "").strip()
    if not said:
        raise InterventionError(f"{whose} has no docstring. Its slider needs a name: the first line of one.")
    if len(said) > MAX_DOCSTRING:
        raise InterventionError(f"{whose} has a docstring of more than {MAX_DOCSTRING} characters.")
    if not _ID.match(name):
        raise InterventionError(f"{whose} needs a name of 1 to 64 letters and digits of ASCII, or any of _.")
    lo, hi, suggested = _strengths(whose, declared.get("range", (0.0, 1.0)), declared.get("suggested"))
    layers = _layers(whose, declared.get("layers"), model_layers)
    first, _, rest = said.partition("\n")
    return SteeringFunction(
        id=name, label=declared.get("label") or first.rstrip("."), description=_paragraphs(rest) or first,
        layers=layers, range=(lo, hi), suggested=suggested, file=path, call=function,
        per_token=bool(declared.get("per_token")),
    )  # fmt: skip


def _paragraphs(text: str) -> str:
    """A docstring as people read it: one line for each paragraph, however the file wraps them; what is set in
    or is a list stays as it is."""
    paragraphs = re.split(r"\n\s*\n", text.strip("\n "))
    return "\n\n".join(
        one if re.search(r"^(?:\s|[-*] )", one, re.MULTILINE) else " ".join(one.split()) for one in paragraphs
    )


def _strengths(whose: str, limits: Any, suggested: Any) -> tuple[float, float, float]:
    try:
        lo, hi = map(float, limits)
        chosen = hi if suggested is None else float(suggested)
    except (TypeError, ValueError):
        raise InterventionError(
            f"{whose} has a range or a suggested strength that is no number: {limits!r}, {suggested!r}."
        ) from None
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi and lo <= chosen <= hi):
        raise InterventionError(
            f"{whose} offers strengths from {lo:g} to {hi:g} and suggests {chosen:g}. Give two finite "
            "numbers, the smaller one first, and suggest one between them."
        )
    return lo, hi, chosen


def _layers(whose: str, wanted: Layers | None, model_layers: int) -> list[int]:
    if wanted is None:
        return [model_layers // 2]
    if wanted == "all":
        return list(range(model_layers))
    try:
        named = [operator.index(layer) for layer in (wanted if isinstance(wanted, Iterable) else [wanted])]
    except TypeError:
        raise InterventionError(
            f"{whose} acts after the layers {wanted!r}. Give a whole number, several, or 'all'."
        ) from None
    found = sorted({layer + model_layers if layer < 0 else layer for layer in named})
    if not found or found[0] < 0 or found[-1] >= model_layers:
        raise InterventionError(
            f"{whose} acts after the layers {named}, and the served model's are 0 to {model_layers - 1}."
        )
    return found
