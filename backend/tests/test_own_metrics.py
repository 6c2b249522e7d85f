"""A person's own metrics: how a file is read, what the examples compute, and what happens when one raises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from steersight.client import connect
from steersight.config import REPOSITORY
from steersight.metrics import Registry, View
from steersight.metrics.own import OwnMetricError, load_own

from .conftest import Server

EXAMPLES = REPOSITORY / "backend/examples/metrics"


def view(streams: torch.Tensor, runs: list[tuple[str, int, int]], first: int = 0) -> View:
    return View(first=first, streams=streams, runs=runs)


def write(folder: Path, body: str) -> str:
    path = folder / "mine.py"
    path.write_text("from steersight.metrics.own import metric\n" + body)
    return str(path)


GOOD = """
@metric(id="mean", label="Mean", description="Mean.")
def mean(residuals, context):
    return residuals.mean(-1)
"""
FIELDS = """
@metric(id="m", label="M", description="M.", fields={"a": "A"})
def m(residuals, context):
    return """


def test_a_file_becomes_a_metric(tmp_path: Path) -> None:
    (mean,) = load_own([write(tmp_path, GOOD)])
    assert (mean.id, mean.family, mean.default) == ("mean", "own", False)
    assert mean.compute is not None
    streams = torch.randn(4, 5, 6)
    assert torch.equal(mean.compute(view(streams, [("r", 0, 5)])), streams[1:].mean(-1))


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("x = 1\n", "declares no metric"),
        ("import nothing_like_this\n", "could not be run: ModuleNotFoundError"),
        ('@metric(id="a b", label="", description="")\ndef f(r, c): ...\n', "is not allowed"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(tmp_path: Path, body: str, sentence: str) -> None:
    with pytest.raises(OwnMetricError, match=sentence):
        load_own([write(tmp_path, body)])


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(OwnMetricError, match="There is no Python file"):
        load_own(["/nowhere/mine.py"])


def test_an_id_that_is_taken_is_refused(tmp_path: Path) -> None:
    own = load_own([write(tmp_path, GOOD.replace('"mean"', '"update_norm"'))])
    with pytest.raises(ValueError, match="same id"):
        Registry((), own)


@pytest.mark.parametrize("wrong", ["residuals.mean()", "residuals", "3.0", "{'b': residuals.mean(-1)}"])
def test_a_result_of_another_shape_is_an_error(tmp_path: Path, wrong: str) -> None:
    body = FIELDS + wrong
    (mine,) = load_own([write(tmp_path, body)])
    assert mine.id == "m.a"
    assert mine.compute is not None
    with pytest.raises(OwnMetricError):
        mine.compute(view(torch.randn(3, 2, 4), [("r", 0, 2)]))


def example(name: str) -> dict[str, object]:
    return {metric.id: metric.compute for metric in load_own([str(EXAMPLES / f"{name}.py")])}


def test_effective_rank_of_known_matrices() -> None:
    compute = example("effective_rank")["effective_rank"]
    assert callable(compute)
    same = torch.ones(1, 6, 16)
    apart = torch.eye(16)[None, :6] * 3
    ranks = compute(view(torch.cat([same, same, apart]), [("rank", 0, 6)]))
    assert torch.allclose(ranks[0], torch.ones(6), atol=1e-4)
    assert torch.allclose(ranks[1], torch.arange(1.0, 7.0), atol=1e-4)
    # The window goes on over the steps, whatever groups of layers they come in, and is no longer than 8.
    more = compute(view(torch.eye(16)[None, 6:12].expand(2, -1, -1), [("rank", 6, 6)], first=1))
    assert torch.allclose(more[0], torch.tensor([7.0, 8, 8, 8, 8, 8]), atol=1e-4)


def test_distance_from_the_prompt() -> None:
    functions = example("distance")
    streams = torch.randn(3, 4, 8)
    prompt = view(streams, [("far", 0, 3), ("other", 0, 1)])
    reply = view(torch.randn(3, 1, 8), [("far", 3, 1)])
    for context in (prompt, reply):
        mean = streams[1:, :3].mean(dim=1)
        distance, angle = functions["from_prompt.distance"], functions["from_prompt.angle"]
        assert callable(distance)
        assert callable(angle)
        expected = (context.after[:, 0] - mean).norm(dim=-1) / mean.norm(dim=-1)
        assert torch.allclose(distance(context)[:, 0], expected, atol=1e-5)
        cosine = torch.cosine_similarity(context.after[:, 0], mean, dim=-1)
        assert torch.allclose(angle(context)[:, 0].cos(), cosine, atol=1e-5)


@pytest.mark.engine
@pytest.mark.timeout(300)
async def test_the_probe_tells_a_question_from_a_statement(server: Server) -> None:
    async with connect(f"ws://{server.address}/ws") as client:
        found = []
        for text in ("Where does the old lady live?", "The old lady lives by the sea."):
            run = await client.start(
                [{"role": "user", "content": text}], sampling={"max_tokens": 2}, metrics=["probe_question"]
            )
            await run.wait()
            span = next(span for span in run.prompt.spans if span.role == "user")
            found.append(float(np.nanmean(run.rows()[span.start + 3 : span.end - 2, 0, 20:])))
    question, statement = found
    assert question > 0.5 > statement, found


@pytest.mark.engine
@pytest.mark.timeout(300)
async def test_a_metric_that_raises_loses_itself_alone(server: Server) -> None:
    async with connect(f"ws://{server.address}/ws") as client, connect(f"ws://{server.address}/ws") as other:
        asked = ["residual_norm", "raises", "misshapen", "from_prompt.distance"]
        run = await client.start(
            [{"role": "user", "content": "Hello"}],
            sampling={"max_tokens": 8, "temperature": 0},
            metrics=asked,
        )
        finished = await run.wait()
        assert finished.reason == "length"
        rows = run.rows()
        count = len(run.prompt.ids)
        column = {name: rows[:-1, index] for index, name in enumerate(run.metrics)}
        assert np.isfinite(column["residual_norm"]).all()
        assert np.isfinite(column["from_prompt.distance"]).all()
        assert np.isfinite(column["raises"][:count]).all()
        assert np.isnan(column["raises"][count:]).all()
        assert np.isnan(column["misshapen"]).all()
        async with asyncio.timeout(10):
            for each in (client, other):
                await each.until(lambda each=each: each.metrics["raises"].error is not None)
        assert client.metrics["raises"].error == "ZeroDivisionError: the probe fell apart"
        assert "not a tensor [layers, tokens]" in (client.metrics["misshapen"].error or "")
        assert client.metrics["residual_norm"].error is None
        again = await other.start(
            [{"role": "user", "content": "Hello"}],
            sampling={"max_tokens": 4, "temperature": 0},
            metrics=asked,
        )
        await again.wait()
        assert again.ids == run.ids[:4]
