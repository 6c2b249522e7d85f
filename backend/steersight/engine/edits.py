"""Edits: blocks of Python that notebooks have left in the engine (`model.edit(serve=...)`), by name.

In NNsight an edit acts in every request from then on. Here others are served beside whoever installs one, and
a neighbour's run is unchanged by yours: an edit acts in the runs that name it. Traces follow NNsight's rule,
all edits or those of `edits=[...]`; a chat names those that are switched on where it was asked. So every edit
has a name, and no two have the same: an edit of a name that there is takes the other's place, as a cell of a
notebook that is run again means it.

What comes is a pickle, and to read it is to run code of whoever sent it. The server keeps its bytes and never
reads them; the workers do, all of them or none: first every worker reads it, which may fail, and only then do
all of them take it up, between the same two steps. An engine that is lost and started again gets all of them;
one of another model gets none, because its modules have other names.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .errors import EngineLostError, EngineNotReadyError
from .life import CallError
from .sending import Call, uninterrupted

logger = logging.getLogger(__name__)

MAX_EDITS = 64
MAX_EDIT_BYTES = 64 << 20
"""Of one: it travels to the workers in one message, and no step begins meanwhile."""
MAX_BYTES = 256 << 20
"""Of all: they are kept for an engine that has to be started again."""
MAX_NAME = 64
MAX_ID = 64
MOST_OF_AN_ERROR = 500
"""Characters of what an edit has raised."""


class EditError(ValueError):
    """An edit cannot be installed or removed, or is not there; the message says why."""


@dataclass
class Edit:
    """One of them."""

    id: str
    """As whoever installed it calls it."""
    name: str
    payload: bytes
    """NNsight's block, pickled. Nothing in this process reads it."""
    since: float
    """When it was installed, in seconds since 1970."""
    runs: int = 0
    """How many it has acted on."""
    error: str | None = None
    """What it raised last."""


class Edits:
    """The edits of one engine. Not thread-safe: all methods belong to one event loop."""

    def __init__(self, call: Call) -> None:
        """None yet. `call` calls a method of all workers."""
        self.changed: Callable[[], None] = _nobody
        """Called when the listing is another."""
        self._call = call
        self._edits: dict[str, Edit] = {}  # by id, in the order in which they act
        self._changing = asyncio.Lock()
        self._unnamed = 0

    def listing(self) -> list[Edit]:
        """All of them, in the order in which they act."""
        return list(self._edits.values())

    def names(self) -> tuple[str, ...]:
        """All names, in the same order."""
        return tuple(edit.name for edit in self._edits.values())

    def check(self, names: Iterable[str]) -> None:
        """Raises EditError where there is no edit of one of these names."""
        known = self.names()
        for name in names:
            if name not in known:
                there = f"there are {', '.join(map(repr, known))}" if known else "none is installed"
                raise EditError(f"There is no edit {name!r}: {there}.")

    async def install(self, edit_id: str, name: str | None, payload: bytes) -> Edit:
        """Let the workers have one edit more; runs that begin from now on may name it. One of the same id or
        name goes, and runs that began with it keep it.

        Args:
            edit_id: as whoever installs it calls it.
            name: what runs call it; None lets the server choose.
            payload: as NNsight's client has packed it.

        Raises:
            EditError: it is not taken, because of its name or its size, or because a worker could not read
                it. Nothing has changed then, on any worker.
            EngineLostError, EngineNotReadyError: there is no engine that could take it.
        """
        _check_words(edit_id, name)
        async with self._changing:
            before = [edit for edit in self._edits.values() if edit_id == edit.id or name == edit.name]
            self._check_room(payload, before)
            edit = Edit(edit_id, name or self._free_name(), payload, time.time())
            await self._hand_over(edit, [one.id for one in before])
            for one in before:
                del self._edits[one.id]
            self._edits[edit_id] = edit
        self.changed()
        return edit

    async def remove(self, edit_id: str) -> None:
        """Let the workers forget an edit: no run begins with it any more, and those that did keep it.

        Raises:
            EditError: there is none of this id.
            EngineLostError, EngineNotReadyError: it could not be told; the engine that is started next will
                not have it.
        """
        async with self._changing:
            edit = self._edits.pop(edit_id, None)
            if edit is None:
                raise EditError(f"There is no edit {edit_id!r}.")
            self.changed()
            try:
                await uninterrupted(self._call("steersight_remove_edit", edit_id))
            except CallError as error:
                raise EditError(f"The engine could not forget the edit {edit.name!r}. {error}") from error

    async def give_all(self) -> None:
        """Give all of them to an engine that has just started; what it cannot read is forgotten."""
        async with self._changing:
            for edit in list(self._edits.values()):
                try:
                    await self._hand_over(edit, [])
                except EditError as error:
                    logger.warning("The edit %r is gone. %s", edit.name, error)
                    del self._edits[edit.id]
                    self.changed()

    async def forget_all(self) -> None:
        """Another model is served from now on; its engine has none of them."""
        async with self._changing:
            if self._edits:
                logger.warning("These edits are gone with the model: %s", ", ".join(self.names()))
                self._edits.clear()
                self.changed()

    def began(self, names: Iterable[str]) -> None:
        """A run begins in which these act."""
        wanted = set(names)
        for edit in self._edits.values():
            if edit.name in wanted:
                edit.runs += 1
        if wanted:
            self.changed()

    def failed(self, errors: Mapping[str, str]) -> None:
        """Edits have raised in the workers: what each said, by their names."""
        for edit in self._edits.values():
            if edit.name in errors:
                edit.error = errors[edit.name][:MOST_OF_AN_ERROR]
        if errors:
            self.changed()

    def _check_room(self, payload: bytes, instead: list[Edit]) -> None:
        if not payload:
            raise EditError("The edit has no code.")
        if len(payload) > MAX_EDIT_BYTES:
            raise EditError(
                f"The edit has {len(payload) >> 20} MiB, and one may have {MAX_EDIT_BYTES >> 20}. "
                "Let it load what is large from a file of the server's."
            )
        others = [edit for edit in self._edits.values() if edit not in instead]
        if len(others) >= MAX_EDITS:
            raise EditError(f"{MAX_EDITS} edits are installed, which is all that there may be. Clear some.")
        if sum(len(edit.payload) for edit in others) + len(payload) > MAX_BYTES:
            raise EditError(
                f"All edits together may have {MAX_BYTES >> 20} MiB, and with this one they would have more. "
                "Clear some."
            )

    def _free_name(self) -> str:
        names = self.names()
        while True:
            self._unnamed += 1
            if (name := f"edit-{self._unnamed}") not in names:
                return name

    async def _hand_over(self, edit: Edit, instead: list[str]) -> None:
        """Let all workers have it in place of others, or none of them."""
        try:
            await self._call("steersight_prepare_edit", edit.id, edit.payload)
            await uninterrupted(self._call("steersight_take_up_edit", edit.id, edit.name, instead))
        except BaseException as error:
            await self._drop(edit.id)
            if isinstance(error, CallError):
                raise EditError(f"The engine could not read it. {error}") from error
            raise

    async def _drop(self, edit_id: str) -> None:
        """No worker keeps what not all of them could read. A lost engine has taken it along."""
        try:
            await uninterrupted(self._call("steersight_drop_edit", edit_id))
        except (EngineLostError, EngineNotReadyError, CallError):
            logger.debug("An edit that was not taken could not be dropped either", exc_info=True)


def _check_words(edit_id: str, name: str | None) -> None:
    if not 0 < len(edit_id) <= MAX_ID or not edit_id.replace("-", "").replace("_", "").isalnum():
        raise EditError(f"The id of an edit has 1 to {MAX_ID} letters, digits, - and _.")
    if name is not None and (not 0 < len(name) <= MAX_NAME or not name.isprintable()):
        raise EditError(
            f"The name of an edit has 1 to {MAX_NAME} characters that can be printed, on one line."
        )


def _nobody() -> None:
    """Nobody is told of edits."""
