"""Writes a recording: one `.npz` whose members are byte for byte those that the page writes of the same run.

Members go into the zip one after the other, so that a run's numbers are held once and a member's bytes once
more. The zip has no times in it: the same recording is the same file.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..files import write_whole
from .layout import COLUMNS, Column, member, rows_column
from .meta import META, Meta, meta_bytes
from .npy import header_bytes
from .recording import RecordedRun, Recording, named_in

SUFFIX = ".steersight.npz"
LEVEL = 1
"""Of deflate. Half floats hardly shrink at any level; what is empty, and text, does at the first."""


def save(recording: Recording, path: str | Path, *, replace: bool = True) -> None:
    """Write it to a file, whole or not at all. Raises OSError; FileExistsError unless it may replace."""
    write_whole(Path(path), recording_bytes(recording), replace=replace)


def recording_bytes(recording: Recording) -> bytes:
    """The file's content."""
    out = io.BytesIO()
    write_recording(recording, out)
    return out.getvalue()


def write_recording(recording: Recording, file: BinaryIO) -> None:
    """Write it to an open file."""
    meta = Meta(
        made_by=recording.made_by, made_at=recording.made_at, title=recording.title, turns=recording.turns,
        runs=[run.info for run in recording.runs],
    )  # fmt: skip
    with zipfile.ZipFile(file, "w") as archive:
        _add(archive, META, meta_bytes(meta))
        for number, run in enumerate(recording.runs):
            for column, array in _members(run):
                values = np.ascontiguousarray(array, dtype=column.dtype)
                _add(
                    archive,
                    member(number, column),
                    header_bytes(values),
                    values.reshape(-1).view(np.uint8).data,
                )


def _add(archive: zipfile.ZipFile, name: str, *pieces: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    info.create_system = 3
    info.file_size = sum(len(piece) for piece in pieces)
    info._compresslevel = LEVEL  # type: ignore[attr-defined]
    with archive.open(info, "w") as member_file:
        for piece in pieces:
            member_file.write(piece)


def _members(run: RecordedRun) -> Iterator[tuple[Column, NDArray[Any]]]:
    """The members of a run, in the order of the table, and then its rows."""
    found: dict[str, NDArray[Any] | None] = {
        "tokens": run.tokens,
        "logprobs": run.logprobs,
        "ranks": run.ranks,
        "revisions": run.revisions,
        "entropy": run.entropy,
    }
    found["text"], found["text_offsets"] = _packed(run.texts)
    if run.lens is not None:
        found |= {f"lens/{name}": array for name, array in vars(run.lens).items()}
    if run.alternatives is not None:
        found |= {f"alternatives/{name}": array for name, array in vars(run.alternatives).items()}
    named = sorted(named_in(run.lens, run.alternatives) & run.names.keys())
    if named:
        found["names/ids"] = np.array(named, dtype="<i4")
        found["names/text"], found["names/text_offsets"] = _packed([run.names[token] for token in named])
    for column in COLUMNS:
        array = found.get(column.name)
        if array is not None:
            yield column, array
    for metric in run.info.metrics:
        yield rows_column(metric.id), run.rows[metric.id]


def _packed(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Their bytes, and where each begins and the last ends."""
    pieces = [text.encode() for text in texts]
    offsets = np.fromiter(accumulate(map(len, pieces), initial=0), dtype="<i4", count=len(pieces) + 1)
    return np.frombuffer(b"".join(pieces), dtype=np.uint8), offsets
