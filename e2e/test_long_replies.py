"""Somebody reads a reply of many lines, which the page lays out in passages that nobody should notice."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from pages import Saved, SteersightPage
from replay import WRITTEN_ON

LIST = "Write a numbered list of twelve facts about Paris, each in a line of its own."
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


def test_what_is_copied_is_the_text_and_nothing_else(facts: SteersightPage) -> None:
    text, pieces = facts.reply_text(), facts.reply_tokens()
    assert len(facts.passages()) > 1

    facts.select_tokens(0, len(pieces) - 1)
    assert facts.copied() == text

    facts.select_tokens(3, len(pieces) - 4)
    assert facts.copied() == "".join(pieces[3:-3])


def test_a_selection_stays_while_the_reply_goes_on(app: SteersightPage) -> None:
    app.be_greedy(LONG)
    app.ask(LIST)
    app.wait_while_writing(tokens=12)
    app.select_tokens(2, 9)
    selected = "".join(app.reply_tokens()[2:10])

    app.wait_for_passages(2)

    assert app.selected() == selected
    app.stop()


def test_where_a_passage_ends_cannot_be_seen(talk: SteersightPage) -> None:
    talk.drop(Saved(WRITTEN_ON.name, WRITTEN_ON.read_bytes()))
    expect(talk.recording_title).to_contain_text("twelve facts")
    talk.wait_for_whole_map()
    assert len(talk.passages()) >= 4
    expect(talk.reply.locator(".reply-text")).to_have_count(2)

    for width in (390, 820, 1280, 1600):
        talk.look("light", width)
        same_places(talk, f"{width}")
    talk.rewrite_tokens(MIXED)
    for width in (390, 1280):
        talk.look("light", width)
        same_places(talk, f"mixed directions, {width}")


def test_a_slider_moved_in_a_later_paragraph_is_marked_there(
    facts: SteersightPage, pytestconfig: pytest.Config
) -> None:
    position = facts.wait_until_in_force("joy")

    mark = facts.reply.locator(".token[data-rev]")
    expect(mark).to_have_count(1)
    expect(mark).to_have_attribute("data-position", str(position + 1))
    assert mark.locator("xpath=..").text_content() != facts.passages()[0]
    mark.hover()
    expect(mark).to_have_class("token lit")
    expect(facts.tooltip).to_contain_text(f"{position + 1} reply")
    cell = facts.walk_map("End", "ArrowLeft")
    expect(facts.reply.locator(".token.lit")).to_have_attribute("data-position", str(cell.position))

    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    for scheme, width in product(("light", "dark"), (1280, 390)):
        facts.look(scheme, width)
        mark.scroll_into_view_if_needed()
        assert facts.sideways_overflow() <= 0, (scheme, width)
        facts.page.screenshot(path=folder / f"{scheme}-{width}-paragraphs.png", full_page=True)


def test_a_word_of_an_early_paragraph_is_found_in_the_page(facts: SteersightPage) -> None:
    first = facts.reply_tokens()[1].strip()

    assert facts.found(first), f"{first!r} is in the page and is not found."
