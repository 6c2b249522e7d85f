"""Where the decoder layers, the final norm and the unembedding are in a vLLM model.

Two forms of decoder layer exist in vLLM:

pair    returns `(hidden_states, residual)`: the residual stream after the layer is the sum of the two, and
        what is added to `hidden_states` is added to the stream.
single  returns the stream itself, as a tensor or first in a tuple. vLLM's Transformers backend adds a leading
        batch axis of 1.

What a model looks like does not tell for certain which form its layers have, nor which of its lists of
modules are the layers. So all layouts that it may have are found here, the likeliest first, and the first one
that is proved on a real forward pass is taken (`proof.py`): a wrong pair of tensors would draw a plausible,
wrong heatmap. Which of a layer's modules says what attention adds is nothing that a proof before the first
run can tell: it is known for classes of layers that were compared with transformers, and the others do
without the split by part.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Form = Literal["pair", "single"]

ATTENTION = {
    # vLLM's own classes and, where vLLM serves a model through transformers, transformers' classes of the
    # same name.
    "LlamaDecoderLayer": "self_attn",
    "MistralDecoderLayer": "self_attn",
    "Qwen2DecoderLayer": "self_attn",
    "Qwen3DecoderLayer": "self_attn",
    "Phi3DecoderLayer": "self_attn",
    "MixtralDecoderLayer": "self_attn",
    "OPTDecoderLayer": "self_attn",
    "GPT2Block": "attn",
    "GPTNeoXLayer": "attention",
    # What attention adds is normalised once more before it is added.
    "Gemma2DecoderLayer": "post_attention_layernorm",
    "Gemma3DecoderLayer": "post_attention_layernorm",
    "Olmo2DecoderLayer": "post_attention_layernorm",
}
"""Layer class -> its module whose output attention adds to the stream."""

USUAL = ("positions", "hidden_states", "residual")
FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm", "norm_f", "norm_out")
TEMPLATE_KEYS = ("layers", "form", "attention", "norm")


class UnsupportedModelError(RuntimeError):
    """The model's layers are not laid out in a way the observer can read truthfully."""


@dataclass(frozen=True)
class Layout:
    """The modules of one loaded model that the observer attaches to."""

    layers: list[torch.nn.Module]
    """The decoder layers, 0 first."""
    form: Form
    attention: list[torch.nn.Module] | None
    """Per layer the module whose output attention adds to the stream; None where the layer's update is not
    the sum of its parts, or nobody knows."""
    final: list[torch.nn.Module]
    """Modules between the last layer's stream and the unembedding, in order: the final norm, mostly."""
    unembed: Callable[[torch.Tensor], Any]
    """[tokens, hidden_size] -> [tokens, vocab_size] logits; on tensor-parallel ranks but the first maybe
    None."""
    parameters: list[tuple[str, ...]] = field(default_factory=list)
    """Per layer the names of what it is called with; without any, `USUAL`."""
    where: str = ""
    """Path of the list of layers in the model."""
    compared: bool = True
    """Whether `attention` was named for a class of layers that was compared with transformers, pushes there
    too. What a pass has shown (`parts.py`) is read and not pushed."""

    @property
    def count(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    def entering(self, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int = 0) -> torch.Tensor:
        """What a layer is called with as `hidden_states`, [tokens, hidden_size]: the residual stream where it
        has no residual."""
        return _flat(self._argument("hidden_states", args, kwargs, layer))

    def residual(self, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int) -> torch.Tensor | None:
        """What a layer in the pair form is called with as `residual`; None for the first one."""
        found: torch.Tensor | None = self._argument("residual", args, kwargs, layer)
        return found

    def _argument(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], layer: int) -> Any:
        names = self.parameters[layer] if self.parameters else USUAL
        return kwargs[name] if name in kwargs else args[names.index(name)]

    def leaving(self, output: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A layer's output as (hidden, residual), each [tokens, hidden_size]; no residual in the single form.

        The stream is their sum; what is added to `hidden` in place is added to the stream.
        """
        if self.form == "pair":
            return output[0], output[1]
        return _flat(output[0] if isinstance(output, tuple) else output), None

    def finish(self, stream: torch.Tensor) -> torch.Tensor:
        """From the last layer's stream to what is unembedded; [tokens, hidden_size] both."""
        for module in self.final:
            stream = first(module(stream))
        return stream


def first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _flat(hidden: torch.Tensor) -> torch.Tensor:
    return hidden[0] if hidden.dim() == 3 else hidden


def part(output: Any) -> torch.Tensor:
    """What a part of a layer adds to the stream, from its module's output: [tokens, hidden_size]."""
    return _flat(first(output))


def parse_template(text: str) -> dict[str, str]:
    """`layers=PATH,form=pair|single,attention=NAME,norm=PATH` as a map; raises ValueError with a sentence."""
    found: dict[str, str] = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (word.strip() for word in item.partition("="))
        if key not in TEMPLATE_KEYS or not equals or not value:
            raise ValueError(f"{item!r} is not one of {', '.join(f'{key}=...' for key in TEMPLATE_KEYS)}.")
        found[key] = value
    if found.get("form", "pair") not in ("pair", "single"):
        raise ValueError(f"form={found['form']} is neither pair nor single.")
    if found and "layers" not in found:
        raise ValueError("A layout must say where the layers are, such as layers=model.layers.")
    return found


def possible_layouts(model: Any, expected_layers: int, template: str = "") -> list[Layout]:
    """All layouts that a loaded vLLM model may have, the likeliest first; at least one.

    Args:
        model: the torch module that vLLM loaded.
        expected_layers: number of decoder layers by the model's configuration.
        template: `--layout`, which overrides what would be found; see `parse_template`.

    Raises:
        UnsupportedModelError: not laid out in a way that is known, with a sentence that says what was found.
    """
    name = type(model).__name__
    said = parse_template(template)
    found: list[Layout] = []
    for path, layers in _lists(model, name, expected_layers, said.get("layers")).items():
        parameters = [tuple(inspect.signature(type(layer).forward).parameters)[1:] for layer in layers]
        if not all("hidden_states" in names for names in parameters):
            continue
        kinds = {type(layer).__name__ for layer in layers}
        known = ATTENTION.get(next(iter(kinds)), "") if len(kinds) == 1 and not said else ""
        parent, _, _ = path.rpartition(".")
        owner = model.get_submodule(parent) if parent else model
        found.extend(
            Layout(
                layers=list(layers),
                form="pair" if form == "pair" else "single",
                attention=_attention(layers, said.get("attention") or known),
                final=_final(model, owner, said.get("norm")),
                unembed=model.compute_logits,
                parameters=parameters,
                where=path,
            )
            for form in ([said["form"]] if "form" in said else _forms(parameters))
        )
    if not found:
        raise UnsupportedModelError(
            f"The layers of {name} take no `hidden_states`, and Steersight reads those that do. Serve "
            "another model."
        )
    return found


def _lists(model: Any, name: str, expected: int, path: str | None) -> dict[str, Any]:
    """The lists of modules that may be the decoder's layers, by their paths."""
    import torch

    lists = {
        where: module for where, module in model.named_modules() if isinstance(module, torch.nn.ModuleList)
    }
    if path is not None:
        if path not in lists:
            raise UnsupportedModelError(
                f"{name} has no list of layers at {path!r}. Correct layers= of --layout."
            )
        if len(lists[path]) != expected:
            raise UnsupportedModelError(
                f"{name} has {len(lists[path])} layers at {path}, and its configuration names {expected}. A "
                "part of the model would stay unseen."
            )
        return {path: lists[path]}
    found = {where: module for where, module in lists.items() if len(module) == expected}
    if not found:
        sizes = ", ".join(f"{len(module)} at {where}" for where, module in lists.items()) or "none"
        raise UnsupportedModelError(
            f"{name} should have a list of {expected} layers, and has {sizes}. Say which one is the decoder "
            "with --layout layers=PATH."
        )
    return found


def _forms(parameters: list[tuple[str, ...]]) -> list[Form]:
    return ["pair", "single"] if all("residual" in names for names in parameters) else ["single"]


def _attention(layers: Any, name: str) -> list[torch.nn.Module] | None:
    if not name:
        return None
    if any(getattr(layer, "do_layer_norm_before", True) is False for layer in layers):
        return None  # OPT-350m normalises the stream itself, so no part is simply added
    modules = [getattr(layer, name, None) for layer in layers]
    if any(module is None for module in modules):
        raise UnsupportedModelError(
            f"{type(layers[0]).__name__} has no {name!r}, where attention's part should be read. Correct "
            "attention= of --layout, or leave it out and do without the split by part."
        )
    return [module for module in modules if module is not None]


def _final(model: Any, owner: Any, path: str | None) -> list[torch.nn.Module]:
    if path is not None:
        return [model.get_submodule(path)]
    norms = [getattr(owner, name) for name in FINAL_NORMS if getattr(owner, name, None) is not None]
    # OPT goes from its hidden size to that of its embeddings before it unembeds.
    more = [module] if (module := getattr(owner, "project_out", None)) is not None else []
    return [*norms[:1], *more]
