"""One engine step as it travels from the worker to the server: all its runs at once, in columns.

A step is the natural unit. Everything the worker knows of it is known at the same moment for all its runs,
so it is written once, in the form in which clients get it, and the server only cuts slices. An *entry* is
one run's part of a step: rows of consecutive positions, and the token that was sampled behind the last of
them.

Tokens are what must never be lost; numbers may be. So the two lie in different parts of the message: where
there is no room the numbers are left out, and positions, revisions and tokens travel on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from .emitted import COLUMNS as EMITTED_COLUMNS
from .emitted import Emitted

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_TOKEN = -1
"""In `Step.tokens`: nothing was sampled behind this entry's rows."""
BARE = -1
"""In `Step.first`: this entry's rows have no numbers in this message."""
PIECE_BYTES = 1 << 20
"""The most numbers that one message carries, if one row is not more; a long prompt comes in several."""

_COLUMNS = {
    "starts": "<i4",
    "counts": "<i4",
    "first": "<i4",
    "tokens": "<i4",
    "logprobs": "<f4",
    "ranks": "<i4",
    "watches": "<i4",
}
"""Per entry, with their types on the wire."""


@dataclass(frozen=True)
class Guesses:
    """The logit lens's likeliest tokens behind the last rows of some entries."""

    entries: NDArray[np.int32]
    """[runs] indices of entries, ascending"""
    layers: list[int]
    """Layers that were read, ascending."""
    ids: NDArray[np.int32]
    """[runs, layers, k], likeliest first"""
    probabilities: NDArray[np.float16]
    """[runs, layers, k]"""

    @property
    def nbytes(self) -> int:
        """Size on the wire."""
        return int(self.ids.nbytes + self.probabilities.nbytes)


@dataclass(frozen=True)
class Alternatives:
    """The likeliest tokens of the final distribution behind the last rows of some entries, those without
    numbers too."""

    entries: NDArray[np.int32]
    """[runs] indices of entries, ascending"""
    ids: NDArray[np.int32]
    """[runs, k], likeliest first"""
    logprobs: NDArray[np.float32]
    """[runs, k], natural logarithms"""

    @property
    def nbytes(self) -> int:
        """Size on the wire."""
        return int(self.ids.nbytes + self.logprobs.nbytes)


@dataclass(frozen=True)
class Step:
    """The entries of one step, or of a part of one."""

    runs: list[str]
    """[entries] names"""
    starts: NDArray[np.int32]
    """[entries] position of the first row"""
    counts: NDArray[np.int32]
    """[entries] rows"""
    first: NDArray[np.int32]
    """[entries] index of the first row in `values`; `BARE` without numbers"""
    revisions: NDArray[np.int32]
    """[all rows] of all entries one after the other: the revision that each was computed with"""
    tokens: NDArray[np.int32]
    """[entries] the token sampled for position start + count, or `NO_TOKEN`"""
    logprobs: NDArray[np.float32]
    """[entries] of that token in the model's final distribution, natural logarithm"""
    ranks: NDArray[np.int32]
    """[entries] of that token, 1 for the likeliest"""
    watches: NDArray[np.int32]
    """[entries] number of what the run is watched with: whether it changed says this, and not the numbers"""
    metrics: list[str]
    """What any run of the step asked for, in the registry's order."""
    layers: int
    values: NDArray[np.float16]
    """[observed rows, metrics, layers] transformed as each metric says; NaN where nothing was computed"""
    entropy: NDArray[np.float16] | None = None
    """[observed rows] nats, NaN where not known; None where nobody asked"""
    guesses: Guesses | None = None
    alternatives: Alternatives | None = None
    emitted: Emitted | None = None
    failed: dict[str, str] = field(default_factory=dict)
    """Metrics that are switched off, and why."""
    lost: bool = False
    """Whether its numbers were left out because there was no room."""

    @property
    def numbers(self) -> int:
        """Bytes of everything that may be left out."""
        size = int(self.values.nbytes)
        if self.entropy is not None:
            size += int(self.entropy.nbytes)
        size += 0 if self.guesses is None else self.guesses.nbytes
        size += 0 if self.emitted is None else self.emitted.nbytes
        return size + (0 if self.alternatives is None else self.alternatives.nbytes)

    def pieces(self, most_bytes: int = PIECE_BYTES) -> Iterator[Step]:
        """The same in parts whose numbers weigh at most `most_bytes` each, if one row is not more.

        Entries keep their order. Where one is divided, its token comes with the last of its rows.
        """
        if self.numbers <= most_bytes:
            yield self
            return
        row_bytes = self.values[:1].nbytes + 2
        emitting: set[int] = set()
        if self.emitted is not None:
            emitting = set(self.emitted.entries.tolist())
            row_bytes += 2 * int(np.bincount(self.emitted.entries).max())
        room = max(1, most_bytes // row_bytes)
        taken: list[tuple[int, int, int]] = []  # entry, first and last row of it
        held = 0
        for entry, (count, first) in enumerate(zip(self.counts.tolist(), self.first.tolist(), strict=True)):
            at = 0
            light = first == BARE and entry not in emitting
            while True:
                some = count - at if light else min(count - at, room - held)
                taken.append((entry, at, at + some))
                at += some
                held += 0 if light else some
                if held >= room:
                    yield self._part(taken)
                    taken, held = [], 0
                if at == count:
                    break  # tested last: an entry may have no rows, and only a token
        if taken:
            yield self._part(taken)

    def _part(self, taken: list[tuple[int, int, int]]) -> Step:
        """The rows [begin, end) of these entries: (entry, begin, end) each."""
        at = np.array([entry for entry, _, _ in taken])
        begin, end = (np.array([piece[i] for piece in taken], dtype=np.int32) for i in (1, 2))
        offsets = np.cumsum(self.counts) - self.counts
        observed = self.first[at] != BARE
        counts = end - begin
        whole = end == self.counts[at]
        first = np.where(observed, np.cumsum(np.where(observed, counts, 0)) - counts, BARE)
        rows = _ranges(self.first[at][observed] + begin[observed], counts[observed])
        place = {int(entry): n for n, entry in enumerate(at) if whole[n]}
        guesses, alternatives = self.guesses, self.alternatives
        if guesses is not None:
            kept, places = _placed(guesses.entries, place)
            guesses = Guesses(places, guesses.layers, guesses.ids[kept], guesses.probabilities[kept])
        if alternatives is not None:
            kept, places = _placed(alternatives.entries, place)
            alternatives = Alternatives(places, alternatives.ids[kept], alternatives.logprobs[kept])
        return replace(
            self,
            runs=[self.runs[entry] for entry in at],
            starts=self.starts[at] + begin,
            counts=counts,
            first=first.astype(np.int32),
            revisions=self.revisions[_ranges(offsets[at] + begin, counts)],
            tokens=np.where(whole, self.tokens[at], NO_TOKEN).astype(np.int32),
            logprobs=self.logprobs[at],
            ranks=self.ranks[at],
            watches=self.watches[at],
            values=self.values[rows],
            entropy=None if self.entropy is None else self.entropy[rows],
            guesses=guesses if guesses is not None and len(guesses.entries) else None,
            alternatives=alternatives if alternatives is not None and len(alternatives.entries) else None,
            emitted=None if self.emitted is None else self.emitted.part(taken, self.counts),
        )

    # ------------------------------------------------------------ the wire

    def pack(self) -> list[bytes]:
        """As the parts of one message: a msgpack map, and then the arrays that weigh something.

        {kind: "step", runs, metrics, layers, failed, lost, revisions and one column per entry (bytes),
        entropy: whether there is one, guesses: {entries (bytes), layers, k} or null, alternatives: {entries
        (bytes), k} or null, emitted: {names, and its columns (bytes)} or null}; then `values`, `entropy`, ids
        with probabilities of the guesses and of the alternatives, and what was emitted, where they are.
        """
        head: dict[str, Any] = {
            "kind": "step", "runs": self.runs, "metrics": self.metrics, "layers": self.layers,
            "failed": self.failed, "lost": self.lost, "revisions": self.revisions.astype("<i4").tobytes(),
            **{name: getattr(self, name).astype(kind).tobytes() for name, kind in _COLUMNS.items()},
            "entropy": self.entropy is not None, "guesses": None, "alternatives": None, "emitted": None,
        }  # fmt: skip
        arrays: list[NDArray[Any]] = [self.values]
        if self.entropy is not None:
            arrays.append(self.entropy)
        if self.guesses is not None:
            k = self.guesses.ids.shape[-1]
            entries = self.guesses.entries.astype("<i4").tobytes()
            head["guesses"] = {"entries": entries, "layers": self.guesses.layers, "k": k}
            arrays += [self.guesses.ids, self.guesses.probabilities]
        if self.alternatives is not None:
            entries = self.alternatives.entries.astype("<i4").tobytes()
            head["alternatives"] = {"entries": entries, "k": self.alternatives.ids.shape[-1]}
            arrays += [self.alternatives.ids, self.alternatives.logprobs]
        if (emitted := self.emitted) is not None:
            columns = {name: getattr(emitted, name).astype("<i4").tobytes() for name in EMITTED_COLUMNS}
            head["emitted"] = {"names": emitted.names, **columns}
            arrays.append(emitted.values)
        return [msgpack.packb(head), *(np.ascontiguousarray(array).tobytes() for array in arrays)]

    @classmethod
    def unpack(cls, head: dict[str, Any], parts: list[bytes]) -> Step:
        """The inverse of `pack`: the map, and the parts behind it. Nothing is copied."""
        rest = list(parts)
        metrics, layers = head["metrics"], head["layers"]
        columns = {name: np.frombuffer(head[name], dtype=kind) for name, kind in _COLUMNS.items()}
        rows = int(columns["counts"][columns["first"] != BARE].sum())
        values = np.frombuffer(rest.pop(0), dtype="<f2").reshape(rows, len(metrics), layers)
        entropy = np.frombuffer(rest.pop(0), dtype="<f2") if head["entropy"] else None
        guesses = None
        if (told := head["guesses"]) is not None:
            entries = np.frombuffer(told["entries"], dtype="<i4")
            shape = (len(entries), len(told["layers"]), told["k"])
            guesses = Guesses(
                entries,
                told["layers"],
                np.frombuffer(rest.pop(0), dtype="<i4").reshape(shape),
                np.frombuffer(rest.pop(0), dtype="<f2").reshape(shape),
            )
        alternatives = None
        if (told := head["alternatives"]) is not None:
            entries = np.frombuffer(told["entries"], dtype="<i4")
            ids, logprobs = (
                np.frombuffer(rest.pop(0), dtype=kind).reshape(len(entries), told["k"])
                for kind in ("<i4", "<f4")
            )
            alternatives = Alternatives(entries, ids, logprobs)
        emitted = None
        if (told := head["emitted"]) is not None:
            emitted = Emitted(
                names=told["names"], values=np.frombuffer(rest.pop(0), dtype="<f2"),
                **{name: np.frombuffer(told[name], dtype="<i4") for name in EMITTED_COLUMNS},
            )  # fmt: skip
        return cls(
            runs=head["runs"], metrics=metrics, layers=layers, values=values, entropy=entropy,
            guesses=guesses, alternatives=alternatives, emitted=emitted, failed=head["failed"],
            lost=head["lost"],
            revisions=np.frombuffer(head["revisions"], dtype="<i4"), **columns,
        )  # fmt: skip


def _placed(entries: NDArray[np.int32], place: dict[int, int]) -> tuple[list[int], NDArray[np.int32]]:
    """Which of these entries are in a part, by index, and which of its own each is then."""
    kept = [n for n, entry in enumerate(entries.tolist()) if entry in place]
    return kept, np.array([place[int(entries[n])] for n in kept], dtype=np.int32)


def _ranges(starts: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.int64]:
    """Indices start, start + 1, ... of each range, one range after the other."""
    if not len(starts):
        return np.empty(0, dtype=np.int64)
    offsets = np.cumsum(counts) - counts
    found: NDArray[np.int64] = np.repeat(starts - offsets, counts) + np.arange(int(counts.sum()))
    return found
