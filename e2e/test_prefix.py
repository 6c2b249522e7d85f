"""The same server behind a path prefix, as a proxy serves it beside other sites."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

import wire
from conftest import Visit
from pages import QUESTION, SteersightPage
from prefix import PrefixProxy
from server import Server


@pytest.fixture(scope="module")
def proxy(served: Server) -> Iterator[PrefixProxy]:
    """The proxy, in front of the server of the whole run. It outlives every visitor, who would miss it."""
    with PrefixProxy(served.url, "/lab/steersight").running() as running:
        yield running


@pytest.fixture
def server(server: Server, proxy: PrefixProxy) -> Server:
    """What every visitor of these stories goes to: the server behind its prefix."""
    return Server(proxy.url)


def test_all_of_it_works_behind_a_prefix(visit: Visit, server: Server, proxy: PrefixProxy) -> None:
    app = visit()
    assert urlsplit(app.page.url).path == "/lab/steersight/"
    app.be_greedy()
    app.steer("joy", 0.15)
    reply = app.answer_to()

    assert reply == wire.ask(server.socket_url, QUESTION, strengths={"joy": 0.15}).text
    assert app.wait_for_whole_map().layers == app.wire.layers()
    # Over HTTP: a vector's card and its file.
    app.open_card("joy")
    assert len(app.download()) > 1000
    app.page.keyboard.press("Escape")
    app.reload()
    expect(app.questions).to_have_text([QUESTION])
    assert proxy.elsewhere == []


def test_links_lead_behind_the_prefix_too(visit: Visit, proxy: PrefixProxy) -> None:
    app = visit()
    app.steer("joy", 0.15)
    assert app.link().startswith(f"{proxy.url}/#s=")
    friend = SteersightPage(visit(ready=False).page, app.link())
    friend.open()
    expect(friend.strength("joy")).to_have_value("0.15")

    app.be_greedy(tokens=300)
    app.ask()
    app.wait_while_writing(tokens=2)
    tab = app.watch_in_another_tab()
    assert urlsplit(tab.page.url).path == "/lab/steersight/"
    tab.wait_while_writing(tokens=2)
    app.stop()
    assert proxy.elsewhere == []
