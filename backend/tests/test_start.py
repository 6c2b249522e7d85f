"""What a person sees who starts the server: true sentences only, and few."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from steersight import output, serving

pytestmark = pytest.mark.timeout(90)

SERVE = [sys.executable, "-m", "steersight.cli", "serve"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model that is none: the engine fails within seconds, and the server goes on."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def serve_until(sentence: str, *words: str, stdout: int = subprocess.PIPE) -> tuple[list[str], str]:
    """Run `steersight serve WORDS` until it has said this, and end it; its lines, and its standard error."""
    process = subprocess.Popen(  # noqa: S603
        [*SERVE, *words], stdout=stdout, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if sentence in line:
            break
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return lines + rest.splitlines(), errors


# ---------------------------------------------------------------- the port


def test_a_port_that_is_taken_is_one_sentence(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("of the server that has the port")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["--port", str(port), "--model", str(model), "--log-file", str(log)]
        done = subprocess.run(  # noqa: S603
            [*SERVE, *words], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 3
    assert done.stdout == "", "nothing may be said that is not so"
    assert done.stderr == (
        f"Port {port} is taken by another program; end it, or take another port: --port 8001, or "
        "`make run PORT=8001`.\n"
    )
    assert log.read_text() == "of the server that has the port"


@pytest.mark.parametrize(
    ("host", "why"),
    [("no-such-host.invalid", "its name is not known"), ("192.0.2.1", "Cannot assign requested")],
)
def test_a_host_that_cannot_be_had_is_one_sentence(host: str, why: str) -> None:
    with pytest.raises(
        serving.PortError, match=f"cannot listen at {re.escape(host)}, port 8000: {why}.*--host"
    ):
        serving.listen(host, 8000)


def test_every_address_of_a_name_is_taken_at_one_port() -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(taken) for taken in serving.listen("localhost", 0)]
        assert len({taken.getsockname()[1] for taken in sockets}) == 1
        names = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
        bound = {taken.getsockname()[0] for taken in sockets}
        assert "127.0.0.1" in bound
        assert bound <= names


def test_that_it_serves_is_said_when_it_does(model: Path) -> None:
    lines, _ = serve_until("Steersight serves", "--port", "0", "--model", str(model))
    (said,) = [line for line in lines if "serves" in line]
    found = re.fullmatch(r"Steersight serves http://127\.0\.0\.1:(\d+) while the engine loads\.", said)
    assert found
    assert int(found[1]) > 0, "the port that it has, not the one that was asked for"


# ---------------------------------------------------------------- the log


def test_a_person_sees_the_stages_and_the_file_has_the_rest(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    words = ["--port", "0", "--model", str(model), "--log-file", str(log)]
    lines, errors = serve_until("did not start", *words)
    assert errors == ""
    assert lines[0] == f"What the server and the engine's libraries have to say goes to {log}."
    assert lines[1].startswith("Steersight serves http://")
    assert re.fullmatch(r"  2%  Reading the model's configuration.*", lines[2])
    assert lines[3].startswith("The engine did not start. ")
    assert lines[4:] in ([], ["Stopped"], ["The server is about to end", "Stopped"])
    written = log.read_text()
    assert "Traceback" in written
    assert "The engine's state has changed." in written
    assert log.stat().st_mode & 0o077 == 0

    log.write_text("the first")
    serve_until("did not start", *words)
    assert "the first" not in log.read_text()
    assert log.with_name("server.log.1").read_text() == "the first"


def test_without_a_person_all_goes_to_standard_error(model: Path, tmp_path: Path) -> None:
    words = ["--port", "0", "--model", str(model), "--data-dir", str(tmp_path / "data")]
    lines, errors = serve_until("Steersight serves", *words)
    assert len(lines) == 1
    assert "steersight.engine" in errors
    assert not (tmp_path / "data" / "logs").exists()


def test_a_log_that_cannot_be_written_is_said(model: Path) -> None:
    words = ["--port", "0", "--model", str(model), "--log-file", "/dev/null/server.log"]
    done = subprocess.run(  # noqa: S603
        [*SERVE, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "The log cannot be written to /dev/null/server.log: its folder is a file. "
        "Name another with --log-file.\n"
    )


@contextlib.contextmanager
def on_a_terminal(*words: str) -> Iterator[Iterator[str]]:
    """`steersight serve WORDS` with a terminal for its streams; gives the lines that it shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*SERVE, *words], stdout=theirs, stderr=theirs, stdin=theirs)  # noqa: S603
    os.close(theirs)

    def shown() -> Iterator[str]:
        with os.fdopen(ours, "r", encoding="utf-8", errors="replace", closefd=False) as screen:
            while True:
                try:
                    yield next(screen).rstrip("\r\n")
                except (OSError, StopIteration):  # nobody is left at the other end
                    return

    try:
        yield shown()
    finally:
        process.send_signal(signal.SIGTERM)
        # What it still shows is taken, or it would wait for room.
        threading.Thread(target=lambda: list(shown()), daemon=True).start()
        assert process.wait(timeout=60) == 0
        os.close(ours)


def test_on_a_terminal_the_file_is_in_the_data_folder(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with on_a_terminal("--port", "0", "--model", str(model), "--data-dir", str(data)) as lines:
        first = next(lines)
        assert next(lines).startswith("Steersight serves")
    (log,) = (data / "logs").iterdir()
    assert first.endswith(f"goes to {log}.")
    assert re.fullmatch(r"server-[1-9]\d*\.log", log.name)


def test_where_the_data_folder_cannot_be_written_it_is_a_temporary_one(model: Path) -> None:
    with on_a_terminal("--port", "0", "--model", str(model), "--data-dir", "/dev/null/data") as lines:
        found = re.search(r"goes to (\S+)\.$", next(lines))
        assert next(lines).startswith("Steersight serves")
    assert found
    log = Path(found[1])
    assert log.name.startswith("steersight-")
    log.unlink()


@pytest.mark.parametrize(
    ("asked", "kind", "person", "file"),
    [
        ("", "text", True, "/data/logs/server-8000.log"),
        ("", "text", False, None),
        ("", "json", True, None),
        ("-", "text", True, None),
        ("/elsewhere/log", "json", False, "/elsewhere/log"),
    ],
)
def test_which_file_it_is(
    asked: str, kind: str, person: bool, file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: person, raising=False)
    found = output.log_file(asked, kind, Path("/data"), 8000)
    assert found == (None if file is None else Path(file))
