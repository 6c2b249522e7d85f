"""NNsight's mediators and requests (0.8.1), with bounds around the code that clients send.

NNsight keeps an exception of a block for its own run. It knows nothing of time and memory, and lets through
what is no `Exception`: `sys.exit()` in a block would end the engine.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent
from nnsight.intervention.errors import capture_exception
from nnsight.intervention.interleaver import Mediator
from nnsight.modeling.vllm.model_runners.GPUModelRunner import Request, Requests

from .guard import BlockLeftError, Clock, Guard

MOST_SAVED = 1 << 30
"""Bytes that one run may save: they travel in one message, and the engine waits while they are packed."""


class GuardedMediator(Mediator):  # type: ignore[misc]  # nnsight ships no types
    """A block that runs within bounds. Never made: a mediator that has come gets this class."""

    guard: Guard
    clock: Clock

    def switch(self, *args: Any) -> Any:
        with contained(), self.guard.watching(self.worker, self.clock):
            return super().switch(*args)


@contextmanager
def contained() -> Iterator[None]:
    """Make an ordinary error of what would end the process."""
    try:
        yield
    except (Exception, GreenletExit):
        raise
    except BaseException as error:
        left = BlockLeftError(f"The code raised {type(error).__name__}, which ends its run and nothing else.")
        left.__intervention_tb__ = getattr(  # type: ignore[attr-defined]  # where NNsight looks for it
            error, "__intervention_tb__", error.__traceback__
        )
        raise left from error


class GuardedRequests(Requests):  # type: ignore[misc]
    """What NNsight carries for the engine's requests."""

    guard: Guard

    def add(self, new_requests: list[Any], persistent_objects: dict[str, Any]) -> None:
        for data in new_requests:
            extra = getattr(data.sampling_params, "extra_args", None) or {}
            if not self.templates and "nnsight_mediator" not in extra:
                super().add([data], persistent_objects)  # somebody's without code
                continue
            known = data.req_id in self.requests
            clock = Clock()
            try:
                with contained(), self.guard.watching(getcurrent(), clock):
                    super().add([data], persistent_objects)
            except Exception as error:
                request = self.requests.setdefault(data.req_id, Request(data.req_id))
                request.error, request.mediator = capture_exception(error), None
            if known:
                continue
            for mediator in self.requests[data.req_id].workers():
                # Its own class and no other: whoever pickled it may have pickled anything.
                if type(mediator) is not Mediator:
                    self._refuse(self.requests[data.req_id], mediator)
                    continue
                mediator.__class__ = GuardedMediator
                mediator.guard, mediator.clock = self.guard, clock

    def _refuse(self, request: Any, mediator: Any) -> None:
        request.error = capture_exception(
            TypeError(f"A block of code was sent as a {type(mediator).__name__}.")
        )
        request.mediator = None

    def serve_result(self, mediator: Any, output: Any) -> None:
        """Hand a block the output that it reads as `tracer.result`. What it raises behind that is its own
        error: let out of the collection, it would keep the request here for good."""
        try:
            super().serve_result(mediator, output)
        except Exception as error:
            mediator.pending, mediator.exception = None, error
            self.record(mediator)

    def finish_dangling(self, mediator: Any, *args: Any, **kwargs: Any) -> None:
        """Unwind a block whose request is over: its `finally` is code too."""
        if not isinstance(mediator, GuardedMediator) or not mediator.alive or mediator.pending is None:
            return  # it has ended, by itself or with an error
        try:
            with contained(), mediator.guard.watching(mediator.worker, mediator.clock):
                super().finish_dangling(mediator, *args, **kwargs)
        except Exception as error:
            mediator.nnsight_error = capture_exception(error)


def packed(entry: dict[str, Any]) -> tuple[bytes, dict[str, Any] | None]:
    """What a request has saved, as NNsight's client reads it, and its error."""
    error = entry["error"]
    buffer = io.BytesIO()
    torch.save({"saves": entry["saves"], "error": error}, buffer)
    if buffer.tell() > MOST_SAVED:
        error = dict(
            capture_exception(
                ValueError(
                    f"The block has saved {buffer.tell() >> 20} MiB, and {MOST_SAVED >> 20} may be. Reduce "
                    "what you save inside the block."
                )
            )
        )
        buffer = io.BytesIO()
        torch.save({"saves": {}, "error": error}, buffer)
    return buffer.getvalue(), error
