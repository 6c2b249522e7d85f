"""docs/protocol.md names every frame, field, error code and close code, and its Python client works."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest

from steersight.config import REPOSITORY
from steersight.protocol.close import CloseCode
from steersight.protocol.messages import CLIENT_TYPES, SERVER_TYPES, ErrorCode, Frame, Sampling

from .conftest import Server

TEXT = (REPOSITORY / "docs" / "protocol.md").read_text()


@pytest.mark.parametrize(
    ("heading", "name", "frame"),
    [
        (heading, name, frame)
        for heading, types in (("What a client sends", CLIENT_TYPES), ("What the server sends", SERVER_TYPES))
        for name, frame in types.items()
    ],
)
def test_every_frame_is_described_with_its_fields(heading: str, name: str, frame: type[Frame]) -> None:
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    row = next((line for line in section.splitlines() if line.startswith(f"| `{name}` |")), None)
    assert row is not None, f"docs/protocol.md has no table row for {name}"
    fields = frame.model_fields
    missing = [field for field in fields if field != "type" and f"`{field}`" not in row]
    assert missing == []


def test_every_code_and_setting_is_named() -> None:
    assert [code for code in ErrorCode if f"`{code}`" not in TEXT] == []
    assert [code for code in CloseCode if f"| {int(code)} |" not in TEXT] == []
    assert [name for name in Sampling.model_fields if f"`{name}`" not in TEXT] == []


@pytest.mark.engine
@pytest.mark.timeout(300)
async def test_the_python_example_runs(server: Server) -> None:
    match = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert match is not None
    script = match[1].replace("127.0.0.1:8000", server.address)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, err.decode()
    assert "'type': 'finished'" in out.decode()
