"""What a model is called, wherever its name is shown or compared.

A checkpoint comes as a hub name (`org/name`), as a folder, or as a snapshot in the hub's cache
(`.../models--org--name/snapshots/<hash>`), whose folder is called by a hash that says nothing.
"""

from __future__ import annotations

import re
from pathlib import Path

_SNAPSHOT = re.compile(r"models--(?P<repository>[^/]+)/snapshots/[^/]+\Z")


def model_id(model: str) -> str:
    """Its name for people: of a snapshot the repository, of another folder the folder's name.

    Args:
        model: path of a checkpoint's folder, or a name that the hub knows.
    """
    # A path within the cache may be relative to it, or lead there by a link.
    path = Path(model).expanduser()
    found = _SNAPSHOT.search(_plain(model)) or (
        _SNAPSHOT.search(path.resolve().as_posix()) if path.is_dir() else None
    )
    if found is not None:
        return found["repository"].replace("--", "/", 1)
    if path.is_dir():
        return path.resolve().name if path.name in ("", "..") else path.name
    return model


def model_name(model: str) -> str:
    """The name under which vectors know it: the last part of `model_id`, in lower case.

    `/data/models/smollm2-135m-instruct` and `HuggingFaceTB/SmolLM2-135M-Instruct` are the same model.
    """
    return _plain(model_id(model)).split("/")[-1].lower()


def _plain(model: str) -> str:
    return model.replace("\\", "/").rstrip("/")
