"""Writes tests/golden/recording-1.steersight.npz: a recording of version 1 with every member that there is.

Python and the page are both tested against that one file, and will be for as long as they read version 1: a
later version gets a file of its own, and this one stays. Run it from the folder above, as
`python -m scripts.golden_recording`; the same recording gives the same file.
"""

from pathlib import Path

from steersight.recordings import recording_bytes
from tests.recordings_made import conversation

TARGET = Path(__file__).resolve().parent.parent / "tests" / "golden" / "recording-1.steersight.npz"


def main() -> None:
    TARGET.write_bytes(recording_bytes(conversation()))
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
