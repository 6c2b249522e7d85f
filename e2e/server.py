"""The server that the stories talk to: a process of our own, or a foreign one that was named to us.

Stories know only its address. Those that must end and start the process ask for `own_server` and are skipped
where the server is foreign.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import httpx

# Loading takes about 40 s on two cores; this is for a machine that is busy with something else too.
LOAD_SECONDS = 300
ANSWER_SECONDS = 90
CODE_TOKEN = "only-for-the-stories-with-code"  # noqa: S105 - of the stories' own server
OWN_DOORS = {"STEERSIGHT_CHANGE_MODEL": "1", "STEERSIGHT_NNSIGHT_TOKEN": CODE_TOKEN}
# Long enough for a reload, short enough to be waited out.
SHORT_WAITS = {"STEERSIGHT_GRACE_SECONDS": "10", "STEERSIGHT_DRAIN_SECONDS": "2"}
ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _below(pid: int) -> list[int]:
    """All processes that this one started, and those started."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [one for child in children for one in _below(child)]


def _memory(pid: int) -> int:
    """Pages of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1])


class Server:
    """A Steersight server at `url`, with no slash at its end."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @property
    def socket_url(self) -> str:
        """Address of the WebSocket."""
        return self.url.replace("http", "ws", 1) + "/ws"

    def runs_held(self) -> float:
        """Requests that the engine still holds, as the server's own metrics say."""
        text = httpx.get(f"{self.url}/metrics", timeout=30).text
        lines = (line.split() for line in text.splitlines() if line.startswith("steersight_"))
        return {name: float(value) for name, value in lines}["steersight_engine_requests"]

    def own_vectors(self) -> set[str]:
        """Ids of the vectors that people made here or brought."""
        vectors = httpx.get(f"{self.url}/api/vectors", timeout=30).json()
        return {vector["id"] for vector in vectors if vector["own"]}

    def delete_vector(self, vector: str) -> None:
        """Delete an own vector."""
        httpx.delete(f"{self.url}/api/vectors/{vector}", timeout=30).raise_for_status()

    def wait_until_it_answers(self, alive: subprocess.Popen[bytes] | None = None) -> None:
        """Wait for the server, not for its engine: stories watch that load themselves."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            assert alive is None or alive.poll() is None, "The server ended; see the server.log of this run."
            assert time.monotonic() < deadline, f"No server answers at {self.url}."
            try:
                httpx.get(f"{self.url}/healthz", timeout=5)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return

    def wait_until_ready(self) -> None:
        """Wait for its engine, without a page that draws how far it is."""
        deadline = time.monotonic() + LOAD_SECONDS
        while (answer := httpx.get(f"{self.url}/readyz", timeout=30)).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)


class OwnServer(Server):
    """`steersight serve` as its own process, on a port that stays the same when it is started again."""

    def __init__(self, log: Path, *words: str) -> None:
        """`words`: what `steersight serve` is told besides."""
        self._words = words
        self._port = free_port()
        super().__init__(f"http://127.0.0.1:{self._port}")
        self._log: IO[bytes] = log.open("wb")
        self._hub_home = log.parent.absolute() / "hub-home"
        self._process: subprocess.Popen[bytes] | None = None
        self.answered_after = 0.0

    @property
    def hub(self) -> Path:
        """The server's own Hugging Face cache, which is empty unless a story puts something there."""
        return self._hub_home / "hub"

    def start(self) -> None:
        """Start the process unless it runs, and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        command = [str(Path(sys.executable).parent / "steersight"), "serve", "--port", str(self._port)]
        if folder := os.environ.get("STEERSIGHT_MODEL_DIR"):
            command += ["--model", folder]
        command += self._words
        files = [*sorted((ROOT / "backend/examples/metrics").glob("*.py"))]
        files.append(ROOT / "backend/tests/failing_metric.py")
        own = os.pathsep.join(map(str, files))
        began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=os.environ
            | {"STEERSIGHT_METRICS": own, "HF_HOME": str(self._hub_home), **OWN_DOORS, **SHORT_WAITS},
        )
        self.wait_until_it_answers(self._process)
        self.answered_after = time.monotonic() - began

    def kill_engine(self) -> None:
        """End the engine as the kernel does when memory runs out: the largest process below the server's."""
        assert self._process is not None
        os.kill(max(_below(self._process.pid), key=_memory), signal.SIGKILL)

    def stop(self) -> None:
        """End the process as an operator would, and insist if it will not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
