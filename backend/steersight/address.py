"""Addresses of a Steersight server, in every form that people have at hand.

    127.0.0.1:8000   lab.example   [::1]:8000   http://lab.example:8000   https://lab.example/steersight/
    ws://127.0.0.1:8000/ws   wss://lab.example/steersight/ws   http://lab.example:8000/#watch=...

Each names one server, which answers over HTTP and at one socket. Whoever takes an address from a person reads
it with `server_at`, so that what works in one place works in all.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORT = 8000
"""Where `steersight serve` listens unless told otherwise, and so where a name alone is looked for."""
DEFAULT_ADDRESS = f"http://127.0.0.1:{DEFAULT_PORT}"
EXAMPLES = "such as 127.0.0.1:8000, ws://127.0.0.1:8000/ws or https://lab.example/steersight"
_SECURE = {"http": False, "ws": False, "https": True, "wss": True}


@dataclass(frozen=True)
class Address:
    """Where one server is."""

    secure: bool
    """Whether it is spoken to over TLS."""
    place: str
    """Host and port, as they stand in an address."""
    prefix: str = ""
    """The path under which a proxy offers it, such as `/steersight`; empty at the root."""

    @property
    def http(self) -> str:
        """What paths such as `/api/vectors` are appended to."""
        return f"{'https' if self.secure else 'http'}://{self.place}{self.prefix}"

    @property
    def socket(self) -> str:
        """The address of its socket."""
        return f"{'wss' if self.secure else 'ws'}://{self.place}{self.prefix}/ws"


def server_at(text: str) -> Address:
    """Read an address. Raises ValueError with a sentence.

    Query and fragment, which an address copied from a browser may have, do not matter. Without a scheme it is
    read as http, and without a port as well, as port 8000.
    """
    text = text.strip()
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    try:
        secure = _SECURE[scheme.lower()]
        parts = urlsplit(f"//{rest}")
        port = parts.port
    except (KeyError, ValueError):
        raise _no_address(text) from None
    if not parts.hostname or not text.isprintable() or " " in text or "\\" in text:
        raise _no_address(text)
    place = parts.netloc
    if not found and port is None:
        place = f"{place.removesuffix(':')}:{DEFAULT_PORT}"
    prefix = parts.path.rstrip("/")
    return Address(secure, place, prefix.removesuffix("/ws").rstrip("/"))


def listening_at(host: str, port: int) -> Address:
    """The server that listens at this host and port of this machine."""
    return Address(False, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _no_address(text: str) -> ValueError:
    return ValueError(f"{text[:200]!r} is not the address of a server. Write it {EXAMPLES}.")
