"""Recordings that somebody made to do harm, or that were damaged on the way: every one is refused with a
sentence that says where, and none costs more than it is.
"""

from __future__ import annotations

import io
import json
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from steersight.recordings import RecordingError, read_recording, recording_bytes
from steersight.recordings import archive as archive_module

from .recordings_made import conversation

DATA = recording_bytes(conversation())
Members = dict[str, bytes]


def members() -> Members:
    with zipfile.ZipFile(io.BytesIO(DATA)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(files: Members, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def npy(array: Any, header: str | None = None, version: tuple[int, int] = (1, 0)) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array), version=version)
    data = out.getvalue()
    if header is None:
        return data
    size = struct.unpack("<H", data[8:10])[0]
    return data[:8] + struct.pack("<H", len(header) + 1) + header.encode() + b"\n" + data[10 + size :]


def refused(data: bytes, **how: Any) -> str:
    with pytest.raises(RecordingError) as caught:
        read_recording(data, **how)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert len(sentence) < 400
    return sentence


def test_the_recording_itself_is_read_however_it_is_packed() -> None:
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert len(read_recording(packed(members(), how)).runs) == 3
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members().items():
            with archive.open(name, "w", force_zip64=True) as file:  # as numpy.savez does
                file.write(content)
    assert len(read_recording(out.getvalue()).runs) == 3
    saved = io.BytesIO()
    with np.load(io.BytesIO(DATA)) as loaded:
        np.savez_compressed(saved, **{name: loaded[name] for name in loaded if name != "meta.json"})
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("meta.json", members()["meta.json"])
    assert len(read_recording(saved.getvalue()).runs) == 3


# ------------------------------------------------------------ the zip


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip file at all" * 20, DATA[:-1], DATA[:100], DATA[9:]])
def test_what_is_no_whole_zip(data: bytes) -> None:
    refused(data)


def test_what_stands_before_the_zip_or_in_it() -> None:
    at = DATA.rindex(b"PK\x05\x06")
    for data in (b"#!/bin/sh\n" + DATA, DATA[:at] + b"PK\x01\x02" + DATA[at:]):
        assert refused(data) == "Its directory is damaged: it is not where it should be."


def test_more_members_than_a_recording_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "MAX_MEMBERS", 10)
    assert "at most 10" in refused(DATA)


def test_a_directory_that_claims_members_it_has_not() -> None:
    at = DATA.rindex(b"PK\x05\x06")
    for count in (35, 37, 60_000):
        data = DATA[: at + 8] + struct.pack("<2H", count, count) + DATA[at + 12 :]
        assert "directory" in refused(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_twice() -> None:
    out = io.BytesIO(DATA)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("meta.json", b"{}")
    assert refused(out.getvalue()) == "meta.json is there twice."


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up", "runs/../../up", "runs\\0\\x.npy", "C:/x", "C:x", "a" * 1025]
)
def test_names_that_lead_elsewhere(name: str) -> None:
    assert "no name of a member" in refused(packed({**members(), name: b""}))


def test_a_name_that_is_no_text() -> None:
    data = packed({**members(), "later.bin": b""}).replace(b"later.bin", b"later.\xff\xfe\x00")
    assert "not UTF-8" in refused(data)


@pytest.mark.parametrize("how", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packing_that_is_not_known(how: int) -> None:
    assert f"not known: {how}" in refused(packed(members(), how))


def patched(name: str, offset: int, form: str, value: int, *, local: int | None = None) -> bytes:
    """The recording with one number of a member's entry in the directory changed, or of its own header."""
    data = bytearray(DATA)
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    struct.pack_into(form, data, at + offset, value)
    if local is not None:
        struct.pack_into(form, data, struct.unpack_from("<L", data, at + 42)[0] + local, value)
    return bytes(data)


TOKENS = "runs/0/tokens.npy"


def test_an_encrypted_member() -> None:
    assert refused(patched(TOKENS, 8, "<H", 1)) == f"{TOKENS} is encrypted; a recording is not."


def test_claims_of_size_are_not_believed() -> None:
    assert "which no packing reaches" in refused(patched(TOKENS, 24, "<L", 1 << 30))
    assert "claims 20 bytes of values, (5,), and has 16" in refused(
        patched("runs/0/logprobs.npy", 24, "<L", 144)
    )
    assert "ends too early" in refused(patched("meta.json", 24, "<L", 6000))
    assert "longer than the directory says" in refused(patched("meta.json", 24, "<L", 3000))
    assert "longer than the file" in refused(patched(TOKENS, 20, "<L", 1 << 30))
    assert "not where the directory says" in refused(patched(TOKENS, 42, "<L", 5))
    assert "not where the directory says" in refused(patched(TOKENS, 42, "<L", 0xFFFFFF00))
    assert "size for large files is missing" in refused(patched(TOKENS, 24, "<L", 0xFFFFFFFF))
    assert "checksum" in refused(patched(TOKENS, 16, "<L", 1))


def test_a_member_whose_own_header_says_otherwise() -> None:
    at = DATA.index(TOKENS.encode())
    assert "says otherwise" in refused(DATA[:at] + b"runs/0/TOKENS.npy" + DATA[at + len(TOKENS) :])
    assert "says otherwise" in refused(DATA[: at - 24] + b"\x01" + DATA[at - 23 :])


def test_a_size_for_large_files_beyond_the_limit() -> None:
    name, body = b"meta.json", b"x"
    extra = struct.pack("<2HQ", 1, 8, 1 << 62)
    local = struct.pack("<4s5H3L2H", b"PK\x03\x04", 45, 0, 8, 0, 0, 0, 1, 1, len(name), 0) + name + body
    entry = struct.pack(
        "<4s6H3L5H2L", b"PK\x01\x02", 45, 45, 0, 8, 0, 0, 0, 1, 0xFFFFFFFF, len(name), len(extra),
        0, 0, 0, 0, 0,
    )  # fmt: skip
    directory = entry + name + extra
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(directory), len(local), 0)
    assert "which no packing reaches" in refused(local + directory + end)


def test_a_bomb() -> None:
    """A thousandfold is what deflate can do; what it comes to together is limited, and told before."""
    bomb = packed({**members(), "later.bin": bytes(64 << 20)})
    with allocating_less_than(4 << 20):
        assert "would take more than 32 MiB" in refused(bomb, most_bytes=32 << 20)
        read_recording(bomb)  # nobody asks for that member, so nobody unpacks it


def test_a_claim_of_much_allocates_nothing() -> None:
    body = npy(np.zeros(32 << 20, "|u1"))  # packed a thousandfold, as a text of which there is nothing more
    with allocating_less_than(4 << 20):
        assert "is missing" in refused(packed({"meta.json": members()["meta.json"], "runs/0/text.npy": body}))


@contextmanager
def allocating_less_than(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def test_a_stored_member_of_another_size() -> None:
    data = bytearray(packed(members(), zipfile.ZIP_STORED))
    at = data.rindex(TOKENS.encode()) - 46
    struct.pack_into("<L", data, at + 24, 7)
    assert "it is stored" in refused(bytes(data))


# ------------------------------------------------------------ arrays


HEADERS = {
    "an expression": "{'descr': '<i4', 'fortran_order': False, 'shape': (3+6,), }",
    "a call": "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (9,), }",
    "a key too many": "{'descr': '<i4', 'fortran_order': False, 'shape': (9,), 'x': 1, }",
    "a key twice": "{'descr': '<i4', 'descr': '<i4', 'shape': (9,), }",
    "no tuple": "{'descr': '<i4', 'fortran_order': False, 'shape': (9), }",
    "a negative length": "{'descr': '<i4', 'fortran_order': False, 'shape': (-9,), }",
    "a number of Python 2": "{'descr': '<i4', 'fortran_order': False, 'shape': (9L,), }",
    "nothing": "",
    "a list": "['<i4', False, (9,)]",
    "a record": "{'descr': [('x', '<i4')], 'fortran_order': False, 'shape': (9,), }",
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_is_not_plain(what: str) -> None:
    files = {**members(), TOKENS: npy(np.zeros(9, "<i4"), HEADERS[what])}
    assert "not plain" in refused(packed(files))


def test_a_header_in_another_order_is_plain() -> None:
    header = "{'shape':(9,),'fortran_order':False, 'descr': '<i4' }"
    read_recording(packed({**members(), TOKENS: npy(np.zeros(9, "<i4"), header)}))
    read_recording(packed({**members(), TOKENS: npy(np.zeros(9, "<i4"), version=(2, 0))}))


WRONG: dict[str, tuple[str, Any, str]] = {
    "version 3": (TOKENS, npy(np.zeros(9, "<i4"), version=(3, 0)), "version 3.0"),
    "no array": (TOKENS, b"text that is no array", "not an array"),
    "nothing": (TOKENS, b"", "not an array"),
    "a cut header": (TOKENS, npy(np.zeros(9, "<i4"))[:40], "middle of its header"),
    "a long header": (TOKENS, npy(np.zeros(9, "<i4"), " " * 2000), "claims a header of"),
    "Fortran": ("runs/0/rows/residual_norm.npy", npy(np.zeros((8, 3), "<f2", order="F")), "Fortran"),
    "doubles": (TOKENS, npy(np.zeros(9)), "'<f8'"),
    "big-endian": (TOKENS, npy(np.zeros(9, ">i4")), "'>i4'"),
    "pickles": (TOKENS, npy(np.zeros(9, "<i4"), HEADERS["a list"].replace("<i4", "|O")), "not plain"),
    "objects": (
        TOKENS, npy(np.zeros(9, "<i4"), "{'descr': '|O', 'fortran_order': False, 'shape': (9,), }"), "'|O'",
    ),
    "a claim of much": (
        TOKENS,
        npy(np.zeros(9, "<i4"), "{'descr': '<i4', 'fortran_order': False, 'shape': (999999999999999,), }"),
        "claims 3999999999999996 bytes",
    ),
    "a claim of little": (
        TOKENS, npy(np.zeros(9, "<i4"), "{'descr': '<i4', 'fortran_order': False, 'shape': (8,), }"),
        "claims 32 bytes",
    ),
    "more dimensions": (TOKENS, npy(np.zeros((3, 3), "<i4")), "2 dimensions"),
    "more tokens than texts": (TOKENS, npy(np.zeros(10, "<i4")), "contradict each other"),
    "fewer ranks": ("runs/0/ranks.npy", npy(np.zeros(4, "<i4")), "contradict each other"),
    "other layers": ("runs/0/rows/residual_norm.npy", npy(np.zeros((8, 4), "<f2")), "contradict each other"),
    "other columns": ("runs/0/rows/residual_norm.npy", npy(np.zeros((7, 3), "<f2")), "contradict each other"),
    "no offsets": ("runs/0/text_offsets.npy", npy(np.zeros(0, "<i4")), "contradict each other"),
    "offsets that fall": (
        "runs/0/text_offsets.npy", npy(np.array([0, 5, 4, 5, 5, 5, 5, 5, 5, 80], "<i4")), "cut",
    ),
    "offsets beyond": ("runs/0/text_offsets.npy", npy(np.arange(10, dtype="<i4") * 99), "cut"),
    "offsets below": ("runs/0/text_offsets.npy", npy(np.arange(10, dtype="<i4") - 1), "cut"),
    "no UTF-8": ("runs/0/text.npy", npy(np.full(80, 255, "|u1")), "cut"),
    "revisions below -1": ("runs/0/revisions.npy", npy(np.full(8, -2, "<i4")), "cannot stand there"),
    "guesses beyond": ("runs/2/lens/positions.npy", npy(np.arange(4, dtype="<i4") + 99), "ascend"),
    "guesses twice": ("runs/2/lens/positions.npy", npy(np.zeros(4, "<i4")), "ascend"),
    "layers beyond": ("runs/2/lens/layers.npy", npy(np.array([0, 3], "<i4")), "ascend"),
    "names below": ("runs/2/names/ids.npy", npy(np.arange(16, dtype="<i4") - 1), "ascend"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_member_that_is_wrong(what: str) -> None:
    name, content, why = WRONG[what]
    assert name in members()
    sentence = refused(packed({**members(), name: content}))
    assert why in sentence, sentence
    assert name in sentence


@pytest.mark.parametrize(
    "name",
    ["runs/0/tokens.npy", "runs/0/rows/residual_norm.npy", "runs/2/lens/ids.npy", "runs/2/names/text.npy"],
)
def test_a_member_that_is_missing(name: str) -> None:
    files = members()
    del files[name]
    assert refused(packed(files)) == f"{name} is missing."


def test_more_columns_than_tokens() -> None:
    files = {**members(), "runs/0/revisions.npy": npy(np.zeros(12, "<i4"))}
    for name in ("residual_norm", "projection:joy"):
        files[f"runs/0/rows/{name}.npy"] = npy(np.zeros((12, 3), "<f2"))
    assert refused(packed(files)) == "runs/0/revisions.npy has 12 columns for 9 tokens."


def test_a_file_without_meta() -> None:
    files = members()
    del files["meta.json"]
    assert "no meta.json" in refused(packed(files))


# ------------------------------------------------------------ meta


def meta_with(change: Callable[[dict[str, Any]], object]) -> bytes:
    meta = json.loads(members()["meta.json"])
    change(meta)
    return packed({**members(), "meta.json": json.dumps(meta).encode()})


CONTRADICTIONS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda m: m.update(format="zip"), "not of 'steersight-recording'"),
    "no version": (lambda m: m.pop("version"), "version"),
    "an old version": (lambda m: m.update(version=0), "version"),
    "a run that is not there": (lambda m: m["turns"][0].update(run=3), "names a run"),
    "a run below 0": (lambda m: m["turns"][0].update(run=-1), "turns.0.run"),
    "a beginning that is not there": (lambda m: m["turns"][1].update(before=[9]), "names a run"),
    "a circle": (lambda m: m["turns"][0].update(parent="c2"), "circle"),
    "its own parent": (lambda m: m["turns"][0].update(parent="c1"), "circle"),
    "an unknown parent": (lambda m: m["turns"][0].update(parent="c9"), "parent is not there"),
    "two of a name": (lambda m: m["turns"][1].update(id="c1"), "same id"),
    "a metric twice": (lambda m: m["runs"][0]["metrics"].append(m["runs"][0]["metrics"][0]), "twice"),
    "a longer prompt": (lambda m: m["runs"][0]["prompt"].update(tokens=5), "contradict"),
    "a span beyond": (lambda m: m["runs"][0]["prompt"]["spans"][0].update(end=5), "span"),
    "a revision beyond": (lambda m: m["runs"][0]["revisions"][0].update(position=10), "beyond"),
    "revisions that fall": (lambda m: m["runs"][2]["revisions"].reverse(), "ascend"),
    "a part beyond": (lambda m: m["runs"][2]["parts"].update(answer=99), "beyond"),
    "cached beyond": (lambda m: m["runs"][2].update(cached=[[0, 99]]), "cached"),
    "other layers": (lambda m: m["runs"][0]["model"].update(layers=4), "layers"),
    "a metric without rows": (lambda m: m["runs"][0]["metrics"][0].update(id="other"), "rows/other.npy"),
    "a metric that leads out": (lambda m: m["runs"][0]["metrics"][0].update(id="../../x"), "metrics.0.id"),
    "one run more": (lambda m: m["runs"].append(m["runs"][0]), "runs/3/tokens.npy is missing"),
    "no number": (lambda m: m["runs"][0]["finished"]["timing"].update(total_ms=float("nan")), "total_ms"),
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_meta_that_contradicts_itself_or_the_members(what: str) -> None:
    change, why = CONTRADICTIONS[what]
    sentence = refused(meta_with(change))
    assert why in sentence, sentence


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"nul", b"\xff", b"[" * 1_000_000, b'{"format": ' * 200_000, b'"\\ud800"']
)
def test_meta_that_is_no_json(text: bytes) -> None:
    assert "meta.json" in refused(packed({**members(), "meta.json": text}))


def test_meta_that_is_too_long() -> None:
    assert "at most" in refused(packed({**members(), "meta.json": b" " * (33 << 20)}))


def test_a_long_chain_of_turns_is_followed_once() -> None:
    def grow(meta: dict[str, Any]) -> None:
        meta["turns"] = [
            {"id": str(at), "parent": str(at + 1) if at < 49_999 else None, "user": "", "run": 0}
            for at in range(50_000)
        ]

    then = time.perf_counter()
    assert len(read_recording(meta_with(grow)).turns) == 50_000
    assert time.perf_counter() - then < 5


# ------------------------------------------------------------ whatever else

LONGEST_SECONDS = 1.0
MOST_BYTES = 8 << 20


def spoiled(data: bytes, dice: random.Random) -> bytes:
    """Bytes flipped, cut, doubled and moved; sometimes within what is packed."""
    if dice.random() < 0.5:
        files = members()
        name = dice.choice(list(files))
        files[name] = _bent(files[name], dice)
        data = packed(files, dice.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
        if dice.random() < 0.5:
            return data
    return _bent(data, dice)


def _bent(data: bytes, dice: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 8])):
        if not out:
            break
        at, size = dice.randrange(len(out)), dice.choice([1, 1, 2, 4, 50])
        match dice.randrange(5):
            case 0:
                out[at] ^= 1 << dice.randrange(8)
            case 1:
                out[at : at + size] = dice.randbytes(size)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[dice.randrange(len(out)) :][:size]
            case _:
                out[at : at + size] = dice.choice([b"\xff", b"\x00"]) * size
    return bytes(out)


def test_spoiled_files_are_refused_or_read() -> None:
    dice, told = random.Random(20), set()
    for _ in range(1000):
        data, sentence = spoiled(DATA, dice), "."
        then = time.process_time()
        with allocating_less_than(MOST_BYTES):
            try:
                read_recording(data)
            except RecordingError as error:
                sentence = str(error)
        assert sentence.endswith(".")
        assert time.process_time() - then < LONGEST_SECONDS
        told.add(sentence.partition(":")[2][:20])
    assert len(told) > 20


def test_spoiled_streams_unpack_to_no_more_than_was_said() -> None:
    dice = random.Random(3)
    body = zlib.compress(bytes(range(256)) * 40, 9, -15)
    for _ in range(300):
        found = archive_module.Member("x", 0, dice.choice([0, 5, 10_239, 10_240, 10_241]), 0, True, 0)
        bent = _bent(body, dice)
        found = archive_module.Member("x", len(bent), found.size, 0, True, 0)
        unpacking = archive_module.Unpacking(io.BytesIO(bent), found, 0)
        try:
            assert len(unpacking.take(1 << 30)) == found.size
            unpacking.finish()
        except RecordingError as error:
            assert "x is damaged" in str(error)  # noqa: PT017 - most are, some are not
