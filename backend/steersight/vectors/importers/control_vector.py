"""Control vectors as GGUF: what repeng exports and llama.cpp loads.

Tensors `direction.N` of shape [hidden_size], architecture `controlvector`. Where they act, by both sources:
repeng (0.4, 0.5) wraps `model.layers[N]` and adds coefficient * direction to its output; llama.cpp's
build_cvec adds direction N to `l_out` of block N, counted from 0, and refuses N = 0. So N is our layer N.
(llama.cpp's own generator writes what it read after block N as direction N + 1. What counts here is where it
is added.)
Neither normalises: the coefficient times the vector as it is saved, our `add_absolute`.

The reader of the package gguf (0.19) believes what a header says: a file of 49 bytes that claims a list of
2^40 numbers keeps it busy until memory is full. So the little that matters of the format is read here, with
limits; a test holds both readers against each other.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..store import VectorError
from .report import ImportReport, Target, clip, make_vector, span

if TYPE_CHECKING:
    import torch

FORMAT = "repeng / llama.cpp control vector (GGUF)"
MAGIC = b"GGUF"
MAX_TENSORS = 4096
MAX_FIELDS = 1024
MAX_STRING = 1 << 20
MAX_STRINGS = 1 << 16
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_FLOATS = {0: "f4", 1: "f2"}
"""GGML's numbers of F32 and F16. llama.cpp reads the first only."""
_NAME = re.compile(r"direction\.(-?[0-9]{1,5})\Z")


@dataclass(frozen=True)
class _Info:
    name: str
    shape: list[int]
    kind: int
    offset: int


class _Header:
    """A cursor over the file that never leaves it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = len(MAGIC)

    def take(self, count: int) -> bytes:
        part = self.data[self.at : self.at + count]
        if len(part) != count:
            raise VectorError("It ends in the middle of its header: the file is damaged.")
        self.at += count
        return part

    def number(self, code: str) -> int | float | bool:
        value: int | float | bool = struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]
        return value

    def count(self, code: str, limit: int, what: str) -> int:
        value = int(self.number(code))
        if value > limit:
            raise VectorError(f"It claims {value} {what}; at most {limit} are read.")
        return value

    def text(self) -> str:
        return self.take(self.count("Q", MAX_STRING, "bytes of text")).decode("utf-8", errors="replace")

    def value(self) -> int | float | bool | str | None:
        """A metadata value; None for an array, which is passed over."""
        kind = int(self.number("I"))
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY:
            raise VectorError(f"Its metadata has a value of the unknown type {kind}: the file is damaged.")
        item = int(self.number("I"))
        if item == _STRING:
            for _ in range(self.count("Q", MAX_STRINGS, "texts in one list")):
                self.text()
        elif item in _SCALARS:
            size = struct.calcsize("<" + _SCALARS[item])
            self.take(size * self.count("Q", len(self.data) // size, "numbers in one list"))
        else:
            raise VectorError(f"Its metadata has a list of the unknown type {item}: the file is damaged.")
        return None

    def info(self) -> _Info:
        name = self.text()
        shape = [int(self.number("Q")) for _ in range(self.count("I", 4, "dimensions"))]
        return _Info(name, shape, int(self.number("I")), int(self.number("Q")))


def read_control_vector(data: bytes, target: Target) -> ImportReport:
    """Read a GGUF control vector. Raises VectorError."""
    fields, infos, start = _read_header(data)
    architecture = fields.get("general.architecture")
    if architecture not in (None, "controlvector"):
        raise VectorError(
            f"It is a GGUF file of architecture {clip(str(architecture), 40)!r}, not a control vector."
        )
    problems: list[str] = []
    directions: dict[int, torch.Tensor] = {}
    found: list[str] = []
    for info in infos:
        match = _NAME.match(info.name)
        if match is None:
            problems.append(f"The tensor {clip(info.name, 60)!r} is no direction.N and was left out.")
            continue
        layer = int(match[1])
        if layer < 0:
            layer += target.layers
            found.append(f"{info.name} was counted from the model's end: layer {layer}.")
        if layer in directions:
            raise VectorError(f"It holds two directions for layer {layer}.")
        if len(info.shape) != 1:
            raise VectorError(
                f"Its tensor {info.name} has shape {info.shape}; a direction has one dimension."
            )
        target.check_width(info.shape[0])
        target.check_layer(layer)
        directions[layer] = _tensor(data, info, start)
    if not directions:
        raise VectorError("It is a GGUF file without a tensor named direction.N, so no control vector.")
    hint = fields.get("controlvector.model_hint")
    made_for = f", made for a model of type {clip(hint, 40)!r}" if isinstance(hint, str) and hint else ""
    number = "One direction" if len(directions) == 1 else f"{len(directions)} directions"
    found.insert(0, f"{number} for {span(sorted(directions))}{made_for}.")
    found.append("direction.N acts on the output of layer N, counted from 0, as repeng and llama.cpp add it.")
    found.append("A strength is their coefficient: 1 adds the vector as it is.")
    vector = make_vector(
        target, directions, source=FORMAT, operator="add_absolute", problems=problems,
        provenance={"model_hint": clip(hint)} if isinstance(hint, str) else None,
    )  # fmt: skip
    return ImportReport(FORMAT, found, [vector], problems)


def _read_header(data: bytes) -> tuple[dict[str, int | float | bool | str | None], list[_Info], int]:
    """Metadata, what tensors there are, and where their data start."""
    header = _Header(data)
    version = header.number("I")
    if version not in (2, 3):
        raise VectorError(f"It is GGUF of version {version}; 2 and 3 in little-endian order are read.")
    tensors = header.count("Q", MAX_TENSORS, "tensors")
    count = header.count("Q", MAX_FIELDS, "metadata fields")
    fields: dict[str, int | float | bool | str | None] = {}
    for _ in range(count):
        key = header.text()
        fields[key] = header.value()
    infos = [header.info() for _ in range(tensors)]
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= 4096 or alignment & (alignment - 1):
        raise VectorError("Its alignment is no power of two up to 4096: the file is damaged.")
    return fields, infos, math.ceil(header.at / alignment) * alignment


def _tensor(data: bytes, info: _Info, start: int) -> torch.Tensor:
    """A direction as fp32."""
    import numpy as np
    import torch

    if info.kind not in _FLOATS:
        raise VectorError(f"Its tensor {info.name} is of GGML type {info.kind}; F32 and F16 are read.")
    dtype = np.dtype("<" + _FLOATS[info.kind])
    first = start + info.offset
    if first + info.shape[0] * dtype.itemsize > len(data):
        raise VectorError(f"Its tensor {info.name} reaches beyond the end: the file is damaged.")
    values = np.frombuffer(data, dtype, count=info.shape[0], offset=first)
    return torch.from_numpy(values.astype(np.float32))
