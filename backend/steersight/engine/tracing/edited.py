"""Edits in a worker: blocks that stay in the engine, and act in the runs that name them.

NNsight (0.8.1) keeps a block that is left in the engine as a template, and gives every request a copy of it.
Here a request that names no edits has none, and those that name some are told of by their runs: what an edit
saves in a chat is nobody's and goes with it, and what it raises there ends that chat, before a token more is
shown of it. In a trace both go home with the trace, as NNsight has it.

Pure: mixed into NNsight's `Requests` by `nnsight_adapter.py`, and tried without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..submission import OPTIONS_KEY
from ..whole_prompts import TRACED

MEDIATOR, EDITS = TRACED
AGAIN = "vLLM had to compute this reply again, and the edits would not act on that part of it"


@dataclass
class FailedEdits:
    """What edits have raised since it was asked for last."""

    runs: dict[str, str] = field(default_factory=dict)
    """Chats that have failed with it: run -> what to say of it, without its end."""
    edits: dict[str, str] = field(default_factory=dict)
    """Edit -> what it has raised."""


class Edited:
    """Mixed into NNsight's `Requests`."""

    requests: dict[str, Any]
    templates: dict[str, Any]
    names: dict[str, str | None]

    def __init__(self) -> None:
        super().__init__()
        self._prepared: dict[str, Any] = {}
        self._chats: dict[str, str] = {}  # vLLM's ids of those that are no traces -> run
        self._acting: dict[str, dict[str, str]] = {}  # vLLM's ids of those with edits -> {edit's id: name}
        self._told: set[tuple[str, str]] = set()  # (vLLM's id, edit's id) of what was reported

    # ------------------------------------------------------------ the edits

    def prepare(self, edit_id: str, template: Any) -> None:
        """A block has been read, which does not act yet."""
        self._prepared[edit_id] = template

    def take_up(self, edit_id: str, name: str, instead: Iterable[str]) -> None:
        """Let a block that all workers have read act in requests from now on, in place of others."""
        template = self._prepared.pop(edit_id)
        for other in instead:
            self.take_out(other)
        self.templates[edit_id] = template
        self.names[edit_id] = name

    def take_out(self, edit_id: str) -> None:
        """Let a block act in no more requests; those in which it does keep it to their end."""
        self.templates.pop(edit_id, None)
        self.names.pop(edit_id, None)

    def drop(self, edit_id: str) -> None:
        """Forget a block that not all workers could read."""
        self._prepared.pop(edit_id, None)

    # ------------------------------------------------------------ the requests

    def add(self, new_requests: list[Any], persistent_objects: dict[str, Any]) -> None:
        """Take up requests that the scheduler names for the first time."""
        fresh = [data for data in new_requests if data.req_id not in self.requests]
        for data in fresh:
            settings = data.sampling_params
            extra = getattr(settings, "extra_args", None) or {}
            if EDITS not in extra and MEDIATOR not in extra and self.templates and settings is not None:
                settings.extra_args = {**extra, EDITS: []}  # or NNsight would give it all of them
        super().add(new_requests, persistent_objects)  # type: ignore[misc]
        for data in fresh:
            extra = getattr(data.sampling_params, "extra_args", None) or {}
            if MEDIATOR not in extra and OPTIONS_KEY in extra:
                self._chats[data.req_id] = extra[OPTIONS_KEY]["run"]
            request = self.requests.get(data.req_id)
            if extra.get(EDITS) and request is not None:
                self._acting[data.req_id] = {one: self.names.get(one) or one for one in request.copies}

    def harvest(self, finished: set[str]) -> None:
        """Requests are over: nothing of a chat's edits is kept, and blocks that were removed are unwound."""
        over = [name for name, request in self.requests.items() if request.named(finished)]
        for name in over:
            for edit_id, copy in self.requests[name].copies.items():
                if edit_id not in self.templates:
                    self.finish_dangling(copy, quiet=True)
        super().harvest(finished)  # type: ignore[misc]
        for name in over:
            self._acting.pop(name, None)
            self._told = {told for told in self._told if told[0] != name} if self._told else self._told
            if self._chats.pop(name, None) is not None and (request := self.requests.pop(name, None)):
                self.let_go(value for left in request.harvested.values() for value in left["saves"].values())

    def failed(self, again: Iterable[str]) -> FailedEdits:
        """What has gone wrong with edits since this was asked last; `again` are vLLM's ids of requests that
        have been thrown out of the KV cache."""
        found = FailedEdits()
        if not self._acting:
            return found
        for name, edits in self._acting.items():
            request, run = self.requests.get(name), self._chats.get(name)
            if request is None:
                continue
            for edit_id, edit in edits.items():
                copy = request.copies.get(edit_id)
                error = None if copy is None else copy.exception
                if error is None or (name, edit_id) in self._told or (said := self.says(error)) is None:
                    continue
                self._told.add((name, edit_id))
                found.edits[edit] = said
                if run is not None:
                    found.runs.setdefault(run, f"The edit {edit!r} failed in this reply: {said}")
            if run is not None and request.error is not None and (name, "") not in self._told:
                self._told.add((name, ""))
                found.runs.setdefault(
                    run,
                    "The edits of this reply could not be taken up: "
                    f"{request.error['type_name']}: {request.error['message']}",
                )
        for name in again:
            if name in self._acting and (run := self._chats.get(name)) is not None:
                found.runs.setdefault(run, AGAIN)
        return found

    # ------------------------------------------------------------ NNsight's own

    def finish_dangling(self, mediator: Any, *args: Any, **kwargs: Any) -> None:
        """NNsight's: unwind a block whose request is over."""
        super().finish_dangling(mediator, *args, **kwargs)  # type: ignore[misc]

    def let_go(self, saved: Iterable[Any]) -> None:
        """Values that were saved are wanted by nobody."""

    def says(self, error: BaseException) -> str | None:
        """What an exception of a block says; None for `tracer.stop()`, which is no error."""
        return f"{type(error).__name__}: {error}"
