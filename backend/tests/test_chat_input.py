"""What comes into the terminal chat besides text, and every form of the address that it is told."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from steersight.chat import Chat, _piped_lines, converse, kept_inputs
from steersight.cli import main
from steersight.protocol import messages as m
from steersight.recordings import read_recording
from steersight.template_words import taken, told

from .scripted import MODEL, VECTOR, Script, finished, playing, server, started, tokens, welcome


@pytest.mark.parametrize(
    ("words", "said", "strengths"),
    [
        ("28:8401 15", "shakespeare 15 from the next reply on.", {"shakespeare": 15.0}),
        ("28:8401", "shakespeare 8 from the next reply on.", {"shakespeare": 8.0}),
        ("28:8401 0", "shakespeare 0 from the next reply on.", {}),
        ("28:9 1", "There are several features 28:9: one, other. Name one of them.", {}),
        ("28:7 1", "The server has no feature 7 of layer 28. /features lists those that it", {}),
        ("12:3 1", "12:3 1 from the next reply on.", {"12:3": 1.0}),
        ("28:x 1", "There is no vector '28:x'. Closest:", {}),
    ],
)
async def test_a_feature_by_layer_and_number(words: str, said: str, strengths: dict[str, float]) -> None:
    """As in the newer chat of nnsight-vllm-demos; an id that looks like it goes first."""
    feature = {"kind": "feature", "suggested": 8.0, "range": [-15.0, 15.0]}
    vectors = [
        VECTOR.model_copy(update={**feature, "id": name, "layers": [layer], "feature": number})
        for name, layer, number in (
            ("shakespeare", 28, 8401), ("one", 28, 9), ("other", 28, 9), ("12:3", 1, 5),
        )
    ]  # fmt: skip

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome(vectors=[vector.model_dump() for vector in vectors]))

    written: list[str] = []
    async with server(part) as client:
        await client.ready()
        chat = Chat(client, written.append)
        await chat.command(f"/steer {words}")
    assert said in "".join(written)
    assert chat.strengths == strengths


async def test_an_adapter_is_chosen_for_the_replies_that_follow() -> None:
    model = m.ModelInfo.model_validate(
        welcome()["model"] | {"adapters": [{"id": "poet", "rank": 8}, {"id": "clerk", "rank": 4}]}
    )
    asked: list[str | None] = []

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome(model=model.model_dump()))
        for index in range(2):
            start = await script.hear(m.Start)
            asked.append(start.adapter)
            name = f"r{index}"
            await script.say(started(name, start.id, []), tokens(name), finished(name))

    written: list[str] = []
    async with server(part) as client:
        await client.ready()
        chat = Chat(client, written.append)
        for line in ("/adapter", "/adapter painter", "/adapter poet"):
            await chat.command(line)
        await chat.say("Hello")
        await chat.command("/adapter none")
        await chat.say("Hello")
    assert asked == ["poet", None]
    assert [
        line.strip() for line in "".join(written).splitlines() if "adapter" in line or "base" in line
    ] == [
        "There are poet, clerk. The next reply is written with the base model.",
        "There is no adapter 'painter'. There are poet, clerk.",
        "The next reply is written with the adapter poet.",
        "The next reply is written with the base model.",
    ]


async def test_bytes_that_are_no_text_are_not_sent_and_end_nothing() -> None:
    said: list[str] = []
    chat = Chat(cast(Any, None), said.append)  # a client is asked for nothing
    await converse(chat, _piped_lines([b"/active\n", "Grüße".encode("latin-1"), b"/active\n"]))
    text = "".join(said)
    assert text.count("No vector is active.") == 2
    assert "Not sent, for it is not UTF-8 text: Gr??e\n" in text


@pytest.mark.parametrize("form", ["{}", "http://{}", "ws://{}/ws", "http://{}/steersight/"])
async def test_a_pipe_into_the_command_itself(form: str, tmp_path: Path) -> None:
    asked: list[str] = []

    async def part(script: Script) -> None:
        assert script.socket.request is not None
        asked.append(script.socket.request.path)
        await script.hear(m.Hello)
        await script.say(welcome())
        start = await script.hear(m.Start)
        asked.append(start.messages[-1].content)
        await script.say(started("r", start.id, []), tokens("r"), finished("r"))

    async with playing(part) as address:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "steersight.cli", "chat", "--url", form.format(address),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(
                process.communicate("\xff\nGrüße\n".encode("latin-1") + "Grüße\n".encode()), 60
            )
        except TimeoutError:
            process.kill()
            raise
    assert process.returncode == 0, err.decode()
    assert asked == ["/steersight/ws" if "steersight" in form else "/ws", "Grüße"]
    assert out.decode().count("Not sent, for it is not UTF-8 text") == 2


@pytest.mark.parametrize("command", [["chat"], ["vectors", "build", "x.yaml"]])
def test_what_is_no_address_is_refused_with_a_sentence(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        main([*command, "--url", "gopher://x"])
    assert "'gopher://x' is not the address of a server. Write it such as" in capsys.readouterr().err
    monkeypatch.setenv("STEERSIGHT_URL", "a b")
    with pytest.raises(SystemExit):
        main(command)
    assert "It was set by STEERSIGHT_URL." in capsys.readouterr().err


def test_a_socket_address_serves_building_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wish = tmp_path / "wish.json"
    wish.write_text('{"label": "x", "positive": "a", "negative": "b"}')
    assert main(["vectors", "build", str(wish), "--url", "ws://127.0.0.1:1/steersight/ws"]) == 1
    assert "There is no server at http://127.0.0.1:1/steersight (" in capsys.readouterr().err


def test_inputs_that_cannot_be_kept_are_no_reason_to_end(tmp_path: Path) -> None:
    said: list[str] = []
    kept = kept_inputs(tmp_path / "state" / "history", said.append)
    kept.store_string("hello")
    kept.store_string("no text: \udcff")
    assert list(kept.load_history_strings()) == ["hello"]
    assert (tmp_path / "state" / "history").stat().st_mode & 0o077 == 0
    (tmp_path / "file").touch()
    kept = kept_inputs(tmp_path / "file" / "history", said.append)
    kept.store_string("hello")
    assert said == [
        f"Inputs are not kept: {tmp_path / 'file' / 'history'} cannot be written (File exists).\n"
    ]


async def test_what_is_said_before_the_reply_has_begun_is_meant_for_it() -> None:
    """A slider and an end that come between the question and the server's answer to it."""
    typed, told = asyncio.Event(), asyncio.Event()
    heard: list[object] = []

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        start = await script.hear(m.Start)
        heard.append(dict(start.strengths))
        told.set()
        await typed.wait()
        await script.say(started("r", start.id, []))
        steer = await script.hear(m.Steer)
        heard.append(dict(steer.strengths))
        await script.hear(m.Stop)
        await script.say({"type": "applied", "run": "r", "seq": 2, "rev": steer.rev, "position": 2})
        await script.say(finished("r", reason="cancelled"))

    written: list[str] = []
    async with server(part) as client:
        await client.ready()
        chat = Chat(client, written.append)
        saying = asyncio.create_task(chat.say("Hello?"))
        await told.wait()
        await chat.command(f"/steer {VECTOR.id} 0.2")
        assert await chat.stop()
        typed.set()
        await saying
        await chat.settle()
    assert heard == [{}, {VECTOR.id: 0.2}]
    assert "next reply" not in "".join(written)
    assert f"[{VECTOR.id} 0.2 in force at token 2]" in "".join(written)


async def test_a_server_whose_model_is_changed_is_talked_to_as_before() -> None:
    """A reply that ends with the change says so; then it is said which model it is, and what that lacks."""
    heard: list[object] = []
    error = m.RunError(code=m.ErrorCode.MODEL_CHANGED, message="The model is being changed to other.")
    other = {**welcome(), "type": "engine", "model": {**MODEL.model_dump(), "id": "other"}, "vectors": []}
    changed = {name: other[name] for name in ("type", "model", "metrics", "vectors")}

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome())
        for ending in (finished("r0", reason="error", error=error.model_dump()), finished("r1")):
            start = await script.hear(m.Start)
            heard.append((dict(start.strengths), len(start.messages)))
            run = ending["run"]
            await script.say(started(run, start.id, []), tokens(run), ending)
            await script.say({**changed, "state": "ready", "stage": "Ready", "progress": 1.0})

    written: list[str] = []
    async with server(part) as client:
        await client.ready()
        chat = Chat(client, written.append)
        chat.greeting()
        await chat.command(f"/steer {VECTOR.id} 0.2")
        await chat.say("Hello?")
        assert "[The model is being changed to other.]" in "".join(written)
        await client.until(lambda: client.model is not None and client.model.id == "other")
        await chat.say("And now?")
    assert "[The server's model is other now. It has no vector joy, so that is off.]" in "".join(written)
    assert heard == [({VECTOR.id: 0.2}, 1), ({}, 3)]
    assert chat.strengths == {}


TEMPLATE = [
    m.TemplateArgument(name="enable_thinking", kind="switch", choices=[], default=True),
    m.TemplateArgument(name="effort", kind="choice", choices=["low", "high"], default=None),
    m.TemplateArgument(name="budget", kind="number", choices=[], default=None),
]


@pytest.mark.parametrize(
    ("word", "answer", "values"),
    [
        ("", "enable_thinking: on or off; now on.\neffort: low or high; now as the template has it.\n", {}),
        ("enable_thinking=off", "enable_thinking is off from the next reply on.", {"enable_thinking": False}),
        ("enable_thinking=maybe", "enable_thinking is on or off, and not 'maybe'.", {}),
        ("effort=high", "effort is high from", {"effort": "high"}),
        ("effort=medium", "effort is one of low, high, and not 'medium'.", {}),
        ("budget=200", "budget is 200 from", {"budget": 200}),
        ("budget=much", "budget is a number, and 'much' is none.", {}),
        ("budget=", "budget is left to the chat template", {}),
        ("thinking=on", "does not read 'thinking'; it reads enable_thinking, effort, budget.", {}),
    ],
)
def test_what_the_chat_template_is_told(word: str, answer: str, values: dict[str, Any]) -> None:
    found: dict[str, Any] = {}
    assert answer in told(TEMPLATE, found, word)
    assert found == values
    assert [type(value) for value in found.values()] == [type(value) for value in values.values()]


def test_what_another_models_template_was_told_is_not_said_to_this_one() -> None:
    said = {"enable_thinking": "maybe", "effort": "medium", "budget": True, "mode": "x"}
    assert taken(TEMPLATE, said) == {}
    said = {"enable_thinking": False, "effort": "low", "budget": 0.5}
    assert taken(TEMPLATE, said) == said


async def test_a_thought_is_dimmed_and_goes_beside_the_answer_into_the_next_turn() -> None:
    marks = m.ThoughtMarks(start="<t>", end="</t>")
    model = m.ModelInfo(
        id="tiny", layers=2, hidden_size=4, vocab_size=9, dtype="float32", max_model_len=64, special_ids=[8],
        thoughts=marks, template=TEMPLATE,
    )  # fmt: skip
    starts: list[m.Start] = []

    async def part(script: Script) -> None:
        await script.hear(m.Hello)
        await script.say(welcome(model=model.model_dump()))
        for name in ("r1", "r2"):
            start = await script.hear(m.Start)
            starts.append(start)
            await script.say(started(name, start.id, []))
            texts = ["<t>", "Hm", "</t>", "\n", "Yes", "<end>"]
            await script.say(
                {"type": "part", "run": name, "seq": 2, "part": "thought", "start": 3},
                tokens(name, ids=[1, 2], texts=texts[:2], logprobs=[None] * 2, ranks=[None] * 2),
                {"type": "part", "run": name, "seq": 2, "part": "answer", "start": 5},
                tokens(
                    name, start=4, ids=[3, 4, 5, 8], texts=texts[2:], logprobs=[None] * 4, ranks=[None] * 4
                ),
                finished(name),
            )

    written: list[str] = []
    async with server(part) as client:
        await client.ready()
        chat = Chat(client, written.append, dim=True)
        await chat.command("/template enable_thinking=off")
        await chat.say("one")
        await chat.say("two")
    assert "\x1b[2m<t>Hm</t>\x1b[22m\nYes\n" in "".join(written)
    assert starts[0].template == {"enable_thinking": False}
    assert [message.model_dump(exclude_none=True) for message in starts[1].messages] == [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "Yes", "thought": "Hm"},
        {"role": "user", "content": "two"},
    ]


async def test_a_conversation_is_saved_and_not_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    going = asyncio.Event()

    async def part(script: Script) -> None:
        await script.say(tokens(await script.begin("one")), finished("one"))
        await script.say(tokens(await script.admit("two")))
        await going.wait()
        await script.say(finished("two"))

    written: list[str] = []
    came = asyncio.Event()

    def write(text: str) -> None:
        written.append(text)
        if written.count("c") == 2:
            came.set()

    async with server(part) as client:
        await client.ready()
        chat = Chat(client, write)
        await chat.command("/save nothing")
        assert written.pop() == "There is no reply to save yet.\n"
        await chat.say("First?")
        talking = asyncio.create_task(chat.say("And then?"))
        await came.wait()
        await chat.command("/save my talk")
        assert "Saved as my talk.steersight.npz." in written[-1]
        await chat.command("/save my talk")
        assert written.pop() == "my talk.steersight.npz is there already. Name another file.\n"
        await chat.command("/save")
        await chat.command("/save no/such\0place")
        assert "cannot be written" in written[-1]
        going.set()
        await talking
        await chat.command("/save later.npz")
        await chat.command("/reset")
        await chat.command("/save later")
        assert "no reply" in written[-1]
    begun, ended = (read_recording(tmp_path / name) for name in ("my talk.steersight.npz", "later.npz"))
    assert [turn.user for turn in begun.turns] == ["First?", "And then?"]
    assert [turn.parent for turn in begun.turns] == [None, "c1"]
    assert [run.info.finished is None for run in begun.runs] == [False, True]
    assert [run.info.finished is None for run in ended.runs] == [False, False]
    assert sum(name.startswith("steersight-2") for name in os.listdir(tmp_path)) == 1


async def test_of_a_pipe_saving_waits_for_the_reply_before_it(tmp_path: Path) -> None:
    async def part(script: Script) -> None:
        run = await script.begin("one")
        await asyncio.sleep(0.1)
        await script.say(tokens(run), finished(run))

    async def lines() -> AsyncIterator[str]:
        yield "Hi"
        yield f"/save {tmp_path}/piped"

    async with server(part) as client:
        await client.ready()
        await converse(Chat(client, lambda _text: None), lines(), typed=False)
    (run,) = read_recording(tmp_path / "piped.steersight.npz").runs
    assert run.info.finished is not None
