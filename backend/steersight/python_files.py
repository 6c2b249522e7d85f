"""Python files of whoever starts the server, which run in it: how one is imported."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType


def import_file(path: Path, option: str, error: Callable[[str], Exception]) -> ModuleType:
    """Run a file as a module of its own.

    Args:
        path: of the file.
        option: of the command line that named it.
        error: makes the exception of a sentence.

    Raises:
        What `error` makes: there is no such file, or it raised or wanted to end the process.
    """
    name = f"steersight_own_{option.strip('-')}_" + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise error(f"There is no Python file {path}. Correct {option}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as raised:
        raise error(f"{path} could not be run: {type(raised).__name__}: {raised}") from raised
    return module
