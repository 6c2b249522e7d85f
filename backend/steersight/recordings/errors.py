"""What is wrong with a file that should be a recording, in one sentence for whoever opened it."""

from __future__ import annotations

MAX_SHOWN = 80


class RecordingError(ValueError):
    """It is no recording, or a damaged or newer one. The message is a sentence that names the member."""


def shown(name: str) -> str:
    """A name from a file, fit for a sentence."""
    text = name if name.isprintable() else repr(name)[1:-1]
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
