"""Somebody brings a vector from a file, uses it, takes it away again."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from playwright.sync_api import expect

from conftest import Complaints
from pages import SteersightPage
from server import ROOT

BUNDLED = ROOT / "backend/steersight/vectors/bundled/smollm2-135m-instruct"

pytestmark = pytest.mark.usefixtures("nothing_stays")


@pytest.fixture
def joy() -> bytes:
    """The file of a bundled vector."""
    return Path(BUNDLED / "joy.safetensors").read_bytes()


def test_an_imported_vector_steers_as_the_one_it_was(app: SteersightPage, joy: bytes) -> None:
    app.be_greedy()
    app.steer("joy", 0.2)
    wanted = app.answer_to()
    app.steer("joy", 0)
    app.new_chat()

    app.choose_file("joy.safetensors", joy, label="Joy again")
    assert "Joy again (layer 20)" in app.report()
    slider = app.page.get_by_role("slider", name="Joy again")
    expect(slider).to_have_count(0)
    app.add_import()
    expect(slider).to_have_count(1)
    vector = app.wire.vector_named("Joy again").id
    app.steer(vector, 0.2)

    assert app.answer_to() == wanted
    assert app.wire.last_start().strengths == {vector: 0.2}


def test_a_vector_can_be_taken_along_and_deleted(app: SteersightPage, joy: bytes) -> None:
    app.choose_file("joy.safetensors", joy, label="For a while")
    app.report()
    app.add_import()
    vector = app.wire.vector_named("For a while").id

    app.open_card(vector)
    file = app.download()
    app.delete(vector)

    app.choose_file("again.safetensors", file)
    assert "For a while" in app.report()
    app.page.keyboard.press("Escape")
    app.open_card("joy")
    expect(app.page.get_by_test_id("vector-delete")).to_have_count(0)


def test_what_cannot_be_used_says_why(app: SteersightPage, complaints: Complaints) -> None:
    complaints.allow("422")
    app.choose_file("vector.pt", pickle.dumps({"layer.12": [0.0]}))

    expect(app.error).to_contain_text("pickle")
    expect(app.page.get_by_test_id("import-add")).to_have_count(0)
