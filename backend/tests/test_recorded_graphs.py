"""Graphs that read prompts: recorded where attention can be in one, kept where all ranks have proved them."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steersight.engine.layout import UnsupportedModelError

ONE_GROUP = [SimpleNamespace(kv_cache_spec=None)]


class Dispatcher:
    """What vLLM's dispatcher of graphs tells and takes."""

    def __init__(self, lora_cases: list[int] | None = None) -> None:
        from vllm.config import CUDAGraphMode

        self.cudagraph_mode = CUDAGraphMode.FULL_DECODE_ONLY
        self.cudagraph_keys = {CUDAGraphMode.FULL: {("decode", 8)}}
        self._lora_cases = lora_cases or [0]

    def _get_lora_cases(self) -> list[int]:
        return self._lora_cases

    def add_cudagraph_key(self, mode: Any, key: Any) -> None:
        self.cudagraph_keys[mode].add(key)

    def _create_padded_batch_descriptor(self, size: int, uniform: bool, lora: bool, count: int) -> Any:
        assert not uniform
        assert lora == (count > 0)
        return ("mixed", size, count) if count else ("mixed", size)

    @property
    def names(self) -> set[Any]:
        (names,) = self.cudagraph_keys.values()
        return names


def backend(support: str) -> Any:
    """A kind of attention, and in which graphs it can be."""
    from vllm.v1.attention.backend import AttentionCGSupport

    class Builder:
        @staticmethod
        def get_cudagraph_support(_config: Any, _spec: Any) -> AttentionCGSupport:
            return AttentionCGSupport[support]

    class Backend:
        @staticmethod
        def get_builder_cls() -> type[Builder]:
            return Builder

    return Backend


def runner_of(dispatcher: Dispatcher) -> Any:
    return SimpleNamespace(
        cudagraph_dispatcher=dispatcher, vllm_config=None, device=torch.device("cpu"), observer=None,
        compilation_config=SimpleNamespace(cudagraph_capture_sizes=[8, 16]),
        model_config=SimpleNamespace(get_hidden_size=lambda: 16), as_proof=nullcontext,
    )  # fmt: skip


@pytest.mark.parametrize("error", [UnsupportedModelError("It differs."), RuntimeError("out of memory")])
def test_a_rank_that_could_not_prove_its_graphs_votes_all_the_same(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the other ranks would wait for it for ever."""
    from steersight.engine import recorded_graphs

    votes: list[float] = []

    class Group:
        def all_reduce(self, vote: torch.Tensor) -> torch.Tensor:
            votes.append(vote.item())
            return vote

    def fails(*_arguments: object) -> None:
        raise error

    dispatcher = Dispatcher()
    graphs = recorded_graphs.RecordedGraphs(runner_of(dispatcher))
    graphs.add_mixed([{backend("ALWAYS")}], ONE_GROUP)
    assert dispatcher.names == {("decode", 8), ("mixed", 8), ("mixed", 16)}
    monkeypatch.setattr(recorded_graphs, "get_tp_group", Group)
    monkeypatch.setattr(recorded_graphs, "prove_replays", fails)
    graphs._keep_mixed_if_proved()
    assert votes == [1.0]
    assert dispatcher.names == {("decode", 8)}
    # And nothing is left to vote on.
    graphs._keep_mixed_if_proved()
    assert votes == [1.0]


def test_where_adapters_are_served_each_size_is_recorded_and_proved_without_and_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from steersight.engine import recorded_graphs

    dispatcher = Dispatcher([0, 3])
    runner = runner_of(dispatcher)
    graphs = recorded_graphs.RecordedGraphs(runner)
    graphs.add_mixed([{backend("ALWAYS")}], ONE_GROUP)
    assert dispatcher.names == {
        ("decode", 8), ("mixed", 8), ("mixed", 16), ("mixed", 8, 3), ("mixed", 16, 3)
    }  # fmt: skip
    tried: list[tuple[int, int, bool]] = []
    runner._dummy_run = lambda rows, **how: tried.append((rows, how["num_active_loras"], how["remove_lora"]))
    monkeypatch.setattr(
        recorded_graphs, "prove_replays", lambda _observer, sizes, run, _hidden: [run(n, True) for n in sizes]
    )
    graphs._prove([8, 16], decoding=True)
    assert tried == [(8, 0, False), (16, 0, False), (8, 3, False), (16, 3, False)]


def test_attention_that_takes_no_prompts_in_graphs_has_them_read_eagerly() -> None:
    from steersight.engine.recorded_graphs import RecordedGraphs

    dispatcher = Dispatcher()
    graphs = RecordedGraphs(runner_of(dispatcher))
    graphs.add_mixed([{backend("ALWAYS"), backend("UNIFORM_BATCH")}], ONE_GROUP)
    assert dispatcher.names == {("decode", 8)}


def test_a_proof_computes_what_vllm_would_call_padding() -> None:
    """Of padding a mixture of experts computes nothing, and its part of the stream is what lay in memory."""
    from steersight.engine.worker import ObservedRunner

    runner = ObservedRunner.__new__(ObservedRunner)
    runner.is_padding = torch.zeros(8, dtype=torch.bool)
    assert runner._prepare_padding_mask(0, 8).all()
    with runner.as_proof():
        assert not runner._prepare_padding_mask(0, 8).any()
    assert runner._prepare_padding_mask(3, 8).tolist() == [False] * 3 + [True] * 5


def test_an_error_of_the_device_is_no_proof_that_could_not_be_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    from steersight.engine import recorded_graphs

    runner = runner_of(Dispatcher())
    runner.observer = SimpleNamespace(graph=object())
    runner.scheduler_config = SimpleNamespace(max_num_seqs=8)
    graphs = recorded_graphs.RecordedGraphs(runner)

    def fail_of(error: Exception) -> None:
        def raising(_sizes: list[int], *, decoding: bool) -> None:
            raise error

        monkeypatch.setattr(graphs, "_prove", raising)

    fail_of(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    with pytest.raises(torch.AcceleratorError):
        graphs.prove()
    fail_of(RuntimeError("out of memory"))
    graphs.prove()
