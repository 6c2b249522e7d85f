"""`steersight vectors build`: have a running server make a vector, and watch it do so."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from .. import config


def add_arguments(commands: Any) -> None:
    """Add `build` to `steersight vectors`."""
    parser = commands.add_parser(
        "build",
        help="Have a running server make a vector.",
        description="The file is JSON or YAML with `label`, `positive` and `negative` (instructions, or "
        "lists of example texts) and, if you like, `topics`. A server that asks for a token gets that of "
        "STEERSIGHT_TOKEN.",
    )
    parser.add_argument("file", type=Path, help="What the vector is made of.")
    config.add_address_argument(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    import httpx

    try:
        wish = read(arguments.file)
        token = os.environ.get("STEERSIGHT_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx.Client(base_url=arguments.url.http, headers=headers, timeout=60) as server:
            job = _answer(server.post("/api/vectors/build", json=wish))["job"]
            try:
                state = _watch(server, job)
            except KeyboardInterrupt:
                server.delete(f"/api/vectors/build/{job}")
                print("Cancelled.", file=sys.stderr)
                return 130
    except httpx.TransportError as error:
        print(
            f"There is no server at {arguments.url.http} ({error}). Start one with `make run`.",
            file=sys.stderr,
        )
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    if state["state"] != "done":
        print(state["error"] or f"It was {state['state']}.", file=sys.stderr)
        return 1
    result = state["result"]
    lo, hi = result["range"]
    made = f"{result['vector']['id']}: layer {result['layer']}"
    print(f"{made}, {lo:g} to {hi:g}, suggested {result['suggested']:g}.")
    for point in result["sweep"]:
        text = " ".join(point["sample"].split())
        print(
            f"  {point['strength']:+.2f}  effect {point['effect']:+.2f}  damage {point['damage']:.2f}  {text}"
        )
    return 0


def read(path: Path) -> dict[str, Any]:
    """The file's fields as the server takes them. Raises ValueError with a sentence."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no fields; it needs label, positive and negative.")
    # A bundled recipe has more: layer and range are what building finds out.
    return {name: found[name] for name in ("label", "positive", "negative", "topics") if name in found}


def _watch(server: Any, job: str) -> dict[str, Any]:
    said = ""
    while True:
        state = _answer(server.get(f"/api/vectors/build/{job}"))
        if state["stage"] != said:
            said = state["stage"]
            print(f"[{state['progress']:4.0%}] {said}", flush=True)
        if state["state"] != "running":
            return state
        time.sleep(0.5)


def _answer(response: Any) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"What answers at {response.url} is no Steersight server, or not under this path "
            f"(status {response.status_code}). Check --url."
        )
    if response.status_code >= 400:
        raise ValueError(found.get("error", f"The server answered {response.status_code}."))
    return found
