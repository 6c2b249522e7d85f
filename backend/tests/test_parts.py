"""Which module's output is attention's part, found on a pass: toy layers of every kind, right and wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from steersight.engine.layout import Layout
from steersight.engine.parts import PartsSearch

SIZE, LAYERS = 64, 3


class Kernel(torch.nn.Module):
    """Reads a KV cache that is not there yet: what it gives is what lay in memory."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.full_like(hidden, torch.nan)


class Attention(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.out = Kernel(), torch.nn.Linear(SIZE, SIZE)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, None]:
        return self.out(self.kernel(hidden)), None


class Layer(torch.nn.Module):
    """One decoder layer; `kind` says how its parts come to the stream."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.before, self.attention, self.after = (
            torch.nn.LayerNorm(SIZE),
            Attention(),
            torch.nn.LayerNorm(SIZE),
        )
        self.between = torch.nn.LayerNorm(SIZE)
        self.mlp = torch.nn.Sequential(torch.nn.Linear(SIZE, SIZE), torch.nn.Tanh())
        self.behind = torch.nn.LayerNorm(SIZE)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        stream = hidden_states
        if self.kind == "side by side":
            normed = self.before(stream)
            return stream + self.attention(normed)[0] + self.mlp(normed)
        attended = self.attention(self.before(stream))[0]
        if self.kind == "normed once more":
            attended = self.after(attended)
        if self.kind == "scaled":
            attended = 0.3 * attended
        middle = stream + attended
        if self.kind == "stream normed":
            middle = self.after(middle)
        added = self.mlp(self.between(middle))
        if self.kind == "normed once more":
            added = self.behind(added)
        return middle + added


def search(
    kind: str, dtype: torch.dtype = torch.float32, change: Callable[..., None] | None = None
) -> str | None:
    torch.manual_seed(1)
    layers = torch.nn.ModuleList(Layer(kind) for _ in range(LAYERS)).to(dtype)
    for weight in layers.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    if change is not None:
        change(layers)
    layout = Layout(
        list(layers), "single", attention=None, final=[], unembed=lambda stream: stream,
        parameters=[("hidden_states",)] * LAYERS,
    )  # fmt: skip
    kernels = [layer.attention.kernel for layer in layers]  # type: ignore[union-attr]
    looking = PartsSearch(layout, kernels)  # type: ignore[arg-type]
    with torch.inference_mode():
        stream = torch.randn(8, SIZE, generator=torch.Generator().manual_seed(3)).to(dtype)
        for layer in layers:
            stream = layer(hidden_states=stream)
    looking.remove()
    assert all("forward" not in vars(kernel) for kernel in kernels)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in layers.modules())
    return looking.found(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("one behind the other", "attention"), ("side by side", "attention"), ("normed once more", "after"),
        ("scaled", None), ("stream normed", None),
    ],
)  # fmt: skip
def test_attention_s_part_is_found_where_the_update_is_a_sum(
    kind: str, name: str | None, dtype: torch.dtype
) -> None:
    assert search(kind, dtype) == name


def test_a_part_that_rounding_would_hide_is_not_claimed() -> None:
    def faint(layers: torch.nn.ModuleList) -> None:
        for layer in layers:
            layer.mlp[0].weight.data.mul_(1e-4)  # type: ignore[index,union-attr,operator]
            layer.mlp[0].bias.data.mul_(1e-4)  # type: ignore[index,union-attr,operator]

    assert search("one behind the other", torch.bfloat16, faint) is None


def test_one_layer_of_another_kind_is_enough_for_none() -> None:
    def odd(layers: torch.nn.ModuleList) -> None:
        layers[1].kind = "scaled"  # type: ignore[assignment]

    assert search("one behind the other", change=odd) is None
