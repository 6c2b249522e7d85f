"""LoRA adapters made with peft: tokens and every number of adapted and base runs in one batch, held against
transformers and peft in fp32; nothing of one is taken for the other's; what does not fit is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
import torch
import transformers

from steersight.client import Client, SteersightError, connect
from steersight.making import builder
from steersight.vectors.store import VectorStore, load_vector, save_vector

from .adapters_made import adapt, make_adapter
from .banks import steering_vector
from .conftest import Server, running, write_test_vectors
from .families import FAMILIES, make_checkpoint
from .family_process import PROMPTS, STRENGTHS, FamilyProcess, vectors
from .family_reference import FamilyReference
from .reference import Reference
from .test_building import finished, mean_stream
from .test_engine_truth import TOLERANCE, Collected, directions, worst
from .test_families import check_top, errors_of
from .wire import greedy

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

RUNS = [("", {}), ("small", {}), ("large", {}), ("small", STRENGTHS[1])]
"""Adapter and strengths of each of the tiny model's runs, which are all in one batch."""


@pytest.fixture(scope="module")
def tiny(family_process: FamilyProcess, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of the tiny Llama, of different ranks. One has a larger rank for a module, and leaves a
    layer as it is."""
    model = str(family_process.served("Llama").model)
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "small": make_adapter(model, folder / "small", seed=1, size=0.3, r=4, lora_alpha=8),
        "large": make_adapter(
            model, folder / "large", seed=2, size=0.2, r=8, lora_alpha=8, use_rslora=True,
            target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"down_proj": 12},
            layers_to_transform=[0, 2, 3],
        ),
    }  # fmt: skip


def job(tiny: dict[str, Path], **more: Any) -> dict[str, Any]:
    return {
        "adapters": [[name, str(folder)] for name, folder in tiny.items()],
        "with_adapters": [adapter for adapter, _ in RUNS],
        "prompts": [PROMPTS[0]] * len(RUNS),
        "actions": [[{"vector": v, "strength": s} for v, s in strengths.items()] for _, strengths in RUNS],
        **more,
    }


def test_every_number_of_adapted_and_base_runs_in_one_batch_equals_transformers_with_peft(
    family_process: FamilyProcess, tiny: dict[str, Path]
) -> None:
    served = family_process.served("Llama", **job(tiny))
    assert served.failure is None, served.failure
    start, replies = len(PROMPTS[0]), []
    for index, (adapter, strengths) in enumerate(RUNS):
        reference = FamilyReference(str(served.model))
        if adapter:
            adapt(reference.model, tiny[adapter])
        result = served.result(index)
        ids = PROMPTS[0] + result["reply"].tolist()
        push = [(at, v, strengths[n]) for n in strengths for at, v in vectors()[n].items()]
        reading = reference.read(ids, push, vectors())
        for at in range(start, len(ids)):
            tie = reading.margin[at - 1] < 1e-3
            assert reading.best[at - 1] == ids[at] or tie, f"token {at} of run {index} differs"
            assert reading.ranks[at - 1] == result["ranks"][at - start] or tie
        errors = errors_of(result, reading, start, "Llama")
        assert all(error <= TOLERANCE for error in errors.values()), json.dumps(errors, indent=1)
        check_top(result, reading)
        replies.append(tuple(ids))
    assert len(set(replies)) == len(RUNS), "an adapter did nothing"


def test_two_ranks_adapt_as_one_does(family_process: FamilyProcess, tiny: dict[str, Path]) -> None:
    one = family_process.served("Llama", **job(tiny))
    two = family_process.served("Llama", **job(tiny, tensor_parallel=2))
    assert (one.failure, two.failure) == (None, None)
    for index in range(len(RUNS)):
        alone, together = one.result(index), two.result(index)
        assert np.array_equal(alone["reply"], together["reply"])
        for name in ("values", "entropy", "logprobs", "top_probabilities"):
            assert np.allclose(alone[name], together[name], rtol=2e-3, atol=1e-4, equal_nan=True), name


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"num_hidden_layers": 5}, "it changes model.layers.4.mlp.down_proj, which the model has not"),
        ({"hidden_size": 64}, "its model.layers.0.mlp.down_proj gives 64 numbers, and the model's 128"),
        ({"intermediate_size": 64}, "its model.layers.0.mlp.down_proj takes 64 numbers, and the model's 96"),
        ({"num_key_value_heads": 1}, "a part of its model.layers.0.self_attn.qkv_proj gives 32 numbers"),
    ],
    ids=["more layers", "narrower", "a smaller MLP", "fewer heads"],
)
def test_an_adapter_of_another_model_is_refused_at_load(
    config: dict[str, int], why: str, family_process: FamilyProcess, tmp_path: Path
) -> None:
    """What vLLM would leave out, or fill up with zeros."""
    other = tmp_path / "model"
    make_checkpoint(transformers.LlamaConfig(**{**FAMILIES["Llama"]().to_dict(), **config}), other)
    folder = make_adapter(str(other), tmp_path / "adapter", seed=1, size=0.1, r=4)
    served = family_process.served("Llama", adapters=[["foreign", str(folder)]])
    assert served.failure is not None
    assert "AdapterError: The adapter 'foreign' does not fit this model: " in served.failure
    assert why in served.failure


class Adapted:
    """The server of the bundled model with an adapter, and what transformers says of both."""

    def __init__(self, server: Server, plain: Reference, adapted: Reference) -> None:
        self.server = server
        self.reference = {"": plain, "odd": adapted}

    async def ask(self, client: Client, text: str, adapter: str | None = None, **more: Any) -> Any:
        run = await client.start(
            [{"role": "user", "content": text}], adapter=adapter, sampling=greedy(8), **more
        )
        await run.wait()
        return run


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def adapted(
    model_dir: str, reference: Reference, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Adapted]:
    data = tmp_path_factory.mktemp("data")
    write_test_vectors(data / "vectors")
    folder = make_adapter(model_dir, data / "odd", seed=3, size=0.05, r=8, lora_alpha=16)
    with_peft = Reference(model_dir)
    adapt(with_peft.model, folder)
    async with running(
        "--model", model_dir, "--data-dir", str(data), "--ui", str(data / "no-page"),
        "--max-model-len", "1024", "--max-runs", "16", "--lora", f"odd={folder}",
    ) as server:  # fmt: skip
        yield Adapted(server, reference, with_peft)


async def test_replies_rows_and_steering_of_adapted_and_base_runs_equal_transformers(
    adapted: Adapted,
) -> None:
    """In one batch: base and adapted, unsteered and steered with the same vector."""
    server, text = adapted.server, "Tell me about Paris."
    asked = [(name, strengths) for name in ("", "odd") for strengths in ({}, {"north": 0.2, "east": -0.1})]
    runs = await asyncio.gather(
        *(
            Collected(server, text, name).run(f"lora-{index}", strengths, tokens=24)
            for index, (name, strengths) in enumerate(asked)
        )
    )
    for (name, strengths), run in zip(asked, runs, strict=True):
        push = directions(server, strengths)
        reading = adapted.reference[name].read(run.ids, lambda _position, push=push: push)
        assert reading.differing(run.ids, len(run.prompt)) == reading.ties(run.ids, len(run.prompt)), name
        assert max(worst(run.rows(), reading).values()) <= TOLERANCE
    assert len({tuple(run.ids) for run in runs}) == len(runs), "an adapter or a vector did nothing"


async def test_clients_learn_of_adapters_choose_one_and_see_which_was_used(adapted: Adapted) -> None:
    async with connect(f"ws://{adapted.server.address}/ws") as client, \
               connect(f"ws://{adapted.server.address}/ws") as other:  # fmt: skip
        await client.ready()
        assert client.model is not None
        assert [(known.id, known.rank) for known in client.model.adapters] == [("odd", 8)]
        base, odd = await asyncio.gather(
            adapted.ask(client, "Who are you?"), adapted.ask(client, "Who are you?", "odd")
        )
        assert (base.adapter, odd.adapter) == (None, "odd")
        assert base.ids != odd.ids
        # Whoever watches from elsewhere is told too.
        assert (await other.watch(odd.id)).adapter == "odd"
        with pytest.raises(SteersightError, match=r"There is no adapter 'even'; there are odd\.") as refused:
            await adapted.ask(client, "Who are you?", "even")
        assert (refused.value.code, refused.value.field) == ("unknown_adapter", "adapter")


async def test_nothing_that_was_read_under_an_adapter_is_taken_for_the_other_s(adapted: Adapted) -> None:
    """Neither the engine's cache nor the rows that the server keeps: the same prompt, first of one, then
    of the other, then of both again."""
    text = "Once there was a miller who had three sons and a donkey. " * 9
    async with connect(f"ws://{adapted.server.address}/ws") as client:
        await client.ready()
        runs = [await adapted.ask(client, text, name) for name in (None, "odd", None, "odd")]
        alone = [await adapted.ask(client, text, name, read_cache=False) for name in (None, "odd")]
    cached = [run.finished.usage.cached_tokens for run in runs]
    assert cached[:2] == [0, 0]
    assert min(cached[2:]) > 100
    for run, whole in zip(runs, alone * 2, strict=True):
        assert run.ids == whole.ids
        np.testing.assert_allclose(run.rows()[:-1], whole.rows()[:-1], rtol=4e-3, atol=2e-4)
    assert not np.allclose(alone[0].rows()[100], alone[1].rows()[100], rtol=4e-3)


async def test_streams_that_a_vector_is_made_of_are_the_adapted_model_s(adapted: Adapted) -> None:
    server = adapted.server
    prompt = Collected(server, "Tell me about the sea.").prompt
    for name in ("", "odd"):
        example = await server.engine.examples.take(prompt, first=0, adapter=name)
        expected = mean_stream(adapted.reference[name], prompt, 1, len(prompt))
        assert float(((example.mean - expected).norm(dim=-1) / expected.norm(dim=-1)).max()) < 1e-4


async def test_a_vector_made_under_an_adapter_belongs_to_it(
    adapted: Adapted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It steers runs with the adapter, and others refuse it, at their start and later; a vector of the base
    model steers both."""
    monkeypatch.setattr(builder, "STRENGTHS", (-0.1, 0.1))  # no more than is needed: each takes a second
    monkeypatch.setattr(builder, "TRIED_ON", builder.TRIED_ON[:1])
    wish = {
        "label": "Sunny", "positive": ["I love the sun.", "What a bright day!"],
        "negative": ["I hate the rain.", "What a dark night!"],
    }  # fmt: skip
    async with (
        httpx.AsyncClient(base_url=f"http://{adapted.server.address}", timeout=60) as api,
        connect(f"ws://{adapted.server.address}/ws") as client,
    ):
        await client.ready()
        refused = await api.post("/api/vectors/build", json=wish | {"adapter": "even"})
        assert (refused.status_code, refused.json()["error"]) == (
            422, "`adapter` is none of those that are served: odd."
        )  # fmt: skip
        answer = await api.post("/api/vectors/build", json=wish | {"adapter": "odd"})
        sunny = (await finished(api, answer.json()["job"]))["result"]["vector"]
        assert (sunny["id"], sunny["adapter"]) == ("sunny", "odd")
        steered = await adapted.ask(client, "Who are you?", "odd", strengths={"sunny": 0.3, "north": 0.1})
        unsteered = await adapted.ask(client, "Who are you?", "odd")
        assert steered.ids != unsteered.ids
        why = "was made under the adapter 'odd', and this reply is written with the base model"
        with pytest.raises(SteersightError, match=why):
            await adapted.ask(client, "Who are you?", strengths={"sunny": 0.3})
        run = await client.start([{"role": "user", "content": "Count to ninety."}], sampling=greedy(200))
        with pytest.raises(SteersightError, match=why):
            await run.applied(await run.steer({"sunny": 0.3}))
        await run.stop()
        assert (await api.delete("/api/vectors/sunny")).status_code == 204


def test_a_vector_of_an_adapter_that_is_not_served_is_left_out(tmp_path: Path) -> None:
    vector = replace(steering_vector("mine", {0: torch.ones(8)}), adapter="odd")
    save_vector(vector, tmp_path / "vectors" / "mine.safetensors")
    assert load_vector(tmp_path / "vectors" / "mine.safetensors").adapter == "odd"
    store = VectorStore(tmp_path)
    assert list(store.select("any", 8, 2, ["odd"]).vectors) == ["mine"]
    left_out = store.select("any", 8, 2, [])
    assert left_out.vectors == {}
    assert "made under the LoRA adapter 'odd', which is not served here" in left_out.problems[0]
