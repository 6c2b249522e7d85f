"""Functions that steer, on the real engine: what they do equals the same function in a forward hook of
transformers, token for token and number for number, and nobody else feels it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from steersight.client import connect
from steersight.interventions import Context
from steersight.protocol.messages import VectorSetting
from steersight.vectors.action import decide

from .conftest import Server
from .reference import Reference
from .taken import beyond_rounding
from .test_engine_truth import Collected

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PROMPT = "Was it the sea, a ship or a friend that my love saw in Paris? Tell me!"
METRICS = ["residual_norm", "update_norm", "cosine_below"]
TOKENS = 16
Strength = Callable[[int], float]
"""Position -> strength."""


def strength_of(*changes: tuple[int, float]) -> Strength:
    """From each position on another strength."""
    return lambda position: next((value for start, value in reversed(changes) if position >= start), 0.0)


@contextmanager
def hooked(
    server: Server, reference: Reference, name: str, ids: list[int], prompt: int, strength: Strength,
    layers: list[int] | None = None,
) -> Iterator[dict[int, torch.Tensor]]:  # fmt: skip
    """The function in transformers' own layers: called once for all tokens of each strength.

    Yields: per layer that it acts at what the layer itself adds, [tokens, hidden_size].
    """
    written: dict[int, torch.Tensor] = {}
    function = server.engine.offer.functions[name]
    vectors = server.engine.offer.vectors
    tokenizer = server.engine.tokenizer

    def direction(vector: str, layer: int) -> torch.Tensor:
        known = vectors[vector]
        nearest = min(known.layers, key=lambda own: (abs(own - layer), own))
        return known.directions[known.layers.index(nearest)].clone()

    def hook(layer: int) -> Callable[..., torch.Tensor]:
        def run(_module: object, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            written[layer] = output[0] - args[0][0]
            stream = output[0].clone()
            strengths = [0.0, *(strength(position) for position in range(1, len(ids)))]
            for value in set(strengths) - {0.0}:
                where = torch.tensor([p for p, one in enumerate(strengths) if one == value])
                context = Context(
                    layer=layer, layers=len(reference.model.model.layers), positions=where,
                    token_ids=torch.tensor(ids)[where], prompt_tokens=prompt, device=stream.device,
                    dtype=torch.float32, direction=lambda vector: direction(vector, layer),
                    text=lambda token: tokenizer.decode([token]),
                    tokens=lambda text: tokenizer.encode(text, add_special_tokens=False),
                )  # fmt: skip
                stream[where] = function.call(stream[where], context, value)
            return stream[None]

        return run

    # Before the hooks that read: those of the reference are registered later, and see what these give.
    chosen = function.layers if layers is None else layers
    hooks = [reference.model.model.layers[at].register_forward_hook(hook(at)) for at in chosen]
    try:
        yield written
    finally:
        for handle in hooks:
            handle.remove()


def check(
    server: Server, reference: Reference, name: str, run: Collected, strength: Strength,
    layers: list[int] | None = None,
) -> None:  # fmt: skip
    """A run's tokens and rows against transformers, 1e-4 relative beyond what half precision accounts for."""
    with (
        torch.inference_mode(),
        hooked(server, reference, name, run.ids, len(run.prompt), strength, layers) as written,
    ):
        reading = reference.read(run.ids)
    assert reading.differing(run.ids, len(run.prompt)) == []
    rows = run.rows()
    for column, metric in enumerate(METRICS):
        expected = getattr(reading, metric)[: len(rows)]
        if metric == "update_norm":  # the reference counts what the function does as the layer's own
            for layer, added in written.items():
                expected[:, layer] = added.double().norm(dim=-1)[: len(rows)].numpy()
        error = beyond_rounding(metric, rows[:, column], expected)
        floor = 0.05 if metric == "cosine_below" else 0.0
        assert float((error / np.maximum(np.abs(expected), floor)).max()) <= 1e-4, metric


@pytest.mark.parametrize(
    ("name", "value"),
    [("no_manner", 1.0), ("joy_for_formality", 0.8), ("no_question", 1.0), ("late_positions", -0.7)],
)
async def test_a_function_does_what_it_does_in_transformers(
    server: Server, reference: Reference, name: str, value: float
) -> None:
    functions = server.engine.offer.functions
    neighbour = Collected(server, "What is the capital of France?")
    run, plain = Collected(server, PROMPT), Collected(server, PROMPT)
    action = decide(functions[name], value, {}, len(run.prompt), 30)
    await asyncio.gather(
        run.act(f"function-{name}", [action], TOKENS), plain.act(f"plain-{name}", [], TOKENS),
        neighbour.act(f"beside-{name}", [], TOKENS),
    )  # fmt: skip
    check(server, reference, name, run, strength_of((1, value)))
    # It did something, and to nobody else.
    own = server.engine.offer.functions[name].layers[-1]
    changed = run.rows()[: len(run.prompt), 0, own] != plain.rows()[: len(run.prompt), 0, own]
    assert not changed[0]
    assert changed.any()
    for other in (plain, neighbour):
        reading = reference.read(other.ids)
        assert reading.differing(other.ids, len(other.prompt)) == []


async def test_at_strength_0_nothing_changes_by_a_bit(server: Server) -> None:
    functions = server.engine.offer.functions
    run, plain = Collected(server, PROMPT), Collected(server, PROMPT)
    actions = [
        decide(functions["raises"], 1e-60, {}, 10, 30),
        decide(functions["no_manner"], 0.0, {}, 10, 30),
    ]
    await run.act("function-zero", actions, TOKENS)
    await plain.act("function-none", [], TOKENS)
    assert run.ids == plain.ids
    assert np.array_equal(run.rows(), plain.rows())


async def test_a_slider_of_one_moved_in_mid_run_acts_on_the_rows_that_say_so(
    server: Server, reference: Reference
) -> None:
    """With a scope and layers of its own."""
    async with connect(f"ws://{server.address}/ws") as client:
        await client.ready()
        info = client.vectors["late_positions"]
        assert (info.kind, info.operator, info.operators, info.file) == (
            "function", None, [], "failing_intervention.py"
        )  # fmt: skip
        assert info.label == "Late positions"
        run = await client.start(
            [{"role": "user", "content": PROMPT}],
            sampling={"max_tokens": 40, "temperature": 0},
            metrics=[*METRICS, "steering_share"],
        )
        async for _ in run.texts():
            if len(run.ids) >= 4:
                break
        settings = {"late_positions": VectorSetting(layers=[8, 9], scope="reply")}
        start = await run.applied(await run.steer({"late_positions": 0.9}, settings))
        await run.wait()
    ids, prompt = [*run.prompt.ids, *run.ids], len(run.prompt.ids)
    rows = run.rows()
    # The newest token that was here may have been read by no pass yet.
    assert prompt + 3 <= start < prompt + 39
    with (
        torch.inference_mode(),
        hooked(server, reference, "late_positions", ids, prompt, strength_of((start, 0.9)), [8, 9]),
    ):
        reading = reference.read(ids)
    assert reading.differing(ids, prompt) == []
    count = len(ids) - 1
    sent = np.log2(rows[:count, 0]).astype(np.float16)
    error = beyond_rounding("residual_norm", sent, reading.residual_norm[:count])
    assert float((error / reading.residual_norm[:count]).max()) <= 1e-4
    share = rows[:count, run.metrics.index("steering_share")]
    assert not share[:start].any()
    assert (share[start:, [8, 9]] > 0).all()
    assert not np.delete(share, [8, 9], axis=1).any()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "raises",
            "The function 'Raises' could not steer this reply, so it was ended (ZeroDivisionError: as",
        ),
        ("gives_nothing", "InterventionError: It gave nothing back. Return the stream in its place"),
    ],
)
async def test_a_function_that_goes_wrong_ends_the_reply_that_it_was_to_steer_and_no_other(
    server: Server, reference: Reference, name: str, sentence: str
) -> None:
    other = Collected(server, "What is the capital of France?")
    async with connect(f"ws://{server.address}/ws") as client:
        beside = asyncio.create_task(other.act(f"beside-{name}", [], TOKENS))
        run = await client.start(
            [{"role": "user", "content": PROMPT}], sampling={"max_tokens": 40}, strengths={name: 1.0}
        )
        finished = await run.wait()
        assert finished.error is not None
        assert sentence in finished.error.message
        await beside
    assert reference.read(other.ids).differing(other.ids, len(other.prompt)) == []


async def test_only_what_depends_on_its_token_alone_is_read_from_the_cache(server: Server) -> None:
    """`no_manner` says so of itself, and `late_positions` does not."""
    text = " ".join(str(number) for number in range(60))
    async with connect(f"ws://{server.address}/ws") as client:
        read = {}
        for name in ("no_manner", "late_positions"):
            for _ in range(2):
                run = await client.start(
                    [{"role": "user", "content": text}],
                    sampling={"max_tokens": 1, "temperature": 0}, strengths={name: 0.5},
                )  # fmt: skip
                read[name] = (await run.wait()).usage.cached_tokens
    assert read["no_manner"] >= 64
    assert read["late_positions"] == 0


async def test_the_clamp_holds_the_probes_reading(server: Server) -> None:
    """Two files that know nothing of each other: the metric shows what the function has done."""
    async with connect(f"ws://{server.address}/ws") as client:
        readings = []
        for strength in (0.0, 1.0):
            run = await client.start(
                [{"role": "user", "content": "Where does the old lady live?"}],
                sampling={"max_tokens": 2, "temperature": 0},
                metrics=["probe_question"], strengths={"no_question": strength},
            )  # fmt: skip
            await run.wait()
            readings.append(run.rows()[1 : len(run.prompt.ids), 0, 15:])
    before, after = readings
    assert (before > 0.6).any()
    assert after.max() <= 0.501


async def test_what_is_asked_of_it_that_only_vectors_can_do_is_refused(server: Server) -> None:
    import httpx

    from steersight.client import SteersightError

    async with connect(f"ws://{server.address}/ws") as client:
        with pytest.raises(SteersightError, match="No manner is a function of this server"):
            await client.start(
                [{"role": "user", "content": "Hi"}], strengths={"no_manner": 1.0},
                settings={"no_manner": VectorSetting(operator="ablate")},
            )  # fmt: skip
        with pytest.raises(SteersightError, match="projection:no_manner"):
            await client.start([{"role": "user", "content": "Hi"}], metrics=["projection:no_manner"])
    async with httpx.AsyncClient(base_url=f"http://{server.address}") as http:
        listed = {one["id"]: one for one in (await http.get("/api/vectors")).json()}
        assert listed["no_manner"]["kind"] == "function"
        for method, path in (("GET", ""), ("GET", "/file"), ("DELETE", "")):
            answer = await http.request(method, f"/api/vectors/no_manner{path}")
            assert answer.status_code == 409
            assert "No manner is a function in no_manner.py" in answer.json()["error"]
