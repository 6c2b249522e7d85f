"""The instruments of `make prove`: the checker finds what it is for, the bad line loses only the end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from bench.proving import BrokenPromiseError, quantile, table, write
from bench.proxy import QUIET, BadLine, Fate
from bench.simulated import Engine
from bench.watching import RunView, matches
from steersight.engine.submission import OPTIONS_KEY, Submission
from steersight.protocol import messages as m

# ---------------------------------------------------------------- the checker


def started(seq: int = 0, ids: tuple[int, ...] = (1, 2, 3)) -> m.Started:
    prompt = m.Prompt(ids=list(ids), texts=["x"] * len(ids), spans=[])
    return m.Started(run="r", seq=seq, id="c", prompt=prompt, metrics=["a"])


def tokens(start: int, *ids: int, seq: int = 0) -> m.Tokens:
    none: list[None] = [None] * len(ids)
    texts = [f"t{token}" for token in ids]
    return m.Tokens(run="r", seq=seq, start=start, ids=list(ids), texts=texts, logprobs=none, ranks=none)


def rows(start: int, *revs: int, seq: int = 0, fill: int = 0) -> m.Rows:
    data = b"".join(bytes([start + offset + fill, 0]) for offset in range(len(revs)))
    return m.Rows(
        run="r", seq=seq, start=start, count=len(revs), revs=list(revs), metrics=["a"], layers=1, data=data,
        entropy=None,
    )  # fmt: skip


def gap(start: int, count: int, kept: bool, seq: int = 0) -> m.Gap:
    return m.Gap(run="r", seq=seq, start=start, count=count, kept=kept)


def finished(reply: int, seq: int = 0, prompt: int = 3) -> m.Finished:
    return m.Finished(
        run="r", seq=seq, reason="length", stop=None, error=None,
        usage=m.Usage(prompt_tokens=prompt, reply_tokens=reply),
        timing=m.Timing(first_token_ms=1.0, total_ms=2.0, tokens_per_s=None),
    )  # fmt: skip


def resumed(seq: int, newest: int) -> m.Resumed:
    return m.Resumed(run="r", seq=seq, newest=newest, rev=0, strengths={}, settings={})


def seen(*frames: m.Frame) -> RunView:
    """A view after these frames; one without a number of its own does not move it."""
    view = RunView("r")
    for frame in frames:
        numbered = isinstance(frame, m.Resumed) or getattr(frame, "seq", 0)
        view.take(frame if numbered else frame.model_copy(update={"seq": view.after}))
    return view


WHOLE = (started(1), rows(0, 0, 0, 0), tokens(3, 7), rows(3, 1), tokens(4, 8), finished(2, seq=6))
APPLIED = m.Applied(run="r", seq=6, rev=1, position=3)


def test_a_run_without_faults() -> None:
    started_, first, one, second, two, end = WHOLE
    view = seen(started_, first, one, second, APPLIED.model_copy(update={"seq": 1}), two, end)
    assert view.whole
    assert view.after == 6
    view.complete()
    view.agrees_with(seen(*WHOLE[:-1], APPLIED.model_copy(update={"seq": 1}), end))
    matches(view, [7, 8, 9], 2)


def test_what_comes_again_after_a_resume_must_be_the_same() -> None:
    view = seen(started(1), tokens(3, 7), resumed(1, 4), tokens(3, 7, 8, seq=4))
    assert view.ids == [7, 8]
    assert view.repeated == 1
    assert view.after == 4


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ((started(), tokens(4, 7)), "lost tokens"),
        ((started(), tokens(3, 7, 8), tokens(4, 9)), "changed tokens"),
        ((tokens(3, 7),), "before it started"),
        ((started(3), tokens(3, 7, seq=2)), "went back from event 3 to 2"),
        ((started(), rows(0, 0), rows(0, 0, fill=1)), "two values of the row at 0"),
        ((started(), rows(0, 0), rows(0, 1)), "two values of the row at 0"),
        ((started(), rows(0, 0), gap(0, 1, kept=False)), "says rows are lost that it sent"),
        ((started(), started(ids=(1, 2, 4))), "started as two"),
        ((started(), finished(0), tokens(3, 7)), "new tokens after its end"),
        ((started(2), resumed(3, 5)), "resumed after 3, and 2 are here"),
        ((started(2), resumed(2, 1)), "fewer events"),
        ((started(), finished(0), finished(1)), "ended twice"),
    ],
)
def test_a_frame_that_breaks_a_promise_is_found(frames: tuple[m.Frame, ...], sentence: str) -> None:
    with pytest.raises(BrokenPromiseError, match=sentence):
        seen(*frames)


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        ((started(), tokens(3, 7), finished(1)), r"no rows at \[0, 1, 2\] and no gap says so"),
        ((started(), rows(0, 0, 0, 0), tokens(3, 7), finished(2)), "sent 1 tokens"),
        ((started(), rows(0, 0, 1, 0), tokens(3, 7), finished(1)), "revisions that go back"),
        ((started(), rows(0, 0, 0, 0, 0, 0), tokens(3, 7), finished(1)), "rows beyond its tokens"),
        (
            (started(), rows(0, 0, 1, 1), APPLIED.model_copy(update={"position": 2}), tokens(3, 7, seq=6),
             finished(1, seq=6)),
            "said 1 applied at 2; its rows say 1",
        ),
        ((started(),), "has not ended"),
    ],
)  # fmt: skip
def test_what_only_holds_at_the_end_is_found(frames: tuple[m.Frame, ...], sentence: str) -> None:
    with pytest.raises(BrokenPromiseError, match=sentence):
        seen(*frames).complete()


def test_skipped_rows_are_asked_for_and_lost_ones_are_not() -> None:
    view = seen(started(), gap(0, 2, kept=True), gap(2, 1, kept=False), tokens(3, 7), finished(1))
    assert view.missing() == [(0, 2)]
    assert not view.whole
    view.take(rows(0, 0))
    assert view.missing() == [(1, 1)]
    view.take(rows(1, 0))
    assert view.whole
    view.complete()
    assert view.lost == {2}


def test_two_readers_that_disagree_are_found() -> None:
    first, second = seen(started(), tokens(3, 7)), seen(started(), tokens(3, 8))
    with pytest.raises(BrokenPromiseError, match="two replies"):
        first.agrees_with(second)


def test_another_reply_is_found() -> None:
    view = seen(started(), tokens(3, 7, 8))
    matches(view, [7, 8], 64)
    for whole, most in (([7, 9], 64), ([7, 8, 9], 64), ([7, 8, 9], 1)):
        with pytest.raises(BrokenPromiseError, match="wrote another reply"):
            matches(view, whole, most)


# ---------------------------------------------------------------- the line


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def line(fate: Fate) -> AsyncIterator[tuple[BadLine, Ends, Ends]]:
    """A proxy with one connection through it: (proxy, the client's end, the server's end)."""
    arrived: asyncio.Queue[Ends] = asyncio.Queue()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await arrived.put((reader, writer))

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with BadLine(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", 1, [fate]) as proxy:
        host, _, port = proxy.address.rpartition(":")
        client = await asyncio.open_connection(host, int(port))
        far = await arrived.get()
        try:
            yield proxy, client, far
        finally:
            for _, writer in (client, far):
                writer.transport.abort()
            server.close()


async def took(work: Callable[[], Awaitable[object]]) -> float:
    began = asyncio.get_running_loop().time()
    await work()
    return asyncio.get_running_loop().time() - began


async def test_bytes_arrive_in_order_both_ways() -> None:
    sent = random.Random(1).randbytes(300_000)
    slow = Fate("none", 0.0, 0.001, 3_000_000.0, 0.02, 0.01)
    async with line(slow) as (_, client, far):
        for (_, writer), (reader, _) in ((client, far), (far, client)):
            writer.write(sent)
            assert await reader.readexactly(len(sent)) == sent


async def test_a_throttled_line_takes_its_time() -> None:
    async with line(Fate("none", 0.0, 0.0, 100_000.0, float("inf"), 0.0)) as (_, client, far):
        client[1].write(bytes(30_000))
        assert await took(lambda: far[0].readexactly(30_000)) > 0.25


async def test_a_reset_is_a_reset_at_both_ends() -> None:
    async with line(Fate("reset", 0.1, 0.0, float("inf"), float("inf"), 0.0)) as (proxy, client, far):
        client[1].write(b"x")
        await far[0].readexactly(1)
        for reader, _ in (client, far):
            with pytest.raises(ConnectionResetError):
                await reader.read()
        assert proxy.endings == {"reset": 1}


async def test_a_close_is_an_end_at_both_ends() -> None:
    async with line(Fate("close", 0.1, 0.0, float("inf"), float("inf"), 0.0)) as (proxy, client, far):
        for reader, _ in (client, far):
            assert await reader.read() == b""
        assert proxy.endings == {"close": 1}


async def test_a_half_closed_line_still_delivers() -> None:
    async with line(Fate("half", 0.1, 0.0, float("inf"), float("inf"), 0.0)) as (_, client, far):
        assert await far[0].read() == b""
        far[1].write(b"still here")
        assert await client[0].readexactly(10) == b"still here"


async def test_a_quiet_line_ends_when_its_ends_do() -> None:
    async with line(QUIET) as (proxy, client, far):
        client[1].close()
        assert await far[0].read() == b""
        assert proxy.endings == {"none": 1}


# ---------------------------------------------------------------- figures and tables


def test_quantiles_are_values_that_were_seen() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert quantile([3.0], 0.99) == 3.0
    with pytest.raises(ValueError, match="nothing"):
        quantile([], 0.5)


def test_a_table_is_written_between_its_marks(tmp_path: object) -> None:
    path = tmp_path / "doc.md"  # type: ignore[operator]
    path.write_text("before\n<!-- written by backend/bench/x.py -->\nold\n<!-- end -->\nafter\n")
    write("x.py", table(["what", "seen"], [["a", 1]]), path)
    marks = "<!-- written by backend/bench/x.py -->\n| what | seen |\n| --- | ---: |\n| a | 1 |\n<!-- end -->"
    assert path.read_text() == f"before\n{marks}\nafter\n"
    with pytest.raises(SystemExit, match="to write between"):
        write("y.py", "", path)


async def test_the_engine_that_only_pretends_takes_what_a_submission_hands_in() -> None:
    """It stands in for vLLM's, and would otherwise be noticed by whoever measures next."""
    sampling = SimpleNamespace(
        max_tokens=3, extra_args={OPTIONS_KEY: {"run": "r", "metrics": ["a"], "first_row": 0}}
    )
    begun = asyncio.Event()
    engine = Engine(Mock(send=lambda _order: begun.set()), [7, 8])
    outputs = Submission("r-1", {"prompt_token_ids": [1, 2]}, sampling, None).outputs(engine)
    reply = asyncio.ensure_future(anext(outputs))
    await begun.wait()
    engine.ended(["r"])
    assert (await reply).outputs[0].token_ids == [7, 8, 7]
    await outputs.aclose()
