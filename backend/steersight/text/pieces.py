"""From token ids to pieces of text, one at a time, as vLLM's own detokenizer makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TAIL = 16
"""Tokens that say whether a text ends inside a character; one has four bytes at most."""


def ends_inside(tokenizer: Any, ids: Sequence[int]) -> bool:
    """Whether the text of these ids ends inside a character."""
    text: str = tokenizer.backend_tokenizer.decode(list(ids[-TAIL:]), skip_special_tokens=False)
    return text.endswith("\ufffd")


class TokenTexts:
    """Text pieces of a growing token sequence: joined, they are its text.

    A character whose bytes are spread over several tokens comes with the last of them; the others are ''.
    vLLM looks for stop strings in a text of its own making, so a reply's pieces have to be those of its
    detokenizer, also where the bytes are no text.
    """

    def __init__(self, tokenizer: Any, after: Sequence[int] = ()) -> None:
        """Begin a sequence.

        Args:
            tokenizer: a transformers tokenizer of the fast kind.
            after: ids that stand before the first one; their text is not told.
        """
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer.backend_tokenizer
        if not ends_inside(tokenizer, after):
            self._stream = DecodeStream(ids=list(after), skip_special_tokens=False)
            return
        # They end inside a character. A stream that is given them at once (tokenizers 0.23) would tell all of
        # their text with the token that makes it whole.
        self._stream = DecodeStream(skip_special_tokens=False)
        for token in after[-TAIL:]:
            self.next(token)

    def next(self, token: int) -> str:
        """The piece this token adds. An id that the tokenizer does not know adds ''."""
        try:
            return self._stream.step(self._tokenizer, token) or ""
        except Exception as error:
            if not str(error).startswith("Invalid prefix"):
                raise
        # A stray byte after a byte-fallback token changes the text before it, and the stream (tokenizers
        # 0.23) refuses every token from then on. vLLM 0.32 begins a new one here too.
        from tokenizers.decoders import DecodeStream

        self._stream = DecodeStream(skip_special_tokens=False)
        return self._stream.step(self._tokenizer, token) or ""

    def alone(self, token: int) -> str:
        """The text of one token by itself, its leading space included; apart from the pieces of `next`."""
        text: str = self._tokenizer.decode([token], skip_special_tokens=False)
        # SentencePiece drops the space of a text's first word.
        marked = (self._tokenizer.id_to_token(token) or "").startswith("\u2581")
        return f" {text}" if marked and not text.startswith(" ") else text
