"""Files from the Hugging Face hub, where it can be reached. Importing this asks no network."""

from __future__ import annotations

from pathlib import Path

from ..store import VectorError


def download(repository: str, file: str) -> Path:
    """A file of a repository in the hub's own cache, downloaded if it is not there yet.

    Raises VectorError with a sentence when it cannot be had.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        return Path(huggingface_hub.hf_hub_download(repository, file))
    except RepositoryNotFoundError as error:
        raise VectorError(f"The hub has no repository {repository!r}, or not for you.") from error
    except (HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise VectorError(
            f"{file} of {repository} cannot be had from the Hugging Face hub. Check the name and the "
            "connection, or download the folder elsewhere and name it here."
        ) from error
