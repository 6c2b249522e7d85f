"""The owner of a server changes its model, while somebody else is at it."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from checkpoints import TINY, TINY_LAYERS, put_tiny_into
from conftest import Visit
from server import OwnServer


def served_by(server: OwnServer) -> str:
    """Id of its model."""
    model: str = httpx.get(f"{server.url}/api/model", timeout=30).json()["id"]
    return model


@pytest.fixture
def bundled(own_server: OwnServer) -> Iterator[str]:
    """Id of the model that all other stories are told with; it is served again however this one ends."""
    own_server.wait_until_ready()
    model = served_by(own_server)
    yield model
    if served_by(own_server) != model:
        own_server.stop()


def test_another_model_and_back(visit: Visit, own_server: OwnServer, bundled: str) -> None:
    put_tiny_into(own_server.hub)
    owner, other = visit(), visit()
    owner.be_greedy(tokens=8)
    owner.answer_to()
    before = owner.wait_for_whole_map()
    assert before.layers == 30
    owner.steer("joy", 0.15)
    other.be_greedy(tokens=2000)
    other.ask("Write a long story about a dragon and a lighthouse.")
    other.wait_while_writing(tokens=3)

    said = owner.change_model(TINY)
    assert "One reply is being written, by you or by somebody else. It ends." in said
    expect(other.page.get_by_role("alert")).to_contain_text(f"being changed to {TINY}")
    assert len(other.reply_tokens()) >= 3
    other.page.close()  # it would only draw how the engine loads
    expect(owner.model).to_have_text(TINY)
    owner.wait_until_ready()
    expect(owner.written_by).to_have_text(f"Written by {bundled}")
    # What the model before wrote keeps its map; its sliders are gone, and that is said.
    assert owner.heatmap().layers == 30
    expect(owner.slider("joy")).to_have_count(0)
    expect(owner.page.get_by_text("Joy is no longer on this server")).to_be_visible()

    owner.answer_to("And you?")
    assert owner.wait_for_whole_map().layers == TINY_LAYERS
    assert owner.wire.last_started().model == TINY
    expect(owner.written_by).to_have_count(1)

    assert "No reply is being written now." in owner.change_model(bundled)
    expect(owner.model).to_have_text(bundled)
    owner.wait_until_ready()
    expect(owner.slider("joy")).to_be_visible()
    owner.new_chat()
    owner.answer_to()
    assert owner.wait_for_whole_map().layers == 30
