"""A probability that is no number is told as one that is not known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from steersight.engine.reply import entries
from steersight.protocol.codec import decode_server, encode
from steersight.protocol.messages import Tokens

from .test_step import make


@pytest.mark.parametrize("logprob", [math.nan, -math.inf, math.inf])
def test_a_probability_that_is_no_number_is_one_that_is_not_known(logprob: float) -> None:
    step = replace(make([1], [False], []), logprobs=np.array([logprob], dtype=np.float32))
    ((_, entry),) = entries(step)
    assert entry.logprob is None
    frame = Tokens(
        run="r", seq=1, start=0, ids=[entry.token], texts=["x"], logprobs=[entry.logprob], ranks=[entry.rank]
    )
    assert decode_server(encode(frame)) == frame
