"""Settings as the command line gives them."""

from __future__ import annotations

import argparse

from steersight import config


def settings(*words: str) -> config.Settings:
    """What `steersight serve WORDS` would run with."""
    parser = argparse.ArgumentParser()
    config.add_serve_arguments(parser)
    return config.settings_from(parser.parse_args(words))
