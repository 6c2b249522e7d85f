"""LoRA adapters in vLLM: what the engine is told of them, and what a worker does with each at load.

vLLM would read an adapter when the first request asks for it: in the engine's process, between two steps, and
with an error there the engine would end. So all of them are read at load, and all stay. vLLM (0.32) also
leaves out in silence what it has no module for, and fills up with zeros what is smaller than the model: an
adapter of another model would do half of what it should, or nothing. Such a one is refused here.

Only modules of decoder layers are wrapped (`lora_target_modules`). With the unembedding wrapped too, vLLM's
logits would take the rows that it is given for those of the batch's runs, in order, and the logit lens gives
it others.

vLLM is imported in functions: the server's process reads this module before it imports an engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..adapters import Adapter, room
from .layout import UnsupportedModelError


class AdapterError(UnsupportedModelError):
    """An adapter does not fit the model that is served; the message is a sentence."""


def engine_arguments(adapters: Sequence[Adapter]) -> dict[str, Any]:
    """vLLM's engine arguments that make room for these; none without any."""
    if not adapters:
        return {}
    return {
        "enable_lora": True,
        # All at once: which of them a step's runs use is up to those who ask.
        "max_loras": len(adapters),
        "max_cpu_loras": len(adapters),
        "max_lora_rank": room(tuple(adapters)),
        "lora_target_modules": sorted({module for adapter in adapters for module in adapter.modules}),
    }


def told(adapters: Sequence[Adapter]) -> list[tuple[str, str]]:
    """What a worker has to know: name and folder of each, in the order of their numbers."""
    return [(adapter.id, adapter.path) for adapter in adapters]


def lora_request(known: Sequence[tuple[str, str]], name: str) -> Any:
    """vLLM's request for an adapter; None for the base model, whose name is "". Raises KeyError.

    Args:
        known: as `told` gives them.
        name: the adapter's.
    """
    if not name:
        return None
    from vllm.lora.request import LoRARequest

    for number, (known_name, path) in enumerate(known, start=1):
        if known_name == name:
            return LoRARequest(name, number, path)
    raise KeyError(f"The engine has no adapter {name!r}.")


def take_up(runner: Any, known: Sequence[tuple[str, str]]) -> None:
    """Read all adapters into a worker, which keeps them, and see that each does what it should.

    After vLLM's warming up, which uses their places for adapters of its own.

    Raises:
        AdapterError: one of them does not fit the model.
    """
    for name, _ in known:
        request = lora_request(known, name)
        try:
            runner.add_lora(request)
        except Exception as error:
            raise AdapterError(f"The adapter {name!r} cannot be read into this model. {error}") from error
        manager = runner.lora_manager._adapter_manager
        if (why := next(_misfits(manager, request.lora_int_id), None)) is not None:
            raise AdapterError(
                f"The adapter {name!r} does not fit this model: {why}. Serve the model it was made for, or "
                "leave it out."
            )


def _misfits(manager: Any, number: int) -> Iterator[str]:
    """What of an adapter the model has no place for."""
    for name, weights in manager.get_adapter(number).loras.items():
        module = manager.modules.get(name)
        if module is None:
            yield f"it changes {name}, which the model has not or vLLM cannot adapt"
            continue
        base = module.base_layer
        a, b = weights.lora_a, weights.lora_b
        slices = isinstance(b, list)
        for part in a if slices else [a]:
            if part is not None and part.shape[-1] != base.input_size:
                yield f"its {name} takes {part.shape[-1]} numbers, and the model's {base.input_size}"
        if not slices:
            if b.shape[0] != sum(_outputs(base)):
                yield f"its {name} gives {b.shape[0]} numbers, and the model's {sum(_outputs(base))}"
            continue
        for part, size in zip(b, _outputs(base), strict=True):
            if part is not None and part.shape[0] != size:
                yield f"a part of its {name} gives {part.shape[0]} numbers, and the model's {size}"


def _outputs(base: Any) -> list[int]:
    """How many numbers each part of a linear module gives, on all ranks together."""
    sizes = getattr(base, "output_sizes", None)
    if sizes is None:
        return [base.output_size]
    # Where there are more ranks than heads of keys and values, vLLM counts each copy of them.
    copies = getattr(base, "num_kv_head_replicas", 1)
    return [sizes[0], *(size // copies for size in sizes[1:])]
