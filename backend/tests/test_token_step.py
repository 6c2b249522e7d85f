"""What the service makes of an output of vLLM's."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from steersight.engine.service import _token_step
from steersight.protocol.codec import decode_server, encode
from steersight.protocol.messages import Tokens


@pytest.mark.parametrize("logprob", [math.nan, -math.inf, math.inf])
def test_a_probability_that_is_no_number_is_one_that_is_not_known(logprob: float) -> None:
    table = {7: SimpleNamespace(logprob=logprob, rank=1)}
    completion = SimpleNamespace(token_ids=[7], logprobs=[table], finish_reason=None, stop_reason=None)
    step = _token_step(SimpleNamespace(outputs=[completion], prompt_logprobs=None))
    assert step.logprobs == [None]
    frame = Tokens(
        run="r", seq=1, start=0, ids=step.ids, texts=["x"], logprobs=step.logprobs, ranks=step.ranks
    )
    assert decode_server(encode(frame)) == frame
