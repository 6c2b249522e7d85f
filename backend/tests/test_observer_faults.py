"""What goes wrong in the observer is the error of the runs concerned, and of no other: without an engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zmq

from steersight.engine.channel import FailedRuns, RowSender, unpack
from steersight.engine.graph import GraphPass
from steersight.engine.kernel_reference import STRENGTH
from steersight.engine.observer import Observer
from steersight.engine.outgoing import DeviceStep
from steersight.engine.plan import Span
from steersight.engine.step import Step
from steersight.metrics import Registry
from steersight.vectors.action import Action

from .test_plan import HIDDEN, Outbox, make_observer, options


class Full(Outbox):
    """An outbox that has room for so many items."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        self.room = room
        self.news: list[FailedRuns] = []
        self.order: list[type] = []

    def put(self, item: Any) -> bool:
        if not self.room:
            return False
        self.room -= 1
        self.order.append(type(item))
        (self.news if isinstance(item, FailedRuns) else self.steps).append(item)
        return True

    @property
    def failed(self) -> dict[str, str]:
        return {run: why for news in self.news for run, why in news.runs.items()}

    def rows(self) -> dict[str, list[int]]:
        """Revisions of the rows that the server would take, by run: it knows of failures by then."""
        found: dict[str, list[int]] = {}
        for run, entry in self.entries():
            if run not in self.failed:
                found.setdefault(run, []).extend(entry.revisions)
        return found


def forward(observer: Observer, *spans: tuple[str, int, int]) -> torch.Tensor:
    """One step over two layers; the stream that leaves the last one."""
    tokens = sum(count for _, _, count in spans)
    generator = torch.Generator().manual_seed(tokens)
    entering, h0, r0, h1, r1 = (torch.randn(tokens, HIDDEN, generator=generator) for _ in range(5))
    observer.begin([Span(*span) for span in spans])
    observer.enter((None, entering), {})
    observer.layer(0, (h0, r0))
    observer.layer(1, (h1, r1))
    observer.forwarded()
    observer.final(torch.zeros(len(spans), 16))
    observer.sampled(torch.zeros(len(spans), 1, dtype=torch.int64))
    return h1 + r1


def break_in(observer: Observer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("boom")

    owner = observer.eager if hasattr(observer.eager, name) else observer
    monkeypatch.setattr(owner, name, broken)


STEPS = (("a", 0, 3), ("b", 0, 2), ("c", 0, 2))
"""`a` is steered and observed, `b` is observed, `c` is steered and wants nothing."""


def make(outbox: Full) -> Observer:
    observer = make_observer(outbox)
    observer.add("a", options("a", {"v": 0.5}))
    observer.add("b", options("b"))
    observer.add("c", {**options("c", {"v": 0.2}), "metrics": []})
    return observer


BREAKS = {
    "_push": {"a", "c"},
    "_steering": {"a", "c"},
    "_keep": {"a", "b"},
    "_open": {"a", "b"},
    "_reduce": {"a", "b"},
    "_make_plan": {"a", "b", "c"},
    "layer": {"a", "b", "c"},
}


@pytest.mark.parametrize("name", BREAKS)
def test_those_concerned_fail_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    outbox = Full()
    observer = make(outbox)
    whole = forward(make(Full()), *STEPS)
    with monkeypatch.context() as patch:
        break_in(observer, patch, name)
        stream = forward(observer, *STEPS)
    assert set(outbox.failed) == BREAKS[name]
    assert all("ZeroDivisionError: boom" in why and why.endswith(").") for why in outbox.failed.values())
    left = {"a", "b", "c"} - BREAKS[name]
    assert set(outbox.rows()) == left
    # Neighbours are computed as if nothing had happened: `b` is never steered, `c` is unless it failed.
    assert torch.equal(stream[3:5], whole[3:5])
    if "c" in left:
        assert torch.equal(stream[5:], whole[5:])
    # And in the next step they are steered and observed as ever, while nothing is done for those that failed.
    before = len(outbox.news)
    again = forward(observer, ("a", 3, 1), ("b", 2, 1), ("c", 2, 1))
    reference = make(Full())
    forward(reference, *STEPS)
    expected = forward(reference, ("a", 3, 1), ("b", 2, 1), ("c", 2, 1))
    for index, run in enumerate("abc"):
        if run in left:
            assert torch.equal(again[index], expected[index])
            assert outbox.rows()[run] == [0] * (3 if run in "bc" else 4)
    assert len(outbox.news) == before, "the same failure was told twice"


def test_a_built_in_metric_that_raises_fails_only_those_who_asked_for_it() -> None:
    def broken(_view: Any) -> torch.Tensor:
        raise ValueError("no such thing")

    outbox = Full()
    observer = make_observer(outbox)
    brittle = replace(observer.registry["update_norm"], id="brittle", compute=broken)
    observer.registry = Registry([("v", "v")], [brittle])
    observer.add("a", {**options("a"), "metrics": ["residual_norm", "brittle"]})
    observer.add("b", {**options("b"), "metrics": ["residual_norm"]})
    forward(observer, ("a", 0, 3), ("b", 0, 2))
    assert list(outbox.failed) == ["a"]
    assert "The engine could not compute brittle" in outbox.failed["a"]
    (step,) = outbox.steps
    sent = step.arrive()
    rows = sent.values[sent.first[sent.runs.index("b")] :]
    assert bool(np.isfinite(rows[:, sent.metrics.index("residual_norm")]).all())


def test_a_vector_that_is_gone_fails_only_its_run() -> None:
    outbox = Full()
    observer = make(outbox)
    observer.add("d", options("d", {"gone": 0.5}))
    forward(observer, *STEPS, ("d", 0, 2))
    assert list(outbox.failed) == ["d"]
    assert "The engine has no vector gone." in outbox.failed["d"]
    assert set(outbox.rows()) == {"a", "b", "c"}


def test_a_run_that_cannot_be_taken_up_fails() -> None:
    outbox = Full()
    observer = make(outbox)
    observer.add("d", {**options("d"), "actions": [{"nonsense": 1}]})
    assert list(outbox.failed) == ["d"]
    forward(observer, *STEPS, ("d", 0, 2))
    assert set(outbox.rows()) == {"a", "b", "c"}


def test_a_failure_is_told_before_any_row_that_follows_it_and_is_never_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outbox = Full(room=0)
    observer = make(outbox)
    with monkeypatch.context() as patch:
        break_in(observer, patch, "_push")
        forward(observer, *STEPS)
    assert outbox.order == []
    assert observer.sender is not None
    assert observer.sender.dropped == 1
    outbox.room = 1000
    forward(observer, ("a", 3, 1), ("b", 2, 1), ("c", 2, 1))
    assert outbox.order == [FailedRuns, DeviceStep]
    assert set(outbox.failed) == {"a", "c"}


def test_a_rank_that_sends_no_rows_still_tells_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = Full()
    observer = make(outbox)
    observer.publishes = False
    with monkeypatch.context() as patch:
        break_in(observer, patch, "_push")
        forward(observer, *STEPS)
    assert outbox.order == [FailedRuns]


def test_a_replayed_graph_never_steers_by_a_table_that_could_not_be_filled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outbox = Full()
    observer = make(outbox)
    graph = GraphPass(observer.layout, observer.bank, 8, HIDDEN, torch.device("cpu"))
    observer.graph = graph

    def strengths() -> list[float]:
        table = graph.acting
        return [
            float(row[0, STRENGTH]) if count else 0.0
            for row, count in zip(table.entries, table.counts, strict=True)
        ]

    decode = (("a", 0, 1), ("b", 0, 1), ("c", 0, 1))
    observer.begin([Span(run, at + 1, count) for run, at, count in decode])
    assert strengths() == pytest.approx([0.5, 0, 0.2, 0, 0, 0, 0, 0])

    def half(_action: Action) -> tuple[float, ...]:
        raise MemoryError("no room")

    observer.steer("a", 1, ())
    observer.steer("c", 1, (Action("v", 0.3),))
    with monkeypatch.context() as patch:
        patch.setattr(graph.acting, "_entry", half)
        observer.begin([Span(run, at + 2, count) for run, at, count in decode])
    # `a` had been set to 0 and so was not to be steered: it goes on.
    assert list(outbox.failed) == ["c"]
    assert not graph.acting.counts.any()
    observer.steer("a", 2, (Action("v", 0.25),))
    observer.begin([Span(run, at + 3, count) for run, at, count in decode])
    assert strengths() == [0.25, 0, 0, 0, 0, 0, 0, 0]


class Broken:
    """A step whose arrays never arrive."""

    numbers = 0
    runs = ("a", "b")

    def leave_numbers_out(self) -> None:
        raise AssertionError("It has none.")

    def arrive(self) -> Step:
        raise RuntimeError("the copy failed")


def test_a_step_that_cannot_be_sent_is_its_runs_failure(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/rows"
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    socket.bind(address)
    sender = RowSender(address)
    try:
        sender.put(Broken())
        assert socket.poll(10_000)
        news = unpack(socket.recv_multipart())
        assert isinstance(news, FailedRuns)
        assert set(news.runs) == {"a", "b"}
        assert "RuntimeError: the copy failed" in news.runs["a"]
        sender.put(Broken())
        assert socket.poll(10_000), "the sender's thread has ended"
    finally:
        sender.close()
        socket.close(linger=0)
        context.term()


def test_a_run_begins_with_the_revision_it_was_submitted_with() -> None:
    observer = make_observer(Full())
    observer.add("r", {**options("a", {"v": 0.1}), "rev": 3})
    state = observer.runs.named("a")
    assert state is not None
    assert state.revision_at(0).rev == 3
    observer.steer("a", 4, ())
    assert state.revision_at(0).rev == 4
