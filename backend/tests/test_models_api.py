"""The doors to the list of models and to a change: who gets through, and what the settings ask for."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from steersight.engine.options import EngineOptions, for_another_model

from .served import served
from .settings import settings

CHANGE = "--change-model"


async def asked(address: str, method: str, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        return await client.request(method, path, headers=headers, content=b'{"id": "tiny"}')


async def test_the_door_is_closed_unless_it_was_opened(tmp_path: Path) -> None:
    async with served(tmp_path) as (address, _):
        for method, path in (("GET", "/api/models"), ("POST", "/api/model")):
            answer = await asked(address, method, path)
            assert answer.status_code == 403
            assert "--change-model" in answer.json()["error"]
        # Which model it is, is no secret.
        assert (await asked(address, "GET", "/api/model")).status_code == 200


async def test_an_open_door_asks_who_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEERSIGHT_TOKEN", "secret")
    async with served(tmp_path, CHANGE) as (address, _):
        for method, path in (("GET", "/api/models"), ("POST", "/api/model")):
            assert (await asked(address, method, path)).status_code == 401
        known = {"authorization": "Bearer secret"}
        assert (await asked(address, "GET", "/api/models", **known)).status_code == 200
        assert (await asked(address, "POST", "/api/model", **known)).status_code == 404
        stranger = await asked(address, "POST", "/api/model", **known, origin="http://evil.example")
        assert stranger.status_code == 403
        assert "another site" in stranger.json()["error"]


async def test_a_load_is_not_disturbed(tmp_path: Path) -> None:
    """The engine of this server never gets further than loading."""
    from .families import FAMILIES, make_checkpoint

    make_checkpoint(FAMILIES["Llama"](), tmp_path / "models" / "tiny")
    async with served(tmp_path, CHANGE) as (address, _):
        answer = await asked(address, "POST", "/api/model")
        assert answer.status_code == 409
        assert answer.json()["error"].startswith("The engine is loading:")


@pytest.mark.parametrize("host", ["0.0.0.0", "", "192.0.2.1"])
def test_a_server_for_others_wants_a_token_first(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEERSIGHT_TOKEN", raising=False)
    with pytest.raises(ValueError, match="--change-model would let everybody who reaches"):
        settings("--host", host, "--open", CHANGE)
    assert settings("--host", host, "--open").change_model is False
    monkeypatch.setenv("STEERSIGHT_TOKEN", "secret")
    assert settings("--host", host, CHANGE).change_model is True


def test_what_was_said_of_one_model_does_not_hold_for_another() -> None:
    first = EngineOptions(
        "first", revision="main", trust_remote_code=True, quantization="awq", layout="layers=a,form=pair",
        chat_template="/t.jinja", reasoning_parser="qwen3", kv_cache_gib=3, dtype="bfloat16",
    )  # fmt: skip
    other = for_another_model(first, "/models/other")
    assert other == EngineOptions("/models/other", kv_cache_gib=3, dtype="bfloat16")
