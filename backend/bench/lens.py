"""What the lens costs the engine: each metric family against plain vLLM, side by side in one run.

    python backend/bench/lens.py [--model FOLDER] [--runs 1 4 8 16] [--tokens 32] [--rounds 5]
        [--write docs/performance.md]

Two engines live side by side in two processes, plain vLLM and Steersight's; a variant is a batch of runs that
decode in step. In each round every variant takes its turn and is divided by the plain one of that round, so
that what else the machine does meets all; the table gives the medians. Steps are timed after all prompts were
read.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
RESIDUAL = ["residual_norm", "update_norm", "cosine_below"]
PARTS = ["attention_norm", "mlp_norm", "attention_share"]
PROJECTIONS = ["projection:bench", "projection_before:bench"]
LENS = ["lens_entropy", "lens_probability", "lens_kl"]
VARIANTS: dict[str, dict[str, Any]] = {
    "lens off": {},
    "steered only": {"steer": True},
    "residual stream, three metrics": {"metrics": RESIDUAL},
    "parts, three metrics": {"metrics": PARTS},
    "one vector, two projections": {"metrics": PROJECTIONS},
    "entropy of the final distribution": {"entropy": True},
    "logit lens, every 4th layer": {"metrics": LENS, "lens_stride": 4},
    "logit lens, every layer": {"metrics": LENS, "lens_stride": 1},
    "all, logit lens every 4th": {
        "metrics": RESIDUAL + PARTS + PROJECTIONS + LENS, "entropy": True, "lens_stride": 4, "steer": True,
    },
}  # fmt: skip
NNSIGHT = "one NNsight block per run, three metrics"
PLAIN = "plain vLLM"
MARKS = "<!-- written by backend/bench/lens.py -->", "<!-- end -->"


# ---------------------------------------------------------------- one engine, in its own process


def serve(settings: dict[str, Any]) -> None:
    """Build the engine and answer one line of JSON per batch that is asked for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not an answer
    engine, model = build(settings)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        speed = blocks(model, asked) if asked["variant"] == NNSIGHT else decode(engine, asked)
        print(json.dumps({"speed": speed}), file=answers, flush=True)


def build(settings: dict[str, Any]) -> tuple[Any, Any]:
    """The synchronous engine (`LLM`) and, for Steersight's, the NNsight model around it."""
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_LOGGING_LEVEL="ERROR", VLLM_NO_USAGE_STATS="1",
        VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1", VLLM_USE_V2_MODEL_RUNNER="0",
    )  # fmt: skip
    from steersight.engine import libnuma

    libnuma.load()
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        os.environ["TORCH_COMPILE_DISABLE"] = "1"
    shared = {
        "dtype": settings["dtype"], "max_model_len": 1024, "max_num_seqs": max(settings["runs"]),
        "enable_prefix_caching": False, "load_format": settings["load_format"],
        # Two engines share the GPU. They start in turn, because vLLM counts what another one allocates
        # meanwhile as its own.
        **({} if current_platform.is_cpu() else {"gpu_memory_utilization": settings["gpu_memory"]}),
    }  # fmt: skip
    if settings["engine"] == "plain":
        from vllm import LLM

        return LLM(settings["model"], enforce_eager=current_platform.is_cpu(), **shared), None
    import torch
    from safetensors.torch import save

    from steersight.engine.nnsight_adapter import SteersightVLLM

    model = SteersightVLLM(
        settings["model"], mode="sync", dispatch=True, **shared,
        additional_config={
            "steersight": {
                "channel": settings["channel"], "layout": "", "metrics": [], "vectors": [["bench", "bench"]],
                "graphs": settings["graphs"],
            }
        },
    )  # fmt: skip
    hidden, layers = settings["hidden"], settings["layers"]
    tensors = {"directions": torch.nn.functional.normalize(torch.ones(1, hidden)), "lengths": torch.ones(1)}
    fact = {"label": "bench", "layers": [layers // 2], "site": "residual", "reader": None}
    rpc = model.vllm_entrypoint.collective_rpc
    rpc("steersight_vector_piece", args=("bench", save(tensors)))
    rpc("steersight_prepare_vector", args=("bench", fact))
    rpc("steersight_add_vector", args=("bench",))
    return model.vllm_entrypoint, model


def prompts(runs: int) -> list[list[int]]:
    return [list(range(100 + run, 132 + run)) for run in range(runs)]


def decode(engine: Any, asked: dict[str, Any]) -> float:
    """Tokens per second of all runs while they decode in step."""
    from vllm import SamplingParams

    core = engine.llm_engine
    wants = VARIANTS.get(asked["variant"])
    names = []
    for run, ids in enumerate(prompts(asked["runs"])):
        extra = None
        if wants is not None:
            options = {
                "run": str(run), "first_row": len(ids), "metrics": wants.get("metrics", []),
                "entropy": wants.get("entropy", False), "lens_stride": wants.get("lens_stride", 0),
                "lens_top": 5,
                "actions": [{"vector": "bench", "strength": 0.01}] if wants.get("steer") else [],
            }  # fmt: skip
            extra = {"steersight": options}
        params = SamplingParams(
            temperature=0.0, max_tokens=asked["tokens"] + 8, ignore_eos=True, logprobs=0, extra_args=extra
        )
        name = f"{asked['variant']}-{run}"
        names.append(name)
        core.add_request(name, {"prompt_token_ids": ids}, params)
    started: set[str] = set()
    while len(started) < len(names):
        started.update(output.request_id for output in core.step())
    core.step()
    began = time.perf_counter()
    for _ in range(asked["tokens"]):
        core.step()
    seconds = time.perf_counter() - began
    while core.has_unfinished_requests():
        core.step()
    return float(asked["runs"] * asked["tokens"] / seconds)


def blocks(model: Any, asked: dict[str, Any]) -> float:
    """The same three numbers with what NNsight offers by itself: a block of Python for each run."""
    layers = model.model.layers
    count = asked["tokens"]

    def trace(tokens: int) -> float:
        began = time.perf_counter()
        with model.trace(temperature=0.0, max_tokens=tokens, ignore_eos=True) as tracer:
            for ids in prompts(asked["runs"]):
                with tracer.invoke(ids):
                    rows = [].save()
                    for _ in tracer.iter[:]:
                        below = layers[0].inputs[0][1].float().clone()
                        for layer in layers:
                            hidden, residual = layer.output
                            after = hidden.float() + residual.float()
                            rows.append(after.norm(dim=-1))
                            rows.append((after - below).norm(dim=-1))
                            rows.append((after * below).sum(-1) / (after.norm(dim=-1) * below.norm(dim=-1)))
                            below = after
        return time.perf_counter() - began

    # The difference of a long and a short trace: what a trace costs before its first token is left out.
    return float(asked["runs"] * count / (trace(count + 2) - trace(2)))


# ---------------------------------------------------------------- the comparison


class Engine:
    """One engine's process, from the side that asks."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, str(HERE), "--serve", json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._in: Any = self._process.stdin
        self._out: Any = self._process.stdout

    def answer(self) -> dict[str, Any]:
        line = self._out.readline()
        if not line:
            raise SystemExit("An engine ended. What it said stands above.")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, variant: str, runs: int, tokens: int) -> float:
        asked = {"variant": variant, "runs": runs, "tokens": tokens}
        print(json.dumps(asked), file=self._in, flush=True)
        return float(self.answer()["speed"])

    def end(self) -> None:
        self._in.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()


def table(asked: argparse.Namespace, folder: str) -> str:
    """Measure everything; the result is Markdown."""
    import zmq
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(asked.model).get_text_config()
    settings = {
        "model": asked.model, "dtype": asked.dtype, "runs": asked.runs, "channel": f"ipc://{folder}/rows",
        "hidden": config.hidden_size, "layers": config.num_hidden_layers, "graphs": asked.graphs,
        "load_format": "dummy" if asked.dummy else "auto",
    }  # fmt: skip
    sink = zmq.Context.instance().socket(zmq.PULL)
    sink.bind(settings["channel"])
    # A replayed graph runs no Python, so a block of NNsight's needs the eager engine.
    variants = [PLAIN, *VARIANTS, *([] if asked.graphs else [NNSIGHT])]
    engines: dict[str, Engine] = {}
    speeds: dict[tuple[str, int], list[float]] = {}
    ratios: dict[tuple[str, int], list[float]] = {}
    try:
        for name in ("plain", "steersight"):
            engines[name] = Engine(settings | {"engine": name, "gpu_memory": 0.42})
            engines[name].answer()
        for runs in asked.runs:
            for round_ in range(-1, asked.rounds):  # the first one warms up and does not count
                found = {}
                for variant in variants:
                    engine = engines["plain" if variant == PLAIN else "steersight"]
                    found[variant] = engine.ask(variant, runs, asked.tokens)
                    while sink.poll(0):
                        sink.recv_multipart()
                if round_ < 0:
                    continue
                for variant, speed in found.items():
                    speeds.setdefault((variant, runs), []).append(speed)
                    ratios.setdefault((variant, runs), []).append(speed / found[PLAIN])
            print(f"{runs} runs measured", file=sys.stderr, flush=True)
    finally:
        for engine in engines.values():
            engine.end()
    head = [f"{runs} run{'s' if runs > 1 else ''}" for runs in asked.runs]
    lines = [
        "| tokens/s, and share of plain vLLM | " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * len(head),
    ]
    for variant in variants:
        cells = []
        for runs in asked.runs:
            speed = statistics.median(speeds[variant, runs])
            share = statistics.median(ratios[variant, runs])
            cells.append(f"{speed:.1f}" if variant == PLAIN else f"{speed:.1f} ({share:.3f})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def described(asked: argparse.Namespace) -> str:
    """One line on what was measured where."""
    model = Path(asked.model).name
    return (
        f"{model} in {asked.dtype}, {asked.tokens} decoding steps, median of {asked.rounds} rounds, "
        f"{os.cpu_count()} cores of {_processor()}:"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(path: Path, text: str) -> None:
    """Put the table between the marks of a document."""
    before, start, rest = path.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not start or not end:
        raise SystemExit(f"{path} has no lines {MARKS[0]} and {MARKS[1]} to write between.")
    path.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{after}")


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    model = os.environ.get("STEERSIGHT_MODEL_DIR", "data/models/smollm2-135m-instruct")
    parser.add_argument("--model", default=model)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--graphs", action="store_true", help="CUDA graphs; plain vLLM runs as it likes best")
    parser.add_argument("--dummy", action="store_true", help="random weights, for a folder that has none")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(json.loads(asked.serve))
        gc.collect()
        return
    with tempfile.TemporaryDirectory() as folder:
        text = f"{described(asked)}\n\n{table(asked, folder)}"
    print(text)
    if asked.write:
        write(asked.write, text)


if __name__ == "__main__":
    main()
