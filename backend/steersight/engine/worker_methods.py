"""What the server calls on every worker, by name, through vLLM's `collective_rpc`; see `Life.call`.

A vector comes in three calls, so that no rank steers with one that another rank could not take.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..vectors.action import Action
from ..vectors.store import VectorError
from .errors import ERROR
from .request import Wants

if TYPE_CHECKING:
    from .worker import ObservedRunner

logger = logging.getLogger(__name__)

ATTENTION_REFUSED = (
    "It acts on what attention adds, which this engine cannot change: it decodes in CUDA graphs "
    "(--engine-mode eager would do), or the model's attention is no part that is simply added."
)


def answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method that raises answer with its error instead, as {ERROR: sentence}.

    With several ranks vLLM (0.32) stops reading answers at the first that is an exception. The others stay in
    their queues and are taken for the answers to the next call, for good.
    """

    @functools.wraps(method)
    def answer(*args: Any) -> Any:
        try:
            return method(*args)
        except Exception as error:
            logger.exception("%s failed", method.__name__)
            return {ERROR: f"{type(error).__name__}: {error}"}

    return answer


class WorkerMethods:
    """The methods; a worker class has them beside its own."""

    model_runner: ObservedRunner

    @answering
    def steersight_process(self) -> int:
        """Id of this process."""
        return os.getpid()

    @answering
    def steersight_steer(self, run: str, rev: int, actions: list[dict[str, Any]]) -> int | None:
        """Change what acts on a run between two steps; see Observer.steer."""
        return self.model_runner.observer.steer(run, rev, tuple(map(Action.from_map, actions)))

    @answering
    def steersight_watch(self, run: str, number: int, wants: dict[str, Any]) -> None:
        """Change what is computed of a run between two steps; see Observer.watch."""
        self.model_runner.observer.watch(run, number, Wants.from_map(wants))

    @answering
    def steersight_vector_piece(self, name: str, piece: bytes) -> None:
        """Take the next piece of a vector that is to come; see `arrivals.pieces`."""
        self.model_runner.observer.arrivals.take(name, piece)

    @answering
    def steersight_prepare_vector(self, name: str, fact: dict[str, Any]) -> str:
        """Make a vector of its pieces, which does not act yet; `fact` is what `arrivals.described` gives.

        Returns why this engine cannot use it, in sentences; "" where it can.
        """
        observer = self.model_runner.observer
        layout = observer.layout
        steerable = layout.attention is not None and layout.compared and observer.graph is None
        if fact["site"] == "attention" and not steerable:
            # A replayed graph does not push at attention, and without a place there is nothing to push at.
            return ATTENTION_REFUSED
        try:
            observer.arrivals.complete(name, fact)
        except VectorError as no_room:
            return str(no_room)
        return ""

    @answering
    def steersight_add_vector(self, name: str) -> None:
        """Steer with a vector that all ranks have prepared, from the next step on."""
        observer = self.model_runner.observer
        observer.add_vector(name, observer.arrivals.pop(name))

    @answering
    def steersight_remove_vector(self, name: str) -> None:
        """Steer with a vector no more, or drop what has come of it; see Observer.remove_vector."""
        observer = self.model_runner.observer
        observer.arrivals.drop(name)
        observer.remove_vector(name)

    @answering
    def steersight_prepare_edit(self, edit_id: str, payload: bytes) -> None:
        """Read an edit, which does not act yet."""
        self.model_runner.prepare_edit(edit_id, payload)

    @answering
    def steersight_take_up_edit(self, edit_id: str, name: str, instead: list[str]) -> None:
        """Let an edit that all ranks have read act in requests from the next step on, in place of others."""
        self.model_runner.nnsight_requests.take_up(edit_id, name, instead)

    @answering
    def steersight_remove_edit(self, edit_id: str) -> None:
        """Let an edit act in no more requests."""
        self.model_runner.nnsight_requests.take_out(edit_id)

    @answering
    def steersight_drop_edit(self, edit_id: str) -> None:
        """Forget an edit that not all ranks could read."""
        self.model_runner.nnsight_requests.drop(edit_id)

    @answering
    def steersight_stream_sums(self, run: str, end: int) -> tuple[bytes, int]:
        """A run's sums over its positions before `end`, forgotten here.

        Returns safetensors with `total`, and over how many tokens it is.
        """
        from safetensors.torch import save

        found = self.model_runner.observer.stream_sums.fetch(run, end)
        if found is None:
            return save({}), 0
        return save({"total": found.total.cpu()}), found.tokens

    @answering
    def steersight_saves(self, request_id: str, output: bytes | None) -> tuple[bytes, dict[str, Any] | None]:
        """What a request's code has saved; see TracedRunner.what_was_saved. Of the first rank alone: all
        ranks run it, and have the same."""
        payload, error = self.model_runner.what_was_saved(request_id, output)
        return (payload, error) if self.model_runner.first_rank else (b"", error)

    @answering
    def steersight_load(self) -> dict[str, int]:
        """What this worker still holds, for the gauges that must return to zero, and what it has counted."""
        runner = self.model_runner
        return {
            "vllm": len(runner.requests),
            "nnsight": runner.nnsight_held(),
            "observer": len(runner.observer.runs) + len(runner.observer.stream_sums),
            "dropped": runner.observer.sender.dropped if runner.observer.sender else 0,
            "preempted": runner.observer.thrown_away,
        }
