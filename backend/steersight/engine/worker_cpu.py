"""The worker on a machine without CUDA: vLLM's CPU worker in the place of the GPU one.

A module of its own, because importing vLLM's CPU worker makes `torch.cuda.set_stream` do nothing
(vllm/v1/worker/cpu/shm.py, 0.26.0), which a CUDA engine with graphs does not survive.
"""

from __future__ import annotations

from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

from .nnsight_adapter import TracedGPUWorker
from .worker import ObservedRunner
from .worker_methods import WorkerMethods


class CPUObservedRunner(ObservedRunner, CPUModelRunner):  # type: ignore[misc]  # vLLM ships no types
    """The same over vLLM's CPU runner."""


class ObservedCPUWorker(WorkerMethods, TracedGPUWorker, CPUWorker):  # type: ignore[misc]
    """vLLM's CPU worker with an observer. NNsight 0.8.1 ships a GPU worker only; what traces call on a worker
    is in it."""

    RUNNER = CPUObservedRunner

    def init_device(self) -> None:
        # Not NNsight's own init_device: it refuses every runner but the GPU one.
        CPUWorker.init_device(self)
        self.model_runner.__class__ = self.RUNNER
