"""Which vectors the runs that have not finished need: counted here, and nowhere else.

A vector is *at work* when it may act in the next forward pass: it is in a run's newest revision, in the one
that the engine still has in force while a newer one is on its way, or lent to a vector build.

A vector is *in use* when it is at work or when a run watches its projection. It cannot be deleted then. What
a run has used before and may need again when vLLM recomputes it is the worker's to keep: see
`Observer.remove_vector`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from ..metrics.registry import for_vector
from ..vectors.store import VectorError


class VectorInUseError(VectorError):
    """A vector is to be deleted that a run needs."""


@dataclass(frozen=True)
class Need:
    """What one run needs of the vectors."""

    vectors: frozenset[str]
    """Ids of those that steer it."""
    metrics: frozenset[str] = frozenset()
    """Ids of the metrics that it watches."""


@dataclass
class VectorUse:
    """The needs of everybody: runs that the engine computes, runs that it has not been told of, builds."""

    asked: Callable[[], Iterable[Need]] = tuple
    """What unfinished runs ask for by their newest revisions, whether or not the engine knows of it yet."""
    _running: dict[str, list[Need]] = field(default_factory=dict)
    """Of each run in the engine: what is in force, then what is on its way there."""
    _lent: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def running(self, run: str, need: Need) -> Iterator[None]:
        """While the engine computes a run that begins with `need`."""
        self._running[run] = [need]
        try:
            yield
        finally:
            self._running.pop(run, None)

    def steering(self, run: str, vectors: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """While new sliders of a run are on their way; when they have arrived they replace the older ones."""
        return self._changing(run, vectors=frozenset(vectors))

    def watching(self, run: str, metrics: Iterable[str]) -> contextlib.AbstractContextManager[None]:
        """The same of what it is watched with."""
        return self._changing(run, metrics=frozenset(metrics))

    @contextlib.contextmanager
    def _changing(self, run: str, **change: frozenset[str]) -> Iterator[None]:
        """While one change of a run is on its way; there is one at a time."""
        needs = self._running.get(run)
        if needs is None:
            yield  # it has ended
            return
        need = replace(needs[-1], **change)
        needs.append(need)
        yield
        # Where it has failed the run fails with it, and all of its needs are over.
        for at, other in enumerate(needs):
            if other is need:
                del needs[:at]
                break

    @contextlib.contextmanager
    def lending(self, vector: str) -> Iterator[None]:
        """While a vector that nobody is offered may act."""
        self._lent.add(vector)
        try:
            yield
        finally:
            self._lent.discard(vector)

    def at_work(self) -> set[str]:
        """Ids of the vectors that may act in the next forward pass."""
        return self._lent.union(*(need.vectors for need in self._needs()))

    def check_free(self, vector: str, label: str) -> None:
        """Raise VectorInUseError where a vector is in use."""
        if vector in self.at_work():
            raise VectorInUseError(f"{label} is steering a reply. Set its sliders to 0 or wait for the end.")
        watching = {metric.id for metric in for_vector(vector, label)}
        if any(watching & need.metrics for need in self._needs()):
            raise VectorInUseError(
                f"The projection on {label} is watched in a reply. Wait for the end of that reply."
            )

    def _needs(self) -> Iterator[Need]:
        yield from self.asked()
        for needs in self._running.values():
            yield from needs
