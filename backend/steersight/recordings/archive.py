"""The zip around a recording, read without trusting it.

Everything that a file claims is checked before anything is allocated for it: how many members, how they are
named and packed, how large they become. Python's own `zipfile` makes an object of every entry before anyone
can count them, and takes what overlaps or contradicts itself. Raises RecordingError only.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from .errors import RecordingError, shown

MAX_MEMBERS = 100_000
MAX_DIRECTORY_BYTES = 64 << 20
MAX_NAME_BYTES = 1024
MAX_RATIO = 1100
"""Deflate packs a byte into at least 1/1032 of one."""
PIECE = 1 << 18
"""Bytes of the file that are held at once."""
MAX_OUT = 1 << 20
"""Bytes that are unpacked at once."""

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_NO_NUMBER = 0xFFFF_FFFF
_ENCRYPTED_OR_PATCHED = 0x2061
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True)
class Member:
    """What the directory says of one member."""

    name: str
    packed: int
    size: int
    checksum: int
    deflated: bool
    header: int
    """Where its local header is."""


class Archive:
    """The members of a zip file, each of which can be read."""

    def __init__(self, file: BinaryIO, most_bytes: int) -> None:
        """
        Args:
            file: seekable; stays open for as long as members are read.
            most_bytes: that all members may have together when they are unpacked.
        """
        self._file = file
        self._size = file.seek(0, 2)
        self._directory = 0
        """Where the directory begins: no member reaches beyond."""
        self.members: dict[str, Member] = {}
        total = 0
        for found in self._entries():
            if found.name in self.members:
                raise RecordingError(f"{shown(found.name)} is there twice.")
            total += found.size
            if total > most_bytes:
                raise RecordingError(
                    f"{shown(found.name)} is too much: unpacked, the file would take more than "
                    f"{most_bytes >> 20} MiB, which is the limit."
                )
            self.members[found.name] = found

    # ------------------------------------------------------------ the directory

    def _at(self, where: int, count: int) -> bytes:
        self._file.seek(where)
        return self._file.read(count)

    def _entries(self) -> list[Member]:
        count, size, self._directory = self._end()
        if count > MAX_MEMBERS:
            raise RecordingError(f"It has {count} members; at most {MAX_MEMBERS} are read.")
        if size > MAX_DIRECTORY_BYTES:
            raise RecordingError(f"Its directory has {size} bytes, more than one of {MAX_MEMBERS} members.")
        data = self._at(self._directory, size)
        found, at = [], 0
        for _ in range(count):
            entry, at = _entry(data, at)
            found.append(entry)
        if at != size:
            raise RecordingError("Its directory is damaged: there is more in it than it says.")
        return found

    def _end(self) -> tuple[int, int, int]:
        """How many members, and size and place of the directory."""
        tail_size = min(self._size, _END.size + 0xFFFF)
        tail = self._at(self._size - tail_size, tail_size)
        at = tail.rfind(b"PK\x05\x06")
        while at >= 0:
            if at + _END.size <= len(tail):
                _, disk, first, here, count, size, offset, comment = _END.unpack_from(tail, at)
                if at + _END.size + comment == len(tail):
                    break
            at = tail.rfind(b"PK\x05\x06", 0, at)
        else:
            raise RecordingError("It is no recording: it is not a whole zip file.")
        end = self._size - tail_size + at
        if 0xFFFF in (disk, first, here, count) or _NO_NUMBER in (size, offset):
            disk, first, here, count, size, offset, end = self._end64(end)
        if disk or first or here != count:
            raise RecordingError("It is one of several parts of a zip file; a recording is one file.")
        if offset + size != end:
            raise RecordingError("Its directory is damaged: it is not where it should be.")
        return count, size, offset

    def _end64(self, end: int) -> tuple[int, int, int, int, int, int, int]:
        locator = self._at(end - _LOCATOR64.size, _LOCATOR64.size) if end >= _LOCATOR64.size else b""
        if not locator.startswith(b"PK\x06\x07"):
            raise RecordingError("Its directory is damaged: the part for large files is missing.")
        _, _, where, _ = _LOCATOR64.unpack(locator)
        data = self._at(where, _END64.size) if where < self._size else b""
        if len(data) != _END64.size or not data.startswith(b"PK\x06\x06"):
            raise RecordingError(
                "Its directory is damaged: the part for large files is not where it should be."
            )
        _, _, _, _, disk, first, here, count, size, offset = _END64.unpack(data)
        return disk, first, here, count, size, offset, where

    # ------------------------------------------------------------ members

    def open(self, name: str) -> Unpacking:
        """Begin to unpack a member that is there."""
        found = self.members[name]
        header = self._at(found.header, _LOCAL.size) if found.header < self._directory else b""
        if len(header) != _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise RecordingError(f"{shown(name)} is damaged: it is not where the directory says.")
        _, _, flags, method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack(header)
        begin = found.header + _LOCAL.size + name_size + extra_size
        if begin + found.packed > self._directory:
            raise RecordingError(f"{shown(name)} is damaged: it is longer than the file.")
        same = self._at(found.header + _LOCAL.size, name_size) == name.encode()
        if not same or flags & _ENCRYPTED_OR_PATCHED or method != (_DEFLATED if found.deflated else _STORED):
            raise RecordingError(f"{shown(name)} is damaged: the directory says otherwise than the member.")
        return Unpacking(self._file, found, begin)


class Unpacking:
    """One member while it is unpacked, from its beginning on. Never gives more than the directory says."""

    def __init__(self, file: BinaryIO, found: Member, begin: int) -> None:
        self._file = file
        self._found = found
        self._at = begin
        self._left = found.packed
        self._inflate = zlib.decompressobj(-15) if found.deflated else None
        self._pending = b""
        self._given = 0
        self._checksum = 0

    def into(self, target: memoryview) -> None:
        """Fill `target`. Raises RecordingError where the member has less."""
        filled = 0
        while filled < len(target):
            piece = self._piece(len(target) - filled)
            if not piece:
                raise self._damaged("it ends too early")
            target[filled : filled + len(piece)] = piece
            filled += len(piece)

    def take(self, count: int) -> bytes:
        """The next `count` bytes, or as many as are left."""
        out = bytearray(min(count, self._found.size - self._given))
        self.into(memoryview(out))
        return bytes(out)

    def finish(self) -> None:
        """Raise RecordingError unless this was all, and is what was packed."""
        if self._given != self._found.size or self._piece(1):
            raise self._damaged("it is longer than the directory says")
        if self._inflate is not None and not self._inflate.eof:
            raise self._damaged("it ends too early")
        if self._checksum != self._found.checksum:
            raise self._damaged("its checksum is another")

    def _piece(self, most: int) -> bytes:
        """At least a byte of what is next, or nothing at its end."""
        out = b""
        while not out:
            if not self._pending and self._left:
                self._file.seek(self._at)
                self._pending = self._file.read(min(PIECE, self._left))
                self._at += len(self._pending)
                self._left -= len(self._pending)
                if not self._pending:
                    break
            if self._inflate is None:
                out, self._pending = self._pending[:most], self._pending[most:]
                break
            if self._inflate.eof:
                break
            before = len(self._pending)
            try:
                out = self._inflate.decompress(self._pending, min(most, MAX_OUT))
            except zlib.error:
                raise self._damaged("it cannot be unpacked") from None
            self._pending = self._inflate.unconsumed_tail
            if not out and not self._left and len(self._pending) == before:
                break
        self._given += len(out)
        self._checksum = zlib.crc32(out, self._checksum)
        return out

    def _damaged(self, why: str) -> RecordingError:
        return RecordingError(f"{shown(self._found.name)} is damaged: {why}.")


def _entry(data: bytes, at: int) -> tuple[Member, int]:
    """One entry of the directory, and where the next begins."""
    if at + _ENTRY.size > len(data) or data[at : at + 4] != b"PK\x01\x02":
        raise RecordingError("Its directory is damaged: it ends too early.")
    (
        _, _, _, flags, method, _, _, checksum, packed, size, name_size, extra_size, comment_size, disk, _, _,
        header,
    ) = _ENTRY.unpack_from(data, at)  # fmt: skip
    begin = at + _ENTRY.size
    end = begin + name_size + extra_size + comment_size
    if end > len(data):
        raise RecordingError("Its directory is damaged: it ends too early.")
    name = _checked_name(data[begin : begin + name_size])
    extra = data[begin + name_size : begin + name_size + extra_size]
    size, packed, header = _large(extra, [size, packed, header], name)
    if disk:
        raise RecordingError(f"{shown(name)} is in another part of the zip file; a recording is one file.")
    if flags & _ENCRYPTED_OR_PATCHED:
        raise RecordingError(f"{shown(name)} is encrypted; a recording is not.")
    if method not in (_STORED, _DEFLATED):
        raise RecordingError(f"{shown(name)} is packed in a way that is not known: {method}.")
    if method == _STORED and packed != size:
        raise RecordingError(f"{shown(name)} is damaged: it is stored, and claims another size than it has.")
    if size > MAX_RATIO * max(packed, 1):
        raise RecordingError(
            f"{shown(name)} claims to unpack from {packed} bytes to {size}, which no packing reaches."
        )
    return Member(name, packed, size, checksum, method == _DEFLATED, header), end


def _checked_name(raw: bytes) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise RecordingError(f"{shown(repr(raw)[2:-1])} is no name of a member: it is not UTF-8.") from None
    wrong = ""
    if not name or len(raw) > MAX_NAME_BYTES:
        wrong = "it is empty" if not name else "it is too long"
    elif name.startswith("/") or re.match(r"[A-Za-z]:", name):
        wrong = "it is absolute"
    elif "\\" in name or "\0" in name:
        wrong = "it has a sign in it that names do not have"
    elif ".." in name.split("/"):
        wrong = "it leads out of the file"
    if wrong:
        raise RecordingError(f"{shown(name)!r} is no name of a member: {wrong}.")
    return name


def _large(extra: bytes, numbers: list[int], name: str) -> list[int]:
    """Size, packed size and place, from the field for large files where they say that they are there."""
    if _NO_NUMBER not in numbers:
        return numbers
    at = 0
    while at + 4 <= len(extra):
        kind, count = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field, used, out = extra[at + 4 : at + 4 + count], 0, []
            for number in numbers:
                if number == _NO_NUMBER and used + 8 <= len(field):
                    (number,) = struct.unpack_from("<Q", field, used)
                    used += 8
                out.append(number)
            return out
        at += 4 + count
    raise RecordingError(f"{shown(name)} is damaged: its size for large files is missing.")
