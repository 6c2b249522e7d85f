"""A trace's request in the terms of a run: its prompt is token ids and no conversation, and how its tokens
are drawn is said by vLLM's sampling parameters, of which a `start` knows some."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..protocol.codec import FrameError
from ..protocol.messages import (
    MAX_STOP_STRINGS,
    MAX_TEMPERATURE,
    ChatMessage,
    ErrorCode,
    Prompt,
    Sampling,
    Start,
)
from ..text.pieces import TokenTexts
from ..text.rendering import UnknownTokenError
from .prompt import Built

if TYPE_CHECKING:
    from ..engine.tracing.asked import TracedRequest
    from ..text.rendering import Renderer

LATER = (ErrorCode.BUSY, ErrorCode.RATE_LIMITED, ErrorCode.DRAINING, ErrorCode.ENGINE_NOT_READY)
"""Refusals that are none of the trace: it may be sent again."""
USUAL_TOKENS = 16
"""vLLM's own `max_tokens`, where a trace names none."""
MOST_TOKENS = 131_072
MOST_SHOWN = 200_000
"""Characters of a prompt that stand for it as a message."""


class TraceRefusedError(Exception):
    """A trace's requests are not admitted; the message says why."""

    def __init__(self, sentence: str, *, later: bool) -> None:
        """`later`: whether the same may be admitted at another time."""
        super().__init__(sentence)
        self.later = later


@contextmanager
def refusals() -> Iterator[None]:
    """What is refused in here is refused to a trace."""
    try:
        yield
    except FrameError as error:
        raise TraceRefusedError(error.message, later=error.code in LATER) from None


def build_traced(renderer: Renderer, ids: Sequence[int], limit: int) -> Built:
    """The prompt of a trace's request.

    Args:
        renderer: of the served model.
        ids: its tokens.
        limit: the most that it may have.

    Raises: FrameError when it is empty, too long, or has tokens that the model does not know.
    """
    if not ids:
        raise FrameError(ErrorCode.INVALID, "A prompt of this trace has no tokens. Give each invoke one.")
    if len(ids) > limit:
        raise FrameError(
            ErrorCode.PROMPT_TOO_LONG,
            f"A prompt of this trace has {len(ids)} tokens; at most {limit} fit beside one token of reply.",
        )
    try:
        renderer.check(list(ids))
    except UnknownTokenError as error:
        raise FrameError(ErrorCode.INVALID, str(error)) from None
    texts = TokenTexts(renderer.tokenizer)
    prompt = Prompt(ids=list(ids), texts=[texts.next(token) for token in ids], spans=[])
    return Built(prompt, TokenTexts(renderer.tokenizer, after=list(ids)), None)


def start_of(request: TracedRequest, built: Built) -> Start:
    """What a client would have sent, as far as there are words for it; the run itself draws by
    `request.sampling`."""
    asked = request.sampling
    top_k = asked.get("top_k", 0)
    return Start(
        id=f"trace-{secrets.token_hex(4)}",
        messages=[ChatMessage(role="user", content="".join(built.prompt.texts)[:MOST_SHOWN])],
        sampling=Sampling(
            max_tokens=min(max(1, asked.get("max_tokens", USUAL_TOKENS) or MOST_TOKENS), MOST_TOKENS),
            temperature=min(max(0.0, float(asked.get("temperature", 1.0))), MAX_TEMPERATURE),
            top_p=float(asked.get("top_p", 1.0)),
            top_k=max(0, top_k),
            min_p=float(asked.get("min_p", 0.0)),
            seed=asked.get("seed"),
            stop=list(_texts(asked.get("stop"))[:MAX_STOP_STRINGS]),
        ),
        read_cache=False,
    )


def _texts(value: object) -> list[str]:
    return [value] if isinstance(value, str) else [str(one)[:128] for one in value or ()]  # type: ignore[attr-defined]
