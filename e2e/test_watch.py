"""Somebody chooses what a reply is watched with: the logit lens, projections, metrics of their own."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import expect

from pages import SteersightPage
from server import OwnServer, Server
from test_looks import SCHEMES, readable


@pytest.fixture
def own_metrics(server: Server) -> None:
    """The server has the examples' metrics."""
    if not isinstance(server, OwnServer):
        pytest.skip("The server under test was not started with the example metrics.")


def test_the_logit_lens_names_what_each_layer_would_write(app: SteersightPage) -> None:
    app.watch("logit_lens", stride="1")
    app.be_greedy()
    app.answer_to()
    app.wait_for_whole_map()

    # Across the reply at the last layer: greedy, so the likeliest token is the one that was written.
    for across in (0.7, 0.8, 0.9):
        cell = app.point_at_last_layer(across)
        assert app.guesses()[0] == ("written", app.wire.token_after(cell.position))
    early = app.point_at_map(0.9, 0.5)
    assert len(app.guesses()) == 5
    assert early.layer < app.wire.layers() - 1

    app.pick_metric("lens_probability")
    app.wait_for_whole_map()
    cell = app.point_at_last_layer(0.8)
    assert cell.value == pytest.approx(
        app.wire.values("lens_probability")[cell.position][cell.layer], abs=0.006
    )


def test_a_reply_that_was_not_watched_says_so_and_the_next_one_is(app: SteersightPage) -> None:
    app.be_greedy()
    app.answer_to()
    app.pick_metric("mlp_norm")
    expect(app.unwatched).to_contain_text("This reply was not watched with MLP's part.")

    app.watch_next_button.click()
    expect(app.unwatched).to_contain_text("The next one will be.")
    app.regenerate()
    app.wait_for_whole_map()

    expect(app.unwatched).to_have_count(0)
    assert app.wire.values("mlp_norm")


def test_a_projection_shows_the_sliders_push(app: SteersightPage) -> None:
    app.be_greedy()
    app.steer("joy", 0.2)
    app.answer_to()
    app.pick_metric("projection:joy")
    app.wait_for_whole_map()

    after, before = app.wire.values("projection:joy"), app.wire.values("projection_before:joy")
    layers = app.wire.vector_layers("joy")
    reply = [position for position in after if position >= len(app.wire.last_started().prompt.ids)]
    moved = [after[position][layer] - before[position][layer] for position in reply for layer in layers]
    assert min(moved) > 0.1, "The slider's push is not seen in the projection."
    untouched = [after[position][0] - before[position][0] for position in reply if 0 not in layers]
    assert set(untouched) == {0.0}


def test_a_token_tells_its_surprisal_rank_and_entropy(talk: SteersightPage) -> None:
    talk.point_at_map(0.85, 0.5)

    expect(talk.drawn).to_contain_text("surprisal")
    expect(talk.drawn).to_contain_text("rank 1,")
    expect(talk.drawn).to_contain_text("drawn at entropy")


def test_metrics_of_your_own_show_up_by_themselves(app: SteersightPage, own_metrics: None) -> None:
    app.be_greedy(tokens=12)
    app.answer_to("Where does the old lady live?")

    for metric in ("probe_question", "effective_rank", "from_prompt.distance"):
        app.pick_metric(metric)
        app.wait_for_whole_map()
        cell = app.point_at_map(0.4, 0.8)
        assert cell.value == pytest.approx(
            app.wire.values(metric)[cell.position][cell.layer], rel=0.006, abs=0.006
        )
        assert app.colours_on_map() > 50


def test_a_metric_that_fails_says_so_and_takes_nothing_with_it(
    app: SteersightPage, own_metrics: None
) -> None:
    app.be_greedy(tokens=8)
    first = app.answer_to()

    failed = app.metric_picker.locator("option[value=raises]")
    expect(failed).to_have_text("Raises (failed)")
    expect(failed).to_be_disabled()
    app.new_chat()
    assert app.answer_to() == first


def test_the_choice_is_readable(app: SteersightPage, pytestconfig: pytest.Config) -> None:
    app.watch("logit_lens", stride="4", stay=True)
    app.be_greedy(tokens=40)
    app.answer_to()
    app.pick_metric("lens_entropy")

    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)
    for scheme, width in product(SCHEMES, (1280, 390)):
        app.look(scheme, width)
        app.wait_for_whole_map()
        app.point_at_last_layer(0.8)
        app.page.screenshot(path=folder / f"{scheme}-{width}-watch.png", full_page=True)
        readable(app, f"{scheme}, {width}")
