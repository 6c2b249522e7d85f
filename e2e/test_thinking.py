"""Somebody talks with a model that thinks before it answers, and steers the thought alone.

The bundled model does not think by itself: a chat template with worked examples makes it do so, on a
server of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from conftest import Visit, serving
from pages import SteersightPage
from server import ROOT, OwnServer
from test_looks import SCHEMES, readable

TEMPLATE = ROOT / "backend/tests/thinking.jinja"
EXAMPLES = 2
"""Thoughts in every prompt: those of the template's worked examples."""


@pytest.fixture(scope="module")
def thinking_server(pytestconfig: pytest.Config, delete_output_dir: None) -> Iterator[OwnServer]:
    """A server with the thinking template."""
    if os.environ.get("STEERSIGHT_E2E_URL"):
        pytest.skip("This story needs a server with a chat template of its own.")
    with serving(pytestconfig, "thinking-server.log", "--chat-template", str(TEMPLATE)) as own:
        yield own


@pytest.fixture
def server(thinking_server: OwnServer) -> OwnServer:
    """Visitors of this file open its page."""
    return thinking_server


@pytest.fixture
def pictures(pytestconfig: pytest.Config) -> Path:
    """Where pictures of the page go, for people to look at."""
    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def prompt_of(app: SteersightPage) -> str:
    return "".join(app.wire.last_started().prompt.texts)


def test_a_thought_is_folded_steered_alone_and_gone_at_the_third_turn(visit: Visit, pictures: Path) -> None:
    app = visit()
    app.be_greedy(80)

    # It thinks, and then only the answer is seen.
    app.answer_to("What is the capital of Italy?")
    first_thought, first_answer = app.thought(), app.read_answer()
    expect(app.fold().locator("summary")).to_have_text(
        f"Thought, {app.wire.parts()['answer'] - app.wire.parts()['thought']} tokens"
    )
    assert "Italy" in first_thought
    assert "<think>" not in first_thought + first_answer
    assert "</think>" not in first_thought + first_answer

    # The keyboard opens it.
    app.fold().locator("summary").focus()
    app.page.keyboard.press("Enter")
    expect(app.fold().locator(".thought-text")).to_be_visible()
    for scheme, width in product(SCHEMES, (1280, 390)):
        app.look(scheme, width)
        app.wait_for_whole_map()
        app.page.screenshot(path=pictures / f"{scheme}-{width}-thought.png", full_page=True)
        readable(app, f"a thought, {scheme}, {width}")
    app.look("light", 1280)

    # A slider for the thought acts in the passes that write the thought, and in no other.
    app.steer("joy", 0.1)
    app.act("joy", scope="thought")
    app.answer_to("Tell me about Paris.")
    parts = app.wire.parts()
    share = {position: float(np.nanmax(row)) for position, row in app.wire.values("steering_share").items()}
    thinking = range(parts["thought"] - 1, parts["answer"] - 1)
    assert len(thinking) > 3
    assert {position for position, value in share.items() if value > 0} == set(thinking)
    assert max(share) >= parts["answer"]
    second_thought, second_answer = app.thought(), app.read_answer()

    # The third question is asked after two answers: their thoughts went to the template, which dropped them.
    app.steer("joy", 0)
    app.ask("What is the capital of Germany?")
    app.wait_for_reply()
    messages = app.wire.last_start().messages
    assert [(message.content, message.thought) for message in messages if message.role == "assistant"] == [
        (first_answer, first_thought), (second_answer, second_thought),
    ]  # fmt: skip
    prompt = prompt_of(app)
    assert prompt.count("<think>") == EXAMPLES
    assert prompt.endswith(
        "<|im_start|>user\nWhat is the capital of Italy?<|im_end|>\n"
        f"<|im_start|>assistant\n{first_answer}<|im_end|>\n"
        "<|im_start|>user\nTell me about Paris.<|im_end|>\n"
        f"<|im_start|>assistant\n{second_answer}<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of Germany?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_whoever_tells_the_template_not_to_think_gets_no_thought(visit: Visit) -> None:
    app = visit()
    app.be_greedy(40)
    app.tell_template("enable_thinking", "off")

    app.answer_to("What is the capital of France?")

    expect(app.fold()).to_have_count(0)
    assert prompt_of(app).endswith("<think>\n\n</think>\n")
    assert app.wire.last_start().template == {"enable_thinking": False}
    app.reload()
    app.tell_template("enable_thinking", "on")
    app.new_chat()
    app.answer_to("What is the capital of France?")
    expect(app.fold()).to_have_count(1)


def test_a_reload_in_mid_thought_loses_nothing(visit: Visit) -> None:
    app = visit()
    app.be_greedy(80)
    app.ask("What is the capital of Italy?")
    expect(app.fold()).to_have_attribute("open", "")

    app.reload()
    app.wait_for_reply()

    thought, answer = app.thought(), app.read_answer()
    app.new_chat()
    app.answer_to("What is the capital of Italy?")
    assert (app.thought(), app.read_answer()) == (thought, answer)
