"""People who write from right to left, in the same page as those who do not."""

from __future__ import annotations

import unicodedata
from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from pages import SteersightPage
from server import ROOT, Server

HEBREW = "\u05e9\u05dc\u05d5\u05dd! \u05e1\u05e4\u05e8 \u05dc\u05d9 \u05e2\u05dc Paris."
ARABIC = "\u0645\u0631\u062d\u0628\u0627"
SHALOM = "\u05e9\u05dc\u05d5\u05dd"


def side(text: Locator) -> str:
    """The side at which the first letter of a text stands: where its first line begins."""
    found: str = text.evaluate(
        """node => {
            const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
            const first = walker.nextNode();
            const range = document.createRange();
            range.setStart(first, 0);
            range.setEnd(first, 1);
            const letter = range.getBoundingClientRect();
            const box = node.getBoundingClientRect();
            return letter.left - box.left < box.right - letter.right ? 'left' : 'right';
        }"""
    )
    return found


def reading_side(text: str) -> str:
    """The side at which a text begins, by its first letter that has a direction."""
    kinds = (unicodedata.bidirectional(letter) for letter in text)
    strong = next((kind for kind in kinds if kind in ("L", "R", "AL")), "L")
    return "left" if strong == "L" else "right"


def direction(field: Locator) -> str:
    """In which direction a field is written."""
    found: str = field.evaluate("node => getComputedStyle(node).direction")
    return found


@pytest.mark.usefixtures("nothing_stays")
def test_each_text_stands_as_it_is_read(
    app: SteersightPage, server: Server, pytestconfig: pytest.Config
) -> None:
    file = (ROOT / "backend/steersight/vectors/bundled/smollm2-135m-instruct/joy.safetensors").read_bytes()
    app.choose_file("joy.safetensors", file, label=f"{SHALOM} \u05e8\u05d5\u05d2\u05e2")
    app.report()
    app.add_import()
    (own,) = server.own_vectors()

    assert direction(app.prompt) == "ltr"
    app.prompt.fill(HEBREW)
    assert direction(app.prompt) == "rtl"
    app.be_greedy(tokens=24)
    replies = [
        app.answer_to(f"{HEBREW}\nAnd in English."),
        app.answer_to(f"Repeat this word: {ARABIC} {ARABIC} {ARABIC}"),
    ]

    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    app.prompt.fill(HEBREW)
    for scheme, width in product(("light", "dark"), (390, 1600)):
        app.look(scheme, width)
        assert direction(app.prompt) == "rtl"
        first, second = app.questions.all()
        assert (side(first), side(second)) == ("right", "left"), (scheme, width)
        for shown, text in zip(app.replies.locator(".reply").all(), replies, strict=True):
            assert side(shown) == reading_side(text), f"{text!r} begins at the wrong side: {scheme}, {width}."
        assert direction(app.page.locator(f"label[for=slider-{own}]")) == "rtl"
        expect(app.page.locator("html")).to_have_css("direction", "ltr")
        assert app.sideways_overflow() <= 0, (scheme, width)
        app.page.screenshot(path=folder / f"{scheme}-{width}-hebrew.png", full_page=True)
