"""Sums for vector building end where the reply ends, however far the worker has computed; without engine."""

from __future__ import annotations

import torch

from steersight.engine.stream_sums import AHEAD, StreamSums
from steersight.metrics import View

LAYERS, SIZE = 3, 8


def seen(sums: StreamSums, streams: torch.Tensor, start: int, count: int, group: int = LAYERS) -> None:
    """One step of run `r`, its layers in groups; `streams` is [layers + 1, positions, SIZE]."""
    rows = streams[:, start : start + count]
    for first in range(0, LAYERS, group):
        view = View(first, rows[first : first + group + 1], [("other", 0, 0), ("r", start, count)])
        # As a forward pass does. The sums are fetched outside of it, where its tensors cannot be written.
        with torch.inference_mode():
            sums.take(view, {"r"})


def test_what_was_computed_behind_the_end_does_not_count() -> None:
    streams = torch.randn(LAYERS + 1, 20, SIZE, generator=torch.Generator().manual_seed(1))
    for group in (1, LAYERS):
        for ahead in range(AHEAD + 1):
            sums = StreamSums(LAYERS, SIZE, torch.device("cpu"))
            seen(sums, streams, 0, 5, group)
            for position in range(5, 12 + ahead):
                seen(sums, streams, position, 1, group)
            found = sums.fetch("r", 12)
            assert found is not None
            # All but position 0, the attention sink.
            assert found.tokens == 11
            assert torch.allclose(found.total, streams[1:, 1:12].sum(dim=1), atol=1e-5)
            assert len(sums) == 0
            assert sums.fetch("r", 12) is None


def test_a_reply_of_one_token_has_none_that_counts() -> None:
    sums = StreamSums(LAYERS, SIZE, torch.device("cpu"))
    seen(sums, torch.zeros(LAYERS + 1, 20, SIZE), 7, 1)
    found = sums.fetch("r", 7)
    assert found is not None
    assert found.tokens == 0
