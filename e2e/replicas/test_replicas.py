"""Two whole servers behind the balancer: where a page is, where it comes back to, and whether it is told.

Run by `make docker-test`, which starts the containers and says how to reach them.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from playwright.sync_api import expect

from conftest import Complaints, Visit
from pages import SteersightPage

COMPOSE = os.environ.get("STEERSIGHT_COMPOSE", "")
pytestmark = pytest.mark.skipif(not COMPOSE, reason="needs the containers of `make docker-test`")


def compose(*arguments: str) -> None:
    """Ask Compose for something, and wait until it is done."""
    subprocess.run([*COMPOSE.split(), *arguments], check=True)


def replica_of(app: SteersightPage) -> str:
    """The replica that the page says it is on."""
    name = app.page.get_by_test_id("server-name")
    expect(name).to_have_text(re.compile("^replica-[ab]$"))
    return name.inner_text()


def test_a_page_stays_on_its_replica(visit: Visit) -> None:
    app = visit()
    home = replica_of(app)
    for _ in range(3):
        app.page.reload()
        app.wait_until_ready()
        assert replica_of(app) == home


def test_a_page_comes_back_to_its_replica_when_the_balancer_was_away(
    visit: Visit, complaints: Complaints
) -> None:
    complaints.allow("WebSocket connection|Failed to load resource")
    app = visit()
    home = replica_of(app)
    compose("restart", "balancer")
    app.wait_until_live()
    app.wait_until_ready()
    assert replica_of(app) == home
    expect(app.page.get_by_test_id("notice-banner")).to_be_hidden()
    app.be_greedy(tokens=8)
    assert app.answer_to()


def test_a_page_whose_replica_is_gone_is_told_that_it_is_on_the_other(
    visit: Visit, complaints: Complaints
) -> None:
    complaints.allow("WebSocket connection|Failed to load resource")
    app = visit()
    app.be_greedy(tokens=8)
    first = app.answer_to()
    home = replica_of(app)
    other = "replica-b" if home == "replica-a" else "replica-a"
    try:
        compose("stop", home)
        expect(app.page.get_by_test_id("notice-banner")).to_contain_text(f"another server ({other})")
        app.wait_until_ready()
        assert replica_of(app) == other
        # The conversation is the page's own: it is still there, and goes on where it was.
        expect(app.replies).to_have_count(1)
        assert app.reply_text() == first
        assert app.answer_to("And what should I eat there?")
        expect(app.replies).to_have_count(2)
    finally:
        compose("start", home)
