"""Pieces of text are those of vLLM's own detokenizer, whatever ids a model draws."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from steersight.engine import libnuma
from steersight.text.pieces import TokenTexts, ends_inside

from .tokenizers_made import byte_fallback, byte_level

TOKENIZERS: dict[str, Any] = {"byte level": byte_level(), "byte fallback": byte_fallback()}
BEYOND = 8
"""Ids behind a tokenizer's last that are tried too: many models have rows without a text."""


def vllm_pieces(tokenizer: Any, prompt: list[int], reply: list[int]) -> list[str]:
    """What vLLM's own detokenizer makes of each token of a reply."""
    libnuma.load()
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest
    from vllm.v1.engine.detokenizer import FastIncrementalDetokenizer

    request = EngineCoreRequest(
        request_id="r", prompt_token_ids=prompt, mm_features=None,
        sampling_params=SamplingParams(skip_special_tokens=False), pooling_params=None, arrival_time=0.0,
        lora_request=None, cache_salt=None, data_parallel_rank=None,
    )  # fmt: skip
    detokenizer = FastIncrementalDetokenizer(tokenizer, request)
    return [detokenizer.decode_next(token) for token in reply]


@st.composite
def sequences(draw: st.DrawFn, name: str) -> tuple[list[int], list[int]]:
    """A prompt and a reply. Few different ids, so that the halves of characters meet."""
    highest = len(TOKENIZERS[name]) + BEYOND
    some = draw(st.lists(st.integers(0, highest), min_size=1, max_size=5))
    ids = st.one_of(st.sampled_from(some), st.integers(0, highest))
    return draw(st.lists(ids, max_size=8)), draw(st.lists(ids, max_size=24))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_are_those_of_vllm(name: str) -> None:
    tokenizer = TOKENIZERS[name]

    vllm_pieces(tokenizer, [], [])  # imports vLLM, which takes seconds

    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(sequences(name))
    def check(drawn: tuple[list[int], list[int]]) -> None:
        prompt, reply = drawn
        assume(not ends_inside(tokenizer, prompt))
        texts = TokenTexts(tokenizer, after=prompt)
        assert [texts.next(token) for token in reply] == vllm_pieces(tokenizer, prompt, reply)

    check()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_behind_half_a_character_comes_that_character_and_nothing_before_it(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    *before, last = tokenizer("ab 👧", add_special_tokens=False)["input_ids"]
    assert ends_inside(tokenizer, before), "each of its bytes is a token"
    assert TokenTexts(tokenizer, after=before).next(last) == "👧"


def test_a_stray_byte_after_a_byte_token_ends_nothing() -> None:
    tokenizer = TOKENIZERS["byte fallback"]
    good, stray, letter = 3 + 0x41, 3 + 0xE4, tokenizer.convert_tokens_to_ids("b")
    texts = TokenTexts(tokenizer)
    assert texts.next(good) == "A"
    assert "".join(texts.next(token) for token in (stray, letter, good)).endswith("bA")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_of_a_text_join_to_it(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    text = "ab é 好 👩‍👧 !"
    texts = TokenTexts(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(texts.next(token) for token in ids) == text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_id_has_a_text_of_its_own(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    texts = TokenTexts(tokenizer)
    assert all(isinstance(texts.alone(token), str) for token in range(len(tokenizer) + BEYOND))
