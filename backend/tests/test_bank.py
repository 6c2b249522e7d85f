"""The bank of one worker: how a vector comes there, how much is kept, and what a recomputed run finds."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from steersight.engine import bank as banks
from steersight.engine.bank import Arrivals, VectorBank, described, pieces
from steersight.engine.graph import GraphPass
from steersight.engine.observer import Observer
from steersight.vectors.action import Action
from steersight.vectors.store import FeatureReader

from .banks import banked, make_bank, steering_vector
from .test_observer_faults import Full, forward
from .test_plan import HIDDEN, acting, make_observer, options, steered, step


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
    observer.add_vector("v", banked(steering_vector("v", {1: -torch.ones(HIDDEN)}), 2))
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
    retired, name = bank.retiring("b")
    assert list(retired.vectors) == ["a", name, "c"]
    assert retired.labels() == [("a", "a"), ("c", "c")]
    assert VectorBank().retired == set()


def test_a_run_that_watches_what_is_not_there_fails_and_does_not_see_nothing() -> None:
    outbox = Full()
    observer = make_observer(outbox)
    observer.remove_vector("v")
    observer.add("a", {**options("a"), "metrics": ["residual_norm", "projection:v"]})
    assert "The engine has no metric projection:v" in outbox.failed["a"]


# ---------------------------------------------------------------- too many at once


def test_a_run_that_brings_too_many_vectors_fails_alone() -> None:
    outbox = Full()
    observer = make_observer(outbox)
    graph = observer.graph = GraphPass(observer.layout, 8, HIDDEN, torch.device("cpu"))
    observer.take_bank(make_bank({f"v{n}": rows(n, 2) for n in range(34)}, 2))
    names = [f"v{n}" for n in range(34)]
    observer.add("a", options("a", dict.fromkeys(names[:31], 0.1)))
    observer.add("b", options("b", {"v31": 0.2}))
    observer.add("c", options("c"))
    observer.begin([("a", 1, 1), ("b", 1, 1), ("c", 1, 1)])
    observer.steer("c", 1, (Action("v32", 0.3),))
    observer.begin([("a", 2, 1), ("b", 2, 1), ("c", 2, 1)])
    assert list(outbox.failed) == ["c"]
    assert "More than 32 vectors are at work at once" in outbox.failed["c"]
    assert graph.table[0, :, 0].count_nonzero() == 31
    assert graph.table[1, :, 0].count_nonzero() == 1
    assert not graph.table[2].any()
    observer.begin([("a", 3, 1), ("b", 3, 1), ("c", 3, 1)])
    assert graph.table[:, :, 0].count_nonzero() == 32
