"""The client and a server that says what it was not made for: newer, damaged, contradictory, or nothing."""

from __future__ import annotations

import asyncio

import msgpack
import numpy as np
import pytest

from steersight.client import Asked, Client, Run, SteersightError
from steersight.notebook.reading import rows_of
from steersight.protocol import messages as m

from .scripted import METRIC, Fields, Script, finished, rows, server, started, tokens, welcome

QUESTION = [{"role": "user", "content": "hi"}]


async def ask(client: Client) -> Run:
    return await client.start(QUESTION)


async def test_what_only_a_newer_server_knows_is_let_pass() -> None:
    newer = welcome(colour="blue")
    newer["engine"]["since"] = 3
    newer["vectors"][0] |= {"operator": "spin", "operators": ["add", "spin"], "kind": "probe", "maker": "x"}
    newer["metrics"] = [
        METRIC.model_dump() | {"id": "angle", "family": "angles", "transform": "sqrt", "more": 1},
        METRIC.model_dump() | {"scale": {"kind": "cyclic", "lo": None, "hi": None, "mid": None}},
    ]

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say({"type": "sing", "song": 1}, newer)
        run = await script.admit("r", "norm", "angle")
        await script.say(
            {"type": "dance", "run": run}, tokens(run, mood="good"),
            rows(run, metrics=["norm", "angle"], data=np.ones(8, dtype="<f2").tobytes(), at=1.5),
            m.Engine(state="ready", stage="s", progress=1.0, model=None, metrics=[], vectors=[]).model_dump()
            | {"state": "dreaming"},
            {**m.Error(code=m.ErrorCode.BUSY, message="No.").model_dump(), "code": "too_sunny"},
            finished(run, reason="bored"),
        )  # fmt: skip

    async with server(part) as client:
        await client.ready()
        assert client.vectors["joy"].operator == "spin"
        run = await ask(client)
        assert (await run.wait()).reason == "bored"
        assert run.text == "c"
        values = run.rows()
        assert values[:2, 0].tolist() == [[1, 1], [1, 1]]
        assert np.isnan(values[:2, 1]).all(), "a number was made up for a transform that is not known"
        assert client.last_error is not None
        assert client.last_error.code == "too_sunny"
        assert client.engine is not None
        assert client.engine.state == "dreaming"


async def test_a_name_that_a_block_of_the_run_brings_is_no_answer_to_a_watch() -> None:
    mine = METRIC.model_copy(update={"id": "live:a", "label": "a", "family": "live", "default": False})

    def watched(run: str, position: int, *metrics: str) -> Fields:
        frame = m.Watched(
            run=run, seq=4, position=position, metrics=[*metrics, "live:a"], lens=None, entropy=False,
            alternatives=0, live=[mine],
        )  # fmt: skip
        return frame.model_dump()

    async def part(script: Script) -> None:
        run = await script.begin()
        await script.hear(m.Watch)
        numbers = {"metrics": ["norm", "live:a"], "data": np.arange(8, dtype="<f2").tobytes()}
        await script.say(tokens(run), watched(run, 0, "norm"), rows(run, **numbers))
        await script.say(watched(run, 2), finished(run))

    async with server(part) as client:
        run = await ask(client)
        assert await run.watch(metrics=[]) == 2
        assert (run.metrics, list(run.live)) == (["norm", "live:a"], ["a"])
        assert run.values("a")[:2].tolist() == run.values("live:a")[:2].tolist() == [[2, 3], [6, 7]]
        with pytest.raises(KeyError, match="This run has no b; it has norm, live:a"):
            run.values("b")
        named = rows_of(run, "a")
        assert (named.metric, named.values[:2].tolist()) == ("live:a", [[2, 3], [6, 7]])


@pytest.mark.parametrize(
    "first",
    [{"type": "welcome"}, b"\xc1", {**welcome(), "engine": 3}, msgpack.packb([1]), {"no": "type"}],
    ids=["fields are missing", "no msgpack", "a field of another kind", "no map", "no type"],
)
async def test_a_welcome_that_cannot_be_read_ends_the_waiting(first: Fields | bytes) -> None:
    async def part(script: Script) -> None:
        await script.say(first)

    async with server(part, patience=30) as client:
        for call in (client.ready(), ask(client), client.watch("r"), client.until(lambda: False)):
            with pytest.raises(SteersightError, match="what this client cannot read") as raised:
                await call
            assert raised.value.code == "unreadable"
            assert str(raised.value).endswith(".")


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "tokens", "run": "bad", "seq": 2},
        tokens("bad", texts=[]),
        tokens("bad", start=7),
        rows("bad", data=b"\0\0"),
        rows("bad", revs=[0]),
        rows("bad", dtype="f4"),
        rows("bad", metrics=["other"]),
        {
            "type": "lens", "run": "bad", "seq": 2, "start": 0, "count": 1, "layers": [0], "top": 1,
            "ids": b"\1\0\0\0", "probabilities": b"\0\0", "new_ids": [], "new_texts": [],
        },
    ],
    ids=["no fields", "no texts", "a hole", "too few bytes", "too few revisions", "other bytes",
         "other metrics", "no names"],
)  # fmt: skip
async def test_a_run_that_cannot_be_read_ends_alone(bad: Fields) -> None:
    async def part(script: Script) -> None:
        await script.begin("bad")
        good = await script.admit("good")
        await script.say(bad, tokens(good), finished(good))

    async with server(part) as client:
        lost, other = await ask(client), await ask(client)
        waiting = asyncio.create_task(lost.applied(1))
        with pytest.raises(SteersightError, match="what this client cannot read"):
            await lost.wait()
        with pytest.raises(SteersightError, match="what this client cannot read"):
            await waiting
        await other.wait()
        assert other.text == "c"


async def test_a_refused_start_that_cannot_be_read_is_not_waited_for() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        start = await script.hear(m.Start)
        await script.say({"type": "started", "id": start.id, "run": "r"})

    async with server(part) as client:
        with pytest.raises(SteersightError, match="what this client cannot read"):
            await ask(client)


async def test_starts_together_are_all_admitted_or_refused() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        pair = await script.hear(m.StartTogether)
        assert [start.strengths for start in pair.starts] == [{}, {"joy": 0.5}]
        first, second = (started(name, start.id, []) for name, start in zip("ab", pair.starts, strict=True))
        await script.say(first, tokens("a"), second, finished("b"), finished("a"))
        pair = await script.hear(m.StartTogether)
        error = m.Error(code=m.ErrorCode.INVALID, message="No.", id=pair.id, field="starts.1.strengths")
        await script.say(error.model_dump())

    asked: list[Asked] = [{"messages": QUESTION}, {"messages": QUESTION, "strengths": {"joy": 0.5}}]
    async with server(part) as client:
        plain, steered = await client.start_together(asked)
        await asyncio.gather(plain.wait(), steered.wait())
        assert (plain.id, plain.text, steered.id, steered.text) == ("a", "c", "b", "")
        with pytest.raises(SteersightError, match=r"No\.") as raised:
            await client.start_together(asked)
        assert raised.value.field == "starts.1.strengths"


async def test_rows_of_a_metric_that_is_gone_are_kept() -> None:
    async def part(script: Script) -> None:
        run = await script.begin()
        gone = m.Engine(state="ready", stage="s", progress=1.0, model=None, metrics=[], vectors=[])
        await script.say(gone.model_dump(), rows(run), tokens(run), finished(run))

    async with server(part) as client:
        run = await ask(client)
        await run.wait()
        assert run.rows()[:2, 0].tolist() == [[0, 1], [2, 3]]


async def test_a_refused_revision_raises_where_it_is_waited_for() -> None:
    async def part(script: Script) -> None:
        run = await script.begin()
        steer = await script.hear(m.Steer)
        no = m.Error(code=m.ErrorCode.UNKNOWN_VECTOR, message="There is no vector x.", run=run, rev=steer.rev)
        await script.say(no.model_dump())
        steer = await script.hear(m.Steer)
        await script.say(m.Applied(run=run, seq=4, rev=steer.rev, position=7).model_dump())
        steer = await script.hear(m.Steer)
        stale = m.Error(code=m.ErrorCode.STALE_REVISION, message="Not newer than 9.", run=run, rev=steer.rev)
        await script.say(stale.model_dump())
        assert (await script.hear(m.Resume)).after == 4
        await script.say(
            m.Resumed(run=run, seq=4, newest=4, rev=9, strengths={}, settings={}).model_dump(),
            m.Queued(run=run, seq=5, position=0).model_dump(),
        )
        steer = await script.hear(m.Steer)
        assert steer.rev == 10
        await script.say(finished(run))

    async with server(part) as client:
        run = await ask(client)
        first = await run.steer({"x": 1.0})
        with pytest.raises(SteersightError, match="There is no vector x") as refused:
            await run.applied(first)
        assert refused.value.code == "unknown_vector"
        assert await run.applied(await run.steer({"joy": 0.1})) == 7
        with pytest.raises(SteersightError, match="Not newer than 9"):
            await run.applied(await run.steer({"joy": 0.2}))
        await run._until(lambda: run.seq == 5)
        with pytest.raises(SteersightError, match="ended before"):
            await run.applied(await run.steer({"joy": 0.3}))


async def test_rows_are_asked_for_again_after_a_line_that_broke_meanwhile() -> None:
    """The reader asks for them itself, and must not wait for a line that only it can find."""
    gap = m.Gap(run="r", seq=2, start=0, count=2, kept=True)

    async def breaks(script: Script) -> None:
        await script.begin()
        await script.say(gap.model_dump())
        script.socket.transport.abort()

    async def goes_on(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        assert (await script.hear(m.Resume)).after == 2
        await script.say(m.Resumed(run="r", seq=2, newest=2, rev=0, strengths={}, settings={}).model_dump())
        asked = await script.hear(m.AskRows)
        assert (asked.start, asked.count) == (0, 2)
        await script.say(rows("r"), tokens("r"), finished("r"))

    async with server(breaks, goes_on, patience=10) as client:
        run = await ask(client)
        await run.wait()
        assert client.reconnects == 1
        assert run.rows()[:2, 0].tolist() == [[0, 1], [2, 3]]


async def test_a_fault_of_the_client_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def part(script: Script) -> None:
        run = await script.begin()
        await script.say(tokens(run))

    async def fail(*_: object) -> list[m.AskRows]:
        raise TypeError("planted")

    monkeypatch.setattr(Run, "take", fail)
    async with server(part) as client:
        run = await ask(client)
        with pytest.raises(SteersightError, match=r"client itself failed .*planted") as raised:
            await run.wait()
        assert raised.value.code == "failed"


async def test_whoever_still_waits_is_told_when_the_client_closes() -> None:
    async def part(script: Script) -> None:
        await script.begin()

    async with server(part) as client:
        run = await ask(client)
        waiting = [asyncio.create_task(call) for call in (run.wait(), run.applied(1), ask(client))]
        await asyncio.sleep(0)
    for told in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(told, SteersightError)
        assert str(told) == "The client was closed."
