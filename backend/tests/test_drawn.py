"""When the tokens that were drawn are told to the runs that want to know them."""

from __future__ import annotations

from dataclasses import replace

import torch

from steersight.engine.drawn import DrawnTokens
from steersight.engine.plan import Span, make_plan
from steersight.engine.request import RunOptions
from steersight.engine.run_state import RunStates
from steersight.metrics import Registry
from steersight.text.thoughts import KNOWN, Opening
from steersight.vectors.action import Action

from .tokenizers_made import byte_level

TOKENIZER = byte_level()
PROMPT = list(TOKENIZER("Hi", add_special_tokens=False)["input_ids"])
OPENING = Opening(KNOWN[0], len(PROMPT), "thought", "", ())
LETTERS = TOKENIZER("ab</think>c", add_special_tokens=False)["input_ids"]


def running(*actions: Action) -> RunStates:
    runs = RunStates(TOKENIZER)
    runs.add("r", RunOptions("run", opening=OPENING), actions)
    return runs


def step(drawn: DrawnTokens, runs: RunStates, start: int, tokens: int, token: int) -> bool:
    """One step of the run beside another one; whether it was known what acts in it."""
    spans = [Span("other", 5, 1), Span("r", start, tokens)]
    drawn.begin(spans, runs)
    wrong: list[str] = []
    make_plan(spans, runs, Registry(), 2, without=set(), fail=lambda run, _error: wrong.append(run))
    drawn.drawn(torch.tensor([[7], [token]]))
    return not wrong


def parts(runs: RunStates) -> object:
    state = runs.get("r")
    assert state is not None
    assert state.parts is not None
    return state.parts.known, state.parts.begins("answer")


def test_a_step_of_a_run_that_is_steered_in_a_part_knows_the_token_before_it() -> None:
    runs, drawn = running(Action("v", 0.1, part="answer")), DrawnTokens()
    assert step(drawn, runs, 0, 2, LETTERS[0])
    for at, token in enumerate(LETTERS[1:], 2):
        assert step(drawn, runs, at, 1, token)
        assert parts(runs)[0] == at + 1 or parts(runs)[1] is not None  # type: ignore[index]
    assert parts(runs)[1] == 1 + len("ab</think>")  # type: ignore[index]


def test_other_runs_are_told_a_step_later_and_catch_up_when_they_are_steered_so() -> None:
    runs, drawn = running(Action("v", 0.1)), DrawnTokens()
    assert step(drawn, runs, 0, 2, LETTERS[0])
    assert step(drawn, runs, 2, 1, LETTERS[1])
    assert parts(runs) == (2, None)
    state = runs.get("r")
    assert state is not None
    state.revisions[0] = replace(state.revisions[0], actions=(Action("v", 0.1, part="thought"),))
    assert step(drawn, runs, 3, 1, LETTERS[2])
    assert parts(runs) == (4, None)


def test_a_piece_of_a_prompt_and_what_is_computed_again_tell_nothing_new() -> None:
    runs, drawn = running(Action("v", 0.1, part="thought")), DrawnTokens()
    drawn.begin([Span("r", 0, 1, samples=False)], runs)
    drawn.drawn(torch.tensor([[9]]))
    assert step(drawn, runs, 1, 1, LETTERS[0])
    drawn.begin([Span("r", 0, 2)], runs)  # thrown out and back: the same token is drawn again
    drawn.drawn(torch.tensor([[LETTERS[0]]]))
    assert step(drawn, runs, 2, 1, LETTERS[1])
    assert parts(runs) == (3, None)


def test_where_a_token_is_missing_a_run_that_needs_it_fails() -> None:
    runs, drawn = running(Action("v", 0.1, part="thought")), DrawnTokens()
    assert step(drawn, runs, 0, 2, LETTERS[0])
    assert not step(drawn, runs, 3, 1, LETTERS[2])
