"""All that is here only because of how NNsight (0.8.1) behaves; each part says for which behaviour.

NNsight owns the engine: it builds vLLM, with workers whose model runner it has given a class of its own. The
observer comes on top of that, and ordinary NNsight traces go on working. The rest of the package deals with
vLLM alone, and no other module imports NNsight, which is to be imported in the order below. A new version of
it is to be read against this file.

Imported in the loading thread and in the workers only: importing vLLM takes some 8 seconds.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from greenlet import getcurrent
from nnsight.intervention.errors import capture_exception
from nnsight.intervention.interleaver import Mediator
from nnsight.intervention.serialization import loads
from nnsight.intervention.source import Controller
from nnsight.modeling.vllm import VLLM
from nnsight.modeling.vllm.model_runners.GPUModelRunner import NNsightGPUModelRunner
from nnsight.modeling.vllm.workers.GPUWorker import NNsightGPUWorker
from nnsight.tracing.tracer import _saves
from vllm.model_executor.model_loader import base_loader
from vllm.platforms import current_platform

from .emissions import Emitter
from .options import CONFIG_KEY
from .submission import OPTIONS_KEY
from .tracing.asked import deferred
from .tracing.edited import Edited, FailedEdits
from .tracing.guard import BOUNDS, Clock, Guard
from .tracing.mediators import GuardedRequests, contained, packed


class SteersightVLLM(VLLM):  # type: ignore[misc]  # nnsight ships no types
    """NNsight's engine with the observer in its workers, on CUDA and on CPU."""

    # NNsight names its GPU worker here, and hands the name to vLLM, whose processes import it.
    _WORKER_CLS = "steersight.engine." + (
        "worker_cpu.ObservedCPUWorker" if current_platform.is_cpu() else "worker.ObservedGPUWorker"
    )

    def _load_meta(self, repo_id: str, **kwargs: Any) -> Any:
        """NNsight builds the model's module tree without weights in this process, before the engine.

        It does so with vLLM's own loader, which is not ready for that.
        """
        with _meta_tree():
            return super()._load_meta(repo_id, **kwargs)

    def _load_async(self, repo_id: str, **kwargs: Any) -> Any:
        """NNsight runs eagerly unless it has taps, and with them breaks each graph at every layer."""
        if not _graphs(kwargs):
            return super()._load_async(repo_id, **kwargs)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        return AsyncLLM.from_engine_args(
            AsyncEngineArgs(model=repo_id, worker_cls=self._WORKER_CLS, **_with_graphs(kwargs))
        )

    def _load_sync(self, repo_id: str, **kwargs: Any) -> Any:
        """The same for an engine that is not asynchronous, whose step collects what traces have saved."""
        if not _graphs(kwargs):
            return super()._load_sync(repo_id, **kwargs)
        from nnsight.modeling.vllm.engines.engine import NNsightLLMEngine
        from vllm import LLM

        engine = LLM(repo_id, worker_cls=self._WORKER_CLS, **_with_graphs(kwargs))
        engine.llm_engine.__class__ = NNsightLLMEngine
        return engine


def module_tree(model: str, **options: Any) -> VLLM:
    """NNsight's model without weights and without an engine, to write traces against that a server runs.

    Of NNsight's own class: a trace carries the class's name, and every server of its protocol knows that one.

    Args:
        model: folder of its configuration and tokenizer, or a name that the hub knows.
        options: of vLLM.
    """
    with _meta_tree():
        return VLLM(model, **options)


@contextmanager
def _meta_tree() -> Iterator[None]:
    """NNsight 0.8.1 builds the tree with vLLM's loader, which on a CPU is not ready for that."""
    if current_platform.is_cpu():
        # vLLM 0.32.0's CPU runner does this for itself, later.
        from vllm.v1.worker.cpu_model_runner import _set_torch_accelerator_to_noop

        _set_torch_accelerator_to_noop()
    with _weights_left_as_they_are():
        yield


@contextmanager
def _weights_left_as_they_are() -> Iterator[None]:
    """What vLLM 0.32.0 does once the weights are loaded is left out: the tree is read for its structure.

    On a CPU it packs a mixture of experts with an operator that meta tensors do not have. Anywhere it copies
    the head to compare it with the embeddings, where a checkpoint has both and its configuration says that
    they are one; and it quantises what is to be quantised as it is loaded.
    """
    later = ("process_weights_after_loading", "finalize_layerwise_processing")
    before = {name: getattr(base_loader, name) for name in later}
    for name in later:
        setattr(base_loader, name, lambda *_args, **_more: None)
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(base_loader, name, function)


def _graphs(kwargs: dict[str, Any]) -> bool:
    return bool(kwargs["additional_config"][CONFIG_KEY].get("graphs"))


def _with_graphs(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The engine's settings with decoding in full CUDA graphs.

    What the observer does needs no breaks: it is recorded. Without vLLM's compiler (mode 0), because it would
    trace through the hooks. The sizes are vLLM's own; `recorded_graphs.py` adds the graphs that can read
    prompts, and longer prompts are read eagerly, where the hooks are called.
    """
    runs = kwargs["max_num_seqs"]
    most = max(runs, kwargs["additional_config"][CONFIG_KEY].get("graph_tokens", runs))
    sizes = sorted(
        {size for size in (1, 2, 4, *range(8, 257, 8), *range(272, most, 16)) if size <= most} | {runs, most}
    )
    compilation = {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY", "cudagraph_capture_sizes": sizes}
    return {**kwargs, "enforce_eager": False, "compilation_config": compilation}


class TracedGPUWorker(NNsightGPUWorker):  # type: ignore[misc]
    """NNsight's worker, with a class of ours over its model runner.

    NNsight comes into a worker by giving the runner that vLLM has built another class. It refuses a runner
    that is not of vLLM's own class, so ours follows, one step further in the same way.
    """

    RUNNER: type[TracedRunner]

    def init_device(self) -> None:
        super().init_device()
        self.model_runner.__class__ = self.RUNNER


class BoundRequests(Edited, GuardedRequests):
    """What NNsight carries for the engine's requests: edits by name, and bounds around clients' code."""

    def let_go(self, saved: Iterable[Any]) -> None:
        for value in saved:
            _saves().discard(id(value))

    def record(self, mediator: Any) -> None:
        """NNsight's: note what a block has saved, and what it has raised. To say that may run code of whoever
        has made the exception."""
        if mediator.exception is not None and getattr(mediator, "nnsight_error", None) is None:
            mediator.nnsight_error = self.captured(mediator.exception)
        super().record(mediator)

    def captured(self, error: BaseException) -> dict[str, Any]:
        """An exception of a block in NNsight's own form, whatever it does when it is asked what it says."""
        try:
            with contained(), self.guard.watching(getcurrent(), Clock()):
                return dict(capture_exception(error))
        except Exception as another:
            said = f"What it says cannot be had: that raised {type(another).__name__}."
            return dict(deferred(type(error).__name__, said))

    def says(self, error: BaseException) -> str | None:
        captured = self.captured(error)
        return None if captured["is_control_flow"] else f"{captured['type_name']}: {captured['message']}"


class TracedRunner(NNsightGPUModelRunner):  # type: ignore[misc]
    """NNsight's model runner, at the cost of vLLM's own in steps without a trace."""

    _handoff: Handoff
    guard: Guard
    """Bounds what clients' code takes."""

    def load_model(self, *args: Any, **kwargs: Any) -> None:
        super().load_model(*args, **kwargs)
        self._handoff = Handoff(self.get_model())
        bounds = self.vllm_config.additional_config[CONFIG_KEY].get("blocks", BOUNDS)
        self.guard = Guard(**bounds, on_cpu=bool(current_platform.is_cpu()))
        self.nnsight_requests = BoundRequests()
        self.nnsight_requests.guard = self.guard

    def _update_states(self, scheduler_output: Any) -> Any:
        result = super()._update_states(scheduler_output)
        # NNsight has just said whose blocks take part in this step.
        about = self.blocks_at_work()
        self._handoff.switch(about)
        if not about:
            self.guard.idle()
        return result

    def blocks_at_work(self) -> bool:
        """Whether any block takes part in the step under way."""
        return bool(self.nnsight_model.interleaver.mediators)

    def may_have_blocks(self, request_ids: Iterable[str]) -> bool:
        """Whether any of these requests came with a block, or names edits.

        The same on all ranks, also where a block has ended on one of them with an error: it is what the
        scheduler has said.
        """
        carried = (self.requests[request_id].sampling_params for request_id in request_ids)
        extras = (getattr(params, "extra_args", None) or {} for params in carried)
        return any("nnsight_mediator" in extra or extra.get("nnsight_edits") for extra in extras)

    def prepare_edit(self, edit_id: str, payload: bytes) -> None:
        """Read a block that is to stay in the engine. Raises what its code raises."""
        known = self.nnsight_persistent_objects
        with contained(), self.guard.watching(getcurrent(), Clock()):
            template = loads(payload, persistent_objects=known)
        if type(template) is not Mediator:
            raise TypeError(
                f"This is a {type(template).__name__}, and an edit is a block: `model.edit(...)`."
            )
        self.nnsight_requests.prepare(edit_id, template)

    def failed_edits(self, again: Iterable[str] = ()) -> FailedEdits:
        """What edits have raised since this was asked last; `again` are requests that are computed again."""
        found: FailedEdits = self.nnsight_requests.failed(again)
        return found

    def what_was_saved(self, request_id: str, output: bytes | None) -> tuple[bytes, dict[str, Any] | None]:
        """What a request's block has saved, and its error; NNsight forgets the request with that.

        Args:
            request_id: as it was handed in to vLLM.
            output: its `RequestOutput`, pickled, which blocks read as `tracer.result`; None where it was
                aborted.
        """
        outputs = None if output is None else {request_id: pickle.loads(output)}  # noqa: S301 - the server's
        try:
            # To pickle what was saved may run code.
            with contained(), self.guard.watching(getcurrent(), Clock()):
                entries = pickle.loads(self.collect_nnsight([request_id], [request_id], outputs))  # noqa: S301
                return packed(entries.get(request_id, {"saves": {}, "error": None}))
        except Exception as error:
            return packed({"saves": {}, "error": dict(capture_exception(error))})

    def emitter(self) -> Emitter | None:
        """Whose block of Python is running now; None where none is, or of a request that is no run."""
        try:
            mediator = Mediator.current("live.emit")
        except ValueError:
            return None
        for request_id, request in self.nnsight_requests.requests.items():
            if any(mediator is one for one in request.workers()):
                state = self.requests.get(request_id)
                if state is None:
                    return Emitter(request_id, "")  # it is over, and waits for its saves to be fetched
                options = (getattr(state.sampling_params, "extra_args", None) or {}).get(OPTIONS_KEY)
                return None if options is None else Emitter(request_id, options["run"])
        return None

    def nnsight_held(self) -> int:
        """How many requests NNsight still carries. It takes up each that is scheduled, without a trace too,
        and forgets it in the step that says it is finished."""
        count: int = self.nnsight_request_count()
        return count


class Handoff:
    """NNsight's handoff at every module, taken off in steps that no NNsight block takes part in.

    NNsight replaces each module's `forward` by a controller for good. Where nobody waits it only passes the
    call on, but some 300 times in a step, which a small model feels.
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
