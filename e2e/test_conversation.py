"""Somebody talks with the model: several turns, Stop, Regenerate, a new chat, settings."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from pages import QUESTION, SteersightPage


def test_the_model_is_told_what_was_said_before(app: SteersightPage) -> None:
    app.be_greedy(tokens=40)
    first = app.answer_to("My name is Alice and I live in Lisbon.")
    second = app.answer_to("What is my name?")

    said = [(message.role, message.content) for message in app.wire.last_start().messages]
    assert said == [
        ("user", "My name is Alice and I live in Lisbon."),
        ("assistant", first),
        ("user", "What is my name?"),
    ]
    read = "".join(app.wire.last_started().prompt.texts)
    assert "I live in Lisbon" in read
    assert "Alice" in second


def test_a_new_chat_knows_nothing_of_the_old(app: SteersightPage) -> None:
    app.be_greedy(tokens=8)
    app.answer_to("My name is Alice.")

    app.new_chat()
    expect(app.replies).to_have_count(0)
    app.answer_to("What is my name?")

    assert len(app.wire.last_start().messages) == 1
    assert "Alice" not in "".join(app.wire.last_started().prompt.texts)


def test_stop_keeps_what_was_written(app: SteersightPage) -> None:
    app.be_greedy(tokens=400)
    app.ask("Write a long story about a dragon and a lighthouse.")
    app.wait_while_writing(tokens=5)

    app.stop()

    expect(app.ending).to_have_text("Stopped")
    assert 5 <= len(app.reply_tokens()) < 400
    app.be_greedy(tokens=4)
    app.answer_to("And now say hello.")
    expect(app.questions).to_have_count(2)
    expect(app.replies).to_have_count(2)


def test_regenerate_replaces_the_last_reply(app: SteersightPage) -> None:
    app.be_greedy()
    first = app.answer_to()
    app.steer("pirate", 0.2)

    steered = app.regenerate()
    app.steer("pirate", 0)
    again = app.regenerate()

    expect(app.replies).to_have_count(1)
    expect(app.questions).to_have_text([QUESTION])
    assert steered != first
    assert again == first


def test_the_longest_reply_is_as_long_as_set(app: SteersightPage) -> None:
    app.be_greedy(tokens=7)
    app.answer_to()

    assert len(app.wire.reply_ids()) == 7
    expect(app.ending).to_have_text("Ended at the token limit")


def test_a_seed_makes_a_random_reply_repeatable(app: SteersightPage) -> None:
    app.set(temperature=1.2, max_tokens=16, seed=7)
    first = app.answer_to()
    assert app.regenerate() == first

    app.set(seed=8)
    assert app.regenerate() != first


def test_a_system_prompt_comes_first(app: SteersightPage) -> None:
    app.set(temperature=0, max_tokens=4, system="You answer in one word.")
    app.answer_to()

    said = [(message.role, message.content) for message in app.wire.last_start().messages]
    assert said[0] == ("system", "You answer in one word.")
    assert "You answer in one word." in "".join(app.wire.last_started().prompt.texts)


def test_a_stop_string_ends_the_reply(app: SteersightPage) -> None:
    app.be_greedy()
    whole = app.answer_to()
    word = whole.split()[4]

    app.set(stop=word)
    cut = app.regenerate()

    expect(app.ending).to_have_text(f'Ended at "{word}"')
    assert whole.startswith(cut)
    assert word not in cut


def test_settings_are_there_after_a_reload(app: SteersightPage) -> None:
    app.set(temperature=0.3, max_tokens=33)

    app.page.reload()
    app.wait_until_ready()

    app.page.get_by_test_id("settings").click()
    expect(app.page.get_by_test_id("setting-temperature")).to_have_value("0.3")
    expect(app.page.get_by_test_id("setting-max_tokens")).to_have_value("33")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("temperature", "9", "It must be at most 2."),
        ("max_tokens", "2.5", "A whole number is needed here."),
        ("top_p", "0", "It must be more than 0."),
        ("max_tokens", "", "A number is needed here."),
    ],
)
def test_an_impossible_setting_says_so_and_is_not_sent(
    app: SteersightPage, name: str, value: str, sentence: str
) -> None:
    app.be_greedy(tokens=4)
    app.page.get_by_test_id("settings").click()
    panel = app.page.get_by_test_id("settings-panel")
    field = panel.get_by_test_id(f"setting-{name}")
    before = float(field.input_value())

    field.fill(value)

    expect(panel).to_contain_text(sentence)
    app.answer_to()
    assert float(getattr(app.wire.last_start().sampling, name)) == before
