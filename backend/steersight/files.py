"""Changes of files that happen whole or not at all.

A disk can be full, read-only, or somebody else's at any call. Whoever writes or removes a file with these
either has done so afterwards, or gets the OSError and the folder is as it was.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parents[2]
"""Where the source is, with `data` and the built page beside it."""


def why(error: OSError) -> str:
    """What went wrong, as the end of a sentence: 'Read-only file system'."""
    return error.strerror or str(error) or type(error).__name__


def write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that everybody may read; its folder is made if it is not there.

    It appears under its name with all of its content. Raises OSError; then what was there is still there.

    Args:
        path: where to.
        content: all of it.
        replace: whether it may take the place of another; if not, raises FileExistsError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        if replace:
            os.replace(name, path)
        else:
            _move_to_free(name, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            os.unlink(name)
        raise


def _move_to_free(name: str, path: Path) -> None:
    """Give a file its name unless another has it, also where the file system knows no links."""
    try:
        os.link(name, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(name, path)
    else:
        os.unlink(name)


@contextlib.contextmanager
def removed(path: Path) -> Iterator[None]:
    """Inside the block the file is gone; it comes back when the block raises, and else stays away.

    Raises OSError before the block when it cannot be removed. One that is not there is removed already.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.removed")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        yield
        return
    try:
        yield
    except BaseException:
        os.rename(aside, path)
        raise
    try:
        os.unlink(aside)
    except OSError as error:  # nobody reads it under this name
        logger.warning("%s could not be removed (%s). It can be deleted.", aside, why(error))
