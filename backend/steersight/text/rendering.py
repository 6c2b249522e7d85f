"""From a conversation to the ids that a model reads: by a chat template, or as plain text without one.

Every prompt is made here, of chats and of vectors that are being built alike, so that both follow one rule
for what a template cannot say, and both refuse ids that the model has no row for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .template import TemplateArgument, Value, arguments_of, source_of, thought_field
from .thoughts import Marks, marks_in

Chat = Literal["template", "file", "none"]
Turn = dict[str, str]
"""`role` and `content` of one message, and `thought` where a reply had one."""


class UnknownTokenError(ValueError):
    """Ids that the model has no row for. vLLM's engine process would end on one of them."""


@dataclass(frozen=True)
class Encoded:
    """A text as token ids."""

    ids: list[int]
    ends: list[int]
    """Per token: where it ends in the text, in characters; 0 for tokens before the text."""


@dataclass(frozen=True)
class Renderer:
    """Makes prompts for one model."""

    tokenizer: Any
    """A transformers tokenizer of the fast kind."""
    chat: Chat
    """What makes a prompt of a conversation: the model's template, one from a file, or none."""
    has_system: bool
    """Whether the template has a place for system messages."""
    vocab_size: int
    """Rows of the model's embedding."""
    marks: Marks | None = None
    """What the model writes around its thoughts; None for one that has none."""
    arguments: tuple[TemplateArgument, ...] = ()
    """What the template can be told beside the messages."""
    thought_field: str | None = None
    """The name by which the template reads the thought of an earlier reply; None where it reads none."""

    @classmethod
    def of(cls, tokenizer: Any, chat: Chat, vocab_size: int, marks: Marks | None = None) -> Renderer:
        """Find out what the template can do, by rendering a conversation with a system message and by reading
        its text.

        Args:
            tokenizer: of the model.
            chat: what makes a prompt of a conversation.
            vocab_size: rows of the model's embedding.
            marks: what the model writes around its thoughts, where that is known; None is what the template
                writes, if it does.
        """
        probe = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
        try:
            has_system = chat != "none" and "Be brief." in tokenizer.apply_chat_template(
                probe, tokenize=False, add_generation_prompt=True
            )
        except Exception:  # jinja and transformers raise many types; all of them mean no
            has_system = False
        if chat == "none":
            return cls(tokenizer, chat, has_system, vocab_size, marks)
        return cls(
            tokenizer, chat, has_system, vocab_size, marks or marks_in(source_of(tokenizer)),
            arguments_of(tokenizer), thought_field(tokenizer),
        )  # fmt: skip

    def turns(self, turns: Sequence[Turn]) -> list[Turn]:
        """The conversation as the template can say it.

        The thought of an earlier reply goes where the template reads it, and where it reads none it is left
        out, as all makers of thinking models ask. Where there is no place for system messages, each stands
        before the user's message that comes next, with a blank line between.
        """
        turns = [self._thoughtful(turn) for turn in turns]
        if self.has_system or self.chat == "none":
            return turns
        found: list[Turn] = []
        instructions: list[str] = []
        for turn in turns:
            if turn["role"] == "system":
                instructions.append(turn["content"])
                continue
            if instructions and turn["role"] == "user":
                turn = {"role": "user", "content": "\n\n".join([*instructions, turn["content"]])}
                instructions = []
            found.append(turn)
        if instructions:
            found.append({"role": "user", "content": "\n\n".join(instructions)})
        return found

    def _thoughtful(self, turn: Turn) -> Turn:
        said = {name: text for name, text in turn.items() if name != "thought"}
        if self.thought_field is not None and turn["role"] == "assistant" and turn.get("thought"):
            said[self.thought_field] = turn["thought"]
        return said

    def text(
        self,
        turns: Sequence[Turn],
        *,
        open_end: bool = True,
        arguments: Mapping[str, Value] | None = None,
    ) -> str:
        """What the model reads of closed turns, which `turns` has made.

        Args:
            turns: the conversation, oldest first.
            open_end: end where the reply begins.
            arguments: what the template is told beside; `template.checked` has made them.

        Raises: whatever the template raises.
        """
        if self.chat == "none":
            return plain(turns)
        text: str = self.tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=open_end, **(arguments or {})
        )
        return text

    def encode(self, text: str) -> Encoded:
        """The ids of a rendered text.

        A template writes all tokens that stand around the text itself. Without one the tokenizer puts its
        own before it; what it would put behind it would end the text that is to go on.
        """
        if self.chat != "none":
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            return Encoded(list(encoded["input_ids"]), [end for _, end in encoded["offset_mapping"]])
        # What stands before a text is seen before any text, so also before an empty one.
        encoded = self.tokenizer(
            text or "a", add_special_tokens=True, return_offsets_mapping=True, return_special_tokens_mask=True
        )
        own = [index for index, added in enumerate(encoded["special_tokens_mask"]) if not added]
        kept = 0 if not own else own[-1] + 1 if text else own[0]
        ends = [end for _, end in encoded["offset_mapping"]]
        return Encoded(list(encoded["input_ids"][:kept]), ends[:kept])

    def prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Ids of a conversation that the model is to answer.

        Raises: UnknownTokenError; ValueError where the template refuses the conversation.
        """
        try:
            ids = self.encode(self.text(self.turns(turns))).ids
        except Exception as error:
            raise ValueError(f"The model's chat template refuses this conversation: {error}") from error
        self.check(ids)
        return ids

    def check(self, ids: Sequence[int]) -> None:
        """Raises UnknownTokenError, with a sentence, when the model has no row for one of them."""
        foreign = outside(ids, self.vocab_size)
        if foreign:
            raise UnknownTokenError(
                f"{named(self.tokenizer, foreign)}: the tokenizer makes "
                f"{'them' if len(foreign) > 1 else 'it'} of this text, and the model knows only tokens 0 to "
                f"{self.vocab_size - 1}. Write it in another way."
            )


def plain(turns: Iterable[Turn]) -> str:
    """Messages as one text: what an assistant wrote goes on where it began, the others begin a line."""
    text = ""
    for turn in turns:
        if turn["role"] != "assistant" and text and not text.endswith("\n"):
            text += "\n"
        text += turn["content"]
    return text


def outside(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Those of `ids` that a model with so many rows does not have, ascending, each once."""
    return sorted({token for token in ids if not 0 <= token < vocab_size})


def named(tokenizer: Any, ids: Sequence[int], most: int = 5) -> str:
    """Tokens for a sentence, by text and number."""
    words = [f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in ids[:most]]
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return f"Token{'s' if len(ids) > 1 else ''} {', '.join(words)}{more}"
