"""What is proved of a tokenizer at load, and what is said where it falls short."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from steersight.engine.tokenizer import TokenizerError, prove_tokens, read_tokenizer
from steersight.runs.prompt import build_prompt

from .test_prompt import messages
from .tokenizers_made import NO_SYSTEM_TEMPLATE, PLAIN_TEMPLATE, byte_level

ROWS = 300
CONFIG = transformers.MistralConfig(vocab_size=ROWS, eos_token_id=1, bos_token_id=0)


def saved(folder: Path, tokenizer: PreTrainedTokenizerFast | None, config: Any = CONFIG) -> str:
    config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return str(folder)


def test_ids_without_a_row_are_named_at_load(tmp_path: Path) -> None:
    small = transformers.MistralConfig(vocab_size=259)
    model = saved(tmp_path, byte_level([AddedToken("<|tool|>", special=True)], PLAIN_TEMPLATE), small)
    read = read_tokenizer(model, small)
    assert len(read.problems) == 1
    assert "'<|tool|>' (259)" in read.problems[0]


def test_special_is_what_is_marked_special_and_what_ends_a_reply(tmp_path: Path) -> None:
    added = [AddedToken("<|end|>", special=True), AddedToken("<think>"), AddedToken("<end_of_turn>")]
    model = saved(tmp_path, byte_level(added, PLAIN_TEMPLATE))
    transformers.GenerationConfig(eos_token_id=[1, 261]).save_pretrained(tmp_path)
    read = read_tokenizer(model, CONFIG)
    assert read.special_ids == [0, 1, 2, 259, 261]
    assert read.problems == []


def test_what_makes_the_prompts_is_said(tmp_path: Path) -> None:
    model = saved(tmp_path / "with", byte_level(template=PLAIN_TEMPLATE))
    without = saved(tmp_path / "without", byte_level())
    file = tmp_path / "other.jinja"
    file.write_text(NO_SYSTEM_TEMPLATE)
    assert read_tokenizer(model, CONFIG).renderer.chat == "template"
    assert read_tokenizer(without, CONFIG).renderer.chat == "none"
    read = read_tokenizer(without, CONFIG, str(file)).renderer
    assert (read.chat, read.has_system) == ("file", False)
    assert "".join(build_prompt(read, messages(("user", "Hi")), 100).prompt.texts) == "<user>Hi\n<assistant>"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{% for message in messages %}", "cannot render a question"),
        (b"{{ nothing.of.the.kind }}", "cannot render a question"),
        (b"<user>", "leaves out what the user says"),
        (b"  \n", "is empty"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_broken_template_is_refused_at_load(tmp_path: Path, content: bytes, sentence: str) -> None:
    model = saved(tmp_path / "model", byte_level())
    file = tmp_path / "broken.jinja"
    file.write_bytes(content)
    with pytest.raises(TokenizerError, match=sentence) as refused:
        read_tokenizer(model, CONFIG, str(file))
    assert str(file) in str(refused.value)


def test_a_template_for_one_question_only_is_a_problem_that_is_told(tmp_path: Path) -> None:
    template = "{{ raise_exception('Once only') if messages|length > 1 else messages[0].content }}"
    problems = read_tokenizer(saved(tmp_path, byte_level(template=template)), CONFIG).problems
    assert len(problems) == 1
    assert "second question: Once only" in problems[0]


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(TokenizerError, match=r"of the kind Slow, .*It needs .*tokenizer\.json"):
        prove_tokens(Slow())


def test_a_tokenizer_that_knows_none_of_the_text_is_refused() -> None:
    from tokenizers import Tokenizer, models

    nothing = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab={"q": 0}, merges=[])))
    with pytest.raises(TokenizerError, match="makes nothing of the text"):
        prove_tokens(nothing)


def test_a_folder_without_a_tokenizer_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_tokenizer(saved(tmp_path, None), CONFIG)


# ---------------------------------------------------------------- Mistral's own format


def tekken(folder: Path) -> None:
    """A `tekken.json` as mistral_common writes it: 10 special tokens and the 256 bytes."""
    special = [
        {"rank": rank, "token_str": text, "is_control": True}
        for rank, text in enumerate(
            ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<S{n}>" for n in range(5))]
        )
    ]
    vocabulary = [
        {"rank": byte, "token_bytes": base64.b64encode(bytes([byte])).decode(), "token_str": None}
        for byte in range(256)
    ]
    config = {
        "pattern": r"[^\s]+|\s+", "num_vocab_tokens": 256, "default_vocab_size": 266,
        "default_num_special_tokens": 10, "version": "v3",
    }  # fmt: skip
    (folder / "tekken.json").write_text(
        json.dumps({"config": config, "vocab": vocabulary, "special_tokens": special})
    )


def test_a_tekken_file_beside_a_fast_tokenizer_is_not_taken(tmp_path: Path) -> None:
    model = saved(tmp_path, byte_level(template=PLAIN_TEMPLATE))
    tekken(tmp_path)
    read = read_tokenizer(model, CONFIG)
    assert read.renderer.tokenizer.is_fast
    prompt = build_prompt(read.renderer, messages(("user", "Hi")), 100).prompt
    assert "".join(prompt.texts) == "<user>Hi\n<assistant>"
    assert [span.role for span in prompt.spans] == ["user"]


def test_a_tekken_file_alone_makes_a_fast_tokenizer(tmp_path: Path) -> None:
    model = saved(tmp_path, None)
    tekken(tmp_path)
    read = read_tokenizer(model, CONFIG)
    assert read.renderer.tokenizer.is_fast
    prompt = build_prompt(read.renderer, messages(("user", "Hé")), 100).prompt
    assert "Hé" in "".join(prompt.texts)
    assert set(range(10)) <= set(read.special_ids)
