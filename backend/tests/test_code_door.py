"""Who may bring code: asked on the wire of a server that has no engine, so that nothing is run."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest

from steersight.ws import visits
from steersight.ws.doors import Doors

from .served import served

TOKEN = "a-token-for-code-in-tests"
PAGE = "a-token-for-the-page"
GENERATE = "/v1/nnsight/generate"
KEY = {"ndif-api-key": TOKEN}
CODE = {"content-type": "application/octet-stream"}
OPEN = ("--nnsight",)


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERSIGHT_NNSIGHT_TOKEN", TOKEN)


async def answers(address: str, *requests: tuple[str, dict[str, str]]) -> list[tuple[int, str]]:
    """Status and sentence of each, posted one after the other."""
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        found = []
        for path, headers in requests:
            answer = await client.post(path, headers=CODE | headers, content=b"code")
            found.append((answer.status_code, answer.json()["detail"]))
        return found


async def test_without_the_flag_there_is_no_such_door(tmp_path: Path) -> None:
    async with served(tmp_path / "served") as (address, _):
        for path in (GENERATE, "/v1/nnsight/register/one", "/v1/nnsight/anything"):
            ((status, why),) = await answers(address, (path, KEY))
            assert status == 404
            assert "runs no code that clients send" in why


async def test_the_token_is_asked_for_and_is_not_that_of_the_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STEERSIGHT_TOKEN", PAGE)
    async with served(tmp_path / "served", *OPEN) as (address, _):
        found = await answers(
            address,
            (GENERATE, {}),
            (GENERATE, {"ndif-api-key": PAGE}),
            (GENERATE, {"authorization": f"Bearer {TOKEN}"}),
            (GENERATE, KEY | {"origin": f"http://{address}"}),
            (GENERATE, KEY | {"sec-fetch-site": "same-origin"}),
            (GENERATE, KEY | {"content-type": "text/plain"}),
            ("/v1/nnsight/register/one", {}),
            (GENERATE, KEY),
        )
    assert [status for status, _ in found] == [401, 401, 401, 403, 403, 415, 401, 503]
    assert "`ndif-api-key`" in found[0][1]
    assert "Browsers do not bring code" in found[3][1]


async def test_guesses_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(visits, "GUESSES_PER_MINUTE", 3)
    async with served(tmp_path / "served", *OPEN) as (address, _):
        found = await answers(
            address, *[(GENERATE, {"ndif-api-key": f"guess-{n}"}) for n in range(4)], (GENERATE, KEY)
        )
    assert [status for status, _ in found] == [401, 401, 401, 429, 429]


async def test_every_line_of_the_log_names_the_door(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    from steersight.logs import Ids

    caplog.handler.addFilter(Ids())
    with caplog.at_level(logging.INFO, logger="steersight"):
        async with served(tmp_path / "served", *OPEN) as (address, _):
            caplog.clear()
            await answers(address, (GENERATE, {}), (GENERATE, KEY))
            await asyncio.sleep(0)
            lines = [(record.getMessage(), record.ids.get("door")) for record in caplog.records]
    assert ("Refused at the door.", "nnsight") in lines
    assert ("A trace has come.", "nnsight") in lines
    assert TOKEN not in caplog.text


def test_a_door_without_a_token_opens_to_nobody() -> None:
    assert not Doors("127.0.0.1").knows_code(b"")
    assert not Doors("127.0.0.1", code_token=b"").knows_code(b"")
    assert Doors("127.0.0.1", code_token=b"x").knows_code(b"x")
    assert TOKEN not in repr(Doors("127.0.0.1", code_token=TOKEN.encode()))
