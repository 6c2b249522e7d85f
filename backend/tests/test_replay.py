"""`steersight replay`: a recording is served with the page or written into one file, without an engine."""

from __future__ import annotations

import base64
import hashlib
import re
import select
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from steersight.cli import main
from steersight.recordings import read_recording

GOLDEN = Path(__file__).parent / "golden" / "recording-1.steersight.npz"
# As Vite builds it.
INDEX = """<!doctype html>
<html lang="en">
	<head>
		<meta charset="utf-8" />
		<meta name="viewport" content="width=device-width, initial-scale=1" />
		<link rel="icon" type="image/svg+xml" href="./icon.svg" />
		<title>Steersight</title>
		<script type="module" crossorigin src="./assets/index-m8cOixup.js"></script>
		<link rel="stylesheet" crossorigin href="./assets/index-BstDmaRG.css">
	</head>
	<body>
		<div id="root"></div>
	</body>
</html>
"""
SCRIPT = 'const a = "</script>", b = "</SCRIPT", c = "<script>";\r\nrun(a, "\\\\1", b, c); // é\n'
STYLES = 'a::after { content: "</style>"; }\n'


@pytest.fixture
def ui(tmp_path: Path) -> Path:
    """A built page: as it is served, and as one script."""
    served, folder = tmp_path / "dist", tmp_path / "dist" / "alone"
    (folder / "assets").mkdir(parents=True)
    for place in (served, folder):
        (place / "index.html").write_text(INDEX)
    (folder / "icon.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    (folder / "assets" / "index-m8cOixup.js").write_bytes(SCRIPT.encode())
    (folder / "assets" / "index-BstDmaRG.css").write_text(STYLES)
    return served


class Page(HTMLParser):
    """What a browser makes of a page: elements with what stands in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._open = False
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), ""))
        self._open = True

    def handle_endtag(self, _tag: str) -> None:
        self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            tag, attributes, before = self.elements[-1]
            self.elements[-1] = (tag, attributes, before + data)

    def of(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, text) for name, attributes, text in self.elements if name == tag]


def test_one_file_has_page_and_recording(
    ui: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.html"
    assert main(["replay", str(GOLDEN), "--ui", str(ui), "--html", str(out)]) == 0
    assert "out.html shows recording-1.steersight.npz, 2 replies of SmolLM2" in capsys.readouterr().out
    page = Page(out.read_text(encoding="utf-8"))
    (data, packed), (code, script) = page.of("script")
    assert data == {"type": "application/octet-stream", "id": "recording"}
    assert base64.b64decode(packed) == GOLDEN.read_bytes()
    assert code == {"type": "module"}
    assert script == (
        'const a = "\\x3c/script>", b = "\\x3c/SCRIPT", c = "\\x3cscript>";\nrun(a, "\\\\1", b, c); // é\n'
    )
    ((_, style),) = page.of("style")
    assert style == 'a::after { content: "\\3c /style>"; }\n'
    assert page.of("title")[0][1] == "What is the capital of France? · Steersight"
    (icon,) = page.of("link")
    assert (icon[0]["href"] or "").startswith("data:image/svg+xml,%3Csvg")
    (policy,) = (one["content"] or "" for one, _ in page.of("meta") if "http-equiv" in one)
    assert policy.startswith("default-src 'none'")
    for kind, text in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy


def test_a_title_is_no_markup(ui: Path, tmp_path: Path) -> None:
    recording = read_recording(GOLDEN)
    recording.title = "</title><script>alert(1)</script>"
    recording.save(tmp_path / "r.npz")
    out = tmp_path / "out.html"
    assert main(["replay", str(tmp_path / "r.npz"), "--ui", str(ui), "--html", str(out)]) == 0
    assert len(Page(out.read_text(encoding="utf-8")).of("script")) == 2


@pytest.mark.parametrize("case", ["none", "damaged", "no page", "split page", "lacking", "folder", "network"])
def test_what_cannot_be_shown_is_refused_with_a_sentence(
    case: str, ui: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording, out = tmp_path / "r.npz", ["--html", str(tmp_path / "out.html")]
    recording.write_bytes(GOLDEN.read_bytes())
    match case:
        case "none":
            recording.unlink()
            why = "r.npz cannot be read: No such file or directory."
        case "damaged":
            recording.write_bytes(GOLDEN.read_bytes()[:-3])
            why = "r.npz cannot be shown. It is no recording"
        case "no page":
            (ui / "index.html").unlink()
            why = "The page has not been built. Run `make build`"
        case "split page":
            (ui / "alone" / "assets" / "more-x.js").write_text("")
            why = "is not one script"
        case "lacking":
            (ui / "alone" / "assets" / "index-BstDmaRG.css").unlink()
            why = "lacks assets/index-BstDmaRG.css"
        case "folder":
            (tmp_path / "out.html").mkdir()
            why = "out.html cannot be written: Is a directory."
        case _:
            out = ["--host", "0.0.0.0", "--port", "0"]
            why = "Whoever reaches 0.0.0.0 could read this recording. Say --open if that is meant."
    assert main(["replay", str(recording), "--ui", str(ui), *out]) == 2
    told = capsys.readouterr()
    assert (told.out, why in told.err) == ("", True), told.err
    assert told.err.count("\n") == 1


def test_it_is_served_at_once_and_without_an_engine(ui: Path) -> None:
    began = time.monotonic()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "steersight.cli", "replay", str(GOLDEN), "--ui", str(ui), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 30)[0]
        said = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+) shows recording-1\.steersight\.npz, 2 replies", said)
        assert found is not None, said
        with httpx.Client(base_url=found[1]) as http:
            page = http.get("/")
            assert page.headers["location"] == "/index.html#recording=recording&only"
            assert http.get("/index.html").text == INDEX
            answer = http.get("/recording")
            assert answer.content == GOLDEN.read_bytes()
            assert "recording-1.steersight.npz" in answer.headers["content-disposition"]
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            stranger = http.get("/recording", headers={"host": "evil.example"})
            assert (stranger.status_code, stranger.text) == (
                421, "This server does not answer to the host 'evil.example'.\n",
            )  # fmt: skip
            assert http.get("/../recordings_made.py").status_code == 404
        assert time.monotonic() - began < 10
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()


def test_nothing_of_the_engine_is_imported() -> None:
    code = "import sys, steersight.replay; assert not {'torch', 'vllm', 'transformers'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
