"""The reference against transformers itself: its own generate, its own hidden states, and the formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from .greedy import Generation, greedy
from .reference import Reference

LAYER = 12


@pytest.fixture(scope="module")
def tokenizer(model_dir: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_dir)


@pytest.fixture(scope="module")
def paris(tokenizer: Any) -> list[int]:
    return prompt(tokenizer, "Tell me about Paris.")


@pytest.fixture(scope="module")
def direction() -> torch.Tensor:
    v = torch.randn(576, generator=torch.Generator().manual_seed(7))
    return v / v.norm()


@pytest.fixture(scope="module")
def plain(reference: Reference, paris: list[int]) -> Generation:
    return greedy(reference.model, paris, 12, ignore_eos=True)


def prompt(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def test_the_bundled_model_knows_the_capital_of_france(reference: Reference, tokenizer: Any) -> None:
    reply = greedy(reference.model, prompt(tokenizer, "What is the capital of France?"), 20)
    assert tokenizer.decode(reply.ids) == "The capital of France is Paris.<|im_end|>"
    assert min(reply.gaps) > 0


def test_unsteered_it_is_transformers_own_greedy_generate(reference: Reference, paris: list[int]) -> None:
    reply = greedy(reference.model, paris, 16, ignore_eos=True)
    theirs = reference.model.generate(
        torch.tensor([paris]), attention_mask=torch.ones(1, len(paris)), max_new_tokens=16, do_sample=False
    )
    assert reply.ids == theirs[0, len(paris) :].tolist()


def test_unsteered_rows_are_transformers_hidden_states(reference: Reference, paris: list[int]) -> None:
    reading = reference.read(paris)
    with torch.inference_mode():
        states = reference.model(torch.tensor([paris]), output_hidden_states=True).hidden_states
    # The last of them is after the final norm and no residual stream any more.
    stream = torch.stack(states[:-1])[:, 0].double()
    cosine = torch.nn.functional.cosine_similarity(stream[1:], stream[:-1], dim=-1).T
    written = (stream[1:] - stream[:-1]).norm(dim=-1).T
    np.testing.assert_allclose(reading.residual_norm[:, :-1], stream[1:].norm(dim=-1).T, rtol=1e-6)
    np.testing.assert_allclose(reading.update_norm[:, :-1], written, rtol=1e-5)
    np.testing.assert_allclose(reading.cosine_below[:, :-1], cosine, atol=1e-6)


def test_steering_acts_where_the_formula_says(
    reference: Reference, paris: list[int], direction: torch.Tensor
) -> None:
    plain = reference.read(paris)
    steered = reference.read(paris, lambda _position: [(LAYER, direction, 0.2)])
    for name in ("residual_norm", "update_norm", "cosine_below"):
        before, after = getattr(plain, name), getattr(steered, name)
        np.testing.assert_array_equal(after[:, :LAYER], before[:, :LAYER])
        np.testing.assert_array_equal(after[0], before[0])  # position 0 is left alone
    np.testing.assert_array_equal(steered.update_norm[:, LAYER], plain.update_norm[:, LAYER])
    # ||h + s ||h|| v||^2 = ||h||^2 (1 + s^2 + 2 s cos), with |cos| <= 1.
    growth = steered.residual_norm[1:, LAYER] / plain.residual_norm[1:, LAYER]
    assert ((growth > 0.8) & (growth < 1.2) & (growth != 1.0)).all()


def test_the_sum_of_all_pushes_is_capped(
    reference: Reference, paris: list[int], direction: torch.Tensor
) -> None:
    capped = reference.read(
        paris, lambda _position: [(LAYER, direction, 3.0), (LAYER, direction, 4.0)], cap=0.5
    )
    same = reference.read(paris, lambda _position: [(LAYER, direction, 0.5)])
    for name in ("residual_norm", "update_norm", "cosine_below"):
        np.testing.assert_allclose(getattr(capped, name), getattr(same, name), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(("strength", "cap"), [(0.2, 1.0), (-0.3, 1.0), (2.0, 0.4)])
def test_one_pass_sees_what_token_by_token_writes(
    reference: Reference, paris: list[int], plain: Generation, direction: torch.Tensor, strength: float,
    cap: float,
) -> None:  # fmt: skip
    """The reading's premise, with strengths that change in the middle of the reply."""
    position = len(paris) + 4  # the pass whose input is reply token 4 samples reply token 5

    def steering(p: int) -> list[tuple[int, torch.Tensor, float]]:
        return [(LAYER, direction, strength)] if p >= position else []

    switched = greedy(reference.model, paris, 12, steering, cap, ignore_eos=True)
    assert switched.ids[:5] == plain.ids[:5]
    assert switched.gaps[:5] == plain.gaps[:5]
    assert switched.gaps[5] != plain.gaps[5]
    reading = reference.read(paris + switched.ids, steering, cap)
    assert reading.differing(paris + switched.ids, len(paris)) == []
    np.testing.assert_allclose(reading.gap[len(paris) - 1 : -1], switched.gaps, atol=2e-3)


def test_strength_zero_is_no_steering(
    reference: Reference, paris: list[int], direction: torch.Tensor
) -> None:
    zero = greedy(reference.model, paris, 6, lambda _position: [(LAYER, direction, 0.0)])
    assert zero == greedy(reference.model, paris, 6)
