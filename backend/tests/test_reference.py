"""The reference against transformers itself: its own generate, its own hidden states, and the formula."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import Reference

MODEL_DIR = Path(
    os.environ.get("STEERSIGHT_MODEL_DIR")
    or Path(__file__).parents[2] / "data" / "models" / "smollm2-135m-instruct"
)
LAYER = 12


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(MODEL_DIR)


@pytest.fixture(scope="module")
def direction() -> torch.Tensor:
    v = torch.randn(576, generator=torch.Generator().manual_seed(7))
    return v / v.norm()


def test_a_missing_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="prepare it with"):
        Reference(tmp_path)


def test_the_bundled_model_knows_the_capital_of_france(reference: Reference) -> None:
    reply = reference.generate(reference.prompt("What is the capital of France?"), 20)
    assert reference.tokenizer.decode(reply.ids) == "The capital of France is Paris.<|im_end|>"
    assert len(reply.gaps) == len(reply.ids)
    assert min(reply.gaps) > 0


def test_unsteered_it_is_transformers_own_greedy_generate(reference: Reference) -> None:
    ids = reference.prompt("Explain how rain forms.")
    reply = reference.generate(ids, 16, ignore_eos=True)
    theirs = reference.model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=16, do_sample=False
    )
    assert reply.ids == theirs[0, len(ids) :].tolist()


def test_unsteered_rows_are_transformers_hidden_states(reference: Reference) -> None:
    ids = reference.prompt("Tell me about Paris.")
    rows = reference.rows(ids)
    with torch.inference_mode():
        states = reference.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    # The last of them is after the final norm and no residual stream any more.
    stream = torch.stack(states[:-1])[:, 0].double()
    np.testing.assert_allclose(rows["residual_norm"][:, :-1], stream[1:].norm(dim=-1).T, rtol=1e-6)
    np.testing.assert_allclose(
        rows["update_norm"][:, :-1], (stream[1:] - stream[:-1]).norm(dim=-1).T, rtol=1e-5
    )
    cosine = torch.nn.functional.cosine_similarity(stream[1:], stream[:-1], dim=-1).T
    np.testing.assert_allclose(rows["cosine_below"][:, :-1], cosine, atol=1e-6)


def test_strength_zero_is_no_steering(reference: Reference, direction: torch.Tensor) -> None:
    ids = reference.prompt("Tell me about Paris.")
    assert reference.generate(ids, 6, [(LAYER, direction, 0.0)]) == reference.generate(ids, 6)


def test_steering_acts_where_the_formula_says(reference: Reference, direction: torch.Tensor) -> None:
    ids = reference.prompt("Tell me about Paris.")
    plain, steered = reference.rows(ids), reference.rows(ids, [(LAYER, direction, 0.2)])
    for name, values in plain.items():
        np.testing.assert_array_equal(steered[name][:, :LAYER], values[:, :LAYER])
        np.testing.assert_array_equal(steered[name][0], values[0])  # position 0 is left alone
    np.testing.assert_array_equal(steered["update_norm"][:, LAYER], plain["update_norm"][:, LAYER])
    # ||h + s ||h|| v||^2 = ||h||^2 (1 + s^2 + 2 s cos), with |cos| <= 1.
    growth = steered["residual_norm"][1:, LAYER] / plain["residual_norm"][1:, LAYER]
    assert ((growth > 0.8) & (growth < 1.2) & (growth != 1.0)).all()


def test_the_sum_of_all_pushes_is_capped(reference: Reference, direction: torch.Tensor) -> None:
    ids = reference.prompt("Tell me about Paris.")
    capped = reference.rows(ids, [(LAYER, direction, 3.0), (LAYER, direction, 4.0)], cap=0.5)
    same = reference.rows(ids, [(LAYER, direction, 0.5)])
    for name, values in same.items():
        np.testing.assert_allclose(capped[name], values, rtol=2e-4, atol=1e-5)


def test_a_switch_acts_from_its_position_on(reference: Reference, direction: torch.Tensor) -> None:
    ids = reference.prompt("Tell me about Paris.")
    on = [(LAYER, direction, 0.9)]
    plain = reference.generate(ids, 12, ignore_eos=True)
    position = len(ids) + 4  # the pass whose input is reply token 4 samples reply token 5
    switched = reference.generate(ids, 12, switch=[(position, on)], ignore_eos=True)
    assert switched.ids[:5] == plain.ids[:5]
    assert switched.gaps[:5] == plain.gaps[:5]
    assert switched.gaps[5] != plain.gaps[5]
    whole = ids + plain.ids
    rows = reference.rows(whole, switch=[(position, on), (position + 2, [])])
    unsteered = reference.rows(whole)
    changed = rows["residual_norm"][:, LAYER] != unsteered["residual_norm"][:, LAYER]
    assert changed[:position].sum() == 0
    assert changed[position : position + 2].all()


def test_one_pass_and_token_by_token_agree(reference: Reference, direction: torch.Tensor) -> None:
    ids = reference.prompt("What is the capital of France?")
    on = [(LAYER, direction, 0.2)]
    reply = reference.generate(ids, 8, on, ignore_eos=True)
    with torch.inference_mode(), reference._steered(0, len(ids) + 7, on, 1.0, ()):
        logits = reference.model(torch.tensor([ids + reply.ids[:-1]])).logits[0, len(ids) - 1 :]
    assert logits.argmax(-1).tolist() == reply.ids
