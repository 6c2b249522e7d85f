"""What the observer relies on in vLLM's configuration, asserted at load on every rank.

Each line is something that would make a heatmap wrong or steering silent, and that nothing else would tell.
Most hold today because of NNsight's or our own settings; a new version, an argument that somebody passes
through, or an environment variable could change any of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEDULER = "steersight.engine.scheduling.scheduler"
"""Where vLLM finds the scheduler whose cache of prefixes knows what acted on them."""


class BrokenAssumptionError(RuntimeError):
    """The engine is set up in a way in which rows or steering would be wrong; the message says which."""


def check(config: Any, *, graphs: bool, channel: str, adapters: int = 0) -> None:
    """Refuse an engine in which the observer would be wrong.

    Args:
        config: vLLM's `VllmConfig`, as the worker has it.
        graphs: whether decoding is to run in CUDA graphs with the observer recorded in them.
        channel: ZeroMQ address at which rows are to arrive.
        adapters: how many LoRA adapters runs may ask for.

    Raises:
        BrokenAssumptionError: with a sentence for each assumption that does not hold.
    """
    broken = list(violations(config, graphs=graphs, channel=channel, adapters=adapters))
    if broken:
        raise BrokenAssumptionError(" ".join(broken))


def violations(config: Any, *, graphs: bool, channel: str, adapters: int = 0) -> Iterator[str]:
    """A sentence for each assumption that does not hold; arguments as in `check`."""
    parallel, compilation = config.parallel_config, config.compilation_config
    if parallel.pipeline_parallel_size > 1:
        yield (
            "With pipeline parallelism one process sees only its own layers, and pipeline parallelism would "
            "hide the rest. Use tensor parallelism instead."
        )
    if parallel.data_parallel_size > 1:
        yield (
            "With data parallelism several engines would send rows of one address, and sliders would reach "
            "only some of them. Start one server per engine behind the load balancer instead."
        )
    if parallel.prefill_context_parallel_size > 1 or parallel.decode_context_parallel_size > 1:
        yield "With context parallelism no process sees all tokens of a run. Use tensor parallelism instead."
    if parallel.enable_dbo:
        yield "With dual batch overlap a step is computed in two halves, and rows would mix. Leave it out."
    if config.cache_config.enable_prefix_caching and config.scheduler_config.scheduler_cls != SCHEDULER:
        yield (
            "With prefix caching a reply would read what was computed with other steering, unless the "
            "scheduler is ours. Leave scheduler_cls alone, or start with --prefix-caching 0."
        )
    if config.lora_config is not None:
        yield from _about_lora(config, adapters)
    if config.speculative_config is not None:
        yield (
            "With speculative decoding one pass computes positions that are then thrown away, and their rows "
            "would be shown. Leave speculative_config out."
        )
    if config.kv_transfer_config is not None:
        yield "A KV cache that another engine has filled brings no rows. Leave kv_transfer_config out."
    if config.use_v2_model_runner:
        yield (
            "vLLM's second model runner does not call the observer. Unset VLLM_USE_V2_MODEL_RUNNER or set it "
            "to 0."
        )
    yield from _about_graphs(compilation, config.scheduler_config.max_num_seqs, graphs)
    if compilation.mode:
        yield (
            "vLLM's compiler would trace through the observer's hooks and drop them. Set the compilation "
            "mode to 0."
        )
    yield from _about_channel(channel)


def _about_lora(config: Any, adapters: int) -> Iterator[str]:
    lora = config.lora_config
    if not adapters or not lora.target_modules or {"lm_head", "embed_tokens"} & set(lora.target_modules):
        yield (
            "vLLM is to adapt modules outside of the decoder layers, and the logit lens of several runs "
            "would be that of none. Name LoRA adapters with --lora only."
        )
    if lora.max_loras < adapters:
        yield (
            f"vLLM has {lora.max_loras} places for {adapters} LoRA adapters, and would read some from disk "
            "while everybody waits. Leave max_loras alone."
        )
    device = config.device_config.device_type
    if device == "cuda" and str(config.model_config.dtype) == "torch.float32":
        yield "vLLM's LoRA kernels on CUDA take no float32. Start with --dtype bfloat16."


def _about_graphs(compilation: Any, most_runs: int, graphs: bool) -> Iterator[str]:
    mode = compilation.cudagraph_mode
    name = "NONE" if mode is None else mode.name
    wanted = "FULL_DECODE_ONLY" if graphs else "NONE"
    if name != wanted:
        yield (
            f"CUDA graphs are in the mode {name}, and the observer is set up for {wanted}: replayed steps "
            "would have no rows. Choose with --engine-mode only."
        )
    elif graphs and max(compilation.cudagraph_capture_sizes or [0]) < most_runs:
        yield f"CUDA graphs are recorded for fewer than the {most_runs} runs that may be computed at once."


def _about_channel(channel: str) -> Iterator[str]:
    """Rows travel over a socket file, so this process must be on the server's machine."""
    scheme, _, path = channel.partition("://")
    if scheme == "ipc" and not Path(path).is_socket():
        yield (
            f"Rows travel over the socket file {path}, which is not on this machine: replies would come "
            "without rows. Let all ranks run on the server's machine; an engine over several machines is not "
            "supported yet."
        )
