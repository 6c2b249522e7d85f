"""What a killed process of an engine leaves behind, without an engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

from steersight.engine.family import SHARED_MEMORY, Family


def test_what_openmp_has_registered_of_a_killed_process_is_removed() -> None:
    family = Family()
    with subprocess.Popen(["/bin/sleep", "60"]) as ours, subprocess.Popen(["/bin/sleep", "60"]) as other:
        family.settle([ours.pid], [ours.pid])
        of_ours, of_other = (
            Path(SHARED_MEMORY, f"__KMP_REGISTERED_LIB_{process.pid}_0") for process in (ours, other)
        )
        try:
            of_ours.touch()
            of_other.touch()
            family.end()
            assert not of_ours.exists()
            assert of_other.exists()
            assert other.poll() is None
        finally:
            other.kill()
            of_other.unlink()
