"""Recordings: runs and conversations in one `.npz` file, `docs/recordings.md`. Pure: numpy and the protocol's
models, no engine. The page has the same in TypeScript.
"""

from .errors import RecordingError
from .reader import check_recording, read_recording
from .recording import Alternatives, Guesses, RecordedRun, Recording
from .writer import SUFFIX, recording_bytes, write_recording

__all__ = [
    "SUFFIX", "Alternatives", "Guesses", "RecordedRun", "Recording", "RecordingError", "check_recording",
    "read_recording", "recording_bytes", "write_recording",
]  # fmt: skip
