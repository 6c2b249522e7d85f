"""From what an engine left behind to a sentence: each known cause by the text that libraries really write,
unknown ones as they are; and what comes first where several processes fail together."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steersight.engine import trouble
from steersight.engine.causes import CAUSES, cause, explain
from steersight.engine.trouble import Raised, Trouble

GIVEN_UP = RuntimeError(
    "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
)
NO_WORKER = Raised((("Exception", "WorkerProc initialization failed due to an exception in a "
                     "background process. See stack trace for root cause."),))  # fmt: skip


def raised(name: str, text: str) -> Raised:
    return Raised(((name, text),))


def pydantic(text: str) -> str:
    return (
        f"1 validation error for ModelConfig\n  Value error, {text} [type=value_error, input_value="
        "ArgsKwargs((), {'model': '/m'}), input_type=ArgsKwargs]\n    For further information visit https://errors.example"
    )


SAID = [
    (
        "NotImplementedError",
        "Cannot copy out of meta tensor; no data!",
        "this architecture computes with its weights while vLLM builds it. Serve another model.",
    ),
    (
        "ValidationError",
        pydantic(
            "Model architecture MptForCausalLM was supported in vLLM until v0.28.0, and is not supported "
            "anymore. Please use an older version"
        ),
        "vLLM served this architecture until v0.28.0, and serves it no more. Serve another model.",
    ),
    (
        "FileNotFoundError",
        "Weight files referenced in index but missing: {'/m/b.safetensors', '/m/a.safetensors'}",
        "Weights are missing in the checkpoint: a.safetensors, b.safetensors. Fetch the",
    ),
    (
        "RuntimeError",
        "Cannot find any model weights with `/m/noweights`",
        "There are no weights in /m/noweights. Put",
    ),
    (
        "SafetensorError",
        "Error while deserializing header: incomplete metadata",
        "fetched to its end (Error while deserializing header: incomplete metadata). Fetch",
    ),
    (
        "RuntimeError",
        "start (0) + length (128) exceeds dimension size (96).",
        "(RuntimeError: start (0) + length (128) exceeds dimension size (96)). See that",
    ),
    (
        "RuntimeError",
        "Error raised in subprocess:\nTraceback (most recent call last):\n  File x\n"
        "ModuleNotFoundError: No module named 'torchvision'\n",
        "needs torchvision, which is not installed: text models do without it. Serve a text model.",
    ),
    (
        "ImportError",
        "\nFuyuProcessor requires the Torchvision library but it was not found",
        "needs Torchvision, which",
    ),
    (
        "ModuleNotFoundError",
        "No module named 'mamba_ssm.ops'",
        "needs the Python package mamba_ssm.ops, which",
    ),
    (
        "ValidationError",
        pydantic("Model architectures ['FooForCausalLM'] are not supported for now. Supported arc"),
        "vLLM does not know the model's architecture (FooForCausalLM). Serve another model.",
    ),
    (
        "ValueError",
        "The checkpoint you are trying to load has model type `foo` but Transformers does not recognize",
        "transformers does not know models of the type foo. Serve another model.",
    ),
    (
        "ValueError",
        "Loading /m requires you to execute the configuration file in that repo on your local machine.",
        "which this server does not run unless it is told to. Serve another model; or read the code, and",
    ),
    (
        "RuntimeError",
        "expect weight to be bfloat16, float16, int8, fp8_e4m3 or uint8(mxfp4 or int4).",
        "CPU kernels for this architecture take half precision only. Start with --dtype bfloat16.",
    ),
    (
        "RuntimeError",
        "_C::static_scaled_fp8_quant() expected at most 0 argument(s) but received 4 argument(s).",
        "no form of for this kind of machine (static_scaled_fp8_quant). Serve the checkpoint that is not",
    ),
    (
        "ValidationError",
        pydantic("Unknown quantization method: bitsandbytes. Must be one of ['awq', 'fp8']."),
        "with bitsandbytes, which this build of vLLM cannot run. Serve the checkpoint that is not",
    ),
    (
        "ValidationError",
        pydantic(
            "torch.float32 is not supported for quantization method fp8. Supported dtypes: [torch.bfloat16, "
            "torch.float16]"
        ),
        "quantised with fp8, which does not compute in float32. Start with --dtype bfloat16, or serve",
    ),
    (
        "ValueError",
        "gguf quantization is currently not supported in cpu.",
        "quantised with gguf, which does not run on",
    ),
    (
        "ValueError",
        "The quantization method marlin is not supported for the current GPU. Minimum capability: 80.",
        "quantised with marlin, which this GPU is too old for.",
    ),
    (
        "RuntimeError",
        "Insufficient space in /dev/shm for shared-memory allocation: 160 MiB required, 64 MiB free.",
        " has 64 MiB left of the 160 MiB that they need. Start the container with `--shm-size 1g`",
    ),
    (
        "ValueError",
        "Available memory on node 0 (20.1/23.5 GiB) on kv cache allocation is less than requested memory for "
        "kv (100000.0 GiB). Decrease",
        "less memory left than the 100000.0 GiB that the KV cache is to have. Lower --kv-cache-gib",
    ),
    (
        "ValueError",
        "To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is "
        "needed, which is larger than the available KV cache memory (1.0 GiB). Based on",
        "of 131072 tokens needs a KV cache of 16.0 GiB, and there are 1.0 GiB for it. Lower --max",
    ),
    (
        "ValueError",
        "No available memory for the cache blocks. Try",
        "leave no memory for a KV cache. Raise --gpu-memory",
    ),
    (
        "ValueError",
        "Free memory on device cuda:0 (3.2/79.1 GiB) on startup is less than desired GPU memory util",
        "Other programs use the GPU: 3.2 of its 79.1 GiB are free. End them, or lower --gpu-memory.",
    ),
    (
        "OutOfMemoryError",
        "CUDA out of memory. Tried to allocate 224.00 MiB.",
        "not enough memory. Free memory, or ask",
    ),
    (
        "RuntimeError",
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried",
        "There is not enough memory. Free memory, or ask for less:",
    ),
    ("OSError", "[Errno 28] No space left on device", "The disk is full, or /dev/shm. Free some space."),
    (
        "ValidationError",
        pydantic("Total number of attention heads (9) must be divisible by tensor parallel size (2)."),
        "has 9 attention heads, which 2 ranks cannot share equally. Choose another --tensor-parallel.",
    ),
    ("RuntimeError", "No CUDA GPUs are available", "There is no GPU that the CUDA engine can use. See that"),
    (
        "OSError",
        "nobody/nothing is not a local folder and is not a valid model identifier listed on",
        "There is no such model: neither a folder here nor a name that the hub knows. Correct --model",
    ),
    (
        "OSError",
        "You are trying to access a gated repo.\nMake sure",
        "only to those who have agreed to its terms. Agree",
    ),
    (
        "OSError",
        "We couldn't connect to 'https://hub.example' to load the files",
        "the hub cannot be reached. Name a",
    ),
    (
        "OSError",
        "/m does not appear to have a file named tokenizer.json.",
        "The checkpoint has no tokenizer.json. Fetch",
    ),
]


@pytest.mark.parametrize(("name", "text", "sentence"), SAID, ids=[said[2][:30] for said in SAID])
def test_a_known_cause_is_said_with_what_to_do(name: str, text: str, sentence: str) -> None:
    found = explain(GIVEN_UP, Trouble((raised(name, text), NO_WORKER)))
    assert sentence in found
    assert "{" not in found
    assert found == explain(type(name, (Exception,), {})(text)), "it may as well come to the server itself"


def test_every_row_of_the_table_is_tried() -> None:
    for row in CAUSES:
        assert any(re.search(row.seen, f"{name}: {text}") for name, text, _ in SAID), row.what


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            ValueError("Bloom has layers of a kind. Serve another model."),
            "Bloom has layers of a kind. Serve another model.",
        ),
        (KeyError("foo"), "KeyError: 'foo'."),
        (ValueError(""), "ValueError."),
        (RuntimeError("Two\n  lines"), "Two lines."),
        (
            RuntimeError("Traceback (most recent call last):\n  File x\nOddError: it broke"),
            "OddError: it broke.",
        ),
        (ValueError(pydantic("Some limit is too high.")), "Some limit is too high."),
    ],
)
def test_an_unknown_cause_is_said_as_it_is(error: Exception, sentence: str) -> None:
    assert explain(error) == sentence
    assert explain(GIVEN_UP, Trouble((Raised.of(error), NO_WORKER))) == sentence


def test_a_long_text_is_cut() -> None:
    assert len(explain(ValueError("Word " * 1000))) < 450


def test_what_came_first_counts_and_not_what_it_took_along() -> None:
    lost = raised("RuntimeError", "[gloo] Connection closed by peer [127.0.0.1]:1234")
    true = raised("KeyError", "'layers.3'")
    assert explain(GIVEN_UP, Trouble((lost, true, NO_WORKER))) == "KeyError: 'layers.3'."


def test_what_was_got_over_is_not_blamed() -> None:
    before = raised("ImportError", "No module named 'torchvision'")
    assert "quantised with foo" in explain(
        ValueError("Unknown quantization method: foo."), Trouble((before,))
    )


def test_a_cause_behind_a_cause_is_found() -> None:
    error = RuntimeError("Loading layer 3 failed")
    error.__cause__ = MemoryError()
    assert explain(error).startswith("There is not enough memory.")


@pytest.mark.parametrize(
    ("found", "status", "sentence"),
    [
        (Trouble(crashes=("Bus error",)), "-7", "has too little of. Start the container with"),
        (
            Trouble((NO_WORKER,), ("Illegal instruction",)),
            "1",
            "instructions that this one does not have. Use a newer",
        ),
        (
            Trouble(crashes=("Segmentation fault",)),
            "-11",
            "crashed (Segmentation fault). The log says where.",
        ),
        (
            Trouble((NO_WORKER,), out_of_memory=True),
            "1",
            "The system had run out of memory and killed it. Free memory",
        ),
        (Trouble((NO_WORKER,)), "1", "was killed, most likely because memory had run out. Free memory"),
        (Trouble(), "-9", "was killed, most likely because memory had run out. Free memory"),
        (Trouble(), "1", "ended without saying why. The log may say more."),
    ],
)
def test_a_process_that_says_nothing(found: Trouble, status: str, sentence: str) -> None:
    assert sentence in explain(RuntimeError(str(GIVEN_UP).replace("1}", f"{status}}}")), found)


def test_nothing_is_made_up_of_an_engine_that_just_ended() -> None:
    assert cause(Trouble()) is None
    assert cause(Trouble((raised("RuntimeError", "Executor failed."),))) is None


# ---------------------------------------------------------------- how it is written down

FAILING = """
import json, logging, logging.config, multiprocessing, os, sys

def fail(config, how):
    logging.config.dictConfig(json.load(open(config)))
    if how == "raise":
        try:
            raise ValueError("no") from KeyError("deep")
        except ValueError:
            logging.getLogger("vllm.v1.engine.core").exception("EngineCore failed to start.")
    else:
        import ctypes
        ctypes.string_at(0)

if __name__ == "__main__":
    child = multiprocessing.get_context("spawn").Process(target=fail, args=sys.argv[1:])
    child.start()
    child.join()
"""


def run_failing(folder: Path, how: str) -> Trouble:
    config = trouble.logging_config(folder, None, {"version": 1, "loggers": {"vllm": {"handlers": []}}})
    script = folder / "failing.py"
    script.write_text(FAILING)
    subprocess.run([sys.executable, script, config, how], check=True, timeout=60, capture_output=True)  # noqa: S603
    return trouble.read(folder, None)


def test_what_a_process_logs_is_read_by_another(tmp_path: Path) -> None:
    assert run_failing(tmp_path, "raise") == Trouble(
        (Raised((("ValueError", "no"), ("KeyError", "'deep'"))),)
    )


def test_a_crash_is_told_by_its_name(tmp_path: Path) -> None:
    assert run_failing(tmp_path, "crash") == Trouble(crashes=("Segmentation fault",))


def test_the_users_own_logging_is_kept(tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"version": 1, "handlers": {"h": {"class": "logging.NullHandler"}},
                                 "loggers": {"vllm": {"handlers": ["h"]}, "other": {}}}))  # fmt: skip
    config = json.loads(trouble.logging_config(tmp_path, str(given), {}).read_text())
    assert config["loggers"]["vllm"]["handlers"] == ["h", "steersight"]
    assert config["loggers"]["other"] == {}


def test_old_failures_are_not_blamed(tmp_path: Path) -> None:
    recorder = trouble.Recorder(str(tmp_path))
    for text in ("old", "new"):
        try:
            raise ValueError(text)
        except ValueError:
            recorder.emit(logging.makeLogRecord({"exc_info": sys.exc_info()}))
    file = tmp_path / trouble.RAISED
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["time"] -= 60
    file.write_text("\n".join(map(json.dumps, lines)) + "\n{half a li")
    assert trouble.read(tmp_path, None).raised == (raised("ValueError", "new"),)
    assert trouble.read(tmp_path, None, since=time.time() + 60) == Trouble()
