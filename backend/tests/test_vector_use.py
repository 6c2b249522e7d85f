"""Who needs which vectors, and that a change of one reaches all ranks or none: on ranks without an engine.

Each rank is a observer of its own; what the server would call in a worker process is called on it here.
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
from steersight.engine import service as service_module
from steersight.engine.life import CallError
from steersight.engine.observer import Observer
from steersight.engine.service import EngineLostError, EngineOptions, EngineService
from steersight.engine.use import Need, VectorInUseError, VectorUse
from steersight.protocol.messages import MAX_VECTORS
from steersight.vectors.action import MAX_AT_WORK
from steersight.vectors.store import SteeringVector, VectorError

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
    use.check_free("calm", "Calm")


# ---------------------------------------------------------------- all ranks or none


class Ranks:
    """Two ranks of an engine, and all that was called on them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.observers = [make_observer(), make_observer()]
        self.calls: list[tuple[Any, ...]] = []
        self.fails: dict[str, Callable[[], None]] = {}
        """Method -> what the second rank does instead of answering."""
        self.service = EngineService(EngineOptions(model="none", data_dir=Path("nowhere")))
        self.service.vectors["v"] = steering_vector("v", {1: torch.eye(HIDDEN)[0]})
        monkeypatch.setattr(EngineService, "_call", self._call)

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
        service = self.service
        assert list(service.vectors) == ["v"]
        assert (service.vector_files, service.own_vectors) == ({}, set())
        for observer in self.observers:
            assert list(observer.bank.vectors) == ["v"]
            assert (observer.arrivals._pieces, observer.arrivals._complete) == ({}, {})


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> Ranks:
    return Ranks(monkeypatch)


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

    monkeypatch.setattr(service_module, "pieces", noted)
    monkeypatch.setattr(banks, "PIECE_BYTES", 4 * HIDDEN)
    await ranks.service.add_vector(west(), Path("west.safetensors"))
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
    assert list(ranks.service.vectors) == ["v", "west"]
    assert "projection:west" in ranks.service.registry
    ranks.calls.clear()
    await ranks.service.remove_vector("west")
    assert ranks.calls == [("steersight_remove_vector", "west")]
    ranks.unchanged()
    assert "projection:west" not in ranks.service.registry


@pytest.mark.parametrize(
    "method", ["steersight_vector_piece", "steersight_prepare_vector", "steersight_add_vector"]
)
async def test_where_one_rank_cannot_nothing_has_changed_anywhere(ranks: Ranks, method: str) -> None:
    def refuse() -> None:
        raise CallError("OutOfMemoryError: no room on the second device")

    ranks.fails[method] = refuse
    with pytest.raises(VectorError, match=r"could not take it.*no room on the second device"):
        await ranks.service.add_vector(west(), Path("west.safetensors"))
    ranks.unchanged()
    ranks.fails.clear()
    await ranks.service.add_vector(west(), Path("west.safetensors"))
    assert all(list(observer.bank.vectors) == ["v", "west"] for observer in ranks.observers)


@pytest.mark.parametrize(
    "method", ["steersight_vector_piece", "steersight_prepare_vector", "steersight_add_vector"]
)
async def test_a_cancelled_change_leaves_nothing_half_done(ranks: Ranks, method: str) -> None:
    ranks.fails[method] = lambda: adding.cancel() and None
    adding = asyncio.create_task(ranks.service.add_vector(west(), Path("west.safetensors")))
    with pytest.raises(asyncio.CancelledError):
        await adding
    ranks.unchanged()


async def test_what_is_being_deleted_is_not_offered_and_comes_back_in_its_place(ranks: Ranks) -> None:
    service = ranks.service
    await service.add_vector(west(), Path("west.safetensors"))
    files = dict(service.vector_files)

    def lose() -> None:
        assert list(service.vectors) == ["west"]
        assert "projection:v" not in service.registry
        raise EngineLostError("The engine is gone.")

    ranks.fails["steersight_remove_vector"] = lose
    with pytest.raises(EngineLostError):
        await service.remove_vector("v")
    assert list(service.vectors) == ["v", "west"]
    assert service.vector_files == files
    assert "projection:v" in service.registry


async def test_what_is_in_use_is_not_deleted_and_no_rank_hears_of_it(ranks: Ranks) -> None:
    with (
        ranks.service.use.running("a", Need(frozenset(), frozenset(["projection:v"]))),
        pytest.raises(VectorInUseError, match="watched"),
    ):
        await ranks.service.remove_vector("v")
    assert ranks.calls == []
    ranks.unchanged()


async def test_a_lent_vector_does_not_stand_in_for_one_of_the_same_id(ranks: Ranks) -> None:
    mine = steering_vector("v", {0: -torch.ones(HIDDEN)})
    async with ranks.service.lent(mine) as name:
        assert ranks.service.use.at_work() == {name}
        for observer in ranks.observers:
            assert list(observer.bank.vectors) == ["v", name]
            assert torch.equal(observer.bank.direction("v", 1, 1)[0], torch.eye(HIDDEN)[0])
            assert torch.equal(observer.bank.direction(name, 0, 1), mine.directions)
        assert list(ranks.service.vectors) == ["v"]
    ranks.unchanged()
    assert ranks.service.use.at_work() == set()


async def test_after_a_restart_all_vectors_come_one_by_one_in_the_servers_order(ranks: Ranks) -> None:
    service = ranks.service
    await service.add_vector(west(), Path("west.safetensors"))
    ranks.observers = [make_observer(), make_observer()]
    for observer in ranks.observers:
        observer.remove_vector("v")
    ranks.calls.clear()
    await service._send_all()
    assert all(list(observer.bank.vectors) == ["v", "west"] for observer in ranks.observers)
    assert {name for _, name, *_ in ranks.calls} == {"v", "west"}
