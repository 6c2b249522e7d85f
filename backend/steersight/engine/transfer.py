"""Small tables to the model's device and results from it, without a step waiting for the copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def to_device(numbers: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A small table on the device. From pinned memory, so that the step does not wait for the device."""
    import torch

    host = torch.as_tensor(numbers, dtype=dtype)
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=True)


def indices(numbers: Any, device: torch.device) -> torch.Tensor:
    """[n] int64 on the device."""
    import torch

    return to_device(numbers, torch.int64, device)


def to_host(tensor: torch.Tensor) -> Callable[[], NDArray[Any]]:
    """Start the copy; what is returned waits for it and gives the array."""
    import torch

    if tensor.device.type == "cpu":
        return tensor.contiguous().numpy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> NDArray[Any]:
        copied.synchronize()
        return host.numpy()

    return wait
