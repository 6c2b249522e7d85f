"""Settings that cannot be meant are refused where they are read, with a sentence."""

from __future__ import annotations

import argparse
import socket

import pytest

from steersight import config
from steersight.cli import main


def parse(*words: str) -> config.Settings:
    parser = argparse.ArgumentParser()
    config.add_serve_arguments(parser)
    return config.settings_from(parser.parse_args(words))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--port", "70000"], "70000 is out of range: it must be at least 0 and at most 65535."),
        (["--port", "eight"], "'eight' is not a whole number."),
        (["--gpu-memory", "0"], "0 is out of range: it must be more than 0 and at most 1."),
        (["--gpu-memory", "nan"], "nan is out of range"),
        (["--tensor-parallel", "0"], "0 is out of range: it must be at least 1."),
        (["--executor", "threads"], "'threads' is none of auto, mp and ray."),
        (["--executor", "ray"], "Ray is not installed here."),
        (["--name", "x" * 65], "A server's name has at most 64 printable characters."),
        (["--name", "a\nb"], "A server's name has at most 64 printable characters."),
    ],
)
def test_a_refused_setting(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err


def test_the_environment_is_checked_like_a_flag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEERSIGHT_MAX_RUNS", "none")
    with pytest.raises(SystemExit):
        parse()
    assert "'none' is not a whole number. It was set by STEERSIGHT_MAX_RUNS." in capsys.readouterr().err
    assert parse("--max-runs", "3").max_runs == 3


def test_a_refusal_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--max-model-len", "15"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "steersight serve: argument --max-model-len: 15 is out of range: it must be at least 16.\n"
    )


def test_defaults() -> None:
    settings = parse()
    assert (settings.host, settings.port, settings.executor) == ("127.0.0.1", 8000, "auto")
    assert settings.gpu_memory == pytest.approx(0.9)
    assert settings.name == socket.gethostname()[:64]
    assert parse("--name", "lab").name == "lab"


def test_version_names_what_it_stands_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("steersight ")
    assert "nnsight 0.8.1" in said
    assert "vllm " in said
    assert "torch " in said
