"""What can be told of a checkpoint from its files alone, before anything heavy is imported."""

from __future__ import annotations

import contextlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
MOST_HEADER = 100 << 20
"""Bytes of a header; safetensors allows no more."""
TYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F8_E4M3": "float8_e4m3fn"}
"""What safetensors' names of types are in torch."""


@dataclass(frozen=True)
class Checkpoint:
    """One folder. What cannot be read says nothing here: the load will say it."""

    missing: tuple[str, ...] = ()
    """Files of weights that the index names and the folder has not."""
    damaged: tuple[str, ...] = ()
    """Files of weights that are shorter or longer than they say."""
    parameters: int = 0
    """Numbers in the weights."""
    stored: int = 0
    """Bytes of the weights."""
    dtype: str = ""
    """Type of most of the numbers, as torch calls it; empty where it has no such name here."""
    quantised: str = ""
    """How the weights are quantised, in the word of the configuration; empty for not at all."""
    senses: bool = False
    """Whether the model takes more than text."""


def inspect(folder: Path) -> Checkpoint:
    """Read the configuration, the index and the headers of the weights."""
    config = _map(folder / "config.json")
    named = set(_map(folder / INDEX).get("weight_map", {}).values())
    files = {file.name for file in folder.glob("*.safetensors")}
    damaged: list[str] = []
    counts: Counter[str] = Counter()
    stored = 0
    for name in sorted(files & named if named else files):
        with contextlib.suppress(OSError):
            found = _numbers(folder / name)
            if found is None:
                damaged.append(name)
                continue
            counts.update(found)
            stored += (folder / name).stat().st_size
    most = max(counts, key=lambda kind: counts[kind], default="")
    quantisation = config.get("quantization_config") or {}
    return Checkpoint(
        missing=tuple(sorted(str(name) for name in named - files)),
        damaged=tuple(damaged),
        parameters=counts.total(),
        stored=stored,
        dtype=TYPES.get(most, ""),
        quantised=str(quantisation.get("quant_method", "")) if isinstance(quantisation, dict) else "",
        senses=any(name in config for name in ("vision_config", "audio_config")),
    )


def _map(file: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}


def _numbers(file: Path) -> Counter[str] | None:
    """How many numbers of each type a safetensors file holds; None where it is not as long as its header
    says."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 or not 0 < length <= min(size - 8, MOST_HEADER):
            return None
        counts: Counter[str] = Counter()
        try:
            tensors = json.loads(opened.read(length))
            tensors.pop("__metadata__", None)
            end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
            for tensor in tensors.values():
                counts[str(tensor["dtype"])] += math.prod(tensor["shape"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return None
    return counts if 8 + length + end == size else None
