"""The columns of a run from what came of it piece by piece: the server's log and the Python client hold rows,
guesses and alternatives as they came, and make the same arrays of them here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .meta import RevisionInfo, Watched
from .recording import Alternatives, Floats, Guesses, Halves, Whole


@dataclass(frozen=True)
class Stretch:
    """Rows of consecutive positions."""

    start: int
    revisions: Sequence[int]
    """Of each row the one that computed it."""
    metrics: Sequence[str]
    values: Halves
    """[rows, metrics, layers] as sent."""
    entropy: Halves | None = None
    """[rows] nats; None where nobody asked."""


@dataclass(frozen=True)
class Columns:
    """Rows of all positions up to the last that has one; c of them."""

    revisions: Whole
    """[c]; -1 where there is no row."""
    rows: dict[str, Halves]
    """Metric -> [c, layers]."""
    entropy: Halves | None
    """[c]"""


def columns_of(stretches: Sequence[Stretch], metrics: Sequence[str], layers: int, tokens: int) -> Columns:
    """The columns of these metrics; what is named of positions from `tokens` on is left out."""
    c = min(tokens, max((one.start + len(one.revisions) for one in stretches), default=0))
    revisions = np.full(c, -1, dtype="<i4")
    rows = {name: np.full((c, layers), np.nan, dtype="<f2") for name in metrics}
    asked = any(one.entropy is not None for one in stretches)
    entropy = np.full(c, np.nan, dtype="<f2") if asked else None
    for one in stretches:
        count = min(len(one.revisions), c - one.start)
        if count <= 0:
            continue
        here = slice(one.start, one.start + count)
        revisions[here] = one.revisions[:count]
        for at, name in enumerate(one.metrics):
            rows[name][here] = one.values[:count, at]
        if entropy is not None and one.entropy is not None:
            entropy[here] = one.entropy[:count]
    return Columns(revisions, rows, entropy)


def known_revisions(told: Iterable[RevisionInfo], column: Whole) -> list[RevisionInfo]:
    """The revisions that were told of, ascending.

    Args:
        told: revision 0, said to stand at position 0, and those that came into force.
        column: [c] the revision of each row; -1 where there is none.
    """
    found = sorted(told, key=lambda one: one.rev)
    rows = np.flatnonzero(column >= 0)
    first = int(rows[0]) if len(rows) else 0
    # Of a run that was steered while it waited, nothing was computed with the first.
    begun = bool((column == 0).any()) or not any(one.rev and one.position <= first for one in found)
    return [one for one in found if one.rev or begun]


def known_watched(begun: Watched, changes: Iterable[Watched], stretches: Sequence[Stretch]) -> list[Watched]:
    """What a run was watched with, ascending.

    Args:
        begun: as it was asked for.
        changes: those that came into force.
        stretches: all its rows.
    """
    found = sorted(changes, key=lambda one: one.from_)
    # Of a run that was watched otherwise before its first row, none was computed as it was asked for.
    first = min((one.start for one in stretches), default=0)
    return found if found and found[0].from_ <= first else [begun, *found]


def metrics_of(watched: Iterable[Watched]) -> list[str]:
    """The metrics that rows have, in the order in which the run came to have them."""
    return list(dict.fromkeys(name for one in watched for name in one.metrics))


Guess = tuple[int, Sequence[int], NDArray[np.int32], NDArray[np.float16]]
"""Of one position the layers that were read, and [layers, top] token ids and probabilities."""


def guesses_of(found: Iterable[Guess]) -> Guesses | None:
    """The guesses of all positions, ascending; None where there are none. Layers and numbers of tokens may
    change between them."""
    events = sorted(found, key=_position)
    if not events:
        return None
    layers = sorted({layer for _, read, _, _ in events for layer in read})
    place = {layer: at for at, layer in enumerate(layers)}
    shape = len(events), len(layers), max(ids.shape[1] for _, _, ids, _ in events)
    ids = np.full(shape, -1, dtype="<i4")
    probabilities = np.full(shape, np.nan, dtype="<f2")
    for at, (_, read, named, shares) in enumerate(events):
        places = [place[layer] for layer in read]
        ids[at, places, : named.shape[1]] = named
        probabilities[at, places, : named.shape[1]] = shares
    return Guesses(_positions(events), np.array(layers, dtype="<i4"), ids, probabilities)


Likeliest = tuple[int, NDArray[np.int32], NDArray[np.float32]]
"""Of one position [top] token ids and log probabilities."""


def alternatives_of(found: Iterable[Likeliest]) -> Alternatives | None:
    """The alternatives of all positions, ascending; None where there are none."""
    events = sorted(found, key=_position)
    if not events:
        return None
    shape = len(events), max(len(ids) for _, ids, _ in events)
    ids = np.full(shape, -1, dtype="<i4")
    logprobs = np.full(shape, np.nan, dtype="<f4")
    for at, (_, named, nats) in enumerate(events):
        ids[at, : len(named)] = named
        logprobs[at, : len(named)] = nats
    return Alternatives(_positions(events), ids, logprobs)


def numbers_of(values: Iterable[float | None]) -> Floats:
    """[r] log probabilities; NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype="<f4")


def ranks_of(values: Iterable[int | None]) -> Whole:
    """[r] ranks; 0 where there is none."""
    return np.array([value or 0 for value in values], dtype="<i4")


def _position(event: Guess | Likeliest) -> int:
    return event[0]


def _positions(events: Sequence[Guess] | Sequence[Likeliest]) -> Whole:
    return np.array([event[0] for event in events], dtype="<i4")
