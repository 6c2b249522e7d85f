"""Engines whose set-up would make rows or steering wrong are refused, each with its reason."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import pytest
import torch

from steersight.engine.assumptions import SCHEDULER, BrokenAssumptionError, check
from steersight.engine.layout import UnsupportedModelError
from steersight.engine.proof import ranks_agree


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[str]:
    """Address of a row channel whose socket file exists."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "rows"))
        yield f"ipc://{tmp_path}/rows"


def as_it_should_be(*, graphs: bool = False) -> Any:
    """A configuration of vLLM's as NNsight and we set it up."""
    return Namespace(
        parallel_config=Namespace(
            pipeline_parallel_size=1, data_parallel_size=1, prefill_context_parallel_size=1,
            decode_context_parallel_size=1, enable_dbo=False,
        ),
        cache_config=Namespace(enable_prefix_caching=True),
        scheduler_config=Namespace(scheduler_cls=SCHEDULER, max_num_seqs=64),
        compilation_config=Namespace(
            mode=0, cudagraph_mode=Namespace(name="FULL_DECODE_ONLY" if graphs else "NONE"),
            cudagraph_capture_sizes=[1, 64] if graphs else [],
        ),
        device_config=Namespace(device_type="cpu"), model_config=Namespace(dtype=torch.float32),
        lora_config=None, speculative_config=None, kv_transfer_config=None, use_v2_model_runner=False,
    )  # fmt: skip


def lora_of(config: Any) -> Any:
    """The part of it that concerns LoRA, as it should be for one adapter."""
    config.lora_config = config.lora_config or Namespace(target_modules=["q_proj"], max_loras=1)
    return config.lora_config


@pytest.mark.parametrize("graphs", [False, True])
def test_the_usual_set_up_is_taken(channel: str, graphs: bool) -> None:
    check(as_it_should_be(graphs=graphs), graphs=graphs, channel=channel)
    check(as_it_should_be(graphs=graphs), graphs=graphs, channel="tcp://127.0.0.1:1")


BREAKS: dict[str, Callable[[Any], object]] = {
    "pipeline parallelism": lambda c: setattr(c.parallel_config, "pipeline_parallel_size", 2),
    "data parallelism": lambda c: setattr(c.parallel_config, "data_parallel_size", 2),
    "context parallelism": lambda c: setattr(c.parallel_config, "decode_context_parallel_size", 2),
    "dual batch overlap": lambda c: setattr(c.parallel_config, "enable_dbo", True),
    "prefix caching": lambda c: setattr(c.scheduler_config, "scheduler_cls", None),
    "outside of the decoder layers": lambda c: setattr(lora_of(c), "target_modules", None),
    "0 places for 1 LoRA adapters": lambda c: setattr(lora_of(c), "max_loras", 0),
    "LoRA kernels on CUDA take no float32": lambda c: (
        lora_of(c),
        setattr(c.device_config, "device_type", "cuda"),
    ),
    "speculative decoding": lambda c: setattr(c, "speculative_config", Namespace()),
    "another engine has filled": lambda c: setattr(c, "kv_transfer_config", Namespace()),
    "second model runner": lambda c: setattr(c, "use_v2_model_runner", True),
    "CUDA graphs are in the mode": lambda c: setattr(
        c.compilation_config.cudagraph_mode, "name", "PIECEWISE"
    ),
    "compiler": lambda c: setattr(c.compilation_config, "mode", 3),
}


@pytest.mark.parametrize("what", BREAKS)
def test_each_broken_assumption_is_named(channel: str, what: str) -> None:
    config = as_it_should_be()
    BREAKS[what](config)
    with pytest.raises(BrokenAssumptionError, match=what):
        check(config, graphs=False, channel=channel, adapters=int(config.lora_config is not None))


def test_graphs_that_are_too_small_for_the_runs_are_refused(channel: str) -> None:
    config = as_it_should_be(graphs=True)
    config.compilation_config.cudagraph_capture_sizes = [1, 32]
    with pytest.raises(BrokenAssumptionError, match="fewer than the 64 runs"):
        check(config, graphs=True, channel=channel)


def test_an_eager_engine_where_graphs_were_meant_is_refused(channel: str) -> None:
    with pytest.raises(BrokenAssumptionError, match="mode NONE"):
        check(as_it_should_be(), graphs=True, channel=channel)


def test_a_rank_on_another_machine_is_refused(tmp_path: Path) -> None:
    """What Ray does with several machines: the worker starts where the socket file is not."""
    with pytest.raises(BrokenAssumptionError, match="not on this machine"):
        check(as_it_should_be(), graphs=False, channel=f"ipc://{tmp_path}/nowhere")


def test_all_that_is_broken_is_said_at_once(channel: str) -> None:
    config = as_it_should_be()
    for break_it in BREAKS.values():
        break_it(config)
    with pytest.raises(BrokenAssumptionError) as refused:
        check(config, graphs=False, channel=channel, adapters=1)
    assert all(what in str(refused.value) for what in BREAKS)


def prints(ranks: int, layers: int) -> torch.Tensor:
    one = (
        torch.randn(1, layers, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).abs() + 1.0
    )
    return one.repeat(ranks, 1, 1)


def test_equal_ranks_are_taken_and_rounding_is_forgiven() -> None:
    ranks_agree(prints(4, 6), torch.float32)
    ranks_agree(
        prints(4, 6) * (1 + 1e-6 * torch.arange(4, dtype=torch.float64)[:, None, None]), torch.float32
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rank_that_sees_another_stream_is_named(dtype: torch.dtype) -> None:
    """As with sequence parallelism, where each rank has its own share of the tokens."""
    found = prints(4, 6)
    found[2, 3] *= 1.2
    with pytest.raises(UnsupportedModelError, match="After layer 3 the residual stream of rank 2"):
        ranks_agree(found, dtype)
