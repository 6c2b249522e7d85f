"""Who may come in: each rule by itself, and on the wire of a server that has no engine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Origin, Subprotocol

from steersight.client import SteersightError
from steersight.client import connect as dial_client
from steersight.engine.service import EngineService
from steersight.engine.status import EnginePhase, Status
from steersight.hosts import host_name
from steersight.protocol import codec
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import SUBPROTOCOL, ChatMessage, Error, Hello, Ping, Pong, Start, Welcome
from steersight.ws import visits
from steersight.ws.doors import Doors
from steersight.ws.rates import MAX_ADDRESSES, Bucket, PerAddress, address_of
from steersight.ws.visits import Visitors

from .served import served

TOKEN = "a-token-for-tests"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Clock:
    """Time that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------- the rules


LOCAL = Doors("127.0.0.1")
OPEN = Doors("0.0.0.0")
NAMED = Doors("0.0.0.0", hosts=frozenset({"lab.example"}))
GUARDED = Doors("0.0.0.0", token=b"x")
GUARDED_AND_NAMED = Doors("0.0.0.0", hosts=frozenset({"lab.example"}), token=b"x")


@pytest.mark.parametrize(
    ("doors", "host", "welcome"),
    [
        (LOCAL, None, True),
        (LOCAL, "127.0.0.1:8000", True),
        (LOCAL, "127.0.0.1", True),
        (LOCAL, "localhost:1", True),
        (LOCAL, "LOCALHOST:8000", True),
        (LOCAL, "page.localhost:8000", True),
        (LOCAL, "[::1]:8000", True),
        (LOCAL, "127.1.2.3:8000", True),
        (LOCAL, "evil.example:8000", False),
        (LOCAL, "localhost.evil.example:8000", False),
        (LOCAL, "127.0.0.1.evil.example", False),
        (LOCAL, "evil.example@127.0.0.1", False),
        (LOCAL, "127.0.0.1:8000,evil.example", False),
        (LOCAL, "127.0.0.1:evil.example", False),
        (LOCAL, "192.168.1.5:8000", False),
        (LOCAL, "", False),
        (LOCAL, "[::1", False),
        (Doors("lab.example"), "lab.example:8000", True),
        (Doors("127.0.0.1", hosts=frozenset({"lab.example"})), "Lab.Example.:443", True),
        (OPEN, "192.168.1.5:8000", True),
        (OPEN, "[fe80::1]:8000", True),
        (OPEN, "evil.example", False),
        (NAMED, "lab.example", True),
        (NAMED, "evil.example", False),
        (GUARDED, "anything.example", True),
        (GUARDED_AND_NAMED, "lab.example", True),
        (GUARDED_AND_NAMED, "anything.example", False),
        (Doors("127.0.0.1", token=b"x"), "evil.example", False),
    ],
)
def test_hosts(doors: Doors, host: str | None, welcome: bool) -> None:
    why = doors.host_refusal(host)
    assert (why is None) is welcome
    assert why is None or why.endswith(".")


def test_a_refused_host_is_told_the_flag() -> None:
    assert LOCAL.host_refusal("lab.example:8000") == (
        "This server does not answer to the host 'lab.example:8000'. "
        "If it should, start it with --allow-host lab.example."
    )
    assert "\n" not in str(LOCAL.host_refusal("a\nb" * 100))
    assert host_name("a b") == ""


@pytest.mark.parametrize(
    ("origin", "host", "welcome"),
    [
        (None, "127.0.0.1:8000", True),
        (None, None, True),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", True),
        ("https://Lab.example", "lab.example", True),
        ("http://127.0.0.1:8001", "127.0.0.1:8000", False),
        ("http://localhost:8000", "127.0.0.1:8000", False),
        ("http://evil.example", "127.0.0.1:8000", False),
        ("http://127.0.0.1:8000.evil.example", "127.0.0.1:8000", False),
        ("http://evil.example/127.0.0.1:8000", "127.0.0.1:8000", False),
        ("file://127.0.0.1:8000", "127.0.0.1:8000", False),
        ("null", "127.0.0.1:8000", False),
        ("null", None, False),
        ("", "", False),
        ("http://", "", False),
        ("https://friend.example", "127.0.0.1:8000", True),
        ("http://friend.example", "127.0.0.1:8000", False),
    ],
)
def test_origins(origin: str | None, host: str | None, welcome: bool) -> None:
    doors = Doors("127.0.0.1", origins=frozenset({"https://friend.example"}))
    why = doors.origin_refusal(origin, host)
    assert (why is None) is welcome
    assert why is None or "--allow-origin" in why


def test_the_token_is_compared_whole() -> None:
    doors = Doors("127.0.0.1", token=b"secret")
    assert doors.knows(b"secret")
    for wrong in (b"", b"secre", b"secrets", b"Secret", b"\xff\xfe"):
        assert not doors.knows(wrong)
    assert "secret" not in repr(doors)


def test_a_bucket() -> None:
    clock = Clock()
    bucket = Bucket(rate=2, burst=3, clock=clock)
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    clock.now += 100
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_addresses_do_not_share_a_bucket_and_are_forgotten() -> None:
    clock = Clock()
    rates = PerAddress(rate=1, burst=1, clock=clock)
    assert rates.take("a")
    assert not rates.take("a")
    assert rates.empty("a")
    assert rates.take("b")
    assert not rates.empty("c")
    for number in range(MAX_ADDRESSES - 1):
        rates.take(str(number))
        assert not rates.take("b")
    assert not rates.empty("a"), "the one that asked longest ago"
    assert rates.empty("b")
    clock.now += 1
    assert rates.take("b")


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5), "10.0.0.1"),
        (("::1", 5), "::1"),
        (("2001:db8:1:2:3:4:5:6", 5), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5), "fe80::/64"),
        (("evil\nline", 5), "unknown"),
        (("x" * 9999, 5), "unknown"),
        (None, "unknown"),
    ],
)
def test_who_counts_as_one(client: tuple[str, int] | None, address: str) -> None:
    assert address_of({"client": client}) == address


def test_rates_of_one_connection_and_of_one_address() -> None:
    clock = Clock()
    visitors = Visitors(LOCAL, max_connections=10, starts_per_minute=2, clock=clock)
    visit, other = visitors.enter("a"), visitors.enter("b")
    for _ in range(visits.STEERS_AT_ONCE):
        visit.may_steer("r")
    with pytest.raises(FrameError, match="More than 60 changes a second") as refused:
        visit.may_steer("r")
    assert (refused.value.code, refused.value.run) == ("rate_limited", "r")
    other.may_steer("r")
    clock.now += 1
    visit.may_steer("r")

    visit.may_start("1")
    visitors.enter("a").may_start("2")
    with pytest.raises(FrameError, match="Your address has started 2 runs within a minute") as refused:
        visit.may_start("3")
    assert (refused.value.code, refused.value.id) == ("rate_limited", "3")
    other.may_start("1")
    clock.now += 30
    visit.may_start("3")
    clock.now += 30
    with pytest.raises(FrameError, match="may start 2 runs within a minute, and with these 2 there would be"):
        visit.may_start("pair", 2)
    visit.may_start("4")
    clock.now += 60
    visit.may_start("pair", 2)


# ---------------------------------------------------------------- HTTP


async def test_every_answer_has_the_headers(tmp_path: Path) -> None:
    async with served(tmp_path) as (address, _), httpx.AsyncClient(base_url=f"http://{address}") as http:
        for path, status in (("/", 200), ("/api/vectors", 200), ("/readyz", 503), ("/nowhere", 404)):
            answer = await http.get(path)
            assert answer.status_code == status
            check_headers(answer.headers)
            assert (answer.headers.get("cache-control") == "no-store") is path.startswith(("/api", "/readyz"))
            assert "server" not in answer.headers
        refused = await http.get("/", headers={"Host": "evil.example"})
        check_headers(refused.headers)
        with pytest.raises(InvalidStatus) as denied:
            await connect(f"ws://{address}/ws", origin=Origin("http://evil.example"))
        check_headers(denied.value.response.headers)


def check_headers(headers: object) -> None:
    assert isinstance(headers, httpx.Headers) or hasattr(headers, "raw_items")
    found = {name: headers[name] for name in headers}  # type: ignore[attr-defined,index]
    lower = {name.lower(): value for name, value in found.items()}
    policy = lower["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert lower["x-content-type-options"] == "nosniff"
    assert lower["x-frame-options"] == "DENY"
    assert lower["referrer-policy"] == "no-referrer"
    assert lower["cross-origin-opener-policy"] == "same-origin"
    assert lower["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in lower["permissions-policy"]


async def test_a_fault_of_ours_has_the_headers_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: object) -> None:
        raise RuntimeError("something of ours")

    monkeypatch.setattr(EngineService, "held", broken)
    async with served(tmp_path) as (address, _), httpx.AsyncClient(base_url=f"http://{address}") as http:
        answer = await http.get("/metrics")
        assert answer.status_code == 500
        assert answer.text == "The server failed; its log says why.\n"
        check_headers(answer.headers)


async def test_a_rebound_name_gets_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as (address, _), httpx.AsyncClient(base_url=f"http://{address}") as http:
        for path in ("/", "/healthz", "/readyz", "/metrics", "/api/vectors", "/ws"):
            answer = await http.get(path, headers={"Host": "evil.example"})
            assert answer.status_code == 421
            assert "--allow-host evil.example" in answer.text
        port = address.partition(":")[2]
        assert (await http.get("/healthz", headers={"Host": f"localhost:{port}"})).status_code == 200
        with pytest.raises(InvalidStatus) as denied:
            await connect(
                f"ws://{address}/ws", additional_headers={"Host": "evil.example"}, origin=Origin("http://x")
            )
        assert denied.value.response.status_code == 421


async def test_pages_of_other_sites_may_look_and_not_touch(tmp_path: Path) -> None:
    words = ("--allow-origin", "https://friend.example")
    async with (
        served(tmp_path, *words) as (address, _),
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        foreign = {"Origin": "http://evil.example"}
        assert (await http.get("/api/vectors", headers=foreign)).status_code == 200
        for method, path in (("POST", "/api/vectors"), ("DELETE", "/api/vectors/x"), ("PUT", "/anything")):
            refused = await http.request(method, path, headers=foreign)
            assert refused.status_code == 403
            assert "A page of another site, 'http://evil.example'" in refused.text
        for origin in ("https://friend.example", f"http://{address}"):
            assert (await http.delete("/api/vectors/x", headers={"Origin": origin})).status_code == 404
        assert (await http.delete("/api/vectors/x")).status_code == 404


async def test_why_an_engine_failed_is_told_to_those_with_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ready(headers: dict[str, str]) -> tuple[int, Any]:
        answer = await http.get("/readyz", headers=headers)
        return answer.status_code, answer.json() if answer.status_code == 503 else answer.text

    why = "The engine did not start. There are no weights in /home/ada/secret."
    failed = Status(EnginePhase.FAILED, why)
    state = {"state": "failed", "progress": 0.0, "max_runs": None}
    monkeypatch.setenv("STEERSIGHT_TOKEN", TOKEN)
    async with (
        served(tmp_path / "a") as (address, app),
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        app.state.engine.status = failed
        assert await ready({}) == (503, state)
        assert await ready(BEARER) == (503, state | {"stage": why})
        for wrong in ("Bearer wrong", "Bearer", ""):
            status, refused = await ready({"Authorization": wrong})
            assert status == 401
            assert "/home/ada" not in refused
    monkeypatch.delenv("STEERSIGHT_TOKEN")
    async with (
        served(tmp_path / "b") as (address, app),
        httpx.AsyncClient(base_url=f"http://{address}") as http,
    ):
        app.state.engine.status = failed
        assert await ready({}) == (503, state | {"stage": why}), (
            "a server without a token asks nobody for one"
        )


async def test_what_asks_for_the_token_and_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERSIGHT_TOKEN", TOKEN)
    async with served(tmp_path) as (address, _), httpx.AsyncClient(base_url=f"http://{address}") as http:
        for path, status in (("/", 200), ("/healthz", 200), ("/readyz", 503)):
            assert (await http.get(path)).status_code == status
        for path in ("/api/vectors", "/api/model", "/metrics", "/api/nothing"):
            refused = await http.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "Authorization: Bearer" in refused.text
        assert (await http.delete("/api/vectors/x")).status_code == 401
        for known in (BEARER, {"Authorization": f"bearer  {TOKEN}"}):
            assert (await http.get("/api/vectors", headers=known)).status_code == 200
        for wrong in ("Basic " + TOKEN, TOKEN, "Bearer", "Bearer wrong", "Bearer \xff"):
            value = wrong.encode("latin-1")
            assert (await http.get("/api/vectors", headers={"Authorization": value})).status_code == 401
        assert (await http.get(f"/api/vectors?token={TOKEN}")).status_code == 401, "never in an address"


async def test_guessing_is_slow_for_one_address_and_not_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEERSIGHT_TOKEN", TOKEN)
    async with served(tmp_path) as (address, _), httpx.AsyncClient(base_url=f"http://{address}") as http:
        wrong = {"Authorization": "Bearer wrong", "X-Forwarded-For": "203.0.113.7"}
        for _ in range(visits.GUESSES_PER_MINUTE):
            assert (await http.get("/metrics", headers=wrong)).status_code == 401
        right = {**BEARER, "X-Forwarded-For": "203.0.113.7"}
        late = await http.get("/metrics", headers=right)
        assert late.status_code == 429, "the guesser would learn that this one is right"
        assert "Wait a minute" in late.text
        assert late.headers["retry-after"]
        with pytest.raises(InvalidStatus) as denied:
            await connect(f"ws://{address}/ws", additional_headers={"X-Forwarded-For": "203.0.113.7"})
        assert denied.value.response.status_code == 429
        assert (await http.get("/api/vectors", headers=BEARER)).status_code == 200


# ---------------------------------------------------------------- sockets


async def open_socket(address: str, **more: object) -> ClientConnection:
    return await connect(f"ws://{address}/ws", subprotocols=[Subprotocol(SUBPROTOCOL)], **more)  # type: ignore[arg-type]


async def said_hello(address: str, token: str | None = None) -> tuple[list[Any], int | None]:
    """What comes after hello: frames, and the code with which the server closed, None if it did not."""
    async with await open_socket(address) as socket:
        await socket.send(codec.encode(Hello(token=token)))
        frames = []
        with contextlib.suppress(ConnectionClosedError):
            async for data in socket:
                frames.append(codec.decode_server(data))  # type: ignore[arg-type]
                if isinstance(frames[-1], Welcome):
                    return frames, None
        return frames, socket.close_code


async def test_pages_of_other_sites_get_no_socket(tmp_path: Path) -> None:
    async with served(tmp_path, "--allow-origin", "https://friend.example") as (address, _):
        for origin in ("http://evil.example", "null"):
            with pytest.raises(InvalidStatus) as denied:
                await open_socket(address, origin=Origin(origin))
            assert denied.value.response.status_code == 403
            assert b"may not use this server" in denied.value.response.body
        for origin in ("https://friend.example", f"http://{address}"):
            await (await open_socket(address, origin=Origin(origin))).close()


async def test_there_is_one_socket(tmp_path: Path) -> None:
    async with served(tmp_path) as (address, _):
        for path in ("/", "/api/vectors", "/nowhere"):
            with pytest.raises(InvalidStatus) as denied:
                await connect(f"ws://{address}{path}")
            assert denied.value.response.status_code == 404
            assert b"there is one at /ws" in denied.value.response.body


async def test_hello_with_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STEERSIGHT_TOKEN", TOKEN)
    caplog.set_level(logging.DEBUG, "steersight")
    async with served(tmp_path) as (address, _):
        frames, code = await said_hello(address, TOKEN)
        assert isinstance(frames[-1], Welcome)
        assert code is None
        for wrong in ("wrong-token", "", None):
            frames, code = await said_hello(address, wrong)
            assert [frame.code for frame in frames if isinstance(frame, Error)] == ["unauthorized"]
            assert code == 4401
        async with dial_client(f"ws://{address}/ws") as client:  # that of the environment
            await asyncio.wait_for(client.until(lambda: client.engine is not None), 5)
        monkeypatch.delenv("STEERSIGHT_TOKEN")
        with pytest.raises(SteersightError, match="The token in hello is missing or wrong"):
            async with dial_client(f"ws://{address}/ws", "another") as client:
                await asyncio.wait_for(client.ready(), 5)
    assert "A connection has come." in caplog.messages
    for record in caplog.records:
        assert TOKEN not in str(vars(record))
        assert "wrong-token" not in str(vars(record))


async def test_there_is_no_room_for_more(tmp_path: Path) -> None:
    async with served(tmp_path, "--max-connections", "2") as (address, _):
        first, second = await open_socket(address), await open_socket(address)
        with pytest.raises(InvalidStatus) as denied:
            await open_socket(address)
        assert denied.value.response.status_code == 503
        assert b"already has its 2 connections" in denied.value.response.body
        with pytest.raises(SteersightError, match="already has its 2 connections"):
            async with dial_client(f"ws://{address}/ws"):
                pass
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://{address}/healthz")).status_code == 200
        await first.close()
        third = await until_open(address)
        await second.close()
        await third.close()


async def until_open(address: str, **more: object) -> ClientConnection:
    """The server counts a connection until it has cleaned up after it."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await open_socket(address, **more)
            except InvalidStatus:
                await asyncio.sleep(0.02)


async def test_one_address_does_not_take_all_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "MAX_PER_ADDRESS", 2)
    async with served(tmp_path) as (address, _):
        mine = [await open_socket(address) for _ in range(2)]
        with pytest.raises(InvalidStatus) as denied:
            await open_socket(address)
        assert denied.value.response.status_code == 429
        assert b"Your address already has 2 connections" in denied.value.response.body
        other = await open_socket(address, additional_headers={"X-Forwarded-For": "203.0.113.7"})
        await mine.pop().close()
        mine.append(await until_open(address))
        for socket in (*mine, other):
            await socket.close()


async def test_two_hundred_connections_are_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as (address, _):
        sockets = [await open_socket(address) for _ in range(200)]
        for number, socket in enumerate(sockets):
            await socket.send(codec.encode(Hello()))
            await socket.send(codec.encode(Ping(t=float(number))))
        for number, socket in enumerate(sockets):
            assert isinstance(codec.decode_server(await socket.recv()), Welcome)  # type: ignore[arg-type]
            assert codec.decode_server(await socket.recv()) == Pong(t=float(number))  # type: ignore[arg-type]
            await socket.close()


async def test_a_flood_of_frames_is_told_and_ended(tmp_path: Path) -> None:
    async with served(tmp_path) as (address, _), await open_socket(address) as socket:
        await socket.send(codec.encode(Hello()))
        refused = 0
        for number in range(600):
            await socket.send(codec.encode(Ping(t=float(number))))
        with contextlib.suppress(ConnectionClosedError):
            async for data in socket:
                frame = codec.decode_server(data)  # type: ignore[arg-type]
                refused += isinstance(frame, Error) and frame.code == "rate_limited"
        assert socket.close_code == 4429
        assert refused == 21


async def test_starts_of_one_address_are_counted(tmp_path: Path) -> None:
    """The engine is not there, so that every start is refused anyway: at first for that."""
    async with served(tmp_path, "--starts-per-minute", "3") as (address, _):
        codes = []
        for number in range(5):
            async with await open_socket(address) as socket:
                await socket.send(codec.encode(Hello()))
                await socket.recv()
                start = Start(id=f"s{number}", messages=[ChatMessage(role="user", content="hi")])
                await socket.send(codec.encode(start))
                frame = codec.decode_server(await socket.recv())  # type: ignore[arg-type]
                assert frame.id == f"s{number}"
                codes.append(str(frame.code))
        assert codes == ["engine_not_ready"] * 3 + ["rate_limited"] * 2


async def test_what_is_refused_is_logged_and_a_flood_of_it_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "steersight")
    async with served(tmp_path) as (address, _), httpx.AsyncClient(base_url=f"http://{address}") as http:
        for _ in range(100):
            await http.get("/api/vectors?secret=1", headers={"Host": "evil.example"})
        await (await open_socket(address)).close()
        await asyncio.sleep(0.2)
    refused = [vars(r)["facts"] for r in caplog.records if r.message == "Refused at the door."]
    assert 20 <= len(refused) < 40
    first = refused[0]
    assert (first["status"], first["path"], first["address"]) == (421, "/api/vectors", "127.0.0.1")
    ended = [vars(r)["facts"] for r in caplog.records if r.message == "A connection has ended."]
    assert [facts["code"] for facts in ended] == [1000]
