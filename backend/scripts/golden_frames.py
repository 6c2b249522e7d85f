"""Writes tests/golden/frames.json: example frames of every type with the exact bytes of each.

The Python and the TypeScript codec are both tested against that one file, so neither can change what
travels without the other noticing. Run it again after a change of the contract; the same models give the
same file. `hex` is the msgpack form, `frame` the same as JSON, where bytes are written `{"$hex": "..."}`.

A frame whose whole-numbered floats or integers above 2**53 matter is for decoding tests in JavaScript
only: its single number type cannot say which msgpack type is meant.
"""

import json
import struct
from pathlib import Path
from typing import Any

from steersight.protocol import messages as m
from steersight.protocol.codec import encode

TARGET = Path(__file__).resolve().parent.parent / "tests" / "golden" / "frames.json"

MODEL = m.ModelInfo(
    id="SmolLM2-135M-Instruct",
    layers=30,
    hidden_size=576,
    vocab_size=49152,
    dtype="float32",
    max_model_len=8192,
    special_ids=[0, 1, 2],
    thoughts=m.ThoughtMarks(start="<think>", end="</think>"),
    template=[
        m.TemplateArgument(name="enable_thinking", kind="switch", choices=[], default=True),
        m.TemplateArgument(name="effort", kind="choice", choices=["low", "high"], default=None),
    ],
)
VECTORS = [
    m.VectorInfo(
        id="joy",
        label="Joy",
        description="Delighted, warm and full of exclamation marks.",
        layers=[20],
        range=[-0.3, 0.3],
        suggested=0.15,
        kind="direction",
        operator="add",
        operators=["add", "add_absolute", "ablate", "clamp"],
        own=False,
    ),
    m.VectorInfo(
        id="french",
        label="Français",
        description="Écrit en français - 法语.",
        layers=[18, 19, 20],
        range=[-0.25, 0.25],
        suggested=0.125,
        kind="feature",
        operator="feature_set",
        operators=["add", "add_absolute", "ablate", "clamp", "feature_set", "feature_scale"],
        own=True,
    ),
    m.VectorInfo(
        id="no_manner",
        label="No manner",
        description="No manner\n\nTakes it out of the stream.",
        layers=[10, 11],
        range=[0.0, 1.0],
        suggested=1.0,
        kind="function",
        operator=None,
        operators=[],
        file="no_manner.py",
        own=False,
    ),
]
METRICS = [
    m.MetricInfo(
        id="residual_norm",
        label="Residual norm",
        description="Length of the residual stream after the layer.",
        unit="L2",
        transform="log2",
        scale=m.ColorScale(kind="sequential", lo=None, hi=None),
        family="residual",
        cost="a few operations",
        default=True,
        error=None,
    ),
    m.MetricInfo(
        id="cosine_below",
        label="Cosine with the layer below",
        description="1 means that the layer kept the direction.",
        unit="",
        transform="linear",
        scale=m.ColorScale(kind="diverging", lo=-1.0, hi=1.0, mid=0.0),
        family="own",
        cost="one call",
        default=False,
        error="ValueError: the probe's file is gone",
    ),
]
LIMITS = m.Limits(
    max_frame_bytes=m.MAX_FRAME_BYTES,
    max_messages=m.MAX_MESSAGES,
    max_vectors=m.MAX_VECTORS,
    max_strength=m.MAX_STRENGTH,
    max_runs_per_connection=8,
    max_reply_tokens=4096,
    grace_seconds=30.0,
)

# 2 rows x 2 metrics x 3 layers; every value is exact in fp16. The extremes are the largest finite half,
# the smallest subnormal and minus zero.
ROW_VALUES = [5.5, 6.25, 15.984375, 1.0, 0.5, -0.25, -2.0, 65504.0, 2.0**-24, -1.0, -0.0, 0.333251953125]
ROW_DATA = struct.pack("<12e", *ROW_VALUES)


def client_frames() -> dict[str, m.Frame]:
    """Frames that a client sends, by name."""
    question = m.ChatMessage(role="user", content="Tell me about Paris.")
    return {
        "hello_without_token": m.Hello(),
        "hello_with_token": m.Hello(token="clé-🔑"),  # noqa: S106 - an example, not a secret
        "start_with_defaults": m.Start(id="r1", messages=[question]),
        "start_with_everything": m.Start(
            id="tab-3:run.07",
            messages=[
                m.ChatMessage(
                    role="system", content='Answer in one line.\n\tNo "quotes", no \\ and no \u0000.'
                ),
                m.ChatMessage(role="user", content="Grüß Gott! 你好 👩🏽‍🚀 مرحبا"),
                m.ChatMessage(role="assistant", content="", thought="So 🤔"),
                question,
            ],
            sampling=m.Sampling(
                max_tokens=131_072,
                temperature=0.25,
                top_p=0.9,
                top_k=40,
                min_p=0.05,
                seed=2**53 - 1,
                stop=["\n\n", "Ω", "<|im_end|>"],
                repetition_penalty=1.1,
            ),
            strengths={"joy": 0.15, "french": -0.125, "sae:1024": 1e-3},
            template={"enable_thinking": False, "effort": "high", "budget": 512, "share": 0.5},
            metrics=["residual_norm", "projection_before:sae:1024"],
            lens=m.LensOptions(stride=4, top=20),
            entropy=True,
            alternatives=20,
            prompt_rows=False,
        ),
        "start_with_a_beginning": m.Start(
            id="branch",
            messages=[question],
            edits=["no “MLP” 3"],
            prefix_ids=[0, 127, 128, 49_151, 2**31 - 1],
            rows_from=300,
        ),
        "start_without_rows": m.Start(id="quiet", messages=[question], metrics=[]),
        "start_greedy_with_largest_seed": m.Start(
            id="big", messages=[question], sampling=m.Sampling(temperature=0.0, seed=2**63 - 1)
        ),
        "start_with_long_text": m.Start(id="long", messages=[m.ChatMessage(role="user", content="é" * 700)]),
        "start_together": m.StartTogether(
            id="pair",
            starts=[
                m.Start(id="plain", messages=[question]),
                m.Start(id="steered", messages=[question], strengths={"joy": 0.25}),
            ],
        ),
        "steer_one": m.Steer(run="c1-7", rev=1, strengths={"pirate": 0.2}),
        "steer_negative_at_last_revision": m.Steer(
            run="c1-7", rev=2**31 - 1, strengths={"joy": -0.3, "french": -10.0}
        ),
        "steer_nothing": m.Steer(run="c1-7", rev=3, strengths={}),
        "watch": m.Watch(
            run="c1-7",
            metrics=["residual_norm", "projection:joy"],
            lens=m.LensOptions(stride=3, top=20),
            entropy=True,
            alternatives=5,
        ),
        "watch_the_default": m.Watch(run="c1-7"),
        "stop": m.Stop(run="c1-7"),
        "resume": m.Resume(run="c1-7", epoch="e-5f2c", after=2**32),
        "resume_from_the_beginning": m.Resume(run="c1-7", epoch="e-5f2c"),
        "rows_again": m.AskRows(run="c1-7", start=42, count=m.MAX_ROWS_ASKED),
        "ping": m.Ping(t=1732406400123.25),
        "ping_negative": m.Ping(t=-0.5),
    }


def server_frames() -> dict[str, m.Frame]:
    """Frames that the server sends, by name."""
    loading = m.EngineStatus(state="loading", stage="Reading the weights.", progress=0.375)
    ready = m.EngineStatus(state="ready", stage="Ready.", progress=1.0)
    usage = m.Usage(prompt_tokens=34, reply_tokens=2)
    return {
        "welcome_while_loading": m.Welcome(
            server="0.1.0",
            name="lab",
            epoch="e-5f2c",
            engine=loading,
            model=None,
            metrics=[],
            vectors=[],
            limits=LIMITS,
        ),
        "welcome_when_ready": m.Welcome(
            server="0.1.0",
            name="lab",
            epoch="e-5f2c",
            engine=ready,
            model=MODEL,
            metrics=METRICS,
            vectors=VECTORS,
            limits=LIMITS,
        ),
        "engine_loading": m.Engine(
            state="loading", stage="Starting the worker.", progress=0.125, model=None, metrics=[], vectors=[]
        ),
        "engine_ready": m.Engine(
            state="ready", stage="Ready.", progress=1.0, model=MODEL, metrics=METRICS, vectors=VECTORS
        ),
        "engine_failed": m.Engine(
            state="failed",
            stage="The model folder “/models/x” has no config.json.",
            progress=0.0,
            model=None,
            metrics=[],
            vectors=[],
        ),
        "edits": m.Edits(
            edits=[
                m.EditInfo(
                    id="registration-5f2c",
                    name="no “MLP” 3",
                    since=1732406400.5,
                    bytes=2048,
                    runs=7,
                    error=None,
                ),
                m.EditInfo(
                    id="e2",
                    name="edit-1",
                    since=0.5,
                    bytes=1,
                    runs=0,
                    error="ValueError: There is no layer 9.",
                ),
            ]
        ),
        "edits_none": m.Edits(edits=[]),
        "notebook_runs": m.NotebookRuns(
            runs=[
                m.RunNotice(
                    run="c2-1",
                    origin="notebook",
                    prompt="The Eiffel Tower is in",
                    since=1732406400.25,
                    state="writing",
                ),
                m.RunNotice(run="c2-0", origin="notebook", prompt="", since=1732406399.0, state="finished"),
            ]
        ),
        "notebook_runs_none": m.NotebookRuns(runs=[]),
        "started": m.Started(
            run="c1-7",
            seq=1,
            id="r1",
            prompt=m.Prompt(
                ids=[1, 9690, 198, 42, 49151],
                texts=["<|im_start|>", "user", "\n", "", "é"],
                spans=[m.Span(role="user", start=3, end=5)],
            ),
            metrics=["residual_norm", "cosine_below"],
            model="SmolLM2-135M-Instruct",
            adapter="poet",
            strengths={"joy": -0.25},
            settings={"joy": m.VectorSetting(operator="add", scope="reply")},
            sampling=m.Sampling(temperature=0.0, max_tokens=64, stop=["\n"]),
        ),
        "started_by_a_notebook": m.Started(
            run="c2-1",
            seq=1,
            id="t1",
            edits=["edit-1"],
            origin="notebook",
            metrics=["residual_norm"],
            prompt=m.Prompt(ids=[1, 9690], texts=["The", " Eiffel"], spans=[]),
        ),
        "resumed": m.Resumed(
            run="c1-7",
            seq=70_000,
            newest=70_001,
            rev=3,
            strengths={"joy": 0.15},
            settings={"joy": m.VectorSetting(operator="add", scope="reply")},
        ),
        "queued": m.Queued(run="c1-7", seq=2, position=3),
        "started_without_rows": m.Started(
            run="c1-8", seq=1, id="quiet", prompt=m.Prompt(ids=[1], texts=["x"], spans=[]), metrics=[]
        ),
        "part_thought": m.Part(run="c1-7", seq=3, part="thought", start=36),
        "part_answer": m.Part(run="c1-7", seq=9, part="answer", start=70),
        "tokens_one": m.Tokens(
            run="c1-7", seq=2, start=5, ids=[504], texts=["The"], logprobs=[-0.6931471805599453], ranks=[1]
        ),
        "tokens_several": m.Tokens(
            run="c1-7",
            seq=70_000,
            start=6,
            ids=[128, 32_768, 4_294_967_296, 2],
            texts=["", "🏴‍☠️", " Paris", "<|im_end|>"],
            logprobs=[None, -12.5, -0.0, None],
            ranks=[None, 49152, 1, None],
        ),
        "tokens_none": m.Tokens(run="c1-7", seq=3, start=6, ids=[], texts=[], logprobs=[], ranks=[]),
        "rows": m.Rows(
            run="c1-7",
            seq=4,
            start=33,
            count=2,
            revs=[0, 2**31 - 1],
            metrics=["residual_norm", "cosine_below"],
            layers=3,
            data=ROW_DATA,
            entropy=struct.pack("<2e", 0.5, 2.25),
        ),
        "rows_none": m.Rows(
            run="c1-7",
            seq=5,
            start=0,
            count=0,
            revs=[],
            metrics=["residual_norm"],
            layers=3,
            data=b"",
            entropy=None,
        ),
        "rows_beyond_one_length_byte": m.Rows(
            run="c1-7",
            seq=6,
            start=0,
            count=11,
            revs=[0] * 11,
            metrics=["residual_norm", "cosine_below"],
            layers=6,
            data=ROW_DATA * 11,
            entropy=None,
        ),
        "lens": m.Lens(
            run="c1-7",
            seq=7,
            start=33,
            count=1,
            layers=[0, 2],
            top=2,
            ids=struct.pack("<4i", 504, 1, 2**31 - 1, 7),
            probabilities=struct.pack("<4e", 0.5, 0.25, 1.0, 0.0),
            new_ids=[504, 7],
            new_texts=["The", " é"],
        ),
        "alternatives": m.Alternatives(
            run="c1-7",
            seq=7,
            start=33,
            count=2,
            top=2,
            ids=struct.pack("<4i", 504, 1, 2**31 - 1, 7),
            logprobs=struct.pack("<4f", -0.5, -1.25, -0.0, -(2.0**-140)),
            new_ids=[504],
            new_texts=["The"],
        ),
        "applied": m.Applied(
            run="c1-7",
            seq=7,
            rev=3,
            position=41,
            strengths={"joy": 0.15, "french": 0.0},
            settings={"joy": m.VectorSetting(operator="clamp", lo=-0.25, scope="reply", layers=[4, 9])},
        ),
        "applied_without_its_strengths": m.Applied(run="c1-7", seq=7, rev=3, position=41),
        "watched": m.Watched(
            run="c1-7",
            seq=7,
            position=42,
            metrics=["residual_norm", "lens_entropy"],
            lens=m.LensOptions(stride=3, top=20),
            entropy=True,
            alternatives=5,
        ),
        "watched_live": m.Watched(
            run="c1-7",
            seq=7,
            position=44,
            metrics=["residual_norm", "live:surprise.2"],
            lens=None,
            entropy=False,
            alternatives=0,
            live=[
                m.MetricInfo(
                    id="live:surprise.2",
                    label="surprise.2",
                    description="Computed by the block of this run.",
                    unit="",
                    transform="linear",
                    scale=m.ColorScale(kind="sequential", lo=None, hi=None),
                    family="live",
                    cost="",
                    default=False,
                    error=None,
                )
            ],
        ),
        "watched_nothing": m.Watched(
            run="c1-7", seq=7, position=43, metrics=[], lens=None, entropy=False, alternatives=0
        ),
        "gap": m.Gap(run="c1-7", seq=2**32, start=42, count=8149, kept=True),
        "gap_for_good": m.Gap(run="c1-7", seq=8, start=42, count=1, kept=False),
        "finished_by_end_of_turn": m.Finished(
            run="c1-7",
            seq=90,
            reason="stop",
            stop=None,
            error=None,
            usage=usage,
            timing=m.Timing(first_token_ms=83.25, total_ms=166.5, tokens_per_s=12.012),
        ),
        "finished_by_stop_string": m.Finished(
            run="c1-7",
            seq=90,
            reason="stop",
            stop="\n\n",
            error=None,
            usage=usage,
            timing=m.Timing(first_token_ms=83.25, total_ms=166.5, tokens_per_s=12.012),
        ),
        "finished_before_any_token": m.Finished(
            run="c1-9",
            seq=2,
            reason="cancelled",
            stop=None,
            error=None,
            usage=m.Usage(prompt_tokens=34, reply_tokens=0),
            timing=m.Timing(first_token_ms=None, total_ms=1.5, tokens_per_s=None),
        ),
        "finished_by_a_fault": m.Finished(
            run="c1-9",
            seq=12,
            reason="error",
            stop=None,
            error=m.RunError(
                code=m.ErrorCode.ENGINE_FAILED,
                message="The engine ended unexpectedly; it is being restarted.",
            ),
            usage=usage,
            timing=m.Timing(first_token_ms=83.25, total_ms=166.5, tokens_per_s=12.012),
        ),
        "error_of_the_connection": m.Error(
            code=m.ErrorCode.BAD_FRAME, message="The frame is not one valid msgpack value (ExtraData)."
        ),
        "error_of_a_start": m.Error(
            code=m.ErrorCode.INVALID,
            message="The start frame is not valid: field `sampling.top_p`: input should be at most 1.",
            id="r1",
            field="sampling.top_p",
        ),
        "error_of_starts_together": m.Error(
            code=m.ErrorCode.UNKNOWN_VECTOR,
            message="No run was started, because of 'steered': There is no vector 'pirat'; there are joy.",
            id="pair",
            field="starts.1.strengths",
        ),
        "error_of_a_run": m.Error(
            code=m.ErrorCode.UNKNOWN_VECTOR,
            message="There is no vector “pirat”; did you mean pirate?",
            run="c1-7",
            field="strengths.pirat",
        ),
        "pong": m.Pong(t=1732406400123.25),
    }


def plain(value: Any) -> Any:
    """The JSON form of a frame's value: bytes as `{"$hex": ...}`, everything else as it is."""
    if isinstance(value, bytes):
        return {"$hex": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def golden() -> list[dict[str, Any]]:
    """All entries of the file, client frames first."""
    sides = (("client", client_frames()), ("server", server_frames()))
    return [
        {"name": name, "direction": side, "hex": encode(frame).hex(), "frame": plain(frame.model_dump())}
        for side, frames in sides
        for name, frame in frames.items()
    ]


def main() -> None:
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(json.dumps(golden(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{TARGET.name}: {len(golden())} frames")


if __name__ == "__main__":
    main()
