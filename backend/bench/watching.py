"""What one reader has been told of a run, held against what the protocol promises. Pure: no sockets.

    view = RunView(run)
    view.take(frame)          # raises BrokenPromiseError at the first frame that breaks a promise
    view.missing()            # positions that are still to be asked for
    view.complete()           # once `finished` is here and nothing is missing

A view outlives connections: `after` is what a `resume` has to say, and what comes again must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from steersight.protocol import messages as m

from .proving import promise


class RunView:
    """One run, as one reader knows it."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.after = 0
        """The newest `seq`."""
        self.prompt: list[int] = []
        self.ids: list[int] = []
        self.texts: list[str] = []
        self.rows: dict[int, tuple[int, bytes]] = {}
        """Position -> revision and numbers."""
        self.guesses: dict[int, bytes] = {}
        self.named: dict[int, bytes] = {}
        self.skipped: set[int] = set()
        """Named by a `gap` that is kept, and not had yet."""
        self.lost: set[int] = set()
        """Named by a `gap` that is not kept."""
        self.applied: dict[int, int] = {}
        self.finished: m.Finished | None = None
        self.repeated = 0
        """Tokens and rows that came more than once."""
        self.gaps = 0
        self._started: m.Started | None = None

    def take(self, frame: Any) -> None:
        """Look at one frame of this run."""
        self._check(frame.run == self.run, f"was sent a frame of {frame.run}")
        if isinstance(frame, m.Resumed):
            # It may say less than what is here by now: a client that asks twice gets it all from there again.
            self._check(frame.seq <= self.after, f"resumed after {frame.seq}, and {self.after} are here")
            self._check(frame.newest >= self.after, "is said to have had fewer events than were sent")
            self.after = frame.seq
            return
        self._check(frame.seq >= self.after, f"went back from event {self.after} to {frame.seq}")
        match frame:
            case m.Started():
                self._take_started(frame)
            case m.Tokens():
                self._take_tokens(frame)
            case m.Rows():
                self._take_rows(frame)
            case m.Lens():
                self._take_lens(frame)
            case m.Alternatives():
                self._take_alternatives(frame)
            case m.Gap():
                self._take_gap(frame)
            case m.Applied():
                known = self.applied.setdefault(frame.rev, frame.position)
                self._check(known == frame.position, f"applied revision {frame.rev} at two positions")
            case m.Finished():
                self._check(self.finished in (None, frame.model_copy(update=self._seq())), "ended twice")
                self.finished = frame.model_copy(update={"seq": 0})
        self.after = frame.seq

    def missing(self) -> list[tuple[int, int]]:
        """(start, count) of what was skipped and is still to be asked for."""
        out: list[tuple[int, int]] = []
        for position in sorted(self.skipped):
            if out and sum(out[-1]) == position:
                out[-1] = (out[-1][0], out[-1][1] + 1)
            else:
                out.append((position, 1))
        return out

    @property
    def whole(self) -> bool:
        """Whether the run has ended and no row is missing that can still be had."""
        return self.finished is not None and not self.skipped

    def complete(self, rows: bool = True, first_row: int = 0) -> None:
        """Everything that only holds at the end.

        Args:
            rows: whether rows were asked for.
            first_row: the first position that has one.
        """
        self._check(self.finished is not None and self._started is not None, "has not ended")
        assert self.finished is not None  # noqa: S101
        usage = self.finished.usage
        self._check(usage.reply_tokens == len(self.ids), f"says {usage}, and sent {len(self.ids)} tokens")
        self._check(usage.prompt_tokens == len(self.prompt), f"says {usage}")
        if rows:
            last = len(self.prompt) + len(self.ids) - 1
            wanted = set(range(first_row, last)) if self.ids else set()
            have = self.rows.keys() | self.lost
            self._check(have >= wanted, f"has no rows at {sorted(wanted - have)[:20]} and no gap says so")
            beyond = [position for position in self.rows.keys() | self.guesses.keys() if position >= last]
            beyond += [position for position in self.applied.values() if position >= last]
            self._check(not beyond, f"has rows beyond its tokens, or what belongs to such: {sorted(beyond)}")
        revs = [self.rows[position][0] for position in sorted(self.rows)]
        self._check(revs == sorted(revs), f"has revisions that go back: {revs}")
        for rev, position in self.applied.items():
            first = next((p for p in sorted(self.rows) if self.rows[p][0] >= rev), None)
            if position not in self.lost and rows:
                self._check(first == position, f"said {rev} applied at {position}; its rows say {first}")

    def agrees_with(self, other: RunView) -> None:
        """Two readers of one run have seen the same."""
        self._check(self.ids == other.ids and self.texts == other.texts, "has two replies")
        self._check(self.applied == other.applied, "was applied in two ways")
        for position in self.rows.keys() & other.rows.keys():
            self._check(self.rows[position] == other.rows[position], f"has two rows at {position}")

    # ------------------------------------------------------------ frames

    def _seq(self) -> dict[str, int]:
        return {"seq": 0}

    def _take_started(self, frame: m.Started) -> None:
        bare = frame.model_copy(update={"seq": 0})
        self._check(self._started in (None, bare), "started as two")
        self._started, self.prompt = bare, frame.prompt.ids

    def _take_tokens(self, frame: m.Tokens) -> None:
        self._check(self._started is not None, "sent tokens before it started")
        self._check(
            len(frame.ids) == len(frame.texts) == len(frame.logprobs) == len(frame.ranks) > 0,
            "sent tokens without all that belongs to them",
        )
        at = frame.start - len(self.prompt)
        self._check(0 <= at <= len(self.ids), f"lost tokens: {len(self.ids)} were sent, then one at {at}")
        known = min(len(self.ids) - at, len(frame.ids))
        self._check(
            self.ids[at : at + known] == frame.ids[:known]
            and self.texts[at : at + known] == frame.texts[:known],
            f"changed tokens at {at}",
        )
        self.repeated += known
        fresh = frame.ids[known:]
        self._check(not fresh or self.finished is None, "sent new tokens after its end")
        self.ids += fresh
        self.texts += frame.texts[known:]

    def _take_rows(self, frame: m.Rows) -> None:
        self._check(frame.count == len(frame.revs) > 0, "sent rows without revisions")
        size = len(frame.metrics) * frame.layers * 2
        self._check(len(frame.data) == size * frame.count, "sent rows of the wrong size")
        entropy = frame.entropy
        for row, rev in enumerate(frame.revs):
            numbers = frame.data[row * size : (row + 1) * size]
            if entropy is not None:
                numbers += entropy[row * 2 : row * 2 + 2]
            self._once(self.rows, frame.start + row, (rev, numbers), "row")
            self.skipped.discard(frame.start + row)

    def _take_lens(self, frame: m.Lens) -> None:
        cells = len(frame.layers) * frame.top
        self._check(len(frame.ids) == cells * 4 * frame.count, "sent guesses of the wrong size")
        self._check(len(frame.probabilities) == cells * 2 * frame.count, "sent guesses of the wrong size")
        for row in range(frame.count):
            ids = frame.ids[row * cells * 4 : (row + 1) * cells * 4]
            shares = frame.probabilities[row * cells * 2 : (row + 1) * cells * 2]
            self._once(self.guesses, frame.start + row, ids + shares, "guess")

    def _take_alternatives(self, frame: m.Alternatives) -> None:
        size = frame.top * 4
        self._check(
            len(frame.ids) == len(frame.logprobs) == size * frame.count, "sent alternatives of the wrong size"
        )
        for row in range(frame.count):
            mine = slice(row * size, (row + 1) * size)
            self._once(self.named, frame.start + row, frame.ids[mine] + frame.logprobs[mine], "alternatives")

    def _take_gap(self, frame: m.Gap) -> None:
        self.gaps += 1
        positions = set(range(frame.start, frame.start + frame.count))
        if frame.kept:
            self.skipped |= positions - self.rows.keys()
        else:
            self._check(not positions & self.rows.keys(), f"says rows are lost that it sent: {frame}")
            self.lost |= positions
            self.skipped -= positions

    def _once(self, known: dict[int, Any], position: int, value: Any, what: str) -> None:
        if position in known:
            self.repeated += 1
            self._check(known[position] == value, f"sent two values of the {what} at {position}")
        known[position] = value

    def _check(self, kept: bool, what: str) -> None:
        promise(kept, f"Run {self.run} {what}.")


def matches(view: RunView, whole: list[int], most: int) -> None:
    """The reply is the one that the same question had when nothing disturbed it.

    Args:
        whole: that reply, which may be longer.
        most: tokens that this run was allowed.
    """
    expected = whole[:most]
    if view.ids != expected:
        pairs: Iterator[tuple[int, int]] = zip(view.ids, expected, strict=False)
        same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(view.ids), len(expected)))
        promise(
            False,
            f"Run {view.run} wrote another reply: {len(view.ids)} tokens, and {len(expected)} were "
            f"expected; the first difference is at token {same}.",
        )
