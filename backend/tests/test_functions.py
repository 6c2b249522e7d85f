"""Functions that steer, in the observer of one worker: what they are given, and what becomes of it.

Without an engine: hooks of two layers are called as a forward pass calls them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steersight.engine.bank import VectorBank
from steersight.engine.channel import RowSender
from steersight.engine.functions import TokenReader
from steersight.engine.graph import GraphPass
from steersight.engine.layout import Layout
from steersight.engine.observer import Observer
from steersight.engine.plan import Span
from steersight.engine.request import RunOptions, Wants
from steersight.interventions import Context, SteeringFunction
from steersight.metrics import Registry
from steersight.vectors.action import Action

from .banks import banked, small_pool, steering_vector
from .test_observer_faults import Full
from .test_plan import HIDDEN

LAYERS = 2
METRICS = ("residual_norm", "update_norm", "steering_share")
Steer = Callable[[torch.Tensor, Context, float], Any]


class Tokenizer:
    """Token 7 is "g"."""

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(ord("a") + token - 1) for token in ids)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(letter) - ord("a") + 1 for letter in text]


class Worker:
    """An observer with functions, and the model that it hangs on."""

    def __init__(self, dtype: torch.dtype = torch.float32, **functions: Steer) -> None:
        self.outbox = Full()
        self.ids = torch.arange(1, 9, dtype=torch.int32)
        self.calls: list[tuple[torch.Tensor, Context, float]] = []
        layers = [torch.nn.Identity() for _ in range(LAYERS)]
        layout = Layout(layers, "pair", attention=None, final=[], unembed=lambda stream: stream)
        bank = VectorBank(
            small_pool(LAYERS, HIDDEN), {name: self._noted(name, call) for name, call in functions.items()}
        )
        sender: RowSender | None = self.outbox  # type: ignore[assignment]  # same put, no socket
        self.dtype = dtype
        self.observer = Observer(
            layout, bank, torch.device("cpu"), sender, registry=Registry([("v", "v")]), hidden_size=HIDDEN,
            max_tokens=64, max_runs=8, dtype=dtype, reader=TokenReader(lambda: self.ids, Tokenizer),
        )  # fmt: skip
        self.observer.add_vector("v", banked(steering_vector("v", {1: torch.ones(HIDDEN)}), bank.pool))

    def _noted(self, name: str, call: Steer) -> SteeringFunction:
        def noted(hidden: torch.Tensor, context: Context, strength: float) -> Any:
            self.calls.append((hidden.clone(), context, strength))
            return call(hidden, context, strength)

        return SteeringFunction(
            id=name, label=name.title(), description=name, layers=[1], range=(0.0, 1.0), suggested=1.0,
            file=Path("mine.py"), call=noted, per_token=False,
        )  # fmt: skip

    def add(self, run: str, *actions: Action, wants: Wants | None = None) -> None:
        options = RunOptions(run, wants=wants or Wants(METRICS), actions=actions)
        self.observer.add(run, options.to_wire(), prompt_tokens=4)

    def step(self, *spans: tuple[str, int, int], paired: bool = True) -> torch.Tensor:
        """One step; the stream that leaves the last layer, as the model goes on with it."""
        tokens = sum(count for _, _, count in spans)
        generator = torch.Generator().manual_seed(tokens)
        entering, h0, r0, h1, r1 = (
            torch.randn(tokens, HIDDEN, generator=generator).to(self.dtype) for _ in range(5)
        )
        self.before = h1.float() + r1.float() * paired
        observer = self.observer
        observer.begin([Span(*span) for span in spans])
        observer.enter((None, entering), {})
        for layer, (hidden, residual) in enumerate(((h0, r0), (h1, r1))):
            observer.layer(layer, (hidden, residual if paired else torch.zeros_like(residual)))
        observer.forwarded()
        numbers = observer._numbers
        if numbers is not None:
            self.values = numbers.values.clone()
            """[rows, metrics, layers] of the newest step"""
        observer.final(torch.zeros(len(spans), 16))
        observer.sampled(torch.zeros(len(spans), 1, dtype=torch.int64))
        return h1 + r1 * paired


def call(name: str, strength: float = 1.0, **more: Any) -> Action:
    return Action(name, strength, "function", **more)


def test_it_is_given_the_stream_of_its_runs_steered_tokens_and_what_they_are() -> None:
    worker = Worker(twice=lambda hidden, _context, strength: hidden * (1 + strength))
    worker.add("a")
    worker.add("b", call("twice", 0.5))
    steered = worker.step(("a", 3, 2), ("b", 0, 4))
    ((hidden, context, strength),) = worker.calls
    # Position 0 is never steered.
    assert torch.equal(hidden, worker.before[3:])
    assert strength == 0.5
    assert (context.layer, context.layers, context.prompt_tokens) == (1, 2, 4)
    assert context.positions.tolist() == [1, 2, 3]
    assert context.token_ids.tolist() == [4, 5, 6]
    assert (context.device, context.dtype) == (torch.device("cpu"), torch.float32)
    assert (context.text(7), context.tokens("ag")) == ("g", [1, 7])
    assert torch.allclose(context.direction("v"), torch.full((HIDDEN,), HIDDEN**-0.5))
    assert torch.equal(steered[:3], worker.before[:3]), "a neighbour or the first position was touched"
    assert torch.allclose(steered[3:], worker.before[3:] * 1.5)
    # What it was told holds when the step is over.
    worker.ids.fill_(0)
    assert context.token_ids.tolist() == [4, 5, 6]


def test_it_acts_after_the_vectors_in_one_piece_and_its_rows_say_so() -> None:
    worker = Worker(twice=lambda hidden, *_: hidden * 2)
    worker.add("r", call("twice"), Action("v", 0.3))
    worker.step(("r", 0, 3))
    ((hidden, *_),) = worker.calls
    length = worker.before.norm(dim=-1, keepdim=True)
    pushed = worker.before + 0.3 * length * HIDDEN**-0.5
    assert torch.allclose(hidden, pushed[1:])
    values = worker.values
    change = (2 * pushed - worker.before)[1:]
    share = change.norm(dim=-1) / worker.before[1:].norm(dim=-1)
    assert torch.allclose(values[1:, 2, 1], share, rtol=1e-4)
    assert torch.allclose(values[1:, 0, 1], 2 * pushed[1:].norm(dim=-1), rtol=1e-4)
    assert values[0, 2].tolist() == [0, 0]


def test_another_slider_moved_in_between_does_not_cut_it_in_two() -> None:
    worker = Worker(same=lambda hidden, *_: hidden)
    worker.add("r", call("same"))
    worker.step(("r", 0, 2))
    worker.observer.steer("r", 1, (call("same"), Action("v", 0.3)))
    worker.observer.steer("r", 2, (call("same", 0.5),))
    # Thrown away and computed again, with the revision that each position had, and one token more.
    worker.calls.clear()
    worker.step(("r", 0, 3))
    assert [(strength, context.positions.tolist()) for _, context, strength in worker.calls] == [
        (1.0, [1]), (0.5, [2])
    ]  # fmt: skip
    worker = Worker(same=lambda hidden, *_: hidden)
    worker.add("r", call("same"))
    worker.step(("r", 0, 2))
    worker.observer.steer("r", 1, (call("same"), Action("v", 0.3)))
    worker.calls.clear()
    worker.step(("r", 0, 3))
    assert [context.positions.tolist() for _, context, _ in worker.calls] == [[1, 2]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_it_leaves_alone_is_not_touched_by_a_bit(dtype: torch.dtype) -> None:
    worker = Worker(dtype, same=lambda hidden, *_: hidden, double=lambda hidden, *_: hidden.double())
    plain = Worker(dtype)
    for one in (worker, plain):
        one.add("r", *(call(name) for name in one.observer.bank.functions), wants=Wants())
    spans = ("r", 0, 4)
    assert torch.equal(worker.step(spans), plain.step(spans))
    assert len(worker.calls) == 2
    # At 0 it is not called at all.
    worker.observer.steer("r", 1, (call("same", 0.0), call("double", 1e-60)))
    worker.calls.clear()
    assert torch.equal(worker.step(("r", 4, 1)), plain.step(("r", 4, 1)))
    assert worker.calls == []


def test_it_may_change_what_it_is_given_in_place() -> None:
    worker = Worker(zero=lambda hidden, *_: hidden.zero_())
    worker.add("r", call("zero"))
    steered = worker.step(("r", 1, 2))
    assert torch.allclose(steered, torch.zeros(2, HIDDEN), atol=1e-6)


def boom(*_: Any) -> Any:
    raise ZeroDivisionError("boom")


def leave(*_: Any) -> Any:
    raise SystemExit(1)


FAILS: dict[str, tuple[Steer, str]] = {
    "raises": (boom, "ZeroDivisionError: boom"),
    "leaves": (leave, "InterventionError: It wanted to end the process."),
    "nothing": (lambda *_: None, "It gave nothing back. Return the stream in its place, a floating"),
    "number": (lambda *_: 3.0, "It gave float back."),
    "shape": (lambda hidden, *_: hidden[:1], "It gave a tensor [1, "),
    "kind": (lambda hidden, *_: hidden.long(), "It gave int64 back."),
    "infinite": (lambda hidden, *_: hidden / 0, "After layer 1 it gave numbers that are not finite in float"),
    "unknown": (lambda hidden, context, _: context.direction("w"), "It asks for the direction of 'w', and"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILS)
def test_what_goes_wrong_in_it_is_the_error_of_the_run_that_it_was_to_steer(name: str) -> None:
    broken, sentence = FAILS[name]
    worker = Worker(broken=broken, twice=lambda hidden, *_: hidden * 2)
    plain = Worker(twice=lambda hidden, *_: hidden * 2)
    for one in (worker, plain):
        one.add("a", *([call("broken"), call("twice")] if one is worker else []))
        one.add("b", call("twice"))
        one.add("c", Action("v", 0.3))
    spans = (("a", 1, 2), ("b", 1, 1), ("c", 1, 1))
    steered, expected = worker.step(*spans), plain.step(*spans)
    assert set(worker.outbox.failed) == {"a"}
    assert worker.outbox.failed["a"].startswith("The function 'Broken' could not steer this reply, so it was")
    assert sentence in worker.outbox.failed["a"]
    assert torch.equal(steered[2:], expected[2:])
    assert torch.isfinite(steered).all()
    # It is not called for that run again, and the others go on.
    worker.calls.clear()
    plain.calls.clear()
    spans = (("a", 3, 1), ("b", 2, 1), ("c", 2, 1))
    assert torch.equal(worker.step(*spans)[1:], plain.step(*spans)[1:])
    assert len(worker.calls) == len(plain.calls) == 1
    assert len(worker.outbox.news) == 1


def test_numbers_beyond_the_models_type_are_not_finite_there() -> None:
    worker = Worker(torch.float16, large=lambda hidden, *_: hidden * 1e6)
    worker.add("r", call("large"))
    steered = worker.step(("r", 1, 2))
    assert "not finite in float16" in worker.outbox.failed["r"]
    assert torch.equal(steered, worker.before.half()), "the model goes on with what it was given"


def test_a_function_that_the_engine_does_not_have_is_no_silent_nothing() -> None:
    worker = Worker(twice=lambda hidden, *_: hidden * 2)
    worker.add("r", call("thrice"))
    assert "The engine has no vector function thrice." in worker.outbox.failed["r"]
    worker.add("s")
    with pytest.raises(KeyError, match="function v"):
        worker.observer.steer("s", 1, (call("v"),))


def test_a_vectors_failure_leaves_who_is_steered_by_functions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(twice=lambda hidden, *_: hidden * 2)
    worker.add("a", call("twice"))
    worker.add("b", Action("v", 0.3))
    monkeypatch.setattr(worker.observer.eager, "_push", boom)
    steered = worker.step(("a", 1, 1), ("b", 1, 1))
    assert set(worker.outbox.failed) == {"b"}
    assert torch.allclose(steered[0], worker.before[0] * 2)


# ---------------------------------------------------------------- beside CUDA graphs


def test_a_step_in_which_one_acts_says_so_and_the_graphs_table_has_none_of_it() -> None:
    worker = Worker(twice=lambda hidden, *_: hidden * 2)
    observer = worker.observer
    observer.graph = GraphPass(observer.layout, observer.bank, 8, HIDDEN, torch.device("cpu"))
    observer.graph.recording = lambda: False  # type: ignore[method-assign]
    worker.add("a", Action("v", 0.3))
    worker.add("b", call("twice", start=3), Action("v", 0.1))

    def begun(*spans: tuple[str, int, int]) -> tuple[bool, bool]:
        found = [Span(*span) for span in spans]
        observer.begin(found)
        return observer.may_call(found), observer.calls()

    assert begun(("a", 3, 1)) == (False, False)
    # Its revision has one, which does not act yet: the ranks vote, and all vote no.
    assert begun(("a", 4, 1), ("b", 0, 3)) == (True, False)
    assert begun(("a", 5, 1), ("b", 3, 1)) == (True, True)
    assert observer.graph.acting.counts.tolist()[:2] == [1, 1]
    steered = worker.step(("a", 6, 1), ("b", 4, 1))
    assert torch.allclose(steered[0], worker.before[0] + 0.3 * worker.before[0].norm() * HIDDEN**-0.5)
    observer.steer("b", 1, (Action("v", 0.1),))
    assert begun(("a", 7, 1), ("b", 5, 1)) == (False, False)
    # Of a run that has failed on this rank alone, the others do not know.
    observer.steer("b", 2, (call("twice"),))
    assert begun(("b", 6, 1)) == (True, True)
    observer._fail(["b"], "It failed", RuntimeError("boom"))
    assert begun(("b", 7, 1)) == (True, False)
