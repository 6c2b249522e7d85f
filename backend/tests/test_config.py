"""Settings that cannot be meant are refused where they are read, with a sentence."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from steersight.cli import main
from steersight.config import unguarded

from .settings import settings as parse


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
        (["--token-file", "/nowhere/token"], "The token cannot be read from /nowhere/token: No such file"),
        (["--open", "perhaps"], "'perhaps' is neither 1 nor 0."),
        (["--allow-host", "http://lab.example"], "'http://lab.example' is not the name of a host."),
        (["--allow-host", "lab.example:8000"], "without scheme and port."),
        (["--allow-origin", "lab.example"], "'lab.example' is not the address of a site."),
        (["--allow-origin", "https://lab.example/page"], "is not the address of a site."),
        (["--max-connections", "0"], "0 is out of range: it must be at least 1."),
        (["--log-format", "xml"], "'xml' is neither text nor json."),
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


def test_a_token_comes_from_a_file_or_the_environment_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    empty = tmp_path / "empty"
    empty.touch()
    monkeypatch.setenv("STEERSIGHT_TOKEN", "of-the-environment")
    assert parse().token == "of-the-environment"
    assert parse("--token-file", str(file)).token == "of-the-file"
    assert parse("--token-file", str(empty)).token == "of-the-environment"
    assert "of-the-" not in repr(parse("--token-file", str(file)))
    monkeypatch.setenv("STEERSIGHT_TOKEN_FILE", str(file))
    assert parse().token == "of-the-file"


@pytest.mark.parametrize("token", ["two words", "späte Einsicht", "x" * 1025])
def test_a_token_that_cannot_travel_is_refused_and_not_repeated(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEERSIGHT_TOKEN", token)
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "It was set by STEERSIGHT_TOKEN." in said
    assert token not in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "lab.example", "127.1", "0"])
def test_a_server_that_others_can_reach_says_who_may_use_it(
    host: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STEERSIGHT_TOKEN", raising=False)
    assert main(["serve", "--host", host]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "--token-file" in said.err
    assert "--open" in said.err


def test_loopback_a_token_or_open_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        assert unguarded(host, "", False) is None
    assert unguarded("0.0.0.0", "secret", False) is None
    assert unguarded("0.0.0.0", "", True) is None
    assert parse("--open").open
    assert not parse().open
    monkeypatch.setenv("STEERSIGHT_OPEN", "1")
    assert parse().open
    assert not parse("--open", "0").open


def test_lists_of_names() -> None:
    settings = parse("--allow-host", "Lab.example, b.example.", "--allow-origin", "https://a.example:8888/")
    assert settings.allow_host == ("lab.example", "b.example")
    assert settings.allow_origin == ("https://a.example:8888",)


def test_a_chat_template_is_a_file_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse().chat_template == ""
    file = tmp_path / "own.jinja"
    with pytest.raises(SystemExit):
        parse("--chat-template", str(file))
    assert f"There is no file {file}." in capsys.readouterr().err
    file.write_text("{{ messages[0].content }}")
    assert parse("--chat-template", str(file)).chat_template == str(file)
    monkeypatch.setenv("STEERSIGHT_CHAT_TEMPLATE", str(file))
    assert parse().chat_template == str(file)


def test_a_reasoning_parser_is_one_of_vllms(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse("--reasoning-parser", "qwen3").reasoning_parser == "qwen3"
    with pytest.raises(SystemExit):
        parse("--reasoning-parser", "qwen33")
    assert "vLLM has no reasoning parser 'qwen33'; it has cohere_command3, " in capsys.readouterr().err
