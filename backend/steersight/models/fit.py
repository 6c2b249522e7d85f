"""Whether a model fits this machine, with Steersight's own settings. Estimates, from sizes alone.

On a CPU the memory holds the weights in the type that the engine computes in (quantised ones as they are),
a KV cache of `--kv-cache-gib`, and `CPU_OVERHEAD`. On GPUs each holds its share of the weights, the keys
and values of one conversation of the greatest length at least, and what `engine/max_runs.py` sets aside.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

from ..engine.max_runs import SET_ASIDE, bytes_of_token
from ..engine.options import EngineOptions
from ..machine import Gpu
from .shape import BYTES, Shape

GIB = 1 << 30
CPU_OVERHEAD = 9 * GIB // 4
"""The server, the engine's processes, a step's activations and kept rows (256 MiB). The first two had 1.7 to
1.9 GiB for themselves when an engine had just come up; `test_models_fit.py` measures it."""
CPU_RANK_OVERHEAD = 3 * GIB // 4
"""Of each further process of a CPU engine."""


@dataclass(frozen=True)
class Room:
    """What an engine can have of this machine."""

    cuda: bool
    """Whether the engine that is installed computes on GPUs."""
    memory: int
    """Bytes that are free, or would be if the engine that runs now were ended."""
    gpus: tuple[Gpu, ...] = ()


@dataclass(frozen=True)
class Fit:
    """What was estimated of one model on one machine."""

    fits: bool
    needs: int
    """Bytes: of memory, or of each GPU."""
    on: Literal["cpu", "gpu"]
    ranks: int
    """GPUs, or processes of a CPU engine, that it is spread over."""
    why: str = ""
    """Why it does not fit, in a sentence; or what is uncertain. Empty for neither."""


def fit(shape: Shape, room: Room, options: EngineOptions, *, any_ranks: bool = False) -> Fit:
    """Whether a model fits.

    Args:
        shape: of the model.
        room: what there is.
        options: how the engine would be started.
        any_ranks: take the smallest number of GPUs on which it fits, in place of `--tensor-parallel`.
    """
    if not room.cuda:
        return _on_cpu(shape, room, options)
    if not room.gpus:
        return Fit(False, 0, "gpu", 1, "The engine that is installed needs a GPU, and there is none.")
    most = len(room.gpus)
    tried = range(1, most + 1) if any_ranks else [options.tensor_parallel]
    found = [_on_gpus(shape, room, options, ranks) for ranks in tried if not shape.heads % ranks]
    if not found:
        return Fit(False, 0, "gpu", options.tensor_parallel, _heads(shape, options.tensor_parallel))
    return next((one for one in found if one.fits), found[-1])


def _on_cpu(shape: Shape, room: Room, options: EngineOptions) -> Fit:
    ranks = options.tensor_parallel
    needs = cpu_needs(_weights(shape, options, cuda=False), options, ranks)
    if shape.heads % ranks:
        return Fit(False, needs, "cpu", ranks, _heads(shape, ranks))
    if needs > room.memory:
        why = f"It needs {gib(needs)} of memory, and {gib(room.memory)} are free."
        return Fit(False, needs, "cpu", ranks, why)
    why = _cache_too_small(shape, options, ranks)
    return Fit(not why, needs, "cpu", ranks, why or _unsure(shape))


def cpu_needs(weights: int, options: EngineOptions, ranks: int) -> int:
    """Bytes of memory that a CPU engine and its server come to, from the bytes of the weights."""
    return weights + ranks * options.kv_cache_gib * GIB + CPU_OVERHEAD + (ranks - 1) * CPU_RANK_OVERHEAD


def _cache_too_small(shape: Shape, options: EngineOptions, ranks: int) -> str:
    """vLLM does not start where one conversation of the greatest length has no room in the cache. Empty where
    it has, or where the size of a token in it is not known."""
    of_token = token_bytes(shape, _itemsize(shape, options, cuda=False), ranks)
    if of_token is None:
        return ""
    tokens = options.kv_cache_gib * GIB // of_token
    wanted = _length(shape, options)
    if tokens >= wanted:
        return ""
    least, most = -(-wanted * of_token // GIB), tokens // 16 * 16
    return (
        f"A KV cache of {options.kv_cache_gib} GiB holds {tokens:,} of its tokens, and a conversation may "
        f"have {wanted:,}: start the server with --kv-cache-gib {least}, or --max-model-len {most}."
    )


def _on_gpus(shape: Shape, room: Room, options: EngineOptions, ranks: int) -> Fit:
    itemsize = _itemsize(shape, options, cuda=True)
    of_token = token_bytes(shape, itemsize, ranks) or 0
    weights = _weights(shape, options, cuda=True) // ranks
    needs = weights + _length(shape, options) * of_token + SET_ASIDE
    if ranks > len(room.gpus):
        why = f"It is to be spread over {ranks} GPUs, and there are {len(room.gpus)}."
        return Fit(False, needs, "gpu", ranks, why)
    smallest = min(room.gpus[:ranks], key=lambda gpu: gpu.total)
    taken = int(options.gpu_memory * smallest.total)
    where = f"each of {ranks} GPUs" if ranks > 1 else "one GPU"
    if needs > taken:
        why = f"It needs {gib(needs)} of {where}, and the engine may take {gib(taken)}."
        return Fit(False, needs, "gpu", ranks, why)
    # vLLM does not start where it cannot have its whole share.
    busiest = min(room.gpus[:ranks], key=lambda gpu: gpu.free)
    if busiest.free < taken:
        why = (
            f"The engine takes {gib(taken)} of {where}, and on {busiest.name} {gib(busiest.free)} are free: "
            "end what else is on it, or start the server with a smaller --gpu-memory."
        )
        return Fit(False, needs, "gpu", ranks, why)
    return Fit(True, needs, "gpu", ranks, _unsure(shape))


def token_bytes(shape: Shape, itemsize: int, ranks: int) -> int | None:
    """Bytes of the KV cache on each rank that one token takes; None where its kind is not known here."""
    if shape.compressed_cache:
        return None
    config = SimpleNamespace(
        num_hidden_layers=shape.layers, num_key_value_heads=shape.kv_heads, head_dim=shape.head_size
    )
    return bytes_of_token(config, itemsize, ranks)


def _weights(shape: Shape, options: EngineOptions, *, cuda: bool) -> int:
    """Bytes of the weights in the engine: quantised ones stay as they are stored."""
    if shape.quantised and shape.stored:
        return shape.stored
    return shape.parameters * _itemsize(shape, options, cuda=cuda)


def _unsure(shape: Shape) -> str:
    if not shape.quantised:
        return ""
    return f"It is quantised ({shape.quantised}); whether the engine runs that here, only a start tells."


def _itemsize(shape: Shape, options: EngineOptions, *, cuda: bool) -> int:
    """Bytes of a number in the engine: `auto` is float32 on a CPU, half precision there where weights are
    quantised, and the checkpoint's own type on CUDA."""
    dtype = options.dtype
    if dtype == "auto":
        dtype = shape.dtype if cuda else "bfloat16" if shape.quantised else "float32"
    return BYTES.get(dtype, 2)


def _length(shape: Shape, options: EngineOptions) -> int:
    return min(options.max_model_len, shape.context or options.max_model_len)


def _heads(shape: Shape, ranks: int) -> str:
    return f"Its {shape.heads} heads of attention cannot be spread over {ranks}."


def gib(size: int) -> str:
    """A size as people read it."""
    return f"{size / GIB:.1f} GiB"
