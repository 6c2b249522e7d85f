"""One example for a vector that is being made: what the model writes, and the mean of its residual stream.

The sums are kept in the worker, and only they leave it, so an example costs the engine what a reply costs.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .generation import Generations
from .request import RunOptions, RunRequest, Wants
from .sending import Call
from .step import NO_TOKEN

if TYPE_CHECKING:
    import torch

    from ..vectors.action import Action
    from .reply import Entry


@dataclass(frozen=True)
class Example:
    """One reply, or one text that was read, with its stream."""

    reply: list[int]
    mean: torch.Tensor
    """[layers, hidden_size] fp32, mean over the tokens"""
    tokens: int
    surprisal: float | None
    """nats per token that counted, where asked for"""


class Examples:
    """Takes examples from the engine that serves."""

    def __init__(self, generations: Generations, call: Call) -> None:
        self._generations = generations
        self._call = call

    async def take(
        self,
        prompt_ids: list[int],
        *,
        reply_tokens: int = 1,
        first: int | None = None,
        actions: list[Action] | None = None,
        surprisal: bool = False,
        adapter: str = "",
    ) -> Example:
        """Let the model reply greedily and average the stream after every layer over some of the tokens.

        Args:
            prompt_ids: the prompt.
            reply_tokens: the most it may write. The last token it writes is never read and does not count.
            first: position of the first token that counts; None is the first of the reply.
            actions: what steers it.
            adapter: the LoRA adapter to compute it with; "" is the base model.
            surprisal: tell how surprising the prompt's tokens from `first` on are.

        Raises: EngineNotReadyError; ValueError where no token counted, because the reply was empty.
        """
        from safetensors.torch import load

        run = f"example-{secrets.token_hex(8)}"
        start = len(prompt_ids) if first is None else first
        sampling: dict[str, Any] = {"max_tokens": reply_tokens, "temperature": 0.0}
        if surprisal:
            sampling["prompt_logprobs"] = 0
        options = RunOptions(
            run=run, first_row=start, wants=Wants(sums=True), actions=tuple(actions or ()), adapter=adapter
        )
        reply: list[int] = []

        def take(entry: Entry) -> None:
            if entry.token != NO_TOKEN:
                reply.append(entry.token)

        try:
            ended = await self._generations.generate(RunRequest(prompt_ids, sampling, options), take)
        finally:
            # The reply's last token was read only where the worker did not know yet that it was the last.
            end = len(prompt_ids) + len(reply) - 1
            data, tokens = (await self._call("steersight_stream_sums", run, end))[0]
        if not tokens:
            raise ValueError("The model had nothing to say.")
        logprobs = [value for value in (ended.prompt_logprobs or [])[start:] if value is not None]
        return Example(
            reply, load(data)["total"] / tokens, tokens,
            -sum(logprobs) / len(logprobs) if logprobs else None,
        )  # fmt: skip
