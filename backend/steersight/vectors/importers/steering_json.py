"""Steering vectors as JSON: what vllm-lens puts into its requests, and a plain form to write by hand.

vllm-lens (`SteeringVector.model_dump`): {"activations": T, "layer_indices": [12], "scale": 1.0,
"norm_match": false, "position_indices": null}, alone, in a list, or as the `apply_steering_vectors` of a
request. T is {"data": base64, "dtype", "original_dtype", "shape", "compression": "zstd"}, or a list of lists
of numbers. Row i is added after layer layer_indices[i], counted from 0: scale * v as it is, or, with
norm_match, scale * ||h|| * v / ||v||.

By hand: {"layers": {"12": [numbers]}, "label": "...", "description": "..."}.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import TYPE_CHECKING, Any

from ..store import SteeringVector, VectorError
from .report import RELATIVE_LIMIT, ImportReport, Target, make_vector, span

if TYPE_CHECKING:
    import torch

FORMAT = "vllm-lens steering vector (JSON)"
BY_HAND = "JSON by hand"
MAX_BYTES = 16 << 20
"""Numbers as JSON take some ten times their bytes while they are read."""
MAX_VECTORS = 64
MAX_ROWS = 1024
_DTYPES = {"float16": "<f2", "float32": "<f4", "float64": "<f8", "int16": "<i2"}


def parse_json(data: bytes) -> Any:
    """JSON of a limited size. Raises VectorError."""
    if len(data) > MAX_BYTES:
        raise VectorError(f"It is JSON of more than {MAX_BYTES >> 20} MiB. Save it as safetensors.")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VectorError(f"It is not JSON, or damaged ({str(error)[:100]}).") from error


def read_json(data: bytes, target: Target) -> ImportReport:
    """Read either form. Raises VectorError."""
    content = _unwrap(parse_json(data))
    if isinstance(content, dict) and isinstance(content.get("layers"), dict):
        return _by_hand(content, target)
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) and "layer_indices" in entry for entry in entries):
        raise VectorError(
            'It is JSON, but no steering vector: {"layers": {"12": [numbers]}} or what vllm-lens sends, with '
            "activations and layer_indices. A features.json needs the folder of its autoencoders: "
            "`steersight vectors import FOLDER --catalogue features.json`."
        )
    if len(entries) > MAX_VECTORS:
        raise VectorError(f"It holds {len(entries)} vectors; at most {MAX_VECTORS} are read at once.")
    found: list[str] = []
    problems: list[str] = []
    vectors: list[SteeringVector] = []
    for number, entry in enumerate(entries, 1):
        name = target.id if len(entries) == 1 else f"{target.id[:60]}-{number}"
        try:
            vectors.append(_entry(entry, name, target, found, problems))
        except VectorError as error:
            if len(entries) == 1:
                raise
            problems.append(f"Vector {number} of {len(entries)}: {error}")
    if not vectors:
        raise VectorError(problems[0])
    return ImportReport(FORMAT, found, vectors, problems)


def _unwrap(content: Any) -> Any:
    """What a request holds of vectors, which may itself be JSON in a string."""
    for key in ("vllm_xargs", "extra_args", "apply_steering_vectors"):
        if isinstance(content, dict) and key in content:
            content = content[key]
        if isinstance(content, str):
            content = parse_json(content.encode("utf-8", errors="replace"))
    return content


def _by_hand(content: dict[str, Any], target: Target) -> ImportReport:
    directions: dict[int, torch.Tensor] = {}
    for key, values in content["layers"].items():
        if not (key.isascii() and key.isdecimal() and len(key) <= 5):
            raise VectorError(f"The layer {key[:40]!r} is not a whole number.")
        if int(key) in directions:
            raise VectorError(f"It holds two directions for layer {int(key)}.")
        directions[int(key)] = _numbers(values)
    problems: list[str] = []
    vector = make_vector(
        target, directions, source=BY_HAND, operator="add", problems=problems,
        label=target.label or _text(content, "label"), description=_text(content, "description"),
    )  # fmt: skip
    return ImportReport(BY_HAND, [f"Directions for {span(vector.layers)}."], [vector], problems)


def _entry(
    entry: dict[str, Any], name: str, target: Target, found: list[str], problems: list[str]
) -> SteeringVector:
    """One vector of vllm-lens."""
    layers = entry["layer_indices"]
    if not (isinstance(layers, list) and layers and all(type(layer) is int for layer in layers)):
        raise VectorError("Its layer_indices are not a list of whole numbers.")
    if len(layers) > MAX_ROWS or len(set(layers)) != len(layers):
        raise VectorError("Its layer_indices are too many, or one layer is named twice.")
    scale = entry.get("scale", 1.0)
    if type(scale) not in (int, float) or not abs(scale) < 1e6:
        raise VectorError("Its scale is not a number below a million.")
    relative = entry.get("norm_match", False) is True
    rows = _activations(entry.get("activations"))
    if len(rows) != len(layers):
        raise VectorError(f"It has {len(rows)} rows of activations for {len(layers)} layers.")
    strengths = _strengths(float(scale), relative)
    vector = make_vector(
        target, dict(zip(layers, rows, strict=True)), source=FORMAT, id=name, problems=problems,
        operator="add" if relative else "add_absolute", strengths=strengths,
        provenance={"scale": scale, "norm_match": relative},
    )  # fmt: skip
    unit = "relative to the stream's length (norm_match)" if relative else "times the vector as it is"
    found.append(f"Directions for {span(vector.layers)}; a strength is vllm-lens' scale, {unit}.")
    if vector.suggested != scale:
        found.append(f"Its scale is {scale:g}; {vector.suggested:g} is suggested instead.")
    return vector


def _strengths(scale: float, relative: bool) -> tuple[tuple[float, float], float]:
    """Twice the file's scale each way. A norm-relative sum is capped at the stream's length, so at 1."""
    if relative:
        limit = min(max(2 * abs(scale), RELATIVE_LIMIT), 1.0)
        return (-limit, limit), min(max(scale, -limit), limit)
    limit = 2 * abs(scale) or 2.0
    return (-limit, limit), scale or 1.0


def _activations(value: Any) -> list[torch.Tensor]:
    """Rows of [layers, hidden_size]."""
    if isinstance(value, list):
        if value and isinstance(value[0], list) and value[0] and isinstance(value[0][0], list):
            raise VectorError(
                "Its activations are of single positions (three dimensions); vectors here act on every token."
            )
        if len(value) > MAX_ROWS:
            raise VectorError(f"It has {len(value)} rows of activations; at most {MAX_ROWS} are read.")
        return [_numbers(row) for row in value]
    if not isinstance(value, dict):
        raise VectorError("Its activations are neither lists of numbers nor a tensor in base64.")
    return list(_tensor(value))


def _tensor(value: dict[str, Any]) -> torch.Tensor:
    """A tensor as vllm-lens writes it: base64 of zstd of little-endian numbers."""
    import numpy as np
    import torch

    shape, dtype, text = value.get("shape"), value.get("dtype"), value.get("data")
    if not (isinstance(shape, list) and all(type(n) is int and 0 < n <= 1 << 20 for n in shape)):
        raise VectorError("The shape of its activations is not a list of whole numbers.")
    if len(shape) != 2:
        raise VectorError(
            f"Its activations have shape {shape[:8]}; vectors here act on every token, so two dimensions are "
            "read: layers and hidden size."
        )
    brain = value.get("original_dtype") == "torch.bfloat16"
    if not isinstance(dtype, str) or dtype not in _DTYPES or (dtype == "int16") != brain:
        raise VectorError("The dtype of its activations is none of float16, bfloat16, float32 and float64.")
    if not isinstance(text, str):
        raise VectorError("The data of its activations are not base64.")
    kind = np.dtype(_DTYPES[dtype])
    size = math.prod(shape) * kind.itemsize
    if size > MAX_BYTES * 4:
        raise VectorError(f"Its activations would take {size >> 20} MiB, too much for a vector.")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VectorError(f"The data of its activations are not base64 ({error}).") from error
    if value.get("compression") == "zstd":
        raw = _decompress(raw, size)
    if len(raw) != size:
        raise VectorError(f"Its activations are {len(raw)} bytes; their shape and dtype ask for {size}.")
    if brain:
        return torch.from_numpy(np.frombuffer(raw, "<i2").copy()).view(torch.bfloat16).reshape(shape).float()
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.frombuffer(raw, kind).astype(np.float32)).reshape(shape)


def _decompress(raw: bytes, size: int) -> bytes:
    """At most `size` + 1 bytes, whatever the frame claims."""
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(raw) as stream:
            return bytes(stream.read(size + 1))
    except zstandard.ZstdError as error:
        raise VectorError(f"Its activations cannot be decompressed ({error}).") from error


def _numbers(values: Any) -> torch.Tensor:
    """A list of numbers: [len(values)] fp32."""
    import torch

    if not isinstance(values, list) or not values:
        raise VectorError("A direction is not a list of numbers.")
    if not all(type(value) in (int, float) and abs(value) < 1e30 for value in values):
        raise VectorError("A direction holds something else than numbers, or one too large to be meant.")
    return torch.tensor([float(value) for value in values], dtype=torch.float32)


def _text(content: dict[str, Any], key: str) -> str:
    value = content.get(key, "")
    return value if isinstance(value, str) else ""
