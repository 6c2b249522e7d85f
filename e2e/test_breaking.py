"""Somebody steers too hard, sees it, and gets out of it."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from pages import SteersightPage

LONG = 400
# Together they make the bundled model repeat a few words from the first line on.
TOO_MUCH = {"joy": -0.3, "pirate": 0.3}


def test_a_reply_that_breaks_is_said_so_until_the_next_one(app: SteersightPage) -> None:
    app.be_greedy(tokens=60)
    for vector, strength in TOO_MUCH.items():
        app.steer(vector, strength)
    app.answer_to()
    app.wait_for_whole_map()

    for vector in TOO_MUCH:
        expect(app.warning(vector)).to_have_text("These strengths are breaking the reply.")
    expect(app.warning("formality")).to_have_count(0)
    expect(app.breaking).to_have_text("These strengths are breaking the reply.")

    app.reset_all.click()
    app.new_chat()
    app.answer_to()
    expect(app.warning("joy")).to_have_count(0)
    expect(app.breaking).to_have_text("")


def test_a_strength_that_suits_is_not_complained_about(app: SteersightPage) -> None:
    app.be_greedy(tokens=60)
    app.steer("joy", 0.1)
    app.answer_to()
    app.wait_for_whole_map()

    expect(app.breaking).to_have_text("")


def test_projection_and_share_are_those_that_were_sent(app: SteersightPage) -> None:
    app.be_greedy()
    app.steer("joy", 0.2)
    app.answer_to()
    app.wait_for_whole_map()

    (layer,) = app.wire.vector_layers("joy")
    projection = app.wire.values("projection:joy")
    newest = max(projection)
    expect(app.projection("joy")).to_have_text(f"{projection[newest][layer]:.3f}")
    share = app.wire.values("steering_share")[newest]
    assert share[layer] == pytest.approx(0.2, abs=0.002)
    shown = app.page.get_by_test_id("steering-share").get_attribute("data-most")
    assert float(shown or "nan") == pytest.approx(max(share), abs=1e-4)


def test_a_reply_that_is_steered_only_later_is_told_of_too(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.ask()
    app.wait_while_writing(tokens=4)
    expect(app.projection("joy")).to_have_count(0)
    app.steer("joy", 0.2)
    app.wait_until_in_force("joy")

    expect(app.projection("joy")).to_have_text(re.compile(r"^0\.\d{3}$"))
    expect(app.page.get_by_test_id("steering-share")).to_have_attribute(
        "data-most", re.compile(r"^0\.(19|20)")
    )
    app.stop()


def test_a_reply_is_written_on_without_its_steered_past(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.steer("joy", 0.3)
    app.ask()
    app.wait_while_writing(tokens=8)
    expect(app.left_behind("joy")).to_have_count(0)
    app.steer("joy", 0)
    app.wait_until_in_force("joy")
    expect(app.left_behind("joy")).to_contain_text("stay in the model's memory")

    app.write_on("joy")
    start = app.wire.last_start()
    so_far = start.messages[-1].content
    app.wait_while_writing(tokens=app.token_count() + 4)
    app.stop()

    assert (start.write_on, start.strengths, start.messages[-1].role) == (True, {}, "assistant")
    assert app.replies.count() == 1, "The reply went on in another bubble."
    text = app.reply_text()
    assert text.startswith(so_far)
    assert len(text) > len(so_far)
    expect(app.left_behind("joy")).to_have_count(0)
    assert app.heatmap().revisions == []
