"""Recordings without an engine: `steersight replay` as its own process, and the files of the stories."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server import free_port

RECORDINGS = Path(__file__).resolve().parent / "recordings"
TALK = RECORDINGS / "talk.steersight.npz"
"""Two short greedy replies; the second is steered from its beginning."""
FACTS = RECORDINGS / "facts.steersight.npz"
"""One reply of many lines, watched with the logit lens too, and steered from one of its later lines on."""

WRITTEN_ON = RECORDINGS / "written-on.steersight.npz"
"""One reply of many lines: steered, then stopped and written on unsteered."""


@contextmanager
def replaying(recording: Path) -> Iterator[str]:
    """Address at which a recording is shown, with no slash at its end."""
    command = [str(Path(sys.executable).parent / "steersight"), "replay", str(recording)]
    process = subprocess.Popen(
        [*command, "--port", str(free_port())], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.match(r"(http://[\d.]+:\d+) shows ", said)
        assert found is not None, said
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=30)
