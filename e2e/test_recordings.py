"""Somebody opens, shows and saves recordings: without an engine, from disk, and over a live conversation."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from playwright.sync_api import expect
from steersight.recordings import read_recording

from conftest import ContextFor
from pages import QUESTION, Saved, SteersightPage
from replay import FACTS, TALK, WRITTEN_ON
from test_looks import SCHEMES, readable


def file_of(path: Path) -> Saved:
    """A file as somebody has it on disk."""
    return Saved(path.name, path.read_bytes())


def test_a_recording_is_shown_as_it_was(talk: SteersightPage, pytestconfig: pytest.Config) -> None:
    first, second = read_recording(TALK).runs
    folder = Path(pytestconfig.getoption("--output")) / "looks"
    folder.mkdir(parents=True, exist_ok=True)

    expect(talk.recording_title).to_have_text(QUESTION)
    expect(talk.recording).to_contain_text("smollm2-135m-instruct")
    assert talk.replies.all_inner_texts()[0].startswith("".join(first.reply_texts))
    assert talk.reply_text() == "".join(second.reply_texts)
    assert talk.heatmap().columns == len(second.revisions)
    expect(talk.prompt).to_be_disabled()
    expect(talk.send).to_be_disabled()
    expect(talk.slider("joy")).to_be_disabled()
    expect(talk.page.get_by_test_id("watch")).to_be_disabled()
    assert not talk.wire.sent, "A page without a server asked for one."
    for scheme, width in product(SCHEMES, (1280, 390)):
        talk.look(scheme, width)
        talk.wait_for_whole_map()
        talk.page.screenshot(path=folder / f"{scheme}-{width}-recording.png", full_page=True)
        readable(talk, f"{scheme}, {width}")
    talk.page.get_by_test_id("save-recording").click()
    readable(talk, "with the menu")


def test_sliders_stand_as_in_the_reply_on_the_map(talk: SteersightPage) -> None:
    expect(talk.strength("joy")).to_have_value("0.15")
    assert talk.wait_until_in_force("joy") == 0

    talk.show_in_map(0)

    expect(talk.strength("joy")).to_have_value("0")
    assert talk.heatmap().revisions == []


def test_another_recording_is_opened_by_dropping_it(talk: SteersightPage) -> None:
    facts = read_recording(FACTS)

    talk.drop(file_of(FACTS))

    expect(talk.recording_title).to_have_text(facts.title)
    expect(talk.reply).to_contain_text("Eiffel Tower")
    assert talk.wait_for_whole_map().revisions == [(1, facts.runs[0].info.revisions[1].position)]


def test_a_damaged_file_says_so_and_loses_nothing(talk: SteersightPage) -> None:
    data = bytearray(FACTS.read_bytes())
    data[len(data) // 2] ^= 0xFF

    for name, broken, why in (
        ("cut.steersight.npz", bytes(data[:-30]), "its end is missing"),
        ("bits.steersight.npz", bytes(data), "is damaged"),
        ("song.mp3", b"ID3" * 100, "no zip file"),
    ):
        talk.choose_recording(Saved(name, broken))
        expect(talk.error).to_contain_text(f"“{name}” was not opened.")
        expect(talk.error).to_contain_text(why)
        expect(talk.recording_title).to_have_text(QUESTION)

    talk.choose_recording(file_of(FACTS))
    expect(talk.error).to_have_count(0)


def test_what_is_saved_is_what_was_opened(talk: SteersightPage) -> None:
    assert talk.save("conversation") == Saved("Tell-me-about-Paris.steersight.npz", TALK.read_bytes())

    shown = talk.save("shown")

    assert shown.name == "And-about-Rome.steersight.npz"
    (alone,), (_, second) = read_recording(shown.data).runs, read_recording(TALK).runs
    assert alone.info == second.info
    assert alone.rows["residual_norm"].tobytes() == second.rows["residual_norm"].tobytes()
    talk.drop(shown)
    expect(talk.recording_title).to_have_text("And about Rome?")
    expect(talk.replies).to_have_count(1)


def test_a_saved_page_opens_from_disk_without_a_server(
    facts: SteersightPage, context_for: ContextFor, tmp_path: Path
) -> None:
    page = facts.save("page")
    file = tmp_path / page.name
    file.write_bytes(page.data)
    # Requests to any host at all would be complained of: a file has none.
    context = context_for(file.as_uri(), viewport={"width": 1280, "height": 900}, color_scheme="light")
    alone = SteersightPage(context.new_page(), file.as_uri())

    alone.open()

    heatmap = alone.wait_for_recording()
    assert heatmap == facts.heatmap()
    assert alone.reply_text() == facts.reply_text()
    assert alone.point_at_map() == facts.point_at_map()
    assert alone.save("conversation").data == FACTS.read_bytes()
    assert alone.save("page").data == page.data


def test_a_reply_that_was_written_on_is_shown_whole(talk: SteersightPage) -> None:
    beginning, end = read_recording(WRITTEN_ON).runs

    talk.drop(file_of(WRITTEN_ON))

    expect(talk.recording_title).to_contain_text("twelve facts")
    talk.wait_for_whole_map()
    assert talk.reply_text() == "".join(beginning.reply_texts + end.reply_texts)


def test_a_live_conversation_waits_behind_a_recording(app: SteersightPage) -> None:
    app.be_greedy()
    text = app.answer_to()
    heatmap = app.wait_for_whole_map()
    cell = app.walk_map("End", "ArrowLeft", "ArrowUp")
    app.prompt.fill("And about Rome?")

    saved = app.save("conversation")
    app.drop(saved)

    expect(app.recording_title).to_have_text(QUESTION)
    assert app.wait_for_recording() == heatmap
    assert (app.reply_text(), app.walk_map("End", "ArrowLeft", "ArrowUp")) == (text, cell)
    (run,) = read_recording(saved.data).runs
    sent = app.wire.values("residual_norm")
    assert len(sent) == len(run.revisions)
    for position, values in sent.items():
        assert values.tolist() == run.values("residual_norm")[position].tolist()

    app.back_to_live.click()

    expect(app.recording).to_have_count(0)
    expect(app.prompt).to_have_value("And about Rome?")
    assert app.reply_text() == text
    app.prompt.press("Enter")
    expect(app.questions).to_have_count(2)
    app.wait_for_reply()
