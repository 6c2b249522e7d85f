"""Directions, layers and ranges out of numbers; no engine."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steersight.making.builder import Wish, slug
from steersight.making.contrast import GOOD, contrast, propose_layer
from steersight.making.sweep import Point, Sample, points, propose, repetition
from steersight.vectors.store import VectorError

LAYERS, SIZE = 12, 16


def examples(seed: int, shift: torch.Tensor, count: int = 8) -> torch.Tensor:
    """[examples, layers, hidden_size] of noise around `shift` [layers, hidden_size]."""
    return torch.randn(count, LAYERS, SIZE, generator=torch.Generator().manual_seed(seed)) * 0.1 + shift


def test_the_direction_is_the_difference_in_means() -> None:
    shift = torch.zeros(LAYERS, SIZE)
    shift[:, 0] = torch.arange(LAYERS) / 4
    positive, negative = examples(1, shift), examples(2, -shift)
    found = contrast(positive, negative)
    assert torch.allclose(found.directions, positive.mean(0) - negative.mean(0), atol=1e-6)
    unit = torch.nn.functional.normalize(found.directions, dim=-1)
    assert torch.allclose(found.ends[:, 1] - found.ends[:, 0], (found.directions * unit).sum(-1), atol=1e-5)
    assert found.separation[4:].min() == 1.0
    assert found.gap[8] > found.gap[4] > found.gap[1]


def test_two_samples_of_the_same_are_not_told_apart() -> None:
    """A direction tells the examples it is made of apart, whatever they are. Held-out ones it must not."""
    nothing = torch.zeros(LAYERS, SIZE)
    scores = torch.stack(
        [contrast(examples(s, nothing), examples(s + 50, nothing)).separation for s in range(30)]
    )
    assert abs(float(scores.mean()) - 0.5) < 0.1


def test_the_layer_is_the_best_and_among_equals_the_one_two_thirds_up() -> None:
    shift = torch.zeros(LAYERS, SIZE)
    shift[3, 0] = 2.0
    assert propose_layer(contrast(examples(1, shift), examples(2, -shift))) == 3
    shift[:, 0] = 2.0
    assert propose_layer(contrast(examples(1, shift), examples(2, -shift))) == round(GOOD * (LAYERS - 1))


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="two examples of each kind"):
        contrast(torch.zeros(1, LAYERS, SIZE), torch.zeros(3, LAYERS, SIZE))


@given(
    st.lists(
        st.builds(
            Point, strength=st.sampled_from([-0.3, -0.2, -0.1, 0.1, 0.2, 0.3]), effect=st.floats(-2, 2),
            damage=st.floats(0, 3), sample=st.just(""),
        ),
        min_size=1, unique_by=lambda point: point.strength,
    ).filter(lambda found: any(point.strength > 0 for point in found))
)  # fmt: skip
def test_a_range_holds_its_suggestion_and_stops_before_damage(found: list[Point]) -> None:
    found = sorted(found, key=lambda point: point.strength)
    (lo, hi), suggested = propose(found)
    assert lo < 0 < suggested <= hi
    smallest = min(point.strength for point in found if point.strength > 0)
    for point in found:
        if smallest < point.strength <= hi:
            assert point.damage < 1


def test_words_that_repeat() -> None:
    assert repetition("of the of the of the of the of the") > 0.7
    assert repetition("Paris is a city that has captivated me since I was a child.") < 0.2
    assert repetition("no no no") == 0.0, "three words are no evidence"


def test_replies_at_one_strength_are_averaged() -> None:
    found = points(
        [Sample(0.1, 0.2, 0.0, 0.0, "a"), Sample(0.1, 0.4, 0.0, 2.5, "b"), Sample(-0.1, 0, 0, -1, "c")]
    )
    assert found == [Point(-0.1, 0, 0.0, "c"), Point(0.1, pytest.approx(0.3), 0.5, "a")]


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ({"label": " "}, "needs a name"),
        ({"negative": ["a", "b"]}, "both sides"),
        ({"positive": "  "}, "more of is empty"),
        ({"negative": "Be kind."}, "Both sides are the same"),
        (
            {"positive": ("one",), "negative": ("two", "three")},
            "2 to 64 example texts of what there should be more",
        ),
        ({"topics": ("one",)}, "2 to 64 topics"),
    ],
)
def test_wishes_that_are_refused(wish: dict[str, object], sentence: str) -> None:
    given_ = {"label": "Kind", "positive": "Be kind.", "negative": "Be cruel."} | wish
    with pytest.raises(VectorError, match=sentence):
        Wish(**given_)  # type: ignore[arg-type]


def test_names_become_ids() -> None:
    assert slug("Très formal!") == "tr-s-formal"
    assert slug("海") == "vector"
