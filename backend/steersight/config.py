"""Settings of the server: command-line flags first, then STEERSIGHT_* variables, then defaults."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .address import DEFAULT_ADDRESS, Address, server_at
from .hosts import host_name, is_loopback

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
    tensor_parallel: int
    kv_cache_gib: int
    gpu_memory: float
    executor: str
    engine_mode: str
    metrics: tuple[str, ...]
    layout: str
    chat_template: str
    """Path of a file; empty is the model's own."""
    name: str
    token: str = field(repr=False)
    """What everybody has to show; empty when nobody is asked."""
    open: bool
    """Whether a server without a token may listen where others can reach it."""
    allow_origin: tuple[str, ...]
    allow_host: tuple[str, ...]
    max_connections: int
    starts_per_minute: int
    max_queue: int
    max_reply_tokens: int
    """0 is as many as the model's length allows."""
    grace_seconds: float
    drain_seconds: float
    stall_seconds: float
    vector_quota_mib: int
    log_format: str
    log_file: str
    """Path; `-` for standard error; empty for a file where a person looks on, else standard error."""
    log_prompts: bool


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


def server_address(text: str) -> Address:
    """Where a running server is, in any form that people have at hand."""
    try:
        return server_at(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def files(text: str) -> tuple[str, ...]:
    """Paths of files that exist, made absolute: the engine's processes may run elsewhere."""
    paths = [Path(part).expanduser().resolve() for part in text.split(os.pathsep) if part]
    for path in paths:
        if not path.is_file():
            raise argparse.ArgumentTypeError(f"There is no file {path}.")
    return tuple(map(str, paths))


def one_file(text: str) -> str:
    """Path of one file that exists, or nothing."""
    found = Path(text).expanduser().resolve() if text else None
    if found is not None and not found.is_file():
        raise argparse.ArgumentTypeError(f"There is no file {found}.")
    return str(found or "")


def layout(text: str) -> str:
    """A layout template, checked here because the engine would fail late."""
    from .engine.layout import parse_template

    try:
        parse_template(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


MAX_TOKEN = 1024
"""Characters; `hello` takes no more."""


def token(text: str) -> str:
    """A token that can travel in a header. Never says what it is."""
    if len(text) > MAX_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError(
            f"A token has at most {MAX_TOKEN} letters, digits and signs of ASCII and no spaces. "
            "Make one with `openssl rand -hex 32`."
        )
    return text


def token_of_file(name: str) -> str:
    """What stands in a file; an empty one holds none."""
    if not name:
        return ""
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not text"
        raise argparse.ArgumentTypeError(f"The token cannot be read from {name}: {what}.") from None
    return token(text.strip())


def hosts(text: str) -> tuple[str, ...]:
    """Names separated by commas, without ports: a name is allowed with any."""
    names = tuple(part.strip().lower().removesuffix(".") for part in text.split(",") if part.strip())
    for name in names:
        if host_name(name) != name or "/" in name:
            raise argparse.ArgumentTypeError(
                f"{name!r} is not the name of a host. Write it as lab.example, without scheme and port."
            )
    return names


def origins(text: str) -> tuple[str, ...]:
    """Addresses of sites separated by commas, as browsers send them."""
    found = tuple(part.strip().lower().removesuffix("/") for part in text.split(",") if part.strip())
    for origin in found:
        scheme, _, place = origin.partition("://")
        if scheme not in ("http", "https") or not host_name(place) or set("/?#@") & set(place):
            raise argparse.ArgumentTypeError(
                f"{origin!r} is not the address of a site. Write it as https://notebook.example:8888."
            )
    return found


def switch(text: str) -> bool:
    """On or off, as variables say it."""
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 1 nor 0.")
    return text.lower() in ("1", "true", "yes", "on")


def log_format(text: str) -> str:
    """How lines are written."""
    if text not in ("text", "json"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither text nor json.")
    return text


class FromEnvironment(str):
    """A default that a variable has set: parsed like a flag's value, and an error names the variable."""

    __slots__ = ()


Flag = Callable[..., None]


def flags_of(parser: argparse.ArgumentParser) -> Flag:
    """A function that adds a flag which can also be set as STEERSIGHT_<NAME>."""

    def flag(name: str, default: str, text: str, kind: Callable[[str], object] = str) -> None:
        """One flag; that of a switch stands alone."""
        variable = "STEERSIGHT_" + name.upper().replace("-", "_")

        def parse(value: str) -> object:
            try:
                return kind(value)
            except argparse.ArgumentTypeError as error:
                if isinstance(value, FromEnvironment):
                    raise argparse.ArgumentTypeError(f"{error} It was set by {variable}.") from None
                raise

        chosen = FromEnvironment(os.environ[variable]) if variable in os.environ else default
        alone: dict[str, object] = {"nargs": "?", "const": "1", "metavar": "0"} if kind is switch else {}
        parser.add_argument(
            f"--{name}",
            type=parse,
            default=chosen,
            help=f"{text} [{variable}]",
            **alone,  # type: ignore[arg-type]
        )

    return flag


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the server listens and where its files are: what `serve` uses and `doctor` looks at."""
    flag = flags_of(parser)
    data = os.environ.get("STEERSIGHT_DATA_DIR", str(REPOSITORY / "data"))
    flag("host", "127.0.0.1", "Address to listen on. Any but loopback needs a token, or --open.")
    flag("port", "8000", "Port to listen on.", number(int, 0, 65535))
    flag("data-dir", data, "Folder of models and vectors.")
    flag(
        "model",
        "",
        "Checkpoint folder or hub name; default is the bundled SmolLM2-135M-Instruct in the data folder.",
    )
    flag("ui", str(REPOSITORY / "frontend" / "dist"), "Folder of the built page.")
    flag(
        "token-file",
        "",
        "File with the token that everybody has to show; or set STEERSIGHT_TOKEN to the token itself.",
        token_of_file,
    )
    flag("open", "0", "Serve everybody who reaches the port, also where that is not only you.", switch)


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
    flag(
        "tensor-parallel",
        "1",
        "Number of GPUs to spread the model over. On a CPU the number of processes, which share out the "
        "cores; VLLM_CPU_OMP_THREADS_BIND gives each its own, such as 0-3|4-7.",
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
    flag(
        "chat-template",
        "",
        "File of a chat template (Jinja) for the model, in place of its own. A model without any continues a "
        "text.",
        one_file,
    )
    flag("name", "", "What the page calls this server; the host's name where none is given.", server_name)
    _add_door_arguments(flag)
    _add_limit_arguments(flag)
    flag("log-format", "text", "Lines of the log: text or json.", log_format)
    flag(
        "log-file",
        "",
        "File for the log and for what the engine's libraries write, begun anew at each start; - is standard "
        "error, and so is none, except on a terminal: logs/server-PORT.log in the data folder.",
    )
    flag("log-prompts", "0", "Also log what people write and what the model answers.", switch)


def _add_door_arguments(flag: Flag) -> None:
    """Who may come in, beside the token."""
    flag(
        "allow-origin",
        "",
        "Sites whose pages may use this server besides its own, separated by commas: https://site.example.",
        origins,
    )
    flag(
        "allow-host",
        "",
        "Names that this server may be called by besides loopback ones and --host, separated by commas.",
        hosts,
    )
    flag("max-connections", "1000", "Sockets that may be open at once.", number(int, 1, INFINITY))
    flag("starts-per-minute", "600", "Runs that one address may start in a minute.", number(int, 1, INFINITY))


def _add_limit_arguments(flag: Flag) -> None:
    """What everybody may take of it."""
    flag("max-queue", "64", "Runs that may wait for a place in the engine.", number(int, 0, INFINITY))
    flag(
        "max-reply-tokens",
        "0",
        "The longest reply, in tokens; 0 is what the model's length allows.",
        number(int, 0, INFINITY),
    )
    flag(
        "grace-seconds",
        "30",
        "How long a run goes on that nobody watches, and is kept when it has finished.",
        number(float, 0, 86_400),
    )
    flag(
        "drain-seconds",
        "10",
        "How long live replies may go on when the server is told to end.",
        number(float, 0, 86_400),
    )
    flag(
        "stall-seconds",
        "60",
        "How long the engine may take for a step before it counts as stuck.",
        number(float, 1, 86_400),
    )
    flag(
        "vector-quota-mib",
        "1024",
        "Disk space for vectors that people bring or make, in MiB.",
        number(int, 0, INFINITY),
    )


def add_address_argument(parser: argparse.ArgumentParser) -> None:
    """`--url`: the running server that is talked to."""
    flags_of(parser)(
        "url",
        DEFAULT_ADDRESS,
        "The server: host:port, or an address that begins with http, https, ws or wss.",
        server_address,
    )


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight chat`. The token is read from the environment only, never from a flag."""
    add_address_argument(parser)
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
        gpu_memory=arguments.gpu_memory, executor=arguments.executor,
        engine_mode=arguments.engine_mode, metrics=arguments.metrics,
        layout=arguments.layout, chat_template=arguments.chat_template,
        name=arguments.name, token=token_from(arguments), open=arguments.open,
        allow_origin=arguments.allow_origin, allow_host=arguments.allow_host,
        max_connections=arguments.max_connections, starts_per_minute=arguments.starts_per_minute,
        max_queue=arguments.max_queue, max_reply_tokens=arguments.max_reply_tokens,
        grace_seconds=arguments.grace_seconds, drain_seconds=arguments.drain_seconds,
        stall_seconds=arguments.stall_seconds, vector_quota_mib=arguments.vector_quota_mib,
        log_format=arguments.log_format, log_file=arguments.log_file, log_prompts=arguments.log_prompts,
    )  # fmt: skip


def token_from(arguments: argparse.Namespace) -> str:
    """The token of `--token-file`, else that of the environment. Raises ValueError with a sentence."""
    if arguments.token_file:
        return str(arguments.token_file)
    try:
        return token(os.environ.get("STEERSIGHT_TOKEN", ""))
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"{error} It was set by STEERSIGHT_TOKEN.") from None


def unguarded(host: str, token: str, is_open: bool) -> str | None:
    """Why the server does not start like this, or None: nobody shall serve a network without knowing."""
    if token or is_open or is_loopback(host):
        return None
    return (
        f"Whoever reaches {host or 'any address of this machine'} could use this server. Give it a token "
        "(--token-file FILE, or STEERSIGHT_TOKEN), or say --open if that is meant."
    )
