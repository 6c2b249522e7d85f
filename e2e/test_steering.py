"""Somebody turns a slider, before a reply and while it is being written."""

from __future__ import annotations

import re

from playwright.sync_api import expect

import wire
from pages import QUESTION, SteersightPage
from server import Server

# Longer than any of these replies is watched, so that none ends before its slider has moved.
LONG = 400


def test_a_slider_acts_while_the_reply_is_written(app: SteersightPage, server: Server) -> None:
    app.be_greedy(LONG)
    app.ask()
    app.wait_while_writing(tokens=8)

    app.steer("joy", 0.3)
    position = app.wait_until_in_force("joy")
    same = position - app.position_of(0) + 1
    app.wait_while_writing(tokens=same + 16)
    app.stop()

    # The row at `position` is the first that was computed with the new value; it may change the next token,
    # and that is the one that is marked.
    steered = app.wire.reply_ids()
    unsteered = wire.ask(server.socket_url, QUESTION, tokens=len(steered)).ids
    assert same >= 8
    assert steered[:same] == unsteered[:same], "Tokens from before the change are not what they were."
    assert steered != unsteered, "Moving the slider changed nothing."
    assert app.heatmap().revisions == [(1, position)]
    mark = app.reply.locator(".token[data-rev]")
    expect(mark).to_have_count(1)
    expect(mark).to_have_attribute("data-position", str(position + 1))


def test_a_slider_set_before_asking_steers_from_the_first_token(app: SteersightPage, server: Server) -> None:
    app.be_greedy()
    app.steer("pirate", 0.2)
    expect(app.status("pirate")).to_have_text("for the next reply")

    reply = app.answer_to()

    expect(app.status("pirate")).to_have_text(re.compile("in force at token 0"))
    assert app.wait_for_whole_map().revisions == []
    assert reply == wire.ask(server.socket_url, QUESTION, strengths={"pirate": 0.2}).text
    assert reply != wire.ask(server.socket_url, QUESTION).text


def test_back_at_zero_the_next_reply_is_unsteered(app: SteersightPage, server: Server) -> None:
    app.be_greedy(LONG)
    app.steer("joy", 0.3)
    app.ask()
    app.wait_while_writing(tokens=6)
    app.steer("joy", 0)
    back = app.wait_until_in_force("joy")
    app.stop()

    assert app.heatmap().revisions == [(1, back)]

    app.be_greedy()
    app.new_chat()
    assert app.answer_to() == wire.ask(server.socket_url, QUESTION).text


def test_reset_puts_every_slider_back(app: SteersightPage) -> None:
    app.steer("joy", 0.2)
    app.steer("french", -0.1)

    app.reset_all.click()

    expect(app.strength("joy")).to_have_value("0")
    expect(app.strength("french")).to_have_value("0")
    expect(app.reset_all).to_be_disabled()
    app.be_greedy(tokens=4)
    app.answer_to()
    assert app.wire.last_start().strengths == {}


def test_two_sliders_are_in_force_together(app: SteersightPage, server: Server) -> None:
    strengths = {"formality": 0.1, "joy": -0.1}
    app.be_greedy()
    for vector, strength in strengths.items():
        app.steer(vector, strength)

    reply = app.answer_to()

    assert app.wire.last_start().strengths == strengths
    assert reply == wire.ask(server.socket_url, QUESTION, strengths=strengths).text


def test_a_slider_obeys_the_keyboard(app: SteersightPage) -> None:
    slider = app.slider("joy")
    slider.focus()

    slider.press("End")
    expect(app.strength("joy")).to_have_value(slider.get_attribute("max") or "")
    slider.press("0")
    expect(app.strength("joy")).to_have_value("0")
    slider.press("ArrowRight")
    expect(app.strength("joy")).to_have_value("0.01")


def test_a_number_beyond_the_slider_becomes_its_end(app: SteersightPage) -> None:
    app.strength("joy").fill("99")
    app.strength("joy").press("Enter")

    expect(app.strength("joy")).to_have_value(app.slider("joy").get_attribute("max") or "")
