"""The runs that a worker computes, and which revision each of their positions is computed with.

Which revision a token uses depends only on its position (`RunState.revision_at`), never on when it is
computed: a run that vLLM preempts and recomputes later gets the strengths each position had the first time,
so neither its KV cache nor its rows change. Pure: no torch, no vLLM.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..text.thoughts import ReplyParts
from .request import RunOptions, Wants

if TYPE_CHECKING:
    from ..vectors.action import Action

_T = TypeVar("_T")

MAX_WAITING_STEERS = 4096
"""Changes of each kind that are kept for runs whose first step has not come; the oldest are forgotten
first."""
NOWHERE = (0, 0)
"""Where something acts that acts on no position."""


@dataclass
class Revision:
    """One state of a run's sliders."""

    rev: int
    actions: tuple[Action, ...]
    """Those of its sliders that are not at 0, as `VectorBank.composed` gives them."""


@dataclass
class RunState:
    """What a worker knows of one live run."""

    run: str
    first_row: int
    """Rows of positions below this are not wanted (prompt rows switched off)."""
    wants: Wants
    """What is wanted of the steps to come."""
    starts: list[int]
    """Position from which the revision of the same index is in force; ascending."""
    revisions: list[Revision]
    next_position: int = 0
    """The first position that no forward pass has computed yet."""
    adapter: str = ""
    """The LoRA adapter it is computed with; "" is the base model."""
    watch: int = 0
    """Number of `wants`."""
    failed: bool = False
    """It is about to be aborted, and gets nothing any more."""
    prompt_tokens: int = 0
    """Length of its prompt."""
    parts: ReplyParts | None = None
    """Which passes write its thought and which its answer; None for a model that does not think."""

    @classmethod
    def begin(
        cls,
        options: RunOptions,
        actions: tuple[Action, ...],
        parts: ReplyParts | None = None,
        prompt_tokens: int = 0,
    ) -> RunState:
        """A run before its first step, steered by `actions`; `parts` is told each of its tokens."""
        return cls(
            run=options.run,
            first_row=options.first_row,
            wants=options.wants,
            watch=options.watch,
            starts=[0],
            revisions=[Revision(options.rev, actions)],
            adapter=options.adapter,
            parts=parts,
            prompt_tokens=prompt_tokens,
        )

    def revision_at(self, position: int) -> Revision:
        """The revision that position is, was, and on recomputation will be computed with."""
        return self.revisions[bisect.bisect_right(self.starts, position) - 1]

    def acting(self, start: int, end: int) -> Iterator[tuple[int, int, Action]]:
        """What acts on positions [start, end), as (first position, one past the last, action).

        Of each position in the order in which its actions compose. Position 0 is never steered. What acts in
        a part of the reply only is said for positions whose tokens have been told; see `foreknown`.
        """
        index = bisect.bisect_right(self.starts, start) - 1
        while start < end:
            until = min(end, self.starts[index + 1]) if index + 1 < len(self.starts) else end
            for action in self.revisions[index].actions:
                begin, end_of = self._stretch(action)
                first = max(start, begin, 1)
                last = until if end_of is None else min(until, end_of)
                if first < last:
                    yield first, last, action
            start = until
            index += 1

    def _stretch(self, action: Action) -> tuple[int, int | None]:
        """The first position that an action acts on, and one past its last; None is no end."""
        if not action.part:
            return action.start, action.end
        passes = self.parts and self.parts.passes(action.part)
        if not passes:
            return NOWHERE
        begin, end = passes
        if action.first is not None:
            end = begin + action.first if end is None else min(end, begin + action.first)
        return begin, end

    def may_call(self, start: int, end: int) -> bool:
        """Whether a revision of positions [start, end) has a function in it, wherever that acts. Also of a
        run that has failed, so that all ranks say the same."""
        first, last = (bisect.bisect_right(self.starts, at) - 1 for at in (start, end - 1))
        revisions = self.revisions[first : last + 1]
        return any(action.is_function for revision in revisions for action in revision.actions)

    @property
    def in_parts(self) -> bool:
        """Whether anything may act on it in a part of its reply only."""
        return any(action.part for revision in self.revisions for action in revision.actions)

    def foreknown(self, end: int) -> bool:
        """Whether it is decided what acts on all positions before `end`."""
        parts = self.parts
        return parts is None or end <= parts.known or parts.settled or not self.in_parts

    def deeds(self, start: int, end: int) -> str:
        """What acts on the tokens of [start, end), as text: equal for two stretches exactly where both are
        computed with the same adapter and each token of one is steered as its fellow of the other is. ""
        where the base model computes them and nothing acts on any.

        By deeds and not by revisions: another slider's change, or a scope that ends elsewhere, makes no
        difference here. In which order the vectors compose is not said, because it is the same for all runs
        (`VectorBank.composed`).
        """
        found: dict[Any, list[tuple[int, int]]] = {}
        for first, last, action in self.acting(start, end):
            parts = found.setdefault(action.deed, [])
            if parts and parts[-1][1] == first - start:
                parts[-1] = (parts[-1][0], last - start)
            else:
                parts.append((first - start, last - start))
        steering = repr(sorted(found.items(), key=repr)) if found else ""
        return f"{self.adapter} {steering}" if self.adapter else steering

    def watch_with(self, number: int, wants: Wants) -> None:
        """Let other numbers be computed from the next step on; whose streams are summed stays."""
        self.watch, self.wants = number, replace(wants, sums=self.wants.sums)

    def steer(self, revision: Revision) -> None:
        """Let `revision` be in force from the next uncomputed position on."""
        if self.starts[-1] == self.next_position:
            # Replaced before any token was computed with it.
            self.revisions[-1] = revision
        else:
            self.starts.append(self.next_position)
            self.revisions.append(revision)


class RunStates:
    """All live runs of a worker, and the changes that came before their runs."""

    def __init__(self, tokenizer: Any = None) -> None:
        """`tokenizer`: of a model that thinks, as transformers has it; None for one that does not."""
        self._tokenizer = tokenizer
        self._by_request: dict[str, RunState] = {}
        self._by_run: dict[str, RunState] = {}
        self._waiting: dict[str, Revision] = {}
        self._watching: dict[str, tuple[int, Wants]] = {}

    def __len__(self) -> int:
        return len(self._by_request)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_request

    def get(self, request_id: str) -> RunState | None:
        """The run of one of vLLM's request ids; None for a request that is not a run."""
        return self._by_request.get(request_id)

    def named(self, run: str) -> RunState | None:
        """The live run of that name."""
        return self._by_run.get(run)

    def add(
        self, request_id: str, options: RunOptions, actions: tuple[Action, ...], prompt_tokens: int = 0
    ) -> None:
        """Take up a run; what came before it is in force from its first token on."""
        parts = None
        if options.opening is not None:
            if self._tokenizer is None:
                raise ValueError("The run's reply has parts, and there is no tokenizer to tell them by.")
            parts = ReplyParts(options.opening, self._tokenizer)
        state = RunState.begin(options, actions, parts, prompt_tokens)
        if state.run in self._waiting:
            state.steer(self._waiting.pop(state.run))
        if state.run in self._watching:
            state.watch_with(*self._watching.pop(state.run))
        self._by_request[request_id] = self._by_run[state.run] = state

    def remove(self, request_id: str) -> bool:
        """Forget a run whose request is over; whether there was one."""
        state = self._by_request.pop(request_id, None)
        if state is None:
            return False
        self._by_run.pop(state.run, None)
        self._waiting.pop(state.run, None)
        self._watching.pop(state.run, None)
        return True

    def steer(self, run: str, revision: Revision) -> int | None:
        """New actions for a run; returns as `Observer.steer`."""
        state = self._by_run.get(run)
        if state is None:
            _keep(self._waiting, run, revision)
            return None
        state.steer(revision)
        return state.next_position

    def watch(self, run: str, number: int, wants: Wants) -> None:
        """Other numbers for a run; see `Observer.watch`."""
        state = self._by_run.get(run)
        if state is None:
            _keep(self._watching, run, (number, wants))
        else:
            state.watch_with(number, wants)

    def reachable(self) -> set[str]:
        """Vectors that some live run may still be computed with.

        vLLM recomputes a run that it has preempted, each position with the revision it had: so every revision
        of a live run counts, not the newest alone.
        """
        return {action.vector for revision in self._revisions() for action in revision.actions}

    def rename(self, vector: str, name: str) -> None:
        """Let all revisions call a vector by another name."""
        for revision in self._revisions():
            revision.actions = tuple(
                replace(action, vector=name) if action.vector == vector else action
                for action in revision.actions
            )

    def _revisions(self) -> Iterator[Revision]:
        for state in self._by_request.values():
            yield from state.revisions
        yield from self._waiting.values()


def _keep(waiting: dict[str, _T], run: str, change: _T) -> None:
    if len(waiting) >= MAX_WAITING_STEERS:
        waiting.pop(next(iter(waiting)))
    waiting[run] = change
