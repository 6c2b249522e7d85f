"""Packages that only some of the notebook's functions need."""

from __future__ import annotations

import importlib
from typing import Any


def needed(package: str, what: str) -> Any:
    """Import a package. Raises ImportError with a sentence that says how to get it.

    Args:
        package: its name, for Python and for pip.
        what: needs it, as the beginning of a sentence.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"{what} needs {package}, which is not installed here. Install it with `pip install {package}`.",
            name=package,
        ) from None
