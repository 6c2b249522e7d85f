"""Why no strength, vector or stream that is finite gives infinity or NaN.

Strengths go up to 1000 and vectors are as long as their files say, while half precision ends at 65504. Two
bounds, both far beyond what a model survives, so that they change no number of a reply worth reading:

1. No vector pushes further than `MOST` times ||h||, whatever its operator. So nothing overflows in fp32 on
   the way, however many `ablate` and `clamp` follow each other.
2. No push takes a component of the stream, or of the tensor that the stream is written to, beyond half of
   what the tensor's type can hold: the layers above still have to add to it. A component that the model
   itself has taken beyond that is left there, and not pushed further out.

A stream so long that its own length overflows fp32 (1e19, where the model's norms overflow too) gets no push
that is relative to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MOST = 1e5
"""The furthest that one vector pushes, as a share of ||h||."""
FURTHEST = 1e18
"""The furthest that one vector pushes in attention, where there is no ||h||; its square fits fp32."""
LARGEST = 3e38
"""What fp32 can hold, nearly."""


def bounded(amounts: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
    """Cut how far vectors push to +-`MOST` * norm: both [tokens, ...] fp32, norm ||h|| broadcasts."""
    most = MOST * norm
    return amounts.maximum(-most).minimum(most)


def within(
    delta: torch.Tensor, stream: torch.Tensor, hidden: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    """Cut a push so that the sum stays finite.

    Args:
        delta: [tokens, hidden_size] fp32, what is to be added to the stream.
        stream: [tokens, hidden_size] fp32, the stream before.
        hidden: [tokens, hidden_size] fp32, the tensor that delta is added to; the stream itself, or that
            minus what the model keeps apart.
        dtype: of that tensor, to which the sum is rounded.

    Returns:
        [tokens, hidden_size] fp32; delta itself, bit for bit, where it is small enough.
    """
    import torch

    largest = torch.finfo(dtype).max
    up = (0.5 * largest - stream.maximum(hidden)).clamp(0.0, largest)
    down = (-0.5 * largest - stream.minimum(hidden)).clamp(-largest, 0.0)
    return delta.nan_to_num(nan=0.0).minimum(up).maximum(down)
