"""What a client's trace comes to once it has been read: requests with blocks of code. Plain values: nothing
in here runs any of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict


class Deferred(TypedDict):
    """An error of a client's code, as NNsight (0.8.1) carries it home: raised again where the trace was
    written."""

    type_name: str
    message: str
    traceback: str
    is_control_flow: bool
    """Whether it is no error: `tracer.stop()`."""


def deferred(kind: str, message: str) -> Deferred:
    """An error of the server's, in the form of one of the block."""
    return Deferred(type_name=kind, message=message, traceback="", is_control_flow=False)


def told(error: Mapping[str, Any]) -> Deferred:
    """An error as a process that runs clients' code has told of it, made of nothing but text."""
    return Deferred(
        type_name=str(error.get("type_name", "Exception"))[:200],
        message=str(error.get("message", ""))[:20_000],
        traceback=str(error.get("traceback", ""))[:100_000],
        is_control_flow=error.get("is_control_flow") is True,
    )


class BlockError(Exception):
    """A trace could not be read, or its code has raised."""

    def __init__(self, error: Deferred) -> None:
        super().__init__(f"{error['type_name']}: {error['message']}")
        self.error = error


@dataclass(frozen=True)
class Block:
    """One request's code."""

    code: bytes
    """NNsight's mediator, pickled. Only the workers unpickle it."""
    edits: tuple[str, ...] | None = None
    """Names of the installed edits that run with it; None is all, as NNsight has it."""


@dataclass(frozen=True)
class TracedRequest:
    """One invoke of a trace, or all of a trace that has none."""

    prompt_ids: list[int]
    sampling: dict[str, Any]
    """Those of vLLM's sampling parameters that the trace names."""
    block: Block


@dataclass(frozen=True)
class Saved:
    """What a block has left behind when its request was over."""

    payload: bytes
    """As NNsight's client reads it: `torch.save` of `{"saves": {name: value}, "error": error or None}`.
    Nothing here reads it: values are of any type, and unpickling them would run code."""
    error: Deferred | None = None
