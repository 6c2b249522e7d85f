"""Somebody watches the layers while the reply is written, and looks at the map of one that is there.

What only looks at a map is told from a recording: it needs no engine.
"""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import expect
from steersight.recordings import RecordedRun, read_recording

import wire
from pages import QUESTION, SteersightPage
from replay import TALK
from server import Server

# The page shows three significant digits.
SHOWN = 0.006


def first_of(talk: SteersightPage) -> RecordedRun:
    """The first reply of a recording, on the map: in front of the second one stands the first."""
    run: RecordedRun = read_recording(TALK).runs[0]
    talk.show_in_map(0)
    expect(talk.map).to_have_attribute("data-tokens", str(len(run.tokens)))
    return run


def test_the_map_grows_while_the_reply_is_written(app: SteersightPage) -> None:
    app.be_greedy(tokens=400)
    app.ask()

    app.wait_while_writing(tokens=4)
    early = app.wait_for_columns(more_than=0)
    later = app.wait_for_columns(more_than=early + 3)

    assert app.reply.get_attribute("data-status") == "streaming"
    assert later > early


def test_the_map_has_a_cell_for_every_layer_and_token(talk: SteersightPage) -> None:
    run = first_of(talk)

    heatmap = talk.heatmap()

    assert run.info.model is not None
    assert heatmap.layers == run.info.model.layers
    assert heatmap.tokens == len(run.tokens)
    # The last token was never an input, so it has no row.
    assert heatmap.columns == heatmap.tokens - 1
    assert talk.colours_on_map() > 50, "The map is blank."


def test_the_tooltip_tells_the_value_that_was_sent(talk: SteersightPage) -> None:
    sent = first_of(talk).values("residual_norm")

    for across, up in ((0.25, 0.3), (0.5, 0.5), (0.75, 0.8)):
        cell = talk.point_at_map(across, up)
        assert cell.unit == "L2"
        assert cell.value == pytest.approx(sent[cell.position, cell.layer], rel=SHOWN)


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
        # In another batch a number may be rounded to the next half float: of logarithms from 8 to 16, 0.54 %.
        np.testing.assert_allclose(values, rows[position], rtol=6e-3)


def test_another_metric_is_another_picture(talk: SteersightPage) -> None:
    sent = first_of(talk).values("cosine_below")
    norms = talk.picture_of_map()

    talk.pick_metric("cosine_below")

    expect(talk.legend).to_contain_text("Cosine")
    assert talk.picture_of_map() != norms
    cell = talk.point_at_map()
    assert cell.unit == ""
    assert cell.value == pytest.approx(sent[cell.position, cell.layer], rel=SHOWN)

    talk.pick_metric("residual_norm")
    assert talk.point_at_map().unit == "L2"


def test_a_token_in_the_text_points_at_its_column(talk: SteersightPage) -> None:
    talk.token(3).hover()

    expect(talk.tooltip).to_be_visible()
    expect(talk.tooltip).to_contain_text(f"{talk.position_of(3)} reply")
    expect(talk.tooltip).to_contain_text(talk.token(3).inner_text().strip())


def test_a_cell_in_the_map_lights_its_token(talk: SteersightPage) -> None:
    heatmap = talk.heatmap()

    # From the last column back: the fourth from the end is in the reply.
    cell = talk.walk_map("End", "ArrowLeft", "ArrowLeft", "ArrowLeft", "ArrowLeft")

    lit = talk.reply.locator(".token.lit")
    expect(lit).to_have_count(1)
    expect(lit).to_have_attribute("data-position", str(cell.position))
    assert cell.position < heatmap.tokens - 1


def test_the_map_can_be_explored_with_the_keyboard(talk: SteersightPage) -> None:
    sent = first_of(talk).values("residual_norm")
    layers = talk.heatmap().layers

    first = talk.walk_map("Home")
    assert (first.position, first.layer) == (0, 0)
    assert first.value == pytest.approx(sent[0, 0], rel=SHOWN)

    top = talk.walk_map("ArrowRight", *["ArrowUp"] * (layers + 3))
    assert (top.position, top.layer) == (1, layers - 1)
    assert top.value == pytest.approx(sent[1, -1], rel=SHOWN)

    talk.map_area.press("Escape")
    expect(talk.spoken).to_be_empty()
