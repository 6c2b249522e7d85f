"""Every command in the documents is run by a test, and its comment says by which.

A fenced block of `sh` follows one of these comments:

    <!-- run -->                 here, in the repository's root, with a server up; its address stands in for
                                 127.0.0.1:8000
    <!-- run by: COMMAND -->     by that command, which tries exactly this
    <!-- not run: REASON -->     by nobody, because it needs what a test machine lacks
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server import Server

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("e2e/*.md")]
# What runs commands that a test beside a running server cannot, and the files that are it.
RUNNERS = {
    "make docker-test": ["docker/test.sh", "e2e/replicas/test_replicas.py"],
    "make stranger-test": ["docker/stranger.sh", "docker/stranger-steps.sh"],
    ".ci/run": [".ci/run"],
}
BLOCK = re.compile(r"(?:^<!-- (?P<tag>[^\n]+?) -->\n)?^```sh\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND_SECONDS = 400


@dataclass(frozen=True)
class Block:
    """Commands of one document."""

    where: str
    tag: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text.splitlines()[0]}"


def blocks() -> list[Block]:
    """All commands of all documents."""
    return [
        Block(str(path.relative_to(ROOT)), found["tag"] or "", found["text"])
        for path in DOCUMENTS
        for found in BLOCK.finditer(path.read_text())
    ]


def test_every_command_says_what_runs_it() -> None:
    found = blocks()
    assert len(found) > 10
    for block in found:
        kind, _, rest = block.tag.partition(": ")
        assert kind in ("run", "run by", "not run"), f"{block} has no comment that says what runs it."
        if kind == "run by":
            text = "".join((ROOT / name).read_text() for name in RUNNERS[rest])
            words = block.text.strip().replace("docker compose", "$compose").replace(" up", " up --detach")
            assert block.text.strip() == rest or words in text or block.text.strip() in text, (
                f"{rest} does not run: {block.text}"
            )


@pytest.mark.parametrize("block", [block for block in blocks() if block.tag == "run"], ids=str)
@pytest.mark.usefixtures("nothing_stays")
def test_a_documented_command(block: Block, server: Server, tmp_path: Path) -> None:
    address = urlsplit(server.url).netloc
    where = {
        "STEERSIGHT_URL": server.socket_url,
        "PORT": address.rpartition(":")[2],
        "VECTORS": str(tmp_path),
    }
    done = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", block.text.replace("127.0.0.1:8000", address)],
        cwd=ROOT,
        env=os.environ | where,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip(), "The command said nothing."


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}, which does not exist."
