"""Somebody watches the layers while the reply is written."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect

import wire
from pages import QUESTION, SteersightPage
from server import Server

# The page shows three significant digits.
SHOWN = 0.006


def test_the_map_grows_while_the_reply_is_written(app: SteersightPage) -> None:
    app.be_greedy(tokens=400)
    app.ask()

    app.wait_while_writing(tokens=4)
    early = app.wait_for_columns(more_than=0)
    later = app.wait_for_columns(more_than=early + 3)

    assert app.reply.get_attribute("data-status") == "streaming"
    assert later > early


def test_the_map_has_a_cell_for_every_layer_and_token(app: SteersightPage) -> None:
    app.be_greedy()
    app.answer_to()

    heatmap = app.wait_for_whole_map()

    prompt = app.wire.last_started().prompt
    assert heatmap.layers == app.wire.layers()
    assert heatmap.tokens == len(prompt.ids) + len(app.wire.reply_ids())
    # The last token was never an input, so it has no row.
    assert heatmap.columns == heatmap.tokens - 1
    assert app.colours_on_map() > 50, "The map is blank."


def test_the_tooltip_tells_the_value_that_was_sent(app: SteersightPage) -> None:
    app.be_greedy()
    app.answer_to()
    app.wait_for_whole_map()

    for across, up in ((0.25, 0.3), (0.5, 0.5), (0.75, 0.8)):
        cell = app.point_at_map(across, up)
        sent = app.wire.values("residual_norm")[cell.position][cell.layer]
        assert cell.unit == "L2"
        assert cell.value == pytest.approx(sent, rel=SHOWN)


def test_another_client_gets_the_same_numbers(app: SteersightPage, server: Server) -> None:
    app.be_greedy()
    app.answer_to()
    app.wait_for_whole_map()
    cell = app.point_at_map()

    other = wire.ask(server.socket_url, QUESTION)

    assert other.text == app.reply_text()
    rows = other.rows[:, other.metrics.index("residual_norm")]
    assert cell.value == pytest.approx(rows[cell.position, cell.layer], rel=SHOWN)
    for position, values in app.wire.values("residual_norm").items():
        np.testing.assert_allclose(values, rows[position], rtol=2e-3)


def test_another_metric_is_another_picture(app: SteersightPage) -> None:
    app.be_greedy()
    app.answer_to()
    app.wait_for_whole_map()
    norms = app.picture_of_map()

    app.pick_metric("cosine_below")

    expect(app.legend).to_contain_text("Cosine")
    assert app.picture_of_map() != norms
    cell = app.point_at_map()
    sent = app.wire.values("cosine_below")[cell.position][cell.layer]
    assert cell.unit == ""
    assert cell.value == pytest.approx(sent, rel=SHOWN)

    app.pick_metric("residual_norm")
    assert app.point_at_map().unit == "L2"


def test_a_token_in_the_text_points_at_its_column(app: SteersightPage) -> None:
    app.be_greedy()
    app.answer_to()
    app.wait_for_whole_map()

    app.token(3).hover()

    expect(app.tooltip).to_be_visible()
    expect(app.tooltip).to_contain_text(f"{app.position_of(3)} reply")
    expect(app.tooltip).to_contain_text(app.token(3).inner_text().strip())


def test_a_cell_in_the_map_lights_its_token(app: SteersightPage) -> None:
    app.be_greedy()
    app.answer_to()
    heatmap = app.wait_for_whole_map()

    # From the last column back: the fourth from the end is in the reply.
    cell = app.walk_map("End", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft")

    lit = app.reply.locator(".token.lit")
    expect(lit).to_have_count(1)
    expect(lit).to_have_attribute("data-position", str(cell.position))
    assert cell.position < heatmap.tokens - 1


def test_the_map_can_be_explored_with_the_keyboard(app: SteersightPage) -> None:
    app.be_greedy()
    app.answer_to()
    heatmap = app.wait_for_whole_map()
    sent = app.wire.values("residual_norm")

    first = app.walk_map("Home")
    assert (first.position, first.layer) == (0, 0)
    assert first.value == pytest.approx(sent[0][0], rel=SHOWN)

    top = app.walk_map("ArrowRight", *["ArrowUp"] * (heatmap.layers + 3))
    assert (top.position, top.layer) == (1, heatmap.layers - 1)
    assert top.value == pytest.approx(sent[1][-1], rel=SHOWN)

    app.map_area.press("Escape")
    expect(app.spoken).to_be_empty()
