"""From what an engine left behind to a sentence for the person who started it: what happened, and what to do.

A table of known causes, looked for in every exception that was logged; what is not in it is shown as it is,
in one sentence. Pure: `trouble.py` gathers, this judges. The texts are those of vLLM 0.32 (0.26 words the
same things alike), transformers 5.19 and torch 2.13; a text that a later version words anew is then an
unknown cause, and still shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .trouble import Raised, Trouble

MOST_CHARACTERS = 400
"""Of a sentence that is somebody else's."""
ROOM = (
    "Free memory, or ask for less: --max-model-len and --max-runs, --kv-cache-gib on a CPU, --gpu-memory on "
    "a GPU, where --tensor-parallel also spreads a model over several."
)
SHARED_MEMORY = "Start the container with `--shm-size 1g`, or make /dev/shm larger."
AGAIN = "Fetch the checkpoint again, whole."
OTHER = "Serve another model."


@dataclass(frozen=True)
class Cause:
    """One known cause. `what` and `do` may name the groups of the pattern."""

    seen: str
    """Looked for in `Class: text`, over lines."""
    what: str
    do: str


CAUSES = (
    # ---- weights
    Cause(
        r"Weight files referenced in index but missing: \{(?P<files>[^}]*)\}",
        "Weights are missing in the checkpoint: {files}.", AGAIN,
    ),
    Cause(
        r"Cannot find any model weights with [`'\"](?P<model>[^`'\"]+)",
        "There are no weights in {model}.",
        "Put the checkpoint's .safetensors files there, or name another with --model.",
    ),
    Cause(
        r"SafetensorError: (?P<why>[^\n]*)",
        "A file of weights is damaged or was not fetched to its end ({why}).", AGAIN,
    ),
    Cause(
        r"(?P<why>[^\n]*(?:exceeds dimension size|size mismatch|[Ss]hape mismatch)[^\n]*)",
        "The weights do not fit the configuration ({why}).",
        "See that config.json and the weights belong together.",
    ),
    # ---- what the model is
    Cause(
        r"No module named '(?P<module>torchvision|torchaudio|torchcodec)|"
        r"requires the (?P<library>Torchvision|torchaudio) library",
        "The model takes images or sound besides text, and needs {module}{library}, which is not installed: "
        "text models do without it.",
        "Serve a text model.",
    ),
    Cause(
        r"No module named '(?P<module>[\w.]+)'",
        "The model needs the Python package {module}, which is not installed.",
        "Install it in the server's environment, or serve another model.",
    ),
    Cause(
        r"Model architectures \[(?P<names>[^\]]*)\] are not supported for now",
        "vLLM does not know the model's architecture ({names}).", OTHER,
    ),
    Cause(
        r"model type [`'](?P<kind>[^`']+)[`'] but Transformers does not recognize",
        "transformers does not know models of the type {kind}.", OTHER,
    ),
    Cause(
        r"Cannot copy out of meta tensor|Tensor on device meta is not on the expected device|"
        r"Tensor\.item\(\) cannot be called on meta tensors",
        "NNsight builds a model's modules once without weights, and this architecture computes with its "
        "weights while vLLM builds it.",
        OTHER,
    ),
    Cause(
        r"was supported in vLLM until (?P<version>v[\d.]+), and is not supported anymore",
        "vLLM served this architecture until {version}, and serves it no more.", OTHER,
    ),
    Cause(
        r"contains custom code|requires you to execute",
        "The checkpoint brings Python code of its own, which this server does not run unless it is told to.",
        "Serve another model; or read the code, and start with --trust-remote-code if it may do whatever "
        "this server can.",
    ),
    # ---- quantisation
    Cause(
        r"Unknown quantization method: (?P<method>[\w-]+)",
        "The weights are quantised with {method}, which this build of vLLM cannot run.",
        "Serve the checkpoint that is not quantised.",
    ),
    Cause(
        r"torch\.(?P<dtype>\w+) is not supported for quantization method (?P<method>[\w-]+)\. "
        r"Supported dtypes: \[(?:torch\.)?(?P<other>\w+)",
        "The weights are quantised with {method}, which does not compute in {dtype}.",
        "Start with --dtype {other}, or serve the checkpoint that is not quantised.",
    ),
    Cause(
        r"(?P<method>[\w-]+) quantization is currently not supported in (?P<device>\w+)",
        "The weights are quantised with {method}, which does not run on this {device}.",
        "Serve the checkpoint that is not quantised.",
    ),
    Cause(
        r"quantization method (?P<method>[\w-]+) is not supported for the current GPU",
        "The weights are quantised with {method}, which this GPU is too old for.",
        "Serve the checkpoint that is not quantised.",
    ),
    Cause(
        r"_C::(?P<kernel>\w+)\(\) expected at most 0 argument",
        "The weights need a kernel that vLLM has no form of for this kind of machine ({kernel}).",
        "Serve the checkpoint that is not quantised, or one that is quantised otherwise.",
    ),
    Cause(
        r"expect weight to be bfloat16, float16",
        "vLLM's CPU kernels for this architecture take half precision only.",
        "Start with --dtype bfloat16.",
    ),
    # ---- memory
    Cause(
        r"Insufficient space in /dev/shm[^:]*: (?P<need>\d+ MiB) required, (?P<free>\d+ MiB) free",
        "The engine's processes talk through shared memory, and /dev/shm has {free} left of the {need} that "
        "they need.",
        SHARED_MEMORY,
    ),
    Cause(
        r"on kv cache allocation is less than requested memory for kv \((?P<need>[\d.]+)",
        "There is less memory left than the {need} GiB that the KV cache is to have.",
        "Lower --kv-cache-gib, or free memory.",
    ),
    Cause(
        r"max seq len \((?P<tokens>\d+)\), \(?(?P<need>[\d.]+) GiB KV cache is needed[^(]*"
        r"\((?P<free>[\d.]+) GiB\)",
        "A conversation of {tokens} tokens needs a KV cache of {need} GiB, and there are {free} GiB for it.",
        "Lower --max-model-len, or raise --kv-cache-gib on a CPU, --gpu-memory on a GPU.",
    ),
    Cause(
        r"No available memory for the cache blocks",
        "The weights leave no memory for a KV cache.",
        "Raise --gpu-memory, spread the model with --tensor-parallel, or serve a smaller one.",
    ),
    Cause(
        r"Free memory on device \S+ \((?P<free>[\d.]+)/(?P<all>[\d.]+) GiB\) on startup is less than desired",
        "Other programs use the GPU: {free} of its {all} GiB are free.",
        "End them, or lower --gpu-memory.",
    ),
    Cause(
        r"OutOfMemoryError|MemoryError|CUDA out of memory|std::bad_alloc|[Cc]an(?:not|'t) allocate memory",
        "There is not enough memory.", ROOM,
    ),
    Cause(r"No space left on device", "The disk is full, or /dev/shm.", f"Free some space. {SHARED_MEMORY}"),
    # ---- GPUs and ranks
    Cause(
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<ranks>\d+)\)",
        "The model has {heads} attention heads, which {ranks} ranks cannot share equally.",
        "Choose another --tensor-parallel.",
    ),
    Cause(
        r"No CUDA GPUs are available|Found no NVIDIA driver|driver version is insufficient|"
        r"Failed to infer device type",
        "There is no GPU that the CUDA engine can use.",
        "See that `nvidia-smi` finds one; in a container, give it to it.",
    ),
    # ---- the hub
    Cause(
        r"(?P<model>\S+) is not a local folder and is not a valid model identifier|"
        r"(?:RepositoryNotFoundError|Repository Not Found)",
        "There is no such model: neither a folder here nor a name that the hub knows.",
        "Correct --model; a private one needs HF_TOKEN.",
    ),
    Cause(
        r"gated repo", "The hub gives this model only to those who have agreed to its terms.",
        "Agree on its page there, and set HF_TOKEN.",
    ),
    Cause(
        r"We couldn't connect to|LocalEntryNotFoundError|OfflineModeIsEnabled|"
        r"outgoing traffic has been disabled",
        "The model is not on this machine, and the hub cannot be reached.",
        "Name a checkpoint's folder with --model, or let this machine reach the hub.",
    ),
    Cause(
        r"(?P<model>\S+) does not appear to have a file named (?P<file>[\w.]+)",
        "The checkpoint has no {file}.", AGAIN,
    ),
)  # fmt: skip

SECONDARY = re.compile(
    r"initialization failed|failed to be inspected|Worker failed with error|See root cause above|"
    r"Executor failed|Connection (closed|reset) by peer|BrokenPipeError|EngineDeadError|CancelledError|"
    r"cancelled$|^CalledProcessError"
)
"""Exceptions that only say that there was another."""
KILLED = re.compile(r"Failed core proc\(s\): \{[^}]*: (?P<status>-?\d+)")
CRASHES = {
    "Bus error": (
        "The engine crashed where it used shared memory, which /dev/shm has too little of.", SHARED_MEMORY,
    ),
    "Illegal instruction": (
        "The engine was built for a processor with instructions that this one does not have.",
        "Use a newer machine, or a GPU.",
    ),
}  # fmt: skip


def explain(error: BaseException, trouble: Trouble | None = None) -> str:
    """Why an engine did not start: one or two sentences, what happened and what to do.

    Args:
        error: what the server got.
        trouble: what the engine's processes have left behind.
    """
    trouble = trouble or Trouble()
    if (said := cause(trouble, error)) is not None:
        return said
    status = KILLED.search(str(error))
    if trouble.raised or (status is not None and int(status["status"]) < 0):
        # A worker that was killed leaves nothing but the engine's complaint about it.
        return f"The engine's process was killed, most likely because memory had run out. {ROOM}"
    return "The engine's process ended without saying why. The log may say more."


def cause(trouble: Trouble, error: BaseException | None = None) -> str | None:
    """What is known of a failure, in one or two sentences; None where nothing is.

    Args:
        trouble: what the engine's processes have left behind.
        error: what the server got, if it got one.
    """
    # The server's own exception first: where it does not only pass others on, no process has failed, and what
    # was logged before may have been got over.
    own = [] if error is None else [Raised.of(error)]
    for text in _texts([*own, *trouble.raised]):
        if (known := _known(text)) is not None:
            return known
    for crash in trouble.crashes:
        what, do = CRASHES.get(crash, (f"The engine's process crashed ({crash}).", "The log says where."))
        return f"{what} {do}"
    for raised in (*own, *trouble.raised):
        for name, text in raised.chain:
            if not SECONDARY.search(f"{name}: {text}"):
                return sentence(name, text)
    if trouble.out_of_memory:
        return f"The system had run out of memory and killed it. {ROOM}"
    return None


def _texts(raised: list[Raised]) -> Iterator[str]:
    for each in raised:
        for name, text in each.chain:
            yield f"{name}: {text}"


def _known(text: str) -> str | None:
    for cause in CAUSES:
        if (found := re.search(cause.seen, text)) is not None:
            groups = {name: _plain(value or "") for name, value in found.groupdict().items()}
            return f"{cause.what} {cause.do}".format(**groups)
    return None


def _plain(value: str) -> str:
    """A group as people write it: without quotes, and files without their folder where there are several."""
    if "/" in value and "'" in value:
        value = ", ".join(sorted(part.rsplit("/", 1)[-1] for part in re.findall(r"'([^']*)'", value)))
    return value.replace("'", "").strip().rstrip(".")


def sentence(name: str, text: str) -> str:
    """Somebody else's error as one sentence; its class stands in front where the text alone says too little.

    Args:
        name: the class.
        text: its text; of a traceback in it the last line counts, of pydantic's report what it is about.
    """
    if "Traceback (most recent call last)" in text:
        text = text.rstrip().rsplit("\n", 1)[-1]
    if (about := re.search(r"Value error, (.*?)(?: \[type=|$)", text, re.DOTALL)) is not None:
        text = about[1]
    text = " ".join(text.split())
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS].rsplit(" ", 1)[0] + " ..."
    if not re.match(r"[A-Z].* .*", text):
        text = f"{name}: {text}" if text else name
    return text if text.endswith((".", "!", "?")) else f"{text}."
