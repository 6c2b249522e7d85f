"""Steps that somebody's Python takes part in: a replayed CUDA graph runs none of it, so they run eagerly.

Decided once per step, when it is known who is in the batch and before vLLM chooses a graph for it. Passes
that only try, warm up or record belong to no step and are not concerned.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from vllm.distributed.parallel_state import get_tp_group


class PythonSteps:
    """Whether Python takes part in the step under way, on any rank."""

    def __init__(self, *, graphs: bool) -> None:
        """`graphs`: whether there are CUDA graphs; without them the ranks need not agree."""
        self._graphs = graphs
        self.now = False

    def begin(self, *, possible: bool, mine: Callable[[], bool]) -> None:
        """A step begins.

        A graph and an eager step exchange the ranks' parts through different memory, so a rank that replays
        while another one does not would read what lay there before, and nothing would tell. What is at work
        may differ from rank to rank, where something has failed on one of them; so they vote, in the steps in
        which anything may be at work at all.

        Args:
            possible: whether anything may take part, by what all ranks know alike.
            mine: whether anything does on this rank. Where it raises, the step runs eagerly.
        """
        self.now = False
        if possible:
            try:
                vote = mine()
            except Exception:
                vote = True
            self.now = _any_rank(vote) if self._graphs else vote

    def end(self) -> None:
        """The step is over, or has failed."""
        self.now = False


def _any_rank(vote: bool) -> bool:
    """Whether any tensor-parallel rank says so. All of them call this, in the same step."""
    ranks = get_tp_group()
    if ranks.world_size == 1:
        return vote
    votes = torch.tensor([int(vote)])
    # Between processes and not devices: the device is still busy with the step before.
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX, group=ranks.cpu_group)
    return bool(votes.item())
