"""Reads a recording from a file that anybody may have made.

In this order, so that nothing is allocated on the word of the file: the zip's directory, `meta.json`, the
headers of all members that are needed, their shapes against one another and against meta, and then the
values. What is wrong raises RecordingError with a sentence that names the member; nothing else comes out of
any bytes. Members and fields that are not known are left alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .archive import Archive
from .errors import RecordingError, shown
from .layout import COLUMNS, Column, member, rows_column
from .meta import MAX_META_BYTES, META, Meta, RunInfo, read_meta
from .npy import PREFIX_BYTES, Header, header_size, parse_header
from .recording import Alternatives, Guesses, RecordedRun, Recording

MAX_BYTES = 2 << 30
"""All members together, unpacked, unless the caller says otherwise."""


def read_recording(source: str | Path | bytes, *, most_bytes: int = MAX_BYTES) -> Recording:
    """The recording in a file or in its bytes. Raises RecordingError, and OSError for what cannot be read.

    Args:
        source: a path, or the file's content.
        most_bytes: that all members may have together when they are unpacked.
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), most_bytes)
    with Path(source).open("rb") as file:
        return _read(file, most_bytes)


def check_recording(source: str | Path, *, most_bytes: int = MAX_BYTES) -> Meta:
    """Meta of a file that is read as `read_recording` does, of which no more than a run is held at once."""
    with Path(source).open("rb") as file:
        archive = Archive(file, most_bytes)
        meta = _meta(archive)
        for number, info in enumerate(meta.runs):
            _RunReader(archive, number, info).read()
        return meta


def _read(file: BinaryIO, most_bytes: int) -> Recording:
    archive = Archive(file, most_bytes)
    meta = _meta(archive)
    readers = [_RunReader(archive, number, info) for number, info in enumerate(meta.runs)]
    return Recording(
        runs=[reader.read() for reader in readers], turns=meta.turns, title=meta.title, made_by=meta.made_by,
        made_at=meta.made_at,
    )  # fmt: skip


def _meta(archive: Archive) -> Meta:
    if META not in archive.members:
        raise RecordingError(f"It is no recording: it has no {META}.")
    size = archive.members[META].size
    if size > MAX_META_BYTES:
        raise RecordingError(f"{META} has {size} bytes; at most {MAX_META_BYTES} are read.")
    unpacking = archive.open(META)
    data = unpacking.take(size)
    unpacking.finish()
    return read_meta(data)


class _RunReader:
    """One run's members: their headers when it is made, their values when it is read."""

    def __init__(self, archive: Archive, number: int, info: RunInfo) -> None:
        self._archive = archive
        self._info = info
        self._known: dict[str, tuple[int, str]] = {}
        """Dimension -> its number, and the member that said it."""
        self._headers: dict[str, tuple[str, Header]] = {}
        """Column's name -> member's name, and what its header says."""
        self._number = number
        parts = {c.part for c in COLUMNS if c.part and member(number, c) in archive.members}
        columns = [column for column in COLUMNS if not column.part or column.part in parts]
        for column in [*columns, *(rows_column(metric.id) for metric in info.metrics)]:
            self._take_header(column)
        self._check_lengths()

    def _take_header(self, column: Column) -> None:
        name = member(self._number, column)
        if name not in self._archive.members:
            raise RecordingError(f"{shown(name)} is missing.")
        unpacking = self._archive.open(name)
        start = unpacking.take(PREFIX_BYTES)
        size = header_size(start, shown(name))
        data = start[:size] + unpacking.take(max(0, size - len(start)))
        if len(data) != size:
            raise RecordingError(f"{shown(name)} ends in the middle of its header.")
        header = parse_header(data, shown(name), column.dtype)
        claimed, there = header.values_bytes, self._archive.members[name].size - size
        if len(header.shape) != len(column.dims):
            raise RecordingError(
                f"{shown(name)} has {len(header.shape)} dimensions; it must have {len(column.dims)}."
            )
        if claimed != there:
            raise RecordingError(
                f"{shown(name)} claims {claimed} bytes of values, {header.shape}, and has {there}."
            )
        for dimension, length in zip(column.dims, header.shape, strict=True):
            more = dimension.endswith("+1")
            self._bind(dimension.removesuffix("+1"), length - 1 if more else length, name)
        self._headers[column.name] = name, header

    def _bind(self, dimension: str, length: int, name: str) -> None:
        known, by = self._known.setdefault(dimension, (length, name))
        if length != known or length < 0:
            raise RecordingError(
                f"{shown(name)} and {shown(by)} contradict each other: {length} here, {known} there."
            )

    def _check_lengths(self) -> None:
        def check(right: bool, name: str, why: str) -> None:
            if not right:
                raise RecordingError(f"{shown(name)} and {META} contradict each other: {why}.")

        info = self._info
        (tokens, name), (reply, _) = self._known["p"], self._known["r"]
        columns, of_columns = self._known["c"]
        check(
            info.prompt.tokens + reply == tokens, name,
            f"{info.prompt.tokens} tokens of the prompt and {reply} of the reply are not {tokens}",
        )  # fmt: skip
        if columns > tokens:
            raise RecordingError(f"{shown(of_columns)} has {columns} columns for {tokens} tokens.")
        if info.model is not None and "L" in self._known:
            layers, by = self._known["L"]
            check(layers == info.model.layers, by, f"{layers} layers of a model that has {info.model.layers}")
        places = [revision.position for revision in info.revisions]
        places += [place for place in (info.parts.thought, info.parts.answer) if place is not None]
        check(
            all(place <= tokens for place in places), name, f"a position beyond the {tokens} tokens is named"
        )

    # ------------------------------------------------------------ values

    def read(self) -> RecordedRun:
        """All of it."""
        tokens = self._known["p"][0]
        run = RecordedRun(
            info=self._info,
            tokens=self._array("tokens"),
            texts=self._texts("text"),
            logprobs=self._array("logprobs"),
            ranks=self._array("ranks"),
            revisions=self._array("revisions", lambda revisions: revisions >= -1),
            rows={metric.id: self._array(f"rows/{metric.id}") for metric in self._info.metrics},
        )
        if "entropy" in self._headers:
            run.entropy = self._array("entropy")
        if "lens/ids" in self._headers:
            run.lens = Guesses(
                self._positions("lens/positions", tokens),
                self._positions("lens/layers", self._known["L"][0] if "L" in self._known else 1 << 20),
                self._array("lens/ids"),
                self._array("lens/probabilities"),
            )
        if "alternatives/ids" in self._headers:
            run.alternatives = Alternatives(
                self._positions("alternatives/positions", tokens),
                self._array("alternatives/ids"),
                self._array("alternatives/logprobs"),
            )
        if "names/ids" in self._headers:
            ids = self._positions("names/ids", 1 << 31)
            run.names = dict(zip(ids.tolist(), self._texts("names/text"), strict=True))
        return run

    def _array(
        self, column: str, right: Callable[[NDArray[Any]], NDArray[np.bool_]] | None = None
    ) -> NDArray[Any]:
        name, header = self._headers[column]
        unpacking = self._archive.open(name)
        unpacking.take(header.size)
        values = np.empty(header.shape, dtype=header.dtype)
        if values.size:
            unpacking.into(values.reshape(-1).view(np.uint8).data)
        unpacking.finish()
        if right is not None and not bool(right(values).all()):
            raise RecordingError(f"{shown(name)} holds a number that cannot stand there.")
        return values

    def _positions(self, column: str, end: int) -> NDArray[np.int32]:
        """Numbers that ascend within [0, end)."""
        values = self._array(column)
        if len(values) and not (
            values[0] >= 0 and values[-1] < end and bool((values[1:] > values[:-1]).all())
        ):
            raise RecordingError(
                f"{shown(self._headers[column][0])} must ascend from 0 on and end before {end}."
            )
        return values

    def _texts(self, column: str) -> list[str]:
        """The pieces of text that the offsets cut out of the bytes."""
        name, _ = self._headers[column]
        data = self._array(column).tobytes()
        offsets = self._array(f"{column}_offsets")
        if offsets[0] != 0 or offsets[-1] != len(data) or bool((offsets[1:] < offsets[:-1]).any()):
            raise RecordingError(
                f"{shown(self._headers[f'{column}_offsets'][0])} does not cut {shown(name)} into pieces: "
                f"it must go up from 0 to {len(data)}."
            )
        places = offsets.tolist()
        try:
            return [data[at:end].decode() for at, end in pairwise(places)]
        except UnicodeDecodeError:
            raise RecordingError(f"{shown(name)} is not UTF-8 where it is cut.") from None
