"""One generation as the client knows it: text, rows and steering, put together from frames by position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..protocol.messages import (
    MAX_ROWS_ASKED,
    Alternatives,
    Applied,
    AskRows,
    Finished,
    Frame,
    Gap,
    Lens,
    LensOptions,
    MetricInfo,
    Part,
    Queued,
    Resumed,
    Rows,
    Started,
    Steer,
    Stop,
    Tokens,
    VectorSetting,
    Watch,
    Watched,
)
from ..protocol.text import before_stop, thought_of
from .errors import SteersightError
from .numbers import Numbers
from .told import Told

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..protocol.messages import Start
    from ..recordings import Recording
    from .connection import Client


@dataclass(frozen=True)
class Revision:
    """One state of a run's steering."""

    position: int
    """Of the first row that was computed with it."""
    strengths: Mapping[str, float] | None
    """By the names of vectors; None where the server does not say."""
    settings: Mapping[str, VectorSetting] | None
    """How vectors act that do not act as their makers meant them; None as above."""


class Run:
    """One generation as the client knows it; grows while the reply is written."""

    def __init__(self, client: Client, started: Started) -> None:
        self.id = started.run
        self.prompt = started.prompt
        self.watched: dict[int, Watched] = {}
        """What it is watched with from a position on, where that has changed since the start."""
        self.live: dict[str, MetricInfo] = {}
        """What blocks of Python in the run have emitted so far, by the names that they gave."""
        self.model = started.model
        """Id of the model that writes it; empty where the server does not say."""
        self.origin = started.origin
        """What it was asked for by: a `chat`, or a `notebook`."""
        self.edits = list(started.edits)
        """Names of the edits that act in it."""
        self.adapter = started.adapter
        """The LoRA adapter it is written with; None is the base model."""
        self.sampling = started.sampling
        """How its tokens are drawn; None where the server does not say."""
        self.revisions = {0: Revision(0, started.strengths, started.settings)}
        """What each revision is that a row was computed with, whoever steered, and revision 0."""
        self.ids: list[int] = []
        """Ids of the reply so far."""
        self.pieces: list[str] = []
        """Text of each reply token, special ones included."""
        self.logprobs: list[float | None] = []
        """Per reply token; minus this is its surprisal in nats."""
        self.ranks: list[int | None] = []
        """Per reply token: its place in the model's final distribution, 1 for the likeliest."""
        self.asked: Start | None = None
        """What was asked, where it was this client."""
        self.cached: list[tuple[int, int]] = []
        """(start, count) of prompt positions without rows, because the engine had them in its cache."""
        self.failure: SteersightError | None = None
        """Why no more of it comes here; None while all is well."""
        self.numbers = Numbers(
            started.metrics,
            {name: metric.transform for name, metric in client.metrics.items()},
            client.model.layers if client.model else 0,
        )
        self.metrics = self.numbers.metrics
        """Ids of the metrics that its rows have."""
        self.guesses = self.numbers.guesses
        """Position -> layer -> (text, probability) of the likeliest tokens for the position after, by the raw
        logit lens; empty without `lens`."""
        self.alternatives = self.numbers.alternatives
        """Position -> (id, text, log probability) of the model's likeliest tokens for the position after, the
        likeliest first; empty without `alternatives`."""
        self.revs = self.numbers.revs
        """Position -> revision that computed its row."""
        self.parts: dict[str, int] = {}
        """Position of the first token of the reply's `thought` and of its `answer`, as soon as each is known;
        empty for a model that does not think."""
        self.finished: Finished | None = None
        self.seq = 0
        """The newest event that has been had."""
        self.waiting = 0
        """Place in the server's queue; 0 is none."""
        self.has_gaps = False
        """Whether rows were left out and asked for again, which may come after the end."""
        self._client = client
        # The server's model may be another before the run is read.
        self._special = client.special_ids
        self._marks = client.model.thoughts if client.model else None
        self.told = Told.of(client)
        self._watching = asyncio.Lock()
        self._asked_watch: Watch | None = None
        self._refused_watch: SteersightError | None = None
        self._owed: list[Gap] = []
        self._applied: list[Applied] = []
        self._refused: dict[int, SteersightError] = {}
        self._rev = 0
        self._changed = asyncio.Condition()

    @property
    def text(self) -> str:
        """The reply so far: without special tokens, cut where a stop string ended it."""
        return self._cut(self._visible(0))

    @property
    def thought(self) -> str | None:
        """What the model thought before it answered, so far and without the marks around it; None where it
        has not thought."""
        parted = self._parted()
        return None if parted is None else self._cut(parted[0])

    @property
    def answer(self) -> str:
        """The reply so far without its thought: the `content` of a message that goes into a conversation."""
        parted = self._parted()
        if parted is None:
            return self.text
        return self._cut((parted[1] + self._visible(self._thought_tokens())).lstrip("\n"))

    def _parted(self) -> tuple[str, str] | None:
        """The thought, and what its last token holds of the answer."""
        marks = self._marks
        if marks is None or "thought" not in self.parts:
            return None
        return thought_of(self.pieces[: self._thought_tokens()], marks.start, marks.end)

    def _thought_tokens(self) -> int:
        """Tokens of the reply before its answer."""
        split = len(self.prompt.ids)
        return max(0, self.parts.get("answer", split + len(self.ids)) - split)

    def _visible(self, first: int) -> str:
        pairs = zip(self.ids[first:], self.pieces[first:], strict=True)
        return "".join(piece for token, piece in pairs if token not in self._special)

    def _cut(self, text: str) -> str:
        return before_stop(text, self.finished.stop if self.finished else None)

    def rows(self) -> NDArray[np.float32]:
        """[prompt + reply tokens, metrics, layers] fp32 in the metrics' units; NaN where there is no row, or
        none of the metric."""
        return self.numbers.rows(len(self.prompt.ids) + len(self.ids))

    def values(self, metric: str) -> NDArray[np.float32]:
        """[prompt + reply tokens, layers] fp32 of one metric in its unit; NaN where there is none.

        Args:
            metric: its id, or the name under which a block of the run emits it.

        Raises: KeyError where the run has no rows of it, or none yet.
        """
        name = self.metric_id(metric)
        if name not in self.metrics:
            raise KeyError(f"This run has no {metric}; it has {', '.join(self.metrics) or 'no metrics'}.")
        return self.rows()[:, self.metrics.index(name)]

    def metric_id(self, name: str) -> str:
        """The id of a metric that a block of the run emits under a name; any other name as it is."""
        return self.live[name].id if name in self.live else name

    def entropy(self) -> NDArray[np.float32]:
        """[prompt + reply tokens] nats: entropy of the distribution from which the token after each position
        was drawn; NaN where not known."""
        return self.numbers.entropy(len(self.prompt.ids) + len(self.ids))

    def recording(self) -> Recording:
        """What is known of the run at this moment, to keep: `run.recording().save(FILE)`."""
        from .recorded import question, recorded_run, recording_of

        return recording_of([(question(self), recorded_run(self, self._client))])

    async def save(self, path: str | Path, *, replace: bool = True) -> None:
        """Write `recording()` to a file, in a thread, while frames go on coming. Raises OSError;
        FileExistsError unless it may replace."""
        recording = self.recording()
        await asyncio.to_thread(recording.save, path, replace=replace)

    async def steer(
        self, strengths: Mapping[str, float], settings: Mapping[str, VectorSetting] | None = None
    ) -> int:
        """Replace all strengths and settings; what is not named goes to 0. Returns the revision sent.

        Whether the server takes it, `applied` says. Raises SteersightError when there is no server any more.
        """
        self._rev += 1
        await self._client.send(
            Steer(run=self.id, rev=self._rev, strengths=dict(strengths), settings=dict(settings or {}))
        )
        return self._rev

    async def applied(self, rev: int) -> int:
        """Wait until a row computed with revision `rev`, or a newer one, has come; returns its position.

        Raises SteersightError when the server has refused the revision, or the run ends before.
        """
        await self._until(
            lambda: (
                rev in self._refused
                or self.finished is not None
                or any(applied.rev >= rev for applied in self._applied)
            )
        )
        if rev in self._refused:
            raise self._refused[rev]
        for applied in self._applied:
            if applied.rev >= rev:
                return applied.position
        raise SteersightError("finished", "The run ended before the new strengths came into force.")

    async def watch(
        self,
        *,
        metrics: list[str] | None = None,
        lens: LensOptions | None = None,
        entropy: bool = False,
        alternatives: int = 0,
    ) -> int:
        """Change what the run is watched with, and wait for the first row computed so; returns its position.

        All is replaced, with the meanings that `Client.start` gives the arguments. One change at a time: a
        second call waits for the first.

        Raises SteersightError when the server refuses it, or the run ends before.
        """
        asked = Watch(run=self.id, metrics=metrics, lens=lens, entropy=entropy, alternatives=alternatives)
        async with self._watching:
            before = set(self.watched)
            known = self._client.metrics

            def answers() -> list[int]:
                fresh = sorted(set(self.watched) - before)
                return [position for position in fresh if _answers(self.watched[position], asked, known)]

            self._asked_watch, self._refused_watch = asked, None
            try:
                await self._client.send(asked)
                await self._until(
                    lambda: self._refused_watch is not None or self.finished is not None or bool(answers())
                )
            finally:
                self._asked_watch = None
            if self._refused_watch is not None:
                raise self._refused_watch
            if found := answers():
                return found[0]
        raise SteersightError("finished", "The run ended before a row was watched so.")

    async def stop(self) -> None:
        """Ask the server to end the run; `wait` returns when it has."""
        await self._client.send(Stop(run=self.id))

    async def wait(self) -> Finished:
        """Wait for the end of the run."""
        await self._until(lambda: self.finished is not None)
        assert self.finished is not None  # noqa: S101 - what _until has waited for
        return self.finished

    async def texts(self) -> AsyncIterator[str]:
        """The reply in pieces as it is written. A stop string's first characters may be among them."""
        shown = 0
        while True:
            await self._until(partial(self._has_more_than, shown))
            fresh = list(zip(self.ids[shown:], self.pieces[shown:], strict=True))
            shown += len(fresh)
            piece = "".join(text for token, text in fresh if token not in self._special)
            if piece:
                yield piece
            if self.finished is not None and shown == len(self.ids):
                return

    async def passages(self) -> AsyncIterator[tuple[bool, str]]:
        """The reply in pieces as it is written, each with whether it belongs to the thought. Of a model that
        thinks, nothing comes before that is decided; the marks are parts of the thought."""
        shown = 0
        while True:
            await self._until(partial(self._has_more_than, shown))
            if self._marks is None or self.parts or self.finished is not None:
                first = self._thought_tokens() if "thought" in self.parts else 0
                for index in range(shown, len(self.ids)):
                    thought = index < first
                    if thought or self.ids[index] not in self._special:
                        yield thought, self.pieces[index]
                shown = len(self.ids)
                if self.finished is not None:
                    return
            else:
                await self._until(lambda: bool(self.parts) or self.finished is not None)

    def _has_more_than(self, tokens: int) -> bool:
        return len(self.ids) > tokens or self.finished is not None

    async def _until(self, ready: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.failure is not None or ready())
        if self.failure is not None and not ready():
            raise self.failure

    async def take(self, frame: Frame) -> list[AskRows]:
        """Put in what a frame brings; called by the client's reader.

        Returns what to ask the server for: rows that it left out.

        Raises LookupError or ValueError for a frame that contradicts itself or what came before.
        """
        async with self._changed:
            self.seq = max(self.seq, getattr(frame, "seq", 0))
            match frame:
                case Tokens():
                    self._take_tokens(frame)
                case Part():
                    self.parts.setdefault(frame.part, frame.start)
                case Rows():
                    self.numbers.take_rows(frame)
                case Lens():
                    self.numbers.take_lens(frame)
                case Alternatives():
                    self.numbers.take_alternatives(frame)
                case Applied():
                    self._applied.append(frame)
                    # Whoever steered: what is sent next must be newer.
                    self._rev = max(self._rev, frame.rev)
                    self.revisions[frame.rev] = Revision(frame.position, frame.strengths, frame.settings)
                case Watched():
                    self._take_watched(frame)
                case Queued():
                    self.waiting = frame.position
                case Resumed():
                    self._rev = max(self._rev, frame.rev)
                case Finished():
                    self.finished = frame
            self._changed.notify_all()
        match frame:
            case Gap() if frame.kept:
                self.has_gaps = True
                self._owed.append(frame)
                return self._asked_again([frame])
            case Gap() if frame.cached and (frame.start, frame.count) not in self.cached:
                self.cached.append((frame.start, frame.count))
            case Resumed():
                # What was asked for over the line that broke may never have been.
                self._owed = [gap for gap in self._owed if self._misses(gap)]
                return self._asked_again(self._owed)
        return []

    def _misses(self, gap: Gap) -> bool:
        return any(position not in self.numbers for position in range(gap.start, self._end(gap)))

    def _end(self, gap: Gap) -> int:
        # Tokens come first, so that whatever a gap says beyond them is no row of this run.
        return min(gap.start + gap.count, len(self.prompt.ids) + len(self.ids))

    def _asked_again(self, gaps: Sequence[Gap]) -> list[AskRows]:
        return [
            AskRows(run=gap.run, start=start, count=min(MAX_ROWS_ASKED, self._end(gap) - start))
            for gap in gaps
            for start in range(gap.start, self._end(gap), MAX_ROWS_ASKED)
        ]

    def _take_tokens(self, frame: Tokens) -> None:
        skip = len(self.prompt.ids) + len(self.ids) - frame.start
        if skip < 0:
            raise ValueError(f"{-skip} tokens before position {frame.start} never came")
        columns = (frame.texts, frame.logprobs, frame.ranks)
        if any(len(column) != len(frame.ids) for column in columns):
            raise ValueError("there are more tokens than texts, or fewer")
        self.ids += frame.ids[skip:]
        self.pieces += frame.texts[skip:]
        self.logprobs += frame.logprobs[skip:]
        self.ranks += frame.ranks[skip:]

    def _take_watched(self, frame: Watched) -> None:
        self.watched[frame.position] = frame
        self.live.update((metric.label, metric) for metric in frame.live)
        known = [*self._client.metrics.values(), *frame.live]
        self.numbers.expect(frame.metrics, {metric.id: metric.transform for metric in known})

    async def refuse(self, rev: int, refusal: SteersightError) -> None:
        """Tell whoever waits for this revision that the server did not take it."""
        async with self._changed:
            self._refused[rev] = refusal
            self._changed.notify_all()

    async def refuse_watch(self, refusal: SteersightError) -> bool:
        """Tell whoever waits for other numbers that they will not come; False where nobody does."""
        if self._asked_watch is None:
            return False
        async with self._changed:
            self._refused_watch = refusal
            self._changed.notify_all()
        return True

    async def fail(self, failure: SteersightError) -> None:
        """Tell everybody who waits that no more will come."""
        async with self._changed:
            self.failure = self.failure or failure
            self._changed.notify_all()


def _answers(watched: Watched, asked: Watch, known: Mapping[str, MetricInfo]) -> bool:
    """Whether this is what was asked for, and not a change that a block of the run has brought. The logit
    lens brings metrics of its own."""
    beside = (watched.lens, watched.entropy, watched.alternatives)
    if beside != (asked.lens, asked.entropy, asked.alternatives):
        return False
    defaults = (metric.id for metric in known.values() if metric.default)
    wanted = set(defaults if asked.metrics is None else asked.metrics)
    more = set(watched.metrics) - {metric.id for metric in watched.live} - wanted
    return wanted <= set(watched.metrics) and all(
        name not in known or known[name].family == "logit_lens" for name in more
    )
