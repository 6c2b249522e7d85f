"""What steering itself did to the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .view import View


def share(view: View) -> torch.Tensor:
    """||after - before|| / ||before|| of a layer's steering, [layers, tokens] fp32; 0 where none acted.

    Pushes at attention's part are not in it: the stream before them does not exist.
    """
    found = view.norms.new_zeros(view.count, view.streams.shape[1])
    for layer, before in view.unsteered.items():
        at = layer - view.first
        found[at] = (view.after[at] - before).norm(dim=-1) / before.norm(dim=-1).clamp_min(1e-30)
    return found
