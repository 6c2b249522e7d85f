"""What one run may take."""

from __future__ import annotations

import pytest

from steersight.engine.request import RunRequest
from steersight.engine.service import ModelFacts

from .test_logs import a_run


@pytest.mark.parametrize(
    ("limit", "asked", "given"), [(0, 50, 50), (0, 500, 99), (20, 50, 20), (20, 5, 5), (1000, 500, 99)]
)
def test_a_reply_is_no_longer_than_the_server_allows(limit: int, asked: int, given: int) -> None:
    run = a_run(limit, asked)
    run._engine.model = ModelFacts("m", 2, 4, 10, "float32", 100, [])
    request: RunRequest = run._request()
    assert request.sampling["max_tokens"] == given
