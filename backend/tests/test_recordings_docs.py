"""docs/recordings.md: its Python runs, and its table is the one that reader and writer share."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from steersight.config import REPOSITORY
from steersight.recordings.layout import COLUMNS, rows_column
from steersight.recordings.meta import Ended, Meta, Parts, PromptInfo, RevisionInfo, RunInfo, Turn, Watched

TEXT = (REPOSITORY / "docs" / "recordings.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
GOLDEN = Path(__file__).parent / "golden" / "recording-1.steersight.npz"

SEES = [
    "assert frame.shape == (8, 3) and list(frame.index)[-1] == '.' and frame.iloc[-1, 1] == 1.0, frame\n"
    "assert json.loads(recording['meta.json'])['runs'][0]['metrics'][0]['transform'] == 'log2'\n",
    "assert values.shape == (8, 3)\n",
]


@pytest.mark.parametrize("number", range(len(SEES)))
def test_the_python_in_it_runs(number: int, tmp_path: Path) -> None:
    assert len(BLOCKS) == len(SEES)
    shutil.copy(GOLDEN, tmp_path / "paris.steersight.npz")
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", BLOCKS[number] + SEES[number]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_numpy_opens_it_in_one_line_and_three_more_make_a_frame() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line and not line.startswith("import")]
    assert len(lines) == 4
    assert lines[0].startswith("recording = numpy.load(")


def test_its_table_says_what_reader_and_writer_share() -> None:
    rows = re.findall(r"^\| `runs/i/(.*?)\.npy` \| `(.*?)` \[(.*?)\] \|", TEXT, re.MULTILINE)
    said = {(name, dtype.replace("\\", ""), dims.replace(" + ", "+")) for name, dtype, dims in rows}
    assert said == {
        (column.name, column.dtype, ", ".join(column.dims)) for column in (*COLUMNS, rows_column("METRIC"))
    }


def test_every_field_of_meta_is_described() -> None:
    for model in (Meta, Turn, RunInfo, PromptInfo, RevisionInfo, Watched, Parts, Ended):
        for name, field in model.model_fields.items():
            assert re.search(rf"`[^`\n]*\b{field.alias or name}\b[^`\n]*`", TEXT), (model, name)
