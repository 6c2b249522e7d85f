"""The bank of one worker: how a vector comes there, how much is kept, and what a recomputed run finds."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from steersight.engine import arrivals as arrivals_module
from steersight.engine import pool as pool_module
from steersight.engine.arrivals import Arrivals, described, pieces
from steersight.engine.bank import VectorBank
from steersight.engine.observer import Observer
from steersight.engine.pool import NO_READER
from steersight.vectors.action import MAX_AT_WORK, Action, TooManyVectorsError
from steersight.vectors.store import FeatureReader, VectorError

from .banks import banked, make_bank, small_pool, steering_vector
from .test_observer_faults import Full, forward
from .test_plan import HIDDEN, acting, make_observer, options, steered, step


def rows(seed: int, layers: int, hidden: int = HIDDEN) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return dict(enumerate(torch.randn(layers, hidden, generator=generator) * 3.0))


# ---------------------------------------------------------------- how it comes


def test_a_vector_travels_in_pieces_and_arrives_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals_module, "PIECE_BYTES", 4 * HIDDEN * 3)
    reader = FeatureReader(torch.randn(HIDDEN), bias=0.5, gate_bias=0.25, threshold=0.1)
    vector = steering_vector("v", rows(1, 8), reader)
    made = list(pieces(vector))
    assert [len(load(piece)["directions"]) for piece in made[:-1]] == [3, 3, 2]
    pool = small_pool(layers=10, hidden_size=HIDDEN)
    arrivals = Arrivals(pool)
    for piece in made:
        arrivals.take("v", piece)
    arrivals.complete("v", described(vector))
    slot = arrivals.pop("v").slot
    assert torch.equal(pool.direction(slot, 0, 10), vector.directions[[0, 1, 2, 3, 4, 5, 6, 7, 7, 7]])
    assert torch.equal(pool.lengths[pool.row_of[:8, slot].long(), 0], vector.lengths)
    assert pool.own[:, slot].tolist() == [1] * 8 + [0] * 2
    assert torch.equal(pool.directions[pool.reader_of[slot].long()], reader.weight)
    assert pool.numbers[slot].tolist() == pytest.approx([0.0, 1.0, 0.5, 0.25, 0.1])


# ---------------------------------------------------------------- how much is kept


def test_what_does_not_fit_is_refused_and_what_is_removed_makes_room() -> None:
    pool = small_pool(layers=4, hidden_size=HIDDEN, rows=6)
    reader = FeatureReader(torch.randn(HIDDEN), bias=0.0, gate_bias=0.0)
    bank = VectorBank(pool)
    bank.add("a", banked(steering_vector("a", rows(1, 3), reader), pool))
    bank.add("b", banked(steering_vector("b", rows(2, 2)), pool))
    full = r"It needs 0.0 MiB on the model's device\. .* 0.0 MiB are free\. Delete vectors"
    with pytest.raises(VectorError, match=full):
        banked(steering_vector("c", rows(3, 1)), pool)
    assert len(pool) == 2
    bank.remove({"a"})
    bank.add("d", banked(steering_vector("d", rows(4, 4)), pool))
    # Both have their own directions, and at layers that are not their own those of the nearest one.
    for name, seed, own in (("b", 2, [0, 1, 1, 1]), ("d", 4, [0, 1, 2, 3])):
        unit = torch.nn.functional.normalize(torch.stack(list(rows(seed, max(own) + 1).values())), dim=-1)
        assert torch.allclose(bank.direction(name, 0, 4), unit[own], atol=1e-6)
    assert not pool.directions[NO_READER].any()
    bank.remove({"b", "d"})
    assert len(pool) == 0


def test_slots_are_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "SLOTS", 2)
    pool = small_pool(layers=1, hidden_size=HIDDEN)
    for seed in range(2):
        banked(steering_vector("v", rows(seed, 1)), pool)
    with pytest.raises(VectorError, match="holds 2 vectors, which are all that it can"):
        banked(steering_vector("v", rows(2, 1)), pool)


def test_a_vector_that_was_prepared_and_is_dropped_gives_its_room_back() -> None:
    pool = small_pool(layers=2, hidden_size=HIDDEN, rows=2)
    arrivals = Arrivals(pool)
    vector = steering_vector("v", rows(1, 2))
    for _ in range(3):
        for piece in pieces(vector):
            arrivals.take("v", piece)
        arrivals.complete("v", described(vector))
        assert len(pool) == 1
        arrivals.drop("v")
    assert len(pool) == 0


# ---------------------------------------------------------------- deleted, then needed again


def steered_then_back(outbox: Full) -> Observer:
    """A observer whose run `a` was steered by `v` at positions 1 to 3 and is at 0 since."""
    observer = make_observer(outbox)
    observer.add("a", options("a", {"v": 0.5}))
    forward(observer, ("a", 0, 4))
    assert observer.steer("a", 1, ()) == 4
    forward(observer, ("a", 4, 1))
    return observer


def test_a_deleted_vector_is_there_for_a_run_that_is_recomputed() -> None:
    outbox = Full()
    observer, kept = steered_then_back(outbox), steered_then_back(Full())
    observer.remove_vector("v")
    assert observer.bank.labels() == []
    # Preempted, and all of it computed again in one pass.
    assert torch.equal(forward(observer, ("a", 0, 5)), forward(kept, ("a", 0, 5)))
    assert outbox.failed == {}
    observer.remove("a")
    assert observer.bank.vectors == {}, "no live run can reach it any more"


def test_another_vector_may_have_the_id_of_a_deleted_one_meanwhile() -> None:
    observer, kept = steered_then_back(Full()), steered_then_back(Full())
    observer.remove_vector("v")
    observer.add_vector("v", banked(steering_vector("v", {1: -torch.ones(HIDDEN)}), observer.bank.pool))
    assert torch.equal(forward(observer, ("a", 0, 5)), forward(kept, ("a", 0, 5)))
    # Deleted too while the first is still kept: each run has its own.
    observer.add("b", options("b", {"v": 0.5}))
    forward(observer, ("b", 0, 3))
    observer.remove_vector("v")
    assert set(observer.bank.vectors) == {"v@1", "v@2"}
    observer.remove("a")
    assert set(observer.bank.vectors) == {"v@2"}
    observer.remove("b")
    assert observer.bank.vectors == {}


def test_a_vector_that_no_revision_needs_goes_at_once() -> None:
    observer = make_observer()
    observer.add("a", options("a"))
    step(observer, ("a", 0, 3))
    # Replaced before any token was computed with it.
    observer.steer("a", 1, acting({"v": 0.5}))
    observer.steer("a", 2, ())
    observer.remove_vector("v")
    assert observer.bank.vectors == {}


def test_a_steer_that_waits_for_its_run_keeps_its_vector() -> None:
    observer = make_observer(Full())
    observer.steer("a", 1, acting({"v": 0.5}))
    observer.remove_vector("v")
    observer.add("a", options("a"))
    plan = step(observer, ("a", 0, 2))
    found = steered(observer, plan)
    assert found is not None
    assert found.rows.tolist() == [1]
    observer.remove("a")
    assert observer.bank.vectors == {}


def test_the_order_of_composition_outlives_a_deletion() -> None:
    bank = make_bank({name: rows(seed, 2) for seed, name in enumerate("abc")}, 2)
    assert bank.retired == set()
    name = bank.retire("b")
    assert bank.retired == {name}
    given = [Action("c", 1.0), Action(name, 1.0), Action("a", 1.0)]
    assert [action.vector for action in bank.composed(given)] == ["a", name, "c"]
    assert bank.labels() == [("a", "a"), ("c", "c")]


def test_a_run_that_watches_what_is_not_there_fails_and_does_not_see_nothing() -> None:
    outbox = Full()
    observer = make_observer(outbox)
    observer.remove_vector("v")
    observer.add("a", {**options("a"), "metrics": ["residual_norm", "projection:v"]})
    assert "The engine has no metric projection:v" in outbox.failed["a"]


# ---------------------------------------------------------------- too many on one run


def test_a_run_with_more_vectors_than_a_row_has_room_for_fails_alone() -> None:
    """The server refuses it before; this is for the case that it has counted wrongly."""
    outbox = Full()
    observer = make_observer(outbox)
    names = [f"v{n}" for n in range(MAX_AT_WORK + 1)]
    for seed, name in enumerate(names):
        observer.add_vector(name, banked(steering_vector(name, rows(seed, 2)), observer.bank.pool))
    observer.add("a", options("a", dict.fromkeys(names, 0.1)))
    assert list(outbox.failed) == ["a"]
    assert "17 vectors are at work on one reply, and 16 are the most" in outbox.failed["a"]
    observer.add("b", options("b", dict.fromkeys(names[:-1], 0.1)))
    with pytest.raises(TooManyVectorsError):
        observer.steer("b", 1, acting(dict.fromkeys(names, 0.1)))
    state = observer.runs.named("b")
    assert state is not None
    assert state.revision_at(0).rev == 0
    assert not outbox.failed.get("b")


def test_a_strength_that_is_0_in_fp32_does_nothing() -> None:
    bank = make_bank({"v": rows(1, 2)}, 2)
    assert bank.composed([Action("v", 1e-60, "feature_set"), Action("v", 1e-30)]) == (Action("v", 1e-30),)
