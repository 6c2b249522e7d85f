"""Steersight's side of the vLLM worker process; `worker_cpu.py` has what is special about a CPU.

NNsight 0.8.1 puts its interventions into vLLM's GPU worker by re-classing the model runner once the worker
has built it. The classes here do the same one step further: a runner that carries an observer. It hangs on
the decoder layers, beside NNsight's own handoff, so ordinary NNsight traces go on working.

vLLM imports this module by name in the worker process.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any

import torch
from nnsight.intervention.source import Controller
from nnsight.modeling.vllm.model_runners.GPUModelRunner import NNsightGPUModelRunner
from nnsight.modeling.vllm.workers.GPUWorker import NNsightGPUWorker
from vllm.config import CUDAGraphMode
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank, get_tp_group
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.kv_cache_interface import FullAttentionSpec

from ..metrics import Registry
from ..metrics.own import load_own
from ..vectors.action import Action
from ..vectors.store import VectorError
from . import assumptions
from .bank import VectorBank
from .channel import RowSender, Stage
from .errors import ERROR
from .graph import GraphPass
from .layout import Layout, UnsupportedModelError, find_layout
from .ledger import BlockLedger
from .observer import Observer
from .plan import Span
from .pool import VectorPool
from .proof import LayoutProof, prove_replays, ranks_agree
from .submission import OPTIONS_KEY

logger = logging.getLogger(__name__)

ATTENTION_REFUSED = (
    "It acts on what attention adds, which this engine cannot change: it decodes in CUDA graphs "
    "(--engine-mode eager would do), or the model's attention is no part that is simply added."
)
CONFIG_KEY = "steersight"
"""Under this key of `additional_config` the worker finds what it has to know."""


class ObservedRunner(NNsightGPUModelRunner):  # type: ignore[misc]  # nnsight ships no types
    """NNsight's model runner, telling the observer what each step holds."""

    observer: Observer
    _mixed_sizes: list[int]
    """Numbers of tokens for which there are graphs that take prompts too."""
    _read_group: int | None
    """Which group of the KV cache's layers the ledger watches."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        options = self.vllm_config.additional_config[CONFIG_KEY]
        assumptions.check(self.vllm_config, graphs=bool(options.get("graphs")), channel=options["channel"])
        first_rank = get_tensor_model_parallel_rank() == 0
        # Rows come from the first rank alone, news of a failure from any.
        sender = RowSender(options["channel"])
        if first_rank:
            sender.put(Stage("Loading the model's weights", 0.6))
        super().load_model(*args, **kwargs)
        model = self.get_model()
        layers = self.model_config.get_num_layers(self.parallel_config)
        layout = find_layout(model, layers, options["layout"])
        hidden_size = self.model_config.get_hidden_size()
        compilation = self.vllm_config.compilation_config
        bank = VectorBank(VectorPool(layers, hidden_size, self.device))
        graph = None
        if options.get("graphs"):
            sizes = compilation.cudagraph_capture_sizes
            graph = GraphPass(layout, bank, max(sizes), hidden_size, self.device)
        self.observer = Observer(
            layout,
            bank,
            self.device,
            sender,
            registry=Registry(options["vectors"], load_own(options["metrics"])),
            hidden_size=hidden_size,
            max_tokens=self.scheduler_config.max_num_batched_tokens,
            max_runs=self.scheduler_config.max_num_seqs,
            dtype=self.model_config.dtype,
            graph=graph,
            publishes=first_rank,
        )
        _prove(self.observer.layout, model, self)
        _attach(self.observer)
        self._handoff = Handoff(model)
        if first_rank:
            sender.put(Stage("Reserving the KV cache and warming up", 0.8))

    def _check_and_update_cudagraph_mode(
        self, attention_backends: list[set[Any]], kv_cache_groups: list[Any], *args: Any, **kwargs: Any
    ) -> None:
        super()._check_and_update_cudagraph_mode(attention_backends, kv_cache_groups, *args, **kwargs)
        dispatcher = self.cudagraph_dispatcher
        self._mixed_sizes = []
        if dispatcher.cudagraph_mode is not CUDAGraphMode.FULL_DECODE_ONLY:
            return
        supports = {
            backend.get_builder_cls().get_cudagraph_support(self.vllm_config, group.kv_cache_spec)
            for backends, group in zip(attention_backends, kv_cache_groups, strict=True)
            for backend in backends
        }
        if supports != {AttentionCGSupport.ALWAYS}:
            return  # this attention takes prompts eagerly only
        # vLLM (0.32) has full graphs for decoding or for everything; with its own for decoding, and these
        # beside them, each batch gets the better one.
        self._mixed_sizes = list(self.compilation_config.cudagraph_capture_sizes)
        for size in self._mixed_sizes:
            dispatcher.add_cudagraph_key(CUDAGraphMode.FULL, self._mixed_graph(size))

    def _mixed_graph(self, size: int) -> Any:
        """vLLM's name of the graph that takes so many tokens, prompts among them."""
        return self.cudagraph_dispatcher._create_padded_batch_descriptor(size, False, False)

    def _keep_mixed_graphs_if_proved(self) -> None:
        """Graphs that read prompts save time and nothing else: where one differs, or cannot be tried, prompts
        are read eagerly.

        All ranks do the same, for each has its part in every operation of the others. So every rank votes,
        whatever has happened to it: the others would wait for its vote for ever.
        """
        if not self._mixed_sizes:
            return
        why = ""
        try:
            self._prove_graphs(self._mixed_sizes, decoding=False)
        except Exception as error:
            why = str(error) or type(error).__name__
        differs = torch.tensor([float(bool(why))], device=self.device)
        if get_tp_group().all_reduce(differs).item():
            logger.warning("Prompts are read without CUDA graphs. %s", why or "Another rank's differ.")
            graphs = self.cudagraph_dispatcher.cudagraph_keys[CUDAGraphMode.FULL]
            graphs.difference_update(map(self._mixed_graph, self._mixed_sizes))
            self._mixed_sizes = []

    @torch.inference_mode()
    def prove_graphs(self) -> None:
        """Hold what the recorded graphs replay against eager steps; nothing where there are none."""
        if self.observer.graph is None:
            return
        runs = self.scheduler_config.max_num_seqs
        sizes = [size for size in self.compilation_config.cudagraph_capture_sizes if size <= runs]
        try:
            self._prove_graphs(sizes, decoding=True)
            self._keep_mixed_graphs_if_proved()
        except UnsupportedModelError:
            raise
        except Exception:
            # What could not be tried is no difference; the log says that nothing is proved.
            logger.warning("The recorded graphs could not be held against eager steps.", exc_info=True)

    def _prove_graphs(self, sizes: list[int], *, decoding: bool) -> None:
        def run(rows: int, replay: bool) -> None:
            mode = CUDAGraphMode.FULL if replay else CUDAGraphMode.NONE
            self._dummy_run(
                rows, cudagraph_runtime_mode=mode, force_attention=True, uniform_decode=decoding,
                skip_eplb=True,
            )  # fmt: skip

        prove_replays(self.observer, sizes, run, self.model_config.get_hidden_size())

    def initialize_kv_cache(self, kv_cache_config: Any, *args: Any, **kwargs: Any) -> None:
        super().initialize_kv_cache(kv_cache_config, *args, **kwargs)
        self._read_group = None
        if not self.vllm_config.cache_config.enable_prefix_caching:
            return
        for index, group in enumerate(kv_cache_config.kv_cache_groups):
            # Of a window's layers some blocks are gone; where all layers have a window, nothing is checked.
            if isinstance(group.kv_cache_spec, FullAttentionSpec):
                self._read_group = index
                self.observer.ledger = BlockLedger(group.kv_cache_spec.block_size)
                return

    def _update_states(self, scheduler_output: Any) -> Any:
        result = super()._update_states(scheduler_output)
        self._handoff.switch(bool(self.nnsight_model.interleaver.mediators))
        observer = self.observer
        for request_id in scheduler_output.preempted_req_ids or ():
            observer.throw_away(request_id)
        for request_id in scheduler_output.finished_req_ids:
            observer.remove(request_id)
        for new in scheduler_output.scheduled_new_reqs:
            options = (new.sampling_params.extra_args or {}).get(OPTIONS_KEY) if new.sampling_params else None
            if options is not None:
                observer.add(new.req_id, options)
        scheduled = scheduler_output.num_scheduled_tokens
        # The batch's own order: the forward's tensors follow it, not the scheduler's.
        observer.begin(
            [
                self._span(request_id, scheduled[request_id])
                for request_id in self.input_batch.req_ids
                if request_id in scheduled
            ]
        )
        return result

    def _span(self, request_id: str, count: int) -> Span:
        request = self.requests[request_id]
        start = request.num_computed_tokens
        # As vLLM decides which of the sampled tokens it throws away.
        samples = start + count >= request.num_tokens
        group = self._read_group
        return Span(request_id, start, count, samples, () if group is None else request.block_ids[group])

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        output = super().execute_model(*args, **kwargs)
        self.observer.forwarded()
        return output

    def _sample(self, logits: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.observer.final(logits)
        output = super()._sample(logits, *args, **kwargs)
        self.observer.sampled(output.sampled_token_ids)
        return output


class Handoff:
    """NNsight's handoff at every module, taken off in steps that no NNsight block takes part in.

    NNsight 0.8.1 replaces each module's `forward` by a controller for good. Where nobody waits it only passes
    the call on, but some 300 times in a step, which a small model feels.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        # A module that had a `forward` of its own before NNsight came keeps the controller that now holds it.
        self._controllers = [
            (vars(module), controller)
            for module in model.modules()
            if isinstance(controller := vars(module).get("forward"), Controller)
            and controller.state.body is type(module).forward
        ]
        self._on = True

    def switch(self, on: bool) -> None:
        """Put the controllers in their place or take them out of it; between two forward passes."""
        if on == self._on:
            return
        self._on = on
        for attributes, controller in self._controllers:
            if on:
                attributes["forward"] = controller
            else:
                del attributes["forward"]


def _attach(observer: Observer) -> None:
    """Hang the observer on the layers.

    On torch's own hooks and not on NNsight's interleaver: the interleaver hands off at every module of the
    tree as soon as it is busy (three calls per module, some 300 modules here), the hooks at the layers only.
    They run after NNsight's handoff, so a block's edit is seen and steered like anything else.
    """
    layers = observer.layout.layers

    def enter(_module: Any, args: Any, kwargs: Any) -> None:
        observer.enter(args, kwargs)

    layers[0].register_forward_pre_hook(enter, with_kwargs=True)
    for index, module in enumerate(observer.layout.attention or []):
        module.register_forward_hook(
            lambda _module, _args, output, index=index: observer.attention(index, output)
        )
    for index, layer in enumerate(layers):
        layer.register_forward_hook(lambda _module, _args, output, index=index: observer.layer(index, output))


def _prove(layout: Layout, model: torch.nn.Module, runner: Any) -> None:
    """Run some tokens through the model, and hold the layout and the ranks' streams against what it does."""
    kernels = [module for module in model.modules() if isinstance(module, AttentionLayerBase)]
    proof = LayoutProof(layout, model, kernels)
    try:
        runner._dummy_run(8, cudagraph_runtime_mode=CUDAGraphMode.NONE, skip_eplb=True)
    finally:
        proof.conclude()
    ranks = get_tp_group()
    if ranks.world_size > 1:
        mine = torch.stack(proof.prints)
        ranks_agree(ranks.all_gather(mine[None], dim=0), runner.model_config.dtype)


def answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let a method that raises answer with its error instead, as {ERROR: sentence}.

    With several ranks vLLM (0.32) stops reading answers at the first that is an exception. The others stay in
    their queues and are taken for the answers to the next call, for good.
    """

    @functools.wraps(method)
    def answer(*args: Any) -> Any:
        try:
            return method(*args)
        except Exception as error:
            logger.exception("%s failed", method.__name__)
            return {ERROR: f"{type(error).__name__}: {error}"}

    return answer


class WorkerMethods:
    """What the server calls on every worker through `collective_rpc`."""

    model_runner: ObservedRunner

    @answering
    def steersight_process(self) -> int:
        """Id of this process."""
        return os.getpid()

    @answering
    def steersight_steer(self, run: str, rev: int, actions: list[dict[str, Any]]) -> int | None:
        """Change what acts on a run between two steps; see Observer.steer."""
        return self.model_runner.observer.steer(run, rev, tuple(map(Action.from_map, actions)))

    @answering
    def steersight_vector_piece(self, name: str, piece: bytes) -> None:
        """Take the next piece of a vector that is to come; see `arrivals.pieces`."""
        self.model_runner.observer.arrivals.take(name, piece)

    @answering
    def steersight_prepare_vector(self, name: str, fact: dict[str, Any]) -> str:
        """Make a vector of its pieces, which does not act yet; `fact` is what `arrivals.described` gives.

        Returns why this engine cannot use it, in sentences; "" where it can.
        """
        observer = self.model_runner.observer
        if fact["site"] == "attention" and (observer.graph is not None or observer.layout.attention is None):
            # A replayed graph does not push at attention, and without a place there is nothing to push at.
            return ATTENTION_REFUSED
        try:
            observer.arrivals.complete(name, fact)
        except VectorError as no_room:
            return str(no_room)
        return ""

    @answering
    def steersight_add_vector(self, name: str) -> None:
        """Steer with a vector that all ranks have prepared, from the next step on."""
        observer = self.model_runner.observer
        observer.add_vector(name, observer.arrivals.pop(name))

    @answering
    def steersight_remove_vector(self, name: str) -> None:
        """Steer with a vector no more, or drop what has come of it; see Observer.remove_vector."""
        observer = self.model_runner.observer
        observer.arrivals.drop(name)
        observer.remove_vector(name)

    @answering
    def steersight_stream_sums(self, run: str, end: int) -> tuple[bytes, int]:
        """A run's sums over its positions before `end`, forgotten here.

        Returns safetensors with `total`, and over how many tokens it is.
        """
        from safetensors.torch import save

        found = self.model_runner.observer.stream_sums.fetch(run, end)
        if found is None:
            return save({}), 0
        return save({"total": found.total.cpu()}), found.tokens

    @answering
    def steersight_load(self) -> dict[str, int]:
        """What this worker still holds, for the gauges that must return to zero."""
        runner = self.model_runner
        return {
            "vllm": len(runner.requests),
            "nnsight": runner.nnsight_request_count(),
            "observer": len(runner.observer.runs) + len(runner.observer.stream_sums),
            "dropped": runner.observer.sender.dropped if runner.observer.sender else 0,
        }


class ObservedGPUWorker(WorkerMethods, NNsightGPUWorker):  # type: ignore[misc]
    """vLLM's GPU worker with an observer."""

    def init_device(self) -> None:
        super().init_device()
        self.model_runner.__class__ = ObservedRunner

    def compile_or_warm_up_model(self) -> Any:
        times = super().compile_or_warm_up_model()
        self.model_runner.prove_graphs()
        return times
