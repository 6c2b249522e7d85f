"""Somebody uses `steersight chat` in a terminal, against the same server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from conftest import Visit
from server import LOAD_SECONDS, Server

COMMAND = str(Path(sys.executable).parent / "steersight")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
STEP_SECONDS = 120


class Terminal:
    """`steersight chat` in a terminal of its own."""

    def __init__(self, server: Server, history: Path) -> None:
        self._child: pexpect.spawn[str] = pexpect.spawn(
            COMMAND,
            ["chat", "--url", server.socket_url, "--history", str(history)],
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
            dimensions=(50, 200),
            encoding="utf-8",
            timeout=STEP_SECONDS,
        )

    def types(self, line: str) -> None:
        """Type a line and press Enter."""
        self._child.send(line + "\r")

    def reads(self, pattern: str, seconds: float = STEP_SECONDS) -> str:
        """Wait until this has been written. Returns what was written before it, without colours."""
        self._child.expect(pattern, timeout=seconds)
        return ANSI.sub("", self._child.before or "")

    def leaves(self) -> int:
        """Type /quit. Returns the exit status."""
        self.types("/quit")
        self._child.expect(pexpect.EOF)
        self._child.close()
        return int(self._child.exitstatus or 0)

    def close(self) -> None:
        """End it, whatever it does."""
        self._child.close(force=True)


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(server, tmp_path / "state" / "history")
    opened.reads(r"/help lists the commands", seconds=LOAD_SECONDS)
    yield opened
    opened.close()


def test_a_question_is_answered(terminal: Terminal, tmp_path: Path) -> None:
    terminal.types("What is the capital of France? Then go on and tell me of it.")
    terminal.reads(r"[A-Za-z]{3,} [a-z]{2,}")

    assert terminal.leaves() == 0
    kept = tmp_path / "state" / "history"
    assert "capital of France" in kept.read_text()
    assert kept.stat().st_mode & 0o077 == 0, "Others can read the history."


def test_a_reply_is_steered_and_stopped_while_it_is_written(terminal: Terminal) -> None:
    terminal.types("/steer joy 0.1")
    terminal.reads(r"joy 0\.1 from the next reply on\.")
    terminal.types("Write a very long story about a dragon, a lighthouse and the sea.")
    terminal.reads(r"[A-Za-z]{3,} [a-z]{2,}")

    terminal.types("/steer joy 0.2")
    terminal.reads(r"\[joy 0\.2 in force at token \d+\]")
    terminal.types("/stop")
    terminal.reads(r"\[cancelled\]")
    terminal.types("/active")
    terminal.reads(r"joy 0\.2\.")

    assert terminal.leaves() == 0


def test_a_mistyped_command_gets_a_hint(terminal: Terminal) -> None:
    terminal.types("/steer joyy 0.2")
    terminal.reads(r"There is no vector 'joyy'\. Closest: joy")
    terminal.types("/vektors")
    terminal.reads(r"Did you mean /vectors\?")
    terminal.types("/steer joy lots")
    terminal.reads(r"'lots' is not a number")

    assert terminal.leaves() == 0


def test_questions_can_come_from_a_pipe(server: Server, visit: Visit) -> None:
    visit().page.close()  # the engine is ready

    with subprocess.Popen(
        [COMMAND, "chat", "--url", server.socket_url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as piped:
        assert piped.stdin is not None
        assert piped.stdout is not None
        print("/steer pirate 0.2\nWrite a very long story about a dragon.", file=piped.stdin, flush=True)
        assert piped.stdout.readline() == "pirate 0.2 from the next reply on.\n"
        assert len(piped.stdout.read(20).split()) > 1
        rest, errors = piped.communicate("/stop\n", timeout=STEP_SECONDS)

    assert piped.returncode == 0, errors
    assert rest.endswith("\n[cancelled]\n")


def test_a_server_that_is_not_there_is_named_in_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "chat", "--url", "ws://127.0.0.1:9/ws", "--history", str(tmp_path / "history")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS,
        check=False,
    )

    assert done.returncode == 1
    assert "No Steersight server answers at ws://127.0.0.1:9/ws" in done.stderr
    assert "Traceback" not in done.stderr
