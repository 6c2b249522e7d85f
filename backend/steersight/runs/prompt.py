"""From a conversation to the tokens the model reads, and from tokens to pieces of text."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from ..protocol.codec import FrameError
from ..protocol.messages import ChatMessage, ErrorCode, Prompt, Span

MAX_RENDERED = 4_000_000
"""Characters that finding out which message made which token may render."""


class TokenTexts:
    """Text pieces of a growing token sequence: joined, they are its text.

    A character whose bytes are spread over several tokens comes with the last of them; the others are ''.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)

    def next(self, token: int) -> str:
        """The piece this token adds."""
        return self._stream.step(self._tokenizer, token) or ""

    def alone(self, token: int) -> str:
        """The text of one token by itself, its leading space included; apart from the pieces of `next`."""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        # SentencePiece drops the space of a text's first word.
        marked = (self._tokenizer.id_to_token(token) or "").startswith("\u2581")
        return f" {text}" if marked and not text.startswith(" ") else text


def build_prompt(
    tokenizer: Any, messages: list[ChatMessage], limit: int, *, write_on: bool = False
) -> tuple[Prompt, TokenTexts]:
    """Apply the model's chat template.

    Args:
        tokenizer: a transformers fast tokenizer with a chat template.
        messages: the conversation, oldest first.
        limit: the most tokens the prompt may have.
        write_on: the last message is the beginning of the reply.

    Raises: FrameError when the template refuses the conversation or the prompt is too long.
    """
    turns = [message.model_dump() for message in messages]
    if write_on and not (messages[-1].role == "assistant" and messages[-1].content.strip()):
        raise FrameError(
            ErrorCode.INVALID,
            "To write on, the last message must be the assistant's and hold the reply so far.",
            field="messages",
        )
    try:
        text = _rendered(tokenizer, turns, write_on=write_on)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    except Exception as error:  # jinja and transformers raise many types; all mean the same to the person
        raise FrameError(
            ErrorCode.INVALID,
            f"The model's chat template refuses this conversation: {error}",
            field="messages",
        ) from None
    ids: list[int] = encoded["input_ids"]
    if len(ids) > limit:
        raise FrameError(
            ErrorCode.PROMPT_TOO_LONG,
            f"The prompt has {len(ids)} tokens; at most {limit} fit beside one token of reply. "
            "Shorten the conversation or start a new one.",
            field="messages",
        )
    texts = TokenTexts(tokenizer)
    ends = [end for _, end in encoded["offset_mapping"]]
    spans = _spans(tokenizer, turns[:-1] if write_on else turns, text, ends)
    if write_on and spans:
        spans.append(Span(role="assistant", start=spans[-1].end, end=len(ids)))
    return Prompt(ids=ids, texts=[texts.next(token) for token in ids], spans=spans), texts


def _rendered(tokenizer: Any, turns: list[dict[str, str]], *, write_on: bool) -> str:
    """The conversation as the model reads it; with `write_on` its last message is open at the end.

    Not transformers' `continue_final_message`: that cuts at the last place where the message's text occurs in
    the rendered conversation with its white space stripped, so a reply that ends in a space loses it.
    """
    closed = turns[:-1] if write_on else turns
    text: str = tokenizer.apply_chat_template(closed, tokenize=False, add_generation_prompt=True)
    return text + turns[-1]["content"] if write_on else text


def _spans(tokenizer: Any, turns: list[dict[str, str]], text: str, ends: list[int]) -> list[Span]:
    """Which tokens each message made: where the template's text ends for the first k messages.

    `ends` are the tokens' ends in `text`. A template that rewrites earlier turns, or a token across the
    border of two, has no such places; no spans are better than wrong ones. The templates are rendered, not
    made into tokens again: that would take time that grows with the square of the conversation.
    """
    if len(turns) * len(text) > MAX_RENDERED:
        return []
    spans: list[Span] = []
    start = 0
    for count, turn in enumerate(turns, start=1):
        try:
            prefix = tokenizer.apply_chat_template(turns[:count], tokenize=False, add_generation_prompt=False)
        except Exception:  # a template may refuse half a conversation
            return []
        end = bisect_right(ends, len(prefix))
        if not text.startswith(prefix) or (end and ends[end - 1] != len(prefix)):
            return []
        spans.append(Span(role=turn["role"], start=start, end=end))
        start = end
    return spans
