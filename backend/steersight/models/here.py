"""The checkpoints that are on this machine: in the data folder's `models`, and in the Hugging Face cache.

Only looked at, never loaded, and no network is asked. Importing this is cheap; `huggingface_hub` is imported
where its cache is looked through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import Checkpoint
from ..naming import model_id
from .shape import NotADecoderError, Shape, read_shape

DATA_FOLDER = "data folder"
CACHE = "Hugging Face cache"


@dataclass(frozen=True)
class Here:
    """One checkpoint of a decoder."""

    id: str
    """What it is called: the folder's name, or `org/name` of the hub."""
    folder: Path
    where: str
    """`DATA_FOLDER`, `CACHE`, or where else it was named."""
    size: int
    """Bytes of its files."""
    shape: Shape
    problem: str = ""
    """Why it cannot be served, in a sentence; empty where nothing speaks against it."""


def models_here(data_dir: Path) -> list[Here]:
    """All of them, by their names; those of the data folder first. A name occurs once.

    Args:
        data_dir: whose folder `models` is looked through.
    """
    found: dict[str, Here] = {}
    for where, folder, incomplete in (*_in_data_folder(data_dir), *_in_cache()):
        one = look_at(folder, where, incomplete=incomplete)
        if one is not None:
            found.setdefault(one.id, one)
    return list(found.values())


def look_at(folder: Path, where: str, *, incomplete: bool = False) -> Here | None:
    """What is in a folder; None where it is no decoder's checkpoint.

    Args:
        folder: to be looked at.
        where: in words.
        incomplete: whether a file of it is known to be half downloaded.
    """
    try:
        shape, checkpoint = read_shape(folder)
    except NotADecoderError:
        return None
    problem = _problem(folder, checkpoint, where, incomplete)
    return Here(model_id(str(folder)), folder, where, _size(folder), shape, problem)


def _in_data_folder(data_dir: Path) -> Iterator[tuple[str, Path, bool]]:
    try:
        folders = sorted((data_dir / "models").iterdir())
    except OSError:
        return
    for folder in folders:
        if not folder.name.startswith(".") and folder.is_dir():
            yield DATA_FOLDER, folder, False


def _in_cache() -> Iterator[tuple[str, Path, bool]]:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except (CacheNotFound, ValueError, OSError):
        return
    halves = {file.file_path.parent.parent for file in cache.incomplete_files}
    for repository in sorted(cache.repos, key=lambda one: one.repo_id.lower()):
        if repository.repo_type != "model" or not repository.revisions:
            continue
        # What a name means to everybody who loads it; else the newest.
        chosen = repository.refs.get("main") or max(repository.revisions, key=lambda one: one.last_modified)
        yield CACHE, chosen.snapshot_path, repository.repo_path in halves


def _size(folder: Path) -> int:
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total


def _problem(folder: Path, checkpoint: Checkpoint, where: str, incomplete: bool) -> str:
    again = (
        f"Run `hf download {model_id(str(folder))}` again." if where == CACHE else "Fetch it again, whole."
    )
    if checkpoint.missing:
        first, more = checkpoint.missing[0], len(checkpoint.missing) - 1
        what = f"{first} and {more} more of its files are" if more else f"{first} is"
        return f"{what} missing. {again}"
    if checkpoint.damaged:
        return f"{checkpoint.damaged[0]} was not fetched to its end. {again}"
    if checkpoint.parameters:
        return ""
    if incomplete:
        return f"Its weights are half downloaded. {again}"
    if any(folder.glob("*.bin")):
        return "Its weights are pickled (.bin). Start the server with --model and its name if you trust them."
    return f"It has no weights. {again}"
