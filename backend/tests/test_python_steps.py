"""Steps that Python takes part in are not replayed from a CUDA graph, on any rank, and are steered once.

Without CUDA: what vLLM asks of its runner is called, and what a graph would replay (`test_replays.py`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steersight.engine.plan import Span
from steersight.engine.request import RunOptions, Wants
from steersight.vectors.action import Action

from .banks import banked, steering_vector
from .test_replays import HIDDEN, LAYERS, Model


class Runner:
    """An `ObservedRunner` over a vLLM that only says how it would run each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, graphs: bool = True) -> None:
        from steersight.engine.python_steps import PythonSteps
        from steersight.engine.worker import ObservedRunner  # isort: split

        from nnsight.modeling.vllm.model_runners.GPUModelRunner import NNsightGPUModelRunner
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        from steersight.engine import python_steps
        from steersight.engine.nnsight_adapter import BoundRequests

        self.eager: list[bool] = []
        """What vLLM was told, for each pass."""
        self.fails = False
        self.calls = False
        """Whether a function of the server's steers in the step."""
        self.runner = runner = object.__new__(ObservedRunner)
        runner.python_steps = PythonSteps(graphs=graphs)
        runner.requests = {}
        runner._read_group = None
        runner.input_batch = SimpleNamespace(req_ids=[])
        runner.observer = SimpleNamespace(
            begin=lambda _spans: None,
            may_call=lambda spans: any(span.request_id == "steered" for span in spans),
            calls=lambda: self.calls,
            add=lambda *_: None,
            remove=lambda _: None,
            forwarded=lambda: None,
            fail_edits=lambda _: None,
            emissions=SimpleNamespace(begin=lambda _scheduled: None),
        )
        runner.nnsight_model = SimpleNamespace(interleaver=SimpleNamespace(mediators=[]))
        runner.nnsight_requests = BoundRequests()
        runner._handoff = SimpleNamespace(switch=lambda _on: None)
        runner.guard = SimpleNamespace(idle=lambda: None)

        def determine(_runner: Any, *arguments: Any, **named: Any) -> None:
            assert not named.keys() - {"num_encoder_reqs", "force_uniform_decode"}
            self.eager.append(arguments[6])

        def execute(runner: Any, output: Any) -> str:
            runner._update_states(output)
            runner._determine_batch_execution_and_padding(
                num_tokens=2, num_reqs=2, num_scheduled_tokens_np=None, max_num_scheduled_tokens=1,
                use_cascade_attn=False, num_encoder_reqs=0, allow_microbatching=True,
            )  # fmt: skip
            if self.fails:
                raise RuntimeError("The step failed.")
            return "computed"

        monkeypatch.setattr(python_steps, "get_tp_group", lambda: SimpleNamespace(world_size=1))
        monkeypatch.setattr(GPUModelRunner, "_determine_batch_execution_and_padding", determine)
        monkeypatch.setattr(NNsightGPUModelRunner, "_update_states", lambda _runner, _output: None)
        monkeypatch.setattr(NNsightGPUModelRunner, "execute_model", execute)

    def request(self, name: str, *, traced: bool = False, edits: list[str] | None = None) -> None:
        extra: dict[str, Any] | None = {"nnsight_mediator": b""} if traced else None
        if edits is not None:
            extra = {"nnsight_edits": edits}
        self.runner.requests[name] = SimpleNamespace(
            sampling_params=SimpleNamespace(extra_args=extra), num_computed_tokens=3, num_tokens=4
        )
        self.runner.input_batch.req_ids.append(name)

    def step(self, *names: str, blocks: int = 0) -> None:
        self.runner.nnsight_model.interleaver.mediators = [object()] * blocks
        self.runner.execute_model(
            SimpleNamespace(
                num_scheduled_tokens=dict.fromkeys(names, 1),
                preempted_req_ids=None,
                finished_req_ids=set(),
                scheduled_new_reqs=[],
            )
        )

    def dummy(self, *, eager: bool = False) -> None:
        self.runner._determine_batch_execution_and_padding(
            8, 8, None, 1, False, True, eager, force_uniform_decode=True
        )


def test_a_step_with_a_block_is_not_replayed_and_leaves_nothing_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Runner(monkeypatch)
    fake.request("chat", traced=False)
    fake.request("trace", traced=True)
    fake.step("chat", "trace", blocks=1)
    assert not fake.runner.runs_python(), "it stays on behind the step"
    fake.dummy()
    fake.step("chat", "trace")  # its block has run to its end
    fake.dummy(eager=True)
    assert fake.eager == [True, False, False, True]


def test_a_step_in_which_a_function_steers_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Runner(monkeypatch)
    fake.request("chat", traced=False)
    fake.request("steered", traced=False)
    fake.calls = True
    fake.step("chat", "steered")
    fake.calls = False
    fake.step("chat", "steered")
    assert fake.eager == [True, False]


def test_a_step_that_failed_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Runner(monkeypatch)
    fake.request("trace", traced=True)
    fake.fails = True
    with pytest.raises(RuntimeError, match="The step failed"):
        fake.step("trace", blocks=1)
    fake.dummy()
    assert fake.eager == [True, False]


def test_all_ranks_vote_where_anything_may_be_at_work_and_nobody_else_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from steersight.engine import python_steps

    votes: list[int] = []
    others = 0

    def all_reduce(vote: torch.Tensor, *, op: Any, group: Any) -> None:
        assert (op, group) == (torch.distributed.ReduceOp.MAX, "processes")
        votes.append(int(vote.item()))
        vote.clamp_(min=others)

    fake = Runner(monkeypatch)
    monkeypatch.setattr(
        python_steps, "get_tp_group", lambda: SimpleNamespace(world_size=2, cpu_group="processes")
    )
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    fake.request("chat", traced=False)
    fake.request("trace", traced=True)
    fake.step("chat")
    assert votes == [], "an ordinary step waits for a vote"
    fake.step("chat", "trace")
    others = 1  # the block has raised on another rank, which keeps it
    fake.step("chat", "trace")
    fake.step("chat", "trace", blocks=1)
    assert votes == [0, 0, 1]
    # Those that name edits, also ones that have been removed since.
    others = 0
    fake.request("edited", edits=["calm"])
    fake.request("plain", edits=[])
    fake.step("chat", "plain")
    fake.step("chat", "edited")
    fake.step("chat", "edited", blocks=1)
    assert votes == [0, 0, 1, 0, 1]
    assert fake.eager == [False, False, True, True, False, False, True]


def test_a_rank_that_cannot_say_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    from steersight.engine import python_steps

    monkeypatch.setattr(python_steps, "get_tp_group", lambda: SimpleNamespace(world_size=1))

    def broken() -> bool:
        raise RuntimeError("It has no mediators.")

    steps = python_steps.PythonSteps(graphs=True)
    steps.begin(possible=True, mine=broken)
    assert steps.now
    steps.begin(possible=False, mine=broken)
    assert not steps.now


def test_an_eager_step_among_replayed_ones_reads_no_buffer_of_a_graph_and_is_steered_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Model(set())
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(7))
    model.observer.add_vector("v", banked(steering_vector("v", {1: direction}), model.observer.bank.pool))
    wants = Wants(("residual_norm", "update_norm"))
    model.observer.add("r", RunOptions("r", wants=wants, actions=(Action("v", 0.5),)).to_wire())
    taken: list[object] = []
    take = model.graph.take
    monkeypatch.setattr(model.graph, "take", lambda *args: taken.append(args) or take(*args))

    def numbers(position: int, *, replay: bool) -> torch.Tensor:
        span = [Span("r", position, 1)]
        return model.observer.rehearse(span, lambda: model.run(1, replay=replay))

    replayed = numbers(9, replay=True)
    assert len(taken) == 1
    # The table says what acts, as it does before each step that a graph might run.
    eager = numbers(10, replay=False)
    assert len(taken) == 1, "an eager step read what an earlier one left in a graph's buffers"
    assert torch.allclose(eager, replayed, rtol=1e-5), "it was steered twice, or not at all"
    assert torch.equal(numbers(11, replay=True), replayed)

    # Of a run without numbers nothing is taken at all.
    model.observer.watch("r", 1, Wants())
    model.observer.begin([Span("r", 12, 1)])
    model.run(1, replay=False)
    model.observer.forwarded()
    assert model.observer._numbers is None
    assert len(taken) == 2
    assert model.graph.streams.shape[0] == LAYERS + 1
