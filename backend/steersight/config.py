"""Settings of the server: command-line flags first, then STEERSIGHT_* variables, then defaults."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

INFINITY = float("inf")
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
    max_queue: int
    grace_seconds: float
    drain_seconds: float
    tensor_parallel: int
    kv_cache_gib: int
    gpu_memory: float
    executor: str
    engine_mode: str
    metrics: tuple[str, ...]
    layout: str
    name: str


def number(
    kind: type[int] | type[float], low: float, high: float, more_than_low: bool = False
) -> Callable[[str], float]:
    """A parser of numbers within [low, high], or (low, high], whose error is a sentence."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {word}.") from None
        if not low <= value <= high or (more_than_low and value == low):
            first = f"more than {low:g}" if more_than_low else f"at least {low:g}"
            limit = "" if high == float("inf") else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"{text} is out of range: it must be {first}{limit}.")
        return value

    return parse


def server_name(text: str) -> str:
    """A name that people can read; the host's where none is given."""
    name = text.strip() or socket.gethostname()[:64]
    if len(name) > 64 or not name.isprintable():
        raise argparse.ArgumentTypeError("A server's name has at most 64 printable characters.")
    return name


def executor(text: str) -> str:
    """One of vLLM's executors, checked here because vLLM would fail late and at length."""
    if text not in ("auto", "mp", "ray"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, mp and ray.")
    if text == "ray" and importlib.util.find_spec("ray") is None:
        raise argparse.ArgumentTypeError(
            "Ray is not installed here. Install it in the server's environment with `pip install ray`."
        )
    return text


def engine_mode(text: str) -> str:
    """How the engine runs its forward passes."""
    if text not in ("auto", "eager", "graphs"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, eager and graphs.")
    return text


def files(text: str) -> tuple[str, ...]:
    """Paths of files that exist, made absolute: the engine's processes may run elsewhere."""
    paths = [Path(part).expanduser().resolve() for part in text.split(os.pathsep) if part]
    for path in paths:
        if not path.is_file():
            raise argparse.ArgumentTypeError(f"There is no file {path}.")
    return tuple(map(str, paths))


def layout(text: str) -> str:
    """A layout template, checked here because the engine would fail late."""
    from .engine.layout import parse_template

    try:
        parse_template(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


class FromEnvironment(str):
    """A default that a variable has set: parsed like a flag's value, and an error names the variable."""

    __slots__ = ()


Flag = Callable[..., None]


def flags_of(parser: argparse.ArgumentParser) -> Flag:
    """A function that adds a flag which can also be set as STEERSIGHT_<NAME>."""

    def flag(name: str, default: str, text: str, kind: Callable[[str], object] = str) -> None:
        variable = "STEERSIGHT_" + name.upper().replace("-", "_")

        def parse(value: str) -> object:
            try:
                return kind(value)
            except argparse.ArgumentTypeError as error:
                if isinstance(value, FromEnvironment):
                    raise argparse.ArgumentTypeError(f"{error} It was set by {variable}.") from None
                raise

        chosen = FromEnvironment(os.environ[variable]) if variable in os.environ else default
        parser.add_argument(f"--{name}", type=parse, default=chosen, help=f"{text} [{variable}]")

    return flag


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the server listens and where its files are: what `serve` uses and `doctor` looks at."""
    flag = flags_of(parser)
    data = os.environ.get("STEERSIGHT_DATA_DIR", str(REPOSITORY / "data"))
    flag("host", "127.0.0.1", "Address to listen on. Keep it on loopback unless you trust the network.")
    flag("port", "8000", "Port to listen on.", number(int, 0, 65535))
    flag("data-dir", data, "Folder of models and vectors.")
    flag(
        "model",
        "",
        "Checkpoint folder or hub name; default is the bundled SmolLM2-135M-Instruct in the data folder.",
    )
    flag("ui", str(REPOSITORY / "frontend" / "dist"), "Folder of the built page.")


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight doctor`."""
    add_place_arguments(parser)
    parser.add_argument("--json", action="store_true", help="Findings as JSON.")


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight serve`. Each can also be set as STEERSIGHT_<NAME>."""
    add_place_arguments(parser)
    flag = flags_of(parser)
    flag("dtype", "auto", "Weights and activations: auto, float32, bfloat16 or float16.")
    flag("max-model-len", "4096", "The most tokens of prompt and reply together.", number(int, 16, INFINITY))
    flag("max-runs", "64", "Runs that may be live at once on the whole server.", number(int, 1, INFINITY))
    flag("max-queue", "64", "Runs that may wait for a place beyond that.", number(int, 0, INFINITY))
    flag(
        "grace-seconds",
        "30",
        "How long a run goes on, and a finished one is kept, when its connection is gone.",
        number(float, 0, 3600),
    )
    flag(
        "drain-seconds",
        "10",
        "How long live replies may go on after SIGTERM before they are ended.",
        number(float, 0, 3600),
    )
    flag(
        "tensor-parallel",
        "1",
        "Number of GPUs to spread the model over. On a CPU the number of processes; then also set "
        "VLLM_CPU_OMP_THREADS_BIND to the cores of each, such as 0-3|4-7.",
        number(int, 1, INFINITY),
    )
    flag("kv-cache-gib", "1", "Size of the KV cache on a CPU, in GiB.", number(int, 1, INFINITY))
    flag("gpu-memory", "0.9", "Share of each GPU's memory to use.", number(float, 0, 1, more_than_low=True))
    flag("executor", "auto", "How vLLM runs its ranks: auto, mp or ray (several machines).", executor)
    flag(
        "engine-mode",
        "auto",
        "eager, or graphs (decode in CUDA graphs); auto is graphs on CUDA and eager on a CPU.",
        engine_mode,
    )
    flag(
        "metrics",
        "",
        f"Python files with metrics of your own, separated by {os.pathsep!r}; they run in the server.",
        files,
    )
    flag(
        "layout",
        "",
        "Where a model's layers are, when it is not known: "
        "layers=PATH,form=pair|single,attention=NAME,norm=PATH.",
        layout,
    )
    flag("name", "", "What the page calls this server; the host's name where none is given.", server_name)


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
        max_queue=arguments.max_queue, grace_seconds=arguments.grace_seconds,
        drain_seconds=arguments.drain_seconds,
        tensor_parallel=arguments.tensor_parallel, kv_cache_gib=arguments.kv_cache_gib,
        gpu_memory=arguments.gpu_memory, executor=arguments.executor,
        engine_mode=arguments.engine_mode, metrics=arguments.metrics,
        layout=arguments.layout, name=arguments.name,
    )  # fmt: skip
