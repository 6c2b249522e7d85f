"""Steersight's side of the vLLM worker process: a model runner that carries an observer.

The observer hangs on the decoder layers. vLLM imports this module by name in the worker process;
`worker_methods.py` has what the server calls there, `recorded_graphs.py` what concerns CUDA graphs,
`nnsight_adapter.py` what NNsight asks of both classes, and `worker_cpu.py` what is special about a CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from vllm.config import CUDAGraphMode
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank, get_tp_group
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.layers.mamba.abstract import MambaBase
from vllm.v1.kv_cache_interface import FullAttentionSpec

from .. import live
from ..interventions import load_functions
from ..metrics import Experts, Registry
from ..metrics.own import load_own
from . import assumptions
from .bank import VectorBank
from .channel import RowSender, Stage
from .experts import ExpertRouters
from .functions import TokenReader
from .graph import GraphPass
from .layout import Layout, UnsupportedModelError, possible_layouts
from .ledger import BlockLedger
from .lora import take_up
from .nnsight_adapter import TracedGPUWorker, TracedRunner
from .observer import Observer
from .options import CONFIG_KEY
from .parts import PartsSearch
from .plan import Span
from .pool import VectorPool
from .proof import LayoutProof, ranks_agree
from .python_steps import PythonSteps
from .recorded_graphs import RecordedGraphs
from .submission import OPTIONS_KEY
from .tokenizer import tokenizer_for
from .worker_methods import WorkerMethods

logger = logging.getLogger(__name__)


class ObservedRunner(TracedRunner):
    """The model runner, telling the observer what each step holds."""

    observer: Observer
    graphs: RecordedGraphs
    python_steps: PythonSteps
    _read_group: int | None
    """Which group of the KV cache's layers the ledger watches."""
    first_rank: bool
    """Whether rows, and what blocks save, come from here."""
    proving = False
    """Whether a pass under way is a proof."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        options = self.vllm_config.additional_config[CONFIG_KEY]
        assumptions.check(
            self.vllm_config, graphs=bool(options.get("graphs")), channel=options["channel"],
            adapters=len(options.get("adapters", ())),
        )  # fmt: skip
        self.python_steps = PythonSteps(graphs=bool(options.get("graphs")))
        self.first_rank = first_rank = get_tensor_model_parallel_rank() == 0
        # Rows come from the first rank alone, news of a failure from any.
        sender = RowSender(options["channel"])
        if first_rank:
            sender.put(Stage("Loading the model's weights", 0.6))
        super().load_model(*args, **kwargs)
        model = self.get_model()
        layers = self.model_config.get_num_layers(self.parallel_config)
        layout = _proved(possible_layouts(model, layers, options["layout"]), model, self)
        if layout.attention is None and not options["layout"]:
            layout = _with_parts(layout, model, self)
        hidden_size = self.model_config.get_hidden_size()
        compilation = self.vllm_config.compilation_config
        functions = load_functions(options.get("interventions", ()), layers)
        bank = VectorBank(VectorPool(layers, hidden_size, self.device), functions)
        experts = Experts(*options["experts"]) if options.get("experts") else None
        routers = None if experts is None else ExpertRouters(layout.layers, experts)
        graph = None
        if options.get("graphs"):
            sizes = compilation.cudagraph_capture_sizes
            graph = GraphPass(layout, bank, max(sizes), hidden_size, self.device, routers)
        self.observer = Observer(
            layout,
            bank,
            self.device,
            sender,
            registry=Registry(options["vectors"], load_own(options["metrics"]), experts),
            hidden_size=hidden_size,
            max_tokens=self.scheduler_config.max_num_batched_tokens,
            max_runs=self.scheduler_config.max_num_seqs,
            dtype=self.model_config.dtype,
            graph=graph,
            routers=routers,
            publishes=first_rank,
            tokenizer=tokenizer_for(self.vllm_config),
            reader=TokenReader(lambda: self.input_ids.gpu, lambda: self.nnsight_model.tokenizer),
        )
        _attach(self.observer)
        if routers is not None:
            routers.watch(self.observer.routed)
        live.install(lambda *said: self.observer.emissions.emit(self.emitter(), *said))
        self.graphs = RecordedGraphs(self)
        if first_rank:
            sender.put(Stage("Reserving the KV cache and warming up", 0.8))

    def _check_and_update_cudagraph_mode(
        self, attention_backends: list[set[Any]], kv_cache_groups: list[Any], *args: Any, **kwargs: Any
    ) -> None:
        super()._check_and_update_cudagraph_mode(attention_backends, kv_cache_groups, *args, **kwargs)
        self.graphs.add_mixed(attention_backends, kv_cache_groups)

    def _prepare_padding_mask(self, real: int, padded: int) -> Any:
        """Of a pass that only tries, vLLM (0.32) calls all tokens padding, and lets experts leave their part
        of the stream as it lies in memory. What is proved has to be computed."""
        return super()._prepare_padding_mask(padded if self.proving else real, padded)

    @contextmanager
    def as_proof(self) -> Iterator[None]:
        """Passes in this context compute everything."""
        self.proving = True
        try:
            yield
        finally:
            self.proving = False

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
        # Blocks of Python that are new to the batch begin to run in here.
        self.observer.emissions.begin(scheduler_output.num_scheduled_tokens)
        result = super()._update_states(scheduler_output)
        observer = self.observer
        for request_id in scheduler_output.preempted_req_ids or ():
            observer.throw_away(request_id)
        observer.fail_edits(self.failed_edits(scheduler_output.preempted_req_ids or ()))
        for request_id in scheduler_output.finished_req_ids:
            observer.remove(request_id)
        for new in scheduler_output.scheduled_new_reqs:
            options = (new.sampling_params.extra_args or {}).get(OPTIONS_KEY) if new.sampling_params else None
            if options is not None:
                lora = new.lora_request
                observer.add(
                    new.req_id, options, "" if lora is None else lora.lora_name,
                    prompt_tokens=len(new.prompt_token_ids or ()),
                )  # fmt: skip
        scheduled = scheduler_output.num_scheduled_tokens
        # The batch's own order: the forward's tensors follow it, not the scheduler's.
        spans = [
            self._span(request_id, scheduled[request_id])
            for request_id in self.input_batch.req_ids
            if request_id in scheduled
        ]
        observer.begin(spans)
        self.python_steps.begin(
            possible=self.may_have_blocks(scheduled) or observer.may_call(spans),
            mine=lambda: self.blocks_at_work() or observer.calls(),
        )
        return result

    def runs_python(self) -> bool:
        """Whether somebody's Python takes part in the step under way, so that no graph may be replayed. The
        same on all ranks; never outside of a step."""
        return self.python_steps.now

    def _determine_batch_execution_and_padding(
        self,
        num_tokens: int,
        num_reqs: int,
        num_scheduled_tokens_np: Any,
        max_num_scheduled_tokens: int,
        use_cascade_attn: bool = False,
        allow_microbatching: bool = True,
        force_eager: bool = False,
        *more: Any,
        **named: Any,
    ) -> Any:
        """As vLLM (0.32) chooses a graph for a batch, or none."""
        return super()._determine_batch_execution_and_padding(
            num_tokens, num_reqs, num_scheduled_tokens_np, max_num_scheduled_tokens, use_cascade_attn,
            allow_microbatching, force_eager or self.runs_python(), *more, **named,
        )  # fmt: skip

    def _span(self, request_id: str, count: int) -> Span:
        request = self.requests[request_id]
        start = request.num_computed_tokens
        # As vLLM decides which of the sampled tokens it throws away.
        samples = start + count >= request.num_tokens
        group = self._read_group
        return Span(request_id, start, count, samples, () if group is None else request.block_ids[group])

    def take_up_adapters(self) -> None:
        """Read the LoRA adapters that the engine was started with. Raises AdapterError."""
        take_up(self, self.vllm_config.additional_config[CONFIG_KEY].get("adapters", ()))

    def execute_model(self, *args: Any, **kwargs: Any) -> Any:
        try:
            output = super().execute_model(*args, **kwargs)
        finally:
            self.python_steps.end()
        self.observer.forwarded()
        return output

    def _sample(self, logits: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self.observer.final(logits)
        output = super()._sample(logits, *args, **kwargs)
        # Before the step's tokens: nobody is shown any more of what an edit has left half done.
        self.observer.fail_edits(self.failed_edits())
        self.observer.sampled(output.sampled_token_ids)
        return output


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


def _proved(layouts: list[Layout], model: torch.nn.Module, runner: Any) -> Layout:
    """The first of these layouts that holds. Raises UnsupportedModelError where none does, and says why the
    likeliest one does not."""
    why: UnsupportedModelError | None = None
    for layout in layouts:
        try:
            _prove(layout, model, runner)
        except UnsupportedModelError as error:
            why = why or error
        else:
            return layout
    assert why is not None  # noqa: S101 - there is one layout at least
    raise why


def _prove(layout: Layout, model: torch.nn.Module, runner: Any) -> None:
    """Run some tokens through the model, and hold the layout and the ranks' streams against what it does."""
    kernels = [module for module in model.modules() if isinstance(module, AttentionLayerBase)]
    proof = LayoutProof(layout, model, kernels)
    try:
        with runner.as_proof():
            runner._dummy_run(8, cudagraph_runtime_mode=CUDAGraphMode.NONE, skip_eplb=True)
    except BaseException:
        proof.remove()  # what went wrong is not the layout
        raise
    proof.conclude()
    ranks = get_tp_group()
    if ranks.world_size > 1:
        # In fp32: between processes of some processors vLLM (0.32.0) gathers nothing wider.
        mine = torch.stack(proof.prints).float()
        ranks_agree(ranks.all_gather(mine[None], dim=0), runner.model_config.dtype)


def _with_parts(layout: Layout, model: torch.nn.Module, runner: Any) -> Layout:
    """The layout with attention's part, where a pass shows which module's output that is."""
    kernels = [module for module in model.modules() if isinstance(module, AttentionLayerBase)]
    if any(isinstance(kernel, MambaBase) for kernel in kernels) or len(kernels) != layout.count:
        return layout  # what a layer of another kind adds is no attention's
    search = PartsSearch(layout, kernels)
    try:
        with runner.as_proof():
            runner._dummy_run(8, cudagraph_runtime_mode=CUDAGraphMode.NONE, skip_eplb=True)
        name = search.found(runner.model_config.dtype)
    except torch.AcceleratorError:
        raise  # after an error of the device nothing on it can be trusted
    except Exception:
        logger.warning("What attention adds could not be looked for.", exc_info=True)
        name = None
    finally:
        search.remove()
    # Each rank for itself: rows come from the first one, and nothing is pushed there.
    if name is None:
        return layout
    return replace(layout, attention=[getattr(layer, name) for layer in layout.layers], compared=False)


class ObservedGPUWorker(WorkerMethods, TracedGPUWorker):
    """vLLM's GPU worker with an observer."""

    RUNNER = ObservedRunner

    def compile_or_warm_up_model(self) -> Any:
        times = super().compile_or_warm_up_model()
        self.model_runner.take_up_adapters()  # before the proof, which tries them
        self.model_runner.graphs.prove()
        return times
