"""JupyterLab as a process of its own, and a notebook in it as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
from playwright.sync_api import Locator, Page, expect

from server import ANSWER_SECONDS, free_port

# It asks the network for news, and follows the system's theme only if it is told to.
SETTINGS = {
    "notification": {"fetchNews": "false", "checkForUpdates": False},
    "themes": {"adaptive-theme": True},
}
BLANK = """canvas => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""
"""How many colours a canvas has."""


class Lab:
    """The process; `folder` holds its notebooks and everything that it writes."""

    def __init__(self, folder: Path, more: dict[str, str]) -> None:
        """`more` is what its kernels find in their environment."""
        self.folder = folder / "notebooks"
        self.folder.mkdir(parents=True)
        settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        for name, values in SETTINGS.items():
            (settings / f"{name}.jupyterlab-settings").write_text(json.dumps(values))
        own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
        self.environment = {**os.environ, **own, "IPYTHONDIR": str(folder / "ipython"), **more}
        self._address = f"http://127.0.0.1:{free_port()}"
        with (folder / "jupyter.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                    f"--port={self._address.rpartition(':')[2]}", "--ServerApp.port_retries=0",
                    "--IdentityProvider.token=", f"--ServerApp.root_dir={self.folder}",
                    f"--LabApp.user_settings_dir={folder / 'settings'}",
                    f"--LabApp.workspaces_dir={folder / 'workspaces'}",
                ],
                stdout=log, stderr=subprocess.STDOUT, env=self.environment,
            )  # fmt: skip

    def wait_until_it_answers(self) -> None:
        """Until pages can be opened."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            assert self._process.poll() is None, "JupyterLab ended; see its jupyter.log."
            assert time.monotonic() < deadline, "JupyterLab does not answer."
            try:
                httpx.get(f"{self._address}/api", timeout=5).raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        """End it, with its kernels."""
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def open(self, page: Page, name: str) -> LabNotebook:
        """A notebook of the folder, in the whole window."""
        page.goto(f"{self._address}/lab/tree/{name}?reset")
        expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible()
        page.keyboard.press("Control+b")
        expect(page.locator(".jp-FileBrowser")).to_be_hidden()
        return LabNotebook(page)


class LabNotebook:
    """An open notebook."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def run_all(self) -> None:
        """Run all cells, and do not wait for them."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()

    def widget(self, number: int = 0) -> Locator:
        """One of the widgets that are shown."""
        return self.page.get_by_test_id("steersight-widget").nth(number)

    def colours(self, widget: Locator) -> int:
        """How many colours the map of a widget has."""
        found: int = widget.locator(".heatmap canvas").first.evaluate(BLANK)
        return found

    def output(self, text: str) -> Locator:
        """What a cell has printed."""
        return self.page.locator(".jp-OutputArea-output", has_text=text)

    def look(self, scheme: str, width: int) -> None:
        """As it is in one theme, and a window of one width."""
        self.page.emulate_media(color_scheme=scheme)
        light = "true" if scheme == "light" else "false"
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        self.page.set_viewport_size({"width": width, "height": 1300})
        expect(self.widget()).to_have_attribute("data-theme", scheme)
