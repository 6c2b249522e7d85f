"""From a run's request to vLLM's: what is asked of its front end, and when a reply is over.

A run is an ordinary request of vLLM's: NNsight has no part in it, and sees it only as one more tenant of
the batch. Its tokens come with its rows, from the worker, so vLLM's front end is asked for as little as
possible: no log probabilities, no text, and no output before the last. Only where stop strings may end the
reply, its outputs are followed, because they alone tell how far it is certain.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .lora import lora_request, told
from .reply import Ends
from .request import RunRequest

if TYPE_CHECKING:
    from .options import ModelFacts

OPTIONS_KEY = "steersight"
"""Under this key of `extra_args` a request carries what the observer has to know of it."""


@dataclass(frozen=True)
class Submission:
    """A request, ready to be handed in."""

    request_id: str
    prompt: Any
    """vLLM's `TokensPrompt`"""
    sampling: Any
    """vLLM's `SamplingParams`"""
    ends: Ends | None
    """When the reply is over; None where stop strings may end it, and only vLLM can tell."""
    lora: Any = None
    """vLLM's `LoRARequest`; None for the base model."""

    def outputs(self, engine: Any) -> AsyncGenerator[Any, None]:
        """Hand it in to an `AsyncLLM`, once this is iterated. Closing the generator aborts it."""
        outputs: AsyncGenerator[Any, None] = engine.generate(
            self.prompt, self.sampling, self.request_id, lora_request=self.lora
        )
        return outputs


def _code(request: RunRequest) -> dict[str, Any]:
    """Under which keys NNsight (0.8.1) looks for code; the scheduler knows them too (`whole_prompts.TRACED`).

    A block that names no edits would have all that are installed by then, and it is to have those that there
    were when it was admitted.
    """
    edits = {"nnsight_edits": list(request.edits)}
    if request.block is not None:
        return {"nnsight_mediator": request.block.code, **edits}
    return edits if request.edits else {}


def submission(engine: Any, request: RunRequest, model: ModelFacts) -> Submission:
    """Put a request into vLLM's terms.

    Args:
        engine: vLLM's `AsyncLLM` that is to answer it.
        request: what is asked for.
        model: what it serves.
    """
    from vllm.inputs import TokensPrompt
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    block = request.block
    stops = bool(request.sampling.get("stop"))
    delta = RequestOutputKind.DELTA
    if block is not None:
        delta = RequestOutputKind.CUMULATIVE  # the block may read the last output, which has to be whole
    sampling = SamplingParams(
        **request.sampling,
        detokenize=stops or block is not None,
        output_kind=delta if stops else RequestOutputKind.FINAL_ONLY,
        extra_args={OPTIONS_KEY: request.options.to_wire(), **_code(request)},
        skip_reading_prefix_cache=not request.read_cache or request.options.wants.sums or None,
    )
    ends = None
    if not stops:
        judge = sampling.clone()
        processor = engine.input_processor
        # What vLLM's own front end does with a request, after which its scheduler knows when to end it.
        judge.update_from_generation_config(
            processor.generation_config_fields, processor.renderer.get_eos_token_id()
        )
        tokens = {judge.eos_token_id, *(judge.stop_token_ids or ())} - {None}
        room = model.max_model_len - len(request.prompt_ids)
        ends = Ends(frozenset(tokens), min(judge.max_tokens or room, room))
    return Submission(
        uuid.uuid4().hex, TokensPrompt(prompt_token_ids=list(request.prompt_ids)), sampling, ends,
        lora_request(told(model.adapters), request.options.adapter),
    )  # fmt: skip
