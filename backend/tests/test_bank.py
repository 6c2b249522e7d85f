"""The bank of one worker: how a vector comes there, how much is kept, and what a recomputed run finds."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from steersight.engine import bank as banks
from steersight.engine.bank import Arrivals, VectorBank, described, pieces
from steersight.engine.captured import Captured
from steersight.engine.lens import Lens
from steersight.vectors.action import Action
from steersight.vectors.store import FeatureReader

from .banks import banked, make_bank, steering_vector
from .test_lens_faults import Full, forward
from .test_lens_plan import HIDDEN, acting, make_lens, options, step


def rows(seed: int, layers: int, hidden: int = HIDDEN) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return dict(enumerate(torch.randn(layers, hidden, generator=generator) * 3.0))


# ---------------------------------------------------------------- how it comes


def test_a_vector_travels_in_pieces_and_arrives_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banks, "PIECE_BYTES", 4 * HIDDEN * 3)
    reader = FeatureReader(torch.randn(HIDDEN), bias=0.5, gate_bias=0.25, threshold=0.1)
    vector = steering_vector("v", rows(1, 8), reader)
    made = list(pieces(vector))
    assert [len(load(piece)["directions"]) for piece in made[:-1]] == [3, 3, 2]
    arrivals = Arrivals(10, torch.device("cpu"))
    for piece in made:
        arrivals.take("v", piece)
    arrivals.complete("v", described(vector))
    found = arrivals.pop("v")
    assert torch.equal(found.directions, vector.directions)
    assert torch.equal(found.lengths, vector.lengths)
    assert found.reader is not None
    assert torch.equal(found.reader, reader.weight)
    assert found.numbers.tolist() == pytest.approx([0.0, 1.0, 0.5, 0.25, 0.1])
    assert found.nearest == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7]


# ---------------------------------------------------------------- how much is kept


def test_what_is_gathered_on_the_device_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, names = 6, tuple("abcd")
    bank = make_bank({name: rows(seed, layers) for seed, name in enumerate(names)}, layers)
    one = bank.at(0, names).nbytes
    assert one == 4 * (4 * HIDDEN + 4)
    monkeypatch.setattr(banks, "GATHERED_BYTES", 3 * one)
    for layer in range(layers):
        at = bank.at(layer, names)
        assert torch.equal(at.directions, torch.stack([bank.direction(n, layer, 1)[0] for n in names]))
        assert sum(kept.nbytes for kept in bank._gathered.values()) <= 3 * one
    assert [layer for layer, _ in bank._gathered] == [3, 4, 5]
    # What was asked for again stays; the same tensors, not a copy.
    kept = bank.at(3, names)
    bank.at(0, names)
    assert bank.at(3, names) is kept
    assert [layer for layer, _ in bank._gathered] == [5, 0, 3]
    # One that is larger than all of the room is used, and not kept.
    monkeypatch.setattr(banks, "GATHERED_BYTES", one - 1)
    assert bank.at(1, names).directions.shape == (4, HIDDEN)
    assert (len(bank._gathered), bank._gathered_bytes) == (0, 0)


# ---------------------------------------------------------------- deleted, then needed again


def steered_then_back(outbox: Full) -> Lens:
    """A lens whose run `a` was steered by `v` at positions 1 to 3 and is at 0 since."""
    lens = make_lens(outbox)
    lens.add("a", options("a", {"v": 0.5}))
    forward(lens, ("a", 0, 4))
    assert lens.steer("a", 1, ()) == 4
    forward(lens, ("a", 4, 1))
    return lens


def test_a_deleted_vector_is_there_for_a_run_that_is_recomputed() -> None:
    outbox = Full()
    lens, kept = steered_then_back(outbox), steered_then_back(Full())
    lens.remove_vector("v")
    assert lens.bank.labels() == []
    # Preempted, and all of it computed again in one pass.
    assert torch.equal(forward(lens, ("a", 0, 5)), forward(kept, ("a", 0, 5)))
    assert outbox.failed == {}
    lens.remove("a")
    assert lens.bank.vectors == {}, "no live run can reach it any more"


def test_another_vector_may_have_the_id_of_a_deleted_one_meanwhile() -> None:
    lens, kept = steered_then_back(Full()), steered_then_back(Full())
    lens.remove_vector("v")
    lens.add_vector("v", banked(steering_vector("v", {1: -torch.ones(HIDDEN)}), 2))
    assert torch.equal(forward(lens, ("a", 0, 5)), forward(kept, ("a", 0, 5)))
    # Deleted too while the first is still kept: each run has its own.
    lens.add("b", options("b", {"v": 0.5}))
    forward(lens, ("b", 0, 3))
    lens.remove_vector("v")
    assert set(lens.bank.vectors) == {"v@1", "v@2"}
    lens.remove("a")
    assert set(lens.bank.vectors) == {"v@2"}
    lens.remove("b")
    assert lens.bank.vectors == {}


def test_a_vector_that_no_revision_needs_goes_at_once() -> None:
    lens = make_lens()
    lens.add("a", options("a"))
    step(lens, ("a", 0, 3))
    # Replaced before any token was computed with it.
    lens.steer("a", 1, acting({"v": 0.5}))
    lens.steer("a", 2, ())
    lens.remove_vector("v")
    assert lens.bank.vectors == {}


def test_a_steer_that_waits_for_its_run_keeps_its_vector() -> None:
    lens = make_lens(Full())
    lens.steer("a", 1, acting({"v": 0.5}))
    lens.remove_vector("v")
    lens.add("a", options("a"))
    plan = step(lens, ("a", 0, 2))
    assert plan.steering is not None
    assert plan.steering[1].rows.tolist() == [1]
    lens.remove("a")
    assert lens.bank.vectors == {}


def test_the_order_of_composition_outlives_a_deletion() -> None:
    bank = make_bank({name: rows(seed, 2) for seed, name in enumerate("abc")}, 2)
    retired, name = bank.retiring("b")
    assert list(retired.vectors) == ["a", name, "c"]
    assert retired.labels() == [("a", "a"), ("c", "c")]
    assert VectorBank().retired == set()


def test_a_run_that_watches_what_is_not_there_fails_and_does_not_see_nothing() -> None:
    outbox = Full()
    lens = make_lens(outbox)
    lens.remove_vector("v")
    lens.add("a", {**options("a"), "metrics": ["residual_norm", "projection:v"]})
    assert "The engine has no metric projection:v" in outbox.failed["a"]


# ---------------------------------------------------------------- too many at once


def test_a_run_that_brings_too_many_vectors_fails_alone() -> None:
    outbox = Full()
    lens = make_lens(outbox)
    captured = lens.captured = Captured(lens.layout, 8, HIDDEN, torch.device("cpu"))
    lens.take_bank(make_bank({f"v{n}": rows(n, 2) for n in range(34)}, 2))
    names = [f"v{n}" for n in range(34)]
    lens.add("a", options("a", dict.fromkeys(names[:31], 0.1)))
    lens.add("b", options("b", {"v31": 0.2}))
    lens.add("c", options("c"))
    lens.begin([("a", 1, 1), ("b", 1, 1), ("c", 1, 1)])
    lens.steer("c", 1, (Action("v32", 0.3),))
    lens.begin([("a", 2, 1), ("b", 2, 1), ("c", 2, 1)])
    assert list(outbox.failed) == ["c"]
    assert "More than 32 vectors are at work at once" in outbox.failed["c"]
    assert captured.table[0, :, 0].count_nonzero() == 31
    assert captured.table[1, :, 0].count_nonzero() == 1
    assert not captured.table[2].any()
    lens.begin([("a", 3, 1), ("b", 3, 1), ("c", 3, 1)])
    assert captured.table[:, :, 0].count_nonzero() == 32
