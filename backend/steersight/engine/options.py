"""How an engine is to be started, and what is known of the model it serves."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ..adapters import Adapter, adapters
from ..files import REPOSITORY
from ..flags import option
from ..kinds import file, files, folder, number, one_of, or_auto, switch
from ..metrics import Experts
from ..text.template import TemplateArgument
from ..text.thoughts import Marks
from .arguments import engine_arguments, speculative
from .layout import parse_template
from .reasoning import parser_names

CONFIG_KEY = "steersight"
"""Under this key of vLLM's `additional_config` the worker finds what it has to know."""


def vllm_executor(text: str) -> str:
    """One of vLLM's executors, checked here because vLLM would fail late and at length."""
    chosen = one_of("auto", "mp", "ray")(text)
    if chosen == "ray" and importlib.util.find_spec("ray") is None:
        raise ValueError(
            "Ray is not installed here. Install it in the server's environment with `pip install ray`."
        )
    return chosen


def reasoning_parser(text: str) -> str:
    """One of vLLM's reasoning parsers, checked here because the engine would fail late."""
    if text and text not in parser_names():
        raise ValueError(f"vLLM has no reasoning parser {text!r}; it has {', '.join(parser_names())}.")
    return text


def layout_template(text: str) -> str:
    """A layout template, checked here because the engine would fail late."""
    parse_template(text)
    return text


@dataclass(frozen=True)
class EngineOptions:
    """How to start the engine; the part of the settings that concerns it."""

    model: str = option(
        "", "Checkpoint folder or hub name; default is the bundled SmolLM2-135M-Instruct in the data folder."
    )
    """Path of a checkpoint folder, or a name the Hugging Face hub knows."""
    data_dir: Path = option(str(REPOSITORY / "data"), "Folder of models and vectors.", folder)
    revision: str = option("", "Branch, tag or commit of a hub model; without it the newest that is here.")
    trust_remote_code: bool = option(
        "0",
        "Run Python code that a checkpoint brings. It can do whatever this server can: read files, use the "
        "network. Read it first, and fix it with --revision.",
        switch,
    )
    quantization: str = option(
        "", "How the weights are quantised, as vLLM names it; without it what the checkpoint says of itself."
    )
    dtype: str = option("auto", "Weights and activations: auto, float32, bfloat16 or float16.")
    """`auto` is float32 on a CPU and the checkpoint's own type on CUDA."""
    max_model_len: int = option("4096", "The most tokens of prompt and reply together.", number(int, 16))
    max_runs: int | None = option(
        "auto",
        "Runs that may be live at once on the whole server; auto is 64 on a CPU, and on a GPU what its "
        "memory has room for, 256 at most.",
        or_auto(number(int, 1)),
    )
    """None is auto; see engine/max_runs.py."""
    tensor_parallel: int = option(
        "1",
        "Number of GPUs to spread the model over. On a CPU the number of processes, which share out the "
        "cores; VLLM_CPU_OMP_THREADS_BIND gives each its own, such as 0-3|4-7.",
        number(int, 1),
    )
    kv_cache_gib: int = option("1", "Size of the KV cache on a CPU, in GiB.", number(int, 1))
    prefix_caching: bool = option(
        "1", "Keep what was read of a prompt, for the next one that begins with the same tokens.", switch
    )
    max_num_batched_tokens: int = option(
        "0",
        "The most tokens of one step; 0 is 256 on a CPU and 8192 on CUDA.",
        number(int, 0),
    )
    long_prefill_token_threshold: int = option(
        "0",
        "The most tokens of one prompt that are read in a step while others write or wait; 0 is as many as a "
        "step takes on a CPU and 2048 on CUDA.",
        number(int, 0),
    )
    block_size: int = option(
        "0", "Tokens of a block of the KV cache; 0 is 32 on a CPU and vLLM's choice on CUDA.", number(int, 0)
    )
    gpu_memory: float = option(
        "0.9", "Share of each GPU's memory to use.", number(float, 0, 1, more_than_low=True)
    )
    executor: str = option(
        "auto", "How vLLM runs its ranks: auto, mp or ray (several machines).", vllm_executor
    )
    """vLLM's way to run its ranks: `mp` (processes), `ray` (other machines too), `auto` (vLLM chooses)."""
    engine_mode: str = option(
        "auto",
        "eager, or graphs (decode in CUDA graphs); auto is graphs on CUDA and eager on a CPU.",
        one_of("auto", "eager", "graphs"),
    )
    engine_arg: tuple[tuple[str, Any], ...] = option(
        "",
        "An engine argument of vLLM's, NAME=VALUE; may be given several times, in the variable one to a "
        "line. Only those that change nothing that rows and steering rest on.",
        engine_arguments,
    )
    speculative_config: str = option("", "Refused: speculative decoding is not supported yet.", speculative)
    metrics: tuple[str, ...] = option(
        "",
        f"Python files with metrics of your own, separated by {os.pathsep!r}; they run in the server.",
        files,
    )
    interventions: tuple[str, ...] = option(
        "",
        f"Python files with functions that steer, separated by {os.pathsep!r}; each function becomes a "
        "slider. They run in the server.",
        files,
    )
    """See interventions.py."""
    layout: str = option(
        "",
        "Where a model's layers are, when it is not known: "
        "layers=PATH,form=pair|single,attention=NAME,norm=PATH.",
        layout_template,
    )
    """See engine/layout.py."""
    chat_template: str = option(
        "",
        "File of a chat template (Jinja) for the model, in place of its own. A model without any continues a "
        "text.",
        file,
    )
    lora: tuple[Adapter, ...] = option(
        "",
        f"LoRA adapters that runs may ask for, as peft saves them: NAME=FOLDER, separated by {os.pathsep!r}.",
        adapters,
    )
    """See engine/lora.py."""
    reasoning_parser: str = option(
        "",
        "vLLM's name of the reasoning parser for the model, such as qwen3, which knows what stands around "
        "its thoughts; without one, what the chat template writes around them is taken.",
        reasoning_parser,
    )
    """See engine/reasoning.py."""
    nnsight: bool = option(
        "0",
        "Run Python that clients send inside the model's passes, by nnsight-serve's protocol. Whoever has "
        "the token of --nnsight-token-file can then do whatever this server can.",
        switch,
    )
    nnsight_seconds: float = option(
        "30",
        "How long the code of one such run may take in all; while it runs, everybody else waits.",
        number(float, 0, 86_400, more_than_low=True),
    )
    nnsight_memory_gib: float = option(
        "2",
        "Host memory that such code may take beside the model, in GiB.",
        number(float, 0, 1 << 20, more_than_low=True),
    )
    stall_seconds: float = option(
        "60", "How long the engine may take for a step before it counts as stuck.", number(float, 1, 86_400)
    )
    """An engine that owes an answer and gives no sign of life for so long is started again. A long prompt on
    a big model and a CPU can truly take tens of seconds."""

    @property
    def pretrained(self) -> dict[str, Any]:
        """How transformers is to read the checkpoint: arguments of every `from_pretrained`."""
        return {"revision": self.revision or None, "trust_remote_code": self.trust_remote_code}


def for_another_model(options: EngineOptions, model: str) -> EngineOptions:
    """The options of a server, for a model that it was not started with: what was said of the one that it was
    started with is left out. Above all its code was trusted, and no other model's.

    Args:
        options: as the server was started.
        model: path of a checkpoint folder.
    """
    return replace(
        options, model=model, revision="", trust_remote_code=False, quantization="", layout="",
        chat_template="", reasoning_parser="", lora=(),
    )  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """What is known of the served model."""

    id: str
    layers: int
    hidden_size: int
    vocab_size: int
    dtype: str
    max_model_len: int
    special_ids: list[int]
    experts: Experts | None = None
    """Of its layers, where they have some."""
    chat: Literal["template", "file", "none"] = "template"
    """What makes a prompt of a conversation; see `ModelInfo.chat`."""
    adapters: tuple[Adapter, ...] = ()
    """What may be put onto it for a run."""
    thoughts: Marks | None = None
    """What it writes around its thoughts; None for a model that has none."""
    template: tuple[TemplateArgument, ...] = ()
    """What its chat template can be told."""
