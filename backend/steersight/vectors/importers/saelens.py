"""Features of SAELens folders: `cfg.json` and `sae_weights.safetensors`, of SAELens 3 to 6.

W_enc is [d_in, d_sae], W_dec [d_sae, d_in]; with x the stream and b_dec taken from it first where
apply_b_dec_to_input is true, feature i reads (sae_lens/saes/*_sae.py)

    standard   relu(w.x + b)          jumprelu   u = w.x + b, relu(u) where u > threshold
    gated      relu(e^r w.x + b_mag) where w.x + b_gate > 0
    topk       relu(w.x + b) where it is among the k largest: not of this feature's weights alone, so unread

and decodes f * d with d = W_dec[i]. normalize_activations: with expected_average_only_in the file holds
weights for a scaled stream and not the scale; with layer_norm and constant_norm_rescale every token has a
scale of its own. Then features steer, but are not read.

center_writing_weights (of transformer_lens) takes the mean over the hidden size out of all that is written
into the stream. With LayerNorm, which takes it out before anything reads, that changes nothing but the
stream: it is x - mean(x). Its other options (fold_ln, center_unembed, fold_value_biases) leave the stream
alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..store import FeatureReader, VectorError
from .features import Feature, check_index, read_config, whole_number
from .places import place_of
from .report import Norm, Target, clip
from .tensors import Tensors, open_tensors

FORMAT = "SAELens"
CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"
READ = ("standard", "jumprelu", "gated")
ARCHITECTURES = (*READ, "topk")
TOP_K = "Which features a top-k autoencoder keeps depends on all of them"


class SAELens:
    """An autoencoder's folder; features are read one by one."""

    def __init__(self, folder: Path, target: Target) -> None:
        """Read its configuration. Raises VectorError."""
        config = read_config(folder / CONFIG)
        nested = config.get("metadata")
        self._config: dict[str, Any] = {**nested, **config} if isinstance(nested, dict) else config
        self._weights = folder / WEIGHTS
        self.hidden_size = whole_number(self._config, "d_in")
        self.features = whole_number(self._config, "d_sae")
        self.made_for = clip(self._text("model_name"), 80)
        hook = self._text("hook_name") or self._text("hook_point")
        if self._config.get("hook_head_index") is not None:
            raise VectorError("It was trained on a single attention head, not on the residual stream.")
        self.architecture = self._text("architecture") or "standard"
        # Before SAELens 6 the activation function said it.
        activation = self._text("activation_fn") or self._text("activation_fn_str") or "relu"
        if self.architecture == "standard" and activation == "topk":
            self.architecture = "topk"
        if self.architecture not in ARCHITECTURES:
            raise VectorError(
                f"Its architecture is {clip(self.architecture, 40)!r}; read are {', '.join(ARCHITECTURES)}."
            )
        self.name = ""
        self.place = place_of(hook)
        self.notes: list[str] = []
        self._centred = self._is_centred(target.norm)
        if not self.place.unread:
            self.place = replace(self.place, unread=self._why_unread(activation))

    def _is_centred(self, norm: Norm) -> bool | None:
        """Whether its stream had no mean; None where that cannot be known. Notes what follows from it."""
        options = self._config.get("model_from_pretrained_kwargs")
        if not isinstance(options, dict) or "center_writing_weights" not in options:
            if norm == "layer":
                self.notes.append(
                    "Its configuration does not say whether it was trained on a centred stream "
                    "(center_writing_weights); it is read as trained on the stream as it is."
                )
            return False
        if not options["center_writing_weights"] or norm == "rms":
            return False  # transformer_lens leaves a model with RMSNorm as it is
        if norm == "unknown":
            return None
        self.notes.append(
            "It was trained on a stream without its mean (center_writing_weights). The mean is taken out of "
            "its encoder and its directions instead, which on this model's stream comes to the same."
        )
        return True

    def _text(self, key: str) -> str:
        value = self._config.get(key)
        return value if isinstance(value, str) else ""

    def _why_unread(self, activation: str) -> str:
        """Why activations cannot be read from a feature's own weights."""
        if self.architecture == "topk":
            return TOP_K
        if self.architecture == "standard" and activation != "relu":
            return f"Its activation function is {clip(activation, 40)!r}, which is not known here"
        scaling = self._config.get("normalize_activations") or "none"
        if scaling != "none":
            return f"It was trained on a scaled stream ({clip(str(scaling), 40)})"
        if self._centred is None:
            return (
                "It was trained on a stream without its mean (center_writing_weights), and whether this "
                "model's norms take the mean out is not known"
            )
        return ""

    def feature(self, index: int) -> Feature:
        """One feature. Raises VectorError."""
        check_index(index, self.features)
        with open_tensors(self._weights) as tensors:
            direction = tensors.row("W_dec", index, [self.features, self.hidden_size])
            if self._config.get("finetuning_scaling_factor") and "scaling_factor" in tensors.names:
                direction = direction * tensors.number("scaling_factor", index, self.features)
            if self.architecture == "topk" and self._config.get("rescale_acts_by_decoder_norm"):
                direction = direction / direction.norm().clamp_min(1e-30)
            if self._centred:
                direction = direction - direction.mean()
            reader = None if self.place.unread else self._reader(tensors, index)
        provenance = {
            "imported_from": FORMAT,
            "model_name": self.made_for,
            "hook_name": self._text("hook_name") or self._text("hook_point"),
            "architecture": self.architecture,
        }
        return Feature(index, self.place, direction, reader, provenance)

    def _reader(self, tensors: Tensors, index: int) -> FeatureReader:
        """How the feature is read off the stream itself: a decoder bias goes into the biases."""
        weight = tensors.column("W_enc", index, [self.hidden_size, self.features])
        taken = 0.0
        if self._config.get("apply_b_dec_to_input", True):
            taken = float(weight.double() @ tensors.whole("b_dec", [self.hidden_size]).double())
        if self._centred:
            weight = weight - weight.mean()  # w.(x - mean of x) is (w - mean of w).x
        if self.architecture == "gated":
            gain = math.exp(min(self._number(tensors, "r_mag", index), 80.0))
            return FeatureReader(
                weight=weight,
                bias=self._number(tensors, "b_mag", index) - gain * taken,
                gate_bias=self._number(tensors, "b_gate", index) - taken,
                gain=gain,
            )
        bias = self._number(tensors, "b_enc", index) - taken
        threshold = 0.0
        if self.architecture == "jumprelu":
            if "log_threshold" in tensors.names:
                threshold = math.exp(min(self._number(tensors, "log_threshold", index), 80.0))
            else:
                threshold = self._number(tensors, "threshold", index)
        return FeatureReader(weight=weight, bias=bias, gate_bias=bias, threshold=threshold)

    def _number(self, tensors: Tensors, name: str, index: int) -> float:
        return tensors.number(name, index, self.features)
