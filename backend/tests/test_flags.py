"""An option is spelled once; its flag, its variable, its default and its place are made of that."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

import pytest

from steersight.cli import main
from steersight.config import Settings
from steersight.engine.options import EngineOptions
from steersight.flags import add_flags, option, option_names, part_of, values_of
from steersight.kinds import number, one_of, switch

from .settings import settings


@dataclass(frozen=True)
class Kitchen:
    """Some options, and a field that is none."""

    seats: int = option("4", "Chairs.", number(int, 1, 12))
    stove: str = option("gas", "What it cooks with.", one_of("gas", "wood", "coal"))
    key: str = option("", "What opens it.", name="key-file", secret=True)
    lit: bool = option("0", "Whether the light is on.", switch)
    guests: int = 0


def kitchen(*words: str) -> Kitchen:
    parser = argparse.ArgumentParser()
    add_flags(parser, Kitchen, option_names(Kitchen))
    return Kitchen(**values_of(Kitchen, parser.parse_args(words)))


def test_a_flag_comes_before_its_variable_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert kitchen() == Kitchen() == Kitchen(seats=4, stove="gas", key="", lit=False)
    monkeypatch.setenv("STEERSIGHT_SEATS", "6")
    monkeypatch.setenv("STEERSIGHT_KEY_FILE", "under the mat")
    assert (kitchen().seats, kitchen().key) == (6, "under the mat")
    assert kitchen("--seats", "2").seats == 2


@pytest.mark.parametrize(
    ("words", "variable", "sentence"),
    [
        (
            ["--seats", "13"],
            "",
            "argument --seats: 13 is out of range: it must be at least 1 and at most 12.",
        ),
        (["--stove", "sun"], "", "argument --stove: 'sun' is none of gas, wood and coal.\n"),
        ([], "none", "argument --seats: 'none' is not a whole number. It was set by STEERSIGHT_SEATS.\n"),
    ],
)
def test_an_error_says_what_is_wrong_and_where_it_was_said(
    words: list[str],
    variable: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if variable:
        monkeypatch.setenv("STEERSIGHT_SEATS", variable)
    with pytest.raises(SystemExit):
        kitchen(*words)
    assert sentence in capsys.readouterr().err


def test_a_switch_stands_alone_or_with_a_value() -> None:
    assert kitchen("--lit").lit
    assert not kitchen("--lit", "off").lit


def test_a_secret_is_not_shown() -> None:
    assert "mat" not in repr(kitchen("--key-file", "under the mat"))


def test_what_is_left_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().max_runs is None
    assert settings("--max-runs", "auto").max_runs is None
    monkeypatch.setenv("STEERSIGHT_MAX_RUNS", "")
    assert settings().max_runs is None
    assert settings("--max-runs", "9").max_runs == 9


def test_the_engine_gets_its_part_of_the_settings_and_no_more() -> None:
    whole = settings("--max-model-len", "77", "--dtype", "float32")
    assert type(whole.engine) is EngineOptions
    assert whole.engine == part_of(EngineOptions, whole)
    assert (whole.engine.max_model_len, whole.engine.dtype) == (77, "float32")
    assert "token" not in {field.name for field in fields(EngineOptions)}


def test_every_setting_has_a_flag_and_a_variable_and_its_default_is_of_its_kind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    names = option_names(Settings)
    assert names == [field.name for field in fields(Settings)]
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    said = capsys.readouterr().out
    for name in names:
        flag = (f"{name}-file" if name.endswith("token") else name).replace("_", "-")
        assert f"--{flag} " in said
        assert f"[STEERSIGHT_{flag.upper().replace('-', '_')}]" in said
    default = {field.name: field.default_factory() for field in fields(Settings)}  # type: ignore[misc]
    assert settings() == Settings(**{**default, "model": settings().model})
