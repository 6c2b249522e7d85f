"""The connection breaks, the page is left, engine or server go away: it is told, and nothing is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from playwright.sync_api import WebSocketRoute, expect

import wire
from conftest import Complaints, Visit
from pages import SteersightPage
from server import OwnServer, Server

STORY = "Write a long story about a dragon and a lighthouse."
# Long enough to break a line or load the page anew in its middle, and written to its end in seconds.
SOME = 80
# Longer than any of these replies is watched.
LONG = 400
# How long a run goes on that nobody watches.
GRACE_SECONDS = 30


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


def test_a_line_that_breaks_mid_reply_loses_nothing(visit: Visit, server: Server) -> None:
    cable = Cable()
    visitor = visit(prepare=cable.lay)
    visitor.be_greedy(SOME)
    visitor.ask(STORY)
    visitor.wait_while_writing(tokens=5)

    cable.cut()

    expect(visitor.connection_state).to_have_attribute("data-state", re.compile("reconnecting|connecting"))
    expect(visitor.engine_state).to_have_text("Engine unknown")
    expect(visitor.note).to_contain_text("The reply goes on being written")
    expect(visitor.error).to_have_count(0)

    cable.mend()

    reply = visitor.wait_for_reply()
    expect(visitor.note).to_have_count(0)
    assert reply == wire.ask(server.socket_url, STORY, tokens=SOME).text
    visitor.wait_for_whole_map()
    visitor.be_greedy(tokens=4)
    assert visitor.answer_to("Are you there?") != ""


def test_what_is_done_while_the_line_is_down_is_done_when_it_is_back(visit: Visit) -> None:
    cable = Cable()
    visitor = visit(prepare=cable.lay)
    visitor.be_greedy(LONG)
    visitor.ask(STORY)
    visitor.wait_while_writing(tokens=5)

    cable.cut()
    visitor.steer("joy", 0.3)
    expect(visitor.status("joy")).to_have_text("waits for the connection")
    cable.mend()

    visitor.wait_until_in_force("joy")

    cable.cut()
    visitor.stop_button.click()
    expect(visitor.note).to_contain_text("The reply will be stopped")
    cable.mend()

    visitor.wait_for_reply()
    expect(visitor.ending).to_have_text("Stopped")


def test_a_reload_mid_reply_loses_nothing(app: SteersightPage, server: Server) -> None:
    app.be_greedy(SOME)
    app.ask(STORY)
    app.wait_while_writing(tokens=5)

    app.reload()

    expect(app.questions).to_have_text([STORY])
    reply = app.wait_for_reply()
    assert reply == wire.ask(server.socket_url, STORY, tokens=SOME).text
    app.wait_for_whole_map()

    app.reload()
    assert app.wait_for_whole_map().tokens > SOME, "The map of a finished reply did not come back."
    app.be_greedy(tokens=4)
    app.answer_to("And then?")
    said = [(message.role, message.content) for message in app.wire.last_start().messages]
    assert said == [("user", STORY), ("assistant", reply), ("user", "And then?")]


def test_a_sleeping_tab_loses_nothing(app: SteersightPage, server: Server) -> None:
    app.be_greedy(SOME)
    app.ask(STORY)
    app.wait_while_writing(tokens=3)
    tab = app.page.context.new_cdp_session(app.page)

    tab.send("Page.setWebLifecycleState", {"state": "frozen"})
    assert eventually(lambda: server.runs_held() == 0)
    tab.send("Page.setWebLifecycleState", {"state": "active"})
    app.come_back("visibilitychange")

    reply = app.wait_for_reply()
    app.wait_for_whole_map()
    assert reply == wire.ask(server.socket_url, STORY, tokens=SOME).text


@pytest.mark.parametrize("event", ["online", "visibilitychange"])
def test_whoever_comes_back_is_connected_at_once(visit: Visit, event: str) -> None:
    cable = Cable()
    visitor = visit(prepare=cable.lay)

    cable.cut()
    expect(visitor.connection_state).to_contain_text(re.compile(r"Reconnecting in ([4-9]|\d\d) s"))
    cable.mend()
    visitor.come_back(event)

    expect(visitor.connection_state).to_have_attribute("data-state", "live", timeout=3000)


def test_a_second_tab_watches_and_steers_the_same_reply(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.ask(STORY)
    app.wait_while_writing(tokens=5)

    tab = app.watch_in_another_tab()

    assert "#" not in tab.page.url
    expect(tab.questions).to_have_text([STORY])
    tab.wait_while_writing(tokens=8)
    tab.steer("joy", 0.3)
    position = tab.wait_until_in_force("joy")
    # The first tab hears of it, and its slider follows.
    expect(app.strength("joy")).to_have_value("0.3")
    tab.stop()

    expect(app.ending).to_have_text("Stopped")
    assert app.wait_for_reply() == tab.reply_text()
    for page in (app, tab):
        expect(page.map).to_have_attribute("data-revisions", f"1@{position}")


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

    # Not at once: for a while the visitor might only have lost the line.
    assert eventually(lambda: server.runs_held() == 0, seconds=GRACE_SECONDS + 60), (
        "The engine still writes for somebody who has left."
    )


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


def test_the_page_outlives_the_engine(visit: Visit, own_server: OwnServer) -> None:
    visitor = visit()
    visitor.be_greedy(LONG)
    visitor.ask(STORY)
    visitor.wait_while_writing(tokens=5)

    own_server.kill_engine()

    expect(visitor.ending).to_have_text("Failed")
    expect(visitor.error).to_contain_text("The engine ended unexpectedly. It is being started again.")
    assert len(visitor.reply_tokens()) >= 5
    expect(visitor.engine_state).to_have_attribute("data-state", "loading")
    expect(visitor.connection_state).to_have_attribute("data-state", "live")

    # It is built again while the page waits, and goes on in the same conversation.
    visitor.wait_until_ready()
    visitor.be_greedy(tokens=8)
    assert visitor.answer_to("Hello!") != ""
    expect(visitor.questions).to_have_count(2)


def test_the_page_outlives_the_server(visit: Visit, own_server: OwnServer, complaints: Complaints) -> None:
    complaints.allow("WebSocket connection to .* failed")
    visitor = visit()
    visitor.be_greedy(LONG)
    visitor.ask(STORY)
    visitor.wait_while_writing(tokens=5)

    own_server.stop()

    # It had two seconds to finish, which is too little for this reply, and was told so.
    expect(visitor.ending).to_have_text("Failed")
    expect(visitor.error).to_contain_text("The server had to end before this reply did.")
    expect(visitor.engine_state).to_have_text("Engine unknown")
    own_server.start()

    # The page comes back by itself, shows the new engine loading, and turns live when it has loaded.
    visitor.wait_until_live()
    expect(visitor.notice).to_contain_text("The server was restarted. Your conversation was kept.")
    assert len(visitor.reply_tokens()) >= 5
    expect(visitor.engine_state).to_have_attribute("data-state", re.compile("loading|ready"))
    visitor.wait_until_ready()
    visitor.be_greedy(tokens=8)
    assert visitor.answer_to("Hello!") != ""
