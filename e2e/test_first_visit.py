"""Somebody opens the page for the first time."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx
from playwright.sync_api import expect

from conftest import Complaints, Visit
from pages import SteersightPage
from server import Server


def test_the_page_is_there_before_or_after_the_engine_is(visit: Visit) -> None:
    visitor = visit(ready=False)

    visitor.wait_until_live()
    expect(visitor.engine_state).to_have_attribute("data-state", re.compile("loading|ready"))
    expect(visitor.prompt).to_be_editable()
    visitor.wait_until_ready()
    expect(visitor.engine_state).to_have_text("Engine ready")


def test_it_says_which_model_it_serves(app: SteersightPage, server: Server) -> None:
    served = httpx.get(f"{server.url}/api/model", timeout=30).json()

    expect(app.model).to_have_text(served["id"])
    expect(app.model).to_have_attribute("title", re.compile(rf"{served['layers']} layers"))


def test_the_first_question_is_answered(app: SteersightPage) -> None:
    app.be_greedy()

    reply = app.answer_to("What is the capital of France?")

    assert "Paris" in reply
    expect(app.prompt).to_have_value("")
    expect(app.questions).to_have_text(["What is the capital of France?"])


def test_everything_comes_from_this_server(
    app: SteersightPage, server: Server, complaints: Complaints
) -> None:
    app.be_greedy(tokens=4)
    app.answer_to()

    hosts = {urlsplit(url).netloc for url in complaints.requests if not url.startswith("data:")}
    assert hosts == {urlsplit(server.url).netloc}
