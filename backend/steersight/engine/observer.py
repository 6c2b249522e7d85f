"""The observer: sees every token of every run once per layer, makes rows of it, and steers.

It hangs on hooks of the decoder layers, which hand it the whole batch's tensors once per step. One step goes:
`begin` when the scheduler has said which runs are in the batch (`plan.py`), then either the hooks of a step
that runs eagerly (`eager.py`) or a CUDA graph that replays what they have recorded (`graph.py`), `forwarded`,
`sampled`, and the batch is on its way to the server (`publish.py`). Nothing here waits for the device or for
the server, and nothing that goes wrong in here reaches the engine: see `faults.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import plan as plans
from .arrivals import Arrivals
from .bank import BankedVector, VectorBank
from .channel import RowSender
from .drawn import DrawnTokens
from .eager import EagerPass
from .emissions import Emissions
from .experts import ExpertRouters, Routed
from .faults import Containment, Failures
from .functions import FunctionPass, TokenReader
from .graph import GraphPass
from .layout import Layout, part
from .ledger import BlockLedger, Deeds, ReadOtherwiseError
from .plan import Span, StepPlan
from .publish import Publisher
from .reduce import Reducer, StepNumbers
from .request import RunOptions, Wants
from .run_state import Revision, RunStates
from .stream_sums import StreamSums

if TYPE_CHECKING:
    import torch

    from ..metrics import Registry
    from ..vectors.action import Action
    from .tracing.edited import FailedEdits


class Observer:
    """What one worker does besides computing the model: observe, steer, report."""

    def __init__(
        self,
        layout: Layout,
        bank: VectorBank,
        device: torch.device,
        sender: RowSender | None,
        *,
        registry: Registry,
        hidden_size: int,
        max_tokens: int,
        max_runs: int,
        dtype: torch.dtype,
        graph: GraphPass | None = None,
        routers: ExpertRouters | None = None,
        publishes: bool = True,
        tokenizer: Any = None,
        reader: TokenReader | None = None,
    ) -> None:
        """
        Args:
            layout: where the model's layers are.
            bank: the vectors.
            device: of the model.
            sender: takes steps and failures to the server; None where nobody listens.
            registry: the metrics.
            hidden_size: of the model.
            max_tokens: the most tokens of one step.
            max_runs: the most runs of one step.
            dtype: of the model.
            graph: what runs inside CUDA graphs; None where the engine runs eagerly.
            routers: of the model's experts; None where it has none.
            publishes: whether rows come from here: on the first tensor-parallel rank, for all see the same
                stream.
            tokenizer: of a model that thinks, as transformers has it; None for one that does not.
            reader: of tokens, for the bank's functions; None where it has none.
        """
        self.layout = layout
        self.bank = bank
        self.device = device
        self.dtype = dtype
        self.sender = sender
        self.publishes = publishes and sender is not None
        self.graph = graph
        self.runs = RunStates(tokenizer)
        self.drawn = DrawnTokens()
        self.arrivals = Arrivals(bank.pool)
        self.emissions = Emissions(layout.count, device)
        self.thrown_away = 0
        """How often a request has lost its place in the KV cache."""
        self.stream_sums = StreamSums(layout.count, hidden_size, device)
        self.reducer = Reducer(registry, self.stream_sums, self._fail_metric)
        self._failures = Failures(sender)
        self._while_steering = Containment(self._fail_steered)
        self._while_observing = Containment(self._fail_observed)
        self._in_step = Containment(self._fail_step)
        self.eager = EagerPass(
            layout, bank, self.reducer, device, hidden_size=hidden_size, max_tokens=max_tokens,
            max_runs=max_runs, while_steering=self._while_steering, while_observing=self._while_observing,
            functions=FunctionPass(bank, layout.count, device, dtype, self._fail_called, reader),
            routers=routers,
        )  # fmt: skip
        self.publisher = Publisher(layout, self.reducer, device, dtype)
        self.ledger: BlockLedger | None = None
        """Holds what the cache of prefixes gives against what runs would have computed; None without one."""
        self._refused: set[str] = set()  # requests that are runs and could not be taken up
        self._plan: StepPlan | None = None
        self._replayed: StepNumbers | None = None
        self._logits: torch.Tensor | None = None
        self._step_runs: list[str] = []  # runs in the step under way

    @property
    def registry(self) -> Registry:
        """The metrics that runs may ask for."""
        return self.reducer.registry

    @registry.setter
    def registry(self, registry: Registry) -> None:
        self.reducer.registry = registry

    # ------------------------------------------------------------ vectors

    def add_vector(self, name: str, vector: BankedVector) -> None:
        """Steer with one vector more from the next step on, as the last of those that compose."""
        self.bank.add(name, vector)
        self._bank_changed()

    def remove_vector(self, name: str) -> None:
        """Offer a vector no more. Where a run may still come back to it, it is kept until no run can.

        The kept one gets another name, also in those runs' revisions, because its id is free from now on.
        """
        if name not in self.bank.vectors:
            return
        if name in self.runs.reachable():
            self.runs.rename(name, self.bank.retire(name))
        else:
            self.bank.remove({name})
        self._bank_changed()

    def _bank_changed(self) -> None:
        self.registry = self.registry.with_vectors(self.bank.labels())
        if self.graph is not None:
            # What stands there names slots that may be another vector's from now on.
            self.graph.steer_nobody()

    def _drop_retired(self) -> None:
        """Forget the kept vectors that no live run can reach any more."""
        free = self.bank.retired
        if free and (free := free - self.runs.reachable()):
            self.bank.remove(free)
            self._bank_changed()

    # ------------------------------------------------------------ runs

    def add(
        self, request_id: str, options: dict[str, Any], adapter: str = "", prompt_tokens: int = 0
    ) -> None:
        """Take up a run when the scheduler first names its request.

        Args:
            request_id: vLLM's.
            options: as `RunOptions.to_wire` gives them.
            adapter: the LoRA adapter with which vLLM computes it.
            prompt_tokens: length of its prompt.
        """
        if request_id in self.runs:
            return  # preempted and back: it keeps its history
        try:
            wanted = RunOptions.from_wire(options)
            if wanted.adapter != adapter:
                raise RuntimeError(
                    f"It was to be computed with {wanted.adapter or 'the base model'}, and is with "
                    f"{adapter or 'the base model'}."
                )
            self._check_metrics(wanted.wants)
            self.runs.add(request_id, wanted, self.bank.composed(wanted.actions), prompt_tokens)
        except Exception as error:
            # The run is not registered; it generates unsteered until the server aborts it.
            self._refused.add(request_id)
            self._failures.add([options["run"]], "The engine could not take this reply up", error)

    def fail_edits(self, failed: FailedEdits) -> None:
        """Edits have raised; the chats that they acted in have failed with them."""
        self._failures.add_edits(failed.runs, failed.edits)

    def remove(self, request_id: str) -> None:
        """Forget a run whose request is over, finished or aborted."""
        self._refused.discard(request_id)
        self.emissions.forget(request_id)
        if self.ledger is not None:
            self.ledger.leave(request_id)
        if self.runs.remove(request_id):
            self._drop_retired()

    def throw_away(self, request_id: str) -> None:
        """A request has lost its place in the KV cache; what it reads when it comes back is checked."""
        self.thrown_away += 1
        if self.ledger is not None:
            self.ledger.leave(request_id)

    def steer(self, run: str, rev: int, actions: tuple[Action, ...]) -> int | None:
        """New actions for a run; called between two steps.

        Returns: the first position that will be computed with them, or None when the run is not in the batch
        yet (they are then its first) or any more.

        Raises: as `VectorBank.composed`; nothing has changed then.
        """
        return self.runs.steer(run, Revision(rev, self.bank.composed(actions)))

    def watch(self, run: str, number: int, wants: Wants) -> None:
        """Compute other numbers for a run from the next step on; called between two steps. Where the run is
        not in the batch yet, from its first step on.

        Raises: KeyError for a metric that there is none of; nothing has changed then.
        """
        self._check_metrics(wants)
        self.runs.watch(run, number, wants)

    def _check_metrics(self, wants: Wants) -> None:
        unknown = [metric for metric in wants.metrics if metric not in self.registry]
        if unknown:
            raise KeyError(f"The engine has no metric {', '.join(unknown)}.")

    # ------------------------------------------------------------ one step

    def begin(self, spans: list[Span]) -> None:
        """Plan the step from what the batch holds, in its order."""
        self._failures.tell()
        self._plan = self._replayed = None
        self.eager.begin()
        self._step_runs = [
            state.run for span in spans if (state := self.runs.get(span.request_id)) is not None
        ]
        with self._in_step:
            self.drawn.begin(spans, self.runs)
        if self.ledger is not None:
            with self._in_step:
                self._note_blocks(self.ledger, spans)
        if self._step_runs:
            with self._in_step:
                self._plan = self._make_plan(spans)
        if self.graph is not None and sum(span.tokens for span in spans) <= self.graph.most_tokens:
            with self._in_step:
                self._upload(self.graph)

    def may_call(self, spans: Iterable[Span]) -> bool:
        """Whether a function may be called in a step with these; all ranks say the same."""
        return bool(self.bank.functions) and any(
            state.may_call(span.start, span.start + span.tokens)
            for span in spans
            if (state := self.runs.get(span.request_id)) is not None
        )

    def calls(self) -> bool:
        """Whether the step that has begun calls a function here."""
        return self._plan is not None and bool(self._plan.calls)

    def _note_blocks(self, ledger: BlockLedger, spans: list[Span]) -> None:
        """Note what is computed now; whoever would read what was computed otherwise has failed."""
        ledger.begin()
        deeds = {span.request_id: self._deeds(span.request_id) for span in spans}
        for request_id, start, count, _, blocks in spans:
            ledger.compute(deeds[request_id], start, count, blocks)
        for request_id, start, count, _, blocks in spans:
            try:
                ledger.read(request_id, deeds[request_id], start, blocks)
            except ReadOtherwiseError as error:
                # What it computes rests on what it should not have read.
                ledger.compute(None, start, count, blocks)
                if (state := self.runs.get(request_id)) is not None:
                    self._fail([state.run], "This reply would have read what others left behind", error)

    def _deeds(self, request_id: str) -> Deeds | None:
        """What acts on a request; None where nobody knows."""
        state = self.runs.get(request_id)
        if request_id in self._refused or (state is not None and state.failed):
            return None
        return _unsteered if state is None else state.deeds

    def _make_plan(self, spans: list[Span]) -> StepPlan:
        return plans.make_plan(
            spans, self.runs, self.registry, self.layout.count,
            without=set(self.reducer.failed),
            fail=lambda run, error: self._fail([run], "The engine could not steer this reply", error),
        )  # fmt: skip

    def _upload(self, graph: GraphPass) -> None:
        """What a replayed graph reads; nobody knows yet whether one will be replayed."""
        try:
            graph.upload([] if self._plan is None else self._plan.acting())
        except Exception as error:
            # What a graph replays reads the table, whatever is in it: it must not be the last step's, nor one
            # that is half filled.
            graph.steer_nobody()
            self._fail_steered(error)

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Hook: the embeddings, on their way into the first layer."""
        if (graph := self._recording()) is not None:
            graph.enter(self.layout.entering(args, kwargs))
        elif self._plan is not None:
            with self._in_step:
                self.eager.enter(self._plan, self.layout.entering(args, kwargs))

    def attention(self, layer: int, output: Any) -> None:
        """Hook: what attention adds in the layer that is running."""
        if (graph := self._recording()) is not None:
            graph.attention(layer, part(output))
        elif self._plan is not None:
            with self._in_step:
                self.eager.attention(self._plan, layer, part(output))

    def layer(self, layer: int, output: Any) -> None:
        """Hook: one decoder layer's output."""
        if (graph := self._recording()) is not None:
            graph.layer(layer, *self.layout.leaving(output))
        elif self._plan is not None:
            with self._in_step:
                self.eager.layer(self._plan, layer, *self.layout.leaving(output))

    def routed(self, layer: int, routed: Routed) -> None:
        """Called with what the router of a layer is handed, before its experts are at work."""
        if (graph := self._recording()) is not None:
            graph.routed(layer, routed)
            return
        if self.graph is not None:
            self.graph.make_room(layer, routed)
        if self._plan is not None:
            with self._in_step:
                self.eager.routed(self._plan, layer, routed)

    def _recording(self) -> GraphPass | None:
        """The graph pass, where what runs now is being recorded into a CUDA graph."""
        return self.graph if self.graph is not None and self.graph.recording() else None

    def forwarded(self) -> None:
        """The forward pass is over. What a graph has left in the static buffers becomes the step's."""
        with self._in_step:
            self.eager.functions.conclude()
        plan = self._plan
        if plan is not None and self.graph is not None and self.eager.numbers is None and plan.keep:
            with self._while_observing:
                self._replayed = self.graph.take(plan, self.reducer)

    @property
    def _numbers(self) -> StepNumbers | None:
        return self._replayed or self.eager.numbers

    def final(self, logits: torch.Tensor) -> None:
        """The model's final logits [requests, vocab_size], before the sampler changes them in place."""
        import torch

        self._logits = None
        if self._plan is not None and self.publishes:
            # The sampler makes a copy by itself where it has to widen them.
            self._logits = logits.clone() if logits.dtype == torch.float32 else logits

    def sampled(self, tokens: torch.Tensor) -> None:
        """The tokens [requests, 1] that were drawn: with them the step is complete and goes to the server."""
        with self._in_step:
            self.drawn.drawn(tokens)
        emitted = self.emissions.complete()
        plan = self._plan
        if plan is None:
            return
        named = None
        numbers = self._numbers
        if numbers is not None and numbers.head_rows is not None:
            with self._while_observing:
                named = self.publisher.read_logit_lens(plan, numbers, tokens, publishes=self.publishes)
        logits, self._logits = self._logits, None
        sender = self.sender
        with self._in_step:
            if logits is not None and sender is not None and (plan.blocks or plan.bare):
                step = self.publisher.step(plan, self._numbers, named, logits, tokens, emitted)
                # A failed run's rows are among them. The server leaves out the rows of runs that it knows to
                # have failed, so it has to know first.
                if self._failures.tell():
                    sender.put(step)
                else:
                    sender.dropped += 1
        self._forget_step()

    def _forget_step(self) -> None:
        self._plan = self._replayed = None
        self.eager.stop_observing()

    def rehearse(self, spans: list[Span], forward: Callable[[], object]) -> torch.Tensor:
        """Plan a step, run it, and give its numbers instead of sending them.

        Args:
            spans: as `begin` takes them; all of these runs want the same metrics.
            forward: runs the model.

        Returns:
            [rows, metrics, layers] fp32, not yet transformed.

        Raises:
            RuntimeError: the step could not be planned or observed; the log says why.
        """
        if self.graph is not None:
            self.graph.forget()
        self.begin(spans)
        forward()
        self.forwarded()
        numbers = self._numbers
        self._forget_step()
        if numbers is None:
            raise RuntimeError("A step that was tried before the first run could not be observed.")
        return numbers.values.clone()

    # ------------------------------------------------------------ when it goes wrong

    def _fail(self, runs: Iterable[str], what: str, error: Exception) -> None:
        """Let these runs end; see `faults.py`."""
        fresh = [state for run in runs if (state := self.runs.named(run)) is not None and not state.failed]
        for state in fresh:
            state.failed = True
        self._failures.add([state.run for state in fresh], what, error)

    def _fail_metric(self, metric: str, what: str, error: Exception, plan: StepPlan) -> None:
        """A built-in metric failed: those who asked for it have failed."""
        states = [self.runs.named(block.run) for block in plan.blocks]
        asked = [state.run for state in states if state is not None and metric in state.wants.metrics]
        self._fail(asked, what, error)

    def _fail_steered(self, error: Exception) -> None:
        """The step's steering failed: it is not steered from here on, and whoever was to be has failed."""
        self._spoil()
        plan = self._plan
        if plan is not None:
            self._fail(plan.steered_runs, "The engine could not steer this reply", error)
            plan.steer_nobody()

    def _fail_called(self, run: str, label: str, error: Exception) -> None:
        """A function could not steer a run, which has failed; what else steers in the step goes on."""
        self._spoil()
        self._fail([run], f"The function {label!r} could not steer this reply", error)

    def _fail_observed(self, error: Exception) -> None:
        """The step's numbers failed: nobody is observed in it any more; steering goes on."""
        plan, self._replayed = self._plan, None
        self.eager.stop_observing()
        if plan is not None:
            observed = [block.run for block in plan.blocks]
            self._fail(observed, "The engine could not compute this reply's numbers", error)
            plan.observe_nobody()

    def _fail_step(self, error: Exception) -> None:
        """It cannot be told whose fault it is: all runs of the step have failed."""
        self._spoil()
        self._forget_step()
        self._fail(self._step_runs, "The engine's observer failed while it computed this reply", error)

    def _spoil(self) -> None:
        """Nobody may read what the step under way leaves in the cache: it may be half steered."""
        if self.ledger is not None:
            self.ledger.spoil()


def _unsteered(_start: int, _end: int) -> str:
    return ""
