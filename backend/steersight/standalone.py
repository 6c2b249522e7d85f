"""The page and a recording in one HTML file that opens from disk, without any server.

The page is built once more as one script for this (`frontend/vite.config.ts`), because no script of a file
from disk may load another. Its script, styles and icon are put where it names them, and the recording beside
them in base64, where the page looks for one (`frontend/src/recording/doors.ts`). A policy in the file lets it
run this script and no other, and load and send nothing: a stranger's recording is text and numbers there too.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

ALONE = "alone"
"""Folder, in that of the built page, of the page as one script."""

_SCRIPT = re.compile(r'<script type="module"[^>]*? src="\./([^"]+)"></script>')
_STYLES = re.compile(r'<link rel="stylesheet"[^>]*? href="\./([^"]+)">')
_ICON = re.compile(r'href="\./(icon\.svg)"')
_TITLE = re.compile(r"<title>.*?</title>", re.DOTALL)
_CHARSET = '<meta charset="utf-8" />'


class PageError(RuntimeError):
    """The built page is not there, or not as it is built; the message is a sentence that says what to do."""


def page_of(ui: Path) -> str:
    """The text of the built page in a folder. Raises PageError."""
    try:
        return (ui / "index.html").read_text(encoding="utf-8")
    except OSError:
        raise PageError(
            "The page has not been built. Run `make build`, or give its folder with --ui."
        ) from None


def page_with(recording: bytes, title: str, ui: Path) -> str:
    """The page with a recording in it. Raises PageError.

    Args:
        recording: the file's content, which the caller has checked.
        title: of the recording, for the browser's tab.
        ui: folder of the built page.
    """
    page_of(ui)
    ui = ui / ALONE
    page = _text(ui, "index.html")
    scripts, sheets = _SCRIPT.findall(page), _STYLES.findall(page)
    if len(scripts) != 1 or len(list(ui.glob("assets/*.js"))) != 1 or _CHARSET not in page:
        raise PageError(f"The page in {ui} is not one script. Build it anew with `make build`.")
    script, styles = _script(_text(ui, scripts[0])), [_style(_text(ui, name)) for name in sheets]
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {' '.join(map(_hash, styles)) or _NONE}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    named = f"<title>{html.escape(title)} · Steersight</title>" if title else "<title>Steersight</title>"
    packed = base64.b64encode(recording).decode()
    page = _once(
        page,
        _CHARSET,
        lambda: f'{_CHARSET}\n<meta http-equiv="Content-Security-Policy" content="{policy}" />',
    )
    page = _TITLE.sub(lambda _: named, page, count=1)
    page = _ICON.sub(lambda found: f'href="data:image/svg+xml,{quote(_text(ui, found[1]))}"', page)
    left = iter(styles)
    page = _STYLES.sub(lambda _: f"<style>{next(left)}</style>", page)
    page = _SCRIPT.sub("", page)
    body = (
        f'<script type="application/octet-stream" id="recording">{packed}</script>\n'
        f'<script type="module">{script}</script>\n</body>'
    )
    return _once(page, "</body>", lambda: body)


_NONE = "'none'"


def _text(ui: Path, name: str) -> str:
    try:
        # As a browser reads it: line ends are one sign, or the hash would be of another text.
        return (ui / name).read_text(encoding="utf-8")
    except OSError:
        raise PageError(f"The page in {ui} lacks {name}. Build it anew with `make build`.") from None


def _script(source: str) -> str:
    """As it may stand in its element: what would end that stands in literals only, and means the same."""
    return re.sub(r"<(/?script)", r"\\x3c\1", source, flags=re.IGNORECASE)


def _style(source: str) -> str:
    return re.sub(r"<(/style)", r"\\3c \1", source, flags=re.IGNORECASE)


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def _once(page: str, what: str, by: Callable[[], str]) -> str:
    before, found, after = page.partition(what)
    return before + by() + after if found else page
