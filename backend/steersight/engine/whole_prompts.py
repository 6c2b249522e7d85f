"""Prompts that a block of code has to see whole are read in one step, among others that are read in pieces.

vLLM cuts a long prompt into pieces, so that nobody else's next token waits for all of it. A block would see
the first piece and never the rest, and NNsight (0.8.1) refuses it. So a request with a block waits until no
other prompt is half read, and is then taken whole: for that one step the limit on a step's tokens is what the
buffers hold, and nobody else's prompt is begun. Those who write go on in the meantime, one token each.

Mixed into the scheduler by `scheduling.py`, in vLLM's engine process. For vLLM 0.32.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .options import CONFIG_KEY

if TYPE_CHECKING:
    from vllm.v1.request import Request

TRACED = ("nnsight_mediator", "nnsight_edits")
"""Keys of `extra_args` by which NNsight (0.8.1) sends a block along, which may change any activation."""


def has_code(request: Request) -> bool:
    """Whether a block takes part in its passes."""
    extra = (request.sampling_params and request.sampling_params.extra_args) or {}
    return bool(extra.get("nnsight_edits")) or "nnsight_mediator" in extra


class WholePrompts:
    """The requests of one scheduler that are read in one step each."""

    def __init__(self, scheduler: Any) -> None:
        """
        Args:
            scheduler: vLLM's, made and not begun.
        """
        self._scheduler = scheduler
        self._live: set[str] = set()
        """Their ids."""
        self._capacity: int = scheduler.max_num_scheduled_tokens
        """Tokens of a step that there are buffers for."""
        ours = (scheduler.vllm_config.additional_config or {}).get(CONFIG_KEY, {})
        scheduler.max_num_scheduled_tokens = min(self._capacity, ours.get("step_tokens") or self._capacity)

    def note(self, request: Request) -> None:
        """A request has come."""
        if has_code(request):
            self._live.add(request.request_id)

    def forget(self, request: Request) -> None:
        """A request is over."""
        self._live.discard(request.request_id)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Schedule one step in here: with prompts that are read whole, or without them."""
        scheduler = self._scheduler
        if not self._live:
            yield
            return
        queue = scheduler.waiting
        whole = [request for request in queue if request.request_id in self._live]
        if not whole:  # they write, and may come back if they are thrown out of the cache
            yield
            return
        usual, config = scheduler.max_num_scheduled_tokens, scheduler.scheduler_config
        threshold = config.long_prefill_token_threshold
        now = [] if self._half_read() else self._fitting(whole)
        scheduler.waiting = queue.__class__()
        for request in now:
            scheduler.waiting.add_request(request)
        if now:
            writing = len(scheduler.running)
            scheduler.max_num_scheduled_tokens = writing + sum(request.num_tokens for request in now)
            config.long_prefill_token_threshold = 0
        try:
            yield
        finally:
            scheduler.max_num_scheduled_tokens = usual
            config.long_prefill_token_threshold = threshold
            left = list(scheduler.waiting)
            scheduler.waiting = queue
            queue.remove_requests([request for request in now if request not in left])
            # Thrown out of the cache in this step.
            for request in reversed([request for request in left if request not in now]):
                queue.prepend_request(request)

    def _half_read(self) -> bool:
        """Whether a prompt has been begun and not read to its end."""
        return any(one.num_computed_tokens < one.num_prompt_tokens for one in self._scheduler.running)

    def _fitting(self, whole: list[Any]) -> list[Any]:
        """As many of them, from the first on, as a step has room for."""
        room = self._capacity - len(self._scheduler.running)
        taken = []
        for request in whole:
            room -= request.num_tokens
            if room < 0:
                break
            taken.append(request)
        return taken
