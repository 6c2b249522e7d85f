"""Makes the recordings that stories are told from: real replies of the bundled model, saved from the page.

    make recordings                  # all of them
    make recordings ARGS=facts       # those that are named

Starts a server of its own, or uses the one that STEERSIGHT_E2E_URL names. They are made anew only when
stories need something else of them: an older file must stay readable.
"""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright

from pages import SteersightPage
from record import launched, server
from replay import FACTS, RECORDINGS, TALK, WRITTEN_ON

TWELVE = "Write a numbered list of twelve facts about Paris, each in a line of its own."


def talk(app: SteersightPage) -> None:
    """Two short turns, the second steered from its beginning."""
    app.be_greedy()
    app.answer_to()
    app.steer("joy", 0.15)
    app.answer_to("And about Rome?")


def facts(app: SteersightPage) -> None:
    """A reply of many lines, steered from one of its later lines on."""
    app.be_greedy(600)
    app.watch("logit_lens", "parts")
    app.ask(TWELVE)
    app.wait_for_passages(2)
    app.steer("joy", 0.3)
    position = app.wait_until_in_force("joy")
    app.wait_while_writing(tokens=position - app.position_of(0) + 30)
    app.stop()


def written_on(app: SteersightPage) -> None:
    """A steered reply of many lines that was written on unsteered."""
    app.be_greedy(600)
    app.steer("joy", 0.2)
    app.ask(TWELVE)
    app.wait_for_passages(2)
    app.steer("joy", 0)
    app.wait_until_in_force("joy")
    app.write_on("joy")
    app.wait_for_passages(4)
    app.stop()


KINDS = {"talk": (TALK, talk), "facts": (FACTS, facts), "written-on": (WRITTEN_ON, written_on)}


def main() -> None:
    """Make those that are named, or all."""
    RECORDINGS.mkdir(exist_ok=True)
    with server() as running, sync_playwright() as playwright, launched(playwright) as browser:
        running.wait_until_ready()
        for path, happens in (KINDS[name] for name in sys.argv[1:] or KINDS):
            app = SteersightPage(browser.new_context().new_page(), running.url)
            app.open()
            app.wait_until_ready()
            happens(app)
            app.wait_for_whole_map()
            path.write_bytes(app.save("conversation").data)
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
