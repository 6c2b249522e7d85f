"""Features of Llama Scope folders: `hyperparams.json` and `checkpoints/final.safetensors`.

encoder.weight is [d_sae, d_model], decoder.weight [d_model, d_sae]. The autoencoder was trained on a stream
scaled to an average length of sqrt(d_model): c = sqrt(d_model) / dataset_average_activation_norm. Its makers'
loader (Language-Model-SAEs, lm_saes/sae.py, `from_config`) moves that scale into the biases, which makes
activations those of the stream as it is:

    f = u + b / c  where  (u + b / c) * ||d|| > jump_relu_threshold,  u = w.x       d: the decoder's column

(the factor ||d|| where sparsity_include_decoder_norm is true). Here they are read in these units, in which
adding s to f adds s * d to the stream, as nnsight-vllm-demos' `/steer` does. (That demo scales every token to
the average length before it reads. This changes only what it reads, which adding does not use.)
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..store import FeatureReader, VectorError
from .features import Feature, check_index, positive, read_config, whole_number
from .places import Place, place_of
from .report import clip
from .saelens import TOP_K
from .tensors import open_tensors

if TYPE_CHECKING:
    import torch

FORMAT = "Llama Scope"
CONFIG = "hyperparams.json"
WEIGHTS = Path("checkpoints") / "final.safetensors"
POSITIONS = {"R": "hook_resid_post", "M": "hook_mlp_out", "A": "hook_attn_out"}
_FOLDER = re.compile(r"L([0-9]{1,3})([RMA])-[0-9]{1,3}x\Z")


class LlamaScope:
    """An autoencoder's folder; features are read one by one."""

    def __init__(self, folder: Path) -> None:
        """Read its configuration. Raises VectorError."""
        self._config = read_config(folder / CONFIG)
        self._weights = folder / WEIGHTS
        self.hidden_size = whole_number(self._config, "d_model")
        self.features = whole_number(self._config, "d_sae")
        self.made_for = ""
        self.name = ""
        self.notes: list[str] = []
        self.architecture = str(self._config.get("act_fn", "jumprelu")).lower()
        self.place = self._place(folder.name)
        self._scale = self._stream_scale()
        if not self.place.unread:
            self.place = replace(self.place, unread=self._why_unread())

    def _place(self, folder: str) -> Place:
        """Where it acts: its hook, or where it names none the folder, such as Llama3_1-8B-Base-L28R-8x."""
        hook = self._config.get("hook_point_in")
        if hook is None:
            match = _FOLDER.search(folder)
            if match is None:
                raise VectorError(f"Neither {CONFIG} nor the folder's name say where it acts.")
            hook = f"blocks.{int(match[1])}.{POSITIONS[match[2]]}"
        if not isinstance(hook, str) or self._config.get("hook_point_out", hook) != hook:
            raise VectorError(
                "It reads one place and writes another (a transcoder), which cannot be steered."
            )
        return place_of(hook)

    def _stream_scale(self) -> float:
        """c above; 1 where the autoencoder takes the stream as it is."""
        norms = self._config.get("dataset_average_activation_norm")
        kind = self._config.get("norm_activation", "none" if norms is None else "dataset-wise")
        if kind != "dataset-wise":
            return 1.0
        norm = norms.get("in") if isinstance(norms, dict) else norms
        return math.sqrt(self.hidden_size) / positive(norm, "dataset_average_activation_norm")

    def _why_unread(self) -> str:
        """Why activations cannot be read from a feature's own weights."""
        jump = self._config.get("jump_relu_threshold", 0)
        # With a threshold, top-k was training only: its makers' loader turns it into JumpReLU.
        topk = self.architecture == "topk" and type(jump) in (int, float) and jump > 0
        if self.architecture == "topk" and not topk:
            return TOP_K
        if self.architecture not in ("relu", "jumprelu", "topk"):
            return f"Its activation function is {clip(self.architecture, 40)!r}, which is not known here"
        if self._config.get("use_glu_encoder"):
            return "Its encoder has a second, gated part"
        kind = self._config.get("norm_activation", "dataset-wise")
        if kind not in ("dataset-wise", "inference", "none"):
            return f"It was trained on a stream that was scaled in a way of its own ({clip(str(kind), 40)})"
        return ""

    def feature(self, index: int) -> Feature:
        """One feature. Raises VectorError."""
        check_index(index, self.features)
        with open_tensors(self._weights) as tensors:
            direction = tensors.column("decoder.weight", index, [self.hidden_size, self.features])
            reader = None
            if not self.place.unread:
                weight = tensors.row("encoder.weight", index, [self.features, self.hidden_size])
                bias = tensors.number("encoder.bias", index, self.features)
                if self._config.get("apply_decoder_bias_to_pre_encoder"):
                    taken = tensors.whole("decoder.bias", [self.hidden_size])
                    bias -= float(weight.double() @ taken.double())
                bias /= self._scale
                reader = FeatureReader(weight, bias, bias, threshold=self._threshold(direction))
        provenance: dict[str, Any] = {"imported_from": FORMAT, "folder": self._weights.parents[1].name}
        return Feature(index, self.place, direction, reader, provenance)

    def _threshold(self, direction: torch.Tensor) -> float:
        if self.architecture == "relu":
            return 0.0
        jump: Any = self._config.get("jump_relu_threshold")
        if type(jump) not in (int, float) or not 0 <= jump < 1e30:
            raise VectorError("Its configuration has no number 'jump_relu_threshold'.")
        if not self._config.get("sparsity_include_decoder_norm", True):
            return float(jump)
        return float(jump) / max(float(direction.norm()), 1e-30)
