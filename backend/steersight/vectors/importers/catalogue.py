"""A catalogue of Llama Scope features, one vector per entry, as in nnsight-vllm-demos' chat.

`features.json`: {"shakespeare": {"layer": 28, "position": "R", "expansion": "8x", "index": 8401,
"description": "..."}, ...}. Position R is the residual stream, M the MLP's output, A attention's. Each
entry's autoencoder is a folder `<prefix>L{layer}{position}-{expansion}` under a root or under a folder in it,
or in the hub repository `<prefix>LX{position}-{expansion}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..store import SteeringVector, VectorError
from . import hub
from .features import CATALOGUE, MAX_CONFIG_BYTES, MAX_FEATURES, feature_vector
from .llama_scope import CONFIG, POSITIONS, WEIGHTS, LlamaScope
from .report import ImportReport, Target, clean_id, clip, span
from .steering_json import parse_json

FORMAT = "Llama Scope features by catalogue"
_EXPANSION = re.compile(r"[0-9]{1,3}x\Z")
_REPOSITORY = re.compile(r"(?P<owner>[\w.-]+)/(?P<prefix>[\w.-]*)LX[RMA]-[0-9]{1,3}x\Z")


@dataclass(frozen=True)
class Entry:
    """One line of a catalogue."""

    name: str
    layer: int
    position: str
    expansion: str
    index: int
    description: str

    @property
    def folder(self) -> str:
        """How its autoencoder's folder ends."""
        return f"L{self.layer}{self.position}-{self.expansion}"


Find = Callable[[Entry], Path]
"""From an entry to its autoencoder's folder. Raises VectorError."""


def looks_like_catalogue(content: Any) -> bool:
    """Is this JSON a catalogue?"""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(entry, dict) and {"layer", "index"} <= entry.keys() for entry in content.values())
    )


def read_catalogue(data: bytes, find: Find, target: Target) -> ImportReport:
    """Make a vector of each entry. Raises VectorError when none can be made."""
    if len(data) > MAX_CONFIG_BYTES:
        raise VectorError(f"The catalogue is larger than {MAX_CONFIG_BYTES >> 20} MiB.")
    content = parse_json(data)
    if not looks_like_catalogue(content):
        raise VectorError("The catalogue is not an object of entries with a layer, a position and an index.")
    if len(content) > MAX_FEATURES:
        raise VectorError(f"The catalogue has {len(content)} entries; at most {MAX_FEATURES} are read.")
    problems: list[str] = []
    vectors: dict[str, SteeringVector] = {}
    for name, fields in content.items():
        try:
            vector = _vector(_entry(name, fields), find, target)
            if vector.id in vectors:
                raise VectorError(f"Another entry already has the id {vector.id!r}.")
            vectors[vector.id] = vector
            if vector.reader is None:
                problems.append(f"{clip(name, 64)}: it can be added, but its activation is not read.")
        except VectorError as error:
            problems.append(f"{clip(name, 64)}: {error}")
    if not vectors:
        raise VectorError(f"None of {len(content)} features can be used. {problems[0]}")
    layers = sorted({layer for vector in vectors.values() for layer in vector.layers})
    found = [
        f"{len(vectors)} of {len(content)} features, at {span(layers)}.",
        "A strength is added to the feature's activation: h + strength * its decoder's direction.",
    ]
    return ImportReport(FORMAT, found, list(vectors.values()), problems)


def _entry(name: str, fields: dict[str, Any]) -> Entry:
    layer, index = fields["layer"], fields["index"]
    position, expansion = fields.get("position", "R"), fields.get("expansion", "8x")
    if type(layer) is not int or type(index) is not int or not 0 <= layer < 1000:
        raise VectorError("Its layer and index are not whole numbers.")
    if position not in tuple(POSITIONS):
        raise VectorError("Its position is none of R, M and A.")
    # What is taken from here becomes part of a path.
    if not (isinstance(expansion, str) and _EXPANSION.match(expansion)):
        raise VectorError("Its expansion is not of the form 8x.")
    description = fields.get("description", "")
    return Entry(name, layer, position, expansion, index, description if isinstance(description, str) else "")


def _vector(entry: Entry, find: Find, target: Target) -> SteeringVector:
    target.check_layer(entry.layer)
    scope = LlamaScope(find(entry))
    feature = scope.feature(entry.index)
    if feature.place.layer != entry.layer:
        raise VectorError(f"Its autoencoder was trained at layer {feature.place.layer}, not {entry.layer}.")
    return feature_vector(
        target, feature, id=clean_id(entry.name), label=entry.name.replace("_", " ") or "feature",
        description=entry.description, strengths=CATALOGUE,
    )  # fmt: skip


def on_disk(root: Path) -> Find:
    """Looks under a root folder, and in the folders in it."""

    def find(entry: Entry) -> Path:
        name = re.compile(rf"(?:.*[-_])?{entry.folder}\Z")
        for parent in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
            for path in sorted(parent.iterdir()):
                if name.match(path.name) and (path / CONFIG).is_file():
                    return path
        raise VectorError(f"There is no autoencoder in a folder ...{entry.folder} under {root}.")

    return find


def on_hub(repository: str) -> Find:
    """Looks on the Hugging Face hub, in the repositories beside one such as fnlp/Llama3_1-8B-Base-LXR-8x."""
    match = _REPOSITORY.match(repository)
    if match is None:
        raise VectorError(
            f"{repository!r} is neither a folder nor a hub repository such as fnlp/Llama3_1-8B-Base-LXR-8x."
        )
    owner, prefix = match["owner"], match["prefix"]

    def find(entry: Entry) -> Path:
        name = f"{owner}/{prefix}LX{entry.position}-{entry.expansion}"
        folder = f"{prefix}{entry.folder}"
        hub.download(name, f"{folder}/{WEIGHTS.as_posix()}")
        return hub.download(name, f"{folder}/{CONFIG}").parent

    return find
