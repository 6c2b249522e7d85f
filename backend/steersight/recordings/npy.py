"""The headers of `.npy` members, written as numpy writes them and read by a parser of three keys.

numpy's own reader evaluates a header as Python and allocates what it claims. Here a header is matched
against the one form that it may have, and says a dtype and a shape; nothing is allocated.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import RecordingError, shown

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES = 1024
PREFIX_BYTES = 12
"""Of the longer of the two versions: magic, version, and the header's length."""

_VALUE = r"'[^'\\\n]{1,16}'|True|False|\([0-9, ]{0,100}\)"
_ITEM = rf" *'(?:descr|fortran_order|shape)' *: *(?:{_VALUE}) *"
_HEADER = re.compile(rf"\{{{_ITEM},{_ITEM},{_ITEM},? *\}} *\n")
_PAIR = re.compile(rf"'(descr|fortran_order|shape)' *: *({_VALUE})")
_SHAPE = re.compile(r"\((?:| *[0-9]{1,15} *,| *[0-9]{1,15}(?: *, *[0-9]{1,15})+ *,?) *\)")


@dataclass(frozen=True)
class Header:
    """What a header says."""

    dtype: str
    shape: tuple[int, ...]
    size: int
    """Bytes of magic and header: the values begin there."""

    @property
    def values_bytes(self) -> int:
        """Bytes that the values take."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def header_size(start: bytes, name: str) -> int:
    """How many bytes the header takes, by the first PREFIX_BYTES of a member. Raises RecordingError."""
    if len(start) < 10 or not start.startswith(MAGIC):
        raise RecordingError(f"{name} is not an array of numpy: it does not begin as one.")
    version = (start[6], start[7])
    if version == (1, 0):
        size = 10 + int.from_bytes(start[8:10], "little")
    elif version == (2, 0) and len(start) >= 12:
        size = 12 + int.from_bytes(start[8:12], "little")
    else:
        raise RecordingError(f"{name} is an .npy of version {version[0]}.{version[1]}; 1.0 and 2.0 are read.")
    if size > MAX_HEADER_BYTES:
        raise RecordingError(f"{name} claims a header of {size} bytes; at most {MAX_HEADER_BYTES} are read.")
    return size


def parse_header(data: bytes, name: str, dtype: str) -> Header:
    """What the header of a member says, which must be of this dtype. Raises RecordingError.

    Args:
        data: the member's first `header_size` bytes.
        name: of the member.
        dtype: as numpy spells it, `<f2`.
    """
    text = data[10 if data[6] == 1 else 12 :].decode("latin-1")
    said = dict(_PAIR.findall(text)) if _HEADER.fullmatch(text) else {}
    if len(said) != 3 or not _SHAPE.fullmatch(said["shape"]):
        raise RecordingError(f"{name} has a header that is not plain: {shown(text.strip())!r}.")
    if said["fortran_order"] != "False":
        raise RecordingError(f"{name} is in Fortran's order; a recording's arrays are in C's.")
    if said["descr"] != f"'{dtype}'":
        raise RecordingError(f"{name} is of dtype {shown(said['descr'])}; it must be '{dtype}'.")
    shape = tuple(int(part) for part in said["shape"][1:-1].split(",") if part.strip())
    return Header(dtype, shape, len(data))


def header_bytes(array: NDArray[np.generic]) -> bytes:
    """Magic and header, byte for byte as `numpy.save` writes them."""
    out = io.BytesIO()
    said = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(out, said)  # type: ignore[no-untyped-call]
    return out.getvalue()
