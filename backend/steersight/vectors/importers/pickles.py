"""Refuses pickles: opening one runs whatever its maker put into it, so none is ever opened here."""

from __future__ import annotations

from ..store import VectorError

SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy", ".npz")
CONVERT = (
    "If you trust its maker, save it as safetensors in Python and import that: "
    '`save_file({f"layer_{n}": v.contiguous() for n, v in vector.layer_activations.items()}, '
    '"vector.safetensors", {"layer_type": vector.layer_type})` for a vector of steering-vectors; '
    "docs/steering.md shows the lines."
)


def refuse_pickles(name: str, data: bytes) -> None:
    """Raise VectorError if this is a pickle by its name or its first bytes.

    torch.save writes a zip archive with a data.pkl in it; older files and the pickle module start with the
    byte 0x80 and a protocol number.
    """
    if name.lower().endswith(".npz"):
        raise VectorError(
            "It is an archive of NumPy arrays. One of Gemma Scope is read from its folder, which says where "
            "it belongs: `steersight vectors import .../layer_20/width_16k/average_l0_71 --feature N`."
        )
    zipped = data[:4] in (b"PK\x03\x04", b"PK\x05\x06")
    pickled = len(data) > 1 and data[0] == 0x80 and data[1] <= 5
    if zipped or pickled or name.lower().endswith(SUFFIXES):
        raise VectorError(f"It is a pickle or an archive: opening it could run code, so it is not. {CONVERT}")
