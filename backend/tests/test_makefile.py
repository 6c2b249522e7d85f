"""Every target of the Makefile makes what it uses, or a clean clone would stumble over it.

Make is asked what it would do in a tree where nothing has been made yet. `make targets-test` does it all for
real, which takes an hour.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from steersight.config import REPOSITORY

MADE = {
    "the virtual environment": r"-m venv \.venv",
    "the packages": r"install\.py --torch-index \S+ backend/locks/cpu\.txt",
    "the tools": r"install\.py backend/locks/dev\.txt",
    "the front end's packages": r"npm ci",
    "the page": r"npm run --silent build",
    "the model": r"steersight\.models\.bundled",
}
"""What a command makes -> how it is known."""
USES = {
    r"\.venv/bin/python -m pip|\.venv/bin/python backend/scripts/install": ["the virtual environment"],
    r"\.venv/bin/steersight|-m steersight|backend/bench|-m bench": ["the packages"],
    r"\.venv/bin/(ruff|mypy)|-m pytest|-m bench|scripts/lock\.py": ["the tools"],
    r"install-browser|e2e/record|docker/test\.sh": ["the tools"],
    r"npm run": ["the front end's packages"],
    r"steersight serve|-m pytest -c e2e|e2e/record|docker/test\.sh|bench\.page": ["the page", "the model"],
    r"-m pytest|--model|-m bench": ["the model"],
}
"""A command -> what it stands on. `docker/test.sh` runs the stories on this side, `make doctor` too."""


def targets() -> list[str]:
    text = (REPOSITORY / "Makefile").read_text()
    (listed,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    return str(listed).split()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as git would give it out: sources, and nothing that was made."""
    folder = tmp_path_factory.mktemp("clean")
    (folder / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    for part in ("backend", "e2e", "docker", "docs"):
        (folder / part).symlink_to(REPOSITORY / part)
    (folder / "frontend").mkdir()
    for path in (REPOSITORY / "frontend").iterdir():
        if path.name not in ("node_modules", "dist"):
            (folder / "frontend" / path.name).symlink_to(path)
    return folder


def test_the_list_is_whole(clean: Path) -> None:
    text = (clean / "Makefile").read_text()
    named = set(re.findall(r"^([a-z][a-z0-9-]*):", text, re.MULTILINE))
    assert named == set(targets())
    said = subprocess.run(
        ["make", "help"],  # noqa: S607
        cwd=clean, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    explained = set(re.findall(r"^([a-z][a-z0-9-]*):.* ## ", text, re.MULTILINE))
    assert set(re.findall(r"^  make (\S+)", said, re.MULTILINE)) == explained


@pytest.mark.parametrize("target", targets())
def test_a_target_makes_what_it_uses(target: str, clean: Path) -> None:
    done = subprocess.run(  # noqa: S603
        ["make", "--dry-run", "--no-print-directory", target, "TORCH_INDEX=none"],  # noqa: S607
        cwd=clean, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made: set[str] = set()
    for command in done.stdout.splitlines():
        for used, needs in USES.items():
            if re.search(used, command) and not any(re.search(sign, command) for sign in MADE.values()):
                for need in needs:
                    assert need in made, f"`make {target}` runs `{command.strip()}` before it has {need}."
        made |= {thing for thing, sign in MADE.items() if re.search(sign, command)}
