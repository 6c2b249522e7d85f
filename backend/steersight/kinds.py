"""Kinds of values that an option can have: each turns a text into a value, or raises ValueError.

The error is a sentence for whoever has written the text. It says what is wrong and what would be right; which
option it was, `flags.py` adds.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from .hosts import host_name

T = TypeVar("T")
Number = TypeVar("Number", int, float)

INFINITY = math.inf
MAX_TOKEN = 1024
"""Characters; `hello` takes no more."""


def number(
    kind: type[Number], low: float, high: float = INFINITY, *, more_than_low: bool = False
) -> Callable[[str], Number]:
    """Numbers within [low, high], or (low, high]."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            word = "a whole number" if kind is int else "a number"
            raise ValueError(f"{text!r} is not {word}.") from None
        if not low <= value <= high or (more_than_low and value == low):
            first = f"more than {low:g}" if more_than_low else f"at least {low:g}"
            limit = "" if high == INFINITY else f" and at most {high:g}"
            raise ValueError(f"{text} is out of range: it must be {first}{limit}.")
        return value

    return parse


def or_auto(kind: Callable[[str], T]) -> Callable[[str], T | None]:
    """A value, or None for `auto` and for nothing: it is then chosen where more is known."""

    def parse(text: str) -> T | None:
        return None if text in ("", "auto") else kind(text)

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """One of these words."""
    *others, last = words
    listed = f"{', '.join(others)} {'nor' if len(words) == 2 else 'and'} {last}"

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is {'neither' if len(words) == 2 else 'none of'} {listed}.")
        return text

    return parse


def switch(text: str) -> bool:
    """On or off, as variables say it; an option of this kind may also stand alone."""
    if text.lower() not in ("1", "true", "yes", "on", "0", "false", "no", "off", ""):
        raise ValueError(f"{text!r} is neither 1 nor 0.")
    return text.lower() in ("1", "true", "yes", "on")


def folder(text: str) -> Path:
    """Path of a folder, made absolute; it need not be there."""
    return Path(text).expanduser().resolve()


def file(text: str) -> str:
    """Path of one file that exists, made absolute; or nothing."""
    return _existing(text) if text else ""


def files(text: str) -> tuple[str, ...]:
    """Paths of files that exist, made absolute: the engine's processes may run elsewhere."""
    return tuple(_existing(part) for part in text.split(os.pathsep) if part)


files.repeats = True  # type: ignore[attr-defined]  # read by flags.py


def _existing(text: str) -> str:
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    return str(path)


def server_name(text: str) -> str:
    """A name that people can read; the host's where none is given."""
    name = text.strip() or socket.gethostname()[:64]
    if len(name) > 64 or not name.isprintable():
        raise ValueError("A server's name has at most 64 printable characters.")
    return name


def token(text: str) -> str:
    """A token that can travel in a header. The error never says what it is."""
    if len(text) > MAX_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(
            f"A token has at most {MAX_TOKEN} letters, digits and signs of ASCII and no spaces. "
            "Make one with `openssl rand -hex 32`."
        )
    return text


def token_of_file(name: str) -> str:
    """The token that stands in a file; an empty file holds none."""
    if not name:
        return ""
    try:
        text = Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"The token cannot be read from {name}: {what}.") from None
    return token(text.strip())


def hosts(text: str) -> tuple[str, ...]:
    """Names separated by commas, without ports: a name is allowed with any."""
    names = tuple(part.strip().lower().removesuffix(".") for part in text.split(",") if part.strip())
    for name in names:
        if host_name(name) != name or "/" in name:
            raise ValueError(
                f"{name!r} is not the name of a host. Write it as lab.example, without scheme and port."
            )
    return names


def origins(text: str) -> tuple[str, ...]:
    """Addresses of sites separated by commas, as browsers send them."""
    found = tuple(part.strip().lower().removesuffix("/") for part in text.split(",") if part.strip())
    for origin in found:
        scheme, _, place = origin.partition("://")
        if scheme not in ("http", "https") or not host_name(place) or set("/?#@") & set(place):
            raise ValueError(
                f"{origin!r} is not the address of a site. Write it as https://notebook.example:8888."
            )
    return found
