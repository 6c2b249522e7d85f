"""Where the decoder layers, the final norm and the unembedding are in a vLLM model.

Two forms of decoder layer exist in vLLM:

pair    takes `(positions, hidden_states, residual)` and returns `(hidden_states, residual)`: the residual
stream
        after the layer is the sum of the two, and what is added to `hidden_states` is added to the stream.
single  takes `hidden_states` and returns the stream itself, as a tensor or first in a tuple. vLLM's
Transformers
        backend adds a leading batch axis of 1.

Which form a layer has is read from its signature; which of its modules says what attention adds, from a table
of layer classes that were compared with transformers. A layer that is not in the table is refused unless the
`--layout` template describes it. And whatever was found is proved before the first run (`proof.py`): a wrong
pair of tensors would draw a plausible, wrong heatmap.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
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

FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "final_norm")
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
    the sum of its parts."""
    final: list[torch.nn.Module]
    """Modules between the last layer's stream and the unembedding, in order: the final norm, mostly."""
    unembed: Callable[[torch.Tensor], Any]
    """[tokens, hidden_size] -> [tokens, vocab_size] logits; on tensor-parallel ranks but the first maybe
    None."""

    @property
    def count(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    def entering(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """The residual stream before a layer, from the call of the first one: [tokens, hidden_size]."""
        if "hidden_states" in kwargs:
            hidden: torch.Tensor = kwargs["hidden_states"]
        else:
            hidden = args[1] if self.form == "pair" else args[0]
        return _flat(hidden)

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


def find_layout(model: Any, expected_layers: int, template: str = "") -> Layout:
    """Find the places of a loaded vLLM model.

    Args:
        model: the torch module that vLLM loaded.
        expected_layers: number of decoder layers by the model's configuration.
        template: `--layout`, which overrides what would be found; see `parse_template`.

    Raises:
        UnsupportedModelError: not laid out in a way that is known, with a sentence that says what was found.
    """
    name = type(model).__name__
    said = parse_template(template)
    path, layers = _layers(model, name, expected_layers, said.get("layers"))
    kinds = {type(layer).__name__ for layer in layers}
    if len(kinds) != 1:
        raise UnsupportedModelError(
            f"{name} mixes layers of the kinds {', '.join(sorted(kinds))}, which Steersight does not know. "
            f"Serve "
            "another model."
        )
    (kind,) = kinds
    form = said.get("form") or _form(name, layers[0], kind)
    if kind not in ATTENTION and not said:
        raise UnsupportedModelError(
            f"{name} is made of {kind}, which nobody has compared with transformers yet. If its layers "
            f"work like "
            f"Llama's, start with --layout layers={path},form={form} and check what you see."
        )
    parent, _, _ = path.rpartition(".")
    owner = model.get_submodule(parent) if parent else model
    return Layout(
        layers=list(layers),
        form="pair" if form == "pair" else "single",
        attention=_attention(layers, said.get("attention") or ("" if said else ATTENTION[kind])),
        final=_final(model, owner, said.get("norm")),
        unembed=model.compute_logits,
    )


def _layers(model: Any, name: str, expected: int, path: str | None) -> tuple[str, Any]:
    import torch

    found = {
        where: module
        for where, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList)
        and (where == path if path is not None else len(module) == expected)
    }
    if path is not None and path not in found:
        raise UnsupportedModelError(f"{name} has no list of layers at {path!r}. Correct layers= of --layout.")
    if len(found) != 1:
        places = ", ".join(found) or "nowhere"
        raise UnsupportedModelError(
            f"{name} should have one list of {expected} layers and has {len(found)} ({places}). Say which "
            f"one is "
            "the decoder with --layout layers=PATH."
        )
    ((where, layers),) = found.items()
    if len(layers) != expected:
        raise UnsupportedModelError(
            f"{name} has {len(layers)} layers at {where}, and its configuration names {expected}. A part "
            f"of the "
            "model would stay unseen."
        )
    return where, layers


def _form(name: str, layer: Any, kind: str) -> Form:
    parameters = list(inspect.signature(type(layer).forward).parameters)[1:]
    if parameters[:3] == ["positions", "hidden_states", "residual"]:
        return "pair"
    if parameters[:1] == ["hidden_states"]:
        return "single"
    raise UnsupportedModelError(
        f"{kind} of {name} takes ({', '.join(parameters)}), and Steersight reads layers that take "
        f"(positions, "
        "hidden_states, residual) or (hidden_states). Serve another model."
    )


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
