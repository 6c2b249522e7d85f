"""The tokens that were drawn, told to the runs whose replies have parts, before the pass that reads them.

With asynchronous scheduling (vLLM's default on CUDA) a step is planned while the tokens of the one before are
still on the device only. Where a vector acts in a thought or an answer only, what a pass is steered with
depends on the token that it reads, so such a step waits for the copy of these few numbers; all others are
told a step later, when it has long arrived. It is the same on every rank: each has drawn the same tokens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .transfer import to_host

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..text.thoughts import ReplyParts
    from .plan import Span
    from .run_state import RunStates


class _Place(NamedTuple):
    parts: ReplyParts
    position: int
    """Of the token that will be drawn."""
    request: int
    """Index of the request in the batch."""


class DrawnTokens:
    """Of one worker: who wants to know the tokens, and those that are on their way."""

    def __init__(self) -> None:
        self._places: list[_Place] = []
        self._coming: deque[tuple[list[_Place], Callable[[], NDArray[Any]]]] = deque()

    def begin(self, spans: Sequence[Span], runs: RunStates) -> None:
        """A step is about to be planned: tell what has been drawn, and note who wants to know its tokens."""
        waits = False
        self._places = []
        for request, span in enumerate(spans):
            state = runs.get(span.request_id)
            if state is None or state.parts is None or state.parts.settled:
                continue
            waits = waits or state.in_parts
            if span.samples:
                self._places.append(_Place(state.parts, span.start + span.tokens, request))
        while len(self._coming) > (0 if waits else 1):
            places, arrived = self._coming.popleft()
            tokens = arrived()
            for parts, position, request in places:
                parts.tell(position, int(tokens[request]))

    def drawn(self, tokens: torch.Tensor) -> None:
        """The step's tokens [requests, 1] have been drawn."""
        if self._places:
            self._coming.append((self._places, to_host(tokens.view(-1).clone())))
            self._places = []
