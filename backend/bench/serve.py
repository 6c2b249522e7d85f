"""Steersight beside vLLM's own server on the same machine: the same questions over the wire, in one run.

    python -m bench.serve [--runs 1 4 8 16] [--rounds 2] [--tokens 64] [--metrics 3] [--write]
    make bench-serve BENCH='--runs 1 8'

Both servers are started with the same model and length, each with its own defaults beyond that, stay up, and
take turns: at each number of runs first one, then the other, all runs starting together. `tokens/s` is every
token over the time from the first token of any run to the last of any, so bursts and stalls count; a gap is
the time between two messages that bring tokens to one client. Both sides are computed alike, by clients in
processes of their own.

On a CPU vLLM's server is started twice: with its own defaults, and with the threads that Steersight takes.
On CUDA each server gets the same share of the GPU. `--kinds` says what Steersight's runs ask for besides
their tokens: `plain` nothing, `steered` three metrics and one vector, `lens` those and the logit lens at
every fourth layer, `vectors` three metrics and for each run a vector and a strength of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import queue
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgpack

from .proving import MODEL, REPOSITORY, free_port, machine, quantile, report, table
from .readers import Reader

THREE = ["residual_norm", "update_norm", "cosine_below"]
DOCUMENT = REPOSITORY / "docs" / "performance.md"
WORDS = "the river runs past the old mill and the town where bakers rise before dawn to make bread " * 2
VECTOR = "bench"
READY_SECONDS = 600
LENGTH = "8192"
"""Tokens of prompt and reply, at most, on both sides."""
GPU_SHARE = "0.44"
"""Of the GPU's memory, for each server."""
KINDS = ("plain", "steered", "lens", "vectors")


@dataclass
class Asked:
    """What one level asks for."""

    side: str
    """`ours` or `vllm`"""
    port: int
    kind: str
    tokens: int
    runs: int
    vectors: list[str]


@dataclass
class Reply:
    """One reply as its client saw it."""

    began: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When tokens came, and how many."""
    text: str = ""
    problem: str = ""


Messages = list[dict[str, str]]


def question(index: int) -> str:
    """Some forty words, no two alike."""
    return f"Tell story {index}. {WORDS}"


def start_frame(asked: Asked, index: int, messages: Messages | None = None) -> dict[str, Any]:
    """What Steersight is asked; the messages are the level's where none are given."""
    frame: dict[str, Any] = {
        "type": "start", "id": f"r{index}", "metrics": [] if asked.kind == "plain" else THREE,
        "messages": messages or [{"role": "user", "content": question(index)}],
        "sampling": {"max_tokens": asked.tokens, "temperature": 0.0},
    }  # fmt: skip
    if asked.kind != "plain" and asked.vectors:
        name = asked.vectors[index % len(asked.vectors)]
        frame["strengths"] = {name: 0.02 if asked.kind != "vectors" else 0.01 + 0.0001 * index}
    if asked.kind == "lens":
        frame["lens"] = {"stride": 4, "top": 5}
    return frame


class OurClient:
    """One connection to Steersight, open and greeted before its run starts, as a page is."""

    def __init__(self, asked: Asked, index: int, messages: Messages | None = None) -> None:
        self._asked = asked
        self._frame = start_frame(asked, index, messages)
        self._greeted = asyncio.Event()
        self._over = asyncio.Event()
        self._reply = Reply()

    async def open(self) -> None:
        """Connect, and wait for `welcome`."""
        _, self._reader = await asyncio.get_running_loop().create_connection(
            lambda: Reader("127.0.0.1", self._asked.port, self._take), "127.0.0.1", self._asked.port
        )
        await self._first(self._greeted)

    async def ask(self) -> Reply:
        """Start the run, and read it to its end."""
        self._reply.began = time.perf_counter()
        self._reader.send(self._frame)
        await self._first(self._over)
        self._reader.close()
        return self._reply

    async def _first(self, event: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(event.wait())
        await asyncio.wait([waiting, self._reader.lost], return_when="FIRST_COMPLETED")
        if not event.is_set():
            waiting.cancel()
            self._reply.problem = self._reply.problem or "The connection was lost."

    def _take(self, _reader: Reader, data: bytes) -> None:
        message = msgpack.unpackb(data)
        match message["type"]:
            case "welcome":
                self._greeted.set()
            case "tokens":
                self._reply.arrivals.append((time.perf_counter(), len(message["ids"])))
                self._reply.text += "".join(message["texts"])
            case "error":
                self._reply.problem = message["message"]
                self._over.set()
            case "finished":
                self._over.set()


async def ask_vllm(
    asked: Asked, index: int, http: httpx.AsyncClient, messages: Messages | None = None
) -> Reply:
    """One request to vLLM's OpenAI door."""
    reply = Reply(began=time.perf_counter())
    messages = messages or [{"role": "user", "content": question(index)}]
    body = {
        "model": "m", "messages": messages, "stream": True,
        "max_tokens": asked.tokens, "temperature": 0.0,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }  # fmt: skip
    url = f"http://127.0.0.1:{asked.port}/v1/chat/completions"
    seen = 0
    async with http.stream("POST", url, json=body) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                message = json.loads(line[6:])
                if "error" in message:
                    reply.problem = str(message["error"])
                for choice in message.get("choices", ()):
                    reply.text += choice["delta"].get("content") or ""
                count = (message.get("usage") or {}).get("completion_tokens", 0)
                if count > seen:
                    reply.arrivals.append((time.perf_counter(), count - seen))
                    seen = count
    return reply


def client(asked: Asked, indices: list[int], go: Any, found: Any) -> None:
    """One client process."""

    async def all_runs() -> list[Reply]:
        ours = [OurClient(asked, index) for index in indices if asked.side == "ours"]
        for one in ours:
            await one.open()
        found.put(None)
        await asyncio.to_thread(go.wait)
        if ours:
            return await asyncio.gather(*(one.ask() for one in ours))
        async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=None)) as http:
            return await asyncio.gather(*(ask_vllm(asked, index, http) for index in indices))

    found.put(asyncio.run(all_runs()))


def level(asked: Asked, processes: int) -> dict[str, float]:
    """One number of runs, once."""
    context = multiprocessing.get_context("spawn")
    found: Any = context.Queue()
    go = context.Event()
    count = min(processes, asked.runs)
    parts = [list(range(k, asked.runs, count)) for k in range(count)]
    clients = [context.Process(target=client, args=(asked, part, go, found), daemon=True) for part in parts]
    for process in clients:
        process.start()
    try:
        for _ in clients:
            found.get(timeout=60)
        go.set()
        replies: list[Reply] = [reply for _ in clients for reply in found.get(timeout=900)]
    except queue.Empty:
        raise SystemExit(f"{asked.side} did not answer {asked.runs} runs in time.") from None
    problems = [reply.problem for reply in replies if reply.problem]
    if problems:
        raise SystemExit(f"{asked.side} refused: {problems[0]}")
    tokens = sum(count for reply in replies for _, count in reply.arrivals)
    first = min(reply.arrivals[0][0] for reply in replies)
    last = max(reply.arrivals[-1][0] for reply in replies)
    gaps = [
        b[0] - a[0] for reply in replies for a, b in zip(reply.arrivals, reply.arrivals[1:], strict=False)
    ]
    return {
        "speed": (tokens - len(replies)) / (last - first),
        "gap_p50": quantile(gaps, 0.5) * 1e3,
        "gap_p99": quantile(gaps, 0.99) * 1e3,
        "first_p50": statistics.median(reply.arrivals[0][0] - reply.began for reply in replies) * 1e3,
    }


@contextmanager
def server(
    command: list[str], port: int, path: str, log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server's process, from the moment at which it answers at `path` to its end."""
    with log.open("wb") as out:
        started = subprocess.Popen(  # noqa: S603
            command, stdout=out, stderr=out, env=os.environ | environment, start_new_session=True
        )
    try:
        until = time.monotonic() + READY_SECONDS
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if started.poll() is not None or time.monotonic() > until:
                text = log.read_text(errors="replace")
                # What went wrong first stands far above the end.
                errors = "\n".join([line for line in text.splitlines() if "Error" in line][:8])
                raise SystemExit(f"{shlex.join(command)} did not start:\n{errors}\n...\n{text[-2000:]}")
            time.sleep(0.5)
        yield started
    finally:
        started.terminate()
        try:
            started.wait(60)
        except subprocess.TimeoutExpired:
            started.kill()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def ours(asked: argparse.Namespace, port: int, folder: Path, cuda: bool) -> tuple[list[str], dict[str, str]]:
    """How Steersight is started."""
    command = [
        sys.executable, "-m", "steersight.cli", "serve", "--port", str(port), "--model", asked.model,
        "--data-dir", str(folder), "--max-runs", str(max(*asked.runs, 64)), "--max-model-len", LENGTH,
        "--starts-per-minute", "1000000", *(["--gpu-memory", GPU_SHARE] if cuda else []),
        *shlex.split(asked.ours),
    ]  # fmt: skip
    return command, {"STEERSIGHT_MAX_CONNECTIONS": str(max(asked.runs) + 64)}


def vllms(asked: argparse.Namespace, port: int, cuda: bool) -> list[str]:
    """How vLLM's own server is started."""
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", asked.model, "--port",
        str(port), "--served-model-name", "m", "--max-model-len", LENGTH,
    ]  # fmt: skip
    # On a CPU it would take nearly all of the machine's memory, and not start beside another.
    return [*command, "--gpu-memory-utilization", GPU_SHARE if cuda else "0.15", *shlex.split(asked.vllm)]


def make_vectors(port: int, count: int, size: int, layer: int) -> list[str]:
    """Random directions, imported over HTTP as a person would."""
    dice = random.Random(1)  # noqa: S311
    names = []
    for index in range(count):
        body = {
            "layers": {str(layer): [dice.gauss(0, 1) for _ in range(size)]}, "label": f"{VECTOR} {index}",
        }  # fmt: skip
        url = f"http://127.0.0.1:{port}/api/vectors?name={VECTOR}-{index}.json"
        answer = httpx.post(url, content=json.dumps(body).encode(), timeout=60)
        answer.raise_for_status()
        names += [vector["id"] for vector in answer.json()["vectors"]]
    return names


def run(asked: argparse.Namespace) -> str:
    """All of it; gives the table."""
    import torch

    cuda = torch.cuda.is_available()
    ports = {"ours": free_port(), "vllm": free_port(), "vllm, our threads": free_port()}
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        command, environment = ours(asked, ports["ours"], Path(folder), cuda)
        log = Path(folder)
        servers.enter_context(server(command, ports["ours"], "/readyz", log / "ours.log", environment))
        model = httpx.get(f"http://127.0.0.1:{ports['ours']}/api/model").json()
        many = max(asked.runs) if "vectors" in asked.kinds else 1
        vectors = make_vectors(ports["ours"], many, model["hidden_size"], model["layers"] // 2)
        sides: list[tuple[str, str]] = [("vllm", "plain")]
        own = vllms(asked, ports["vllm"], cuda)
        servers.enter_context(server(own, ports["vllm"], "/health", log / "vllm.log", {}))
        if not cuda:
            from steersight.engine import cores

            same = vllms(asked, ports["vllm, our threads"], cuda)
            environment = dict(cores.environment(1, os.environ))
            place = ports["vllm, our threads"]
            servers.enter_context(server(same, place, "/health", log / "same.log", environment))
            sides.append(("vllm, our threads", "plain"))
        sides += [("ours", kind) for kind in asked.kinds]
        for side, kind in sides:
            how = Asked(side.split(",")[0], ports[side], kind, 8, 1, vectors)
            level(how, 1)
        for turn in range(asked.rounds):
            for runs in asked.runs:
                for side, kind in sides if turn % 2 == 0 else sides[::-1]:
                    how = Asked(side.split(",")[0], ports[side], kind, asked.tokens, runs, vectors)
                    seen = level(how, asked.processes)
                    found.setdefault((side, kind, runs), []).append(seen)
                    print(side, kind, runs, {k: round(v, 1) for k, v in seen.items()}, file=sys.stderr)
    return _told(asked, sides, found, torch.cuda.get_device_name() if cuda else machine())


def _told(
    asked: argparse.Namespace,
    sides: list[tuple[str, str]],
    found: dict[tuple[str, str, int], list[dict[str, float]]],
    where: str,
) -> str:
    def middle(side: str, kind: str, runs: int, name: str) -> float:
        return statistics.median(seen[name] for seen in found[side, kind, runs])

    rows = []
    for runs in asked.runs:
        base = middle("vllm", "plain", runs, "speed")
        for side, kind in sides:
            speed, p50, p99, first = (
                middle(side, kind, runs, name) for name in ("speed", "gap_p50", "gap_p99", "first_p50")
            )
            name = f"Steersight, {kind}" if side == "ours" else side.replace("vllm", "vLLM's server")
            rows.append(
                [runs, name, f"{speed:.0f}", f"{speed / base:.2f}", f"{p50:.0f} / {p99:.0f}", f"{first:.0f}"]
            )
    head = ["runs", "server", "tokens/s", "of vLLM's", "gap, ms, p50 / p99", "first token, ms, p50"]
    return (
        f"{Path(asked.model).name}, {asked.tokens} tokens, medians of {asked.rounds} rounds, on {where}:\n\n"
        f"{table(head, rows)}"
    )


def both_servers(description: str | None) -> argparse.ArgumentParser:
    """A parser of what a bench of both servers can be told in any case."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--ours", default="", help="more arguments for Steersight")
    parser.add_argument("--vllm", default="", help="more arguments for vLLM's server")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    return parser


def main() -> None:
    parser = both_servers(__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["plain", "steered"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--processes", type=int, default=8, help="clients' processes")
    asked = parser.parse_args()
    text = run(asked)
    report("serve.py", text, asked.write, DOCUMENT)


if __name__ == "__main__":
    main()
