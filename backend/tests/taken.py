"""What a run has been sent by the engine, and how far numbers in half precision are from a reference."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from steersight.engine.reply import Entry
from steersight.engine.step import BARE, NO_TOKEN, Guesses, Step
from steersight.metrics import BUILT_IN

LOGS = {metric.id for metric in BUILT_IN if metric.transform == "log2"}


@dataclass
class Taken:
    """One run's entries, as they came."""

    entries: list[Entry] = field(default_factory=list)

    def take(self, entry: Entry) -> None:
        """One more."""
        self.entries.append(entry)

    @property
    def tokens(self) -> list[int]:
        return [entry.token for entry in self.entries if entry.token != NO_TOKEN]

    @property
    def revisions(self) -> list[int]:
        """Per row, in the order of positions."""
        return [rev for entry in self.entries for rev in entry.revisions]

    @property
    def positions(self) -> list[int]:
        return [position for entry in self.entries for position in range(entry.start, entry.end)]

    def numbers(self) -> list[tuple[Step, slice]]:
        """Where the numbers of each entry are that has some."""
        return [
            (entry.step, slice(entry.first, entry.first + len(entry.revisions)))
            for entry in self.entries
            if entry.step is not None and entry.first != BARE
        ]

    def values(self, metrics: list[str]) -> NDArray[np.float16]:
        """[rows, metrics, layers] as they are on the wire.

        A step has what all its runs asked for together.
        """
        return np.concatenate(
            [step.values[rows][:, [step.metrics.index(m) for m in metrics]] for step, rows in self.numbers()]
        )

    def entropy(self) -> NDArray[np.float16]:
        """[rows]"""
        return np.concatenate(
            [step.entropy[rows] for step, rows in self.numbers() if step.entropy is not None]
        )

    def guesses(self) -> list[tuple[int, Guesses, int]]:
        """(position of the row, the step's guesses, index among them)."""
        found = []
        for entry in self.entries:
            guesses = None if entry.step is None else entry.step.guesses
            if guesses is not None and entry.place in guesses.entries:
                found.append((entry.end - 1, guesses, guesses.entries.tolist().index(entry.place)))
        return found

    def emitted(self, layers: list[int]) -> NDArray[np.float16]:
        """[rows, layers] of the one name that its code has emitted, at these layers for every token."""
        found = []
        for entry in self.entries:
            assert entry.step is not None
            assert entry.step.emitted is not None
            mine = {layer: numbers for _, layer, numbers in entry.step.emitted.of(entry.place)}
            assert sorted(mine) == layers
            found.append(np.stack([mine[layer] for layer in layers], axis=1))
        return np.concatenate(found)

    def alternatives(self) -> tuple[list[int], NDArray[np.int32], NDArray[np.float32]]:
        """Positions of the rows, and the ids and log probabilities [positions, top] for the token after."""
        positions, ids, logprobs = [], [], []
        for entry in self.entries:
            found = None if entry.step is None else entry.step.alternatives
            if found is not None and entry.place in found.entries:
                at = found.entries.tolist().index(entry.place)
                positions.append(entry.end - 1)
                ids.append(found.ids[at])
                logprobs.append(found.logprobs[at])
        return positions, np.stack(ids), np.stack(logprobs)


def shown(values: NDArray[np.float16], metrics: list[str]) -> NDArray[np.float64]:
    """Numbers as a person sees them: the transformation of each metric undone."""
    out = values.astype(np.float64)
    for index, name in enumerate(metrics):
        if name in LOGS:
            out[:, index] = 2.0 ** out[:, index]
    return out


def beyond_rounding(
    metric: str, found: NDArray[np.float16], expected: NDArray[np.float32]
) -> NDArray[np.float64]:
    """How much further `found` is from `expected` than half precision accounts for, in the metric's unit."""
    wire = np.log2(np.maximum(expected, 2.0**-24)) if metric in LOGS else expected
    half_a_step = 0.5 * np.spacing(np.abs(wire).astype(np.float16)).astype(np.float64)
    error = np.maximum(np.abs(found.astype(np.float64) - wire) - half_a_step, 0.0)
    return error * np.abs(expected) * math.log(2) if metric in LOGS else error
