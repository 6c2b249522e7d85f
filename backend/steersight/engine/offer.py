"""What clients may choose from: vectors and functions to steer with, and the metrics, some of which are
projections on the vectors.

The offer outlives an engine that is lost, and is given to the next one. A vector is offered once all ranks
can steer with it, and no longer while they let go of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..metrics import Registry
from ..vectors.store import VectorError
from .sending import Call, send, take_back, withdraw
from .use import VectorUse

if TYPE_CHECKING:
    from ..interventions import SteeringFunction
    from ..vectors.action import Slider
    from ..vectors.store import Selection, SteeringVector

logger = logging.getLogger(__name__)


class Offer:
    """The vectors and metrics of one server. Not thread-safe: all methods belong to one event loop."""

    def __init__(self, call: Call, use: VectorUse, changed: Callable[[], None]) -> None:
        """Nothing is offered yet.

        Args:
            call: a method of all workers.
            use: knows which vectors the runs need.
            changed: called at every change of the offer.
        """
        self.vectors: dict[str, SteeringVector] = {}
        """By id, in the order in which clients see them."""
        self.functions: dict[str, SteeringFunction] = {}
        """Those of the server's own files, by id; the workers have them from the start."""
        self.files: dict[str, Path] = {}
        """Where each was read."""
        self.own: set[str] = set()
        """Ids of those in the data folder, which may be deleted; the others are bundled."""
        self.registry = Registry()
        """Metrics that runs may ask for."""
        self.failed_metrics: dict[str, str] = {}
        """Those that raised in this engine and are switched off, and what they said."""
        self._call = call
        self._use = use
        self._changed = changed
        self._changing = asyncio.Lock()

    @property
    def sliders(self) -> dict[str, Slider]:
        """All that runs may be steered with, by id, in the order in which clients see it."""
        return {**self.vectors, **self.functions}

    def begin(
        self, chosen: Selection, registry: Registry, functions: dict[str, SteeringFunction] | None = None
    ) -> None:
        """Start with what was found on disk for the model."""
        self.vectors, self.files, self.own = chosen.vectors, chosen.files, chosen.own
        self.functions = functions or {}
        self.registry = registry

    async def begin_again(
        self, chosen: Selection, registry: Registry, functions: dict[str, SteeringFunction] | None = None
    ) -> None:
        """Start anew with what was found on disk for another model. Its engine is not up yet, and the one
        before has ended, so that whoever is at a change of the offer has failed, or is about to."""
        async with self._changing:
            self.begin(chosen, registry, functions)

    def labels(self) -> list[tuple[str, str]]:
        """Id and label of each vector."""
        return [(vector.id, vector.label) for vector in self.vectors.values()]

    def note_failed(self, metrics: dict[str, str]) -> None:
        """Tell clients of metrics that the engine has switched off: all of them, with what each said."""
        if metrics.keys() - self.failed_metrics.keys():
            self.failed_metrics = metrics
            self._changed()

    async def add(self, vector: SteeringVector, file: Path) -> None:
        """Offer one vector more, from the next step on. `file` is where it is kept.

        Raises: VectorError when this engine cannot use it. Then, and where it is cancelled, nothing has
            changed.
        """
        async with self._changing:
            if vector.id in self.sliders:
                raise VectorError(f"There is a slider {vector.id!r} already.")
            await send(self._call, vector.id, vector)
            self.vectors[vector.id] = vector
            self.files[vector.id] = file
            self.own.add(vector.id)
            self._renew()

    async def remove(self, name: str) -> None:
        """Offer a vector no more.

        Raises: VectorInUseError while an unfinished run is steered by it or watches it. Then, and where the
            engine is lost meanwhile, nothing has changed.
        """
        async with self._changing:
            vector = self.vectors.get(name)
            if vector is None:
                raise VectorError(f"There is no vector {name!r}.")
            self._use.check_free(name, vector.label)
            # Nobody may begin to use it while the workers let go of it.
            before = dict(self.vectors)
            del self.vectors[name]
            self._renew()
            try:
                await withdraw(self._call, name)
            except Exception:
                self.vectors.clear()
                self.vectors.update(before)
                self._renew()
                raise
            finally:
                if name not in self.vectors:
                    self.files.pop(name, None)
                    self.own.discard(name)

    async def give_all(self) -> None:
        """Give the whole offer to an engine that has just started; what it cannot use is not offered."""
        async with self._changing:
            self.failed_metrics = {}
            # Its workers have read the files anew: what the functions do may be something else than before.
            self.functions = {name: replace(function) for name, function in self.functions.items()}
            for vector in list(self.vectors.values()):
                try:
                    await send(self._call, vector.id, vector)
                except VectorError as error:
                    logger.warning("The vector %s is not used. %s", vector.id, error)
                    del self.vectors[vector.id]
            self._renew()

    @contextlib.asynccontextmanager
    async def lent(self, vector: SteeringVector) -> AsyncIterator[str]:
        """Let the engine steer with a vector that nobody is offered, for as long as the context lasts.

        Yields: the name for actions with it. Its id may belong to another vector, which others steer with.

        Raises: VectorError where this engine cannot use it, or has no room for it.
        """
        name = f"lent-{secrets.token_hex(8)}"
        with self._use.lending(name):
            async with self._changing:
                await send(self._call, name, vector)
            try:
                yield name
            finally:
                await take_back(self._call, name)

    def _renew(self) -> None:
        self.registry = self.registry.with_vectors(self.labels())
        self._changed()
