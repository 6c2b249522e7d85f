"""The Triton kernel's own text, run by Triton's interpreter on a CPU, against its plain form.

This proves what the text computes, not what a compiler makes of it: docs/performance.md has that, from a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_the_kernels_text_computes_what_its_plain_form_does() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernel_interpreted"], cwd=Path(__file__).parents[1], check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "120 trials agree" in done.stdout
