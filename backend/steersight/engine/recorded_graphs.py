"""The CUDA graphs of one worker: which of them read prompts, and the proof that they replay what they should.

vLLM records the graphs and picks one for each batch. A graph freezes what ran while it was recorded, the
observer's part with it (`graph.py`), and nothing else would tell that something is missing from it.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from vllm.config import CUDAGraphMode
from vllm.distributed.parallel_state import get_tp_group
from vllm.v1.attention.backend import AttentionCGSupport

from .layout import UnsupportedModelError
from .proof import prove_replays

logger = logging.getLogger(__name__)


class RecordedGraphs:
    """The graphs that a model runner replays."""

    def __init__(self, runner: Any) -> None:
        """
        Args:
            runner: an `ObservedRunner` with its observer.
        """
        self._runner = runner
        self._mixed_sizes: list[int] = []
        """Numbers of tokens for which there are graphs that take prompts too."""

    def add_mixed(self, attention_backends: list[set[Any]], kv_cache_groups: list[Any]) -> None:
        """Have graphs recorded that take prompts too, where the model's attention can be in one.

        vLLM (0.32) has full graphs for decoding or for everything; with its own for decoding, and these
        beside them, each batch gets the better one.

        Args:
            attention_backends: of each group, as vLLM names them once it has chosen.
            kv_cache_groups: of the model's layers.
        """
        runner = self._runner
        self._mixed_sizes = []
        if runner.cudagraph_dispatcher.cudagraph_mode is not CUDAGraphMode.FULL_DECODE_ONLY:
            return
        supports = {
            backend.get_builder_cls().get_cudagraph_support(runner.vllm_config, group.kv_cache_spec)
            for backends, group in zip(attention_backends, kv_cache_groups, strict=True)
            for backend in backends
        }
        if supports != {AttentionCGSupport.ALWAYS}:
            return  # this attention takes prompts eagerly only
        self._mixed_sizes = list(runner.compilation_config.cudagraph_capture_sizes)
        for graph in self._mixed_graphs():
            runner.cudagraph_dispatcher.add_cudagraph_key(CUDAGraphMode.FULL, graph)

    @torch.inference_mode()
    def prove(self) -> None:
        """Hold what the graphs replay against eager steps; nothing where there are none.

        Raises:
            UnsupportedModelError: where a decoding step differs.
        """
        runner = self._runner
        if runner.observer.graph is None:
            return
        runs = runner.scheduler_config.max_num_seqs
        sizes = [size for size in runner.compilation_config.cudagraph_capture_sizes if size <= runs]
        try:
            self._prove(sizes, decoding=True)
            self._keep_mixed_if_proved()
        except (UnsupportedModelError, torch.AcceleratorError):
            raise  # after an error of the device nothing on it can be trusted
        except Exception:
            # What could not be tried is no difference; the log says that nothing is proved.
            logger.warning("The recorded graphs could not be held against eager steps.", exc_info=True)

    def _keep_mixed_if_proved(self) -> None:
        """Graphs that read prompts save time and nothing else: where one differs, or cannot be tried, prompts
        are read eagerly.

        All ranks do the same, for each has its part in every operation of the others. So every rank votes,
        whatever has happened to it: the others would wait for its vote for ever.
        """
        if not self._mixed_sizes:
            return
        why = ""
        try:
            self._prove(self._mixed_sizes, decoding=False)
        except Exception as error:
            why = str(error) or type(error).__name__
        differs = torch.tensor([float(bool(why))], device=self._runner.device)
        if get_tp_group().all_reduce(differs).item():
            logger.warning("Prompts are read without CUDA graphs. %s", why or "Another rank's differ.")
            graphs = self._runner.cudagraph_dispatcher.cudagraph_keys[CUDAGraphMode.FULL]
            graphs.difference_update(self._mixed_graphs())
            self._mixed_sizes = []

    @property
    def _adapters(self) -> list[int]:
        """For how many LoRA adapters in one batch there are graphs of each size: where adapters are served,
        vLLM (0.32) records one without any and one for all of them, and else the first alone."""
        counts: list[int] = self._runner.cudagraph_dispatcher._get_lora_cases()
        return counts

    def _mixed_graphs(self) -> list[Any]:
        """vLLM's names of the graphs that take prompts too."""
        name = self._runner.cudagraph_dispatcher._create_padded_batch_descriptor
        return [name(size, False, count > 0, count) for size in self._mixed_sizes for count in self._adapters]

    def _prove(self, sizes: list[int], *, decoding: bool) -> None:
        runner = self._runner
        for count in self._adapters:

            def run(rows: int, replay: bool, count: int = count) -> None:
                mode = CUDAGraphMode.FULL if replay else CUDAGraphMode.NONE
                # With the adapters that are served: they have the numbers of those that vLLM would make up.
                with runner.as_proof():
                    runner._dummy_run(
                        rows, cudagraph_runtime_mode=mode, force_attention=True, uniform_decode=decoding,
                        skip_eplb=True, num_active_loras=count, remove_lora=False,
                    )  # fmt: skip
                # Each size leaves memory behind that fits no other: 10 GiB in all, for an 8B model.
                torch.cuda.empty_cache()

            prove_replays(runner.observer, sizes, run, runner.model_config.get_hidden_size())
