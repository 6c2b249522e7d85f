"""From a `start` frame's conversation to the prompt of a run, with a sentence for what cannot be one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..protocol.codec import FrameError
from ..protocol.messages import ChatMessage, ErrorCode, Prompt, Span
from ..text.pieces import TokenTexts, ends_inside
from ..text.rendering import Renderer, Turn, UnknownTokenError, outside
from ..text.template import TemplateArgumentError, Value, checked
from ..text.thoughts import Opening, cut_after

MAX_RENDERED = 4_000_000
"""Characters that finding out which message made which token may render."""


@dataclass(frozen=True)
class Built:
    """A prompt, and what its reply needs."""

    prompt: Prompt
    texts: TokenTexts
    """Tells the pieces of the reply's text."""
    opening: Opening | None
    """Where the reply begins, for a model that thinks; None for one that does not."""


def build_prompt(
    renderer: Renderer,
    messages: list[ChatMessage],
    limit: int,
    *,
    write_on: bool = False,
    prefix: Sequence[int] = (),
    stops: bool = False,
    template: Mapping[str, object] | None = None,
) -> Built:
    """Make the prompt of a run.

    Args:
        renderer: of the served model.
        messages: the conversation, oldest first.
        limit: the most tokens the prompt may have.
        write_on: the last message is the beginning of the reply.
        prefix: the beginning of the reply, as token ids.
        stops: stop strings may end the reply.
        template: what the chat template is told beside the messages.

    Raises: FrameError when the template refuses the conversation or does not read what it is to be told, or
        the prompt is empty, too long, or has tokens that the model does not know.
    """
    try:
        arguments = checked(template or {}, renderer.arguments)
    except TemplateArgumentError as error:
        raise FrameError(ErrorCode.INVALID, str(error), field="template") from None
    turns: list[Turn] = [message.model_dump(exclude_none=True) for message in messages]
    if write_on and not (messages[-1].role == "assistant" and messages[-1].content.strip()):
        raise FrameError(
            ErrorCode.INVALID,
            "To write on, the last message must be the assistant's and hold the reply so far.",
            field="messages",
        )
    _check_prefix(renderer, prefix, write_on=write_on)
    closed = renderer.turns(turns[:-1] if write_on else turns)
    try:
        text = rendered = renderer.text(closed, arguments=arguments)
        if write_on:
            # Not transformers' `continue_final_message`: that cuts at the last place where the message's text
            # occurs in the rendered conversation with its white space stripped, so a reply that ends in a
            # space loses it.
            text += turns[-1]["content"]
        encoded = renderer.encode(text)
    except Exception as error:  # jinja and transformers raise many types; all mean the same to the person
        raise FrameError(
            ErrorCode.INVALID,
            f"The model's chat template refuses this conversation: {error}",
            field="messages",
        ) from None
    ids = [*encoded.ids, *prefix]
    if len(encoded.ids) <= limit < len(ids):
        raise FrameError(
            ErrorCode.PROMPT_TOO_LONG,
            f"The prompt has {len(encoded.ids)} tokens and the reply's beginning {len(prefix)}; at most "
            f"{limit} fit beside one token more. Give fewer of them or shorten the conversation.",
            field="prefix_ids",
        )
    if len(ids) > limit:
        raise FrameError(
            ErrorCode.PROMPT_TOO_LONG,
            f"The prompt has {len(encoded.ids)} tokens; at most {limit} fit beside one token of reply. "
            "Shorten the conversation or start a new one.",
            field="messages",
        )
    if not ids:
        raise FrameError(ErrorCode.INVALID, "The prompt is empty. Write something.", field="messages")
    try:
        renderer.check(ids)
    except UnknownTokenError as error:
        raise FrameError(ErrorCode.INVALID, str(error), field="messages") from None
    # vLLM (0.32) looks for them in a text that begins with all of the prompt's, where that ends so.
    if stops and prefix and ends_inside(renderer.tokenizer, prefix):
        raise FrameError(
            ErrorCode.INVALID,
            "The reply's beginning ends inside a character, behind which no stop strings can be looked for. "
            "Leave out its last tokens or the stop strings.",
            field="prefix_ids",
        )
    spans = _spans(renderer, closed, text, encoded.ends, arguments)
    if write_on and spans:
        spans.append(Span(role="assistant", start=spans[-1].end, end=len(ids)))
    if prefix:
        spans.append(Span(role="assistant", start=len(encoded.ids), end=len(ids)))
    texts = TokenTexts(renderer.tokenizer)
    prompt = Prompt(ids=ids, texts=[texts.next(token) for token in ids], spans=spans)
    opening = None
    if renderer.marks is not None:
        written = _behind_messages(renderer, closed, rendered, arguments)
        said = turns[-1]["content"] if write_on else "".join(prompt.texts[len(encoded.ids) :])
        cut = cut_after(renderer.marks, written, said)
        opening = Opening.of(cut, ids)
    return Built(prompt, TokenTexts(renderer.tokenizer, after=ids), opening)


def _check_prefix(renderer: Renderer, prefix: Sequence[int], *, write_on: bool) -> None:
    """Raise FrameError where a reply cannot begin with these ids."""
    if prefix and write_on:
        raise FrameError(
            ErrorCode.INVALID,
            "A reply is written on from the last message's text (`write_on`) or from token ids "
            "(`prefix_ids`), not from both. Leave one of them out.",
            field="prefix_ids",
        )
    if foreign := outside(prefix, renderer.vocab_size):
        raise FrameError(
            ErrorCode.INVALID,
            f"The reply's beginning has token {foreign[0]}, and the model knows only tokens 0 to "
            f"{renderer.vocab_size - 1}. Send ids that this model has written.",
            field="prefix_ids",
        )


def _behind_messages(renderer: Renderer, turns: list[Turn], text: str, arguments: Mapping[str, Value]) -> str:
    """What the template has written behind the last message: there a thought may begin."""
    if renderer.chat == "none":
        return ""
    try:
        closed = renderer.text(turns, open_end=False, arguments=arguments)
    except Exception:  # a template may refuse what is not to be answered
        closed = ""
    if closed and text.startswith(closed):
        return text[len(closed) :]
    # It closes a conversation otherwise than it goes on with one. A message may hold any text, so all of it
    # has to be left out.
    said = turns[-1]["content"].strip() if turns else ""
    return text.rpartition(said)[2] if said else text


def _spans(
    renderer: Renderer, turns: list[Turn], text: str, ends: list[int], arguments: Mapping[str, Value]
) -> list[Span]:
    """Which tokens each message made: where the rendered text ends for the first k messages.

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
            prefix = renderer.text(turns[:count], open_end=False, arguments=arguments)
        except Exception:  # a template may refuse half a conversation
            return []
        end = bisect_right(ends, len(prefix))
        if not text.startswith(prefix) or (end and ends[end - 1] != len(prefix)):
            return []
        spans.append(Span(role=turn["role"], start=start, end=end))
        start = end
    return spans
