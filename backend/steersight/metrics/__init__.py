"""Per-token, per-layer numbers. Pure tensor code: no engine, no sockets, no import of torch at module level.

`registry.py` says what a metric is and holds the ones that are served; one file per family computes them.
"""

from .registry import REGISTRY, LayerView, Metric, Scale, metric_ids, to_wire

__all__ = ["REGISTRY", "LayerView", "Metric", "Scale", "metric_ids", "to_wire"]
