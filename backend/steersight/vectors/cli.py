"""`steersight vectors`: bring, look at, list and hand on steering vectors. No engine is loaded."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..config import Settings, model_from
from ..files import why, write_whole
from ..flags import add_flags
from . import build_cli
from .importers import Choice, ImportReport, read_import
from .importers.features import MAX_CONFIG_BYTES
from .importers.report import Norm, span
from .store import SUFFIX, Selection, SteeringVector, VectorError, VectorStore, load_vector, save_vector

Arguments = argparse.Namespace
Subparsers = Any  # argparse's own type is private


def add_arguments(subparsers: Subparsers) -> None:
    """Add `vectors` and what belongs to it to the command line."""
    parser = subparsers.add_parser("vectors", help="Import, show, list and export steering vectors.")
    commands = parser.add_subparsers(dest="vectors_command", metavar="COMMAND", required=True)

    bring = commands.add_parser(
        "import",
        help="Bring a vector that another project made.",
        description="Read a file or a folder, say what was found, and save the vectors that fit the model. "
        "docs/steering.md lists the formats.",
    )
    bring.add_argument("path", help="File, folder, or with --catalogue a hub repository.")
    bring.add_argument(
        "--name", default="", metavar="ID", help="The vector's id; default is the file's name."
    )
    bring.add_argument("--label", default="", metavar="TEXT", help="What the page calls it.")
    bring.add_argument(
        "--feature", type=int, nargs="+", action="extend", default=[], metavar="N",
        help="Features of a sparse autoencoder.",
    )  # fmt: skip
    bring.add_argument(
        "--catalogue", type=Path, metavar="FILE", help="A features.json: one vector per entry, by name."
    )
    bring.add_argument(
        "--layer", type=int, metavar="N", help="Layer after which it acts, from 0, where the file has none."
    )
    bring.add_argument("--try", dest="only_try", action="store_true", help="Say what is found; save nothing.")
    _add_places(bring)
    bring.set_defaults(run=_import)

    build_cli.add_arguments(commands)

    show = commands.add_parser("show", help="Say what a vector file holds.")
    show.add_argument("file", type=Path, help="A Steersight vector file.")
    show.set_defaults(run=_show)

    listing = commands.add_parser("list", help="List the vectors that a model is offered.")
    _add_places(listing)
    listing.set_defaults(run=_list)

    export = commands.add_parser(
        "export",
        help="Copy a vector's file, to share it.",
        description="Copy a vector's one file: the same that the page's download gives. Anyone can bring it "
        "back with `steersight vectors import` or in the page.",
    )
    export.add_argument("id", help="The vector's id, as `steersight vectors list` says it.")
    export.add_argument("--to", type=Path, required=True, metavar="FILE", help="Where to; a folder is fine.")
    _add_places(export)
    export.set_defaults(run=_export)


def _add_places(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, Settings, ("data_dir", "model"))


def main(arguments: Arguments) -> int:
    """Run the subcommand; returns the exit status."""
    try:
        status: int = arguments.run(arguments)
    except VectorError as error:
        print(error, file=sys.stderr)
        return 1
    return status


def _config_of(model: str) -> tuple[Path, dict[str, Any]]:
    """A checkpoint's config.json and what it says of the language model. Raises VectorError."""
    path = Path(model).expanduser() / "config.json"
    if not path.is_file():
        from .importers import hub

        if path.parent.exists() or not 1 <= model.count("/") <= 1 or model.startswith(("/", "./", "~")):
            raise VectorError(f"There is no model in {model}. Name its folder with --model.")
        path = hub.download(model, "config.json")
    try:
        config = json.loads(path.read_bytes())
        text = config.get("text_config", config)
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise VectorError(f"{path} does not say hidden_size and num_hidden_layers.") from error
    return path, text if isinstance(text, dict) else {}


def model_shape(model: str) -> tuple[int, int]:
    """Hidden size and number of decoder layers, from a checkpoint's config.json. Raises VectorError."""
    path, config = _config_of(model)
    # GPT-2 and its like have names of their own.
    hidden_size = config.get("hidden_size", config.get("n_embd"))
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    if hidden_size is None or layers is None:
        raise VectorError(f"{path} does not say hidden_size and num_hidden_layers.")
    if type(hidden_size) is not int or type(layers) is not int:
        raise VectorError(f"{path} has a hidden_size or num_hidden_layers that is not a whole number.")
    return hidden_size, layers


def model_norm(model: str) -> Norm:
    """What kind of norms it has, as far as its configuration says."""
    _, config = _config_of(model)
    if "rms_norm_eps" in config:
        return "rms"
    return "layer" if any(name.startswith("layer_norm") for name in config) else "unknown"


def _offered(arguments: Arguments) -> Selection:
    model = model_from(arguments)
    store = VectorStore(arguments.data_dir)
    return store.select(model, *model_shape(model))


def _import(arguments: Arguments) -> int:
    model = model_from(arguments)
    hidden_size, layers = model_shape(model)
    report = read_import(
        Path(arguments.path).name,
        Path(arguments.path).expanduser(),
        model=model,
        hidden_size=hidden_size,
        layers=layers,
        norm=model_norm(model),
        label=arguments.label,
        choose=Choice(
            layer=arguments.layer,
            features=tuple(arguments.feature),
            catalogue=None if arguments.catalogue is None else _small_file(arguments.catalogue),
            id=arguments.name,
        ),
    )
    print(f"{report.format}:")
    for sentence in report.found:
        print(f"  {sentence}")
    for sentence in report.problems:
        print(f"  Note: {sentence}")
    if arguments.only_try:
        for vector in report.vectors:
            print(f"Would save {_line(vector)}")
        return 0
    return _save(report, arguments)


def _small_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise VectorError(
                f"{path} is larger than {MAX_CONFIG_BYTES >> 20} MiB, too large for a catalogue."
            )
        return path.read_bytes()
    except OSError as error:
        raise VectorError(f"{path} cannot be read ({why(error)}).") from error


def _save(report: ImportReport, arguments: Arguments) -> int:
    """Save what has an id that is not taken. A running server offers it from its next start on."""
    folder = arguments.data_dir / "vectors"
    taken = _offered(arguments).vectors
    saved = 0
    for vector in report.vectors:
        path = folder / f"{vector.id}{SUFFIX}"
        if vector.id in taken or path.exists():
            print(f"Not saved: there is a vector {vector.id!r} already. Choose another id with --name.")
            continue
        try:
            save_vector(vector, path)
        except OSError as error:
            raise VectorError(f"{path} cannot be written ({why(error)}).") from error
        saved += 1
        print(f"Saved {_line(vector)}")
    return 0 if saved else 1


def _line(vector: SteeringVector) -> str:
    lo, hi = vector.range
    where = f"{span(vector.layers)}{', attention' if vector.site == 'attention' else ''}"
    strengths = f"{lo:g} to {hi:g}, try {vector.suggested:g}"
    return f"{vector.id} ({vector.label}): {vector.operator} at {where}, {strengths}"


def _show(arguments: Arguments) -> int:
    try:
        vector = load_vector(arguments.file)
    except VectorError as error:
        raise VectorError(f"{arguments.file}: {error}") from error
    print(_line(vector))
    if vector.description:
        print(vector.description)
    print(f"Made for {vector.model}, {vector.hidden_size} numbers a token.")
    print(f"Lengths: {', '.join(f'{length:.4g}' for length in vector.lengths.tolist())}")
    print(f"Can do: {', '.join(vector.operators)}")
    print(json.dumps(vector.provenance, indent=2, ensure_ascii=False))
    return 0


def _list(arguments: Arguments) -> int:
    selection = _offered(arguments)
    for vector in selection.vectors.values():
        print(f"{'own    ' if vector.id in selection.own else 'bundled'}  {_line(vector)}")
    for problem in selection.problems:
        print(problem, file=sys.stderr)
    return 0


def _export(arguments: Arguments) -> int:
    store = VectorStore(arguments.data_dir)
    selection = _offered(arguments)
    vector = selection.vectors.get(arguments.id)
    if vector is None:
        raise VectorError(
            f"There is no vector {arguments.id!r}; it is one of {', '.join(selection.vectors)}."
        )
    own = arguments.id in selection.own
    folder = store.own if own and store.own is not None else store.bundled / vector.model
    source = next(path for path in sorted(folder.glob(f"*{SUFFIX}")) if _has_id(path, vector.id))
    target: Path = arguments.to / f"{vector.id}{SUFFIX}" if arguments.to.is_dir() else arguments.to
    if target.suffix != SUFFIX:
        raise VectorError(f"{target} does not end in {SUFFIX}, which every vector file does.")
    try:
        content = source.read_bytes()
    except OSError as error:
        raise VectorError(f"{source} cannot be read ({why(error)}).") from error
    try:
        write_whole(target, content, replace=False)
    except FileExistsError:
        raise VectorError(f"{target} is there already and was left as it is.") from None
    except OSError as error:
        raise VectorError(f"{target} cannot be written ({why(error)}).") from error
    print(f"Wrote {target}.")
    return 0


def _has_id(path: Path, name: str) -> bool:
    """Is it the file of this vector? A file may be called otherwise."""
    try:
        return load_vector(path).id == name
    except VectorError:
        return False
