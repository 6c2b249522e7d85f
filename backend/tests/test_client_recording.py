"""What the Python client records is what the server sent, to the last bit, at any time of a run's life."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steersight.client import Client, Run
from steersight.protocol import messages as m
from steersight.recordings import read_recording, recording_bytes

from .scripted import METRIC, Fields, Script, finished, rows, server, tokens, welcome

LOG = METRIC.model_copy(update={"id": "size", "transform": "log2"})
VALUES = np.array([[[0, -0.0], [1.5, np.inf]], [[6e-8, 3], [-2, 0.1]]], dtype="<f2")


def lens(run: str, start: int, layers: list[int], top: int, **more: object) -> Fields:
    ids = np.arange(len(layers) * top, dtype="<i4")
    frame = m.Lens(
        run=run, seq=5, start=start, count=1, layers=layers, top=top, ids=ids.tobytes(),
        probabilities=(ids / 8).astype("<f2").tobytes(), new_ids=ids.tolist(),
        new_texts=[f"t{one}" for one in ids],
    )  # fmt: skip
    return {**frame.model_dump(), **more}


async def a_run(script: Script) -> str:
    await script.hear(m.Hello)
    await script.say({**welcome(), "metrics": [METRIC.model_dump(), LOG.model_dump()]})
    start = await script.hear(m.Start)
    prompt = m.Prompt(
        ids=[1, 2],
        texts=["a", "b"],
        spans=[m.Span(role="system", start=0, end=1), m.Span(role="user", start=1, end=2)],
    )
    await script.say(
        m.Started(
            run="r", seq=1, id=start.id, prompt=prompt, metrics=["norm", "size"], model="tiny",
            strengths={"joy": 0.5}, settings={}, sampling=start.sampling,
        ).model_dump()
    )  # fmt: skip
    return "r"


async def ask(client: Client) -> Run:
    return await client.start(
        [{"role": "user", "content": "Hi?"}], strengths={"joy": 0.5}, entropy=True, alternatives=2,
        lens=m.LensOptions(stride=1, top=2), template={"enable_thinking": False},
    )  # fmt: skip


async def test_all_that_came_is_in_it_to_the_last_bit(tmp_path: Path) -> None:
    async def part(script: Script) -> None:
        run = await a_run(script)
        nats = np.array([np.nan, 0.25], dtype="<f2")
        await script.say(
            tokens(run, logprobs=[-0.1], ranks=[1]),
            m.Part(run=run, seq=2, part="answer", start=2).model_dump(),
            m.Gap(run=run, seq=3, start=0, count=1, kept=False, cached=True).model_dump(),
            m.Applied(run=run, seq=3, rev=2, position=1, strengths={"joy": 1.0}, settings=None).model_dump(),
            rows(run, metrics=["norm", "size"], data=VALUES.tobytes(), revs=[0, 2], entropy=nats.tobytes()),
            lens(run, 1, [0, 1], 2),
            m.Alternatives(
                run=run, seq=6, start=1, count=1, top=2, ids=np.array([5, 3], "<i4").tobytes(),
                logprobs=np.array([-0.1, -2.5], "<f4").tobytes(), new_ids=[5], new_texts=["c"],
            ).model_dump(),
            finished(run),
        )  # fmt: skip

    async with server(part) as client:
        run = await ask(client)
        await run.wait()
        await run.save(tmp_path / "r.steersight.npz")
        assert np.array_equal(run.rows()[1, 1], np.exp2(VALUES[1, 1].astype(np.float32)))
    found = read_recording(tmp_path / "r.steersight.npz")
    (turn,), (one,) = found.turns, found.runs
    assert (turn.user, found.title, turn.run) == ("Hi?", "Hi?", 0)
    assert found.made_by.startswith("steersight ")
    info = one.info
    assert (info.name, info.server, info.epoch) == ("r", "n", "e")
    assert info.model is not None
    assert [metric.id for metric in info.metrics] == ["norm", "size"]
    assert info.template == {"enable_thinking": False}
    assert info.sampling == m.Sampling()
    assert [vector.id for vector in info.vectors] == ["joy"]
    assert [(r.rev, r.position, r.strengths) for r in info.revisions] == [
        (0, 0, {"joy": 0.5}), (2, 1, {"joy": 1.0}),
    ]  # fmt: skip
    (watched,) = info.watched
    assert (watched.from_, watched.entropy, watched.alternatives) == (0, True, 2)
    assert watched.lens == m.LensOptions(stride=1, top=2)
    assert (info.parts.thought, info.parts.answer, info.cached) == (None, 2, [[0, 1]])
    assert info.finished is not None
    assert info.problem is None
    assert (one.tokens.tolist(), one.texts) == ([1, 2, 5], ["a", "b", "c"])
    assert one.revisions.tolist() == [0, 2]
    for at, name in enumerate(["norm", "size"]):
        assert one.rows[name].tobytes() == np.ascontiguousarray(VALUES[:, at]).tobytes()
    assert one.entropy is not None
    assert np.array_equal(one.entropy, np.array([np.nan, 0.25], dtype="<f2"), equal_nan=True)
    assert one.logprobs.tobytes() == np.array([-0.1], dtype="<f4").tobytes()
    assert one.lens is not None
    assert one.lens.ids.tolist() == [[[0, 1], [2, 3]]]
    assert one.alternatives is not None
    assert one.alternatives.ids.tolist() == [[5, 3]]
    assert one.names == {0: "t0", 1: "t1", 2: "t2", 3: "t3", 5: "c"}


async def test_a_run_that_goes_on_and_one_that_broke_off() -> None:
    async def part(script: Script) -> None:
        run = await a_run(script)
        await script.say(lens(run, 0, [1], 1), lens(run, 1, [0, 1], 2), tokens(run))
        await script.socket.close(1011, "It fell over.")

    async with server(part) as client:
        run = await ask(client)
        before = run.recording()
        assert before.runs[0].info.finished is None
        with pytest.raises(RuntimeError):
            await run.wait()
        one = read_recording(recording_bytes(run.recording())).runs[0]
        assert (one.texts, one.info.finished) == (["a", "b", "c"], None)
        assert one.info.problem is not None
        assert one.info.problem.code == "disconnected"
        assert one.rows["norm"].shape == (0, 2)
        assert one.ranks.tolist() == [0]
        assert np.isnan(one.logprobs).all()
        assert one.lens is not None
        assert one.lens.ids.tolist() == [[[-1, -1], [0, -1]], [[0, 1], [2, 3]]]
        assert [np.isnan(share) for share in one.lens.probabilities[0].ravel()] == [True, True, False, True]


async def test_somebody_elses_run_says_what_its_prompt_does() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome(model=None, metrics=[], vectors=[]))
        await script.hear(m.Resume)
        prompt = m.Prompt(ids=[1, 2], texts=["a", "Hi?"], spans=[m.Span(role="user", start=1, end=2)])
        await script.say(
            m.Started(run="r", seq=1, id="x", prompt=prompt, metrics=["norm"], model="other").model_dump(),
            tokens("r"), rows("r"), lens("r", 1, [0, 1], 2), finished("r", reason="bored"),
        )  # fmt: skip

    async with server(part) as client:
        run = await client.watch("r")
        await run.wait()
        found = read_recording(recording_bytes(run.recording()))
    info = found.runs[0].info
    assert found.turns[0].user == "Hi?"
    assert (info.model, info.sampling, info.vectors) == (None, None, [])
    assert info.revisions[0].strengths is None
    assert info.metrics[0].transform == "unknown"
    assert info.watched[0].lens == m.LensOptions(stride=1, top=2)
    assert info.finished is not None
    assert info.finished.reason == "bored"
    assert found.runs[0].rows["norm"].tolist() == [[0, 1], [2, 3]]


async def test_a_run_that_was_steered_while_it_waited_has_no_first_revision() -> None:
    async def part(script: Script) -> None:
        run = await a_run(script)
        await script.say(
            tokens(run), m.Applied(run=run, seq=3, rev=1, position=0, strengths={}, settings={}).model_dump(),
            rows(run, metrics=["norm", "size"], data=VALUES.tobytes(), revs=[1, 1]), finished(run),
        )  # fmt: skip

    async with server(part) as client:
        run = await ask(client)
        await run.wait()
        assert [one.rev for one in run.recording().runs[0].info.revisions] == [1]
