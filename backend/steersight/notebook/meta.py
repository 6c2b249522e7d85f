"""NNsight's model where there is no model: the tree of modules that traces are written against.

A trace that is sent to a server (`model.trace(..., serve=URL)`) names modules and carries code; the weights
are the server's. So what a client needs is the tree alone, without weights, on any machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..address import server_at
from ..client import SteersightError
from .missing import needed

QUIET = {
    # NNsight 0.8.1 knows vLLM's first model runner only.
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
ANSWER_SECONDS = 30.0


def meta_model(
    url: str = "127.0.0.1:8000", *, model: str | None = None, token: str | None = None, **options: Any
) -> Any:
    """NNsight's `VLLM` without weights, to write traces against that a server runs.

    Takes some 15 seconds, most of them for importing vLLM. The model's configuration and tokenizer are read
    here; its weights are not.

    Args:
        url: of the server, which is asked what it serves unless `model` says so.
        model: folder of the model, or its name where it is in the data folder or the Hugging Face cache.
        token: what the server asks for, if it does; without one, that of STEERSIGHT_TOKEN.
        options: of vLLM, such as `trust_remote_code`.

    Returns: an object of the class `nnsight.modeling.vllm.VLLM` itself, so that every server of NNsight's
        protocol knows what it is sent.

    Raises: SteersightError when the server does not answer or the model is not on this machine, ImportError
        where NNsight or vLLM is not installed; each with a sentence.

    Example:
        model = notebook.meta_model(server.url)
        with model.trace("The Eiffel Tower is in", serve=server.url, api_key=TOKEN):
            hidden = model.model.layers[20].output[0].save()
    """
    folder = _folder_of(model if model is not None else served_model(url, token))
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from ..engine import libnuma

    libnuma.load()
    for package in ("vllm", "nnsight"):
        needed(package, "NNsight's model")
    from ..engine.nnsight_adapter import module_tree

    return module_tree(folder, **options)


def served_model(url: str, token: str | None = None) -> str:
    """Id of the model that a server serves. Raises SteersightError with a sentence."""
    import httpx

    address = f"{server_at(url).http}/api/model"
    token = token or os.environ.get("STEERSIGHT_TOKEN") or None
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        answer = httpx.get(address, headers=headers, timeout=ANSWER_SECONDS)
    except httpx.HTTPError as error:
        raise SteersightError(
            "disconnected", f"No Steersight server answers at {address} ({error}). Start one with `make run`."
        ) from None
    if answer.status_code != 200:
        raise SteersightError("refused", f"{address} answered {answer.status_code}: {answer.text[:200]}")
    try:
        found = answer.json()
    except ValueError:
        raise SteersightError("unreadable", f"What answers at {address} is no Steersight server.") from None
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise SteersightError(
            "invalid", "The server does not know its model yet. Ask again when its engine has begun to load."
        )
    return str(found["id"])


def _folder_of(model: str) -> str:
    """Where the model's files are on this machine."""
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    from ..engine.options import EngineOptions
    from ..models.here import models_here

    data = Path(os.environ.get("STEERSIGHT_DATA_DIR") or EngineOptions().data_dir)
    for one in models_here(data):
        if one.id == model:
            return str(one.folder)
    raise SteersightError(
        "invalid",
        f"The files of {model} are not on this machine: a trace is written against its configuration and "
        "tokenizer. Name their folder with `model=`, or fetch them with "
        f'`hf download {model if "/" in model else "ORGANISATION/NAME"} --include "*.json"`.',
    )
