"""Resolve backend/locks/*.in to exact versions and rewrite the comments-first lock files beside them."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = Path(__file__).resolve().parent.parent / "locks"
# Asked for by vLLM, needed by no text model; beside a CPU torch their wheels fail to import.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}
# Projects whose files are read: tests compare with their own code. Taken without what they ask for. Of those
# with vectors that is older than ours (NumPy 1, transformers 4), and no test needs it; peft's is in cpu.txt
# already, and resolving it here again would bring the libraries of another torch.
ALONE = {"peft": "0.21.2", "repeng": "0.4.0", "steering-vectors": "0.12.2"}


def canonical(name: str) -> str:
    """The one spelling of a package's name, as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(source: Path) -> set[str]:
    """Names that an .in file asks for by itself."""
    lines = (line.strip() for line in source.read_text().splitlines())
    return {canonical(re.split(r"[=<>\[ ]", line)[0]) for line in lines if line and line[0] != "#"}


def resolve(source: Path, like: dict[str, str] | None = None) -> dict[str, str]:
    """Canonical package name -> version, as pip would install `source` on a bare interpreter.

    `like` holds versions to keep to where `source` names the package itself.
    """
    same = {name: version for name, version in (like or {}).items() if name in direct(source) - {"torch"}}
    with tempfile.NamedTemporaryFile(suffix=".json") as report, tempfile.NamedTemporaryFile("w") as limits:
        limits.write("\n".join(f"{name}=={version}" for name, version in same.items()))
        limits.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--constraint", limits.name, "--report", report.name, "-r", str(source)]
        subprocess.run(command, check=True)  # noqa: S603
        items = json.loads(Path(report.name).read_text())["install"]
    found = {}
    for item in items:
        name = canonical(item["metadata"]["name"])
        found[name] = item["metadata"]["version"].partition("+")[0]
    return {name: found[name] for name in sorted(found) if name not in LEFT_OUT}


def write(target: Path, versions: dict[str, str], exactly: frozenset[str] = frozenset()) -> None:
    """Replace the pins, keep the comment at the top. `exactly`: names for which no local version will do."""
    comments = [line for line in target.read_text().splitlines() if line.startswith("#")]
    pins = [f"{name}{'===' if name in exactly else '=='}{version}" for name, version in versions.items()]
    target.write_text("\n".join([*comments, *pins]) + "\n")
    print(f"{target.name}: {len(versions)} packages")


def main() -> None:
    run = resolve(LOCKS / "cpu.in")
    dev = resolve(LOCKS / "dev.in")
    cuda = resolve(LOCKS / "cuda.in", like=run)
    write(LOCKS / "cpu.txt", run)
    write(LOCKS / "cuda.txt", cuda, exactly=frozenset({"torch"}))
    dev = {name: version for name, version in dev.items() if name not in run} | ALONE
    write(LOCKS / "dev.txt", {name: dev[name] for name in sorted(dev)})


if __name__ == "__main__":
    main()
