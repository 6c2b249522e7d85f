"""No bytes a client can send make the codec do anything but decode or explain."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steersight.protocol import codec
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import (
    MAX_PREFIX,
    MAX_TEMPERATURE,
    MAX_TOGETHER,
    ChatMessage,
    Frame,
    Hello,
    LensOptions,
    Ping,
    Prompt,
    Sampling,
    Start,
    Started,
    StartTogether,
    Steer,
    Stop,
    VectorSetting,
)

names = st.text("abcXYZ019_.:-", min_size=1, max_size=64)
strengths = st.dictionaries(names, st.floats(-10, 10), max_size=32)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Hello, token=st.none() | st.text(max_size=20)),
    st.builds(Ping, t=st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(Stop, run=names),
    st.builds(Steer, run=names, rev=st.integers(1, 2**31 - 1), strengths=strengths),
    st.builds(
        Start,
        id=names,
        messages=st.lists(
            st.builds(ChatMessage, role=st.sampled_from(["system", "user", "assistant"]), content=st.text()),
            min_size=1,
            max_size=4,
        ),
        sampling=st.builds(
            Sampling, temperature=st.floats(0, MAX_TEMPERATURE), seed=st.none() | st.integers(0, 2**63 - 1)
        ),
        strengths=strengths,
        metrics=st.none() | st.lists(names, max_size=4),
        prompt_rows=st.booleans(),
        prefix_ids=st.lists(st.integers(0, 2**31 - 1), max_size=8),
    ),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def decode_or_explain(data: bytes) -> None:
    try:
        codec.decode_client(data)
        message = "It was taken."
    except FrameError as error:
        message = error.message
    assert message.rstrip(")").endswith("."), message


@given(frames)
def test_what_is_encoded_comes_back(frame: Frame) -> None:
    assert codec.decode_client(codec.encode(frame)) == frame


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    decode_or_explain(data)


@given(frames, st.data())
def test_a_damaged_frame(frame: Frame, data: st.DataObject) -> None:
    encoded = bytearray(codec.encode(frame))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    decode_or_explain(bytes(encoded))


@given(frames, names, plain)
def test_a_frame_with_any_value_anywhere(frame: Frame, key: str, value: object) -> None:
    whole = frame.model_dump()
    for target in (key, *whole):
        decode_or_explain(msgpack.packb({**whole, target: value}))


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb({"type": "ping", "t": msgpack.ExtType(5, b"x")}),
        msgpack.packb({"type": "ping", "t": msgpack.Timestamp(1)}),
        b"\x82"
        + msgpack.packb("type")
        + msgpack.packb("ping")
        + msgpack.packb("type")
        + msgpack.packb("ping"),
        b"\x91" * 5000 + b"\x01",
        msgpack.packb({1: 2}),
        msgpack.packb({"type": "ping", "t": 1.0}) + b"\x01",
        b"\xdf\xff\xff\xff\xff",
    ],
    ids=["ext", "timestamp", "same key twice", "deep", "number as key", "two values", "claims 4e9 entries"],
)
def test_tricks_are_refused(data: bytes) -> None:
    with pytest.raises(FrameError) as refused:
        codec.decode_client(data)
    assert refused.value.message.endswith(".")


def nested(levels: int) -> bytes:
    value: object = 1
    for _ in range(levels):
        value = [value]
    packed: bytes = msgpack.packb({"type": "ping", "t": value})
    return packed


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (nested(8), "maps and lists within one another more than 8 deep"),
        (nested(500), "maps and lists within one another more than 8 deep"),
        (msgpack.packb({"type": "ping", "t": [None] * 1025}), "a map or list of more than 1024 entries"),
        (msgpack.packb({"type": "ping", "t": [*range(2000), ""]}), "a map or list of more than 1024 entries"),
        (msgpack.packb({"type": "ping", "t": [0] * 65_537}), "a list of more than 65536 entries"),
        (
            msgpack.packb({"type": "ping", "t": {str(number): 0 for number in range(1025)}}),
            "a map or list of more than 1024 entries",
        ),
        (msgpack.packb({"type": "ping", "t": [[""] * 1000] * 20}), "more than 20000 entries"),
        (msgpack.packb({"type": "ping", "t": [[]] * 65_000}), "more than 20000 entries"),
        # Each byte of it is a list here: 14 MB, if it were let in.
        (msgpack.packb({"type": "ping", "t": [[[]] * 1000] * 200}), "more than 20000 entries"),
    ],
    ids=[
        "deep",
        "very deep",
        "long list",
        "too few numbers",
        "very long list",
        "long map",
        "much",
        "nothing in one list",
        "nothing, many times",
    ],
)
def test_a_frame_that_unfolds_to_too_much(data: bytes, sentence: str) -> None:
    with pytest.raises(FrameError) as refused:
        codec.decode_client(data)
    assert refused.value.code == "bad_frame"
    assert refused.value.message.startswith(f"The frame holds {sentence}")
    assert refused.value.message.endswith(". No valid frame does; send less.")


def test_what_is_not_too_deep_is_looked_at() -> None:
    with pytest.raises(FrameError) as refused:
        codec.decode_client(nested(7))
    assert refused.value.code == "invalid"


def test_the_largest_frames_that_are_valid_are_taken() -> None:
    many = [f"v{number}" for number in range(32)]
    setting = VectorSetting(operator="clamp", lo=0.0, hi=1.0, scope="reply", first=3, layers=[0, 9])
    frame = Start(
        id="x", messages=[ChatMessage(role="user", content="w" * 700)] * 256,
        strengths=dict.fromkeys(many, 1.0), settings=dict.fromkeys(many, setting), metrics=["m"] * 64,
        sampling=Sampling(stop=["s" * 128] * 8), prefix_ids=list(range(9_000)),
    )  # fmt: skip
    assert codec.decode_client(codec.encode(frame)) == frame
    frame = Start(id="x", messages=[ChatMessage(role="user", content="w")], prefix_ids=[49_151] * MAX_PREFIX)
    assert codec.decode_client(codec.encode(frame)) == frame
    many = [f"v{number}" for number in range(64)]
    start = Start(
        id="x", messages=[ChatMessage(role="user", content="w")] * 256,
        strengths=dict.fromkeys(many, 1.0), settings=dict.fromkeys(many, setting), metrics=["m"] * 64,
        template=dict.fromkeys(many[:32], "yes"), sampling=Sampling(stop=["s"] * 8), lens=LensOptions(),
    )  # fmt: skip
    together = StartTogether(id="y", starts=[start] * MAX_TOGETHER)
    assert codec.decode_client(codec.encode(together)) == together


def test_frames_of_a_server_have_no_such_limits() -> None:
    prompt = Prompt(ids=list(range(20_000)), texts=["x"] * 20_000, spans=[])
    frame = Started(run="r", seq=1, id="i", prompt=prompt, metrics=[])
    assert codec.decode_server(codec.encode(frame)) == frame


def test_an_error_does_not_repeat_what_was_written() -> None:
    """Errors are logged, and prompts are not."""
    with pytest.raises(ValidationError) as raised:
        ChatMessage.model_validate({"role": "user", "content": ["the secret"]})
    assert "secret" not in str(raised.value)
