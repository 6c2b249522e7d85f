"""A run that is watched otherwise in mid-run has from there on the rows of one watched so from the start."""

from __future__ import annotations

import numpy as np
import pytest

from steersight.client import Client, Run, SteersightError, connect
from steersight.protocol.messages import LensOptions

from .conftest import Server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ASKED = "Tell me about Paris."
QUESTION = [{"role": "user", "content": ASKED}]
LATER = ["attention_norm", "projection:north"]
LENS = LensOptions(stride=4, top=3)
TOKENS = 96
STEP = 6e-3
"""A step of half precision where a norm's logarithm is 8 to 16: another batch may round to the next one."""


async def ask(client: Client, metrics: list[str], content: str = ASKED, **more: object) -> Run:
    return await client.start(
        [{"role": "user", "content": content}], sampling={"max_tokens": TOKENS, "temperature": 0},
        strengths={"north": 0.2}, metrics=metrics, **more,  # type: ignore[arg-type]
    )  # fmt: skip


async def written(run: Run, tokens: int) -> None:
    async for _ in run.texts():
        if len(run.ids) >= tokens:
            return


def numbers(run: Run, metrics: list[str], start: int) -> np.ndarray:
    """[positions from `start` on, metrics, layers]; the last token has no row."""
    return run.rows()[start:-1, [run.metrics.index(name) for name in metrics]]


async def test_rows_from_the_change_on_are_those_of_a_run_watched_so_from_the_start(server: Server) -> None:
    async with connect(f"ws://{server.address}/ws") as client, connect(f"ws://{server.address}/ws") as other:
        beside = await ask(client, ["update_norm"], "Write a haiku about autumn.")
        run = await ask(client, ["residual_norm"])
        await written(run, 4)
        second = await other.watch(run.id)
        position = await run.watch(metrics=LATER, lens=LENS, entropy=True, alternatives=5)
        await written(run, len(run.ids) + 8)
        back = await run.watch(metrics=["residual_norm"])
        for one in (run, beside, second):
            await one.wait()
        whole = await ask(client, ["residual_norm", *LATER], lens=LENS, entropy=True, alternatives=5)
        alone = await ask(client, ["update_norm"], "Write a haiku about autumn.")
        again = await other.watch(run.id)
        for one in (whole, alone, again):
            await one.wait()
    prompt = len(run.prompt.ids)
    assert prompt + 3 <= position < back < prompt + TOKENS - 1
    assert run.ids == whole.ids
    assert (beside.ids, beside.metrics) == (alone.ids, ["update_norm"])
    assert np.allclose(beside.rows(), alone.rows(), rtol=STEP, equal_nan=True)
    lens = ["lens_entropy", "lens_probability", "lens_kl"]
    assert (run.metrics[0], set(run.metrics)) == ("residual_norm", {"residual_norm", *LATER, *lens})
    inside = slice(0, back - position)
    for names in (LATER, lens):
        mine, theirs = (numbers(one, names, position)[inside] for one in (run, whole))
        assert np.isfinite(mine).any(axis=(0, 2)).all()
        assert np.allclose(mine, theirs, rtol=STEP, atol=2e-3, equal_nan=True)
    # Nothing of it outside of these rows, and all of what was asked for there.
    norm, expected = run.rows()[:-1, 0], whole.rows()[:-1, whole.metrics.index("residual_norm")]
    assert np.isnan(norm[position:back]).all()
    for part in (slice(0, position), slice(back, None)):
        assert np.allclose(norm[part], expected[part], rtol=STEP)
        assert np.isnan(run.rows()[:-1][part, 1:]).all()
        assert np.isnan(run.entropy()[:-1][part]).all()
    assert np.allclose(run.entropy()[position:back], whole.entropy()[position:back], rtol=STEP)
    assert sorted(run.guesses) == sorted(run.alternatives) == list(range(position, back))
    for at in range(position, back):
        assert [list(map(str, run.guesses[at]))] == [list(map(str, whole.guesses[at]))]
        assert [token for token, _, _ in run.alternatives[at]] == [
            token for token, _, _ in whole.alternatives[at]
        ]
    # Whoever watched it from another place, during the change or afterwards, has the same.
    for one in (second, again):
        assert one.metrics == run.metrics
        assert sorted(one.watched) == sorted(run.watched) == [position, back]
        assert np.array_equal(one.rows(), run.rows(), equal_nan=True)
        assert (one.guesses, one.alternatives) == (run.guesses, run.alternatives)


async def test_what_cannot_be_watched_is_refused_to_whoever_asked(server: Server) -> None:
    async with connect(f"ws://{server.address}/ws") as client:
        run = await client.start(QUESTION, sampling={"max_tokens": 8}, metrics=[])
        with pytest.raises(SteersightError, match="There is no metric 'nothing'") as refused:
            await run.watch(metrics=["nothing"])
        assert (refused.value.code, refused.value.field) == ("unknown_metric", "metrics")
        with pytest.raises(SteersightError, match="needs the logit lens"):
            await run.watch(metrics=["lens_kl"])
        await run.wait()
        assert run.watched == {}
        with pytest.raises(SteersightError, match="The run ended before"):
            await run.watch(metrics=["residual_norm"])
