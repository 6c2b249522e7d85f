"""Two real servers with real engines for the whole test run, in the tests' own event loop: one for nearly all
tests, and an odd one for those that need what the bundled model does not have.

Beside the bundled vectors the first serves two made for the tests: random directions, so that no test depends
on what a direction means.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
import torch
import uvicorn
from hypothesis import settings as hypothesis_settings
from safetensors.torch import save_file

from steersight.app import create_app
from steersight.cli import main as cli
from steersight.config import REPOSITORY
from steersight.engine.service import EngineService
from steersight.runs.table import RunTable
from steersight.serving import configured
from steersight.vectors.store import FeatureReader, SteeringVector, save_vector

from .family_process import FamilyProcess
from .odd import ODD_VECTORS, few_blocks, make_odd_checkpoint, odd_vector
from .parting import parting
from .planted_cache import as_a_plugin
from .reference import Reference
from .settings import settings
from .traced import Served, tree_of

# No test is timed: on a busy machine an example may take any time.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

HIDDEN = 576
OWN_FUNCTIONS = (
    *(str(path) for path in sorted((REPOSITORY / "backend/examples/interventions").glob("*.py"))),
    str(Path(__file__).with_name("failing_intervention.py")),
)
OWN_METRICS = (
    *(str(path) for path in sorted((REPOSITORY / "backend/examples/metrics").glob("*.py"))),
    str(Path(__file__).with_name("failing_metric.py")),
)
GRACE_SECONDS = 5.0
"""Of the tests' server: a run that nobody watches ends soon."""
CODE_TOKEN = "only-for-the-tests-of-code"
"""Of the tests' server."""
TEST_VECTORS = {"north": [12], "east": [8, 20]}


@dataclass
class Server:
    """A serving Steersight."""

    address: str
    engine: EngineService
    table: RunTable
    processes: list[psutil.Process]
    """The engine's."""


@pytest.fixture(scope="session")
def model_dir() -> str:
    folder = os.environ.get("STEERSIGHT_MODEL_DIR", str(REPOSITORY / "data/models/smollm2-135m-instruct"))
    assert Path(folder, "config.json").is_file(), f"There is no model in {folder}. Run `make model` first."
    return folder


@pytest.fixture(scope="session")
def reference(model_dir: str) -> Reference:
    return Reference(model_dir)


@pytest.fixture(scope="session")
def family_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FamilyProcess]:
    """The process that serves the families' checkpoints, for the whole test run."""
    process = FamilyProcess(tmp_path_factory.mktemp("families"))
    yield process
    process.end()


def write_test_vectors(folder: Path) -> None:
    generator = torch.Generator().manual_seed(7)
    for name, layers in TEST_VECTORS.items():
        vector = SteeringVector(
            id=name, label=name, description="A random direction.", layers=layers,
            directions=torch.randn(len(layers), HIDDEN, generator=generator),
            range=(-1.0, 1.0), suggested=0.3, model="any", hidden_size=HIDDEN,
        )  # fmt: skip
        save_vector(vector, folder / f"{name}.safetensors")
    # Features of a sparse autoencoder that fire on some tokens: a plain one, and a gated one that scales its
    # inputs.
    readers: dict[str, dict[str, float]] = {
        "fires": {"bias": 2.0, "gate_bias": 2.0, "threshold": 0.5},
        "gated": {"bias": 0.3, "gate_bias": -0.1, "gain": 1.7, "scale_to": 24.0},
    }
    for name, numbers in readers.items():
        encoder, decoder = torch.randn(2, HIDDEN, generator=generator) / HIDDEN**0.5
        vector = SteeringVector(
            id=name, label=name, description="A random feature.", layers=[14], directions=decoder[None] * 2.0,
            range=(-10.0, 40.0), suggested=10.0, model="any", hidden_size=HIDDEN, operator="add_absolute",
            kind="feature", reader=FeatureReader(encoder, **numbers),
        )  # fmt: skip
        save_vector(vector, folder / f"{name}.safetensors")


def import_catalogue(folder: Path, model_dir: str, data: Path) -> None:
    """A catalogue of features as nnsight-vllm-demos has one, brought with the command that people use."""
    for layer, position, hook in ((14, "R", "hook_resid_post"), (9, "A", "hook_attn_out")):
        sae = folder / f"Tiny-Base-L{layer}{position}-8x"
        (sae / "checkpoints").mkdir(parents=True)
        (sae / "hyperparams.json").write_text(
            json.dumps(
                {
                    "hook_point_in": f"blocks.{layer}.{hook}", "hook_point_out": f"blocks.{layer}.{hook}",
                    "d_model": HIDDEN, "d_sae": 64, "act_fn": "jumprelu", "jump_relu_threshold": 1.0,
                    "norm_activation": "dataset-wise",
                    "dataset_average_activation_norm": {"in": 17.0, "out": 17.0},
                    "sparsity_include_decoder_norm": True, "apply_decoder_bias_to_pre_encoder": False,
                }
            )
        )  # fmt: skip
        save_file(demo_weights(layer), sae / "checkpoints" / "final.safetensors")
    entries = {
        "shakespeare": {
            "layer": 14,
            "position": "R",
            "expansion": "8x",
            "index": 41,
            "description": "Old words",
        },
        "stage": {"layer": 9, "position": "A", "expansion": "8x", "index": 7, "description": "Theatre"},
    }
    catalogue = folder / "features.json"
    catalogue.write_text(json.dumps(entries))
    arguments = ["vectors", "import", str(folder), "--catalogue", str(catalogue)]
    assert cli([*arguments, "--model", model_dir, "--data-dir", str(data)]) == 0


def demo_weights(layer: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(layer)
    return {
        "encoder.weight": torch.randn(64, HIDDEN, generator=generator),
        "encoder.bias": torch.randn(64, generator=generator),
        "decoder.weight": torch.randn(HIDDEN, 64, generator=generator) * 0.1,
        "decoder.bias": torch.randn(HIDDEN, generator=generator),
    }


@asynccontextmanager
async def running(*words: str) -> AsyncIterator[Server]:
    """What `steersight serve WORDS` serves, once its engine is ready."""
    before = set(psutil.Process().children(recursive=True))
    app = create_app(settings(*words))
    serving = uvicorn.Server(configured(app, "127.0.0.1", 0))
    task = asyncio.create_task(serving.serve())
    engine: EngineService = app.state.engine
    changed = asyncio.Event()
    unlisten = engine.listen(changed.set)
    async with asyncio.timeout(240):
        while engine.status.state == "loading":
            await changed.wait()
            changed.clear()
    unlisten()
    assert engine.status.state == "ready", engine.status.stage
    port = serving.servers[0].sockets[0].getsockname()[1]
    started = set(psutil.Process().children(recursive=True)) - before
    yield Server(f"127.0.0.1:{port}", engine, app.state.table, list(started))
    serving.should_exit = True
    await task


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(model_dir: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    data = tmp_path_factory.mktemp("data")
    write_test_vectors(data / "vectors")
    import_catalogue(tmp_path_factory.mktemp("features"), model_dir, data)
    key = data / "nnsight-token"
    key.write_text(CODE_TOKEN)
    words = [
        "--model", model_dir, "--data-dir", str(data), "--ui", str(data / "no-page"), "--name", "test",
        "--max-model-len", "2048", "--max-runs", "32", "--grace-seconds", str(GRACE_SECONDS),
        "--metrics", os.pathsep.join(OWN_METRICS),
        "--nnsight", "--nnsight-token-file", str(key), "--nnsight-seconds", "5",
        *(word for path in OWN_FUNCTIONS for word in ("--interventions", path)),
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        with parting():
            serving = await stack.enter_async_context(running(*words))
        yield serving


@pytest.fixture(scope="session")
def tree(model_dir: str) -> Any:
    """What a client without a GPU writes its traces of the bundled model against."""
    return tree_of(model_dir)


@pytest.fixture(scope="session")
def served(server: Server, tree: Any) -> Served:
    """That, and where its traces are run."""
    return Served(tree, server.address, CODE_TOKEN)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def odd_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The server of a model and a cache with peculiarities (odd.py), for tests that need one of them."""
    folder = tmp_path_factory.mktemp("odd")
    make_odd_checkpoint(folder / "model")
    for name, seed in ODD_VECTORS.items():
        save_vector(odd_vector(name, seed), folder / "vectors" / f"{name}.safetensors")
    words = [
        "--model", str(folder / "model"), "--data-dir", str(folder), "--ui", str(folder / "no-page"),
        "--max-model-len", "256", "--max-runs", "8",
    ]  # fmt: skip
    async with AsyncExitStack() as stack:
        with parting(), few_blocks(), as_a_plugin(folder / "plugin"):
            serving = await stack.enter_async_context(running(*words))
        yield serving
