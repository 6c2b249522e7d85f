"""Where thought and answer of a reply begin, from its tokens in any tokenization and from nothing later."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from steersight.engine.request import RunOptions
from steersight.engine.run_state import Revision, RunState
from steersight.text.thoughts import (
    HARMONY,
    KNOWN,
    MOST_UNREAD,
    Cut,
    Marks,
    Opening,
    ReplyParts,
    cut_after,
    marks_in,
)
from steersight.vectors.action import Action

from .parting import passes
from .tokenizers_made import byte_level

THINK = KNOWN[0]
WORDS = ("<think>", "</think>", "<th", "ink>", "</", "th", "ink", ">", "\n", "é", "So", "<|x|>")
TOKENIZER = byte_level([AddedToken(word, normalized=False) for word in WORDS])
"""Each byte is a token, and so are these: one text has many tokenizations."""
PROMPT = list(byte_level()("Hi", add_special_tokens=False)["input_ids"])
FIRST_WORD = TOKENIZER.convert_tokens_to_ids(WORDS[0])


def parts(marks: Marks = THINK, opening: str = "", said: str = "", tokenizer: Any = TOKENIZER) -> ReplyParts:
    return ReplyParts(Opening.of(cut_after(marks, opening, said), PROMPT), tokenizer)


def ids_of(pieces: list[str]) -> list[int]:
    return [token for piece in pieces for token in TOKENIZER(piece, add_special_tokens=False)["input_ids"]]


def by_bytes(text: str) -> list[int]:
    plain = byte_level()
    return list(plain(text, add_special_tokens=False)["input_ids"])


def slowly(ids: list[int], opening: str = "") -> tuple[int | None, int | None]:
    """First passes of thought and answer."""
    if opening == "</think>":
        return None, len(PROMPT) - 1
    found = passes(TOKENIZER, THINK, len(PROMPT), ids, opening == "<think>")
    return tuple(found.get(part, (None,))[0] for part in ("thought", "answer"))  # type: ignore[return-value]


tokens = st.lists(
    st.one_of(
        st.sampled_from(WORDS).map(lambda word: ids_of([word])),
        st.sampled_from(("<think>", "</think>", "é", "👋", " a")).map(by_bytes),
    ),
    max_size=12,
).map(lambda pieces: [token for piece in pieces for token in piece])


@given(tokens, st.sampled_from(["", "<think>", "</think>"]), st.data())
def test_parts_begin_where_the_text_says_in_any_tokenization_and_whenever_it_is_asked(
    ids: list[int], opening: str, data: st.DataObject
) -> None:
    found = parts(opening=opening)
    for position, token in enumerate(ids, len(PROMPT)):
        if data.draw(st.booleans()):
            expected = slowly(ids[: position - len(PROMPT)], opening)
            assert (found.begins("thought"), found.begins("answer")) == expected
        found.tell(position, token)
    assert (found.begins("thought"), found.begins("answer")) == slowly(ids, opening)


@given(tokens)
def test_what_comes_later_moves_nothing(ids: list[int]) -> None:
    whole = parts()
    whole.tell_all(len(PROMPT), ids)
    for count in range(len(ids) + 1):
        so_far = parts()
        so_far.tell_all(len(PROMPT), ids[:count])
        for part in ("thought", "answer"):
            known, later = so_far.begins(part), whole.begins(part)
            assert known == later or (known is None and later is not None and later >= len(PROMPT) + count)


@pytest.mark.parametrize("marks", KNOWN, ids=lambda marks: marks.end)
def test_all_known_marks_are_found_byte_by_byte(marks: Marks) -> None:
    found = parts(marks)
    head, thought, tail = (by_bytes(text) for text in (f"\n{marks.start}", "Hm.", f"\n{marks.end}"))
    ids = [*head, *thought, *tail, *by_bytes("Yes.")]
    found.tell_all(len(PROMPT), ids)
    assert found.passes("thought") == (
        len(PROMPT) + len(head) - 1,
        len(PROMPT) + len(head + thought + tail) - 1,
    )
    assert found.passes("answer") == (len(PROMPT) + len(head + thought + tail) - 1, None)


def test_one_token_may_hold_a_mark_and_more() -> None:
    tokenizer = byte_level([AddedToken("<think>\n", normalized=False), AddedToken(">\n\nYes")])
    opened, closing = tokenizer.convert_tokens_to_ids(["<think>\n", ">\n\nYes"])
    found = parts(tokenizer=tokenizer)
    found.tell_all(2, [opened, *by_bytes("a</think"), closing])
    assert found.passes("thought") == (2, 2 + 1 + len("a</think"))


def test_a_reply_without_a_thought_is_an_answer_once_that_is_certain() -> None:
    found = parts()
    found.tell_all(2, by_bytes("<thanks>"))
    assert found.passes("thought") is None
    assert found.passes("answer") == (2 + len("<tha") - 1, None)


@pytest.mark.parametrize(
    ("opening", "said", "part"),
    [
        ("<|im_start|>assistant\n", "", "undecided"),
        ("<|im_start|>assistant\n<think>\n", "", "thought"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "", "answer"),
        ("<assistant></think>", "", "answer"),
        ("<|im_start|>assistant\n", "<think>\nSo", "thought"),
        ("<|im_start|>assistant\n", "<thi", "undecided"),
        ("<|im_start|>assistant\n<think>\n", "So be it.</think>Yes", "answer"),
        ("<|im_start|>assistant\n", "Yes", "answer"),
    ],
)
def test_what_the_template_wrote_and_what_is_written_on_say_where_a_reply_begins(
    opening: str, said: str, part: str
) -> None:
    assert cut_after(THINK, opening, said).part == part


@given(st.integers(0, len("<think>So</think>Yes")), st.booleans())
def test_a_reply_that_is_written_on_is_parted_where_it_would_have_been(at: int, opened: bool) -> None:
    opening, text = ("<think>", "So</think>Yes") if opened else ("", "<think>So</think>Yes")
    at = min(at, len(text))
    whole = parts(opening=opening)
    whole.tell_all(2, by_bytes(text))
    rest = ReplyParts(
        Opening.of(cut_after(THINK, opening, text[:at]), [*PROMPT, *by_bytes(text[:at])]), TOKENIZER
    )
    rest.tell_all(2 + at, by_bytes(text[at:]))
    for part in ("thought", "answer"):
        begins = whole.begins(part)
        if begins is not None and begins >= 2 + at - 1:
            assert rest.begins(part) == begins
    if at < text.index("</think>"):
        assert rest.passes("thought") is not None


def test_a_harmony_reply_thinks_until_its_final_channel() -> None:
    cut = Cut(HARMONY)
    cut.take("<|channel|>")
    assert cut.part == "undecided"
    cut.take("analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>x")
    assert cut.part == "thought"
    cut.take("<|end|><|start|>assistant<|channel|>final<|message|>")
    assert cut.part == "answer"
    straight = Cut(HARMONY)
    straight.take("<|channel|>final<|message|>Yes")
    assert (straight.part, straight.thinks) == ("answer", False)


@pytest.mark.parametrize(
    ("template", "marks"),
    [
        ("{{ content.split('</think>')[-1] }}", THINK),
        ("{{ '<|start|>assistant<|channel|>final<|message|>' + content }}", HARMONY),
        ("{{ '[THINK]' }}", Marks("[THINK]", "[/THINK]")),
        ("{{ content }}", None),
    ],
)
def test_a_template_names_its_marks(template: str, marks: Marks | None) -> None:
    assert marks_in(template) == marks


def test_a_long_thought_is_read_in_bunches_and_settles() -> None:
    found = parts()
    found.tell_all(2, by_bytes("Yes, " * MOST_UNREAD))
    assert found.settled
    assert found.begins("answer") == 2


def test_behind_a_token_that_was_never_told_nothing_is_known() -> None:
    found = parts(opening="<think>")
    found.tell(2, 72)
    found.tell(4, FIRST_WORD)
    found.tell(2, 73)
    assert found.known == 3
    state = RunState.begin(RunOptions("r"), (Action("v", 0.1, part="thought"),), found)
    assert state.foreknown(3)
    assert not state.foreknown(4)


def test_an_opening_travels_as_plain_values() -> None:
    opening = Opening.of(cut_after(THINK, "<think>", "a</thi"), list(range(40)))
    options = RunOptions("r", opening=opening)
    assert RunOptions.from_wire(options.to_wire()) == options
    assert len(opening.before) < 40


# ---------------------------------------------------------------- what acts


def state_of(text: str, *actions: Action, opening: str = "") -> RunState:
    found = parts(opening=opening)
    state = RunState.begin(RunOptions("r"), actions, found)
    found.tell_all(2, by_bytes(text))
    return state


def acted(state: RunState, end: int) -> dict[str, list[int]]:
    where: dict[str, list[int]] = {}
    for first, last, action in state.acting(0, end):
        where.setdefault(action.vector, []).extend(range(first, last))
    return where


def test_vectors_act_in_their_part_only_and_in_its_first_passes() -> None:
    text = "<think>ab</think>xyz"
    actions = (
        Action("thought", 0.1, part="thought"),
        Action("answer", 0.1, part="answer"),
        Action("first", 0.1, part="answer", first=2),
        Action("all", 0.1),
    )
    state = state_of(text, *actions)
    end = 2 + len(text)
    thought, answer = 2 + len("<think>") - 1, 2 + len("<think>ab</think>") - 1
    assert acted(state, end) == {
        "thought": list(range(thought, answer)),
        "answer": list(range(answer, end)),
        "first": [answer, answer + 1],
        "all": list(range(1, end)),
    }


def test_deeds_say_what_acts_and_not_why() -> None:
    """Steered in the thought alone is what steered from there to there is."""
    text = "<think>ab</think>xyz"
    mine = state_of(text, Action("v", 0.1, part="thought"))
    start, end = 2 + len("<think>") - 1, 2 + len("<think>ab</think>") - 1
    theirs = RunState.begin(RunOptions("r"), (Action("v", 0.1, start=start, end=end),))
    for first in range(0, 2 + len(text), 4):
        assert mine.deeds(first, first + 4) == theirs.deeds(first, first + 4)


def test_a_slider_moved_in_mid_thought_acts_from_there_to_the_thoughts_end() -> None:
    state = state_of("ab</think>xyz", opening="<think>")
    state.next_position = 3
    state.steer(Revision(1, (Action("v", 0.1, part="thought"),)))
    assert acted(state, 2 + len("ab</think>xyz")) == {"v": list(range(3, 2 + len("ab</think>") - 1))}


def test_without_parts_a_part_is_nowhere() -> None:
    state = RunState.begin(RunOptions("r"), (Action("v", 0.1, part="answer"),))
    assert acted(state, 9) == {}
