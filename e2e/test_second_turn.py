"""Somebody goes on with a conversation: what the engine has read already is not read again, and the map is
whole all the same."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from pages import SteersightPage

TURNS = 10


def test_ten_turns_with_a_whole_map_each(app: SteersightPage) -> None:
    app.be_greedy(tokens=12)
    for turn in range(TURNS):
        app.answer_to(f"Question {turn}: what else should one see in Paris?")
        drawn = app.wait_for_whole_map()

        prompt, usage = len(app.wire.last_started().prompt.ids), app.wire.last_finished().usage
        rows = app.wire.values("residual_norm")
        # All but its last token, which nobody reads.
        assert sorted(rows) == list(range(prompt + usage.reply_tokens - 1))
        assert drawn.tokens == prompt + usage.reply_tokens
        # What is new of a prompt: the turn before, but for whole blocks of it, and the question.
        if turn:
            assert prompt - usage.cached_tokens < 120, f"turn {turn} was read anew"
    expect(app.from_cache).to_have_count(0)


def test_earlier_turns_stand_as_they_were_written_until_one_wants_them_read_again(
    app: SteersightPage,
) -> None:
    app.be_greedy(tokens=12)
    app.steer("joy", 0.3)
    app.answer_to("What is the capital of France?")
    app.wait_for_whole_map()
    written = app.wire.values("residual_norm")
    app.steer("joy", 0)
    app.answer_to("And of Spain?")
    app.wait_for_whole_map()

    expect(app.as_written).to_contain_text("as they were when they were written")
    first = app.point_at_map(0.1, 0.85)
    assert first.position in written
    assert first.value == pytest.approx(written[first.position][first.layer], rel=0.006)
    expect(app.tooltip).to_contain_text("of an earlier turn")

    app.reread_button.click()
    expect(app.as_written).to_contain_text("read again for this reply")
    app.wait_for_whole_map()
    again = app.point_at_map(0.1, 0.85)
    assert (again.position, again.layer) == (first.position, first.layer)
    # Read unsteered, the same token has another norm in the layers behind the one that was steered.
    assert again.value != first.value
    expect(app.tooltip).not_to_contain_text("of an earlier turn")


def test_what_was_not_computed_can_be(app: SteersightPage) -> None:
    app.be_greedy(tokens=8)
    app.answer_to(" ".join(f"Paris has river {number}." for number in range(60)) + " Which is the longest?")
    # Nobody has watched these tokens so.
    app.watch("parts")
    reply = app.regenerate()
    app.pick_metric("mlp_norm")
    expect(app.from_cache).to_contain_text("tokens were not computed for this reply")
    app.hover_map(0.1, 0.5)
    expect(app.tooltip).to_contain_text("in the engine's cache")

    app.compute_button.click()
    expect(app.from_cache).to_have_count(0)

    app.wait_for_whole_map()
    assert app.reply_text() == reply
    expect(app.replies).to_have_count(1)
    cell = app.point_at_map(0.1, 0.5)
    assert cell.value == pytest.approx(app.wire.values("mlp_norm")[cell.position][cell.layer], rel=0.006)
