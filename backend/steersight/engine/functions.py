"""The operator's own functions in a step that runs eagerly: called, checked, and put in the stream's place.

Each is called by itself for the tokens of one run that it steers in this pass, so what goes wrong in it is
that run's error and nobody else's. What it gives is checked on the device and read once, when the pass is
over: until then a number that is not finite is left out, so that no later layer stumbles over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..interventions import Context, InterventionError

if TYPE_CHECKING:
    import torch

    from .bank import VectorBank
    from .plan import Call, StepPlan

Fail = Callable[[str, str, Exception], None]
"""Called with a run, the label of the function that could not steer it, and why."""


class TokenReader:
    """What a worker knows of tokens: those of the step under way, and their texts."""

    def __init__(self, ids: Callable[[], torch.Tensor], tokenizer: Callable[[], Any]) -> None:
        """
        Args:
            ids: the tokens of the step under way, [tokens or more], in the order of the batch.
            tokenizer: as transformers has it.
        """
        self._ids = ids
        self._tokenizer = tokenizer

    def of(self, where: range) -> torch.Tensor:
        """[tokens] int64: a copy, which holds when the step is over."""
        return self._ids()[where.start : where.stop].long().clone()

    def text(self, token: int) -> str:
        """The text of one token."""
        text: str = self._tokenizer().decode([int(token)])
        return text

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text."""
        found: list[int] = self._tokenizer().encode(text, add_special_tokens=False)
        return found


class FunctionPass:
    """Calls the functions of a plan as the layers run."""

    def __init__(
        self, bank: VectorBank, layers: int, device: torch.device, dtype: torch.dtype, fail: Fail,
        reader: TokenReader | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            bank: has the functions, and the vectors that they may ask for.
            layers: of the model.
            device: of the model.
            dtype: of the model.
            fail: what to do where one cannot steer a run.
            reader: of tokens; None only where there are no functions.
        """
        self._bank = bank
        self._layers = layers
        self._device = device
        self._dtype = dtype
        self._fail = fail
        self._reader = reader
        self.begin()

    def begin(self) -> None:
        """Forget the step before."""
        self._plan: StepPlan | None = None
        self._by_layer: dict[int, list[Call]] = {}
        self._tokens: dict[range, tuple[torch.Tensor, torch.Tensor]] = {}
        self._failed: set[str] = set()
        self._finite: list[tuple[Call, int, torch.Tensor]] = []

    def at(self, plan: StepPlan, layer: int) -> list[Call]:
        """What is called after a layer, in the order in which it composes."""
        if not plan.calls:
            return []
        if self._plan is not plan:
            self._plan = plan
            for call in plan.calls:
                for at in self._bank.layers_of(call.action):
                    self._by_layer.setdefault(at, []).append(call)
        return [call for call in self._by_layer.get(layer, ()) if call.run not in self._failed]

    def steer(
        self, calls: list[Call], layer: int, hidden: torch.Tensor, residual: torch.Tensor | None
    ) -> None:
        """Steer the stream after a layer, hidden + residual [tokens, hidden_size], by changing `hidden`."""
        for call in calls:
            if call.run in self._failed:
                continue  # another of its functions has failed just now
            try:
                self._call(call, layer, hidden, residual)
            except (Exception, SystemExit) as error:
                self._give_up(call, error)

    def _call(self, call: Call, layer: int, hidden: torch.Tensor, residual: torch.Tensor | None) -> None:
        import torch

        rows = slice(call.where.start, call.where.stop)
        mine = hidden[rows].float()
        stream = mine if residual is None else mine + residual[rows]
        function = self._bank.functions[call.action.vector]
        # A copy: what it changes in place must not change what it is compared with.
        given = function.call(stream.clone(), self._context(call, layer), call.action.strength)
        wanted = checked(given, stream).float()
        # Rounded once, as what vectors push.
        steered = (mine + (wanted - stream)).to(hidden.dtype)
        finite = torch.isfinite(steered).all()
        self._finite.append((call, layer, finite))
        hidden[rows] = torch.where(finite, steered, hidden[rows])

    def _context(self, call: Call, layer: int) -> Context:
        import torch

        reader, where = self._reader, call.where
        if reader is None:
            raise RuntimeError("Nobody here can read tokens.")
        if where not in self._tokens:
            positions = torch.arange(call.position, call.position + len(where), device=self._device)
            self._tokens[where] = positions, reader.of(where)
        positions, ids = self._tokens[where]
        return Context(
            layer=layer, layers=self._layers, positions=positions, token_ids=ids,
            prompt_tokens=call.prompt_tokens, device=self._device, dtype=self._dtype,
            direction=lambda vector: self._direction(vector, layer), text=reader.text, tokens=reader.tokens,
        )  # fmt: skip

    def _direction(self, vector: str, layer: int) -> torch.Tensor:
        if vector not in self._bank.vectors:
            raise InterventionError(f"It asks for the direction of {vector!r}, and there is no such vector.")
        return self._bank.direction(vector, layer, 1)[0]

    def conclude(self) -> None:
        """The pass is over: whoever was given a number that is not finite has failed. Waits for the device,
        where any function was called."""
        import torch

        found, self._finite = self._finite, []
        if not found:
            return
        for (call, layer, _), finite in zip(
            found, torch.stack([flag for _, _, flag in found]).tolist(), strict=True
        ):
            if not finite and call.run not in self._failed:
                dtype = str(self._dtype).removeprefix("torch.")
                why = f"After layer {layer} it gave numbers that are not finite in {dtype}."
                self._give_up(call, InterventionError(why))

    def _give_up(self, call: Call, error: BaseException) -> None:
        self._failed.add(call.run)
        if not isinstance(error, Exception):
            error = InterventionError("It wanted to end the process.")
        self._fail(call.run, self._bank.functions[call.action.vector].label, error)


def checked(given: Any, stream: torch.Tensor) -> torch.Tensor:
    """What a function has given, where it can stand in the stream's place. Raises InterventionError."""
    import torch

    wanted = f"the stream in its place, a floating point tensor {list(stream.shape)}"
    if given is None:
        raise InterventionError(f"It gave nothing back. Return {wanted}.")
    if not isinstance(given, torch.Tensor):
        raise InterventionError(f"It gave {type(given).__name__} back. Return {wanted}.")
    if given.shape != stream.shape:
        raise InterventionError(f"It gave a tensor {list(given.shape)} back. Return {wanted}.")
    if not given.is_floating_point():
        raise InterventionError(f"It gave {str(given.dtype).removeprefix('torch.')} back. Return {wanted}.")
    if given.device != stream.device:
        raise InterventionError(f"It gave a tensor on {given.device} back. Return one on {stream.device}.")
    return given
