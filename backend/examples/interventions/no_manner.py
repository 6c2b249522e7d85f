"""Project out a subspace that an SVD has found: what several vectors have in common, and all that they span.

    steersight serve --interventions backend/examples/interventions/no_manner.py

The bundled vectors joy, formality, pirate and french are directions of the bundled model; each is one way in
which a reply can be written. The singular value decomposition of the four, stacked, gives orthogonal
directions of the space that they span, the strongest first.
"""

from __future__ import annotations

import torch

from steersight.interventions import Context, intervention

VECTORS = ("joy", "formality", "pirate", "french")
RANK = 3


@intervention(layers=range(10, 25), range=(-1.0, 1.0), suggested=1.0, per_token=True)
def no_manner(hidden: torch.Tensor, context: Context, strength: float) -> torch.Tensor:
    """No manner

    Takes out of the stream what lies in the three strongest directions of the space that joy, formality,
    pirate and french span, found by a singular value decomposition. Strength 1 takes out all of it, a
    negative one makes more of it.
    """
    stacked = torch.stack([context.direction(name) for name in VECTORS])
    basis = torch.linalg.svd(stacked, full_matrices=False).Vh[:RANK]
    return hidden - strength * (hidden @ basis.T) @ basis
