"""Engines that can part replies into thought and answer, whatever model they serve; and where the parts
begin, found slowly: by reading the whole text anew after each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from steersight.engine import loading
from steersight.engine.options import CONFIG_KEY
from steersight.text.thoughts import Marks

Passes = dict[str, tuple[int, int | None]]
"""Of each part that has begun, its first pass and one past its last; None where none is known."""


@contextmanager
def parting() -> Iterator[None]:
    """Engines that are started meanwhile are told that their model thinks, and so have its tokenizer."""
    loading.import_engine(lambda _stage, _progress: None)
    from steersight.engine import nnsight_adapter

    class Parting(nnsight_adapter.SteersightVLLM):  # type: ignore[misc]  # nnsight ships no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["additional_config"][CONFIG_KEY]["thinks"] = True
            super().__init__(*args, **kwargs)

    before = nnsight_adapter.SteersightVLLM
    nnsight_adapter.SteersightVLLM = Parting  # type: ignore[misc]
    try:
        yield
    finally:
        nnsight_adapter.SteersightVLLM = before  # type: ignore[misc]


def passes(tokenizer: Any, marks: Marks, prompt_tokens: int, reply: Sequence[int], opened: bool) -> Passes:
    """Where the parts of a reply are.

    Args:
        tokenizer: transformers'.
        marks: of the thought.
        prompt_tokens: length of the prompt.
        reply: the reply's ids.
        opened: whether the prompt has begun the thought.
    """
    thought = prompt_tokens - 1 if opened else None
    answer = None
    for count in range(1, len(reply) + 1):
        text: str = tokenizer.decode(reply[:count], skip_special_tokens=False).rstrip("\ufffd")
        at, begun = prompt_tokens + count - 1, text.lstrip()
        if thought is None and answer is None:
            if begun.startswith(marks.start):
                thought = at
            elif not marks.start.startswith(begun):
                answer = at
        if thought is not None and answer is None:
            inside = text if opened else begun[len(marks.start) :]
            if marks.end in inside:
                answer = at
    found: Passes = {}
    if thought is not None:
        found["thought"] = (thought, answer)
    if answer is not None:
        found["answer"] = (answer, None)
    return found
