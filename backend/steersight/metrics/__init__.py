"""Per-token, per-layer numbers. Pure tensor code: no engine, no sockets, no import of torch at module level.

`registry.py` says what a metric is and lists the built-in ones; one file per family computes them from a
`View` (`view.py`). `logit_lens.py` reduces logits. `own.py` loads a person's own metrics.
"""

from .registry import BUILT_IN, LENS_METRICS, Metric, Registry, Scale
from .router import Experts
from .view import View

__all__ = ["BUILT_IN", "LENS_METRICS", "Experts", "Metric", "Registry", "Scale", "View"]
