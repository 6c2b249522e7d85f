"""Every form in which people write the address of a server names the same one."""

from __future__ import annotations

import pytest

from steersight.address import listening_at, server_at


@pytest.mark.parametrize(
    ("text", "http", "socket"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("localhost", "http://localhost:8000", "ws://localhost:8000/ws"),
        ("[::1]", "http://[::1]:8000", "ws://[::1]:8000/ws"),
        ("[::1]:9", "http://[::1]:9", "ws://[::1]:9/ws"),
        ("lab.example/steersight", "http://lab.example:8000/steersight", "ws://lab.example:8000/steersight/ws"),
        ("ws://127.0.0.1:8000/ws", "http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("ws://127.0.0.1:8000", "http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000", "ws://127.0.0.1:8000/ws"),
        ("HTTP://Lab.example", "http://Lab.example", "ws://Lab.example/ws"),
        ("https://lab.example/steersight/", "https://lab.example/steersight", "wss://lab.example/steersight/ws"),
        ("wss://lab.example/a/b/ws/", "https://lab.example/a/b", "wss://lab.example/a/b/ws"),
        ("https://lab.example/ws", "https://lab.example", "wss://lab.example/ws"),
        ("http://lab.example:80/?x=1#watch=r1", "http://lab.example:80", "ws://lab.example:80/ws"),
        ("  localhost:8000\n", "http://localhost:8000", "ws://localhost:8000/ws"),
    ],
)  # fmt: skip
def test_one_server_however_it_is_written(text: str, http: str, socket: str) -> None:
    address = server_at(text)
    assert (address.http, address.socket) == (http, socket)
    assert server_at(address.http) == server_at(address.socket) == address


@pytest.mark.parametrize(
    "text",
    ["", "  ", "ftp://lab.example", "http://", "ws:///ws", "lab.example:http", "lab.example:99999", "a b",
     "http://[::1", "/ws", "lab.example:8000\\ws"],
)  # fmt: skip
def test_what_is_no_address_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not the address of a server\. Write it such as"):
        server_at(text)


def test_where_a_server_listens() -> None:
    assert listening_at("127.0.0.1", 80).http == "http://127.0.0.1:80"
    assert listening_at("::1", 80).socket == "ws://[::1]:80/ws"
