"""Makes the README's pictures from the real page: docs/page.png, and docs/page.gif with a reply steered while
it is written.

    make picture

Starts a server of its own, or uses the one that STEERSIGHT_E2E_URL names. The film runs in real time: each
frame stands as long as it stood on the page. Only typing is paced, so that it can be followed.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, ImageChops
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from pages import SteersightPage
from server import OwnServer, Server

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUESTION = "Tell me about Paris."
VECTOR = "french"
STRENGTH = 0.25
TOKENS = 62
WIDTH, HEIGHT = 1280, 740
# The film is drawn smaller by the browser itself, which keeps letters sharper than scaling does.
FILM_SCALE = 0.75
LONGEST_FILM_BYTES = 2_500_000


@contextmanager
def server() -> Iterator[Server]:
    """The named server, or one of our own."""
    if url := os.environ.get("STEERSIGHT_E2E_URL"):
        yield Server(url)
        return
    with tempfile.TemporaryDirectory() as folder:
        own = OwnServer(Path(folder) / "server.log")
        try:
            own.start()
            yield own
        finally:
            own.stop()


class Film:
    """Frames of a page, each with the time at which it was taken."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[tuple[float, Image.Image]] = []

    def frame(self) -> None:
        """Take one frame now."""
        shot = self._page.screenshot(caret="initial")
        self._frames.append((time.monotonic(), Image.open(io.BytesIO(shot)).convert("RGB")))

    def until(self, done: Callable[[], bool]) -> None:
        """Take frames until something has happened."""
        while not done():
            self.frame()
        self.frame()

    def save(self, path: Path, last_seconds: float) -> None:
        """Write the film as a GIF that starts over after `last_seconds` on its last frame."""
        kept: list[tuple[float, Image.Image]] = []
        for at, image in self._frames:
            if not kept or ImageChops.difference(kept[-1][1], image).getbbox() is not None:
                kept.append((at, image))
        ends = [at for at, _ in kept[1:]] + [kept[-1][0] + last_seconds]
        lengths = [max(20, round(1000 * (end - at))) for (at, _), end in zip(kept, ends, strict=True)]
        # One palette for all, or colours of still parts would flicker and every frame would be whole.
        palette = _palette([image for _, image in kept[:: max(1, len(kept) // 6)]] + [kept[-1][1]])
        drawn = [image.quantize(palette=palette, dither=Image.Dither.NONE) for _, image in kept]
        drawn[0].save(
            path, save_all=True, append_images=drawn[1:], duration=lengths, loop=0, optimize=False, disposal=1
        )
        size = path.stat().st_size
        print(f"{path.name}: {len(drawn)} frames, {sum(lengths) / 1000:.1f} s, {size / 1e6:.2f} MB")
        if size > LONGEST_FILM_BYTES:
            raise SystemExit(f"{path.name} is larger than {LONGEST_FILM_BYTES / 1e6} MB.")


def _palette(images: list[Image.Image]) -> Image.Image:
    """256 colours that fit all images: by how much there is of each, and the small bright ones besides."""
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for index, image in enumerate(images):
        strip.paste(image, (index * width, 0))
    colours: list[int] = []
    for count, method in ((224, Image.Quantize.MEDIANCUT), (32, Image.Quantize.MAXCOVERAGE)):
        colours += (strip.quantize(count, method=method).getpalette() or [])[: 3 * count]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return palette


def visitor(browser: Browser, url: str, scale: float = 1.0) -> SteersightPage:
    """The page, light and 1280 wide, ready for a question."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", device_scale_factor=scale
    )
    opened = SteersightPage(context.new_page(), url)
    opened.open()
    opened.wait_until_ready()
    opened.be_greedy(TOKENS)
    opened.page.mouse.move(WIDTH / 2, 4)
    return opened


def picture(browser: Browser, url: str) -> None:
    """docs/page.png: a reply steered on its way, its map, and what one cell of it says."""
    app = visitor(browser, url)
    app.ask(QUESTION)
    app.wait_while_writing(tokens=17)
    app.steer(VECTOR, STRENGTH)
    app.wait_until_in_force(VECTOR)
    app.wait_for_reply()
    app.wait_for_whole_map()
    app.point_at_map(0.6, 0.62)
    app.page.screenshot(path=DOCS / "page.png")
    print(f"page.png: {(DOCS / 'page.png').stat().st_size / 1e6:.2f} MB; {app.reply_text()!r}")


def film(browser: Browser, url: str) -> None:
    """docs/page.gif: a question, its reply and its map growing, a slider moved on the way."""
    app = visitor(browser, url, FILM_SCALE)
    app.prompt.focus()
    reel = Film(app.page)
    reel.frame()
    for end in range(2, len(QUESTION) + 2, 2):
        app.prompt.fill(QUESTION[:end])
        reel.frame()
    app.prompt.press("Enter")
    reel.until(lambda: len(app.reply_tokens()) >= 13)
    app.steer(VECTOR, STRENGTH)
    reel.until(lambda: app.reply.get_attribute("data-status") == "done")
    app.wait_for_whole_map()
    reel.frame()
    print(repr(app.reply_text()))
    reel.save(DOCS / "page.gif", last_seconds=4)


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """The system's Chromium where there is one; its sandbox does not run as root."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
    try:
        yield browser
    finally:
        browser.close()


def main() -> None:
    with server() as served, sync_playwright() as playwright, launched(playwright) as browser:
        picture(browser, served.url)
        film(browser, served.url)


if __name__ == "__main__":
    main()
