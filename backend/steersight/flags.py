"""Options from one spelling of each: a field of a dataclass, with its default, its help and its kind.

    @dataclass(frozen=True)
    class Settings:
        max_runs: int = option("64", "Runs at once.", number(int, 1))

`add_flags` makes of it `--max-runs`, which the variable STEERSIGHT_MAX_RUNS sets as well; `values_of` says
what the command line asks for, else the variable, else the default.

pydantic-settings (2.16) was tried in its place. Its errors do not say whether a flag or a variable was wrong;
its switches stand alone only, so that `--open 0` is refused; and importing it takes longer than all of
`steersight --help`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar, cast, overload

from .kinds import switch

T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """What is said of an option where it is spelled."""

    default: str
    help: str
    kind: Callable[[str], Any]
    """Makes a value of a text, or raises ValueError with a sentence; see `kinds.py`."""


@overload
def option(default: str, text: str, *, name: str = "", secret: bool = False) -> str: ...


@overload
def option(
    default: str, text: str, kind: Callable[[str], T], *, name: str = "", secret: bool = False
) -> T: ...


def option(
    default: str, text: str, kind: Callable[[str], Any] = str, *, name: str = "", secret: bool = False
) -> Any:
    """A field of a dataclass that is an option.

    Args:
        default: as it would be written.
        text: its help.
        kind: makes its value of a text; see `kinds.py`.
        name: the flag's, without dashes, where it is not the field's.
        secret: whether the value is kept out of the dataclass's repr.
    """
    metadata = {"option": Option(default, text, kind), "name": name}
    return field(default_factory=lambda: kind(default), metadata=metadata, repr=not secret)


def option_names(table: type) -> list[str]:
    """The names of the fields of a dataclass that are options."""
    return [one.name for one in fields(table) if "option" in one.metadata]


def add_flags(parser: argparse.ArgumentParser, table: type, names: Iterable[str]) -> None:
    """Add a flag for each of these fields of a dataclass, in this order."""
    found = {one.name: one for one in fields(table)}
    for name in names:
        add_flag(parser, _flag(found[name]), found[name].metadata["option"])


def _flag(one: Field[Any]) -> str:
    return one.metadata["name"] or one.name.replace("_", "-")


def values_of(table: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """The value of each option among a dataclass's fields, by the field's name."""
    return {
        one.name: getattr(arguments, _flag(one).replace("-", "_"))
        for one in fields(table)
        if "option" in one.metadata
    }


def part_of(table: type[T], whole: object) -> T:
    """A dataclass whose fields are all fields of a larger one, filled from that."""
    return table(**{one.name: getattr(whole, one.name) for one in fields(cast(Any, table))})


class FromEnvironment(str):
    """A default that a variable has set: parsed like a flag's value, and an error names the variable."""

    __slots__ = ()


def add_flag(parser: argparse.ArgumentParser, name: str, option: Option) -> None:
    """Add one flag, which can also be set as STEERSIGHT_<NAME>; that of a switch may stand alone."""
    variable = "STEERSIGHT_" + name.upper().replace("-", "_")

    def parse(text: str) -> Any:
        try:
            return option.kind(text)
        except ValueError as error:
            source = f" It was set by {variable}." if isinstance(text, FromEnvironment) else ""
            raise argparse.ArgumentTypeError(f"{error}{source}") from None

    chosen = FromEnvironment(os.environ[variable]) if variable in os.environ else option.default
    alone: dict[str, Any] = {"nargs": "?", "const": "1", "metavar": "0"} if option.kind is switch else {}
    if getattr(option.kind, "repeats", False):
        alone["action"] = Appended
    parser.add_argument(f"--{name}", type=parse, default=chosen, help=f"{option.help} [{variable}]", **alone)


class Appended(argparse.Action):
    """A flag that may be given several times: its values, which are tuples, are put one behind the other.

    The variable is a default like any other: one flag, and it does not count.
    """

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        found: argparse.Namespace,
        value: Any,
        _name: str | None = None,
    ) -> None:
        """Put `value` behind what the flag was given before."""
        given = f"{self.dest} was given"
        before = getattr(found, self.dest) if getattr(found, given, False) else ()
        setattr(found, given, True)
        setattr(found, self.dest, (*before, *value))
