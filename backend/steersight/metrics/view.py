"""What a metric sees: the residual stream around some neighbouring layers, for the observed tokens of one
step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


@dataclass
class View:
    """The residual stream around layers `first` to `first + count - 1`.

    A short step is seen at once, all layers together. A long prompt comes in several views, some layers each,
    so that the streams of all layers need not be kept.
    """

    first: int
    streams: torch.Tensor
    """[count + 1, tokens, hidden_size] fp32: what entered the first layer, then the stream after each layer
    and its steering."""
    runs: list[tuple[str, int, int]]
    """(run, first position, tokens) in the order of the tokens."""
    unsteered: dict[int, torch.Tensor] = field(default_factory=dict)
    """Layer -> [tokens, hidden_size]: the stream after the layer and before its steering, where it was
    steered."""
    attention: torch.Tensor | None = None
    """[count, tokens, hidden_size] fp32: what attention added; None where nobody asked or it cannot be
    said."""
    direction: Callable[[str, int, int], torch.Tensor] | None = None
    """(vector, first layer, layers) -> [layers, hidden_size] unit directions."""

    @property
    def count(self) -> int:
        """Number of layers."""
        return len(self.streams) - 1

    @property
    def below(self) -> torch.Tensor:
        """[count, tokens, hidden_size]: what entered each layer."""
        return self.streams[:-1]

    @property
    def after(self) -> torch.Tensor:
        """[count, tokens, hidden_size]: the stream after each layer and its steering; what the next one
        reads."""
        return self.streams[1:]

    @cached_property
    def written(self) -> torch.Tensor:
        """[count, tokens, hidden_size]: what each layer itself added, steering not counted."""
        written = self.streams[1:] - self.streams[:-1]
        for layer, stream in self.unsteered.items():
            written[layer - self.first] = stream - self.streams[layer - self.first]
        return written

    @cached_property
    def norms(self) -> torch.Tensor:
        """[count + 1, tokens]: lengths of `streams`."""
        import torch

        found: torch.Tensor = torch.linalg.vector_norm(self.streams, dim=-1)
        return found

    @cached_property
    def written_norms(self) -> torch.Tensor:
        """[count, tokens]: lengths of `written`."""
        import torch

        found: torch.Tensor = torch.linalg.vector_norm(self.written, dim=-1)
        return found
