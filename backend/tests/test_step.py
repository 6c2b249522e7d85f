"""A step's way from the worker to the server: what is packed is what is unpacked, in one piece or in many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steersight.engine import channel
from steersight.engine.channel import IN_TRANSIT, FailedRuns, RowReceiver, RowSender, Stage, pack, unpack
from steersight.engine.reply import entries
from steersight.engine.step import BARE, NO_TOKEN, PIECE_BYTES, Alternatives, Emitted, Guesses, Step

LAYERS = 3


def make(
    counts: list[int],
    observed: list[bool],
    metrics: list[str],
    *,
    entropy: bool = True,
    guesses: bool = True,
    emits: bool = False,
) -> Step:
    """A step with numbers that tell every row from every other."""
    entries_ = len(counts)
    rows = sum(count for count, seen in zip(counts, observed, strict=True) if seen)
    first, at = [], 0
    for count, seen in zip(counts, observed, strict=True):
        first.append(at if seen else BARE)
        at += count if seen else 0
    named = [entry for entry in range(entries_) if observed[entry] and counts[entry]]
    every = list(range(0, entries_, 2))  # also of those without rows or numbers
    return Step(
        runs=[f"run-{entry}" for entry in range(entries_)],
        starts=np.arange(entries_, dtype=np.int32) * 100,
        counts=np.array(counts, dtype=np.int32),
        first=np.array(first, dtype=np.int32),
        revisions=np.arange(sum(counts), dtype=np.int32),
        tokens=np.arange(entries_, dtype=np.int32) + 7,
        logprobs=-np.arange(entries_, dtype=np.float32) / 3,
        ranks=np.arange(entries_, dtype=np.int32) + 1,
        watches=np.arange(entries_, dtype=np.int32) % 3,
        metrics=metrics,
        layers=LAYERS,
        values=np.arange(rows * len(metrics) * LAYERS).reshape(rows, len(metrics), LAYERS).astype("<f2"),
        entropy=np.arange(rows).astype("<f2") if entropy else None,
        guesses=Guesses(
            np.array(named, dtype=np.int32), [0, 2],
            np.arange(len(named) * 4, dtype=np.int32).reshape(-1, 2, 2),
            (np.arange(len(named) * 4).reshape(-1, 2, 2) / 8).astype("<f2"),
        ) if guesses and named else None,
        alternatives=Alternatives(
            np.array(every, dtype=np.int32), np.arange(len(every) * 3, dtype=np.int32).reshape(-1, 3),
            -np.arange(len(every) * 3, dtype=np.float32).reshape(-1, 3) / 7,
        ) if guesses else None,
        emitted=emitted_by(counts) if emits and any(counts[::2]) else None,
    )  # fmt: skip


def emitted_by(counts: list[int]) -> Emitted:
    """Of every second entry that has rows: a number for each of them, and one for the last."""
    emitting = [entry for entry in range(0, len(counts), 2) if counts[entry]]
    many = [count for entry in emitting for count in (counts[entry], 1)]
    return Emitted(
        ["each", "last"], np.repeat(emitting, 2).astype(np.int32),
        np.tile([0, 1], len(emitting)).astype(np.int32),
        np.arange(len(many), dtype=np.int32) % LAYERS, np.array(many, dtype=np.int32),
        np.arange(sum(many)).astype("<f2"),
    )  # fmt: skip


steps = st.integers(1, 6).flatmap(
    lambda entries_: st.builds(
        make,
        st.lists(st.integers(0, 9), min_size=entries_, max_size=entries_),
        st.lists(st.booleans(), min_size=entries_, max_size=entries_),
        st.sampled_from([[], ["a"], ["a", "b"]]),
        entropy=st.booleans(),
        guesses=st.booleans(),
        emits=st.booleans(),
    )
)


def rows(step: Step) -> list[tuple[str, int, int, list[float], float | None]]:
    """(run, position, revision, numbers, entropy) of every row."""
    found = []
    for run, entry in entries(step):
        for at, rev in enumerate(entry.revisions):
            row = None if entry.first == BARE else entry.first + at
            numbers = [] if row is None else step.values[row].ravel().tolist()
            nats = None if row is None or step.entropy is None else float(step.entropy[row])
            found.append((run, entry.start + at, rev, numbers, nats))
    return found


def tokens(step: Step) -> list[tuple[str, int, int, float | None, int | None]]:
    return [(run, e.end, e.token, e.logprob, e.rank) for run, e in entries(step) if e.token != NO_TOKEN]


def watches(step: Step) -> list[tuple[str, int, int]]:
    """(run, position, number of what it was watched with) of every row."""
    return [(run, at, e.watch) for run, e in entries(step) for at in range(e.start, e.end)]


def named(step: Step) -> list[tuple[str, int, list[int], list[float]]]:
    if step.guesses is None:
        return []
    mine = dict(enumerate(entries(step)))
    return [
        (mine[entry][0], mine[entry][1].end, ids.ravel().tolist(), p.ravel().tolist())
        for entry, ids, p in zip(
            step.guesses.entries.tolist(), step.guesses.ids, step.guesses.probabilities, strict=True
        )
    ]


def alternatives(step: Step) -> list[tuple[str, int, list[int], list[float]]]:
    if step.alternatives is None:
        return []
    mine = entries(step)
    found = step.alternatives
    return [
        (mine[entry][0], mine[entry][1].end, ids.tolist(), logprobs.tolist())
        for entry, ids, logprobs in zip(found.entries.tolist(), found.ids, found.logprobs, strict=True)
    ]


def emitted(step: Step) -> list[tuple[str, str, int, int, float]]:
    """(run, name, layer, position, number) of everything that was emitted."""
    found = []
    for place, (run, entry) in enumerate(entries(step)):
        for name, layer, values in step.emitted.of(place) if step.emitted is not None else ():
            found += [
                (run, name, layer, at, value)
                for at, value in enumerate(values.tolist(), entry.end - len(values))
            ]
    return sorted(found)


VIEWS: list[Callable[[Step], list[object]]] = [rows, tokens, watches, named, alternatives, emitted]  # type: ignore[list-item]


@given(steps)
def test_what_is_unpacked_is_what_was_packed(step: Step) -> None:
    again = unpack(step.pack())
    assert isinstance(again, Step)
    assert (again.metrics, again.layers, again.lost) == (step.metrics, step.layers, step.lost)
    for view in VIEWS:
        assert view(again) == view(step)


@given(steps, st.integers(1, 200))
def test_pieces_are_the_step(step: Step, most: int) -> None:
    """Every row, token and guess once, in order; a piece is no heavier than asked, or a single row."""
    pieces = [unpack(piece.pack()) for piece in step.pieces(most)]
    for view in VIEWS:
        mine = [one for piece in pieces if isinstance(piece, Step) for one in view(piece)]
        assert (sorted(mine) if view is emitted else mine) == view(step)  # type: ignore[type-var]
    for piece in pieces:
        assert isinstance(piece, Step)
        heavy = piece.values.nbytes + (0 if piece.entropy is None else piece.entropy.nbytes)
        assert heavy <= most or len(piece.values) <= 1


def test_other_messages_come_back_as_they_were() -> None:
    for item in (Stage("Loading", 0.5), FailedRuns({"a": "why"})):
        assert unpack([pack(item)]) == item


class Ready:
    """A step whose arrays are there."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.left_out = False

    @property
    def runs(self) -> list[str]:
        return self.step.runs

    @property
    def numbers(self) -> int:
        return 0 if self.left_out else self.step.numbers

    def leave_numbers_out(self) -> None:
        self.left_out = True

    def arrive(self) -> Step:
        if not self.left_out:
            return self.step
        counts = self.step.counts.tolist()
        return make(counts, [False] * len(counts), [], entropy=False, guesses=False)


async def test_a_server_that_does_not_read_bounds_memory_and_loses_no_token(tmp_path: Path) -> None:
    """6,000 steps of 64 runs while the server's loop stands still: rows are left out and counted."""
    address = f"ipc://{tmp_path}/rows"
    receiver = RowReceiver(address)
    budget = 2 << 20
    sender = RowSender(address, held_bytes=budget)
    step = make([1] * 64, [True] * 64, [f"m{n}" for n in range(40)], guesses=False)
    try:
        for _ in range(6000):
            assert sender.put(Ready(step)), "a step was dropped whole"
            assert sender.held <= budget
        whole = lost = 0
        while whole + lost < 6000:
            item = await receiver.receive()
            assert isinstance(item, Step)
            assert tokens(item) == tokens(step)
            whole += bool(item.values.size)
            lost += not item.values.size
        assert sender.dropped == lost
        # What found no room, neither with the sender's thread nor in the sockets' buffers.
        assert whole * step.numbers <= budget + (2 * IN_TRANSIT + 64) * PIECE_BYTES
        assert lost > 5000
    finally:
        sender.close()
        receiver.close()


async def test_a_server_that_catches_up_lets_its_other_tasks_have_their_turn(tmp_path: Path) -> None:
    """Taking steps while more are there must not keep everybody from being sent them."""
    address = f"ipc://{tmp_path}/rows"
    receiver = RowReceiver(address)
    sender = RowSender(address)
    work, turns = time.sleep, 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    try:
        step = make([1] * 8, [True] * 8, ["m"], guesses=False)
        for _ in range(2 * IN_TRANSIT):
            sender.put(Ready(step))
        await receiver.receive()
        work(0.1)  # the others are here by now, in the socket's buffer
        before = turns
        for _ in range(IN_TRANSIT):
            await receiver.receive()
            work(channel.TURN_SECONDS / 2)
        assert turns - before >= IN_TRANSIT / 4
    finally:
        beside.cancel()
        sender.close()
        receiver.close()
