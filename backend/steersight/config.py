"""What the commands can be told: command-line flags first, then STEERSIGHT_* variables, then defaults.

Each option of `steersight serve` is spelled once, as a field of `Settings` or, where it concerns how the
engine is started, of `EngineOptions`, which `Settings` adds to.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from .address import DEFAULT_ADDRESS, server_at
from .engine.options import EngineOptions
from .files import REPOSITORY as REPOSITORY
from .flags import Option, add_flag, add_flags, option, option_names, part_of, values_of
from .hosts import is_loopback
from .kinds import hosts, number, one_of, origins, server_name, switch, token, token_of_file

PLACE = ("host", "port", "data_dir", "model", "ui", "token", "open")
"""Where the server listens and where its files are: what `serve` uses and `doctor` looks at."""

MIN_NNSIGHT_TOKEN = 16
"""Characters: whoever has it can run code here."""
ENGINE_SIZE = ("data_dir", "dtype", "max_model_len", "tensor_parallel", "kv_cache_gib", "gpu_memory")
"""What says how much of a machine an engine takes: what `models` estimates with."""


@dataclass(frozen=True)
class Settings(EngineOptions):
    """Everything `steersight serve` can be told."""

    host: str = option("127.0.0.1", "Address to listen on. Any but loopback needs a token, or --open.")
    port: int = option("8000", "Port to listen on.", number(int, 0, 65535))
    ui: Path = option(str(REPOSITORY / "frontend" / "dist"), "Folder of the built page.", Path)
    token: str = option(
        "",
        "File with the token that everybody has to show; or set STEERSIGHT_TOKEN to the token itself.",
        token_of_file,
        name="token-file",
        secret=True,
    )
    """The token itself; empty when nobody is asked."""
    open: bool = option("0", "Serve everybody who reaches the port, also where that is not only you.", switch)

    name: str = option(
        "", "What the page calls this server; the host's name where none is given.", server_name
    )
    allow_origin: tuple[str, ...] = option(
        "",
        "Sites whose pages may use this server besides its own, separated by commas: https://site.example.",
        origins,
    )
    allow_host: tuple[str, ...] = option(
        "",
        "Names that this server may be called by besides loopback ones and --host, separated by commas.",
        hosts,
    )
    nnsight_token: str = option(
        "",
        "File with the token for --nnsight, which is asked for on loopback too; or set "
        "STEERSIGHT_NNSIGHT_TOKEN to the token itself.",
        token_of_file,
        name="nnsight-token-file",
        secret=True,
    )
    """The token itself."""
    max_connections: int = option("1000", "Sockets that may be open at once.", number(int, 1))
    starts_per_minute: int = option("600", "Runs that one address may start in a minute.", number(int, 1))

    max_queue: int = option("64", "Runs that may wait for a place in the engine.", number(int, 0))
    max_reply_tokens: int = option(
        "0", "The longest reply, in tokens; 0 is what the model's length allows.", number(int, 0)
    )
    kept_rows_mib: int = option(
        "256", "Memory for rows of prompts, for replies whose prompts begin alike, in MiB.", number(int, 0)
    )
    grace_seconds: float = option(
        "30",
        "How long a run goes on that nobody watches, and is kept when it has finished.",
        number(float, 0, 86_400),
    )
    drain_seconds: float = option(
        "10", "How long live replies may go on when the server is told to end.", number(float, 0, 86_400)
    )
    change_model: bool = option(
        "0",
        "Let whoever may use this server change its model to another that `steersight models` finds here.",
        switch,
    )
    vector_quota_mib: int = option(
        "1024", "Disk space for vectors that people bring or make, in MiB.", number(int, 0)
    )

    log_format: str = option("text", "Lines of the log: text or json.", one_of("text", "json"))
    log_file: str = option(
        "",
        "File for the log and for what the engine's libraries write, begun anew at each start; - is standard "
        "error, and so is none, except on a terminal: logs/server-PORT.log in the data folder.",
    )
    log_prompts: bool = option("0", "Also log what people write and what the model answers.", switch)

    @property
    def engine(self) -> EngineOptions:
        """The engine's part alone: nothing of the doors, and no token."""
        return part_of(EngineOptions, self)


@dataclass(frozen=True)
class ReplaySettings:
    """What `steersight replay` can be told besides the file."""

    host: str = option("127.0.0.1", "Address to listen on. Any but loopback needs --open.")
    # Beside a server, which has the port before it.
    port: int = option("8001", "Port to listen on; 0 is a free one.", number(int, 0, 65535))
    ui: Path = option(str(REPOSITORY / "frontend" / "dist"), "Folder of the built page.", Path)
    open: bool = option("0", "Let everybody who reaches the port read the recording.", switch)


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight doctor`."""
    add_flags(parser, Settings, PLACE)
    parser.add_argument("--json", action="store_true", help="Findings as JSON.")


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight serve`. Each can also be set as STEERSIGHT_<NAME>."""
    add_flags(parser, Settings, dict.fromkeys((*PLACE, *option_names(Settings))))


def add_address_argument(parser: argparse.ArgumentParser) -> None:
    """`--url`: the running server that is talked to."""
    add_flag(
        parser,
        "url",
        Option(
            DEFAULT_ADDRESS,
            "The server: host:port, or an address that begins with http, https, ws or wss.",
            server_at,
        ),
    )


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight chat`. The token is read from the environment only, never from a flag."""
    add_address_argument(parser)
    state = os.environ.get("XDG_STATE_HOME", "~/.local/state")
    parser.add_argument("--history", default=f"{state}/steersight/history", help="File of past inputs.")
    parser.set_defaults(token=os.environ.get("STEERSIGHT_TOKEN"))


def add_replay_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight replay`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="The recording, a .steersight.npz file.")
    parser.add_argument(
        "--html", type=Path, metavar="OUT", help="Write page and recording into one HTML file; serve nothing."
    )
    add_flags(parser, ReplaySettings, option_names(ReplaySettings))


def settings_from(arguments: argparse.Namespace) -> Settings:
    """Settings of parsed arguments, with the bundled model where none is named and the environment's token
    where no file has one. Raises ValueError with a sentence."""
    values = values_of(Settings, arguments)
    values["model"] = model_from(arguments)
    values["token"] = token_from(arguments)
    if values["change_model"] and not values["token"] and not is_loopback(values["host"]):
        where = values["host"] or "any address of this machine"
        raise ValueError(
            f"--change-model would let everybody who reaches {where} end other people's replies. Give the "
            "server a token (--token-file FILE, or STEERSIGHT_TOKEN)."
        )
    values["nnsight_token"] = token_from(arguments, "nnsight_token_file", "STEERSIGHT_NNSIGHT_TOKEN")
    if values["nnsight"] and len(values["nnsight_token"]) < MIN_NNSIGHT_TOKEN:
        raise ValueError(
            "--nnsight runs code that clients send, so it wants a token of its own of at least "
            f"{MIN_NNSIGHT_TOKEN} characters, on loopback too (--nnsight-token-file FILE, or "
            "STEERSIGHT_NNSIGHT_TOKEN). Make one with `openssl rand -hex 32`."
        )
    if values["nnsight"] and values["nnsight_token"] == values["token"]:
        raise ValueError(
            "The token for --nnsight is that of the server too, so that everybody could run code in it. Make "
            "another one."
        )
    return Settings(**values)


def model_from(arguments: argparse.Namespace) -> str:
    """The model that is named, else the bundled one in the data folder."""
    return arguments.model or str(arguments.data_dir / "models" / "smollm2-135m-instruct")


def token_from(
    arguments: argparse.Namespace, of_file: str = "token_file", variable: str = "STEERSIGHT_TOKEN"
) -> str:
    """The token of a flag's file, else that of the environment. Raises ValueError with a sentence."""
    if found := getattr(arguments, of_file):
        return str(found)
    try:
        return token(os.environ.get(variable, ""))
    except ValueError as error:
        raise ValueError(f"{error} It was set by {variable}.") from None


def unguarded(host: str, token: str, is_open: bool) -> str | None:
    """Why the server does not start like this, or None: nobody shall serve a network without knowing."""
    if token or is_open or is_loopback(host):
        return None
    return (
        f"Whoever reaches {host or 'any address of this machine'} could use this server. Give it a token "
        "(--token-file FILE, or STEERSIGHT_TOKEN), or say --open if that is meant."
    )
