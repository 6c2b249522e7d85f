"""What goes wrong in the observer is one run's error, never the engine's.

vLLM ends the engine, and with it every run, when a hook of the forward pass raises. So each hook does its
work inside a `Containment`, which says what to do instead: which runs have failed. They are told about it
with a sentence, are neither steered nor observed any more, and the server aborts them; the step goes on.

What holds after a failure. Runs do not share anything that the observer writes: a push adds to the rows of
steered tokens only, and in one operation at the end, so that a run nobody steers is computed bit for bit as
if nothing had happened; and a run reads of others' KV cache only what it would have computed alike. A run
that was to be steered in a step that failed may have been pushed at some layers and not at others; that is
why all of them fail, and not the one whose vector was at fault. What they leave in the cache of prefixes is
known to be spoilt (`ledger.py`), and the server has the scheduler forget all keys. With several ranks a
failure on one of them leaves the failed runs' streams different from rank to rank, which only those runs
feel. One thing is beyond this: where a rank fails so that it takes no part in a product that all ranks
compute together (the logit lens), the others wait for it; the server finds that engine hung.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from .channel import FailedRuns, RowSender

logger = logging.getLogger(__name__)

MOST_CHARACTERS = 300


class Containment:
    """A context that hands an exception to `fail` instead of raising it."""

    def __init__(self, fail: Callable[[Exception], None]) -> None:
        self._fail = fail

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self._fail(error)
        return True


class Failures:
    """News of failed runs, kept until the sender has taken it."""

    def __init__(self, sender: RowSender | None) -> None:
        self._sender = sender
        self._untold: dict[str, str] = {}

    def add(self, runs: Iterable[str], what: str, error: Exception) -> None:
        """These have failed: `what` is the beginning of a sentence that the error ends."""
        names = list(runs)
        if not names:
            return
        logger.error("%s: %s", what, ", ".join(names), exc_info=error)
        why = f"{what}, so it was ended ({type(error).__name__}: {error}"[:MOST_CHARACTERS] + ")."
        self._untold.update(dict.fromkeys(names, why))
        self.tell()

    def add_edits(self, runs: Mapping[str, str], edits: Mapping[str, str]) -> None:
        """Edits have raised, and these runs have failed with that: the beginning of a sentence for each. What
        they leave in the cache is read by nobody else."""
        if not runs and not edits:
            return
        logger.error("Edits have raised: %s; %s", dict(edits), dict(runs))
        self.tell()
        untold = FailedRuns(
            {run: f"{why[:MOST_CHARACTERS]}. It was ended." for run, why in runs.items()}, dict(edits)
        )
        if self._sender is not None and not self._sender.put(untold):
            self._untold |= untold.runs

    def tell(self) -> bool:
        """Queue what is untold; False where there is no room. Rows may only follow when all is told."""
        if self._untold and self._sender is not None:
            if not self._sender.put(FailedRuns(dict(self._untold))):
                return False
            self._untold.clear()
        return True
