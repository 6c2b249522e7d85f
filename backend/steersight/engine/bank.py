"""The vectors that a worker steers with: by name, in the order in which they compose, and where each acts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..vectors.action import MAX_AT_WORK, Action, TooManyVectorsError, acting
from ..vectors.store import READER_FIELDS
from .pool import VectorPool

if TYPE_CHECKING:
    import torch

    from ..interventions import SteeringFunction

RETIRED = "@"
"""In the name of a vector that is no longer offered; no id has it."""


@dataclass(frozen=True)
class BankedVector:
    """One vector that is in the pool, ready to act."""

    label: str
    layers: list[int]
    """Its own, ascending."""
    attention: bool
    """Whether it is added to what attention adds."""
    slot: int
    """Its place in the pool."""

    @classmethod
    def build(
        cls, fact: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], pool: VectorPool
    ) -> BankedVector:
        """Put a vector into the pool.

        Args:
            fact: {label, layers, site, reader}, as `described` gives it.
            tensors: {directions: [own layers, hidden_size], lengths: [own layers], encoder: [hidden_size]},
                fp32; no encoder without a reader.
            pool: of the worker.

        Raises:
            VectorError: there is no room; nothing has changed.
        """
        numbers = fact["reader"] or dict.fromkeys(READER_FIELDS, 0.0)
        slot = pool.add(
            fact["layers"],
            tensors["directions"],
            tensors["lengths"],
            tensors.get("encoder"),
            [numbers[name] for name in READER_FIELDS],
        )
        return cls(fact["label"], fact["layers"], fact["site"] == "attention", slot)


class VectorBank:
    """All that a worker steers with: the server's vectors, in its order, those that runs may still come back
    to, and its functions, which are there from the start and stay."""

    def __init__(self, pool: VectorPool, functions: Mapping[str, SteeringFunction] | None = None) -> None:
        """`functions`: by id, in the order in which they compose, after all vectors."""
        self.pool = pool
        self.functions = dict(functions or {})
        self.vectors: dict[str, BankedVector] = {}
        self.changes = 0
        """Grows with every change: what was made of names or slots before does not hold any more."""
        self._order: dict[str, int] = {}
        self._next = itertools.count()

    def add(self, name: str, vector: BankedVector) -> None:
        """One vector more, as the last of those that compose. A free name."""
        self.vectors[name] = vector
        self._order[name] = next(self._next)
        self.changes += 1

    def remove(self, names: Iterable[str]) -> None:
        """Forget some, and give their room in the pool back."""
        for name in names:
            self.pool.remove(self.vectors.pop(name).slot)
            del self._order[name]
        self.changes += 1

    def retire(self, name: str) -> str:
        """Give a vector another name, and return that: its id may be given to another vector.

        It keeps its place among those that compose.
        """
        number = 1
        while (retired := f"{name}{RETIRED}{number}") in self.vectors:
            number += 1
        self.vectors[retired] = self.vectors.pop(name)
        self._order[retired] = self._order.pop(name)
        self.changes += 1
        return retired

    @property
    def retired(self) -> set[str]:
        """Names of those that are no longer offered."""
        return {name for name in self.vectors if RETIRED in name}

    def labels(self) -> list[tuple[str, str]]:
        """(id, label) of those that are not retired."""
        return [(name, vector.label) for name, vector in self.vectors.items() if RETIRED not in name]

    def direction(self, vector: str, first: int, count: int) -> torch.Tensor:
        """[count, hidden_size] fp32 of layers `first` and up: its own, or that of its nearest layer."""
        return self.pool.direction(self.vectors[vector].slot, first, count)

    def layers_of(self, action: Action) -> Sequence[int]:
        """Layers after which an action steers the stream (or in which attention's part)."""
        if action.layers is not None:
            return range(action.layers[0], action.layers[1] + 1)
        if action.is_function:
            return self.functions[action.vector].layers
        return self.vectors[action.vector].layers

    def composed(self, actions: Iterable[Action]) -> tuple[Action, ...]:
        """What a run's sliders come to, in the order in which they compose.

        Raises:
            KeyError: a vector is unknown. Ignoring it would report steering that never happened.
            TooManyVectorsError: more than `MAX_AT_WORK`. The server refuses such sliders before.
        """
        at_work = acting(actions)
        missing = [action for action in at_work if action.vector not in self._of_its_kind(action)]
        if missing:
            names = sorted(f"{'function ' * action.is_function}{action.vector}" for action in missing)
            raise KeyError(f"The engine has no vector {', '.join(names)}.")
        if len(at_work) > MAX_AT_WORK:
            raise TooManyVectorsError(
                f"{len(at_work)} vectors are at work on one reply, and {MAX_AT_WORK} are the most."
            )
        return tuple(sorted(at_work, key=self._place))

    def _of_its_kind(self, action: Action) -> Mapping[str, object]:
        return self.functions if action.is_function else self.vectors

    def _place(self, action: Action) -> tuple[bool, int]:
        if action.is_function:
            return True, list(self.functions).index(action.vector)
        return False, self._order[action.vector]
