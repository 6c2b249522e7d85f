"""Swap a feature at chosen tokens: where one of these words stands, what the stream has along one direction
goes along the other, and the other way round.

    steersight serve --interventions backend/examples/interventions/swap_feature.py

Which tokens those are, the function sees from `context.token_ids`: the words are made into tokens by the
model's own tokenizer. All other tokens are left as they are, to the bit.
"""

from __future__ import annotations

import torch

from steersight.interventions import Context, intervention

WORDS = (" Paris", " London", " Rome", " sea", " ship", " house", " friend", " love")
ONE, OTHER = "joy", "formality"


@intervention(layers=range(12, 20), suggested=1.0, per_token=True)
def joy_for_formality(hidden: torch.Tensor, context: Context, strength: float) -> torch.Tensor:
    """Joy for formality

    At tokens such as " Paris", " sea" or " friend", exchanges what the stream has along joy with what it has
    along formality. Strength 1 exchanges all of it, 0.5 half.
    """
    chosen = torch.tensor(
        [context.tokens(word)[0] for word in WORDS if len(context.tokens(word)) == 1], device=context.device
    )
    here = torch.isin(context.token_ids, chosen)
    one, other = context.direction(ONE), context.direction(OTHER)
    # Orthogonal to the first, so that moving along one changes nothing along the other.
    other = torch.nn.functional.normalize(other - (other @ one) * one, dim=0)
    difference = (hidden @ other - hidden @ one)[:, None]
    return torch.where(here[:, None], hidden + strength * difference * (one - other), hidden)
