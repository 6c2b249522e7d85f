"""A run of the server as a recording: what its log has, as every reader has it, at any time and not twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from steersight.api import recordings as api_module
from steersight.api.answers import answered
from steersight.api.recordings import RecordingApi, Unhurried
from steersight.client import Client
from steersight.client import Run as ClientRun
from steersight.metrics import Registry
from steersight.protocol import messages as m
from steersight.recordings import RecordedRun, read_recording
from steersight.runs import log as log_module
from steersight.runs.events import (
    AlternativesEvent,
    AppliedEvent,
    FinishedEvent,
    GapEvent,
    LensEvent,
    PartEvent,
    QueuedEvent,
    StartedEvent,
    WatchedEvent,
)
from steersight.runs.log import RunLog
from steersight.runs.recording import About, frames_of, question, recorded
from steersight.runs.run import Run

from .recordings_made import JOY, LAYERS, METRICS, MODEL
from .sent import sent
from .test_recordings import assert_same

ASKED = m.Start(
    id="x",
    messages=[m.ChatMessage(role="user", content="Hi?"), m.ChatMessage(role="assistant", content="W")],
    metrics=[one.id for one in METRICS], lens=m.LensOptions(stride=2, top=2), entropy=True, alternatives=3,
    strengths={"joy": 0.25}, template={"enable_thinking": True}, write_on=True,
)  # fmt: skip
PROMPT = m.Prompt(
    ids=[1, 2, 3, 4], texts=["<s>", "Hi", "?", "W"], spans=[m.Span(role="user", start=1, end=3)]
)
ABOUT = About("lab", "e", MODEL, {one.id: one for one in METRICS}, {"joy": JOY})


def written(tokens: int = 6, *, ends: bool = True) -> Run:
    """What is read of a run whose first position was in the engine's cache, and which was steered on its
    way."""
    log = RunLog("r", "x", [one.id for one in METRICS], LAYERS)
    strengths, sampling = dict(ASKED.strengths), ASKED.sampling
    log.append(StartedEvent(PROMPT, MODEL.id, None, strengths, {}, sampling))
    log.append(QueuedEvent(1))
    log.append(GapEvent(0, 1, cached=True))
    dice = np.random.default_rng(1)
    for position in range(1, 3 + tokens):
        values = dice.normal(size=(1, len(METRICS), LAYERS)).astype("<f2")
        rev = 2 if position > 4 else 0
        if position == 5:
            log.append(AppliedEvent(2, 5, {"joy": -1.0, "gone": 1.0}, {"joy": m.VectorSetting(first=3)}))
        if position != 6:  # it was lost on its way
            log.add_rows(position, [rev], values.tobytes(), np.array([position], "<f2").tobytes())
        if position > 2:
            token = 10 + position
            log.add_token(position + 1, token, f" {token}", -0.5, 1 if position % 2 else None)
            log.add_guesses(
                LensEvent(
                    position, [0, 2], np.array([[1, 2], [3, position]], "<i4"), np.ones((2, 2), "<f2"),
                    [(position, f"n{position}")] if position > 3 else [(one, f"n{one}") for one in (1, 2, 3)],
                )
            )  # fmt: skip
            log.add_alternatives(
                AlternativesEvent(
                    position, np.array([5, 6, 7], "<i4"), -np.arange(3, dtype="<f4"),
                    [(one, f"n{one}") for one in (5, 6, 7)] if position == 3 else [],
                )
            )  # fmt: skip
    log.append(PartEvent("answer", 4))
    if ends:
        log.append(
            FinishedEvent(
                "error", None, m.RunError(code=m.ErrorCode.INTERNAL, message="It fell."),
                m.Usage(prompt_tokens=4, reply_tokens=tokens),
                m.Timing(first_token_ms=1.0, total_ms=2.0, tokens_per_s=None),
            )
        )  # fmt: skip
    return cast(Run, SimpleNamespace(id="r", adapter=None, asked=ASKED, log=log, facts=None))


async def as_client(frames: list[Any]) -> RecordedRun:
    """What a client records that is sent the same."""
    line = SimpleNamespace(
        name="lab", epoch="e", model=MODEL, metrics=ABOUT.metrics, vectors=ABOUT.vectors,
        special_ids=frozenset(),
    )  # fmt: skip
    first, *rest = sent(frames)
    run = ClientRun(cast(Client, line), first)
    run.asked = ASKED
    for frame in rest:
        await run.take(frame)
    return run.recording().runs[0]


async def test_server_and_client_record_the_same() -> None:
    run = written()
    frames = await frames_of(run)
    mine = recorded(run, frames, ABOUT)
    assert_same(mine, await as_client(frames))
    assert question(run) == "Hi?"


async def test_what_is_in_it() -> None:
    one = recorded(run := written(), await frames_of(run), ABOUT)
    assert one.texts == [*PROMPT.texts, *(f" {token}" for token in range(13, 19))]
    assert one.ranks.tolist() == [1, 0, 1, 0, 1, 0]
    assert one.revisions.tolist() == [-1, 0, 0, 0, 0, 2, -1, 2, 2]
    assert np.isnan(one.rows["residual_norm"]).all(axis=1).tolist() == [at in (0, 6) for at in range(9)]
    assert one.entropy is not None
    assert one.entropy[5] == 5
    info = one.info
    assert [(r.rev, r.position, r.strengths) for r in info.revisions] == [
        (0, 0, {"joy": 0.25}), (2, 5, {"joy": -1.0, "gone": 1.0}),
    ]  # fmt: skip
    assert info.revisions[1].settings == {"joy": m.VectorSetting(first=3)}
    assert [vector.id for vector in info.vectors] == ["joy"]
    assert (info.cached, info.parts.answer, info.template) == ([[0, 1]], 4, {"enable_thinking": True})
    assert info.finished is not None
    assert info.finished.error is not None
    assert info.watched[0].lens == ASKED.lens
    assert one.lens is not None
    assert one.lens.layers.tolist() == [0, 2]
    assert one.alternatives is not None
    assert one.names == {token: f"n{token}" for token in range(1, 9)}


@pytest.mark.parametrize("at", [0, 2])
async def test_what_it_is_watched_with_changes(at: int) -> None:
    """In its middle, or before its first row."""
    norm, joy = (one.id for one in METRICS)
    log = RunLog("r", "x", [norm], LAYERS)
    log.append(StartedEvent(PROMPT, MODEL.id, None, {}, {}, ASKED.sampling))
    if at:
        log.add_rows(0, [0, 0], np.ones((2, 1, LAYERS), "<f2").tobytes(), np.ones(2, "<f2").tobytes())
    log.rows.begin([joy])
    log.append(WatchedEvent(at, [joy], m.LensOptions(stride=1, top=1), entropy=False, alternatives=0))
    log.add_rows(at, [0, 0], np.full((2, 1, LAYERS), 2, "<f2").tobytes())
    log.add_guesses(LensEvent(at + 1, [0, 1, 2], np.ones((3, 1), "<i4"), np.ones((3, 1), "<f2"), [(1, "n")]))
    run = cast(Run, SimpleNamespace(id="r", adapter=None, asked=ASKED, log=log, facts=None))
    frames = await frames_of(run)
    one = recorded(run, frames, ABOUT)
    assert_same(one, await as_client(frames))
    expected = [(0, [norm]), (2, [joy])] if at else [(0, [joy])]
    assert [(watched.from_, watched.metrics) for watched in one.info.watched] == expected
    assert [info.id for info in one.info.metrics] == ([norm, joy] if at else [joy])
    assert np.isnan(one.rows[joy]).all(axis=1).tolist() == ([True, True, False, False] if at else [False] * 2)
    if at:
        assert np.isnan(one.rows[norm]).all(axis=1).tolist() == [False, False, True, True]
        assert one.entropy is not None
        assert np.isnan(one.entropy).tolist() == [False, False, True, True]


async def test_it_is_read_in_batches_and_what_was_let_go_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    run = written()
    whole = recorded(run, await frames_of(run), ABOUT)
    monkeypatch.setattr(log_module, "MAX_EVENTS_AT_ONCE", 3)
    assert_same(recorded(run, await frames_of(run), ABOUT), whole)
    assert 0 < run.log.trim(run.log.size - 200) < 7
    less = recorded(run, await frames_of(run), ABOUT)
    assert np.isnan(less.rows["residual_norm"][1]).all()
    assert np.array_equal(less.rows["residual_norm"][8], whole.rows["residual_norm"][8])
    assert less.names == whole.names


async def test_a_run_that_has_just_been_admitted() -> None:
    log = RunLog("r", "x", [METRICS[0].id], LAYERS)
    log.append(StartedEvent(PROMPT, MODEL.id, None, {}, {}, ASKED.sampling))
    run = cast(Run, SimpleNamespace(id="r", adapter="poet", asked=ASKED, log=log, facts=None))
    one = recorded(run, await frames_of(run), ABOUT)
    assert one.rows["residual_norm"].shape == (0, LAYERS)
    assert (one.info.finished, one.lens, one.alternatives, one.names) == (None, None, None, {})
    assert one.info.adapter == "poet"


# ------------------------------------------------------------ over HTTP


@asynccontextmanager
async def served(runs: dict[str, Run]) -> AsyncIterator[httpx.AsyncClient]:
    offer = SimpleNamespace(registry=Registry([]), vectors={}, functions={}, own=set(), failed_metrics={})
    table = SimpleNamespace(find=runs.get, limits=SimpleNamespace(grace_seconds=30.0))
    api = RecordingApi(cast(Any, SimpleNamespace(offer=offer, model=None)), cast(Any, table), "lab", "e")
    app = Starlette(routes=[Route("/api/runs/{run}/recording", answered(api.recording))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        yield client


def only(content: bytes) -> RecordedRun:
    (run,) = read_recording(content).runs
    return run


async def test_a_run_is_fetched_while_it_is_written_and_after() -> None:
    async with served({"live": written(3, ends=False), "over": written()}) as http:
        live = await http.get("/api/runs/live/recording")
        assert only(live.content).info.finished is None
        assert len(only(live.content).reply_texts) == 3
        over = await http.get("/api/runs/over/recording")
        assert only(over.content).info.finished is not None
        assert "r.steersight.npz" in over.headers["content-disposition"]
        assert read_recording(over.content).title == "Hi?"
        lost = await http.get("/api/runs/other/recording")
        assert (lost.status_code, list(lost.json())) == (404, ["error"])
        assert "There is no run 'other' here." in lost.json()["error"]


async def test_only_so_many_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(run: Run) -> Any:
        begun.set()
        await go.wait()
        return await frames_of(run)

    monkeypatch.setattr(api_module, "frames_of", slow)
    monkeypatch.setattr(api_module, "MAX_AT_ONCE", 1)
    async with served({"r": written()}) as http:
        one = asyncio.create_task(http.get("/api/runs/r/recording"))
        await begun.wait()
        refused = await http.get("/api/runs/r/recording")
        assert (refused.status_code, "in a moment" in refused.json()["error"]) == (503, True)
        go.set()
        assert (await one).status_code == 200
        assert (await http.get("/api/runs/r/recording")).status_code == 200

        async def fails(_run: Run) -> Any:
            raise RuntimeError("It fell.")

        monkeypatch.setattr(api_module, "frames_of", fails)
        with pytest.raises(RuntimeError):
            await http.get("/api/runs/r/recording")
        monkeypatch.setattr(api_module, "frames_of", frames_of)
        assert (await http.get("/api/runs/r/recording")).status_code == 200


async def test_who_takes_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "PIECE_SECONDS", 0.1)
    over: list[bool] = []
    sent_so_far: list[Any] = []

    async def send(message: Any) -> None:
        sent_so_far.append(message)
        if len(sent_so_far) == 3:
            await asyncio.Event().wait()

    answer = Unhurried(bytes(3 * api_module.PIECE), "r", lambda: over.append(True))
    await asyncio.wait_for(answer({"type": "http"}, cast(Any, None), send), 10)
    assert over == [True]
    assert [message.get("more_body") for message in sent_so_far] == [None, True, True]
