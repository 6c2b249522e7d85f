"""Places in the engine: one line for all, nobody overtakes, and every lease comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from steersight.api.answers import answered
from steersight.api.building import BuildApi
from steersight.api.vectors import VectorApi
from steersight.engine.examples import Example
from steersight.engine.service import EngineService, ModelFacts
from steersight.engine.status import EnginePhase, Status
from steersight.making.builder import Wish, build
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import ErrorCode
from steersight.runs.places import Place, Places
from steersight.vectors.store import VectorError


class Somebody:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.began = 0
        self.position = 0
        self.refused: FrameError | None = None

    def begin(self) -> None:
        self.began += 1

    def wait_at(self, position: int) -> None:
        self.position = position

    def refuse(self, why: FrameError) -> None:
        self.refused = why


def places(most: int = 2, capacity: int | None = None) -> Places:
    return Places(lambda: most, lambda: capacity, lambda: True)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@given(
    st.integers(1, 3),
    st.integers(10, 30),
    st.lists(
        st.one_of(st.lists(st.integers(1, 35), min_size=1, max_size=4), st.integers(0, 100)), max_size=40
    ),
)
def test_the_order_of_asking_is_the_order_of_beginning(
    most: int, capacity: int, steps: list[list[int] | int]
) -> None:
    """Whoever asks, alone or together, and gives back, in whatever order: neither slots nor tokens are given
    twice or lost, and who asked together begins together."""
    here = places(most, capacity)
    asked: list[list[tuple[Somebody, Place]]] = []
    for step in steps:
        if isinstance(step, list):
            group = [Somebody() for _ in step]
            wanted = list(zip(step, group, strict=True))
            if len(step) > most or sum(step) > capacity:
                with pytest.raises(FrameError, match=f"at most {most} at once|KV cache holds {capacity}"):
                    here.ask_together(wanted)
                continue
            given = here.ask_together(wanted) if len(step) > 1 else [here.ask(step[0], group[0])]
            asked.append(list(zip(group, given, strict=True)))
            here.fill()
        elif asked:
            group_of = asked[step % len(asked)]
            group_of.pop(step % len(group_of))[1].give_back()
            asked = [group for group in asked if group]
        inside = [place for group in asked for somebody, place in group if somebody.began]
        waiting = [group for group in asked if not group[0][0].began]
        assert (here.held, here.tokens) == (len(inside), sum(place.tokens for place in inside))
        assert here.held <= most
        assert here.tokens <= capacity
        assert here.waiting == sum(map(len, waiting))
        before = 0
        for group in waiting:
            assert {somebody.position for somebody, _ in group} == {before + 1}
            before += len(group)
        for group in asked:
            assert len({somebody.began for somebody, _ in group}) == 1, "a part of them has begun"
            assert group[0][0].began <= 1
        order = [bool(group[0][0].began) for group in asked]
        assert order == sorted(order, reverse=True), "somebody overtook"
        if waiting:
            tokens = sum(place.tokens for _, place in waiting[0])
            assert here.held + len(waiting[0]) > most or here.tokens + tokens > capacity, "places stand empty"
    for group in asked:
        for _, place in group:
            place.give_back()
            place.give_back()
    assert (here.held, here.tokens, here.waiting) == (0, 0, 0)


def test_who_asked_together_may_be_given_back_by_the_first_that_is_told() -> None:
    """One of a pair is stopped when the other begins: it never begins, and its place goes to the next."""
    here = places(2)

    class Lonely(Somebody):
        def begin(self) -> None:
            super().begin()
            self.other.give_back()

        other: Place

    lonely, other, patient = Lonely(), Somebody(), Somebody()
    _, lonely.other = here.ask_together([(1, lonely), (1, other)])
    here.ask(1, patient)
    here.fill()
    assert (lonely.began, other.began, patient.began, here.held) == (1, 0, 1, 2)


def test_a_group_that_no_longer_fits_is_sent_away_whole() -> None:
    most = 3
    here = Places(lambda: most, lambda: None, lambda: True)
    first, after = Somebody(), Somebody()
    three = [Somebody() for _ in range(3)]
    lease = here.ask(1, first)
    here.ask_together([(1, one) for one in three])
    here.ask(1, after)
    here.fill()
    assert [one.position for one in (*three, after)] == [1, 1, 1, 4]
    most = 2  # the engine was built again
    lease.give_back()
    assert all(one.refused and "at most 2 at once" in one.refused.message for one in three)
    assert (after.began, here.held, here.waiting) == (1, 1, 0)


def test_who_is_told_may_give_back_at_once() -> None:
    here = places(1)

    class Hasty(Somebody):
        def begin(self) -> None:
            super().begin()
            self.place.give_back()

        place: Place

    hasty = Hasty()
    hasty.place = here.ask(1, hasty)
    patient = Somebody()
    here.ask(1, patient)
    here.fill()
    assert (hasty.began, patient.began, here.held) == (1, 1, 1)


def test_an_engine_that_comes_back_smaller_does_not_hold_up_the_line() -> None:
    capacity = 40
    here = Places(lambda: 2, lambda: capacity, lambda: True)
    first, large, small = Somebody(), Somebody(), Somebody()
    leases = [here.ask(tokens, who) for tokens, who in ((40, first), (35, large), (5, small))]
    here.fill()
    capacity = 30
    leases[0].give_back()
    assert large.refused is not None
    assert "KV cache holds 30" in large.refused.message
    assert (large.began, small.began) == (0, 1)


async def test_a_context_gives_back_on_every_path() -> None:
    here = places(1)

    async def hold(trouble: BaseException | None = None) -> None:
        async with here.place(5):
            await asyncio.sleep(0)
            if trouble is not None:
                raise trouble

    holding = asyncio.create_task(hold(RuntimeError("no")))
    waiting = asyncio.create_task(hold())
    unbegun = asyncio.create_task(hold())
    unbegun.cancel()  # before its first step
    await settle()
    assert isinstance(holding.exception(), RuntimeError)
    assert waiting.done()
    async with here.place(5):
        late = asyncio.create_task(hold())
        await settle()
        late.cancel()  # in the line
        await settle()
    given = asyncio.create_task(hold())
    async with here.place(5):
        await settle()
    # The place has been given to it in this turn of the loop, and it is cancelled before it knows.
    given.cancel()
    await settle()
    assert (here.held, here.tokens, here.waiting) == (0, 0, 0)


async def test_who_waits_is_sent_away_with_a_sentence() -> None:
    here = places(1)
    async with here.place(5):
        waiting = asyncio.ensure_future(_enter(here))
        await settle()
        here.refuse_all(FrameError(ErrorCode.ENGINE_FAILED, "It does not start."))
        with pytest.raises(FrameError, match="does not start"):
            await waiting
    with pytest.raises(FrameError, match="may come to 50 tokens, and the engine's KV cache holds 40"):
        await _enter(places(1, capacity=40), 50)


async def _enter(here: Places, tokens: int = 5) -> None:
    async with here.place(tokens):
        pass


# ---------------------------------------------------------------- builds


class Model:
    """An engine that answers when it is let, and counts what it computes at once."""

    def __init__(self) -> None:
        self.status = Status(EnginePhase.READY, "Ready", 1.0)
        self.model = ModelFacts("m", 3, 8, 100, "float32", 100, [])
        self.tokenizer, self.renderer = Tokenizer(), Rendered()
        self.examples = self.offer = self
        self.now = self.most = 0
        self.open = asyncio.Event()
        self.open.set()

    async def take(self, prompt: list[int], *, reply_tokens: int = 1, **_: Any) -> Example:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0)
            await self.open.wait()
        finally:
            self.now -= 1
        generator = torch.Generator().manual_seed(sum(prompt) + reply_tokens)
        return Example([1, 2], torch.randn(3, 8, generator=generator), 2, 1.0)

    @asynccontextmanager
    async def lent(self, _vector: Any) -> AsyncIterator[None]:
        yield


class Rendered:
    def prompt(self, turns: list[dict[str, str]]) -> list[int]:
        return [ord(letter) for letter in " ".join(turn["content"] for turn in turns)[:60]]


class Tokenizer:
    def decode(self, _ids: list[int], **_more: Any) -> str:
        return "two words"


WISH = Wish("Joy", "Be glad.", "Be sad.", ("The sea?", "Dogs?", "Rain?"))


async def test_a_build_takes_places_like_everybody() -> None:
    model, here = Model(), places(3, capacity=200)
    async with here.place(50):
        built = await build(cast(EngineService, model), here, WISH, lambda _stage, _share: None)
    assert built.vector.id == "joy"
    assert model.most <= 2, f"{model.most} requests at once beside a chat, of 3 places in all"
    assert (here.held, here.waiting) == (0, 0)


async def test_a_build_that_can_never_have_a_place_says_so() -> None:
    here = places(3, capacity=40)
    with pytest.raises(VectorError, match="KV cache holds 40"):
        await build(cast(EngineService, Model()), here, WISH, lambda _stage, _share: None)
    assert (here.held, here.waiting) == (0, 0)


@asynccontextmanager
async def building(model: Model, here: Places) -> AsyncIterator[tuple[httpx.AsyncClient, BuildApi]]:
    api = BuildApi(cast(VectorApi, SimpleNamespace(engine=model, adapters=[])), here)
    app = Starlette(
        routes=[
            Route("/build", answered(api.start), methods=["POST"]),
            Route("/build/{job}", answered(api.look), methods=["GET"]),
            Route("/build/{job}", answered(api.cancel), methods=["DELETE"]),
        ]
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        yield client, api
    await api.close()


ASKED = {"label": "Joy", "positive": "Be glad.", "negative": "Be sad."}


async def test_two_that_ask_at_once_do_not_both_build() -> None:
    """Both find nobody building, and then their bodies take their time."""
    model, here = Model(), places()
    model.open.clear()
    async with building(model, here) as (client, _):
        answers = await asyncio.gather(*(client.post("/build", json=ASKED) for _ in range(2)))
        assert sorted(answer.status_code for answer in answers) == [202, 409]


async def test_a_build_that_is_cancelled_before_it_begins_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, here = Model(), places()
    async with building(model, here) as (client, _):
        create = asyncio.create_task

        def created(work: Any, **more: Any) -> asyncio.Task[Any]:
            task = create(work, **more)
            if more.get("name", "").startswith("build-"):
                task.cancel()
            return task

        monkeypatch.setattr(asyncio, "create_task", created)
        job = (await client.post("/build", json=ASKED)).json()["job"]
        monkeypatch.undo()
        await settle()
        assert (await client.get(f"/build/{job}")).json()["state"] == "cancelled"
        assert (await client.post("/build", json=ASKED)).status_code == 202


async def test_cancelling_twice_does_not_cut_off_what_the_first_gives_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back = False
    may_give_back = asyncio.Event()

    async def slow_to_end(*_: Any) -> None:
        nonlocal given_back
        try:
            await asyncio.Event().wait()
        finally:
            await may_give_back.wait()
            given_back = True

    monkeypatch.setattr("steersight.api.building.build", slow_to_end)
    async with building(Model(), places()) as (client, api):
        job = (await client.post("/build", json=ASKED)).json()["job"]
        await settle()
        twice = [asyncio.ensure_future(client.delete(f"/build/{job}")), asyncio.ensure_future(api.close())]
        await settle()
        may_give_back.set()
        await asyncio.gather(*twice)
        assert given_back
        assert (await client.get(f"/build/{job}")).json()["state"] == "cancelled"
