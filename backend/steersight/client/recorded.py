"""A run as the client knows it, as a recording: what it has at this moment, whether the run is over or not.

What only the server could say is said as it was when the run was told of: its model may be another since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..protocol.messages import LensOptions
from ..recordings.assembling import (
    alternatives_of,
    columns_of,
    guesses_of,
    known_revisions,
    known_watched,
    metrics_of,
    numbers_of,
    ranks_of,
)
from ..recordings.meta import (
    Ended,
    Parts,
    Problem,
    PromptInfo,
    RevisionInfo,
    RunInfo,
    Watched,
    unknown_metric,
)
from ..recordings.recording import RecordedRun, Recording, conversation, now

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..recordings.assembling import Stretch
    from .connection import Client
    from .run import Run

BESIDE = ("lens", "entropy", "alternatives")
"""What a run can be watched with besides metrics."""


def recording_of(turns: Sequence[tuple[str, RecordedRun]]) -> Recording:
    """A recording, made now, of turns that follow one another: what was asked, and the run that answered."""
    return conversation(turns, made_by=f"steersight {__version__}", made_at=now())


def recorded_run(run: Run, client: Client) -> RecordedRun:
    """The run as it is now.

    Args:
        run: at any time of its life.
        client: knows what vectors and metrics have come since the run began.
    """
    tokens = [*run.prompt.ids, *run.ids]
    known = {**client.vectors, **run.told.vectors}
    live = {metric.id: metric for metric in run.live.values()}
    described = {**client.metrics, **run.told.metrics, **live}
    named = {name for revision in run.revisions.values() for name in revision.strengths or ()}
    numbers = run.numbers
    stretches = numbers.stretches()
    watched = _watched(run, stretches)
    metrics = metrics_of(watched)
    columns = columns_of(stretches, metrics, numbers.layers, len(tokens))
    right_model = run.told.model is not None and run.model in ("", run.told.model.id)
    return RecordedRun(
        info=RunInfo(
            name=run.id,
            server=run.told.server,
            epoch=run.told.epoch,
            model=run.told.model if right_model else None,
            adapter=run.adapter,
            origin=run.origin,
            edits=run.edits,
            metrics=[described.get(name) or unknown_metric(name) for name in metrics],
            vectors=[known[name] for name in sorted(named & known.keys())],
            sampling=run.sampling,
            template=dict(run.asked.template) if run.asked else {},
            prompt=PromptInfo(tokens=len(run.prompt.ids), spans=run.prompt.spans),
            revisions=_revisions(run, columns.revisions),
            watched=watched,
            parts=Parts(thought=run.parts.get("thought"), answer=run.parts.get("answer")),
            cached=[list(one) for one in run.cached],
            finished=_ended(run),
            problem=None if run.failure is None else Problem(code=run.failure.code, message=str(run.failure)),
        ),
        tokens=np.array(tokens, dtype="<i4"),
        texts=[*run.prompt.texts, *run.pieces],
        logprobs=numbers_of(run.logprobs),
        ranks=ranks_of(run.ranks),
        revisions=columns.revisions,
        rows=columns.rows,
        entropy=columns.entropy,
        lens=guesses_of(one for one in numbers.lens() if one[0] < len(tokens)),
        alternatives=alternatives_of(one for one in numbers.likeliest() if one[0] < len(tokens)),
        names=dict(numbers.names),
    )


def question(run: Run) -> str:
    """What was asked: as it was sent, or what the prompt has of it where somebody else sent it."""
    if run.asked is not None:
        sent = (message.content for message in reversed(run.asked.messages) if message.role == "user")
        return next(sent, "")
    if run.origin == "notebook":
        return "".join(run.prompt.texts)
    asked = (span for span in reversed(run.prompt.spans) if span.role == "user")
    return next(("".join(run.prompt.texts[span.start : span.end]) for span in asked), "")


def _revisions(run: Run, column: NDArray[np.int32]) -> list[RevisionInfo]:
    told = (
        RevisionInfo(
            rev=rev,
            position=one.position,
            strengths=None if one.strengths is None else dict(one.strengths),
            settings=dict(one.settings or {}),
        )
        for rev, one in run.revisions.items()
    )
    return known_revisions(told, column)


def _watched(run: Run, stretches: Sequence[Stretch]) -> list[Watched]:
    """As it was asked for, or as what came of it looks; and what that was changed to."""
    changes = (
        Watched.model_validate(
            {"from": position, **{name: getattr(frame, name) for name in ("metrics", *BESIDE)}}
        )
        for position, frame in run.watched.items()
    )
    begun = {"from": 0, "metrics": run.numbers.begun_with, **_begun(run)}
    return known_watched(Watched.model_validate(begun), changes, stretches)


def _begun(run: Run) -> dict[str, object]:
    """What its rows were accompanied by before any change."""
    if run.asked is not None:
        return {name: getattr(run.asked, name) for name in BESIDE}
    end = min(run.watched, default=len(run.prompt.ids) + len(run.ids))
    lens, layers = None, next((found for position, found in run.guesses.items() if position < end), None)
    if layers:
        read = sorted(layers)
        stride = read[1] - read[0] if len(read) > 1 else 1
        lens = LensOptions(stride=stride, top=len(layers[read[0]]))
    return {
        "lens": lens, "entropy": run.numbers.has_entropy(end),
        "alternatives": max((len(one) for at, one in run.alternatives.items() if at < end), default=0),
    }  # fmt: skip


def _ended(run: Run) -> Ended | None:
    end = run.finished
    if end is None:
        return None
    return Ended.model_construct(
        reason=end.reason, stop=end.stop, error=end.error, usage=end.usage, timing=end.timing
    )
