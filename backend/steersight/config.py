"""Settings of the server: command-line flags first, then STEERSIGHT_* variables, then defaults."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """Everything `steersight serve` can be told."""

    host: str
    port: int
    model: str
    data_dir: Path
    ui: Path
    dtype: str
    max_model_len: int
    max_runs: int
    tensor_parallel: int
    kv_cache_gib: int


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight serve`. Each can also be set as STEERSIGHT_<NAME>."""

    def flag(name: str, default: str, text: str, kind: type = str) -> None:
        variable = "STEERSIGHT_" + name.upper().replace("-", "_")
        parser.add_argument(
            f"--{name}", type=kind, default=os.environ.get(variable, default), help=f"{text} [{variable}]"
        )

    data = os.environ.get("STEERSIGHT_DATA_DIR", str(REPOSITORY / "data"))
    flag("host", "127.0.0.1", "Address to listen on. Keep it on loopback unless you trust the network.")
    flag("port", "8000", "Port to listen on.", int)
    flag("data-dir", data, "Folder of models and vectors.")
    flag(
        "model",
        "",
        "Checkpoint folder or hub name; default is the bundled SmolLM2-135M-Instruct in the data folder.",
    )
    flag("ui", str(REPOSITORY / "frontend" / "dist"), "Folder of the built page.")
    flag("dtype", "auto", "Weights and activations: auto, float32, bfloat16 or float16.")
    flag("max-model-len", "4096", "The most tokens of prompt and reply together.", int)
    flag("max-runs", "64", "Runs that may be live at once on the whole server.", int)
    flag("tensor-parallel", "1", "Number of GPUs to spread the model over.", int)
    flag("kv-cache-gib", "1", "Size of the KV cache on a CPU, in GiB.", int)


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight chat`. The token is read from the environment only, never from a flag."""
    url = os.environ.get("STEERSIGHT_URL", "ws://127.0.0.1:8000/ws")
    parser.add_argument("--url", default=url, help="Address of the server's socket. [STEERSIGHT_URL]")
    state = os.environ.get("XDG_STATE_HOME", "~/.local/state")
    parser.add_argument("--history", default=f"{state}/steersight/history", help="File of past inputs.")
    parser.set_defaults(token=os.environ.get("STEERSIGHT_TOKEN"))


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Settings of parsed arguments; fills in the bundled model."""
    data_dir = Path(arguments.data_dir).expanduser().resolve()
    model = arguments.model or str(data_dir / "models" / "smollm2-135m-instruct")
    return Settings(
        host=arguments.host, port=arguments.port, model=model, data_dir=data_dir, ui=Path(arguments.ui),
        dtype=arguments.dtype, max_model_len=arguments.max_model_len, max_runs=arguments.max_runs,
        tensor_parallel=arguments.tensor_parallel, kv_cache_gib=arguments.kv_cache_gib,
    )  # fmt: skip
