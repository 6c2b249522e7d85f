"""A checkpoint that cannot be served: the page is told what is wrong and what to do, wherever that was found
out. Real engines over tiny random checkpoints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import transformers

from steersight.engine.service import EngineOptions, EngineService

from .families import FAMILIES, make_checkpoint

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@asynccontextmanager
async def loading(model: Path, **options: Any) -> AsyncIterator[EngineService]:
    """An engine that is ended afterwards, however far it has come."""
    service = EngineService(
        EngineOptions(
            model=str(model), data_dir=model.parent / "data", max_model_len=256, max_runs=4, **options
        )
    )
    try:
        yield service
    finally:
        await service.shutdown()


def configured(folder: Path, **changes: Any) -> None:
    """Change a checkpoint's configuration."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def missing_shard(folder: Path) -> None:
    make_checkpoint(FAMILIES["Llama"](), folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="200KB")
    (folder / "model-00002-of-00010.safetensors").unlink()


def unknown_architecture(folder: Path) -> None:
    make_checkpoint(FAMILIES["Llama"](), folder)
    configured(folder, architectures=["SolarisForCausalLM"])


def unknown_quantisation(folder: Path) -> None:
    make_checkpoint(FAMILIES["Llama"](), folder)
    configured(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def image_model(folder: Path) -> None:
    make_checkpoint(FAMILIES["Llama"](), folder)
    (folder / "model.safetensors").unlink()
    vision = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 28, "patch_size": 14, "model_type": "clip_vision_model",
    }  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=FAMILIES["Llama"]().to_dict(), image_token_index=3
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        # Said by the worker, by vLLM in the server, and by a process that it asks.
        (missing_shard, "Weights are missing in the checkpoint: model-00002-of-00010.safetensors. Fetch the"),
        (
            unknown_architecture,
            "vLLM does not know the model's architecture (SolarisForCausalLM). Serve another",
        ),
        (
            unknown_quantisation,
            "The weights are quantised with bitsandbytes, which this build of vLLM cannot run.",
        ),
        (image_model, "The model takes images or sound besides text, and needs torchvision, which is not"),
    ],
)
async def test_a_checkpoint_that_cannot_be_served(
    broken: Callable[[Path], None], why: str, tmp_path: Path
) -> None:
    broken(tmp_path / "model")
    async with loading(tmp_path / "model") as service:
        await service.load()
        assert service.status.state == "failed"
        assert service.status.stage.startswith(f"The engine did not start. {why}"), service.status.stage


async def test_an_argument_that_is_passed_through_reaches_vllm(tmp_path: Path) -> None:
    make_checkpoint(FAMILIES["Llama"](), tmp_path / "model")
    async with loading(tmp_path / "model", engine_arg=(("load_format", "tape"),)) as service:
        await service.load()
        assert service.status.state == "failed"
        assert "Load format `tape` is not supported" in service.status.stage, service.status.stage


@pytest.mark.parametrize(
    ("layout", "why"),
    [
        (
            "layers=model.nowhere",
            "LlamaForCausalLM has no list of layers at 'model.nowhere'. Correct layers= of --layout.",
        ),
        (
            "layers=model.layers,form=single",
            "The layout of this model does not hold: the final norm of the last layer's stream is not what",
        ),
    ],
)
async def test_a_layout_that_does_not_hold(layout: str, why: str, tmp_path: Path) -> None:
    """Said by the observer in the worker."""
    make_checkpoint(FAMILIES["Llama"](), tmp_path / "model")
    async with loading(tmp_path / "model", layout=layout) as service:
        await service.load()
        assert service.status.state == "failed"
        assert service.status.stage.startswith(f"The engine did not start. {why}"), service.status.stage


async def test_a_cache_that_no_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out by the worker when vLLM asks it, after it has started."""
    make_checkpoint(FAMILIES["Llama"](), tmp_path / "model")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    async with loading(tmp_path / "model") as service:
        await service.load()
        assert service.status.stage == (
            "The engine did not start. There is less memory left than the 100000.0 GiB that the KV "
            "cache is to have. Lower --kv-cache-gib, or free memory."
        )


async def test_a_worker_that_is_killed_while_it_loads(tmp_path: Path) -> None:
    """As the kernel kills when memory runs out: the process says nothing."""
    make_checkpoint(FAMILIES["Llama"](), tmp_path / "model")
    # The engine that all tests share may be among them.
    others = set(psutil.Process().children(recursive=True))
    async with loading(tmp_path / "model") as service:
        changed = asyncio.Event()
        service.listen(changed.set)
        task = asyncio.create_task(service.load())
        while service.status.stage != "Loading the model's weights":
            await changed.wait()
            changed.clear()
        workers = [
            process
            for process in psutil.Process().children(recursive=True)
            if process not in others and "Worker" in process.name()
        ]
        assert len(workers) == 1, "exactly the one"
        workers[0].kill()
        await task
        assert service.status.stage.startswith(
            "The engine did not start. The engine's process was killed, most likely because memory"
        ), service.status.stage
