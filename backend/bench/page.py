"""What a token of a long reply costs the page: the built page in Chromium, and an engine that only pretends.

    python -m bench.page [--page NAME=FOLDER ...] [--tokens 4000] [--hz 60] [--layers 30] [--write]
    make bench-page BENCH='--page before=/tmp/old/dist --page after=../frontend/dist --rounds 2'

For each build of the page a server of its own, with `bench.simulated` in the engine's place, sends one reply:
so many tokens a second, and with each the metrics that the page asks for. The builds take turns. What a page
did is read after every 500 tokens: how long its main thread computed, by that thread's own processor time, so
that others on the machine hardly show; and how long its frames took by the clock, from the first animation
callback until what was drawn has been handed on. The reply is prose, lists and code in lines as chat models
write them; `--unbroken` makes one paragraph of all of it, which is the worst that can come.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, CDPSession, Page, Playwright, sync_playwright

from steersight.protocol.codec import decode_client
from steersight.protocol.messages import Start

from .proving import MODEL, REPOSITORY, free_port, machine, quantile, report, table
from .serve import server

DOCUMENT = REPOSITORY / "docs" / "performance.md"
BUILT = REPOSITORY / "frontend" / "dist"
STRETCH = 500
LONG_MS = 50
"""A task of the main thread that takes longer can be felt."""
LOOK_MS = 200
READY_MS = 120_000
TEXT = """The harbour wakes before the town does. By four the first boats are back, and their crews stand in \
the light of the fish hall and count what they have brought. Nobody speaks much. The buyers walk along the \
crates, lift a gill here and there, and write numbers into small books that they have carried in the same \
pocket for years.

When the sun comes over the breakwater, three things happen at once:

- The hall closes its seaward doors and opens those to the street.
- The bakers bring bread, still warm, and take their coffee standing.
- The ferry blows its horn twice, once for the harbour master and once, it is said, for luck.

A visitor who wants to see all this should come in autumn. In summer the light is better, but there are too \
many people, and the boats go out later than they used to. In winter the sea decides, and for days on end it \
decides against everybody.

```
def boats(day):
    weather = forecast(day)
    if weather.wind > 7:
        return []
    return [boat for boat in fleet if boat.ready]
```

The function above is a joke, of course. What it leaves out is the argument on the quay, which takes longer \
than the forecast and is more often right.

"""
RECORDER = """(() => {
    const seen = { frames: [], tasks: [] };
    const channel = new MessageChannel();
    let began = 0;
    channel.port1.onmessage = () => seen.frames.push(performance.now() - began);
    const frame = () => {
        began = performance.now();
        channel.port2.postMessage(null);
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    new PerformanceObserver((list) => {
        for (const { duration } of list.getEntries()) seen.tasks.push(duration);
    }).observe({ type: "longtask" });
    window.taken = () => ({ frames: seen.frames.splice(0), tasks: seen.tasks.splice(0) });
})()"""
"""Runs in the page before its own scripts. What a frame's callback posts to itself comes after the frame."""
STANDS = """() => {
    const reply = document.querySelector("[data-testid=message-assistant]");
    const map = document.querySelector("[data-testid=heatmap]");
    return { tokens: Number(map?.dataset.tokens ?? 0), over: reply?.dataset.status === "done" };
}"""
PARTS = {"script": "ScriptDuration", "style": "RecalcStyleDuration", "layout": "LayoutDuration"}
"""Of the main thread's time; the rest is painting, handing on, and collecting garbage."""


@dataclass
class Stretch:
    """Some hundred tokens of a reply, as the page met them."""

    end: int
    """Tokens of prompt and reply at its end."""
    tokens: int
    """That came in it."""
    costs: dict[str, float]
    """ms of the main thread's processor time, by part, and `all`."""
    frames: list[float]
    """ms of each frame, by the clock."""
    tasks: list[float]
    """ms of each task that took longer than LONG_MS, by the clock."""


@contextmanager
def serving(asked: argparse.Namespace, folder: Path, built: str) -> Iterator[str]:
    """The server of one build; gives its address."""
    port = free_port()
    text = folder / "reply.txt"
    text.write_text(TEXT.replace("\n", " ") if asked.unbroken else TEXT, encoding="utf-8")
    command = [
        sys.executable, "-m", "bench.simulated", "--hz", str(asked.hz), "--layers", str(asked.layers),
        "--text", str(text), "--", "serve", "--port", str(port), "--model", MODEL, "--data-dir", str(folder),
        "--max-model-len", str(asked.tokens + 1000), "--ui", str(Path(built).resolve()),
    ]  # fmt: skip
    with server(command, port, "/readyz", folder / "server.log", {}):
        yield f"http://127.0.0.1:{port}"


def chromium(playwright: Playwright, *arguments: str) -> Browser:
    """The machine's own where there is one, else Playwright's; `arguments` go on its command line."""
    system = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    # Chromium has no sandbox for root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=system, args=[*sandbox, *arguments])


class Visit:
    """One page that has one reply written to it."""

    def __init__(self, browser: Browser, url: str) -> None:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        self.page: Page = context.new_page()
        self.page.add_init_script(RECORDER)
        self.metrics = 0
        self.page.on("websocket", lambda socket: socket.on("framesent", self._sent))
        self.tools: CDPSession = context.new_cdp_session(self.page)
        self.tools.send("Performance.enable", {"timeDomain": "threadTicks"})
        self.page.goto(url)
        ready = self.page.locator("[data-testid=engine-state][data-state=ready]")
        ready.wait_for(timeout=READY_MS)

    def ask(self, tokens: int) -> None:
        """Have a reply of so many tokens begun."""
        self._asked = tokens
        at = self.page.get_by_test_id
        at("settings").click()
        at("setting-max_tokens").fill(str(tokens))
        at("settings").click()
        at("prompt-input").fill("Tell me about the harbour.")
        at("send").click()
        at("message-assistant").locator(".token").first.wait_for()

    def _sent(self, data: bytes | str) -> None:
        frame = decode_client(data)
        if isinstance(frame, Start):
            self.metrics = len(frame.metrics or ())

    def stretches(self) -> list[Stretch]:
        """Watch the reply to its end."""
        found: list[Stretch] = []
        begin, before = self._stands()["tokens"], self._counts()
        self.page.evaluate("taken()")
        while True:
            self.page.wait_for_timeout(LOOK_MS)
            now = self._stands()
            if now["tokens"] - begin < STRETCH and not now["over"]:
                continue
            seen, after = self.page.evaluate("taken()"), self._counts()
            tokens = now["tokens"] - begin
            if tokens > STRETCH / 2:
                costs = {name: after[name] - before[name] for name in after}
                found.append(Stretch(now["tokens"], tokens, costs, seen["frames"], seen["tasks"]))
            if now["over"]:
                self._must_be_whole(now["tokens"])
                return found
            begin, before = now["tokens"], after

    def _must_be_whole(self, tokens: int) -> None:
        """A reply that broke off is no measurement."""
        if tokens < self._asked:
            said = self.page.get_by_test_id("message-assistant").inner_text()[-500:]
            raise SystemExit(f"The reply ended after {tokens} of {self._asked} tokens: {said}")

    def _stands(self) -> dict[str, Any]:
        stands: dict[str, Any] = self.page.evaluate(STANDS)
        return stands

    def _counts(self) -> dict[str, float]:
        """ms of the main thread since the page was opened."""
        told = self.tools.send("Performance.getMetrics")["metrics"]
        seconds = {one["name"]: one["value"] for one in told}
        counts = {name: 1000 * seconds[key] for name, key in PARTS.items()}
        every = 1000 * seconds["TaskDuration"]
        return counts | {"rest": every - sum(counts.values()), "all": every}


def profiled(visit: Visit, path: Path | None) -> list[Stretch]:
    """The reply, with what its scripts did written to a file that Chromium's developer tools open."""
    if path is None:
        return visit.stretches()
    visit.tools.send("Profiler.enable")
    visit.tools.send("Profiler.start")
    found = visit.stretches()
    path.write_text(json.dumps(visit.tools.send("Profiler.stop")["profile"]), encoding="utf-8")
    return found


def measure(asked: argparse.Namespace) -> str:
    """Run it, and say what came of it."""
    pages = dict(named.split("=", 1) for named in asked.page)
    found: dict[str, list[list[Stretch]]] = {name: [] for name in pages}
    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        browser = chromium(playwright)
        stack.callback(browser.close)
        urls = {}
        for name, built in pages.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            urls[name] = stack.enter_context(serving(asked, folder, built))
        for number in range(asked.rounds):
            for name in pages if number % 2 == 0 else reversed(pages):
                visit = Visit(browser, urls[name])
                visit.ask(asked.tokens)
                found[name].append(profiled(visit, asked.profile))
                visit.page.context.close()
                print(f"round {number + 1}, {name}: done", file=sys.stderr, flush=True)
        version = browser.version
    shape = " in one paragraph" if asked.unbroken else ""
    rounds = "one round" if asked.rounds == 1 else f"median of {asked.rounds} rounds"
    head = (
        f"One reply of {asked.tokens} tokens{shape}, {asked.hz:.0f} a second, {visit.metrics} metrics of "
        f"{asked.layers} layers; Chromium {version}, 1280 x 900; {rounds}, on {machine()}, "
        "which the server shares:"
    )
    return f"{head}\n\n{told(found)}"


def told(found: dict[str, list[list[Stretch]]]) -> str:
    """The table: of each stretch the builds' figures one below the other, of their rounds the median."""
    names = ["all", *PARTS, "rest"]
    rows = []
    for index in range(min(len(one) for rounds in found.values() for one in rounds)):
        for name, rounds in found.items():
            same = [one[index] for one in rounds]
            each = statistics.median(one.costs["all"] / one.tokens for one in same)
            costs = [statistics.median(one.costs[part] / len(one.frames) for one in same) for part in names]
            frames = [ms for one in same for ms in one.frames]
            tasks = [ms for one in same for ms in one.tasks]
            rows.append(
                [
                    round(statistics.mean(one.end for one in same)), name, f"{each:.2f}",
                    *(f"{cost:.2f}" for cost in costs),
                    f"{quantile(frames, 0.5):.1f} / {quantile(frames, 0.99):.1f}",
                    f"{len(tasks)}, longest {max(tasks):.0f}" if tasks else "none",
                ]
            )  # fmt: skip
    head = [
        "tokens, up to",
        "page",
        "ms per token",
        "ms per frame",
        *names[1:],
        "frame by the clock, ms, p50 / p99",
        f"tasks over {LONG_MS} ms",
    ]
    return table(head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", action="append", metavar="NAME=FOLDER", help="a build, and what to call it")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--hz", type=float, default=60.0)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--unbroken", action="store_true", help="a reply without a line break")
    parser.add_argument("--profile", type=Path, help="write what the page's scripts did to this file")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    asked = parser.parse_args()
    asked.page = asked.page or [f"this={BUILT}"]
    report("page.py", measure(asked), asked.write, DOCUMENT)


if __name__ == "__main__":
    main()
