"""What a host is called: names and addresses as headers, settings and sockets have them."""

from __future__ import annotations

import ipaddress
import re

HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^][:/?#@,\s]+))(:\d*)?")


def host_name(host: str) -> str:
    """The name or address in a Host header, in small letters and without port; "" when it is none."""
    found = HOST.fullmatch(host.lower())
    return "" if found is None else (found["address"] or found["name"]).removesuffix(".")


def is_address(name: str) -> bool:
    """Whether it is an IP address and no name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Whether only this machine can be meant. A name that might be resolved to anything is not."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return is_address(name) and ipaddress.ip_address(name).is_loopback
