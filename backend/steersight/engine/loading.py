"""Loading in threads: the model's facts, and the engine itself. Whatever imports torch, transformers, vllm or
nnsight starts here, because each takes seconds that the event loop does not have.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..adapters import made_for_another
from ..metrics import Experts, Registry
from ..naming import model_id
from ..no_model import why_no_model, why_no_model_on_hub
from ..text.rendering import Renderer
from . import cores, libnuma, lora, max_runs, trouble
from .arguments import known_to
from .assumptions import SCHEDULER
from .errors import StartError
from .options import CONFIG_KEY, EngineOptions, ModelFacts
from .tokenizer import read_tokenizer

if TYPE_CHECKING:
    from ..interventions import SteeringFunction
    from ..vectors.store import Selection

GRAPH_TOKENS = 512
GRAPH_BYTES = 1 << 30
"""Of the device's memory, for what the observer keeps of each token of a graph in each layer."""

Report = Callable[[str, float], None]
"""Takes a stage and how much is done, 0 to 1; called from the loading thread."""


@dataclass(frozen=True)
class Known:
    """What can be said of a model before its engine runs."""

    model: ModelFacts
    renderer: Renderer
    problems: list[str]
    """What its tokenizer cannot do, and which adapters were made for another model, in sentences."""
    vectors: Selection
    functions: dict[str, SteeringFunction]
    """Of the server's own files, by id."""
    registry: Registry


@dataclass(frozen=True)
class Built:
    """A running engine."""

    nnsight: Any
    dtype: str
    roots: list[int]
    """Ids of the processes that were started for it."""
    capacity_tokens: int | None
    """How many tokens its KV cache holds."""
    max_runs: int
    """How many runs it computes at once."""


async def in_daemon_thread(work: Callable[[], Any]) -> Any:
    """Like asyncio.to_thread, but neither the loop's end nor the interpreter's waits for the thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def body() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=body, name="load-engine", daemon=True).start()
    return await future


def read_model(options: EngineOptions, report: Report) -> Known:
    """Everything that is known of the model and of what may be done with it."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(options.kv_cache_gib))
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    with _environment(without_network(options)):
        return _read(options, report)


def _read(options: EngineOptions, report: Report) -> Known:
    report("Reading the model's configuration and tokenizer", 0.02)
    from transformers import AutoConfig

    if (why := why_no_model(options.model)) is not None:
        raise StartError(why)
    try:
        config = AutoConfig.from_pretrained(options.model, **options.pretrained)
    except OSError as error:
        if not Path(options.model).exists() and (why := why_no_model_on_hub(options.model)) is not None:
            raise StartError(why) from error
        raise
    if options.reasoning_parser:
        import_engine(report)  # the parsers come with it
    read = read_tokenizer(
        options.model, config, options.chat_template, options.pretrained, parser=options.reasoning_parser
    )
    text = config.get_text_config()
    dtype = options.dtype
    if dtype == "auto":
        dtype = str(text.dtype).removeprefix("torch.")
    facts = ModelFacts(
        id=model_id(options.model),
        layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        vocab_size=text.vocab_size,
        dtype=dtype,
        # Models whose positions are biases of attention (BLOOM, MPT) have no such limit.
        max_model_len=min(
            options.max_model_len, getattr(text, "max_position_embeddings", None) or options.max_model_len
        ),
        special_ids=read.special_ids,
        experts=experts_of(text),
        chat=read.renderer.chat,
        adapters=options.lora,
        thoughts=read.renderer.marks,
        template=read.renderer.arguments,
    )
    strangers = [made_for_another(adapter, options.model) for adapter in options.lora]
    from ..interventions import InterventionError, check_names, load_functions
    from ..metrics.own import load_own
    from ..vectors.store import VectorStore

    chosen = VectorStore(options.data_dir).select(
        options.model, facts.hidden_size, facts.layers, [adapter.id for adapter in options.lora]
    )
    try:
        functions = load_functions(options.interventions, facts.layers)
        check_names(functions.values(), chosen.vectors)
    except InterventionError as error:
        raise StartError(str(error)) from error
    named = [(vector.id, vector.label) for vector in chosen.vectors.values()]
    return Known(
        facts,
        read.renderer,
        [*read.problems, *filter(None, strangers)],
        chosen,
        functions,
        Registry(named, load_own(list(options.metrics)), facts.experts),
    )


EXPERTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "top_k_experts", "moe_topk", "moe_top_k")


def experts_of(text: Any) -> Experts | None:
    """The experts of a model's layers, from its configuration, by the names that vLLM (0.32) knows too."""

    def named(names: tuple[str, ...]) -> int:
        found = next((value for name in names if (value := getattr(text, name, None))), 0)
        # Where layers differ: the fewest, so that what is told of each is true.
        return int(min(found)) if isinstance(found, list) else int(found)

    count, chosen = named(EXPERTS), named(CHOSEN)
    return Experts(count, chosen) if count > 1 and 0 < chosen <= count else None


def import_engine(report: Report) -> None:
    """Import what takes seconds.

    By itself, before `build_engine`: on the way something keeps the traceback of an import that failed (with
    vLLM 0.32), and so the frames of everybody who was waiting for it. An engine in one of those would never
    be freed.
    """
    report("Importing vLLM and NNsight", 0.1)
    libnuma.load()
    from . import nnsight_adapter  # noqa: F401


def build_engine(
    options: EngineOptions, model: ModelFacts, vectors: list[tuple[str, str]], folder: Path, report: Report
) -> Built:
    """Start an engine. `import_engine` has been called.

    Args:
        options: how.
        model: what it is to serve.
        vectors: (id, label) of each.
        folder: where its row channel is, and everything else of it that has a file.
        report: told how far it is.
    """
    from vllm.platforms import current_platform

    from .nnsight_adapter import SteersightVLLM

    on_cpu = current_platform.is_cpu()
    if on_cpu:
        # vLLM 0.32 compiles two helpers of its sampler with torch.compile even in an eager engine. On a
        # CPU that needs a C++ compiler at the first reply: without one the engine died, with one the
        # reply waited for it. The worker process inherits this, and runs the two as plain operations.
        os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
    dtype = _cpu_dtype(options, model.dtype) if options.dtype == "auto" and on_cpu else model.dtype
    runs = max_runs.chosen(options, dtype, model.max_model_len)
    report("Building the model's module tree", 0.3)
    caching = _caching(options, model, runs, on_cpu)
    # What a step takes of ordinary prompts; more only of one that a block has to see whole.
    piece = caching["max_num_batched_tokens"]
    if options.nnsight:
        caching["max_num_batched_tokens"] = max(piece, model.max_model_len + runs)
    more = caching | lora.engine_arguments(model.adapters)
    if not on_cpu:
        more["gpu_memory_utilization"] = options.gpu_memory
    more |= _passed_through(options)
    if options.executor != "auto":
        more["distributed_executor_backend"] = options.executor
    chosen = _files_in(folder, options) | without_network(options)
    if on_cpu:
        chosen |= cores.environment(options.tensor_parallel, os.environ)
    with _environment(chosen):
        nnsight = SteersightVLLM(
            options.model,
            mode="async",
            dispatch=True,
            dtype=dtype,
            max_model_len=model.max_model_len,
            max_num_seqs=runs,
            tensor_parallel_size=options.tensor_parallel,
            # The files that `read_model` has read, also in a Mistral folder that has both kinds.
            tokenizer_mode="hf",
            revision=options.revision or None,
            tokenizer_revision=options.revision or None,
            trust_remote_code=options.trust_remote_code,
            quantization=options.quantization or None,
            config_format="hf",
            # Nobody reads them, and they took a tenth of the event loop at 128 runs.
            disable_log_stats=True,
            **more,
            additional_config={
                CONFIG_KEY: {
                    "channel": row_address(folder),
                    "layout": options.layout,
                    "thinks": model.thoughts is not None,
                    "pretrained": dict(options.pretrained),
                    "metrics": list(options.metrics),
                    "interventions": list(options.interventions),
                    "vectors": vectors,
                    "experts": None if model.experts is None else (model.experts.count, model.experts.chosen),
                    "adapters": lora.told(model.adapters),
                    "graphs": options.engine_mode != "eager" and not on_cpu,
                    "graph_tokens": min(graph_tokens(model, runs), piece),
                    "step_tokens": piece,
                    "blocks": {
                        "seconds": options.nnsight_seconds,
                        "memory": int(options.nnsight_memory_gib * (1 << 30)),
                    },
                }
            },
        )
    engine = nnsight.vllm_entrypoint
    processes = getattr(engine.engine_core.resources.engine_manager, "processes", [])
    return Built(
        nnsight,
        dtype,
        [process.pid for process in processes],
        _capacity(engine.vllm_config.cache_config),
        runs,
    )


def _cpu_dtype(options: EngineOptions, own: str) -> str:
    """What a CPU computes in: fp32; with quantised weights half precision, which is all that vLLM's kernels
    for them (0.32) take there."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(options.model, **options.pretrained)
    if not (options.quantization or getattr(config, "quantization_config", None)):
        return "float32"
    return own if own in ("bfloat16", "float16") else "bfloat16"


CPU_BATCHED_TOKENS = 256
"""On a CPU a step takes as long as it has tokens: a piece of so many is read in some 0.3 s on two cores, and
so long everybody else's next token waits. Larger pieces are hardly faster."""
CPU_BLOCK_SIZE = 32
"""Only whole blocks are found again. vLLM's own 128 on a CPU would leave a quarter of a second's reading to
do for each turn of a conversation."""
GPU_BATCHED_TOKENS = 8192
"""What vLLM's own server takes on a GPU of 70 GiB and more."""
GPU_PIECE = 2048
"""Of one long prompt among other people's replies, which wait for each piece. An 8B model's piece of 4,000
takes 0.15 s on an H200, launched operation by operation."""


def _caching(options: EngineOptions, model: ModelFacts, runs: int, on_cpu: bool) -> dict[str, Any]:
    """vLLM's arguments for what is kept of prompts, and in which pieces they are read.

    None leaves both to vLLM, which knows for which models they are sound; NNsight (0.8.1) would switch them
    off. With Ray a change of steering and a step may reach the workers in another order than the scheduler
    sent them, and its keys would not be true.
    """
    default = CPU_BATCHED_TOKENS if on_cpu else GPU_BATCHED_TOKENS
    piece = options.long_prefill_token_threshold or (0 if on_cpu else GPU_PIECE)
    arguments: dict[str, Any] = {
        "enable_prefix_caching": None if options.prefix_caching and options.executor != "ray" else False,
        "enable_chunked_prefill": None,
        "max_num_batched_tokens": max(options.max_num_batched_tokens or default, runs),
        "long_prefill_token_threshold": min(piece, model.max_model_len),
        "scheduler_cls": SCHEDULER,
    }
    if block_size := options.block_size or (CPU_BLOCK_SIZE if on_cpu else 0):
        arguments["block_size"] = block_size
    return arguments


def _passed_through(options: EngineOptions) -> dict[str, Any]:
    """vLLM's arguments that somebody has named. Raises StartError where it does not know one."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    try:
        return dict(known_to(AsyncEngineArgs, options.engine_arg))
    except ValueError as error:
        raise StartError(str(error)) from None


def graph_tokens(model: ModelFacts, runs: int) -> int:
    """The most tokens of one step that a CUDA graph may take: as many as in vLLM's own graphs, where what is
    kept of each of them has room.

    A short prompt is then read in a graph. Launching the operations of an 8B model one by one takes 22 ms on
    an H100, for whoever waits for a first token and for all who are in the same batch. No more than the
    longest conversation has: the pass that is recorded may take all its tokens for one prompt's, and there
    are no positions and no blocks beyond.
    """
    kept = 3 * 4 * model.layers * model.hidden_size
    return max(runs, min(GRAPH_TOKENS, GRAPH_BYTES // kept, model.max_model_len))


def row_address(folder: Path) -> str:
    """Where an engine's rows come in."""
    return f"ipc://{folder}/rows"


def _capacity(cache: Any) -> int | None:
    """Tokens that the KV cache holds. vLLM tells its client what it has come to when the engine is up.

    Both numbers that it knows are upper bounds: blocks times their size counts a window's layers in full and
    has one block that vLLM (0.32) never gives out; the other, where a version tells it, is what requests of
    the greatest length would find.
    """
    if not cache.num_gpu_blocks:
        return None
    blocks: int = (cache.num_gpu_blocks - 1) * cache.block_size
    told: int | None = getattr(cache, "kv_cache_size_tokens", None)
    return blocks if told is None else min(blocks, told)


def without_network(options: EngineOptions) -> dict[str, str]:
    """The variable by which a folder is loaded without the hub being asked about it. It is not set for good:
    the model after it may be named as the hub has it."""
    local = Path(options.model).is_dir() and "HF_HUB_OFFLINE" not in os.environ
    return {"HF_HUB_OFFLINE": "1"} if local else {}


@contextlib.contextmanager
def _environment(chosen: dict[str, str]) -> Iterator[None]:
    """Let what is imported and the processes that are started meanwhile find this in the environment."""
    before = {name: os.environ.get(name) for name in (*chosen, "LD_PRELOAD")}
    os.environ.update(chosen)
    try:
        yield
    finally:
        # LD_PRELOAD in any case: vLLM (0.32) adds to it for its workers and leaves it so, and what else the
        # server starts is to be spared.
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _files_in(folder: Path, options: EngineOptions) -> dict[str, str]:
    """The variables by which an engine's processes keep their files in one folder, which is removed as one,
    and write down there what they fail of.

    vLLM 0.32 leaves its sockets and the file by which its ranks find each other in the temporary folder, when
    it is killed and also when it is shut down. Not with Ray: its workers may be on other machines, which do
    not have the folder, and vLLM would hand them the name.
    """
    if options.executor == "ray":
        return {}
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # What torch compiles is to outlive the engine.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
    tempfile.gettempdir()  # remembered, so that this process keeps its own
    return {"TMPDIR": str(folder), "VLLM_RPC_BASE_PATH": str(folder), **_recorded_in(folder)}


def _recorded_in(folder: Path) -> dict[str, str]:
    """The variable by which vLLM's processes get the recorder of exceptions; none where vLLM is told to leave
    logging alone."""
    from vllm import envs
    from vllm.logger import DEFAULT_LOGGING_CONFIG

    if not envs.VLLM_CONFIGURE_LOGGING:
        return {}
    with contextlib.suppress(OSError, ValueError):
        written = trouble.logging_config(folder, envs.VLLM_LOGGING_CONFIG_PATH, DEFAULT_LOGGING_CONFIG)
        return {"VLLM_LOGGING_CONFIG_PATH": str(written)}
    return {}
