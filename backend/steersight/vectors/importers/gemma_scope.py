"""Features of Gemma Scope 1 (`params.npz`) and 2 (`config.json` and `params.safetensors`).

Both are JumpReLU autoencoders (Lieberum et al. 2024) on the stream as it is; with x the stream,

    f = u where u > threshold, else 0,  u = x W_enc + b_enc        x is made up of f W_dec + b_dec

W_enc is [d_model, d_sae], W_dec [d_sae, d_model]; the second writes w_enc and w_dec. The first says in its
folders where it belongs: gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71, `res` the residual stream
after the layer, `mlp` what the MLP adds, `att` inside attention. The second says it in its configuration, as
a module of transformers such as model.layers.12.output.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ..store import FeatureReader, VectorError
from .features import Feature, check_index, read_config
from .npz import Arrays, open_arrays
from .places import Place, place_of
from .report import Target, clip
from .tensors import Tensors, open_tensors

FORMAT = "Gemma Scope"
ARRAYS = "params.npz"
TENSORS = "params.safetensors"
CONFIG = "config.json"
_LAYER = re.compile(r"layer_([0-9]{1,4})(?![0-9])")
_SITE = re.compile(r"gemma-scope-.*-(res|mlp|att|transcoders)\Z")
_POINTS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}


class GemmaScope:
    """An autoencoder's folder; features are read one by one."""

    architecture = "JumpReLU"

    def __init__(self, folder: Path, target: Target) -> None:
        """Look at its configuration, or at its folders' names. Raises VectorError."""
        self._folder = folder
        self._first = (folder / ARRAYS).is_file()
        self.notes: list[str] = []
        self.made_for = ""
        parts = folder.absolute().parts
        layers = [index for index, part in enumerate(parts) if _LAYER.match(part)]
        self.name = "-".join(parts[layers[-1] :]) if layers else ""
        self.place = self._place_by_folders(parts, target) if self._first else self._place_by_config()
        with self._open() as weights:
            shape = weights.shape(self._named("W_enc"))
        if len(shape) != 2:
            raise VectorError(f"Its encoder has shape {shape}, which is no matrix.")
        self.hidden_size, self.features = shape

    def _place_by_folders(self, parts: tuple[str, ...], target: Target) -> Place:
        sites = [found[1] for part in parts if (found := _SITE.search(part))]
        layers = [int(found[1]) for part in parts if (found := _LAYER.match(part))]
        if "embedding" in parts:
            raise VectorError("It was trained on the embedding; nothing acts there.")
        layer = layers[-1] if layers else target.choice.layer
        if layer is None:
            raise VectorError(
                "None of its folders says at which layer it was trained, such as layer_20. Keep the hub's "
                "folders, or say it with `--layer N`."
            )
        if not sites:
            self.notes.append(
                "No folder is called as on the hub (gemma-scope-2b-pt-res): it was taken for one of the "
                "residual stream."
            )
        elif sites[-1] == "transcoders":
            raise VectorError(
                "It reads one place and writes another (a transcoder), which cannot be steered."
            )
        return place_of(f"blocks.{layer}.{_POINTS[sites[-1] if sites else 'res']}")

    def _place_by_config(self) -> Place:
        config = read_config(self._folder / CONFIG)
        self.made_for = clip(str(config.get("model_name", "")), 80)
        kind, architecture = config.get("type", "sae"), config.get("architecture", "jump_relu")
        hook = config.get("hf_hook_point_in")
        if kind != "sae" or config.get("hf_hook_point_out", hook) != hook or config.get("affine_connection"):
            raise VectorError(
                f"It is a {clip(str(kind), 40)} that reads one place and writes another, which cannot be "
                "steered."
            )
        if architecture != "jump_relu":
            raise VectorError(f"Its architecture is {clip(str(architecture), 40)!r}; read is jump_relu.")
        if not isinstance(hook, str):
            raise VectorError("Its configuration does not say where it was trained (hf_hook_point_in).")
        return place_of(hook)

    def _open(self) -> AbstractContextManager[Arrays | Tensors]:
        return open_arrays(self._folder / ARRAYS) if self._first else open_tensors(self._folder / TENSORS)

    def _named(self, name: str) -> str:
        """W_enc as the first spells it, w_enc as the second."""
        return name if self._first else name.lower()

    def feature(self, index: int) -> Feature:
        """One feature. Raises VectorError."""
        check_index(index, self.features)
        with self._open() as weights:
            direction = weights.row(self._named("W_dec"), index, [self.features, self.hidden_size])
            reader = None
            if not self.place.unread:
                bias = weights.number("b_enc", index, self.features)
                reader = FeatureReader(
                    weight=weights.column(self._named("W_enc"), index, [self.hidden_size, self.features]),
                    bias=bias,
                    gate_bias=bias,
                    threshold=weights.number("threshold", index, self.features),
                )
        provenance: dict[str, Any] = {
            "imported_from": FORMAT,
            "folder": self.name,
            "model_name": self.made_for,
        }
        return Feature(index, self.place, direction, reader, provenance)


def is_gemma_scope(folder: Path) -> bool:
    """Whether a folder holds one of either kind."""
    return (folder / ARRAYS).is_file() or ((folder / TENSORS).is_file() and (folder / CONFIG).is_file())
