"""What importing NNsight does to the process must not reach the page."""

import subprocess
import sys

FIRST_PAGE_AFTER_THE_ENGINE = """
import steersight.app
from steersight.engine.loading import import_engine
import_engine(lambda stage, progress: None)
assert hasattr(object(), "save"), "NNsight no longer mounts .save; nnsight_adapter.py need not import anyio"
import os
import anyio
assert anyio.run(anyio.to_thread.run_sync, os.getpid) == os.getpid()
"""


def test_files_can_be_served_for_the_first_time_after_nnsight_was_imported() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FIRST_PAGE_AFTER_THE_ENGINE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_cpu_worker_can_be_imported_by_its_name_alone() -> None:
    """As vLLM does it in a process that has imported nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", "import steersight.engine.worker_cpu"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
