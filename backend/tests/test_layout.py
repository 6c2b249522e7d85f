"""Which layouts a model may have, and that the first one that a forward pass bears out is taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steersight.engine.layout import UnsupportedModelError, possible_layouts
from steersight.engine.proof import LayoutProof

HIDDEN, LAYERS = 4, 3


class Norm(torch.nn.Module):
    """vLLM's form: adds the residual, if there is one, and gives both."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        whole = hidden if residual is None else hidden + residual
        return whole / (1 + whole.abs().amax()), whole


class PlainNorm(torch.nn.Module):
    def forward(self, hidden: torch.Tensor, residual: torch.Tensor | None = None) -> Any:
        return hidden / (1 + hidden.abs().amax()), residual


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.eye(HIDDEN) * 0.5)


class Pair(Layer):
    """As Llama's: the stream is the sum of what it gives."""

    def forward(self, positions: Any, hidden_states: Any, residual: Any) -> Any:
        whole = hidden_states if residual is None else hidden_states + residual
        return whole @ self.weight, whole


class Parallel(Layer):
    """As Cohere's: it looks like a pair, and the first it gives is the whole stream."""

    def forward(self, positions: Any, hidden_states: Any, residual: Any) -> Any:
        return hidden_states + hidden_states @ self.weight, hidden_states


class Single(Layer):
    """As Falcon's."""

    def forward(self, position_ids: Any, hidden_states: Any) -> Any:
        return hidden_states + hidden_states @ self.weight


class Other(Pair):
    """As a state-space layer beside `Pair` in a hybrid: it is called otherwise."""

    def forward(self, hidden_states: Any, residual: Any, **more: Any) -> Any:  # type: ignore[override]
        return super().forward(None, hidden_states, residual)


class Scaled(Layer):
    """What it gives is scaled before the next one reads it: not to be read."""

    def forward(self, hidden_states: Any) -> Any:
        return 2 * hidden_states + hidden_states @ self.weight


class Model(torch.nn.Module):
    def __init__(self, *kinds: type[Layer], scale: float = 1.0) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(kind() for kind in kinds)
        self.experts = torch.nn.ModuleList(torch.nn.Identity() for _ in kinds)
        self.norm: torch.nn.Module = Norm() if issubclass(kinds[0], Pair) else PlainNorm()
        self.scale = scale

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        residual = None
        for layer in self.layers:
            hidden = hidden * self.scale
            match layer:
                case Other():
                    hidden, residual = layer(hidden_states=hidden, residual=residual)
                case Pair() | Parallel():
                    hidden, residual = layer(0, hidden, residual)
                case Single():
                    hidden = layer(0, hidden)
                case _:
                    hidden = layer(hidden)
        result: torch.Tensor = self.norm(hidden, residual)[0]
        return result

    def compute_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def proved(model: Model, template: str = "") -> list[str]:
    """Of each layout that may be, its form and what the proof says."""
    found = []
    for layout in possible_layouts(model, LAYERS, template):
        proof = LayoutProof(layout, model, [])
        with torch.inference_mode():
            model(torch.arange(2.0 * HIDDEN).reshape(2, HIDDEN))
        try:
            proof.conclude()
            found.append(f"{layout.form} holds")
        except UnsupportedModelError as error:
            found.append(f"{layout.form}: {error}")
    assert not any("forward" in vars(module) for module in model.modules()), "something was left in the model"
    return found


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([Pair] * 3, ["pair holds", "single: "]),
        ([Parallel] * 3, ["pair: ", "single holds"]),
        ([Single] * 3, ["single holds"]),
        ([Pair, Other, Pair], ["pair holds", "single: "]),
    ],
)
def test_the_form_of_the_layers_is_read_off_a_forward_pass(
    kinds: list[type[Layer]], expected: list[str]
) -> None:
    said = proved(Model(*kinds))
    assert len(said) == len(expected)
    assert all(one.startswith(begin) for one, begin in zip(said, expected, strict=True)), said


def test_a_stream_that_is_changed_between_the_layers_is_refused() -> None:
    (said,) = proved(Model(*[Scaled] * 3, scale=0.5))
    assert "what enters layer 1 is not what layer 0 left" in said


def test_what_cannot_be_a_list_of_layers_is_none() -> None:
    assert [layout.where for layout in possible_layouts(Model(*[Single] * 3), LAYERS)] == ["layers"]
    with pytest.raises(UnsupportedModelError, match=r"a list of 5 layers, and has 3 at layers, 3 at experts"):
        possible_layouts(Model(*[Single] * 3), 5)
    with pytest.raises(UnsupportedModelError, match="has no list of layers at 'blocks'"):
        possible_layouts(Model(*[Single] * 3), LAYERS, "layers=blocks")
    with pytest.raises(UnsupportedModelError, match="take no `hidden_states`"):
        possible_layouts(Model(*[Single] * 3), LAYERS, "layers=experts")


def test_a_template_says_the_form() -> None:
    assert proved(Model(*[Parallel] * 3), "layers=layers,form=single") == ["single holds"]
