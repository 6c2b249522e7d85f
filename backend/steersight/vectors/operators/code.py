"""The operators by number: the one list that files, settings, plans and the CUDA kernel share."""

from __future__ import annotations

from enum import IntEnum


class Operator(IntEnum):
    """What a vector does to the stream; the formula is in the file of that name."""

    ADD = 0
    ADD_ABSOLUTE = 1
    ABLATE = 2
    CLAMP = 3
    FEATURE_SET = 4
    FEATURE_SCALE = 5

    @property
    def word(self) -> str:
        """Its name in files and on the wire."""
        return self.name.lower()

    @classmethod
    def named(cls, word: str) -> Operator:
        """The inverse of `word`. Raises KeyError."""
        return cls[word.upper()]


NOTHING = -1
"""In an operator's place: no vector acts here."""
FEATURES = frozenset({Operator.FEATURE_SET, Operator.FEATURE_SCALE})
"""They read a feature's activation first."""
SEQUENTIAL = frozenset({Operator.ABLATE, Operator.CLAMP})
"""They act one after the other, on what the others have made of the stream."""
EVERYTHING = frozenset({NOTHING, *Operator})
