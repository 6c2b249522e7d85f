"""Who needs which vectors, and that a change of one reaches all ranks or none: on ranks without an engine.

Each rank is an observer of its own; what the server would call in a worker process is called on it here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steersight.engine import arrivals as banks
from steersight.engine import sending
from steersight.engine.life import CallError
from steersight.engine.observer import Observer
from steersight.engine.offer import Offer
from steersight.engine.service import EngineLostError
from steersight.engine.use import Need, VectorInUseError, VectorUse
from steersight.interventions import SteeringFunction
from steersight.protocol.messages import MAX_VECTORS
from steersight.vectors.action import MAX_AT_WORK
from steersight.vectors.store import Selection, SteeringVector, VectorError

from .banks import steering_vector
from .test_plan import HIDDEN, make_observer

NAMES = [f"v{n}" for n in range(32)]


# ---------------------------------------------------------------- the count


def test_what_clients_are_told_is_what_a_row_has_room_for() -> None:
    assert MAX_VECTORS == MAX_AT_WORK


def test_lent_vectors_waiting_runs_and_steers_on_their_way_all_count() -> None:
    use = VectorUse()
    waiting = [Need(frozenset(NAMES[:10]))]
    use.asked = lambda: waiting
    with use.running("a", Need(frozenset(NAMES[10:20]))), use.lending(NAMES[20]):
        assert use.at_work() == set(NAMES[:21])
        with use.steering("a", NAMES[21:31]):
            # The engine may have the old ones in force still, or the new ones already.
            assert use.at_work() == set(NAMES[:31])
        assert use.at_work() == {*NAMES[:10], *NAMES[20:31]}
    assert use.at_work() == set(NAMES[:10])


def test_a_vector_is_in_use_while_it_steers_or_is_watched() -> None:
    use = VectorUse()
    need = Need(frozenset(["joy"]), frozenset(["residual_norm", "projection_before:calm"]))
    with use.running("a", need):
        with pytest.raises(VectorInUseError, match="Joy is steering a reply"):
            use.check_free("joy", "Joy")
        with pytest.raises(VectorInUseError, match="projection on Calm is watched in a reply"):
            use.check_free("calm", "Calm")
        with use.steering("a", []), pytest.raises(VectorInUseError):
            use.check_free("joy", "Joy")
        use.check_free("joy", "Joy")
        with pytest.raises(VectorInUseError, match="watched"):
            use.check_free("calm", "Calm")
        # What is watched may change too: both count until the engine has taken it.
        with use.watching("a", ["projection:joy"]):
            for vector in ("joy", "calm"):
                with pytest.raises(VectorInUseError, match="watched"):
                    use.check_free(vector, vector)
        use.check_free("calm", "Calm")
        with pytest.raises(VectorInUseError, match="watched"):
            use.check_free("joy", "Joy")
    use.check_free("joy", "Joy")
    use.check_free("calm", "Calm")


# ---------------------------------------------------------------- all ranks or none


class Ranks:
    """Two ranks of an engine, and all that was called on them."""

    def __init__(self) -> None:
        self.observers = [make_observer(), make_observer()]
        self.calls: list[tuple[Any, ...]] = []
        self.fails: dict[str, Callable[[], None]] = {}
        """Method -> what the second rank does instead of answering."""
        self.use = VectorUse()
        self.offer = Offer(self._call, self.use, lambda: None)
        self.offer.vectors["v"] = steering_vector("v", {1: torch.eye(HIDDEN)[0]})

    async def _call(self, method: str, *args: Any) -> list[Any]:
        self.calls.append((method, *args))
        answers = []
        for rank, observer in enumerate(self.observers):
            await asyncio.sleep(0)
            if rank == 1 and method in self.fails:
                self.fails[method]()
            answers.append(self._answer(observer, method, *args))
        return answers

    def _answer(self, observer: Observer, method: str, *args: Any) -> Any:
        name = args[0]
        match method:
            case "steersight_vector_piece":
                observer.arrivals.take(name, args[1])
            case "steersight_prepare_vector":
                observer.arrivals.complete(name, args[1])
                return ""
            case "steersight_add_vector":
                observer.add_vector(name, observer.arrivals.pop(name))
            case "steersight_remove_vector":
                observer.arrivals.drop(name)
                observer.remove_vector(name)
        return None

    def unchanged(self) -> None:
        """Neither the server nor a rank has anything but the first vector, or anything half."""
        assert list(self.offer.vectors) == ["v"]
        assert (self.offer.files, self.offer.own) == ({}, set())
        for observer in self.observers:
            assert list(observer.bank.vectors) == ["v"]
            assert (observer.arrivals._pieces, observer.arrivals._complete) == ({}, {})


@pytest.fixture
def ranks() -> Ranks:
    return Ranks()


def west(layers: int = 2) -> SteeringVector:
    generator = torch.Generator().manual_seed(3)
    return steering_vector("west", dict(enumerate(torch.randn(layers, HIDDEN, generator=generator))))


async def test_one_vector_is_sent_made_in_other_threads(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def noted(vector: SteeringVector) -> Any:
        for piece in banks.pieces(vector):
            threads.add(threading.get_ident())
            yield piece

    monkeypatch.setattr(sending, "pieces", noted)
    monkeypatch.setattr(banks, "PIECE_BYTES", 4 * HIDDEN)
    await ranks.offer.add(west(), Path("west.safetensors"))
    assert [(method, name) for method, name, *_ in ranks.calls] == [
        *[("steersight_vector_piece", "west")] * 3,
        ("steersight_prepare_vector", "west"),
        ("steersight_add_vector", "west"),
    ]
    assert threading.get_ident() not in threads
    for observer in ranks.observers:
        assert list(observer.bank.vectors) == ["v", "west"]
        assert torch.equal(observer.bank.direction("west", 0, 2), west().directions)
        assert "projection:west" in observer.registry
    assert list(ranks.offer.vectors) == ["v", "west"]
    assert "projection:west" in ranks.offer.registry
    ranks.calls.clear()
    await ranks.offer.remove("west")
    assert ranks.calls == [("steersight_remove_vector", "west")]
    ranks.unchanged()
    assert "projection:west" not in ranks.offer.registry


@pytest.mark.parametrize(
    "method", ["steersight_vector_piece", "steersight_prepare_vector", "steersight_add_vector"]
)
async def test_where_one_rank_cannot_nothing_has_changed_anywhere(ranks: Ranks, method: str) -> None:
    def refuse() -> None:
        raise CallError("OutOfMemoryError: no room on the second device")

    ranks.fails[method] = refuse
    with pytest.raises(VectorError, match=r"could not take it.*no room on the second device"):
        await ranks.offer.add(west(), Path("west.safetensors"))
    ranks.unchanged()
    ranks.fails.clear()
    await ranks.offer.add(west(), Path("west.safetensors"))
    assert all(list(observer.bank.vectors) == ["v", "west"] for observer in ranks.observers)


@pytest.mark.parametrize(
    "method", ["steersight_vector_piece", "steersight_prepare_vector", "steersight_add_vector"]
)
async def test_a_cancelled_change_leaves_nothing_half_done(ranks: Ranks, method: str) -> None:
    ranks.fails[method] = lambda: adding.cancel() and None
    adding = asyncio.create_task(ranks.offer.add(west(), Path("west.safetensors")))
    with pytest.raises(asyncio.CancelledError):
        await adding
    ranks.unchanged()


async def test_what_is_being_deleted_is_not_offered_and_comes_back_in_its_place(ranks: Ranks) -> None:
    offer = ranks.offer
    await offer.add(west(), Path("west.safetensors"))
    files = dict(offer.files)

    def lose() -> None:
        assert list(offer.vectors) == ["west"]
        assert "projection:v" not in offer.registry
        raise EngineLostError("The engine is gone.")

    ranks.fails["steersight_remove_vector"] = lose
    with pytest.raises(EngineLostError):
        await offer.remove("v")
    assert list(offer.vectors) == ["v", "west"]
    assert offer.files == files
    assert "projection:v" in offer.registry


async def test_what_is_in_use_is_not_deleted_and_no_rank_hears_of_it(ranks: Ranks) -> None:
    with (
        ranks.use.running("a", Need(frozenset(), frozenset(["projection:v"]))),
        pytest.raises(VectorInUseError, match="watched"),
    ):
        await ranks.offer.remove("v")
    assert ranks.calls == []
    ranks.unchanged()


async def test_a_lent_vector_does_not_stand_in_for_one_of_the_same_id(ranks: Ranks) -> None:
    mine = steering_vector("v", {0: -torch.ones(HIDDEN)})
    async with ranks.offer.lent(mine) as name:
        assert ranks.use.at_work() == {name}
        for observer in ranks.observers:
            assert list(observer.bank.vectors) == ["v", name]
            assert torch.equal(observer.bank.direction("v", 1, 1)[0], torch.eye(HIDDEN)[0])
            assert torch.equal(observer.bank.direction(name, 0, 1), mine.directions)
        assert list(ranks.offer.vectors) == ["v"]
    ranks.unchanged()
    assert ranks.use.at_work() == set()


async def test_after_a_restart_all_vectors_come_one_by_one_in_the_servers_order(ranks: Ranks) -> None:
    offer = ranks.offer
    await offer.add(west(), Path("west.safetensors"))
    ranks.observers = [make_observer(), make_observer()]
    for observer in ranks.observers:
        observer.remove_vector("v")
    ranks.calls.clear()
    await offer.give_all()
    assert all(list(observer.bank.vectors) == ["v", "west"] for observer in ranks.observers)
    assert {name for _, name, *_ in ranks.calls} == {"v", "west"}


async def test_a_functions_name_is_no_vectors_and_a_new_engine_has_read_it_anew(ranks: Ranks) -> None:
    """What an engine has kept of an older file is not found again, whatever the function says of itself."""
    offer = ranks.offer
    function = SteeringFunction(
        id="louder", label="Louder", description="Louder", layers=[1], range=(0.0, 1.0), suggested=1.0,
        file=Path("mine.py"), call=lambda hidden, *_: hidden, per_token=True,
    )  # fmt: skip
    offer.begin(Selection(offer.vectors, []), offer.registry, {"louder": function})
    assert list(offer.sliders) == ["v", "louder"]
    with pytest.raises(VectorError, match="There is a slider 'louder' already"):
        await offer.add(steering_vector("louder", {1: torch.eye(HIDDEN)[1]}), Path("louder.safetensors"))
    assert ranks.calls == []
    await offer.begin_again(Selection({}, []), offer.registry, offer.functions)
    await offer.give_all()
    assert ranks.calls == [], "a function was sent"
    assert offer.functions["louder"].serial != function.serial
