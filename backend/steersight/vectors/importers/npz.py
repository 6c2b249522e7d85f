"""An archive of NumPy arrays (`numpy.savez`) read with limits, one row or column at a time.

Nothing in it is unpickled: arrays of Python objects are refused by their header. An array that is stored as
it is, which is how `numpy.savez` does it, is mapped and not read whole: the weights of an autoencoder are up
to several GiB.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..store import VectorError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

MAX_ARRAYS = 64
_FLOATS = {"<f2", "<f4", "<f8"}


class Arrays:
    """The arrays of an open archive. Whatever is read comes as fp32."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self._entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        self.names = list(self._entries)
        if len(self.names) > MAX_ARRAYS:
            raise VectorError(f"It holds {len(self.names)} arrays; at most {MAX_ARRAYS} are read.")

    def shape(self, name: str) -> list[int]:
        """Shape of an array of floating-point numbers."""
        return list(self._array(name).shape)

    def row(self, name: str, index: int, shape: list[int]) -> torch.Tensor:
        """Row `index` of a matrix of this shape: [shape[1]]."""
        return _copy(self._expect(name, shape)[index])

    def column(self, name: str, index: int, shape: list[int]) -> torch.Tensor:
        """Column `index` of a matrix of this shape: [shape[0]]."""
        return _copy(self._expect(name, shape)[:, index])

    def number(self, name: str, index: int, count: int) -> float:
        """One of `count` numbers."""
        return float(self._expect(name, [count])[index])

    def _expect(self, name: str, shape: list[int]) -> NDArray[Any]:
        array = self._array(name)
        if list(array.shape) != shape:
            raise VectorError(f"Its array {name!r} has shape {list(array.shape)}; expected {shape}.")
        return array

    def _array(self, name: str) -> NDArray[Any]:
        """The array, mapped. Its place and size are checked against the file's."""
        import numpy as np

        if name not in self._entries:
            raise VectorError(f"It has no array {name!r}; it has {', '.join(self.names[:12])}.")
        entry = self._entries[name]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise VectorError("It is compressed. Save it anew with `numpy.savez`, which does not compress.")
        with self._archive.open(entry) as file:
            shape, columns_first, dtype = _read_header(file)
            header = file.tell()
        if dtype.str not in _FLOATS:
            raise VectorError(f"Its array {name!r} holds {dtype}, not floating-point numbers.")
        if not all(0 < size < 1 << 31 for size in shape) or len(shape) not in (1, 2):
            raise VectorError(f"Its array {name!r} has shape {list(shape)[:8]}, which no weights have.")
        if header + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise VectorError(f"Its array {name!r} is not as long as its header says: the file is damaged.")
        mapped: np.memmap[Any, Any] = np.memmap(
            self._path, dtype, "r", self._begin(entry) + header, tuple(shape), "F" if columns_first else "C"
        )
        return mapped

    def _begin(self, entry: zipfile.ZipInfo) -> int:
        """Where the entry's bytes begin in the file: behind its local header."""
        with self._path.open("rb") as file:
            file.seek(entry.header_offset)
            local = file.read(30)
        if len(local) < 30:
            raise VectorError("It ends in the middle of a header: the file is damaged.")
        name, extra = struct.unpack("<HH", local[26:30])
        return int(entry.header_offset + 30 + name + extra)


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type of numbers. Raises VectorError."""
    import numpy as np

    formats: Any = np.lib.format  # has no types
    try:
        version = formats.read_magic(file)
        read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
        found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)
    except Exception as error:  # it parses the header as Python, and raises whatever that does
        raise VectorError("It is no archive of NumPy arrays, or damaged (a header).") from error
    return found


def _copy(array: NDArray[Any]) -> torch.Tensor:
    import numpy as np
    import torch

    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(array, dtype=np.float32))


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """Open an archive. Raises VectorError with a sentence, also for what is read inside."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Arrays(path, archive)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        if isinstance(error, VectorError):
            raise
        raise VectorError(f"It is no archive of NumPy arrays, or damaged ({str(error)[:100]}).") from error
    except OSError as error:
        raise VectorError(f"It cannot be read ({error.strerror or error}).") from error
