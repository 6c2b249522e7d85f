"""A run of the server as a recording, at any time of its life.

Whoever records it is one more reader of its log: from the first event to the newest, in batches of a bounded
size, so that the loop never stands still for it, and with everything that any reader gets. What has been let
go of a long run is missing here too. The arrays are made in a thread, of what was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..protocol.messages import MetricInfo, ModelInfo, RunError, Timing, Usage, VectorInfo, VectorSetting
from ..recordings.assembling import (
    Stretch,
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
    PromptInfo,
    RevisionInfo,
    RunInfo,
    Watched,
    unknown_metric,
)
from ..recordings.recording import RecordedRun

if TYPE_CHECKING:
    from ..protocol.codec import WireMap
    from ..recordings.assembling import Guess, Likeliest
    from .run import Run


@dataclass(frozen=True)
class About:
    """What a run's log does not say of it."""

    server: str
    epoch: str
    model: ModelInfo | None
    """The one that writes it, or has written it."""
    metrics: Mapping[str, MetricInfo]
    vectors: Mapping[str, VectorInfo]


async def frames_of(run: Run) -> list[WireMap]:
    """All that has happened in a run up to now, as its clients have it."""
    frames: list[WireMap] = []
    cursor, end = 0, run.log.end
    while cursor < end:
        more, cursor = run.log.frames_since(cursor)
        frames += more
        await asyncio.sleep(0)
    return frames


def question(run: Run) -> str:
    """What was asked."""
    asked = (message.content for message in reversed(run.asked.messages) if message.role == "user")
    return next(asked, "")


def recorded(run: Run, frames: list[WireMap], about: About) -> RecordedRun:
    """The run as its frames have it. Runs in a thread: of the run itself it reads what never changes."""

    def of(*kinds: str) -> Iterator[dict[str, Any]]:
        return (frame for frame in frames if frame["type"] in kinds)

    (started,) = of("started")
    written = list(of("tokens"))
    prompt = started["prompt"]
    ids = [*prompt["ids"], *_all(written, "ids")]
    stretches = [_stretch(frame) for frame in of("rows")]
    watched = known_watched(_asked(run, started), map(_watched, of("watched")), stretches)
    metrics = metrics_of(watched)
    known = {
        **about.metrics,
        **{one["id"]: MetricInfo(**one) for frame in of("watched") for one in frame["live"]},
    }
    columns = columns_of(stretches, metrics, run.log.layers, len(ids))
    applied = [_revision(0, 0, started), *(_revision(f["rev"], f["position"], f) for f in of("applied"))]
    revisions = known_revisions(applied, columns.revisions)
    named = {name for one in revisions for name in one.strengths or ()}
    parts = {frame["part"]: frame["start"] for frame in of("part")}
    info = RunInfo(
        name=run.id,
        server=about.server,
        epoch=about.epoch,
        model=about.model,
        adapter=run.adapter,
        origin=started["origin"],
        edits=started["edits"],
        metrics=[known.get(name) or unknown_metric(name) for name in metrics],
        vectors=[about.vectors[name] for name in sorted(named & about.vectors.keys())],
        sampling=run.asked.sampling.model_validate(started["sampling"]),
        template=dict(run.asked.template),
        prompt=PromptInfo.model_validate({"tokens": len(prompt["ids"]), "spans": prompt["spans"]}),
        revisions=revisions,
        watched=watched,
        parts=Parts(thought=parts.get("thought"), answer=parts.get("answer")),
        cached=[[frame["start"], frame["count"]] for frame in of("gap") if frame["cached"]],
        finished=next(map(_ended, of("finished")), None),
    )
    beside = list(of("lens", "alternatives"))
    return RecordedRun(
        info=info,
        tokens=np.array(ids, dtype="<i4"),
        texts=[*prompt["texts"], *_all(written, "texts")],
        logprobs=numbers_of(_all(written, "logprobs")),
        ranks=ranks_of(_all(written, "ranks")),
        revisions=columns.revisions,
        rows=columns.rows,
        entropy=columns.entropy,
        lens=guesses_of(one for frame in of("lens") for one in _guesses(frame)),
        alternatives=alternatives_of(one for frame in of("alternatives") for one in _likeliest(frame)),
        names=dict(zip(_all(beside, "new_ids"), _all(beside, "new_texts"), strict=True)),
    )


def _all(frames: Iterable[WireMap], field: str) -> list[Any]:
    return [value for frame in frames for value in frame[field]]


def _stretch(frame: WireMap) -> Stretch:
    shape = frame["count"], len(frame["metrics"]), frame["layers"]
    values = np.frombuffer(frame["data"], dtype="<f2").reshape(shape)
    nats = frame["entropy"]
    entropy = None if nats is None else np.frombuffer(nats, dtype="<f2")
    return Stretch(frame["start"], frame["revs"], frame["metrics"], values, entropy)


def _guesses(frame: WireMap) -> Iterator[Guess]:
    shape = frame["count"], len(frame["layers"]), frame["top"]
    ids = np.frombuffer(frame["ids"], dtype="<i4").reshape(shape)
    shares = np.frombuffer(frame["probabilities"], dtype="<f2").reshape(shape)
    for at in range(frame["count"]):
        yield frame["start"] + at, frame["layers"], ids[at], shares[at]


def _likeliest(frame: WireMap) -> Iterator[Likeliest]:
    shape = frame["count"], frame["top"]
    ids = np.frombuffer(frame["ids"], dtype="<i4").reshape(shape)
    nats = np.frombuffer(frame["logprobs"], dtype="<f4").reshape(shape)
    for at in range(frame["count"]):
        yield frame["start"] + at, ids[at], nats[at]


def _revision(rev: int, position: int, frame: WireMap) -> RevisionInfo:
    settings = {name: VectorSetting(**setting) for name, setting in (frame["settings"] or {}).items()}
    return RevisionInfo(rev=rev, position=position, strengths=frame["strengths"], settings=settings)


def _asked(run: Run, started: WireMap) -> Watched:
    """What it was watched with from its beginning."""
    asked = run.asked
    return Watched.model_validate(
        {
            "from": 0, "metrics": started["metrics"], "lens": asked.lens, "entropy": asked.entropy,
            "alternatives": asked.alternatives,
        }
    )  # fmt: skip


def _watched(frame: WireMap) -> Watched:
    fields = ("metrics", "lens", "entropy", "alternatives")
    return Watched.model_validate({"from": frame["position"], **{name: frame[name] for name in fields}})


def _ended(frame: WireMap) -> Ended:
    return Ended(
        reason=frame["reason"],
        stop=frame["stop"],
        error=None if frame["error"] is None else RunError(**frame["error"]),
        usage=Usage(**frame["usage"]),
        timing=Timing(**frame["timing"]),
    )
