"""Numbers that a block of Python computes, as metrics of its run, while the run is written.

Inside an NNsight trace that a Steersight server runs::

    from steersight import live

    with model.trace("Tell me about Paris.", max_tokens=64, serve=URL, api_key=TOKEN) as tracer:
        for _ in tracer.iter[:]:
            live.emit("length", 12, model.model.layers[12].output[0].norm(dim=-1))

The block runs in the engine's worker, where `install` has said who takes what it emits; wherever else it
would run, nobody does. Imports nothing: notebooks import it too, on machines without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NOWHERE = (
    "live.emit shows numbers of a block that a Steersight server runs, and this one runs somewhere else. "
    "Call it inside `with model.trace(..., serve=URL)`, where URL is a server started with --nnsight."
)

_take: Callable[[str, int | None, Any], None] | None = None


def emit(name: str, layer: int | None, value: Any) -> None:
    """Show a number of this block in the map of its run.

    It stands in the row of the pass in which it is emitted, and reaches the page with it. Emitted twice for a
    layer in one pass, the later one counts. Nothing waits for the device.

    Args:
        name: of the metric: 1 to 64 letters, digits, `_`, `.`, `:` or `-`. At most 16 names for each run.
        layer: the layer of the map that it stands at, 0 the lowest; None is the last.
        value: a number, or a tensor of one: it belongs to the last token of the pass, the only one where the
            reply is written. Or a tensor with one number for each of the run's tokens in this pass, such as
            `hidden.norm(dim=-1)`; the first pass reads the whole prompt. Numbers travel in half precision:
            what is beyond 65504 becomes 65504, and what is not finite has no value.

    Raises:
        RuntimeError: outside of a block that a server runs, or after the last pass of its run.
        TypeError, ValueError: for what is none of the above; the sentence says what to do.

    Example:
        >>> live.emit("logit-of-no", None, model.logits[-1, 912])  # doctest: +SKIP
    """
    if _take is None:
        raise RuntimeError(NOWHERE)
    _take(name, layer, value)


def install(take: Callable[[str, int | None, Any], None] | None) -> None:
    """Let `emit` of this process hand its arguments to a function; None to nobody."""
    global _take
    _take = take
