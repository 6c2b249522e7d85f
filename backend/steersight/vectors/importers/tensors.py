"""A safetensors file read with limits, one row or column at a time where that is enough.

The weights of a sparse autoencoder are up to 1 GiB, of which one feature is some 32 KiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..store import VectorError

if TYPE_CHECKING:
    import torch

MAX_TENSORS = 4096
FLOATS = {"F64", "F32", "F16", "BF16"}


class Tensors:
    """The tensors of an open file. Whatever is read comes as fp32."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.metadata: dict[str, str] = file.metadata() or {}
        self.names: list[str] = list(file.keys())
        if len(self.names) > MAX_TENSORS:
            raise VectorError(f"It holds {len(self.names)} tensors; at most {MAX_TENSORS} are read.")

    def shape(self, name: str) -> list[int]:
        """Shape of a tensor of floating-point numbers."""
        if name not in self.names:
            raise VectorError(f"It has no tensor {name!r}; it has {', '.join(self.names[:12])}.")
        part = self._file.get_slice(name)
        if part.get_dtype() not in FLOATS:
            raise VectorError(f"Its tensor {name!r} holds {part.get_dtype()}, not floating-point numbers.")
        return list(part.get_shape())

    def whole(self, name: str, shape: list[int]) -> torch.Tensor:
        """A whole tensor, which must be of this shape."""
        self._expect(name, shape)
        tensor: torch.Tensor = self._file.get_tensor(name)
        return _copy(tensor)

    def row(self, name: str, index: int, shape: list[int]) -> torch.Tensor:
        """Row `index` of a matrix of this shape: [shape[1]]."""
        self._expect(name, shape)
        tensor: torch.Tensor = self._file.get_slice(name)[index : index + 1]
        return _copy(tensor[0])

    def column(self, name: str, index: int, shape: list[int]) -> torch.Tensor:
        """Column `index` of a matrix of this shape: [shape[0]]."""
        self._expect(name, shape)
        tensor: torch.Tensor = self._file.get_slice(name)[:, index : index + 1]
        return _copy(tensor[:, 0])

    def number(self, name: str, index: int, count: int) -> float:
        """One of `count` numbers."""
        self._expect(name, [count])
        return float(self._file.get_slice(name)[index : index + 1][0])

    def _expect(self, name: str, shape: list[int]) -> None:
        got = self.shape(name)
        if got != shape:
            raise VectorError(f"Its tensor {name!r} has shape {got}; expected {shape}.")


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """As fp32, and no longer a view of the mapped file, which may change or go."""
    import torch

    return tensor.to(torch.float32, copy=True)


@contextmanager
def open_tensors(path: Path) -> Iterator[Tensors]:
    """Open a safetensors file. Raises VectorError with a sentence, also for what is read inside."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield Tensors(file)
    except SafetensorError as error:
        raise VectorError(f"It is not a safetensors file, or damaged ({error}).") from error
    except OSError as error:
        raise VectorError(f"It cannot be read ({error.strerror or error}).") from error
