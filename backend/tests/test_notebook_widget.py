"""The widget's lines to the server, held by the kernel: what goes through, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from steersight import notebook
from steersight.client.dialing import dialer
from steersight.notebook import relay as relaying
from steersight.notebook.cells import Cells
from steersight.notebook.relay import MOST_LINES, Relay
from steersight.protocol import codec
from steersight.protocol import messages as m
from steersight.recordings import read_recording

from .scripted import Part, Script, finished, playing, rows, tokens, welcome
from .test_notebook import at, whole

RESUME = m.Resume(run="r", epoch="e")


class Browser:
    """What a widget in a browser hears."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[tuple[Mapping[str, Any], Sequence[bytes]]] = asyncio.Queue()

    def __call__(self, said: Mapping[str, Any], buffers: Sequence[bytes]) -> None:
        self.said.put_nowait((said, buffers))

    async def hear(self, kind: str, line: str = "a") -> tuple[Mapping[str, Any], Sequence[bytes]]:
        said, buffers = await self.said.get()
        assert (said["kind"], said["line"]) == (kind, line)
        return said, buffers


@asynccontextmanager
async def relayed(*parts: Part, token: str | None = None) -> AsyncIterator[tuple[Relay, Browser]]:
    browser = Browser()
    async with asyncio.timeout(20), playing(*parts) as address:
        relay = Relay("r", dialer(address, token), browser)
        yield relay, browser
        relay.close()


def say(relay: Relay, *frames: m.Frame | bytes, line: str = "a") -> None:
    packed = [memoryview(one if isinstance(one, bytes) else codec.encode(one)) for one in frames]
    relay.take({"kind": "frame", "line": line}, packed)


async def test_frames_go_through_byte_for_byte_and_the_token_is_said_here() -> None:
    hello: list[m.Hello] = []

    async def part(script: Script) -> None:
        hello.append(await script.hear(m.Hello))
        await script.say(welcome())
        await script.hear(m.Resume)
        await script.say(tokens("r"), rows("r"))

    async with relayed(part, token="secret") as (relay, browser):
        relay.take({"kind": "open", "line": "a"}, [])
        await browser.hear("opened")
        _, brought = await browser.hear("frames")
        assert isinstance(codec.read_server(brought[0]), m.Welcome)
        assert b"secret" not in b"".join(brought)
        say(relay, RESUME)
        frames = list((await browser.hear("frames"))[1])
        if len(frames) == 1:
            frames += (await browser.hear("frames"))[1]
        assert [type(codec.read_server(frame)) for frame in frames] == [m.Tokens, m.Rows]
    assert hello[0].token == "secret"


async def test_nothing_goes_through_but_what_concerns_the_run() -> None:
    heard: list[m.Frame] = []

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        heard.append(await script.hear(m.Steer))
        heard.append(await script.hear(m.Stop))
        await script.say(finished("r"))

    async with relayed(part) as (relay, browser):
        relay.take({"kind": "open", "line": "a"}, [])
        await browser.hear("opened")
        await browser.hear("frames")
        start = m.Start(id="x", messages=[m.ChatMessage(role="user", content="hi")])
        elsewhere = m.Steer(run="another", rev=1, strengths={"joy": 1.0})
        say(relay, start, m.Hello(token="t"), elsewhere, b"\xc1", m.Steer(run="r", rev=1, strengths={}))
        say(relay, m.Stop(run="r"), line="nobody's")
        say(relay, m.Stop(run="r"))
        await browser.hear("frames")
    assert [type(frame) for frame in heard] == [m.Steer, m.Stop]


async def test_a_line_that_is_asked_for_twice_is_opened_once_and_not_after_it_was_closed() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)

    async with relayed(part, part) as (relay, browser):
        for _ in range(3):
            relay.take({"kind": "open", "line": "a"}, [])
        await browser.hear("opened")
        relay.take({"kind": "close", "line": "a"}, [])
        relay.take({"kind": "open", "line": "a"}, [])
        relay.take({"kind": "open"}, [])
        relay.take({"kind": "open", "line": "b"}, [])
        await browser.hear("opened", "b")


async def test_pages_that_went_without_a_word_leave_no_more_than_some_lines() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)

    async with relayed(*[part] * (MOST_LINES + 3)) as (relay, browser):
        for line in range(MOST_LINES + 3):
            relay.take({"kind": "open", "line": f"{line}"}, [])
            await browser.hear("opened", f"{line}")
        assert list(relay._lines) == [f"{line}" for line in range(3, MOST_LINES + 3)]


async def test_why_there_is_no_line_is_said() -> None:
    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.socket.close(4401, "The token is missing or wrong.")

    async with relayed(part) as (relay, browser):
        relay.take({"kind": "open", "line": "a"}, [])
        await browser.hear("opened")
        said, _ = await browser.hear("closed")
        assert (said["code"], said["reason"]) == (4401, "The token is missing or wrong.")
    nowhere = Browser()
    relay = Relay("r", dialer("127.0.0.1:1"), nowhere)
    relay.take({"kind": "open", "line": "a"}, [])
    said, _ = await nowhere.hear("closed")
    assert said["code"] == relaying.ABNORMAL
    assert "No Steersight server answers" in said["reason"]


def built(folder: Path) -> Path:
    (folder / "notebook").mkdir()
    (folder / "notebook" / "widget.js").write_text("export default {}")
    return folder


def test_a_run_that_has_ended_leaves_its_recording_in_the_widget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERSIGHT_UI", str(built(tmp_path)))
    with at(whole) as address, notebook.open(address) as server:
        run = server.ask("hi")
        shown = run.show()
        assert isinstance(shown, notebook.Heatmap)
        run.wait()
        while not shown.recording:
            server.vectors  # noqa: B018 - once around the loop
        recording = read_recording(shown.recording)
        assert recording.runs[0].info.name == shown.run == run.id
        state = shown.get_state()
        assert (state["_esm"], state["recording"]) == ("export default {}", shown.recording)
        assert "tokens" in repr(shown)
        shown.close()


async def test_so_does_one_of_the_asynchronous_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERSIGHT_UI", str(built(tmp_path)))
    async with asyncio.timeout(20), playing(whole) as address, notebook.aopen(address) as server:
        run = await server.ask("hi")
        shown = run.show()
        kept = asyncio.Event()
        shown.observe(lambda _: kept.set(), "recording")
        await kept.wait()
        assert read_recording(shown.recording).runs[0].info.name == run.id
        shown.close()


def test_a_front_end_that_was_not_built_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERSIGHT_UI", str(tmp_path))
    with at(whole) as address, notebook.open(address) as server:
        run = server.ask("hi").wait()
        with pytest.raises(notebook.SteersightError, match=r"has not been built.*`make build`"):
            run.show()


class Events:
    """IPython's, as far as they are listened to."""

    def __init__(self) -> None:
        self._heard: dict[str, Any] = {}

    def register(self, event: str, call: Any) -> None:
        self._heard[event] = call

    def cell(self) -> None:
        self._heard["pre_run_cell"](object())
        self._heard["post_run_cell"](object())


def test_what_waits_for_the_end_of_a_cell_is_called_until_it_is_done() -> None:
    class Waiting:
        def __init__(self, left: int) -> None:
            self.left, self.calls = left, 0

        def look(self) -> bool:
            self.left, self.calls = self.left - 1, self.calls + 1
            return self.left == 0

    events = Events()
    listening = Cells(events)
    assert listening.running, "it is made while a cell is run"
    once, thrice, gone = Waiting(1), Waiting(3), Waiting(9)
    for one in (once, thrice, gone):
        listening.at_the_end(one.look)
    calls, gone_calls = [], gone
    del one, gone
    for _ in range(4):
        events.cell()
        calls.append((once.calls, thrice.calls, gone_calls.calls))
    assert calls == [(1, 1, 1), (1, 2, 2), (1, 3, 3), (1, 3, 4)]
    del gone_calls
    events.cell()
    assert not listening.running
    assert listening._waiting == []
