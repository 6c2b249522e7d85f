"""Somebody makes a slider in the page, while somebody else goes on chatting."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import expect

import wire
from pages import QUESTION, SteersightPage
from server import Server

MORE = "You are in a great hurry. You answer in as few words as you can."
LESS = "You have all the time in the world. You answer at length and with many details."
# What is promised on two cores with nothing else to do; a busy machine gets more.
PROMISED_SECONDS = 90
WAIT_SECONDS = 300

pytestmark = pytest.mark.usefixtures("nothing_stays")


def test_from_a_click_to_a_slider_that_works(app: SteersightPage, server: Server) -> None:
    before = wire.ask(server.socket_url, QUESTION)
    began = time.monotonic()
    app.build("In a hurry", MORE, LESS)
    beside = wire.ask(server.socket_url, QUESTION)
    app.wait_for_build(WAIT_SECONDS)
    took = time.monotonic() - began

    # Nobody else's reply is touched by it.
    assert beside.ids == before.ids
    assert took < PROMISED_SECONDS, f"It took {took:.0f} s."
    expect(app.page.get_by_test_id("build-separation")).to_be_visible()
    assert app.page.get_by_test_id("build-samples").locator("tbody tr").count() >= 3

    app.use_it()
    vector = app.wire.vector_named("In a hurry")
    expect(app.strength(vector.id)).to_have_value(f"{round(vector.suggested, 2):g}")
    app.be_greedy()
    assert app.answer_to() != before.text
    app.open_card(vector.id)
    expect(app.card).to_contain_text(MORE)


def test_a_build_is_found_again_after_a_reload_and_can_be_cancelled(app: SteersightPage) -> None:
    app.build("Not for long", MORE, LESS)
    app.page.keyboard.press("Escape")
    expect(app.build_line).to_contain_text("Not for long")

    app.page.reload()
    expect(app.build_line).to_contain_text("Not for long")
    app.page.get_by_test_id("build-open").click()
    app.page.get_by_test_id("build-cancel").click()

    expect(app.new_slider_dialog).to_contain_text("The build was cancelled.")
    assert app.page.get_by_text("Not for long").count() == 0
