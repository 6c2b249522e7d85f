"""How a reply is parted into thought and answer, by the marks that a model writes around its thought.

A thinking model writes `<think>`, its thought, `</think>` and its answer; or its chat template has written
the first of these already, or both. The marks are matched as text, because a tokenizer may have one token for
each or cut them into any pieces. What a pass belongs to depends on the tokens up to its own and on nothing
later, so that the server, the engine's scheduler and its workers come to the same answer each by itself.

Pure: no engine, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from .pieces import TokenTexts

Part = Literal["undecided", "thought", "answer"]
"""Undecided is a reply that has not begun, or whose text could still become the mark of a thought."""
PARTS: tuple[Literal["thought", "answer"], ...] = ("thought", "answer")
"""Parts of a reply that a vector can be confined to."""

MOST_UNREAD = 64
"""Tokens that wait to be read where nobody asks what they are."""
TOKENS_BEFORE = 16
"""Tokens of the prompt that decide how the reply's first one reads; a character has four bytes at most."""


class Marks(NamedTuple):
    """The texts around a model's thought."""

    start: str
    end: str


HARMONY = Marks("<|channel|>analysis<|message|>", "<|channel|>final<|message|>")
"""gpt-oss writes in channels; the thought goes on until the final one begins."""
KNOWN = (
    Marks("<think>", "</think>"),
    HARMONY,
    Marks("<thinking>", "</thinking>"),
    Marks("<seed:think>", "</seed:think>"),
    Marks("<mm:think>", "</mm:think>"),
    Marks("<longcat_think>", "</longcat_think>"),
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    Marks("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    Marks("[THINK]", "[/THINK]"),
)
"""What chat templates write around thoughts."""


def marks_in(template: str) -> Marks | None:
    """The marks that a chat template names; None where it names none that are known here."""
    return next((marks for marks in KNOWN if marks.start in template or marks.end in template), None)


class Cut:
    """A text that comes piece by piece, and which part its end is in."""

    def __init__(self, marks: Marks, part: Part = "undecided", text: str = "") -> None:
        """
        Args:
            marks: of the thought.
            part: what the text is in.
            text: as much of the text so far as decides what comes next.
        """
        self.marks = marks
        self.part: Part = part
        self.text = text
        self.thinks = part == "thought"
        """Whether a thought has begun."""

    def take(self, piece: str) -> None:
        """The text goes on."""
        if self.part == "answer":
            return
        self.text += piece
        if self.part == "undecided":
            self.text = self.text.lstrip()
            if self.text.startswith(self.marks.start):
                self.part, self.text = "thought", self.text[len(self.marks.start) :]
                self.thinks = True
            elif not self.marks.start.startswith(self.text):
                self.part = "answer"
        if self.part == "thought":
            if self.marks.end in self.text:
                self.part = "answer"
            else:
                self.text = self.text[max(0, len(self.text) - len(self.marks.end) + 1) :]
        if self.part == "answer":
            self.text = ""


def cut_after(marks: Marks, opening: str, said: str = "") -> Cut:
    """Where a reply begins.

    Args:
        marks: of the thought.
        opening: what the chat template has written behind the last message: it may have begun the thought, or
            begun and ended it.
        said: the reply's own beginning, where it is to be written on.
    """
    cut = Cut(marks)
    start, end = opening.rfind(marks.start), opening.rfind(marks.end)
    if end > start:
        cut.part = "answer"
    elif start >= 0:
        cut.part = "thought"
        cut.take(opening[start + len(marks.start) :])
    cut.take(said)
    return cut


@dataclass(frozen=True)
class Opening:
    """What has to be known of a prompt to part its reply: the same for everybody who parts it."""

    marks: Marks
    prompt_tokens: int
    part: Part
    """What the reply's first token will be in."""
    text: str
    """See `Cut.text`."""
    before: tuple[int, ...]
    """The prompt's last `TOKENS_BEFORE` ids."""

    @classmethod
    def of(cls, cut: Cut, ids: Sequence[int]) -> Opening:
        """Behind a prompt of these ids, whose text `cut` has read."""
        return cls(cut.marks, len(ids), cut.part, cut.text, tuple(ids[-TOKENS_BEFORE:]))

    def to_map(self) -> dict[str, Any]:
        """For the way to the worker."""
        return {**asdict(self), "marks": tuple(self.marks)}

    @classmethod
    def from_map(cls, found: Mapping[str, Any]) -> Opening:
        """The inverse of `to_map`."""
        return cls(**{**found, "marks": Marks(*found["marks"]), "before": tuple(found["before"])})


class ReplyParts:
    """Which passes of one run write its thought and which its answer.

    A part is said by the first pass that belongs to it: the pass of position p reads token p and writes the
    token at p + 1. The thought begins with the pass that reads the last token of its mark, the answer with
    the one that reads the last token of the thought's end. Passes before the prompt's last token belong to
    neither.

    Tokens are read when somebody asks, and in bunches otherwise: most replies are steered in no part.
    """

    def __init__(self, opening: Opening, tokenizer: Any) -> None:
        """
        Args:
            opening: of the reply.
            tokenizer: the transformers tokenizer of the model.
        """
        self.known = opening.prompt_tokens
        """Positions below this have been told; what passes from here on belong to is not known."""
        self._tokenizer = tokenizer
        self._opening = opening
        self._cut = Cut(opening.marks, opening.part, opening.text)
        self._texts: TokenTexts | None = None
        self._unread: list[int] = []
        self._read = opening.prompt_tokens
        first = max(0, opening.prompt_tokens - 1)
        self._thought = first if opening.part == "thought" else None
        self._answer = first if opening.part == "answer" else None

    @property
    def settled(self) -> bool:
        """Whether no token can change anything any more."""
        return self._answer is not None

    def tell(self, position: int, token: int) -> None:
        """The token at a position. One that has been told already, before a preemption, is passed over; so is
        one behind a token that was never told, and `known` stays where that is."""
        if self.settled or position != self.known:
            return
        self.known += 1
        self._unread.append(token)
        if len(self._unread) >= MOST_UNREAD:
            self._read_all()

    def tell_all(self, start: int, ids: Iterable[int]) -> None:
        """The tokens from a position on."""
        for position, token in enumerate(ids, start):
            self.tell(position, token)

    def begins(self, part: str) -> int | None:
        """The first pass of a part; None while there is none."""
        self._read_all()
        return self._thought if part == "thought" else self._answer

    def passes(self, part: str) -> tuple[int, int | None] | None:
        """First pass of a part and one past its last, None where no end is known; None where the part has not
        begun."""
        begins = self.begins(part)
        if begins is None:
            return None
        return begins, self._answer if part == "thought" else None

    def _read_all(self) -> None:
        if not self._unread:
            return
        if self._texts is None:
            self._texts = TokenTexts(self._tokenizer, after=self._opening.before)
        for position, token in enumerate(self._unread, self._read):
            if self.settled:
                break
            self._cut.take(self._texts.next(token))
            if self._cut.thinks and self._thought is None:
                self._thought = position
            if self._cut.part == "answer":
                self._answer = position
        self._read += len(self._unread)
        self._unread.clear()
