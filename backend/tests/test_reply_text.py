"""Where a reply's text ends: one rule for the server's clients, and vLLM's own."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.engine.detokenizer import check_stop_strings

from steersight.client import Client, Run
from steersight.protocol.messages import Finished, Prompt, Started, Timing, Usage
from steersight.protocol.text import before_stop


def finished(stop: str | None) -> Finished:
    return Finished(
        run="r", seq=3, reason="stop", stop=stop, error=None,
        usage=Usage(prompt_tokens=1, reply_tokens=4),
        timing=Timing(first_token_ms=1.0, total_ms=2.0, tokens_per_s=None),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("stop", "text"),
    [(".\n", "One"), ("Two", "One.\n"), ("ee.\n", "One.\nTwo.\nThr"), ("never", None), (None, None)],
)
def test_the_first_of_several_stop_strings_ends_the_text(stop: str | None, text: str | None) -> None:
    run = Run(
        cast(Client, type("Nobody", (), {"special_ids": frozenset({9})})()),
        Started(run="r", seq=1, id="x", prompt=Prompt(ids=[1], texts=["a"], spans=[]), metrics=[]),
    )
    run.ids, run.pieces = [2, 3, 4, 9, 5], ["One", ".\n", "Two", "<|im_end|>", ".\nThree.\n"]
    run.finished = finished(stop)
    assert run.text == (text if text is not None else "One.\nTwo.\nThree.\n")


@given(
    st.lists(st.text("ab.", min_size=1, max_size=4), min_size=1, max_size=8),
    st.text("ab.", min_size=1, max_size=3),
)
def test_it_ends_where_vllm_ends_it(pieces: list[str], stop: str) -> None:
    """vLLM looks after every token, in as much of the text as that token can have made a stop string of."""
    text = ""
    for piece in pieces:
        text += piece
        found: Any = check_stop_strings(text, len(piece), [stop], include_in_output=False)
        if found is not None:
            assert before_stop(text, stop) == text[: found[1]]
            return
    assert before_stop(text, stop) == text
