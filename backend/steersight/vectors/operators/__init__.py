"""What vectors do to the residual stream: pure tensor arithmetic, one small file per operator.

The engine calls `compose` inside the forward pass for all steered tokens of a step at once, so everything
here is written for capture in a CUDA graph: no wait for the device, no branch on data, no shape that depends
on a value. How several vectors at one layer compose:

1. `add`, `add_absolute`, `feature_set` and `feature_scale` all read the stream h as the layer left it. What
   they add is summed, and the sum is cut to a length of at most `CAP` * ||h||.
2. `ablate` and `clamp` then act one after the other on the result, in the order in which the server lists the
   vectors: so nothing that was added brings back what they take away.

Invariants: a token on which nothing acts gets a change of exactly 0, and no token's change depends on what
acts on the others; and what is finite stays finite in every dtype (`finite.py`).
"""

from . import ablate, add, add_absolute, clamp, feature, finite, sums
from .code import EVERYTHING, FEATURES, NOTHING, SEQUENTIAL, Operator
from .compose import CAP, Column, Rows, compose
from .unit import unit_rows

__all__ = [
    "CAP", "EVERYTHING", "FEATURES", "NOTHING", "SEQUENTIAL", "Column", "Operator", "Rows", "ablate", "add",
    "add_absolute", "clamp", "compose", "feature", "finite", "sums", "unit_rows",
]  # fmt: skip
