"""The Python client's run without a server: where its text ends, and what it asks for again."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.engine.detokenizer import check_stop_strings

from steersight.client import Client, Run
from steersight.protocol.messages import Finished, Gap, Prompt, Started, Timing, Usage
from steersight.protocol.text import before_stop


class Line:
    """The client that a run belongs to."""

    special_ids = frozenset({9})
    model = None
    name = ""
    epoch = None
    metrics: ClassVar[dict[str, Any]] = {}
    vectors: ClassVar[dict[str, Any]] = {}


def a_run(line: Line) -> Run:
    prompt = Prompt(ids=[1], texts=["a"], spans=[])
    return Run(cast(Client, line), Started(run="r", seq=1, id="x", prompt=prompt, metrics=[]))


async def test_a_gap_is_asked_for_as_far_as_there_are_tokens() -> None:
    run = a_run(Line())
    run.ids, run.pieces = [2] * 9, ["x"] * 9
    asked = await run.take(Gap(run="r", seq=2, start=3, count=50_000_000, kept=True))
    assert [(frame.start, frame.count) for frame in asked] == [(3, 7)]
    assert await run.take(Gap(run="r", seq=3, start=50_000_000, count=5, kept=True)) == []


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
    run = a_run(Line())
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
