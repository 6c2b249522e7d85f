"""Steering vectors as files: one safetensors file per vector, checked before anything uses it.

The file. Tensors `layer.<i>` of shape [hidden_size], one per decoder layer at which the vector acts (i is
0-based, the direction is added to that layer's output). One metadata entry `steersight`, a JSON object:

    format       1
    id           what clients call it: 1 to 64 characters of A-Z a-z 0-9 _ . : -
    label        short name for people
    description  one sentence: what a positive and a negative strength do
    model        name of the model it was made for, as `model_name` spells it
    hidden_size  length of every tensor
    range        [lo, hi], strengths worth offering; lo < hi
    suggested    a strength in that range with a plain effect
    provenance   object, free: how it was made
    operator     optional: what it does unless a run says otherwise, one of `OPERATORS`; else `add`
    site         optional: `attention` for a direction in what attention adds; else the stream itself
    kind         optional: `feature` for a feature of a sparse autoencoder; else `direction`
    adapter      optional: the LoRA adapter that it was made under, to which alone it belongs
    reader       optional, features only: {scale_to, gain, bias, gate_bias, threshold} of `FeatureReader`,
                 whose weight is a tensor `encoder` of shape [hidden_size]

The length of a tensor `layer.<i>` counts for operators that are absolute; relative ones take its direction.

Invariant: a `SteeringVector` that exists is usable: finite, unit length, at most one direction per layer.
A file that is not is refused with a sentence and never stops the others from loading. Nothing is unpickled:
only safetensors are opened, whatever a file is called.

Importing this module imports neither torch nor an engine; reading a vector imports torch.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..files import why, write_whole
from ..naming import model_name
from .operators import Operator

if TYPE_CHECKING:
    import torch

FORMAT = 1
OPERATORS = tuple(operator.word for operator in Operator)
READER_FIELDS = ("scale_to", "gain", "bias", "gate_bias", "threshold")
METADATA_KEY = "steersight"
SUFFIX = ".safetensors"
BUNDLED = Path(__file__).parent / "bundled"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_TEXT = 1000

_SERIALS = itertools.count(1)
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z")
_TENSOR = re.compile(r"layer\.(0|[1-9][0-9]{0,4})\Z")


class VectorError(ValueError):
    """A vector that cannot be used; the message is a sentence that says why."""


@dataclass(frozen=True, eq=False)
class FeatureReader:
    """How strongly a feature of a sparse autoencoder fires, read off one token's stream x [hidden_size].

        u = weight . x * (scale_to / ||x|| where scale_to is not 0, else 1)
        f = max(gain * u + bias, 0) where u + gate_bias > threshold, else 0

    ReLU: gain 1, gate_bias = bias, threshold 0. JumpReLU (Rajamanoharan et al. 2024b): the same with its
    threshold. Gated (Rajamanoharan et al. 2024a): gain e^r, the magnitude's and the gate's own biases,
    threshold 0. A decoder bias that is taken from the input first is folded into the two biases.
    """

    weight: torch.Tensor
    """[hidden_size] fp32, the feature's row of the encoder"""
    bias: float
    gate_bias: float
    gain: float = 1.0
    threshold: float = 0.0
    scale_to: float = 0.0
    """Length that inputs are scaled to before encoding (Llama Scope); 0 is none."""


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A named direction in the residual stream, at one or several layers."""

    id: str
    label: str
    description: str
    layers: list[int]
    """Decoder layers at which it acts, ascending."""
    directions: torch.Tensor
    """[len(layers), hidden_size] fp32, unit length; given at any length and type, normalised here."""
    range: tuple[float, float]
    suggested: float
    model: str
    hidden_size: int
    provenance: dict[str, Any] = field(default_factory=dict)
    operator: str = "add"
    """What it does unless a run says otherwise; `range` and `suggested` are meant for this one."""
    kind: Literal["direction", "feature"] = "direction"
    site: Literal["residual", "attention"] = "residual"
    """`attention`: it is added to what attention adds, before the layer goes on with that."""
    reader: FeatureReader | None = None
    """Reads a feature's activation; None where that cannot be read from its own weights alone (top-k)."""
    adapter: str = ""
    """The LoRA adapter that it was made under, and that a run must be written with to be steered by it; ""
    for one of the base model, which may steer any run."""
    lengths: torch.Tensor = field(init=False)
    """[len(layers)] fp32: the lengths the directions were given with."""
    serial: int = field(init=False, compare=False, default_factory=_SERIALS.__next__)
    """No other vector of this process has it or has had it, whatever their ids."""

    @property
    def operators(self) -> list[str]:
        """What it can do, the most usual first."""
        if self.site == "attention":
            return ["add_absolute"]
        return [*OPERATORS[:4], *(OPERATORS[4:] if self.reader is not None else ())]

    @property
    def feature(self) -> int | None:
        """Number of the feature in its autoencoder, where its maker noted it."""
        number = self.provenance.get("feature") if self.kind == "feature" else None
        return number if type(number) is int and number >= 0 else None

    def renamed(self, name: str) -> SteeringVector:
        """The same under another id."""
        if name == self.id:
            return self
        return replace(self, id=name, directions=self.directions * self.lengths[:, None])

    def __post_init__(self) -> None:
        """Check everything that can be checked without the served model; raises VectorError."""
        import torch

        from .operators import unit_rows

        if not _ID.match(self.id):
            raise VectorError(
                f"The id {self.id!r} is not allowed; use 1 to 64 letters, digits or any of _ . : -"
            )
        for name in ("label", "description", "model"):
            if len(getattr(self, name)) > MAX_TEXT:
                raise VectorError(f"The {name} is longer than {MAX_TEXT} characters.")
        if self.adapter and not _ID.match(self.adapter):
            raise VectorError(f"No adapter can have the name {self.adapter[:64]!r}.")
        if not self.label.strip():
            raise VectorError("The label is empty.")
        lo, hi = self.range
        if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
            raise VectorError(f"The range [{lo}, {hi}] is not two finite numbers, the smaller one first.")
        if not lo <= self.suggested <= hi:
            raise VectorError(f"The suggested strength {self.suggested} is outside the range [{lo}, {hi}].")
        if not self.layers:
            raise VectorError("It has no layer to act at; expected tensors named layer.<number>.")
        if self.layers != sorted(set(self.layers)) or self.layers[0] < 0:
            raise VectorError(f"The layers {self.layers} are not ascending, different and at least 0.")
        shape = tuple(self.directions.shape)
        if shape != (len(self.layers), self.hidden_size):
            raise VectorError(
                f"The directions have shape {shape}; expected {(len(self.layers), self.hidden_size)} "
                "(layers, hidden size)."
            )
        for layer, direction in zip(self.layers, self.directions, strict=True):
            if not bool(torch.isfinite(direction).all()):
                raise VectorError(f"The direction of layer {layer} contains NaN or infinity.")
            if not bool(direction.any()):
                raise VectorError(f"The direction of layer {layer} is zero, so it points nowhere.")
        encoder = None if self.reader is None else self.reader.weight
        if encoder is not None and (
            tuple(encoder.shape) != (self.hidden_size,) or not bool(encoder.isfinite().all())
        ):
            raise VectorError(f"The encoder is not {self.hidden_size} finite numbers.")
        numbers = [] if self.reader is None else [getattr(self.reader, name) for name in READER_FIELDS]
        if not bool(torch.tensor(numbers, dtype=torch.float32).isfinite().all()):
            raise VectorError("A number of its reader is too large for fp32.")
        if self.operator not in self.operators:
            raise VectorError(
                f"The operator {self.operator!r} is none that it can do: {', '.join(self.operators)}."
            )
        lengths = self.directions.double().norm(dim=-1).float()
        if not bool(lengths.isfinite().all()):
            raise VectorError("A direction is so long that its length is no number in fp32.")
        object.__setattr__(self, "lengths", lengths)
        object.__setattr__(self, "directions", unit_rows(self.directions))


def load_vector(path: Path) -> SteeringVector:
    """Read one vector file. Raises VectorError with a sentence that does not repeat the path."""
    if path.suffix != SUFFIX:
        raise VectorError(f"Only {SUFFIX} files are opened; pickles and other formats never are.")
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise VectorError(f"It is larger than {MAX_FILE_BYTES // 2**20} MiB, too large for a vector.")
        with safe_open(path, framework="pt") as file:
            header = _header(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise VectorError(f"It is not a safetensors file ({error}).") from error
    except OSError as error:
        raise VectorError(f"It cannot be read ({error.strerror or error}).") from error
    encoder = tensors.pop("encoder", None)
    layers, directions = _directions(tensors, header["hidden_size"])
    return SteeringVector(
        id=header["id"],
        label=header["label"],
        description=header["description"],
        layers=layers,
        directions=directions,
        range=(float(header["range"][0]), float(header["range"][1])),
        suggested=float(header["suggested"]),
        model=header["model"],
        hidden_size=header["hidden_size"],
        provenance=header["provenance"],
        operator=header.get("operator", "add"),
        kind=header.get("kind", "direction"),
        site=header.get("site", "residual"),
        adapter=header.get("adapter", ""),
        reader=_reader(encoder, header.get("reader")),
    )


def _reader(encoder: torch.Tensor | None, numbers: Any) -> FeatureReader | None:
    if encoder is None and numbers is None:
        return None
    if encoder is None or not isinstance(numbers, dict) or set(numbers) != set(READER_FIELDS):
        raise VectorError(
            "To read a feature, it needs a tensor 'encoder' and a metadata field 'reader' with "
            f"{', '.join(READER_FIELDS)}."
        )
    if not all(_is_number(number) and math.isfinite(number) for number in numbers.values()):
        raise VectorError("Its metadata field 'reader' holds something else than finite numbers.")
    return FeatureReader(weight=encoder.float(), **{name: float(number) for name, number in numbers.items()})


def _header(metadata: dict[str, str]) -> dict[str, Any]:
    """Parse and type-check the metadata entry."""
    if METADATA_KEY not in metadata:
        raise VectorError(f"Its metadata has no {METADATA_KEY!r} entry, so it is no steering vector.")
    try:
        header: Any = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise VectorError(f"Its {METADATA_KEY!r} metadata is not JSON ({error}).") from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise VectorError(f"Its {METADATA_KEY!r} metadata is not of format {FORMAT}.")
    for name in ("id", "label", "description", "model"):
        if not isinstance(header.get(name), str):
            raise VectorError(f"Its metadata field {name!r} is missing or not a text.")
    if type(header.get("hidden_size")) is not int:
        raise VectorError("Its metadata field 'hidden_size' is missing or not a whole number.")
    limits = header.get("range")
    if not (isinstance(limits, list) and len(limits) == 2 and all(_is_number(x) for x in limits)):
        raise VectorError("Its metadata field 'range' is missing or not two numbers.")
    if not _is_number(header.get("suggested")):
        raise VectorError("Its metadata field 'suggested' is missing or not a number.")
    for name, allowed in (
        ("operator", OPERATORS), ("kind", ("direction", "feature")), ("site", ("residual", "attention"))
    ):  # fmt: skip
        if name in header and header[name] not in allowed:
            raise VectorError(f"Its metadata field {name!r} is none of {', '.join(allowed)}.")
    if not isinstance(header.get("adapter", ""), str):
        raise VectorError("Its metadata field 'adapter' is not a text.")
    if not isinstance(header.get("provenance"), dict):
        raise VectorError("Its metadata field 'provenance' is missing or not an object.")
    return header


def _is_number(value: object) -> bool:
    # A whole number of 400 digits is JSON too, and no float.
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def _directions(tensors: dict[str, torch.Tensor], hidden_size: int) -> tuple[list[int], torch.Tensor]:
    """Layers, ascending, and their directions stacked to [layers, hidden_size] fp32."""
    import torch

    found: dict[int, torch.Tensor] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.match(name)
        if match is None:
            raise VectorError(f"It has a tensor {name!r}; expected only names like layer.12.")
        if not tensor.dtype.is_floating_point:
            raise VectorError(f"Its tensor {name} holds {tensor.dtype}, not floating-point numbers.")
        if tuple(tensor.shape) != (hidden_size,):
            raise VectorError(
                f"Its tensor {name} has shape {tuple(tensor.shape)}; its metadata says ({hidden_size},)."
            )
        found[int(match[1])] = tensor.float()
    layers = sorted(found)
    stacked = torch.stack([found[layer] for layer in layers]) if layers else torch.zeros(0, hidden_size)
    return layers, stacked


def vector_bytes(vector: SteeringVector) -> bytes:
    """What stands in its file. The same vector always gives the same bytes."""
    from safetensors.torch import save

    header = {
        "format": FORMAT,
        "id": vector.id,
        "label": vector.label,
        "description": vector.description,
        "model": vector.model,
        "hidden_size": vector.hidden_size,
        "range": list(vector.range),
        "suggested": vector.suggested,
        "provenance": vector.provenance,
    }
    plain = {"operator": "add", "kind": "direction", "site": "residual", "adapter": ""}
    header |= {name: getattr(vector, name) for name, usual in plain.items() if getattr(vector, name) != usual}
    tensors = {
        f"layer.{layer}": direction * length
        for layer, direction, length in zip(vector.layers, vector.directions, vector.lengths, strict=True)
    }
    if vector.reader is not None:
        header["reader"] = {name: getattr(vector.reader, name) for name in READER_FIELDS}
        tensors["encoder"] = vector.reader.weight.clone()
    # One metadata entry only: safetensors writes several in no particular order.
    content: bytes = save(tensors, metadata={METADATA_KEY: json.dumps(header, sort_keys=True)})
    return content


def save_vector(vector: SteeringVector, path: Path) -> None:
    """Write one vector file, whole or not at all. Raises OSError."""
    write_whole(path, vector_bytes(vector))


@dataclass(frozen=True)
class Selection:
    """The vectors that fit a served model, and why others do not."""

    vectors: dict[str, SteeringVector]
    """By id, bundled ones first, then by file name."""
    problems: list[str]
    """One sentence per file that is not used, naming it."""
    files: dict[str, Path] = field(default_factory=dict)
    """Where each was read."""
    own: set[str] = field(default_factory=set)
    """Ids of those that are not bundled."""


class VectorStore:
    """The folders that vectors are read from.

    Bundled vectors lie in one folder per model and are offered for that model only. The user's own, in
    `<data dir>/vectors`, are offered wherever hidden size and layers fit: trying a vector on a sibling model
    is a fair experiment, and theirs to make.
    """

    def __init__(self, data_dir: Path | None, bundled: Path = BUNDLED) -> None:
        self.own = None if data_dir is None else data_dir / "vectors"
        self.bundled = bundled

    def select(
        self, model: str, hidden_size: int, layers: int, adapters: Collection[str] | None = None
    ) -> Selection:
        """Read both folders for a served model.

        Args:
            model: its path or hub id.
            hidden_size: width of its residual stream.
            layers: number of its decoder layers.
            adapters: names of the LoRA adapters that are served with it; None where that is not known.
        """
        name = model_name(model)
        chosen: dict[str, SteeringVector] = {}
        files: dict[str, Path] = {}
        own: set[str] = set()
        problems: list[str] = []
        for path in [*_files(self._bundled_folder(name), problems), *_files(self.own, problems)]:
            try:
                vector = load_vector(path)
                _check_fits(vector, hidden_size, layers)
                if adapters is not None:
                    check_adapter(vector, adapters)
                if path.parent != self.own and vector.model != name:
                    raise VectorError(f"It was made for the model {vector.model!r}, not {name!r}.")
                if vector.id in chosen:
                    raise VectorError(f"Another vector already has the id {vector.id!r}.")
            except VectorError as error:
                problems.append(f"Vector file {path.name} is not used. {error}")
            else:
                chosen[vector.id] = vector
                files[vector.id] = path
                if path.parent == self.own:
                    own.add(vector.id)
        return Selection(chosen, problems, files, own)

    def _bundled_folder(self, name: str) -> Path | None:
        # A name such as `..` must not lead out of the folder.
        return self.bundled / name if _ID.match(name) and name.strip(".") else None


def _files(folder: Path | None, problems: list[str]) -> Sequence[Path]:
    """All files of a folder in name order, hidden ones (half-written ones, say) left out.

    A folder that cannot be looked into is said among the problems; one that is not there is empty.
    """
    if folder is None:
        return []
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"No vector in {folder} is used: it cannot be looked into ({why(error)}).")
        return []


def check_adapter(vector: SteeringVector, adapters: Collection[str]) -> None:
    """Raise VectorError unless the vector's adapter, if it has one, is among those that are served."""
    if vector.adapter and vector.adapter not in adapters:
        raise VectorError(
            f"It was made under the LoRA adapter {vector.adapter!r}, which is not served here. Start with "
            f"--lora {vector.adapter}=FOLDER."
        )


def _check_fits(vector: SteeringVector, hidden_size: int, layers: int) -> None:
    """Raise VectorError unless the vector fits a model of this shape."""
    if vector.hidden_size != hidden_size:
        raise VectorError(
            f"It was made for a residual stream of {vector.hidden_size} numbers; "
            f"the served model's has {hidden_size}."
        )
    if vector.layers[-1] >= layers:
        raise VectorError(
            f"It acts at layer {vector.layers[-1]}; the served model's last layer is {layers - 1}."
        )
