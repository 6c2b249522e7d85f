"""Prompts: by a template, without one, and of what a template or a model cannot take."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from steersight.protocol.codec import FrameError
from steersight.protocol.messages import ChatMessage
from steersight.runs.prompt import build_prompt
from steersight.text.rendering import Renderer, UnknownTokenError, plain

from .tokenizers_made import NO_SYSTEM_TEMPLATE, PLAIN_TEMPLATE, byte_fallback, byte_level

BYTES = 259
"""Rows of a model that fits `byte_level` without added tokens."""


def messages(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage.model_validate({"role": role, "content": content}) for role, content in turns]


def base(bos: bool = False) -> Renderer:
    return Renderer.of(byte_level(bos=bos), "none", BYTES)


def read(renderer: Renderer, *turns: tuple[str, str], write_on: bool = False) -> str:
    prompt = build_prompt(renderer, messages(*turns), 1000, write_on=write_on).prompt
    assert "".join(prompt.texts) == renderer.tokenizer.decode(prompt.ids)
    return "".join(prompt.texts)


# ---------------------------------------------------------------- ids that the model does not have


@pytest.mark.parametrize("write_on", [False, True])
def test_an_id_without_a_row_is_refused_with_its_name(write_on: bool) -> None:
    tokenizer = byte_level([AddedToken("<|tool|>", special=True)], PLAIN_TEMPLATE)
    renderer = Renderer.of(tokenizer, "template", BYTES)
    turns = [("user", "Hello"), ("assistant", "<|tool|>")] if write_on else [("user", "a <|tool|> b")]
    with pytest.raises(FrameError, match=r"'<\|tool\|>' \(259\).*only tokens 0 to 258") as refused:
        build_prompt(renderer, messages(*turns), 1000, write_on=write_on)
    assert refused.value.field == "messages"
    with pytest.raises(UnknownTokenError):
        renderer.prompt([{"role": "user", "content": "<|tool|>"}])
    assert build_prompt(renderer, messages(("user", "a b")), 1000).prompt.ids


# ---------------------------------------------------------------- without a template


def test_without_a_template_the_contents_are_one_text() -> None:
    assert read(base(), ("user", "Once upon")) == "Once upon"
    told = (("system", "A tale."), ("user", "Once upon"), ("assistant", " a time."), ("user", "Then"))
    assert read(base(), *told) == "A tale.\nOnce upon a time.\nThen"
    assert read(base(), ("user", "Once\n"), ("user", "Then")) == "Once\nThen"
    assert plain([]) == ""


def test_without_a_template_a_reply_is_written_on_where_it_ends() -> None:
    assert read(base(), ("user", "Once upon"), ("assistant", " a ti"), write_on=True) == "Once upon a ti"


def test_the_tokenizers_beginning_stands_before_the_text_and_its_end_does_not_stand_behind() -> None:
    prompt = build_prompt(base(bos=True), messages(("user", "Hi"), ("assistant", "!")), 100).prompt
    assert prompt.texts == ["<s>", "H", "i", "!"]
    assert [(span.role, span.start, span.end) for span in prompt.spans] == [
        ("user", 0, 3),
        ("assistant", 3, 4),
    ]


def test_a_text_that_looks_like_an_end_stays() -> None:
    prompt = build_prompt(base(bos=True), messages(("user", "Hi</s>")), 100).prompt
    assert prompt.texts == ["<s>", "H", "i", "</s>"]


def test_nothing_at_all_is_no_prompt() -> None:
    with pytest.raises(FrameError, match="The prompt is empty"):
        build_prompt(base(), messages(("user", "")), 100)


def test_an_empty_text_is_a_beginning_where_the_tokenizer_has_one() -> None:
    prompt = build_prompt(base(bos=True), messages(("user", "")), 100).prompt
    assert prompt.texts == ["<s>"]


# ---------------------------------------------------------------- without a system role


def test_an_instruction_stands_before_the_question_where_there_is_no_system_role() -> None:
    renderer = Renderer.of(byte_level(template=NO_SYSTEM_TEMPLATE), "template", BYTES)
    assert not renderer.has_system
    assert read(renderer, ("system", "Be glad."), ("user", "Hello")) == "<user>Be glad.\n\nHello\n<assistant>"
    # Vectors are built of the same prompt.
    turns = [{"role": "system", "content": "Be glad."}, {"role": "user", "content": "Hello"}]
    assert renderer.tokenizer.decode(renderer.prompt(turns)) == "<user>Be glad.\n\nHello\n<assistant>"
    assert read(renderer, ("user", "A"), ("assistant", "B"), ("system", "C"), ("user", "D")).endswith(
        "<assistant>B\n<user>C\n\nD\n<assistant>"
    )
    assert read(renderer, ("system", "Alone.")) == "<user>Alone.\n<assistant>"


def test_a_template_that_drops_the_system_message_has_no_place_for_it() -> None:
    dropping = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    renderer = Renderer.of(byte_level(template=dropping), "template", BYTES)
    assert read(renderer, ("system", "Be glad."), ("user", "Hello")) == "<user>Be glad.\n\nHello"


def test_a_system_role_is_used_where_there_is_one() -> None:
    renderer = Renderer.of(byte_level(template=PLAIN_TEMPLATE), "template", BYTES)
    assert read(renderer, ("system", "Be glad."), ("user", "Hi")).startswith("<system>Be glad.\n<user>Hi")


def test_a_conversation_that_the_template_refuses_is_a_sentence() -> None:
    refusing = "{{ raise_exception('Only after lunch') if messages|length > 1 else messages[0].content }}"
    renderer = Renderer.of(byte_level(template=refusing), "template", BYTES)
    with pytest.raises(FrameError, match="refuses this conversation: Only after lunch"):
        build_prompt(renderer, messages(("user", "A"), ("assistant", "B")), 100)


# ---------------------------------------------------------------- a reply that begins with token ids


def test_a_reply_begins_with_the_ids_that_it_is_given() -> None:
    """Behind all that the messages make, and as they are: their text would be other tokens."""
    tokenizer = byte_level([AddedToken("ink", normalized=False)], PLAIN_TEMPLATE)
    renderer = Renderer.of(tokenizer, "template", BYTES + 1)
    asked = messages(("user", "Hi"))
    alone = build_prompt(renderer, asked, 1000).prompt
    prefix = [*tokenizer("i", add_special_tokens=False).input_ids, 259, *tokenizer("é").input_ids[:1]]
    built = build_prompt(renderer, asked, 1000, prefix=prefix)
    assert built.prompt.ids == [*alone.ids, *prefix]
    assert built.prompt.texts == [*alone.texts, "i", "ink", ""]
    assert built.texts.next(tokenizer("é").input_ids[1]) == "é", "half of it stands in the prompt"
    with pytest.raises(FrameError, match="ends inside a character, behind which no stop strings"):
        build_prompt(renderer, asked, 1000, prefix=prefix, stops=True)
    (*spans, last) = built.prompt.spans
    assert spans == alone.spans
    assert (last.role, last.start, last.end) == ("assistant", len(alone.ids), len(built.prompt.ids))
    # Without a template too, and where there is nothing else.
    assert build_prompt(base(), messages(("user", "")), 9, prefix=[5]).prompt.ids == [5]


@pytest.mark.parametrize(
    ("prefix", "write_on", "code", "sentence"),
    [
        ([BYTES], False, "invalid", r"has token 259, and the model knows only tokens 0 to 258\. Send"),
        ([5], True, "invalid", r"\(`write_on`\) or from token ids \(`prefix_ids`\), not from both"),
        (
            [5] * 7,
            False,
            "prompt_too_long",
            "The prompt has 4 tokens and the reply's beginning 7; at most 10 fit",
        ),
    ],
)
def test_ids_that_no_reply_begins_with_are_refused(
    prefix: list[int], write_on: bool, code: str, sentence: str
) -> None:
    asked = messages(("user", "ab"), ("assistant", " c"))
    with pytest.raises(FrameError, match=sentence) as refused:
        build_prompt(base(), asked, 10, prefix=prefix, write_on=write_on)
    assert (refused.value.code, refused.value.field) == (code, "prefix_ids")


def test_the_reply_goes_on_after_a_byte_fallback_prompt() -> None:
    renderer = Renderer.of(byte_fallback(), "none", 1000)
    built = build_prompt(renderer, messages(("user", "a b")), 100)
    prompt, texts = built.prompt, built.texts
    space_b = renderer.tokenizer.convert_tokens_to_ids("▁b")
    assert ("".join(prompt.texts), texts.next(space_b)) == ("a b", " b")
