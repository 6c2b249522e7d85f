"""Somebody reads a reply of many lines, which the page lays out in passages that nobody should notice."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from pages import SteersightPage

LIST = "Write a numbered list of twelve facts about Paris, each in a line of its own."
TOKENS = 160
# Longer than any of these replies is watched, so that none ends before something has happened to it.
LONG = 600

# Words of both directions, digits, a word that fits into no line, and what stands between them.
MIXED = [
    "\u05e9\u05dc\u05d5\u05dd",
    " 12.5",
    " Paris",
    " \u0645\u0631\u062d\u0628\u0627",
    "!",
    " w" * 9,
    "x" * 90,
]


def same_places(app: SteersightPage, what: str) -> None:
    """Each token of the last reply is where it would be if the reply were one block."""
    divided, whole = app.places_of_tokens(), app.places_of_tokens(undivided=True)
    # A browser rounds the width of each piece that it draws, to a 64th of a pixel.
    np.testing.assert_allclose(divided, whole, atol=0.1, err_msg=what)


def test_what_is_copied_is_the_text_and_nothing_else(app: SteersightPage) -> None:
    app.be_greedy(TOKENS)
    text = app.answer_to(LIST)
    pieces = app.reply_tokens()
    assert len(app.passages()) > 1, f"This reply has too few lines: {text!r}"

    app.select_tokens(0, len(pieces) - 1)
    assert app.copied() == text

    app.select_tokens(3, len(pieces) - 4)
    assert app.copied() == "".join(pieces[3:-3])


def test_a_selection_stays_while_the_reply_goes_on(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.ask(LIST)
    app.wait_while_writing(tokens=12)
    app.select_tokens(2, 9)
    selected = "".join(app.reply_tokens()[2:10])

    app.wait_for_passages(2)

    assert app.selected() == selected
    app.stop()


def test_where_a_passage_ends_cannot_be_seen(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.steer("joy", 0.2)
    app.ask(LIST)
    app.wait_for_passages(2)
    app.steer("joy", 0)
    app.wait_until_in_force("joy")
    app.write_on("joy")
    app.wait_for_passages(4)
    app.stop()
    written_on = app.reply.locator(".reply-text").last.locator(".token").first
    expect(written_on).to_be_attached()

    for width in (390, 820, 1280, 1600):
        app.look("light", width)
        same_places(app, f"{width}")
    app.rewrite_tokens(MIXED)
    for width in (390, 1280):
        app.look("light", width)
        same_places(app, f"mixed directions, {width}")


def test_a_slider_moved_in_a_later_paragraph_is_marked_there(
    app: SteersightPage, pytestconfig: pytest.Config
) -> None:
    app.be_greedy(LONG)
    app.ask(LIST)
    app.wait_for_passages(2)
    app.steer("joy", 0.3)
    position = app.wait_until_in_force("joy")
    app.wait_while_writing(tokens=position - app.position_of(0) + 12)
    app.stop()

    mark = app.reply.locator(".token[data-rev]")
    expect(mark).to_have_count(1)
    expect(mark).to_have_attribute("data-position", str(position + 1))
    assert mark.locator("xpath=..").text_content() != app.passages()[0]
    mark.hover()
    expect(mark).to_have_class("token lit")
    expect(app.tooltip).to_contain_text(f"{position + 1} reply")
    cell = app.walk_map("End", "ArrowLeft")
    expect(app.reply.locator(".token.lit")).to_have_attribute("data-position", str(cell.position))

    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    for scheme, width in product(("light", "dark"), (1280, 390)):
        app.look(scheme, width)
        mark.scroll_into_view_if_needed()
        assert app.sideways_overflow() <= 0, (scheme, width)
        app.page.screenshot(path=folder / f"{scheme}-{width}-paragraphs.png", full_page=True)


def test_a_word_of_an_early_paragraph_is_found_in_the_page(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.ask(LIST)
    app.wait_for_passages(2)
    app.stop()
    first = app.reply_tokens()[1].strip()

    assert app.found(first), f"{first!r} is in the page and is not found."
