"""Steersight's own vector files: read as they are, and checked against the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...naming import model_name
from ..store import SteeringVector, load_vector
from .report import ImportReport, Target, clean_id, clip, span

FORMAT = "Steersight vector"


def read_own(path: Path, target: Target) -> ImportReport:
    """Read a file with Steersight's metadata, whatever its name. Raises VectorError."""
    vector = load_vector(path)
    target.check_width(vector.hidden_size)
    target.check_layer(vector.layers[-1])
    found = [f"The vector {vector.label!r} for {span(vector.layers)}, made for {vector.model!r}."]
    if vector.model != model_name(target.model):
        found.append("That is another model of the same shape: try it, but do not trust its strengths.")
    return ImportReport(FORMAT, found, [_renamed(vector, target)], [])


def _renamed(vector: SteeringVector, target: Target) -> SteeringVector:
    """With the id and label that the person chose."""
    name = clean_id(target.choice.id or vector.id)
    label = clip(target.label) or vector.label
    if (name, label) == (vector.id, vector.label):
        return vector
    # The constructor takes the lengths from the directions.
    return replace(vector, id=name, label=label, directions=vector.directions * vector.lengths[:, None])
