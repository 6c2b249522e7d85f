"""NNsight's `VLLM` with Steersight's workers: the one place that says which of NNsight's behaviour is whose.

Imported in the loading thread only: importing vLLM takes some 8 seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnsight.modeling.vllm import VLLM
from vllm.model_executor.model_loader import base_loader
from vllm.platforms import current_platform

from .worker import CONFIG_KEY


class SteersightVLLM(VLLM):  # type: ignore[misc]  # nnsight ships no types
    """NNsight's async engine with the observer in its workers, on CUDA and on CPU."""

    _WORKER_CLS = "steersight.engine." + (
        "worker_cpu.ObservedCPUWorker" if current_platform.is_cpu() else "worker.ObservedGPUWorker"
    )

    def _load_meta(self, repo_id: str, **kwargs: Any) -> Any:
        if current_platform.is_cpu():
            # vLLM 0.32.0's CPU runner does this for itself; NNsight 0.8.1 builds its meta tree before that.
            from vllm.v1.worker.cpu_model_runner import _set_torch_accelerator_to_noop

            _set_torch_accelerator_to_noop()
            # vLLM 0.32.0 packs a mixture of experts for its CPU kernel once the weights are loaded, with an
            # operator that meta tensors do not have. NNsight's tree is read for its structure only.
            with _weights_left_as_they_are():
                return super()._load_meta(repo_id, **kwargs)
        return super()._load_meta(repo_id, **kwargs)

    def _load_async(self, repo_id: str, **kwargs: Any) -> Any:
        if not _graphs(kwargs):
            return super()._load_async(repo_id, **kwargs)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(model=repo_id, worker_cls=self._WORKER_CLS, **_with_graphs(kwargs))
        )

    def _load_sync(self, repo_id: str, **kwargs: Any) -> Any:
        if not _graphs(kwargs):
            return super()._load_sync(repo_id, **kwargs)
        from nnsight.modeling.vllm.engines.engine import NNsightLLMEngine
        from vllm import LLM

        engine = LLM(repo_id, worker_cls=self._WORKER_CLS, **_with_graphs(kwargs))
        engine.llm_engine.__class__ = NNsightLLMEngine
        return engine


@contextmanager
def _weights_left_as_they_are() -> Iterator[None]:
    packs = base_loader.process_weights_after_loading
    base_loader.process_weights_after_loading = lambda *_args, **_more: None
    try:
        yield
    finally:
        base_loader.process_weights_after_loading = packs


def _graphs(kwargs: dict[str, Any]) -> bool:
    return bool(kwargs["additional_config"][CONFIG_KEY].get("graphs"))


def _with_graphs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The engine's settings with decoding in full CUDA graphs.

    NNsight 0.8.1 runs eagerly unless it has taps, and with them breaks each graph at every layer. What the
    observer does needs no breaks: it is recorded. Without vLLM's compiler (mode 0), because it would trace
    through the hooks. The sizes are vLLM's own; `ObservedRunner` adds the graphs that can read prompts, and
    longer prompts are read eagerly, where the hooks are called.
    """
    runs = kwargs["max_num_seqs"]
    most = max(runs, kwargs["additional_config"][CONFIG_KEY].get("graph_tokens", runs))
    sizes = sorted(
        {size for size in (1, 2, 4, *range(8, 257, 8), *range(272, most, 16)) if size <= most} | {runs, most}
    )
    compilation = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": sizes}
    return {**kwargs, "enforce_eager": False, "compilation_config": compilation}
