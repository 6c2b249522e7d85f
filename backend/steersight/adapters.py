"""LoRA adapters as folders: what can be told of one before anything heavy is imported.

An adapter is a folder as peft saves it: `adapter_config.json` and `adapter_model.safetensors`. Whatever of it
vLLM (0.32) would leave out without a word, and whatever the logit lens could not show truthfully, is refused
here with a sentence. What needs the base model's modules to be judged is checked when the engine loads
(`engine/lora.py`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .naming import model_id

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM (0.32) can make room for; an adapter of another rank takes the room of the next larger."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")
_TENSOR = re.compile(r"(?P<module>.+)\.lora_[AB]\.weight\Z")
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of `init_lora_weights` that leave the base model's weights as they are."""
_OTHER_MEANING = {
    "use_dora": "DoRA", "lora_bias": "a bias in its B", "alora_invocation_tokens": "activated LoRA",
    "layer_replication": "replicated layers", "use_bdlora": "block-diagonal LoRA", "use_qalora": "QALoRA",
    "arrow_config": "routing between adapters", "kasa_config": "KaSA", "monteclora_config": "MonteCLoRA",
    "target_parameters": "LoRA of the experts' parameters",
    "trainable_token_indices": "trained rows of the embeddings",
}  # fmt: skip
"""Fields of peft (0.21) that change what an adapter does, which vLLM does not compute."""


@dataclass(frozen=True)
class Adapter:
    """One LoRA adapter that can be served."""

    id: str
    """What clients call it."""
    path: str
    """Its folder."""
    rank: int
    """The largest of its modules' ranks."""
    modules: tuple[str, ...]
    """Last parts of the names of the modules that it changes, such as `q_proj`; ascending."""
    base: str = ""
    """The model it was made for, by its configuration; empty where that does not say."""


def read_adapter(name: str, folder: Path) -> Adapter:
    """Read an adapter's configuration and the names of its tensors.

    Raises:
        ValueError: it cannot be served; a sentence that says why, without its name.
    """
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is no name for it; use 1 to 64 letters, digits or any of _ . -")
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    config = _config(folder)
    if (why := next(_unusable(config), None)) is not None:
        raise ValueError(why)
    modules = _modules(folder)
    base = config.get("base_model_name_or_path")
    return Adapter(name, str(folder), _rank(config), modules, base if isinstance(base, str) else "")


def base_of(folder: Path) -> str | None:
    """The base model that a folder's adapter names, "" where it names none; None for no adapter."""
    try:
        base = _config(folder).get("base_model_name_or_path")
    except ValueError:
        return "" if (folder / CONFIG).is_file() else None
    return base if isinstance(base, str) else ""


def adapters(text: str) -> tuple[Adapter, ...]:
    """The adapters of `--lora`: NAME=PATH each, as many as one likes. Raises ValueError with a sentence."""
    found: dict[str, Adapter] = {}
    for part in filter(None, text.split(os.pathsep)):
        name, equals, path = part.partition("=")
        if not equals or not path:
            raise ValueError(f"{part!r} does not say NAME=PATH of an adapter.")
        if name in found:
            raise ValueError(f"Two adapters are called {name!r}.")
        try:
            found[name] = read_adapter(name, Path(path).expanduser().resolve())
        except ValueError as error:
            raise ValueError(f"The adapter {name!r} cannot be served. {error}") from None
    return tuple(found.values())


def room(found: tuple[Adapter, ...]) -> int:
    """The rank that vLLM has to make room for."""
    most = max(adapter.rank for adapter in found)
    return next(rank for rank in RANKS if rank >= most)


def made_for_another(adapter: Adapter, model: str) -> str | None:
    """A warning, where an adapter names another base model than the one that is served."""
    if not adapter.base or _plain(adapter.base) == _plain(model):
        return None
    return (
        f"The adapter {adapter.id!r} says that it was made for {adapter.base}, and the served model is "
        f"{model_id(model)}. What it does there nobody knows."
    )


def _plain(model: str) -> str:
    return model_id(model).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].lower()


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"There is no {CONFIG} in {folder}; peft's save_pretrained writes one.") from None
    except (OSError, ValueError, RecursionError):
        raise ValueError(f"{folder / CONFIG} cannot be read as JSON.") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} is no JSON object.")
    return config


def _unusable(config: dict[str, Any]) -> Iterator[str]:
    """Why an adapter cannot be served, by its configuration."""
    kind = config.get("peft_type")
    if kind != "LORA":
        yield f"It is of the type {kind!r}, and only LORA can be served."
    for field, what in _OTHER_MEANING.items():
        if config.get(field):
            yield f"It uses {what} ({field}), which vLLM does not compute. Merge it into the checkpoint."
    if config.get("modules_to_save"):
        yield (
            f"It replaces whole modules (modules_to_save: {config['modules_to_save']}), which vLLM would "
            "leave out. Merge it into the checkpoint."
        )
    if config.get("bias", "none") != "none":
        yield f"It trains biases (bias: {config['bias']!r}), which vLLM would leave out. Merge it."
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in _PLAIN_STARTS:
        yield (
            f"It was begun with init_lora_weights={start!r}, which changes the base model's weights too. "
            "Convert it with peft's path_initial_model_for_weight_conversion."
        )
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        yield f"Its rank is {config.get('r')!r}, and not a whole number above 0."
    elif max(ranks) > RANKS[-1]:
        yield f"Its rank is {max(ranks)}, and vLLM serves at most {RANKS[-1]}."


def _rank(config: dict[str, Any]) -> int:
    ranks: list[int] = [config["r"], *(config.get("rank_pattern") or {}).values()]
    return max(ranks)


def _modules(folder: Path) -> tuple[str, ...]:
    """Which modules its tensors change."""
    from safetensors import SafetensorError, safe_open

    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(
            f"There is no {WEIGHTS} in {folder}. Other formats are never opened; save it with peft as "
            "safetensors."
        )
    try:
        with safe_open(weights, framework="numpy") as file:
            names = list(file.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{weights} cannot be read ({error}).") from None
    if not names:
        raise ValueError(f"{weights} holds no tensors.")
    found = set()
    for name in names:
        match = _TENSOR.match(name)
        if match is None and "lora_embedding" not in name:
            raise ValueError(f"It holds a tensor {name}, which is no plain LoRA and would be left out.")
        parts = (match["module"] if match else name).split(".")
        if match is None or not any(part.isdigit() for part in parts):
            raise ValueError(
                f"It changes {parts[-1]}, which is in no decoder layer: what all runs of a step share in the "
                "logit lens would be another for each. Serve an adapter of the layers, or merge it."
            )
        if "experts" in parts:
            raise ValueError("It changes experts, which has not been compared with transformers. Merge it.")
        found.add(parts[-1])
    return tuple(sorted(found))
