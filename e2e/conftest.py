"""The product as a stranger has it: `steersight serve` as its own process, and a browser on its page."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
ARTIFACTS = ROOT / "artifacts"
# Loading takes about 40 s on two cores; this is for a machine that is busy with something else too.
LOAD_SECONDS = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Served:
    """A running server."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], answered_after: float) -> None:
        self.url = url
        self.process = process
        self.answered_after = answered_after


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """Start the server and wait until it answers, not until its engine is ready: tests watch that too."""
    ARTIFACTS.mkdir(exist_ok=True)
    port = free_port()
    command = [str(Path(sys.executable).parent / "steersight"), "serve", "--port", str(port)]
    if folder := os.environ.get("STEERSIGHT_MODEL_DIR"):
        command += ["--model", folder]
    began = time.monotonic()
    with (ARTIFACTS / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{port}"
        try:
            while True:
                assert process.poll() is None, f"The server ended; see {ARTIFACTS / 'server.log'}"
                assert time.monotonic() - began < 60, "The server does not answer."
                try:
                    httpx.get(f"{url}/healthz", timeout=2)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield Served(url, process, time.monotonic() - began)
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    # Chromium's sandbox does not run as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=system, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """A fresh page on the server; anything it writes to its console as an error fails the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(served.url)
    yield page
    context.close()
    assert complaints == []
