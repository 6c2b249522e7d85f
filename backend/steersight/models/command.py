"""`steersight models`: what a machine can hold, what is here, and how to get more. Nothing is loaded or
fetched, and no network is asked."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from ..config import ENGINE_SIZE, Settings
from ..engine.options import EngineOptions
from ..flags import add_flags
from ..naming import model_name
from .fit import Fit, Room, fit, gib
from .here import Here, models_here
from .known import KNOWN, Known
from .listing import described, fit_map, here_with_fit, room_now, shape_map


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `steersight models`: those of `serve` that say how large an engine becomes."""
    add_flags(parser, Settings, ENGINE_SIZE)
    parser.add_argument("--json", action="store_true", help="The list as JSON.")


def main(arguments: argparse.Namespace) -> int:
    """The command."""
    options = EngineOptions(**{name: getattr(arguments, name) for name in ENGINE_SIZE})
    room = room_now()
    any_ranks = options.tensor_parallel == 1
    here = [
        (one, here_with_fit(one, room, options, any_ranks=any_ranks)) for one in models_here(options.data_dir)
    ]
    have = {model_name(one.id) for one, _ in here if not one.problem}
    to_get = [
        (known, fit(known.shape, room, options, any_ranks=any_ranks))
        for known in KNOWN
        if model_name(known.name) not in have
    ]
    if arguments.json:
        print(json.dumps(_as_map(room, here, to_get), indent=2))
    else:
        print(_as_text(room, options, here, to_get))
    return 0


def _as_map(
    room: Room, here: list[tuple[Here, Fit]], to_get: list[tuple[Known, Fit]]
) -> dict[str, Any]:  # fmt: skip
    return {
        "engine": "cuda" if room.cuda else "cpu",
        "memory_bytes": room.memory,
        "gpus": [
            {"name": gpu.name, "total_bytes": gpu.total, "free_bytes": gpu.free} for gpu in room.gpus
        ],
        "here": [
            {**described(one, found), "serve": serving(str(one.folder), found)} for one, found in here
        ],
        "to_get": [
            {
                "id": known.name, **shape_map(known.shape), "licence": known.licence, "gated": known.gated,
                **fit_map(found), "get": getting(known), "serve": serving(known.name, found),
            }
            for known, found in to_get
        ],
    }  # fmt: skip


def _as_text(
    room: Room, options: EngineOptions, here: list[tuple[Here, Fit]], to_get: list[tuple[Known, Fit]]
) -> str:
    if room.cuda:
        gpus = "; ".join(f"{gpu.name}, {gib(gpu.free)} of {gib(gpu.total)} free" for gpu in room.gpus)
        machine = f"The engine computes on GPUs: {gpus or 'there is none'}."
    else:
        machine = f"The engine computes on the CPU; {gib(room.memory)} of memory are free."
    lines = [machine, "", "Here"]
    for one, found in here:
        lines += _lines(
            one.id, one.shape.parameters, f"{one.shape.dtype}, {_size(one.size)} in the {one.where}",
            one.shape.layers, one.shape.context, found,
            [] if one.problem else [serving(str(one.folder), found)],
        )  # fmt: skip
    if not here:
        lines.append(
            f"  none in {options.data_dir / 'models'} or the Hugging Face cache; `make model` makes one."
        )
    lines += ["", "To get (not all there is: any decoder that vLLM serves can be tried)"]
    for known, found in to_get:
        terms = f"{known.licence} licence" + (", accept its terms on the hub first" if known.gated else "")
        lines += _lines(
            known.name, known.shape.parameters, terms, known.shape.layers, known.shape.context, found,
            [getting(known), serving(known.name, found)],
        )  # fmt: skip
    lines += ["", "What a model needs is estimated; docs/models.md says how."]
    return "\n".join(lines)


def _lines(
    name: str, parameters: int, about: str, layers: int, context: int | None, found: Fit, commands: list[str]
) -> list[str]:
    tokens = f"{context:,} tokens" if context else "any length"
    lines = [f"  {name}", f"      {_count(parameters)} parameters, {layers} layers, {tokens}; {about}"]
    if not found.fits:
        return [*lines, f"      does not fit. {found.why}"]
    where = {
        "cpu": "of memory",
        "gpu": "of one GPU" if found.ranks == 1 else f"of each of {found.ranks} GPUs",
    }
    lines.append(f"      fits: needs about {gib(found.needs)} {where[found.on]}. {found.why}".rstrip())
    return [*lines, *(f"        {command}" for command in commands)]


def getting(known: Known) -> str:
    """The command that fetches a model."""
    left_out = f" --exclude {shlex.quote(known.leave_out)}" if known.leave_out else ""
    return f"{_beside('hf')} download {known.name}{left_out}"


def serving(model: str, found: Fit) -> str:
    """The command that serves a model."""
    ranks = f" --tensor-parallel {found.ranks}" if found.ranks > 1 else ""
    return f"{_beside('steersight')} serve --model {shlex.quote(model)}{ranks}"


def _beside(command: str) -> str:
    """A command of this environment, as it has to be written here."""
    path = Path(sys.executable).with_name(command)
    if not path.is_file():
        return command
    nearby = os.path.relpath(path)
    return str(path) if nearby.startswith("..") else nearby


def _count(parameters: int) -> str:
    if parameters >= 1e9:
        return f"{parameters / 1e9:.1f} billion"
    return f"{parameters / 1e6:.0f} million" if parameters >= 1e6 else f"{parameters:,}"


def _size(size: int) -> str:
    return gib(size) if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
