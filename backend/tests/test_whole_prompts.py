"""Which prompts are read in a step in which one is read whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from steersight.engine.whole_prompts import WholePrompts, has_code

SOME_CODE = {"nnsight_mediator": b""}


@dataclass
class Request:
    request_id: str
    num_tokens: int
    extra_args: dict[str, Any] | None = None
    num_computed_tokens: int = 0
    sampling_params: Any = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt_tokens = self.num_tokens
        self.sampling_params = SimpleNamespace(extra_args=self.extra_args)

    def __hash__(self) -> int:
        return id(self)


class Queue(list):  # type: ignore[type-arg]
    """vLLM's queue, first come first served."""

    def add_request(self, request: Request) -> None:
        self.append(request)

    def prepend_request(self, request: Request) -> None:
        self.insert(0, request)

    def remove_requests(self, requests: list[Request]) -> None:
        self[:] = [request for request in self if request not in requests]


class Scheduler:
    """What of vLLM's scheduler is changed for a step."""

    def __init__(self) -> None:
        self.waiting = Queue()
        self.running: list[Request] = []
        self.max_num_scheduled_tokens = 1000
        self.scheduler_config = SimpleNamespace(long_prefill_token_threshold=64)
        self.vllm_config = SimpleNamespace(additional_config={"steersight": {"step_tokens": 100}})
        self.whole = WholePrompts(self)

    def come(self, *requests: Request) -> None:
        for request in requests:
            self.whole.note(request)
            self.waiting.add_request(request)

    def step(self) -> tuple[list[str], int, int]:
        """Who may begin in a step, of how many tokens, and the most of one prompt; then they have begun."""
        with self.whole.in_turn():
            begun = list(self.waiting)
            told = (
                [request.request_id for request in begun],
                self.max_num_scheduled_tokens,
                self.scheduler_config.long_prefill_token_threshold,
            )
            self.waiting.clear()
            self.running += begun
        return told


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


def test_without_code_nothing_is_different(scheduler: Scheduler) -> None:
    scheduler.come(Request("a", 500), Request("b", 20, {"nnsight_edits": []}))
    assert scheduler.step() == (["a", "b"], 100, 64)


def test_a_prompt_with_code_is_read_whole_and_alone(scheduler: Scheduler) -> None:
    writing = Request("writing", 5, num_computed_tokens=5)
    scheduler.running.append(writing)
    scheduler.come(Request("before", 30), Request("code", 500, SOME_CODE), Request("behind", 40))
    assert scheduler.step() == (["code"], 501, 0)
    assert [request.request_id for request in scheduler.waiting] == ["before", "behind"]
    assert scheduler.step() == (["before", "behind"], 100, 64)


def test_it_waits_until_no_other_prompt_is_half_read(scheduler: Scheduler) -> None:
    half = Request("half", 300, num_computed_tokens=64)
    scheduler.running.append(half)
    scheduler.come(Request("code", 500, SOME_CODE), Request("behind", 40))
    assert scheduler.step() == ([], 100, 64)  # nobody else's is begun, or it would wait for ever
    half.num_computed_tokens = 300
    assert scheduler.step() == (["code"], 501, 0)


def test_as_many_as_there_is_room_for(scheduler: Scheduler) -> None:
    scheduler.come(*(Request(name, 400, SOME_CODE) for name in "abc"))
    assert scheduler.step() == (["a", "b"], 800, 0)


def test_who_is_thrown_out_of_the_cache_meanwhile_is_the_next(scheduler: Scheduler) -> None:
    scheduler.come(Request("code", 50, SOME_CODE), Request("behind", 40))
    with scheduler.whole.in_turn():
        (code,) = scheduler.waiting
        scheduler.waiting.clear()
        scheduler.running.append(code)
        scheduler.waiting.prepend_request(Request("thrown out", 10))
    assert [request.request_id for request in scheduler.waiting] == ["thrown out", "behind"]


def test_one_with_code_that_comes_back_is_read_whole_again(scheduler: Scheduler) -> None:
    code = Request("code", 50, SOME_CODE)
    scheduler.come(code)
    scheduler.step()
    scheduler.running.remove(code)
    code.num_tokens = 90
    scheduler.waiting.prepend_request(code)
    assert scheduler.step() == (["code"], 90, 0)
    scheduler.whole.forget(code)
    assert not scheduler.whole._live


def test_what_has_code() -> None:
    assert has_code(Request("a", 1, SOME_CODE))  # type: ignore[arg-type]
    assert has_code(Request("a", 1, {"nnsight_edits": ["one"]}))  # type: ignore[arg-type]
    assert not has_code(Request("a", 1, {"nnsight_edits": []}))  # type: ignore[arg-type]
    assert not has_code(Request("a", 1))  # type: ignore[arg-type]
