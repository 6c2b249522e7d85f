"""What is named as a model and is none: LoRA adapters and GGUF files, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from . import adapters

GGUF = ".gguf"


def why_no_model(model: str) -> str | None:
    """Why a file or folder cannot be served as a model, in sentences; None where it may be one, and for names
    of the hub."""
    path = Path(model).expanduser()
    if path.suffix.lower() == GGUF:
        return _gguf(f"{path} is a GGUF file")
    if not path.is_dir():
        return None
    files = {file.name for file in path.iterdir()}
    return _judged(model, files, lambda: adapters.base_of(path) or "")


def why_no_model_on_hub(model: str) -> str | None:
    """The same for a repository of the hub, whose files are asked for; None where the hub does not say."""
    from huggingface_hub import HfApi, hf_hub_download

    try:
        files = HfApi().list_repo_files(model)
    except Exception:
        return None  # whatever it is, the load has failed of something else before, and says so

    def base() -> str:
        try:
            return adapters.base_of(Path(hf_hub_download(model, adapters.CONFIG)).parent) or ""
        except Exception:
            return ""

    return _judged(model, set(files), base)


def _judged(model: str, files: Collection[str], base: Callable[[], str]) -> str | None:
    weights = {name for name in files if name.endswith((".safetensors", ".bin")) and name != adapters.WEIGHTS}
    if adapters.CONFIG in files and ("config.json" not in files or not weights - {"adapter_model.bin"}):
        named = base()
        made = f" It was made for {named}." if named else ""
        folder = model if Path(model).is_dir() else "FOLDER"
        fetch = "" if Path(model).is_dir() else f" (fetched with `hf download {model} --local-dir FOLDER`)"
        return (
            f"{model} is a LoRA adapter, and no model.{made} Start with --model {named or 'BASE'} "
            f"--lora NAME={folder}{fetch}."
        )
    if not weights and any(name.lower().endswith(GGUF) for name in files):
        return _gguf(f"{model} holds its weights as GGUF files only")
    return None


def _gguf(what: str) -> str:
    return (
        f"{what}, which vLLM 0.32 does not serve. Name the checkpoint that it was made from, or make one of "
        "it with transformers (from_pretrained(FOLDER, gguf_file=FILE), then save_pretrained)."
    )
