"""The worker on a machine without CUDA: vLLM's CPU worker in the place of the GPU one.

A module of its own, because importing vLLM's CPU worker makes `torch.cuda.set_stream` do nothing
(vllm/v1/worker/cpu/shm.py, 0.26.0), which a CUDA engine with graphs does not survive.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from . import lora_cpu
from .nnsight_adapter import TracedGPUWorker
from .worker import ObservedRunner
from .worker_methods import WorkerMethods


class CPUObservedRunner(ObservedRunner, CPUModelRunner):  # type: ignore[misc]  # vLLM ships no types
    """The same over vLLM's CPU runner."""

    _waiting: dict[int, torch.Generator]
    """Generators of requests whose prompt is not read to its end, by their index in the batch."""

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        # Behind a piece of a prompt vLLM (0.32) draws a token, throws it away, and sets the generator of a
        # request with a seed back. Generators of a CPU cannot be set back: it raises, and the engine ends.
        # So they are not there while that token is drawn, and have not moved afterwards.
        generators = self.input_batch.generators
        pieces = self.discard_request_mask.np[: self.input_batch.num_reqs].nonzero()[0].tolist()
        self._waiting = {index: generators.pop(index) for index in pieces if index in generators}
        return super()._sample(*args, **kwargs)

    def _bookkeeping_sync(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._bookkeeping_sync(*args, **kwargs)
        finally:
            self.input_batch.generators.update(self._waiting)


class ObservedCPUWorker(WorkerMethods, TracedGPUWorker, CPUWorker):  # type: ignore[misc]
    """vLLM's CPU worker with an observer. NNsight 0.8.1 ships a GPU worker only; what traces call on a worker
    is in it."""

    RUNNER = CPUObservedRunner

    def init_device(self) -> None:
        # Not NNsight's own init_device: it refuses every runner but the GPU one.
        CPUWorker.init_device(self)
        lora_cpu.install()
        self.model_runner.__class__ = self.RUNNER

    def compile_or_warm_up_model(self) -> Any:
        times = super().compile_or_warm_up_model()
        self.model_runner.take_up_adapters()
        return times
