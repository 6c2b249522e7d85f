"""A conversation as it could have been recorded, made of arithmetic: no engine, the same at every call.

Two turns of 3 layers. The second is steered and written in two runs, because it was stopped and gone on
with. Between them they have every member that a recording can have, and the numbers that are easily spoiled
on the way: NaN, infinity, negative zero and the smallest half floats.
"""

from __future__ import annotations

import numpy as np

from steersight.protocol.messages import (
    ColorScale,
    LensOptions,
    MetricInfo,
    ModelInfo,
    Sampling,
    Span,
    Timing,
    Usage,
    VectorInfo,
    VectorSetting,
)
from steersight.recordings import Alternatives, Guesses, RecordedRun, Recording
from steersight.recordings.meta import Ended, Parts, PromptInfo, RevisionInfo, RunInfo, Turn, Watched

LAYERS = 3
MODEL = ModelInfo(
    id="SmolLM2-135M-Instruct", layers=LAYERS, hidden_size=8, vocab_size=100, dtype="float32",
    max_model_len=64, special_ids=[0, 1, 2],
)  # fmt: skip
JOY = VectorInfo(
    id="joy", label="Joy", description="Delighted and warm.", layers=[1], range=[-0.3, 0.3], suggested=0.15,
    kind="direction", operator="add", operators=["add", "clamp"], own=False,
)  # fmt: skip


def metric(name: str, transform: str = "linear") -> MetricInfo:
    """A metric as a server describes it."""
    return MetricInfo.model_validate(
        {
            "id": name, "label": name.capitalize(), "description": "Made for tests.", "unit": "1",
            "transform": transform, "scale": ColorScale(kind="sequential", lo=None, hi=None, mid=None),
            "family": "residual", "cost": "None.", "default": True, "error": None,
        }
    )  # fmt: skip


METRICS = [metric("residual_norm", "log2"), metric("projection:joy")]
PROMPTS = {
    "What is the capital of France?": ["<|im_start|>", "What is the capital", " of France?", "<|im_end|>"],
    "And of Österreich? 🥐": ["<|im_start|>", "And of Öst", "erreich?", " ", "", "🥐", "<|im_end|>"],
}
REPLIES = {
    "What is the capital of France?": [["The capital", " is", " Paris", ".", "<|im_end|>"]],
    "And of Österreich? 🥐": [["Oh", ", how"], [" lovely", "! Wien", "\n", "<|im_end|>"]],
}


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Half floats that look like any."""
    count = int(np.prod(shape))
    values = np.sin(np.arange(count, dtype=np.float64) * 0.7 + seed) * 4
    return values.astype("<f2").reshape(shape)


def run_of(
    seed: int, prompt: list[str], reply: list[str], *, steered: bool = False, finished: bool = True
) -> RecordedRun:
    """One run. A steered one has the logit lens, entropy, alternatives and a gap too."""
    texts = [*prompt, *reply]
    p, r = len(texts), len(reply)
    c = p - 1
    revisions = np.zeros(c, dtype="<i4")
    rows = {one.id: numbers(seed + at, c, LAYERS) for at, one in enumerate(METRICS)}
    rows["residual_norm"][-1] = [np.inf, -0.0, np.float16(6e-8)]
    info = RunInfo(
        name=f"{seed:016x}", server="lab", epoch="0123456789abcdef", model=MODEL, metrics=METRICS,
        vectors=[JOY] if steered else [], sampling=Sampling(seed=7, temperature=0.0),
        template={"enable_thinking": False},
        prompt=PromptInfo(tokens=len(prompt), spans=[Span(role="user", start=1, end=len(prompt) - 1)]),
        revisions=[RevisionInfo(rev=0, position=0, strengths={})],
        watched=[Watched(**{"from": 0, "metrics": [one.id for one in METRICS]})],
        finished=Ended(
            reason="stop" if finished else "cancelled", stop=None, error=None,
            usage=Usage(prompt_tokens=len(prompt), reply_tokens=r, cached_tokens=2 if steered else 0),
            timing=Timing(first_token_ms=12.5, total_ms=100.25, tokens_per_s=40.0),
        ),
    )  # fmt: skip
    run = RecordedRun(
        info=info,
        tokens=(np.arange(p, dtype="<i4") * 7 + seed) % 100,
        texts=texts,
        logprobs=np.where(np.arange(r) == 1, np.nan, -np.arange(r) / 3).astype("<f4"),
        ranks=np.where(np.arange(r) == 1, 0, np.arange(r) + 1).astype("<i4"),
        revisions=revisions,
        rows=rows,
    )
    if steered:
        steer(run, len(prompt), c)
    return run


def steer(run: RecordedRun, prompt: int, c: int) -> None:
    """Give a run a revision in its reply, and all that a run may have besides."""
    joyful = RevisionInfo(
        rev=2, position=prompt, strengths={"joy": 0.25},
        settings={"joy": VectorSetting(scope="reply", layers=[1, 2])},
    )  # fmt: skip
    more = Watched(
        **{"from": prompt, "metrics": [one.id for one in METRICS]},
        lens=LensOptions(stride=2, top=2), entropy=True, alternatives=3,
    )  # fmt: skip
    run.info = run.info.model_copy(
        update={
            "revisions": [*run.info.revisions, joyful], "watched": [*run.info.watched, more],
            "cached": [[0, 2]], "parts": Parts(answer=prompt),
        }
    )  # fmt: skip
    run.revisions[:2] = -1
    run.revisions[prompt:] = 2
    for rows in run.rows.values():
        rows[:2] = np.nan
    run.entropy = numbers(3, c)
    run.entropy[: prompt - 1] = np.nan
    positions = np.arange(prompt - 1, c, dtype="<i4")
    n = len(positions)
    run.lens = Guesses(
        positions, np.array([0, 2], dtype="<i4"), (np.arange(n * 4, dtype="<i4") % 7).reshape(n, 2, 2),
        np.abs(numbers(5, n, 2, 2)) / 8,
    )  # fmt: skip
    run.lens.ids[0, 0], run.lens.probabilities[0, 0] = -1, np.nan
    run.alternatives = Alternatives(
        positions.copy(), (np.arange(n * 3, dtype="<i4") % 11 + 20).reshape(n, 3),
        -np.arange(n * 3, dtype="<f4").reshape(n, 3),
    )  # fmt: skip
    run.alternatives.ids[0, 2], run.alternatives.logprobs[0, 2] = -1, np.nan
    # Of one it is not known, and one is no whole character.
    run.names = {token: f" word{token}" for token in range(40) if token != 21} | {25: "é", 23: ""}


def conversation() -> Recording:
    """Both turns."""
    (first, second), replies = PROMPTS, REPLIES
    return Recording(
        runs=[
            run_of(1, PROMPTS[first], replies[first][0]),
            run_of(2, PROMPTS[second], replies[second][0], finished=False),
            run_of(3, [*PROMPTS[second], *replies[second][0]], replies[second][1], steered=True),
        ],
        turns=[
            Turn(id="c1", user=first, run=0),
            Turn(id="c2", parent="c1", user=second, before=[1], run=2),
        ],
        title=first,
        made_by="steersight 0.1.0",
        made_at="2026-11-26T12:00:00Z",
    )
