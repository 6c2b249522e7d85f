"""Functions for the tests: some that go wrong when they are called, and one that uses all it is told."""

from __future__ import annotations

import torch

from steersight.interventions import Context, intervention


def raises(hidden: torch.Tensor, context: Context, strength: float) -> torch.Tensor:
    """Raises

    Always.
    """
    raise ZeroDivisionError("as asked")


def gives_nothing(hidden: torch.Tensor, context: Context, strength: float) -> None:
    """Gives nothing

    It changes what it was given, and forgets to return it.
    """
    hidden *= 1 + strength


@intervention(layers=(1, -1), range=(-1.0, 1.0))
def late_positions(hidden: torch.Tensor, context: Context, strength: float) -> torch.Tensor:
    """Late positions

    Multiplies the stream by what nobody can know who is told anything wrong of its tokens.
    """
    known = context.positions.float() / context.prompt_tokens + context.token_ids.float() / 49152
    return hidden * (1 + strength * 0.2 * known[:, None] / (1 + context.layer / context.layers))
