"""The connection breaks, the server goes away, a question is too long: the page says so and goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from playwright.sync_api import WebSocketRoute, expect

from conftest import Complaints, Visit
from pages import SteersightPage
from server import OwnServer, Server

STORY = "Write a long story about a dragon and a lighthouse."


class Cable:
    """The line between one page and the server, for a story to cut and mend."""

    def __init__(self) -> None:
        self._cut = False
        self._lines: list[tuple[WebSocketRoute, WebSocketRoute]] = []

    def lay(self, visitor: SteersightPage) -> None:
        """Put the cable in: every socket of the page runs through it."""
        visitor.page.route_web_socket(re.compile(r"/ws$"), self._join)

    def _join(self, page_end: WebSocketRoute) -> None:
        if self._cut:
            page_end.close(code=1013)
            return
        self._lines.append((page_end, page_end.connect_to_server()))

    def cut(self) -> None:
        """Both ends lose each other now, and no new line comes up until `mend`."""
        self._cut = True
        for page_end, server_end in self._lines:
            page_end.close(code=1013)
            server_end.close()
        self._lines.clear()

    def mend(self) -> None:
        """New lines work again."""
        self._cut = False


def eventually(check: Callable[[], bool], seconds: float = 60) -> bool:
    """Ask the server until it says yes."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_line_that_breaks_mid_reply_is_told_and_comes_back(visit: Visit) -> None:
    cable = Cable()
    visitor = visit(prepare=cable.lay)
    visitor.be_greedy(tokens=400)
    visitor.ask(STORY)
    visitor.wait_while_writing(tokens=5)

    cable.cut()

    expect(visitor.connection_state).to_have_attribute("data-state", re.compile("reconnecting|connecting"))
    expect(visitor.engine_state).to_have_text("Engine unknown")
    expect(visitor.error).to_contain_text("The connection was lost while this reply was being written.")
    expect(visitor.ending).to_have_text("Interrupted")
    assert len(visitor.reply_tokens()) >= 5
    visitor.prompt.fill("Are you there?")
    expect(visitor.send).to_be_disabled()

    cable.mend()

    visitor.wait_until_live()
    visitor.wait_until_ready()
    visitor.be_greedy(tokens=4)
    assert visitor.answer_to("Are you there?") != ""


def test_whoever_does_not_want_to_wait_can_try_at_once(visit: Visit) -> None:
    cable = Cable()
    visitor = visit(prepare=cable.lay)

    cable.cut()
    # Pauses grow with every try in vain. In a short one the page's own try could come before the click.
    expect(visitor.connection_state).to_contain_text(re.compile(r"Reconnecting in ([6-9]|\d\d) s"))
    cable.mend()
    visitor.connect_now()

    visitor.wait_until_live()


def test_a_visitor_who_leaves_mid_reply_costs_the_engine_nothing(visit: Visit, server: Server) -> None:
    visitor = visit()
    visitor.be_greedy(tokens=1000)
    visitor.ask(STORY)
    visitor.wait_while_writing(tokens=3)
    assert server.runs_held() >= 1

    visitor.page.close()

    assert eventually(lambda: server.runs_held() == 0), "The engine still writes for somebody who has left."


def test_a_question_that_is_too_long_comes_back_with_a_sentence(app: SteersightPage) -> None:
    question = "So it goes. " * 2000

    app.prompt.fill(question)
    app.prompt.press("Enter")

    expect(app.error).to_contain_text(re.compile(r"The prompt has \d+ tokens; at most \d+ fit"))
    expect(app.questions).to_have_count(0)
    expect(app.prompt).to_have_value(question)

    app.be_greedy(tokens=4)
    app.answer_to("Hello!")
    expect(app.error).to_have_count(0)


def test_the_page_outlives_the_server(visit: Visit, own_server: OwnServer, complaints: Complaints) -> None:
    complaints.allow("WebSocket connection to .* failed")
    visitor = visit()
    visitor.be_greedy(tokens=400)
    visitor.ask(STORY)
    visitor.wait_while_writing(tokens=5)

    own_server.stop()

    expect(visitor.error).to_contain_text("The connection was lost while this reply was being written.")
    expect(visitor.engine_state).to_have_text("Engine unknown")

    own_server.start()

    # The page comes back by itself, shows the new engine loading, and turns live when it has loaded.
    visitor.wait_until_live()
    expect(visitor.engine_state).to_have_attribute("data-state", re.compile("loading|ready"))
    visitor.wait_until_ready()
    visitor.be_greedy(tokens=8)
    assert visitor.answer_to("Hello!") != ""
