"""Serves checkpoints one after the other in this process and writes down what the observer saw of each.

    python -m tests.family_engine

A line of standard input is a job: JSON with {model, out, vectors: file or null, vector_names, actions,
prompts, tokens, metrics, lens_stride, tensor_parallel, experts}, for functions that steer {functions:
files}, for code in every run that emits at some layers {emits: layers}, for LoRA adapters {adapters: name
and folder of each, with_adapters: per prompt the name of its own or ""}. A line of standard output answers
it: JSON with {failure: null, or what was raised}. One process for all, because importing vLLM takes longer
than loading such a model. The engine is the server's own worker and lens, driven without the server.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def send_vectors(engine: Any, data: bytes, names: list[str]) -> None:
    """Give the engine vectors out of one safetensors file, whose tensors are named `<vector>/<layer>`."""
    import torch
    from safetensors.torch import load

    from steersight.engine.arrivals import described, pieces
    from steersight.vectors.store import SteeringVector

    tensors = load(data)
    for name in names:
        layers = sorted(int(key.rpartition("/")[2]) for key in tensors if key.startswith(f"{name}/"))
        rows = torch.stack([tensors[f"{name}/{layer}"] for layer in layers])
        vector = SteeringVector(
            id=name, label=name, description="", layers=layers, directions=rows, range=(-1.0, 1.0),
            suggested=0.3, model="any", hidden_size=rows.shape[1],
        )  # fmt: skip
        for piece in pieces(vector):
            engine.collective_rpc("steersight_vector_piece", args=(name, piece))
        engine.collective_rpc("steersight_prepare_vector", args=(name, described(vector)))
        engine.collective_rpc("steersight_add_vector", args=(name,))


class Unsent:
    """Takes a trace's block as NNsight would send it with a request, and sends nothing."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.block = b""

    def __call__(self, tracer: Any) -> None:
        try:
            _, (_, params, _), settings = tracer.prepare(tracer.info.code)
            self.model._attach_mediators(params, **settings)
            self.block = params[0].extra_args["nnsight_mediator"]
        finally:
            self.model.interleaver.cancel()


def emitting(model: Any, layers: list[int]) -> bytes:
    """A block that emits the length of the stream behind these layers, for each token of a pass."""
    from steersight import live

    unsent = Unsent(model)
    with model.trace("x", backend=unsent) as tracer:
        for _ in tracer.iter[:]:
            for layer in layers:
                hidden, residual = model.model.layers[layer].output
                live.emit("length", layer, (hidden + residual).norm(dim=-1))
    return unsent.block


def serve(job: dict[str, Any]) -> None:
    """Run one job; its result is an .npz per prompt."""
    import numpy as np
    import zmq
    from vllm import SamplingParams

    from steersight.adapters import read_adapter
    from steersight.engine.channel import unpack
    from steersight.engine.lora import engine_arguments, lora_request, told
    from steersight.engine.nnsight_adapter import SteersightVLLM
    from steersight.engine.reply import entries
    from steersight.engine.step import Step

    from .taken import Taken

    folder = tempfile.TemporaryDirectory()
    address = f"ipc://{folder.name}/rows"
    socket = zmq.Context.instance().socket(zmq.PULL)
    socket.bind(address)
    adapters = [read_adapter(name, Path(path)) for name, path in job.get("adapters", [])]
    names = job.get("with_adapters") or [""] * len(job["prompts"])
    model = SteersightVLLM(
        job["model"], mode="sync", dispatch=True, dtype=job.get("dtype", "float32"), max_model_len=256,
        max_num_seqs=8, tensor_parallel_size=job.get("tensor_parallel", 1),
        additional_config={
            "steersight": {
                "channel": address, "layout": job.get("layout", ""), "metrics": job.get("files", []),
                "interventions": job.get("functions", []),
                "graphs": job.get("graphs", False), "graph_tokens": job.get("graph_tokens", 8),
                "experts": job.get("experts"),
                "vectors": [(name, name) for name in job.get("vector_names", [])],
                "adapters": told(adapters),
            }
        },
        **engine_arguments(adapters), **job.get("engine", {}),
    )  # fmt: skip
    engine = model.vllm_entrypoint
    if job.get("vectors"):
        send_vectors(engine, Path(job["vectors"]).read_bytes(), job["vector_names"])
    block = {"nnsight_mediator": emitting(model, job["emits"])} if job.get("emits") else {}
    parameters = []
    for index, actions in enumerate(job["actions"]):
        options = {
            "run": str(index), "actions": actions, "first_row": 0, "metrics": job["metrics"],
            "entropy": True, "lens_stride": job["lens_stride"], "lens_top": 5, "alternatives": 7,
            "adapter": names[index],
        }  # fmt: skip
        parameters.append(
            SamplingParams(
                temperature=0.0, max_tokens=job["tokens"], ignore_eos=True,
                extra_args={"steersight": options, **block},
            )
        )  # fmt: skip
    done = engine.generate(
        [{"prompt_token_ids": ids} for ids in job["prompts"]], parameters, use_tqdm=False,
        lora_request=[lora_request(told(adapters), name) for name in names],
    )  # fmt: skip
    taken = {str(index): Taken() for index in range(len(parameters))}
    wanted = sum(len(ids) + job["tokens"] - 1 for ids in job["prompts"])
    while sum(len(one.positions) for one in taken.values()) < wanted:
        if not socket.poll(10_000):
            raise TimeoutError(f"{job['model']}: rows are missing.")
        message = unpack(socket.recv_multipart())
        for run, entry in entries(message) if isinstance(message, Step) else []:
            taken[run].take(entry)
    for index, output in enumerate(done):
        mine = taken[str(index)]
        assert mine.tokens == list(output.outputs[0].token_ids)
        metrics = mine.numbers()[0][0].metrics
        tops = mine.guesses()
        likely = mine.alternatives()
        np.savez(
            f"{job['out']}-{index}.npz",
            reply=np.array(output.outputs[0].token_ids),
            logprobs=np.array([entry.logprob for entry in mine.entries]),
            ranks=np.array([entry.rank for entry in mine.entries]),
            values=mine.values(metrics),
            metrics=np.array(metrics),
            entropy=mine.entropy(),
            alternative_positions=np.array(likely[0]),
            alternative_ids=likely[1],
            alternative_logprobs=likely[2],
            lens_layers=np.array(tops[0][1].layers),
            lens_positions=np.array([position for position, _, _ in tops]),
            top_ids=np.stack([guesses.ids[at] for _, guesses, at in tops]),
            top_probabilities=np.stack([guesses.probabilities[at] for _, guesses, at in tops]),
            **({"emitted": mine.emitted(job["emits"])} if job.get("emits") else {}),
        )  # fmt: skip
    shutdown = getattr(engine.llm_engine.engine_core, "shutdown", None)
    model.vllm_entrypoint = None
    del engine, model
    if shutdown is not None:
        shutdown()
    gc.collect()
    socket.close(linger=0)


def main() -> None:
    """Run each job as it comes; one that fails is answered with its failure, and the next can go on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    for line in sys.stdin:
        failure = None
        try:
            serve(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            failure = f"{type(error).__name__}: {error}"
        # The next model may need process groups that this one did not.
        gc.collect()
        cleanup_dist_env_and_memory()
        print(json.dumps({"failure": failure}), file=answers, flush=True)


if __name__ == "__main__":
    main()
