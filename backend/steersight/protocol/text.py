"""Where a reply's text ends."""

from __future__ import annotations


def before_stop(text: str, stop: str | None) -> str:
    """The reply's text, which ends before the stop string that ended it.

    The first place counts, as in vLLM, which looks for it after every token: a token can bring more than one.

    Args:
        text: of all tokens of the reply.
        stop: `finished.stop`; None or '' where no stop string ended it.
    """
    return text.partition(stop)[0] if stop else text
