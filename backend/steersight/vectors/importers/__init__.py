"""Reads steering vectors that other projects made; docs/steering.md lists the formats.

`read_import` looks at what a file or folder holds, not at its name, and answers with vectors that fit the
model and sentences for the person who brought them. One file here per format.

Invariant: whatever the bytes, `read_import` returns a report or raises VectorError. Nothing is unpickled, and
sizes and counts are checked before anything is read by them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from ...files import why
from ..store import MAX_FILE_BYTES, METADATA_KEY, SUFFIX, SteeringVector, VectorError
from . import catalogue, control_vector, gemma_scope, llama_scope, saelens
from .features import MAX_FEATURES, feature_vector
from .own import read_own
from .pickles import refuse_pickles
from .plain import read_plain
from .report import Choice, ImportReport, Norm, Target, clean_id
from .steering_json import read_json
from .tensors import open_tensors

__all__ = ["Choice", "ImportReport", "read_import"]

FORMATS = (
    "safetensors, GGUF control vectors and JSON, and folders of SAELens, Llama Scope and Gemma Scope "
    "autoencoders (docs/steering.md)"
)


Autoencoder = saelens.SAELens | llama_scope.LlamaScope | gemma_scope.GemmaScope


def read_import(
    name: str,
    data: bytes | Path,
    *,
    model: str,
    hidden_size: int,
    layers: int,
    norm: Norm = "unknown",
    label: str = "",
    choose: Choice | None = None,
) -> ImportReport:
    """Make vectors of a file's bytes, or of a file, folder or hub repository that a path names.

    Args:
        name: what the file or folder was called; gives ids and labels.
        data: its bytes, or where it is.
        model: path or hub id of the model that the vectors are for.
        hidden_size: width of its residual stream.
        layers: number of its decoder layers.
        norm: kind of its norms, which matters to features of a centred stream.
        label: a label instead of the file's.
        choose: what the file leaves open.

    Raises:
        VectorError: nothing can be made of it; a sentence says why and what to do.
    """
    target = Target(name, model, hidden_size, layers, label, choose or Choice(), norm)
    try:
        if isinstance(data, bytes):
            return _file(data, target)
        if not data.exists() and target.choice.catalogue is not None:
            return catalogue.read_catalogue(target.choice.catalogue, catalogue.on_hub(str(data)), target)
        if data.is_file() and data.name in (gemma_scope.ARRAYS, gemma_scope.TENSORS):
            return _folder(data.parent, target)
        if data.is_dir():
            return _folder(data, target)
        if data.stat().st_size > MAX_FILE_BYTES:
            raise VectorError(f"It is larger than {MAX_FILE_BYTES >> 20} MiB, too large for a vector.")
        return _file(data.read_bytes(), target)
    except OSError as error:
        raise VectorError(f"It cannot be read ({why(error)}).") from error


def _file(data: bytes, target: Target) -> ImportReport:
    if len(data) > MAX_FILE_BYTES:
        raise VectorError(f"It is larger than {MAX_FILE_BYTES >> 20} MiB, too large for a vector.")
    if _is_safetensors(data):
        return _safetensors(data, target)
    refuse_pickles(target.name, data)
    if data.startswith(control_vector.MAGIC):
        return control_vector.read_control_vector(data, target)
    if data.lstrip()[:1] in (b"{", b"["):
        return read_json(data, target)
    raise VectorError(f"It is of no known format, or damaged. Read are {FORMATS}.")


def _is_safetensors(data: bytes) -> bool:
    """Does it start with the length of a JSON header, and the header?"""
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _safetensors(data: bytes, target: Target) -> ImportReport:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{SUFFIX}"  # safetensors reads metadata from files only
        path.write_bytes(data)
        with open_tensors(path) as tensors:
            if METADATA_KEY not in tensors.metadata:
                if {"W_dec", "w_dec", "decoder.weight"} & set(tensors.names):
                    raise VectorError(
                        "It holds the weights of a sparse autoencoder; they need the configuration beside "
                        "them: `steersight vectors import FOLDER --feature N`."
                    )
                return read_plain(tensors, target)
        return read_own(path, target)


def _folder(folder: Path, target: Target) -> ImportReport:
    """The features that were chosen of the autoencoders in a folder."""
    if target.choice.catalogue is not None:
        return catalogue.read_catalogue(target.choice.catalogue, catalogue.on_disk(folder), target)
    sae: Autoencoder
    if (folder / saelens.CONFIG).is_file():
        sae, source = saelens.SAELens(folder, target), saelens.FORMAT
    elif (folder / llama_scope.CONFIG).is_file():
        sae, source = llama_scope.LlamaScope(folder), llama_scope.FORMAT
    elif gemma_scope.is_gemma_scope(folder):
        sae, source = gemma_scope.GemmaScope(folder, target), gemma_scope.FORMAT
    else:
        raise VectorError(
            f"The folder holds neither {saelens.CONFIG} (SAELens) nor {llama_scope.CONFIG} (Llama Scope) nor "
            f"{gemma_scope.ARRAYS} or {gemma_scope.TENSORS} with {gemma_scope.CONFIG} (Gemma Scope). "
            "With a catalogue, name the folder that holds the autoencoders' folders."
        )
    target.check_width(sae.hidden_size)
    target.check_layer(sae.place.layer)
    return _features(sae, source, target)


def _features(sae: Autoencoder, source: str, target: Target) -> ImportReport:
    chosen = target.choice.features
    if not chosen:
        raise VectorError(
            f"It holds {sae.features} features; say which with `--feature N`, 0 to {sae.features - 1}."
        )
    if len(chosen) > MAX_FEATURES:
        raise VectorError(f"{len(chosen)} features are too many; at most {MAX_FEATURES} are read at once.")
    where = "attention at" if sae.place.site == "attention" else "the stream after"
    made_for = f", made for {sae.made_for!r}" if sae.made_for else ""
    found = [
        f"A {sae.architecture} autoencoder of {sae.features} features of {where} layer "
        f"{sae.place.layer}{made_for}.",
        *sae.notes,
    ]
    problems = []
    if sae.place.unread:
        problems.append(f"{sae.place.unread}: features can be added, but their activations are not read.")
    vectors: list[SteeringVector] = []
    for index in dict.fromkeys(chosen):
        single = len(set(chosen)) == 1
        folder = sae.name or target.file
        own = clean_id(sae.name or target.id)[:52]
        name = clean_id(target.choice.id) if single and target.choice.id else f"{own}.{index}"
        label = target.label if single and target.label else f"{target.label or folder} {index}"
        try:
            vectors.append(
                feature_vector(
                    target, sae.feature(index), id=name, label=label,
                    description=f"Feature {index} of the {source} autoencoder {folder}.",
                )
            )  # fmt: skip
        except VectorError as error:
            problems.append(f"Feature {index}: {error}")
    if not vectors:
        raise VectorError(problems[-1])
    return ImportReport(source, found, vectors, problems)
