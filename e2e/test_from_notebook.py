"""A notebook beside the page: stock NNsight, in a process of its own, on the server that the page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

import wire
from cells import EDIT, FAILS, LAYER, PROMPT
from conftest import Visit
from pages import QUESTION, SteersightPage
from server import CODE_TOKEN, OwnServer, Server
from test_looks import pictures, readable

__all__ = ["pictures"]

CELLS = Path(__file__).with_name("cells.py")
TOKENS = 16


class Notebook:
    """The process, and the cells that it runs."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(CELLS), url, CODE_TOKEN],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._said("ready")

    def _said(self, word: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if (text := line.strip()) == word:
                return
            # What vLLM prints while it is imported is no answer.
            assert word == "ready", text
        raise AssertionError(f"The notebook ended before it said {word!r}.")

    def begin(self, cell: str) -> None:
        """Run a cell, and do not wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{cell}\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Until the cell is done."""
        self._said("done")

    def stopped(self) -> None:
        """Until the cell says that its run was stopped."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert "The run was stopped before its end." in said, said

    def run(self, cell: str) -> None:
        """Both."""
        self.begin(cell)
        self.wait()

    def end(self) -> None:
        """The kernel is shut down."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


@pytest.fixture(scope="module")
def notebook(served: Server) -> Iterator[Notebook]:
    """One for all stories here: NNsight's model takes a while."""
    if not isinstance(served, OwnServer):
        pytest.skip("The token for code of the server under test is not ours to know.")
    served.wait_until_ready()
    made = Notebook(served.url)
    try:
        yield made
    finally:
        made.end()


def look(page: SteersightPage, folder: Path, name: str) -> None:
    """Everybody can read it, in both themes and on a small screen; pictures for people to look at."""
    for scheme in ("light", "dark"):
        for width in (1280, 390):
            page.look(scheme, width)
            readable(page, f"{name}, {scheme}, {width}")
            page.page.screenshot(path=folder / f"{name}-{scheme}-{width}.png")
    page.look("light", 1280)


def switch_on(switch: Locator) -> None:
    """The page draws what was clicked in its next frame."""
    switch.click()
    expect(switch).to_be_checked()


def test_a_notebooks_run_appears_while_it_is_written_and_a_slider_changes_it(
    own_server: OwnServer, notebook: Notebook, visit: Visit, pictures: Path
) -> None:
    idle, busy = visit(), visit()
    busy.be_greedy(TOKENS)
    said = busy.answer_to(QUESTION)
    notebook.begin("trace")
    # The page that shows nothing opens it by itself.
    idle.wait_while_writing(tokens=4)
    expect(idle.page.get_by_test_id("from")).to_have_text("From a notebook")
    expect(idle.questions.last).to_have_text(PROMPT)
    idle.steer("joy", 0.3)
    position = idle.wait_until_in_force("joy")
    assert idle.heatmap().revisions == [(1, position)]
    for scheme in ("light", "dark"):
        idle.look(scheme, 1280)
        idle.page.screenshot(path=pictures / f"notebook-live-{scheme}.png")
    idle.look("light", 1280)
    # The one in use keeps what it shows, and lists it.
    entry = busy.page.get_by_test_id("notebook-run").first
    expect(entry).to_contain_text(PROMPT)
    assert busy.reply_text() == said
    entry.click()
    expect(busy.page.get_by_test_id("from")).to_be_visible()
    expect(busy.strength("joy")).to_have_value("0.3")
    busy.page.get_by_test_id("notebook-back").click()
    expect(busy.page.get_by_test_id("from")).to_have_count(0)
    assert busy.reply_text() == said
    expect(busy.strength("joy")).to_have_value("0")
    # Anybody who looks on may end it.
    idle.stop()
    notebook.stopped()
    expect(entry).to_have_attribute("data-state", "finished")
    look(idle, pictures, "notebook")


def test_what_a_notebooks_code_emits_is_on_the_map_as_it_is_computed(
    own_server: OwnServer, notebook: Notebook, visit: Visit, pictures: Path
) -> None:
    page = visit()
    mine = page.metric_picker.locator("optgroup[label='Live values'] option")
    expect(mine).to_have_count(0)
    notebook.begin("emit")
    page.wait_while_writing(tokens=4)
    expect(mine).to_have_text("length")
    page.pick_metric("live:length")
    page.wait_for_columns(more_than=page.heatmap().columns)
    # It is what the server itself says of the same layer, up to half precision.
    cell = page.walk_map("Home", "ArrowRight", *("ArrowUp",) * LAYER)
    assert (cell.position, cell.layer) == (1, LAYER)
    for scheme in ("light", "dark"):
        page.look(scheme, 1280)
        page.page.screenshot(path=pictures / f"live-values-{scheme}.png")
    page.look("light", 1280)
    page.pick_metric("residual_norm")
    assert page.walk_map("Home", "ArrowRight").value == pytest.approx(cell.value, rel=1e-2)
    page.stop()
    notebook.stopped()


def test_an_edit_acts_on_the_replies_that_it_is_switched_on_for(
    own_server: OwnServer, notebook: Notebook, visit: Visit, pictures: Path
) -> None:
    page = visit()
    page.be_greedy(TOKENS)
    edits = page.page.get_by_test_id("edits")
    expect(edits).to_have_count(0)
    plain = page.answer_to(QUESTION)
    notebook.run("edit")
    expect(edits).to_contain_text(EDIT)
    switch_on(page.page.get_by_test_id("edit-switch"))
    page.regenerate_button.click()
    expect(page.page.get_by_test_id("edits-of")).to_have_text(f"Edited by {EDIT}")
    edited = page.wait_for_reply()
    assert edited != plain
    assert wire.ask(own_server.socket_url, QUESTION, tokens=TOKENS).text == plain, "a neighbour felt it"
    look(page, pictures, "edits")

    notebook.run("edit that fails")
    failing = page.page.get_by_test_id("edit").filter(has_text=FAILS)
    switch_on(failing.get_by_test_id("edit-switch"))
    page.regenerate_button.click()
    expect(page.error.last).to_contain_text(f"The edit '{FAILS}' failed in this reply: RuntimeError")
    expect(failing.get_by_test_id("edit-error")).to_contain_text("RuntimeError")

    for name in (EDIT, FAILS):
        line = page.page.get_by_test_id("edit").filter(has_text=name)
        line.get_by_test_id("edit-remove").click()
        line.get_by_test_id("edit-remove-sure").click()
        expect(line).to_have_count(0)
    expect(page.page.get_by_text(re.compile("no longer on this server"))).to_be_visible()
    page.regenerate_button.click()
    assert page.wait_for_reply() == plain
    notebook.run("clear")
