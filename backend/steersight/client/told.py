"""What the server had said of itself when a run began here. It may be another server, or serve another model,
before the run is looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..protocol.messages import MetricInfo, ModelInfo, VectorInfo

if TYPE_CHECKING:
    from .connection import Client


@dataclass(frozen=True)
class Told:
    """What the server had said of itself when a run began here."""

    server: str
    epoch: str | None
    model: ModelInfo | None
    metrics: Mapping[str, MetricInfo]
    vectors: Mapping[str, VectorInfo]

    @classmethod
    def of(cls, client: Client) -> Told:
        """All that the client knows."""
        return cls(client.name, client.epoch, client.model, client.metrics, client.vectors)
