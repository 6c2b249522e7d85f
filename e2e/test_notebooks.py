"""The notebook of the documents, executed; and its widget in JupyterLab, live and without a kernel's help."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.sign import NotebookNotary
from playwright.sync_api import BrowserContext, expect

from lab import Lab, LabNotebook
from server import CODE_TOKEN, ROOT, OwnServer, Server

DOCUMENT = ROOT / "docs" / "notebook.ipynb"
WIDGET = "application/vnd.jupyter.widget-view+json"
# Wider than the widget, which stands in a cell's output.
WIDE, NARROW = 1340, 500
CELLS = (
    """
import os
from steersight import notebook
server = notebook.open(os.environ["STEERSIGHT_URL"])
run = server.ask("Tell me a long story about Paris.", max_tokens=400, temperature=0)
run.show()
""",
    """
run.applied(1)
run.stop()
print({rev: dict(one.strengths) for rev, one in run.wait().revisions.items()})
""",
)


@pytest.fixture(scope="module")
def lab(served: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab beside the server of the stories."""
    if not isinstance(served, OwnServer):
        pytest.skip("The token for code of the server under test is not ours to know.")
    there = {"STEERSIGHT_URL": served.url, "STEERSIGHT_NNSIGHT_TOKEN": CODE_TOKEN}
    made = Lab(tmp_path_factory.mktemp("lab"), there)
    try:
        made.wait_until_it_answers()
        served.wait_until_ready()
        yield made
    finally:
        made.stop()


@pytest.fixture
def opened(lab: Lab, new_context: Callable[..., BrowserContext]) -> Callable[[str], LabNotebook]:
    """A function that opens a notebook of the lab's folder."""

    def made(name: str) -> LabNotebook:
        context = new_context(viewport={"width": WIDE, "height": 1300}, color_scheme="light")
        context.set_default_timeout(60_000)
        return lab.open(context.new_page(), name)

    return made


def looks(pytestconfig: pytest.Config, shown: LabNotebook, name: str) -> None:
    """Pictures for people, and that nothing stands over the edge."""
    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        for width in (WIDE, NARROW):
            shown.look(scheme, width)
            over = shown.widget().evaluate("one => one.scrollWidth - one.clientWidth")
            assert over <= 0, (scheme, width, over)
            assert shown.colours(shown.widget()) > 50, "the map is blank"
            shown.page.screenshot(path=folder / f"{scheme}-{width}-{name}.png")


@pytest.mark.usefixtures("server")
def test_the_documented_notebook_runs_and_keeps_its_maps(
    lab: Lab, opened: Callable[[str], LabNotebook], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in lab.environment.items():
        monkeypatch.setenv(name, value)
    document = nbformat.read(DOCUMENT, nbformat.NO_CONVERT)
    assert not any(cell.get("outputs") for cell in document.cells), "outputs stand in the repository"
    NotebookClient(document, timeout=300).execute()
    shown = [
        one for cell in document.cells for one in cell.get("outputs", ()) if WIDGET in one.get("data", ())
    ]
    assert len(shown) == 2
    told = next(cell.outputs[0]["text"] for cell in document.cells if "run.applied" in cell.source)
    assert told.startswith("In force from position ")

    # Somebody is sent the executed notebook: the maps are in it, and nothing is run.
    copy = lab.folder / "executed.ipynb"
    nbformat.write(document, copy)
    NotebookNotary().sign(document)  # in the lab's own folder, which the environment names
    notebook = opened(copy.name)
    for number, (text, steered) in enumerate(
        (("Paris", "cannot be moved"), ("Eiffel", "Nothing was steered"))
    ):
        widget = notebook.widget(number)
        expect(widget.get_by_test_id("message-assistant")).to_contain_text(text)
        expect(widget.locator(".steering")).to_contain_text(steered)
        widget.scroll_into_view_if_needed()
        assert notebook.colours(widget) > 50, "the map is blank"


@pytest.mark.usefixtures("server")
def test_a_slider_in_a_notebook_steers_the_run_while_a_cell_waits_for_it(
    lab: Lab, opened: Callable[[str], LabNotebook], pytestconfig: pytest.Config
) -> None:
    made = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(made, lab.folder / "live.ipynb")
    notebook = opened("live.ipynb")
    notebook.run_all()
    widget = notebook.widget()
    expect(widget.get_by_test_id("message-assistant")).to_have_attribute("data-status", "streaming")
    expect(widget.locator(".reply")).to_contain_text("Paris")
    widget.get_by_test_id("slider-joy").fill("0.2")
    expect(widget.get_by_test_id("slider-status-joy")).to_have_attribute("data-state", "in-force")
    printed = notebook.output("'joy': 0.2")
    expect(printed).to_be_visible()
    revisions = ast.literal_eval(printed.inner_text().strip())
    assert revisions[0] == {}
    assert revisions[max(revisions)] == {"joy": 0.2}
    expect(widget.get_by_test_id("ending")).to_contain_text("Stopped")
    expect(widget.get_by_test_id("sliders-fixed")).to_be_visible()
    left = widget.locator(".widget-text").evaluate(
        "one => one.scrollHeight - one.clientHeight - one.scrollTop"
    )
    assert left < 40, "the end of the reply is out of view"
    looks(pytestconfig, notebook, "notebook")
