"""What a frame costs the page at full size: the real page over an engine that only pretends, in Chromium.

    python -m bench.frames [--page NAME=FOLDER ...] [--ratio 1 2] [--write]
    make bench-frames BENCH='--page before=/tmp/old/artifacts/bench-page --page after=../artifacts/bench-page'

The page (`frontend/bench`) shows one reply of 8,192 positions with its text, its map of 80 layers and 20
metrics, and does one thing after the other; around each a trace of Chromium's main thread is taken. A frame's
cost is the processor time of all that the main thread did since the frame before, so others on the machine
hardly show; messages that arrive between two frames, style, layout and painting are in it, drawing by the
compositor's threads is not.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from .page import chromium
from .proving import REPOSITORY, machine, quantile, report, table

DOCUMENT = REPOSITORY / "docs" / "performance.md"
BUILT = REPOSITORY / "artifacts" / "bench-page"
ROWS_PER_SECOND = 100
SECONDS = 5.0
TURNS = 50
MIB = 2**20
CATEGORIES = ["disabled-by-default-devtools.timeline", "cc", "benchmark"]
STEPS = {
    "appending, 100 rows/s": "bench.append({rows})",
    "panning": "bench.pan({seconds})",
    "legend drag": "bench.drag({seconds})",
    "metric picked anew in each frame": "bench.repaint({seconds})",
    "all rows at once": "bench.bulk()",
    "a recording of it saved": "bench.save()",
    "a recording of it opened": "bench.open()",
    "three maps, appending": "bench.append({rows})",
    "three maps, panning": "bench.pan({seconds})",
    "three maps, legend drag": "bench.drag({seconds})",
    "a slider of 200 dragged": "bench.slide({seconds})",
}


@dataclass
class Cost:
    """What one step cost the main thread."""

    frames: list[float]
    """ms of each frame."""
    task: float
    """ms of the longest task, of processor time."""
    clock: float
    """ms of the longest task by the clock, which others on the machine lengthen."""


@dataclass
class Weights:
    """What a page holds, MiB."""

    one: float
    """One run."""
    many: float
    """A conversation of many turns."""
    shelved: int = 0
    """Turns of it whose numbers went to disk."""
    fetching: Cost | None = None
    """What showing the longest of them cost."""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files, under headers with which a page may ask how much memory it has."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The files of a folder; gives the address."""
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def costs_of(trace: bytes) -> Cost:
    """What the page's main thread did, by the trace."""
    events = json.loads(trace)["traceEvents"]
    threads = {
        (one["pid"], one["tid"]) for one in events
        if one["name"] == "thread_name" and one["args"]["name"] == "CrRendererMain"
    }  # fmt: skip
    mine = [one for one in events if (one["pid"], one["tid"]) in threads and one.get("ph") == "X"]
    tasks = sorted((one for one in mine if one["name"] == "RunTask"), key=lambda one: one["ts"])
    begins = sorted(one["ts"] for one in mine if one["name"] == "ProxyMain::BeginMainFrame")
    frames, spent, at = [], 0.0, 0
    for one in tasks:
        spent += one.get("tdur", 0) / 1000
        if at < len(begins) and begins[at] <= one["ts"] + one["dur"]:
            while at < len(begins) and begins[at] <= one["ts"] + one["dur"]:
                at += 1
            frames.append(spent)
            spent = 0.0
    return Cost(
        frames, max(one.get("tdur", 0) for one in tasks) / 1000, max(one["dur"] for one in tasks) / 1000
    )


class Visit:
    """One page of one build, at one density of pixels."""

    def __init__(
        self, browser: Browser, url: str, asked: argparse.Namespace, ratio: int, **size: int
    ) -> None:
        self._browser = browser
        self._asked = asked
        context = browser.new_context(viewport={"width": 1280, "height": 900}, device_scale_factor=ratio)
        self.page: Page = context.new_page()
        self.page.on("pageerror", lambda error: print(f"The page: {error}", file=sys.stderr, flush=True))
        wanted = {"layers": asked.layers, "metrics": asked.metrics, "positions": asked.positions} | size
        self.page.goto(url + "?" + "&".join(f"{name}={value}" for name, value in wanted.items()))
        self.page.wait_for_function("window.bench?.ready === true")

    def do(self, script: str) -> Any:
        """One call of the page's `bench`."""
        return self.page.evaluate(script)

    def traced(self, script: str) -> Cost:
        """The same, with what it cost."""
        self.page.wait_for_timeout(500)  # what came before has settled
        self._browser.start_tracing(page=self.page, categories=CATEGORIES)
        self.do(script)
        return costs_of(self._browser.stop_tracing())

    def memory(self) -> float:
        """MiB of all that the page holds, arrays and canvases' pixels among them as far as Chromium says."""
        self.page.wait_for_timeout(300)
        used: float = self.do("performance.measureUserAgentSpecificMemory().then((found) => found.bytes)")
        return used / MIB

    def close(self) -> None:
        """Be done with it."""
        self.page.context.close()


def steps(browser: Browser, url: str, asked: argparse.Namespace, ratio: int) -> dict[str, Cost]:
    """All that a page is asked to do; what its build cannot is left out."""
    found: dict[str, Cost] = {}
    rows, positions = int(ROWS_PER_SECOND * SECONDS), asked.positions

    def take(visit: Visit, name: str) -> None:
        script = STEPS[name].format(rows=ROWS_PER_SECOND, seconds=SECONDS)
        if visit.do(f"{script.partition('(')[0]} !== undefined"):
            found[name] = visit.traced(script)
            print(f"  {name}: done", file=sys.stderr, flush=True)

    visit = Visit(browser, url, asked, ratio)
    visit.do(f"bench.begin({positions - rows})")
    visit.do(f"bench.prepareAppend({positions - rows}, {rows})")
    take(visit, "appending, 100 rows/s")
    visit.do("bench.end()")
    for name in ("panning", "legend drag", "metric picked anew in each frame"):
        take(visit, name)
    visit.do("bench.begin(0)")
    visit.do("bench.prepareBulk()")
    take(visit, "all rows at once")
    visit.do("bench.end()")
    for name in ("a recording of it saved", "a recording of it opened"):
        take(visit, name)
    visit.close()

    visit = Visit(browser, url, asked, ratio)
    visit.do(f"bench.begin({positions - rows})")
    visit.do(f"bench.prepareAppend({positions - rows}, {rows})")
    visit.do("bench.showMaps(true)")
    take(visit, "three maps, appending")
    visit.do("bench.end()")
    take(visit, "three maps, panning")
    take(visit, "three maps, legend drag")
    visit.close()

    visit = Visit(browser, url, asked, ratio, sliders=200)
    visit.do(f"bench.begin({positions})")
    take(visit, "a slider of 200 dragged")
    visit.close()
    return found


def weights(browser: Browser, url: str, asked: argparse.Namespace) -> Weights:
    """Weigh one run, and a conversation: each turn reads all that was said before it, and has all rows."""
    visit = Visit(browser, url, asked, 1)
    empty = visit.memory()
    visit.do(f"bench.begin({asked.positions})")
    visit.do("bench.end()")
    one = visit.memory() - empty
    visit.close()
    visit = Visit(browser, url, asked, 1)
    shelves = visit.do("bench.digest !== undefined")
    said, digests = 0, []
    for turn in range(1, TURNS + 1):
        before, said = said, round(asked.positions * turn / TURNS)
        visit.do(f"bench.begin({said}, {before})")
        digests.append(visit.do("bench.digest()") if shelves else None)
        visit.do("bench.end()")
        visit.page.wait_for_timeout(100)
    visit.page.wait_for_timeout(2000)
    found = Weights(one, visit.memory())
    if shelves and (shelved := visit.do("bench.shelved()")) > 0:
        found.shelved = shelved
        found.fetching = visit.traced(f"bench.show({shelved - 1})")
        for turn in range(TURNS):
            visit.do(f"bench.show({turn})")
            if visit.do("bench.digest()") != digests[turn]:
                raise SystemExit(f"Turn {turn + 1} has other numbers than before they went to disk.")
    visit.close()
    return found


def sizes(built: Path) -> tuple[float, float]:
    """kB after gzip of what the page loads first, and of all that it may load."""
    # Not the page as one script, which nobody loads (`steersight replay --html`).
    packed = {
        path.name: len(gzip.compress(path.read_bytes(), 9)) / 1000
        for path in (*built.glob("*"), *built.glob("assets/*")) if path.suffix in {".html", ".css", ".js"}
    }  # fmt: skip
    index = (built / "index.html").read_text(encoding="utf-8")
    first = sum(size for name, size in packed.items() if name == "index.html" or name in index)
    return first, sum(packed.values())


def told(found: dict[str, dict[int, dict[str, Cost]]]) -> str:
    """The table: of each step the builds' figures one below the other."""
    rows = []
    for name in STEPS:
        for build, ratios in found.items():
            for ratio, costs in ratios.items():
                if (cost := costs.get(name)) is None:
                    continue
                # What changes nothing on the screen has no frames.
                typical, slow = (
                    f"{quantile(cost.frames, share):.1f}" if cost.frames else "" for share in (0.5, 0.95)
                )
                rows.append([name, build, ratio, len(cost.frames), typical, slow, f"{cost.task:.0f}"])
    return table(
        ["what", "page", "pixel ratio", "frames", "ms a frame, p50", "p95", "longest task, ms"], rows
    )


def measure(asked: argparse.Namespace) -> str:
    """Run it, and say what came of it."""
    builds = {name: Path(folder).resolve() for name, folder in (one.split("=", 1) for one in asked.page)}
    found: dict[str, dict[int, dict[str, Cost]]] = {name: {} for name in builds}
    weighed = []
    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        browser = chromium(playwright, "--enable-blink-features=ForceEagerMeasureMemory")
        stack.callback(browser.close)
        urls = {name: stack.enter_context(serving(folder)) for name, folder in builds.items()}
        for ratio in asked.ratio:
            for name, url in urls.items():
                print(f"{name}, pixel ratio {ratio}", file=sys.stderr, flush=True)
                found[name][ratio] = steps(browser, url, asked, ratio)
        for name, url in urls.items() if asked.memory else ():
            weight = weights(browser, url, asked)
            task = "" if weight.fetching is None else f"{weight.fetching.task:.0f}"
            weighed.append([name, f"{weight.one:.1f}", f"{weight.many:.0f}", weight.shelved, task])
        version = browser.version
    head = (
        f"A run of {asked.layers} layers, {asked.positions} positions and {asked.metrics} metrics with its "
        f"text shown, 1280 x 900, Chromium {version} without a GPU, on {machine()}:"
    )
    parts = [head, told(found)]
    if weighed:
        columns = [
            "page",
            "one such run, MiB",
            f"a conversation of {TURNS} turns that grows to as many positions, MiB",
            "of these turns on disk",
            "longest task when one is shown again, ms",
        ]
        parts.append(table(columns, weighed))
    if asked.built is not None and (Path(asked.built) / "index.html").exists():
        first, every = sizes(Path(asked.built))
        parts.append(f"The built page loads {first:.0f} kB at first (gzip), and {every:.0f} kB in all.")
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="append", metavar="NAME=FOLDER", help="a build, and what to call it")
    parser.add_argument("--ratio", type=int, nargs="+", default=[1, 2], help="device pixels per CSS pixel")
    parser.add_argument("--layers", type=int, default=80)
    parser.add_argument("--metrics", type=int, default=20)
    parser.add_argument("--positions", type=int, default=8192)
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument(
        "--built", default=str(REPOSITORY / "frontend" / "dist"), help="the page whose size is told"
    )
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    asked = parser.parse_args()
    asked.page = asked.page or [f"this={BUILT}"]
    report("frames.py", measure(asked), asked.write, DOCUMENT)


if __name__ == "__main__":
    main()
