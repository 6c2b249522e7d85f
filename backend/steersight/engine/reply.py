"""What of a run's steps is its reply. Pure: no vLLM, no clock.

A worker computes further than a reply goes: with asynchronous scheduling the next step has begun when an
end token is found, and a stop string is found later still. Nothing behind the last token may be shown,
neither a token nor a row, not even for a moment. So each entry of a step is released only when its token is
known to belong to the reply:

- Without stop strings `Ends` decides as vLLM's scheduler does, the moment the token is here.
- With stop strings vLLM's front end decides, and tells how many tokens there are (`confirm`).

Rows come with the token behind them. The newest row is therefore that of position prompt + reply - 2, and
the last token, which was never read, has none.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .step import BARE, NO_TOKEN

if TYPE_CHECKING:
    from .step import Step


class Entry(NamedTuple):
    """One run's part of a step: consecutive rows, and the token sampled behind the last of them."""

    start: int
    """Position of the first row; of the token where there are no rows."""
    revisions: list[int]
    """Per row: what its pass was steered with."""
    token: int
    """`NO_TOKEN` where none was sampled."""
    logprob: float | None
    """Natural logarithm of the token's probability in the final distribution; None where not known."""
    rank: int | None
    """The token's place in that distribution, 1 for the likeliest."""
    step: Step | None
    """Where the numbers of the rows are; None where they were lost on the way, or nobody asked."""
    first: int
    """Index of the first row in `step.values`; `BARE` where they have no numbers."""
    place: int
    """Index of the entry in `step`."""
    watch: int = 0
    """Number of what the run was watched with; where there is no `step`, it says nothing."""

    @property
    def end(self) -> int:
        """Position behind the last row, which is the token's."""
        return self.start + len(self.revisions)


def entries(step: Step) -> list[tuple[str, Entry]]:
    """The entries of a step with their runs' names."""
    found = []
    at = 0
    revisions = step.revisions.tolist()
    columns = zip(
        step.runs, step.starts.tolist(), step.counts.tolist(), step.first.tolist(), step.tokens.tolist(),
        step.logprobs.tolist(), step.ranks.tolist(), step.watches.tolist(), strict=True,
    )  # fmt: skip
    for index, (run, start, count, first, token, logprob, rank, watch) in enumerate(columns):
        mine = revisions[at : at + count]
        at += count
        # A stream that was steered beyond all numbers has no probabilities, and the wire no word for it.
        known = logprob if math.isfinite(logprob) else None
        found.append((run, Entry(start, mine, token, known, rank, step, first, index, watch)))
    return found


@dataclass(frozen=True)
class Ends:
    """When a reply without stop strings is over; vLLM's own rule (`v1/core/sched/utils.py`, `check_stop`)."""

    tokens: frozenset[int]
    """Each of these ends it."""
    most: int
    """So many tokens are all that it may have."""


class Reply:
    """One run's reply as it is written."""

    def __init__(self, prompt_tokens: int, ends: Ends | None) -> None:
        """
        Args:
            prompt_tokens: length of the prompt.
            ends: when it is over; None where somebody else will say (`confirm`).
        """
        self.tokens = 0
        """Tokens that have been released."""
        self.over = False
        """Whether nothing more will be released."""
        self._prompt = prompt_tokens
        self._ends = ends
        self._confirmed = 0
        self._held: deque[Entry] = deque()

    def take(self, entry: Entry) -> list[Entry]:
        """An entry has come; returns those that are now known to belong to the reply, in order."""
        if self.over:
            return []
        is_next = not self._held and entry.end == self._prompt + self.tokens and entry.token != NO_TOKEN
        if is_next and self._belongs(entry):
            return [entry]  # nearly always
        self._held.append(entry)
        return self._release()

    def confirm(self, tokens: int) -> list[Entry]:
        """The reply has at least so many tokens; returns what is known to belong to it now."""
        self._confirmed = tokens
        return [] if self.over else self._release()

    def finish(self, ids: Sequence[int]) -> list[Entry]:
        """The reply is over and has exactly these tokens; returns what had not been released.

        Tokens whose step never came are among them, without rows and numbers.
        """
        self._ends = None
        released = self.confirm(len(ids))
        while self.tokens < len(ids) and not self.over:
            # Its step never came; what was computed behind it may be here.
            at = self._prompt + self.tokens
            released.append(Entry(at, [], ids[self.tokens], None, None, None, BARE, 0))
            self.tokens += 1
            released += self._release()
        self.over = True
        self._held.clear()
        return released

    def _release(self) -> list[Entry]:
        released: list[Entry] = []
        while self._held and not self.over:
            entry = self._held[0]
            if entry.token == NO_TOKEN:
                # Rows of a prompt that comes in pieces; its token comes with the last.
                if entry.end > self._prompt:
                    break
            elif entry.end < self._prompt + self.tokens:
                # Computed again after a preemption: its token is known.
                entry = entry._replace(token=NO_TOKEN)
            elif entry.end > self._prompt + self.tokens or not self._belongs(entry):
                break
            self._held.popleft()
            released.append(entry)
        return released

    def _belongs(self, entry: Entry) -> bool:
        """Count the next token, if it is known to belong to the reply."""
        if self._ends is None:
            if self.tokens >= self._confirmed:
                return False
            self.tokens += 1
            return True
        self.tokens += 1
        self.over = entry.token in self._ends.tokens or self.tokens >= self._ends.most
        return True
