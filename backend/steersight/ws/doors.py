"""Who may come in: the rules on Host, Origin and token, as pure functions of what a request says.

Host holds off DNS rebinding, where a stranger's name is made to lead to this machine and the browser takes
his page for ours. Origin holds off pages of other sites, which a browser lets open any socket. The token
holds off everybody else. None of them replaces another.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..hosts import host_name, is_address, is_loopback

if TYPE_CHECKING:
    from ..config import Settings


def shown(text: str) -> str:
    """What a stranger has sent, fit for an answer or a log."""
    return repr(text[:80])


@dataclass(frozen=True)
class Doors:
    """What is asked of everybody who comes."""

    bound: str
    """Name or address that the server listens on."""
    hosts: frozenset[str] = frozenset()
    """Names that it may be called by, besides."""
    origins: frozenset[str] = frozenset()
    """Pages of other sites that may use it, as `scheme://host:port`."""
    token: bytes = field(default=b"", repr=False)
    """Empty: nobody is asked for one."""
    code_token: bytes | None = field(default=None, repr=False)
    """Of whoever may run code in the server; None where nobody may."""
    names: bool = True
    """Whether whoever starts the server can give it more names (`--allow-host`)."""

    @classmethod
    def of(cls, settings: Settings) -> Doors:
        """The doors that the settings ask for."""
        return cls(
            settings.host.lower(), frozenset(settings.allow_host), frozenset(settings.allow_origin),
            settings.token.encode(), settings.nnsight_token.encode() if settings.nnsight else None,
        )  # fmt: skip

    def host_refusal(self, host: str | None) -> str | None:
        """Why a request with this Host is not answered, or None.

        Without one it is: no browser sends such a request, and health checks do. An address in place of a
        name is no rebinding, which needs a name; so where others than this machine are meant to come, they
        may come by any address. Behind a token any name will do unless some are given, because a page that
        was brought here by rebinding does not have it.
        """
        if host is None:
            return None
        name = host_name(host)
        if name and (is_loopback(name) or name == self.bound or name in self.hosts):
            return None
        if name and not is_loopback(self.bound) and (is_address(name) or (self.token and not self.hosts)):
            return None
        advice = (
            f" If it should, start it with --allow-host {name}."
            if self.names and name.isascii() and name
            else ""
        )
        return f"This server does not answer to the host {shown(host)}.{advice}"

    def origin_refusal(self, origin: str | None, host: str | None) -> str | None:
        """Why a page of this origin may not drive the server, or None. Who sends none is no browser."""
        if origin is None:
            return None
        origin = origin.lower()
        scheme, _, place = origin.partition("://")
        if scheme in ("http", "https") and host and place == host.lower():
            return None
        if origin in self.origins:
            return None
        return (
            f"A page of another site, {shown(origin)}, may not use this server. "
            "If it should, start it with --allow-origin and that address."
        )

    def browser_refusal(self, headers: Mapping[str, str]) -> str | None:
        """Why a request that brings code is not taken, where a browser has sent it; None where none has.

        Whatever a page is made to send, it cannot leave out what tells of it: browsers say `Origin` of
        everything that changes something, and `Sec-Fetch-Mode` of all.
        """
        if "origin" in headers or any(name.startswith("sec-fetch-") for name in headers):
            return "Browsers do not bring code to this server. Send the trace from Python."
        return None

    def knows_code(self, token: bytes) -> bool:
        """Whether it is the token of those who may run code; as `knows`."""
        return bool(self.code_token) and hmac.compare_digest(token, self.code_token or b"")

    def knows(self, token: bytes) -> bool:
        """Whether it is the token. Takes as long for one that is nearly right as for any other."""
        return hmac.compare_digest(token, self.token)
