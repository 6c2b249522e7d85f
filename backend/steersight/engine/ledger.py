"""What acted on the tokens of each block of the KV cache, as a worker has computed it; and the check that a
run reads only blocks that were computed as it would have computed them.

The scheduler's keys (`scheduling.py`) see to that. This does not believe them: keys are made in another
process, from what is about to be computed, and an error there would be a reply that is steered by somebody
else's slider, without a trace. Pure: no torch, no vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Deeds = Callable[[int, int], str]
"""What acts on a run's positions [start, end): `RunState.deeds`."""
NO_BLOCK = 0
"""vLLM's block that holds nothing, in the place of those outside of a window."""


class ReadOtherwiseError(RuntimeError):
    """A run was about to read a cache that was computed with other steering than its own, or another
    adapter."""


class BlockLedger:
    """Of one worker, by block: what acted on its tokens, as `RunState.deeds` says it."""

    def __init__(self, block_size: int) -> None:
        """`block_size`: tokens of a block."""
        self._size = block_size
        self._deeds: dict[int, str] = {}
        self._checked: set[str] = set()
        self._step: list[int] = []

    def begin(self) -> None:
        """A step begins."""
        self._step.clear()

    def compute(self, deeds: Deeds | None, start: int, count: int, blocks: Sequence[int]) -> None:
        """A request's positions [start, start + count) are computed in this step.

        Args:
            deeds: what acts on it; None where nobody knows, because it has failed.
            start: first position.
            count: positions.
            blocks: numbers of all its blocks, in order.
        """
        for index in range(start // self._size, (start + count) // self._size):
            if (block := blocks[index]) != NO_BLOCK:
                self._note(block, deeds, index * self._size)

    def read(self, request_id: str, deeds: Deeds | None, start: int, blocks: Sequence[int]) -> None:
        """A request's positions before `start` are read in this step. All that the step computes is known by
        now: of two prompts that begin alike, one can read what the other computes in the same step.

        Args:
            request_id: vLLM's.
            deeds: as in `compute`.
            start: first position that is not read.
            blocks: numbers of all its blocks, in order.

        Raises:
            ReadOtherwiseError: at its first step, and at the first after a preemption, where a block that
                it reads is not as it would have computed it.
        """
        if request_id not in self._checked:
            self._checked.add(request_id)
            if start and deeds is not None:
                self._check(deeds, start, blocks)

    def _note(self, block: int, deeds: Deeds | None, begin: int) -> None:
        if deeds is None:
            self._deeds.pop(block, None)
        else:
            self._deeds[block] = deeds(begin, begin + self._size)
            self._step.append(block)

    def _check(self, deeds: Deeds, until: int, blocks: Sequence[int]) -> None:
        size = self._size
        for index in range(until // size):
            begin = index * size
            if blocks[index] != NO_BLOCK and self._deeds.get(blocks[index]) != deeds(begin, begin + size):
                raise ReadOtherwiseError(
                    f"Its positions {begin} to {begin + size - 1} were about to be read from a cache that "
                    "was computed with other steering or another adapter. The cache is dropped; start it "
                    "again."
                )

    def leave(self, request_id: str) -> None:
        """A request has ended, or was preempted: what it reads next is checked again."""
        self._checked.discard(request_id)

    def spoil(self) -> None:
        """The step under way went wrong: nobody knows what acted on the blocks that it has filled."""
        for block in self._step:
            self._deeds.pop(block, None)
