"""Without the library the person is told what to install; with the set-up's copy it is found."""

import ctypes
import os
from pathlib import Path

import pytest

from steersight.engine import libnuma


@pytest.fixture
def bare_system(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A loader that finds a library only by its path; returns what it loaded."""
    loaded: list[str] = []

    def load(name: str, mode: int = 0) -> None:
        if "/" not in name:
            raise OSError(f"{name}: cannot open shared object file")
        loaded.append(name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    return loaded


def test_a_machine_without_it_is_told_what_to_install(bare_system: list[str], tmp_path: Path) -> None:
    with pytest.raises(libnuma.LibraryMissingError, match="apt-get install libnuma1"):
        libnuma.load(tmp_path)


def test_the_copy_counts_here_and_in_child_processes(bare_system: list[str], tmp_path: Path) -> None:
    (tmp_path / libnuma.NAME).write_bytes(b"")
    libnuma.load(tmp_path)
    assert bare_system == [str(tmp_path / libnuma.NAME)]
    assert os.environ["LD_LIBRARY_PATH"] == f"{tmp_path}:/elsewhere"
