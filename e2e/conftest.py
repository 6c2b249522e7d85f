"""What every story stands on: one server for all, a browser, visitors, and no complaint left unheard."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Request, WebError, expect

from pages import SteersightPage
from replay import FACTS, TALK, replaying
from server import OwnServer, Server

# Not steady yet: how long their runs last depends on the machine, and what they do takes longer on some.
# STEERSIGHT_NOTEBOOK_STORIES=1 runs them.
collect_ignore = (
    [] if "STEERSIGHT_NOTEBOOK_STORIES" in os.environ else ["test_from_notebook.py", "test_notebooks.py"]
)


# Of a single step on the page. Generous: a story waits for a state and goes on as soon as it is there.
STEP_MS = 60_000

expect.set_options(timeout=STEP_MS)


def pytest_configure() -> None:
    """A run that is told to end ends as with Ctrl-C: the server and the browser go with it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


# ------------------------------------------------------------------ the server


@contextmanager
def serving(pytestconfig: pytest.Config, log: str, *words: str) -> Iterator[OwnServer]:
    """A server of our own, for as long as the context lasts; `log` is the name of its log among what the
    tests leave, and `words` is what `steersight serve` is told besides."""
    folder = Path(pytestconfig.getoption("--output"))
    folder.mkdir(parents=True, exist_ok=True)
    own = OwnServer(folder / log, *words)
    try:
        own.start()
        yield own
    finally:
        own.stop()


@pytest.fixture(scope="session")
def served(pytestconfig: pytest.Config, delete_output_dir: None) -> Iterator[Server]:
    """The server of the whole run. It answers; its engine may still be loading."""
    if url := os.environ.get("STEERSIGHT_E2E_URL"):
        foreign = Server(url)
        foreign.wait_until_it_answers()
        yield foreign
        return
    with serving(pytestconfig, "server.log", "--nnsight") as own:
        yield own


@pytest.fixture
def server(served: Server) -> Server:
    """The server, running: a story that ended it must not spoil the next."""
    if isinstance(served, OwnServer):
        served.start()
    return served


@pytest.fixture
def own_server(server: Server) -> OwnServer:
    """The server, for stories that end and start it."""
    if not isinstance(server, OwnServer):
        pytest.skip("This story ends and starts the server, and the one under test is not ours to end.")
    return server


@pytest.fixture
def nothing_stays(server: Server) -> Iterator[None]:
    """Vectors that a story makes or brings go with it, however it ends."""
    before = server.own_vectors()
    yield
    for vector in server.own_vectors() - before:
        server.delete_vector(vector)


# ------------------------------------------------------------------ the browser


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """The system's Chromium where there is one; its sandbox does not run as root."""
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {**browser_type_launch_args, "executable_path": system, "args": arguments}


class Complaints:
    """What no story may leave behind: errors of the page, and requests to a host other than the server's."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._allowed: list[re.Pattern[str]] = []
        self.requests: list[str] = []

    def allow(self, pattern: str) -> None:
        """Expect complaints that contain this pattern, because the story provokes them."""
        self._allowed.append(re.compile(pattern))

    def watch(self, context: BrowserContext, host: str) -> None:
        """Listen to all pages of a context."""

        def on_console(message: ConsoleMessage) -> None:
            if message.type == "error":
                self._heard.append(f"console: {message.text}")

        def on_request(request: Request) -> None:
            self.requests.append(request.url)
            address = urlsplit(request.url)
            if address.scheme not in ("data", "blob") and address.netloc != host:
                self._heard.append(f"request to a foreign host: {request.url}")

        def on_error(error: WebError) -> None:
            self._heard.append(f"uncaught: {error.error}")

        context.on("console", on_console)
        context.on("request", on_request)
        context.on("weberror", on_error)

    def left(self) -> list[str]:
        """Complaints that nobody expected."""
        return [text for text in self._heard if not any(one.search(text) for one in self._allowed)]


@pytest.fixture(autouse=True)
def complaints() -> Iterator[Complaints]:
    """Fails a story whose page complained, however well the story ended."""
    heard = Complaints()
    yield heard
    left = heard.left()
    assert not left, "The page complained:\n" + "\n".join(left)


class ContextFor(Protocol):
    """Makes a browser context in which the page at one address is looked at."""

    def __call__(self, url: str, **arguments: Any) -> BrowserContext: ...


@pytest.fixture
def context_for(new_context: Callable[..., BrowserContext], complaints: Complaints) -> ContextFor:
    """The plugin's contexts, listened to."""

    def make(url: str, **arguments: Any) -> BrowserContext:
        context = new_context(**arguments)
        context.set_default_timeout(STEP_MS)
        complaints.watch(context, urlsplit(url).netloc)
        return context

    return make


class Visit(Protocol):
    """Opens the page as somebody new: nothing is shared with other visitors of the story."""

    def __call__(
        self,
        *,
        ready: bool = True,
        width: int = 1280,
        scheme: str = "light",
        prepare: Callable[[SteersightPage], None] | None = None,
    ) -> SteersightPage: ...


@pytest.fixture
def visit(context_for: ContextFor, server: Server) -> Visit:
    """A function that opens the page for one more visitor."""

    def open_page(
        *,
        ready: bool = True,
        width: int = 1280,
        scheme: str = "light",
        prepare: Callable[[SteersightPage], None] | None = None,
    ) -> SteersightPage:
        context = context_for(server.url, viewport={"width": width, "height": 900}, color_scheme=scheme)
        visitor = SteersightPage(context.new_page(), server.url)
        if prepare is not None:
            prepare(visitor)
        visitor.open()
        if ready:
            visitor.wait_until_ready()
        return visitor

    return open_page


@pytest.fixture
def app(visit: Visit) -> SteersightPage:
    """The page of one visitor, with the engine ready."""
    return visit()


# ------------------------------------------------------------------ recordings


@pytest.fixture(scope="session")
def talk_url() -> Iterator[str]:
    """Where TALK is shown, without any engine."""
    with replaying(TALK) as url:
        yield url


@pytest.fixture(scope="session")
def facts_url() -> Iterator[str]:
    """Where FACTS is shown, without any engine."""
    with replaying(FACTS) as url:
        yield url


def shown_at(context_for: ContextFor, url: str) -> SteersightPage:
    """The page with a recording that has been drawn, for one visitor."""
    context = context_for(url, viewport={"width": 1280, "height": 900}, color_scheme="light")
    visitor = SteersightPage(context.new_page(), url)
    visitor.open()
    visitor.wait_for_recording()
    return visitor


@pytest.fixture
def talk(context_for: ContextFor, talk_url: str) -> SteersightPage:
    """The page, showing TALK."""
    return shown_at(context_for, talk_url)


@pytest.fixture
def facts(context_for: ContextFor, facts_url: str) -> SteersightPage:
    """The page, showing FACTS."""
    return shown_at(context_for, facts_url)
