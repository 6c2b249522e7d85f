"""What a strength does to replies: effect against damage, and the range of strengths worth offering.

Effect is read by the model without steering: it reads the steered reply again, and the mean of its stream
along the direction is set on a line where 0 is the mean of the negative examples and 1 that of the positive
ones. So the push itself does not count, only what it made the model write.

Damage has two parts, both 0 for an unharmed reply: repeated words, and how much more surprising the reply is
to the unsteered model than its own reply to the same prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 20
REPETITION_LIMIT = 0.5
"""Share of repeated words above which a reply is broken; ordinary short replies stay below 0.35."""
SURPRISAL_LIMIT = 2.5
"""Nats per token above the unsteered reply's; prose in another manner costs one or two."""


@dataclass(frozen=True)
class Sample:
    """One steered reply."""

    strength: float
    effect: float
    repetition: float
    surprisal: float
    """Nats per token beyond the unsteered reply's."""
    text: str

    @property
    def damage(self) -> float:
        """1 at the limit of either part."""
        return max(self.repetition / REPETITION_LIMIT, self.surprisal / SURPRISAL_LIMIT, 0.0)


@dataclass(frozen=True)
class Point:
    """All replies at one strength."""

    strength: float
    effect: float
    damage: float
    sample: str


def repetition(text: str) -> float:
    """Share of the last 20 words that occur earlier among them, case folded; 0 for fewer than 8 words."""
    words = text.casefold().split()[-WINDOW:]
    if len(words) < 8:
        return 0.0
    return 1.0 - len(set(words)) / len(words)


def points(samples: list[Sample]) -> list[Point]:
    """Mean effect and damage per strength, ascending, with the first reply as a sample."""
    found = []
    for strength in sorted({sample.strength for sample in samples}):
        mine = [sample for sample in samples if sample.strength == strength]
        found.append(
            Point(
                strength,
                sum(sample.effect for sample in mine) / len(mine),
                sum(sample.damage for sample in mine) / len(mine),
                mine[0].text,
            )
        )
    return found


def propose(found: list[Point]) -> tuple[tuple[float, float], float]:
    """Range and suggested strength.

    Each end of the range is the last strength, going out from 0, before damage reaches 1; at least the
    smallest that was tried. The suggested one is the positive strength in the range with the largest effect
    less half its damage.
    """

    def end(side: list[Point]) -> float:
        reached = side[0].strength
        for point in side:
            if point.damage >= 1:
                break
            reached = point.strength
        return reached

    up = [point for point in found if point.strength > 0]
    down = [point for point in reversed(found) if point.strength < 0]
    hi = end(up)
    lo = end(down) if down else -hi
    inside = [point for point in up if point.strength <= hi]
    best = max(inside, key=lambda point: point.effect - point.damage / 2)
    return (lo, hi), best.strength
