"""Conversations in files, for whoever types their names: one by the time for none, and none over another."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from ..files import why
from ..recordings import SUFFIX
from .connection import Client
from .errors import SteersightError
from .recorded import recorded_run, recording_of
from .run import Run


def place_for(name: str) -> Path:
    """Where a person means it to go; in this folder, by the time, where no name is given."""
    if not name:
        return Path(f"steersight-{dt.datetime.now().astimezone():%Y%m%d-%H%M%S}{SUFFIX}")
    path = Path(name).expanduser()
    return path if path.suffix == ".npz" else path.with_name(path.name + SUFFIX)


def save_conversation(turns: Sequence[tuple[str, Run]], client: Client, name: str) -> Path:
    """Write what was asked and the runs that answered; returns where.

    Raises SteersightError with a sentence, and then nothing has been written.
    """
    if not turns:
        raise SteersightError("invalid", "There is no reply to save yet.")
    path = place_for(name)
    recording = recording_of([(asked, recorded_run(run, client)) for asked, run in turns])
    try:
        recording.save(path, replace=False)
    except FileExistsError:
        raise SteersightError("invalid", f"{path} is there already. Name another file.") from None
    except (OSError, ValueError) as error:
        trouble = why(error) if isinstance(error, OSError) else str(error)
        raise SteersightError("invalid", f"{path} cannot be written ({trouble}).") from None
    return path
