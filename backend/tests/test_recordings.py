"""Recordings: what is written is what numpy reads and what is read again, for ever."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steersight.recordings import (
    Alternatives,
    Guesses,
    RecordedRun,
    Recording,
    RecordingError,
    check_recording,
    read_recording,
    recording_bytes,
)
from steersight.recordings.meta import Parts, PromptInfo, RevisionInfo, RunInfo, Turn, meta_bytes, read_meta

from .recordings_made import METRICS, conversation, metric

GOLDEN = Path(__file__).parent / "golden" / "recording-1.steersight.npz"


def assert_same(one: RecordedRun, other: RecordedRun) -> None:
    """Equal to the last bit, NaN and negative zero too."""
    for name, value in vars(one).items():
        found = getattr(other, name)
        pairs: list[tuple[Any, Any]] = [(value, found)]
        if isinstance(value, (Guesses, Alternatives)):
            pairs = list(zip(vars(value).values(), vars(found).values(), strict=True))
        elif name == "rows":
            assert list(value) == list(found)
            pairs = list(zip(value.values(), found.values(), strict=True))
        for left, right in pairs:
            if isinstance(left, np.ndarray):
                assert (left.dtype, left.shape) == (right.dtype, right.shape)
                assert left.tobytes() == right.tobytes(), name
            else:
                assert left == right, name


def test_the_golden_recording_is_read_for_ever() -> None:
    found, made = read_recording(GOLDEN), conversation()
    assert (found.title, found.turns) == (made.title, made.turns)
    assert (found.made_by, found.made_at) == ("steersight 0.1.0", "2026-11-26T12:00:00Z")
    assert len(found.runs) == len(made.runs)
    for run, expected in zip(found.runs, made.runs, strict=True):
        names = expected.names
        expected.names = {token: names[token] for token in run.names}
        assert_same(run, expected)
    assert 21 not in found.runs[2].names
    assert found.runs[2].names[25] == "é"
    assert check_recording(GOLDEN).turns == made.turns


def test_it_is_written_as_it_was_then() -> None:
    members = [zipfile.ZipFile(file) for file in (GOLDEN, io.BytesIO(recording_bytes(conversation())))]
    then, now = ({name: one.read(name) for name in one.namelist()} for one in members)
    assert list(then) == list(now)
    assert [name for name in then if then[name] != now[name] and name != "meta.json"] == []
    assert read_meta(then["meta.json"]) == read_meta(now["meta.json"])


def test_members_are_those_that_numpy_saves() -> None:
    made = conversation()
    with zipfile.ZipFile(io.BytesIO(recording_bytes(made))) as archive, np.load(GOLDEN) as loaded:
        for name in archive.namelist():
            if name.endswith(".npy"):
                saved = io.BytesIO()
                np.save(saved, loaded[name.removesuffix(".npy")])
                assert saved.getvalue() == archive.read(name), name


def test_values_are_in_the_metrics_unit() -> None:
    run = read_recording(GOLDEN).runs[0]
    assert run.values("residual_norm")[-1].tolist() == [np.inf, 1.0, 1.0]
    assert np.array_equal(run.values("projection:joy"), run.rows["projection:joy"].astype(np.float32))


def test_a_metric_of_a_newer_transform_has_no_values_but_keeps_its_rows() -> None:
    made = conversation()
    data = recording_bytes(made)
    text = meta_bytes(read_meta(_member(data, "meta.json"))).replace(b'"log2"', b'"cube_root"')
    run = read_recording(_with(data, "meta.json", text)).runs[0]
    assert np.isnan(run.values("residual_norm")).all()
    assert run.rows["residual_norm"].tobytes() == made.runs[0].rows["residual_norm"].tobytes()
    again = read_recording(recording_bytes(read_recording(_with(data, "meta.json", text))))
    assert again.runs[0].info.metrics[0].transform == "cube_root"


def test_what_a_later_minor_version_adds_is_left_alone() -> None:
    data = recording_bytes(conversation())
    meta = json.loads(_member(data, "meta.json"))
    meta["later"] = {"x": [1]}
    meta["runs"][0]["later"] = meta["runs"][0]["model"]["later"] = meta["turns"][0]["later"] = 1
    data = _with(data, "meta.json", json.dumps(meta).encode())
    data = _with(data, "runs/0/later.npy", b"whatever it is")
    assert_same(read_recording(data).runs[0], conversation().runs[0])


def _member(data: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(name)


def _with(data: bytes, name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for other in old.namelist():
            if other != name:
                new.writestr(other, old.read(other))
        new.writestr(name, content)
    return out.getvalue()


def test_it_is_saved_whole_and_not_over_another_unless_told(tmp_path: Path) -> None:
    path, made = tmp_path / "one.steersight.npz", conversation()
    made.save(path, replace=False)
    assert read_recording(path).title == made.title
    with pytest.raises(FileExistsError):
        made.save(path, replace=False)
    made.save(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# ------------------------------------------------------------ any run there may be

texts = st.text(st.characters(codec="utf-8"), max_size=6)


@st.composite
def runs(draw: st.DrawFn) -> RecordedRun:
    prompt, r = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    p = prompt + r
    c = draw(st.integers(0, p))
    layers = draw(st.integers(1, 3))

    def bits(dtype: str, *shape: int) -> Any:
        raw = draw(arrays(f"<u{dtype[-1]}", shape))
        return raw.view(dtype)

    metrics = draw(st.sampled_from([[], METRICS[:1], METRICS, [metric("..:own.of:mine")]]))
    run = RecordedRun(
        info=RunInfo(
            metrics=metrics, prompt=PromptInfo(tokens=prompt, spans=[]), parts=Parts(),
            revisions=[RevisionInfo(rev=0, position=0, strengths={"joy": draw(st.floats(-9, 9))})],
        ),
        tokens=bits("<i4", p), texts=draw(st.lists(texts, min_size=p, max_size=p)), logprobs=bits("<f4", r),
        ranks=bits("<i4", r), revisions=draw(arrays("<i4", c, elements=st.integers(-1, 2**31 - 1))),
        rows={one.id: bits("<f2", c, layers) for one in metrics},
    )  # fmt: skip
    if draw(st.booleans()):
        run.entropy = bits("<f2", c)
    n, top = draw(st.integers(0, p)), draw(st.integers(0, 3))
    positions = np.arange(n, dtype="<i4")
    if draw(st.booleans()):
        read = np.arange(draw(st.integers(0, layers)), dtype="<i4")
        shape = (n, len(read), top)
        run.lens = Guesses(
            positions, read, draw(arrays("<i4", shape, elements=st.integers(-1, 5))), bits("<f2", *shape)
        )
    if draw(st.booleans()):
        ids = draw(arrays("<i4", (n, top), elements=st.integers(-1, 5)))
        run.alternatives = Alternatives(positions, ids, bits("<f4", n, top))
    named = {
        int(token)
        for part in (run.lens, run.alternatives)
        if part is not None
        for token in np.unique(part.ids)
        if token >= 0
    }
    run.names = {token: draw(texts) for token in sorted(named) if draw(st.booleans())}
    return run


@settings(max_examples=60, deadline=None)
@given(st.lists(runs(), min_size=1, max_size=2))
def test_whatever_is_written_is_read_again(made: list[RecordedRun]) -> None:
    turns = [Turn(id=str(number), user="?", run=number) for number in range(len(made))]
    data = recording_bytes(Recording(made, turns, title="t"))
    found = read_recording(data)
    for one, other in zip(made, found.runs, strict=True):
        assert_same(one, other)
    assert recording_bytes(found) == data
    with np.load(io.BytesIO(data)) as loaded:
        assert np.array_equal(loaded["runs/0/tokens"], made[0].tokens)


@pytest.mark.parametrize("version", [2, 99])
def test_a_newer_version_is_told(version: int) -> None:
    data = recording_bytes(conversation())
    meta = json.loads(_member(data, "meta.json")) | {"version": version, "runs": "otherwise"}
    with pytest.raises(RecordingError, match=f"newer Steersight: version {version}, this one reads 1"):
        read_recording(_with(data, "meta.json", json.dumps(meta).encode()))


PAGES = Path(__file__).parents[2] / "frontend" / "src" / "recording" / "golden" / "page-1.steersight.npz"


def test_what_the_page_wrote_is_read_and_written_alike() -> None:
    found = read_recording(PAGES)
    with zipfile.ZipFile(PAGES) as theirs, zipfile.ZipFile(io.BytesIO(recording_bytes(found))) as ours:
        assert sorted(theirs.namelist()) == sorted(ours.namelist())
        arrays = [name for name in theirs.namelist() if name != "meta.json"]
        assert len(arrays) > 20
        assert [name for name in arrays if theirs.read(name) != ours.read(name)] == []
        meta = read_meta(theirs.read("meta.json"))
        assert read_meta(ours.read("meta.json")) == meta
    assert [turn.run for turn in found.turns] == [0, 1]
