"""Where a reply's text ends, and where its thought does."""

from __future__ import annotations

from collections.abc import Sequence


def before_stop(text: str, stop: str | None) -> str:
    """The reply's text, which ends before the stop string that ended it.

    The first place counts, as in vLLM, which looks for it after every token: a token can bring more than one.

    Args:
        text: of all tokens of the reply.
        stop: `finished.stop`; None or '' where no stop string ended it.
    """
    return text.partition(stop)[0] if stop else text


def thought_of(pieces: Sequence[str], start: str, end: str) -> tuple[str, str]:
    """The thought that a reply begins with, and what its last token holds of the answer.

    Args:
        pieces: texts of the reply's tokens before its answer, special ones among them.
        start: what a model writes before its thought; the reply has it unless the chat template wrote it.
        end: what it writes behind it; missing where the thought goes on.
    """
    thought, _, rest = "".join(pieces).partition(end)
    return thought.lstrip().removeprefix(start).strip(), rest
