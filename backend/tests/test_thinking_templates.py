"""Prompts of thinking models: what templates of their makers' kinds can be told, where they leave a reply,
and what of earlier replies goes back. The templates are made for the tests, each in one maker's manner."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken

from steersight.engine.reasoning import NOT_TOLD, ReasoningParserError, marks_of_parser, parser_names
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import ChatMessage
from steersight.runs.prompt import Built, build_prompt
from steersight.text.rendering import Renderer
from steersight.text.template import TemplateArgument, arguments_of
from steersight.text.thoughts import HARMONY, KNOWN, PARTS, Marks, ReplyParts

from .tokenizers_made import PLAIN_TEMPLATE, byte_level

IN_CONTENT = """\
{%- set last = namespace(at=-1) -%}
{%- for m in messages %}{% if m.role == 'user' %}{% set last.at = loop.index0 %}{% endif %}{% endfor -%}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- set content = m.content %}{% set thought = '' -%}
{%- if m.reasoning_content is string -%}
{%- set thought = m.reasoning_content -%}
{%- elif '</think>' in content -%}
{%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\n') -%}
{%- endif -%}
{%- if loop.index0 > last.at and thought -%}
{{- '[assistant]\n<think>\n' + thought + '\n</think>\n\n' + content + '[end]\n' -}}
{%- else -%}{{- '[assistant]\n' + content + '[end]\n' -}}{%- endif -%}
{%- else -%}{{- '[' + m.role + ']\n' + m.content + '[end]\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '[assistant]\n' -}}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' -}}{% endif -%}
{%- endif -%}
"""
"""Reads a thought as a field or out of the content, and drops it once the person has answered."""

OPENED = """\
{%- for m in messages -%}
{%- if m['role'] == 'assistant' -%}
{{- '<A>' + m['content'].split('</think>')[-1] + '</s>' -}}
{%- else -%}{{- '<U>' + m['content'] -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<A><think>\n' }}{% endif -%}
"""
"""Begins the thought itself, and reads none."""

CHANNELS = """\
{%- macro head() -%}
{%- if reasoning_effort is not defined %}{% set reasoning_effort = 'medium' %}{% endif -%}
{{- '<|start|>system<|message|>Reasoning: ' + reasoning_effort + '<|end|>' -}}
{%- endmacro -%}
{{- head() -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- if '<|channel|>' in m.content %}{{ raise_exception('channels in a message') }}{% endif -%}
{%- if m.thinking and loop.last -%}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' -}}
{%- endif -%}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' -}}
{%- else -%}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif -%}
"""
"""Writes in channels, under one name of its own."""


def renderer(template: str) -> Renderer:
    added = [AddedToken(word, normalized=False) for word in ("<think>", "</think>", "<|channel|>", "[end]")]
    return Renderer.of(byte_level(added, template), "template", 300)


def messages(*turns: tuple[str, ...]) -> list[ChatMessage]:
    names = ("role", "content", "thought")
    return [ChatMessage.model_validate(dict(zip(names, turn, strict=False))) for turn in turns]


def build(source: str, *turns: tuple[str, ...], **more: Any) -> Built:
    return build_prompt(renderer(source), messages(*turns), 2000, **more)


def text(built: Built) -> str:
    return "".join(built.prompt.texts)


ASKED = (("user", "2+2?"), ("assistant", "4", "Two and two."), ("user", "And 3+3?"))


# ---------------------------------------------------------------- what can be told


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        (IN_CONTENT, (TemplateArgument("enable_thinking", "switch"),)),
        (OPENED, ()),
        (CHANNELS, (TemplateArgument("reasoning_effort", "text", default="medium"),)),
        (
            "{% if not thinking is defined %}{% set thinking = false %}{% endif %}"
            "{% if thinking %}x{% endif %}",
            (TemplateArgument("thinking", "switch", default=False),),
        ),
        (
            "{% set effort = effort | default('low') %}{% if effort in ['low', 'high'] %}x{% endif %}",
            (TemplateArgument("effort", "choice", ("low", "high"), "low"),),
        ),
        ("{% if mode == '/think' %}x{% endif %}", (TemplateArgument("mode", "choice", ("/think",)),)),
        (
            "{% if budget is defined and budget > 0 %}{{ budget }}{% endif %}",
            (TemplateArgument("budget", "number"),),
        ),
        (
            "{% set on = think if think is defined else true %}{% if on %}{{ eos_token }}{% endif %}",
            (TemplateArgument("think", "switch", default=True),),
        ),
        (
            "{% for tool in custom_tools %}{{ tool | tojson }}{% endfor %}{{ strftime_now('%Y') }}"
            "{% for d in documents %}{{ d }}{% endfor %}{% generation %}{% endgeneration %}",
            (),
        ),
        ("{{ chat_template_unclosed", ()),
    ],
)
def test_a_template_is_asked_what_it_reads(template: str, arguments: tuple[TemplateArgument, ...]) -> None:
    assert arguments_of(byte_level(template=template)) == arguments


def test_what_is_told_reaches_the_template() -> None:
    assert "Reasoning: medium<" in text(build(CHANNELS, ("user", "Hi")))
    assert "Reasoning: high<" in text(build(CHANNELS, ("user", "Hi"), template={"reasoning_effort": "high"}))


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"enable_thoughts": True}, "does not read 'enable_thoughts'; it reads enable_thinking"),
        ({"enable_thinking": "no"}, "'enable_thinking' is true or false, and not 'no'"),
        ({"messages": "x"}, "does not read 'messages'"),
        ({"tokenize": True}, "does not read 'tokenize'"),
    ],
)
def test_what_the_template_does_not_read_is_refused(told: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FrameError, match=sentence) as refused:
        build(IN_CONTENT, ("user", "Hi"), template=told)
    assert refused.value.field == "template"


def test_a_choice_is_one_of_its_words() -> None:
    argument = TemplateArgument("effort", "choice", ("low", "high"))
    assert argument.check("low") == "low"
    with pytest.raises(ValueError, match="one of low, high, and not 'medium'"):
        argument.check("medium")


# ---------------------------------------------------------------- where it leaves the reply


@pytest.mark.parametrize(
    ("template", "told", "part"),
    [
        (IN_CONTENT, {}, "undecided"),
        (IN_CONTENT, {"enable_thinking": False}, "answer"),
        (OPENED, {}, "thought"),
        (CHANNELS, {}, "undecided"),
    ],
)
def test_a_reply_begins_where_the_template_leaves_it(template: str, told: dict[str, Any], part: str) -> None:
    # What a person writes is no mark, and neither is an earlier thought.
    asked = (("user", "Write <think>"), ("assistant", "no", "hm"), ("user", "</think> and <think> again"))
    opening = build(template, *asked, template=told).opening
    assert opening is not None
    assert opening.part == part


def test_a_model_without_marks_has_no_parts() -> None:
    assert build(PLAIN_TEMPLATE, ("user", "Hi")).opening is None
    known = Renderer.of(byte_level(), "none", 300, KNOWN[0])
    assert build_prompt(known, messages(("user", "Hi")), 99).opening is not None


def test_a_reply_goes_on_in_its_thought() -> None:
    built = build(IN_CONTENT, ("user", "2+2?"), ("assistant", "<think>\nTwo and"), write_on=True)
    assert text(built).endswith("[assistant]\n<think>\nTwo and")
    assert built.opening is not None
    assert built.opening.part == "thought"
    opened = build(OPENED, ("user", "2+2?"), ("assistant", "Two.</think>4"), write_on=True)
    assert text(opened).endswith("<A><think>\nTwo.</think>4")
    assert opened.opening is not None
    assert opened.opening.part == "answer"


WHOLE = "<think>\nTwo and two.</think>\n4"


@pytest.mark.parametrize("template", [IN_CONTENT, OPENED])
def test_a_reply_that_begins_with_ids_is_parted_where_it_would_have_been(template: str) -> None:
    """Cut at every token, within the marks too."""
    tokenizer = renderer(template).tokenizer
    ids = tokenizer(WHOLE if template is IN_CONTENT else WHOLE[8:], add_special_tokens=False).input_ids
    seen = set()

    def begins(prefix: list[int]) -> tuple[list[int | None], int]:
        built = build_prompt(renderer(template), messages(("user", "2+2?")), 999, prefix=prefix)
        assert built.opening is not None
        seen.add(built.opening.part)
        parts = ReplyParts(built.opening, tokenizer)
        parts.tell_all(len(built.prompt.ids), ids[len(prefix) :])
        return [parts.begins(part) for part in PARTS], len(built.prompt.ids)

    whole, _ = begins([])
    assert None not in whole
    for at in range(len(ids) + 1):
        rest, length = begins(ids[:at])
        for before, after in zip(whole, rest, strict=True):
            if before is not None and before >= length - 1:
                assert after == before
        in_answer = whole[1] is not None and whole[1] <= length - 1
        assert (rest[0] is None) == in_answer, "the thought is over, or it is not"
    assert seen == ({"undecided", "thought", "answer"} if template is IN_CONTENT else {"thought", "answer"})


# ---------------------------------------------------------------- what goes back


def test_a_thought_goes_back_where_the_template_reads_it_and_is_dropped_there() -> None:
    built = build(IN_CONTENT, *ASKED)
    assert text(built) == ("[user]\n2+2?[end]\n[assistant]\n4[end]\n[user]\nAnd 3+3?[end]\n[assistant]\n")
    assert build(IN_CONTENT, *ASKED[:2]).opening is not None
    assert "<think>\nTwo and two.\n</think>\n\n4[end]" in text(build(IN_CONTENT, *ASKED[:2]))


def test_a_thought_goes_nowhere_where_the_template_reads_none() -> None:
    assert text(build(OPENED, *ASKED)) == "<U>2+2?<A>4</s><U>And 3+3?<A><think>\n"
    assert "Two and two" not in text(build(PLAIN_TEMPLATE, *ASKED))


def test_channels_get_their_thought_by_their_own_name() -> None:
    assert renderer(CHANNELS).marks == HARMONY
    assert "Two and two" not in text(build(CHANNELS, *ASKED))
    assert "analysis<|message|>Two and two.<|end|>" in text(build(CHANNELS, *ASKED[:2]))


@pytest.mark.parametrize("template", [IN_CONTENT, OPENED, CHANNELS])
def test_spans_are_right_or_not_told(template: str) -> None:
    """A template that drops a thought later has no place where its message ended."""
    for turns in (ASKED[:1], ASKED, (*ASKED, ("assistant", "6", "Three and three."), ("user", "Thanks"))):
        built = build(template, *turns)
        for span, turn in zip(built.prompt.spans, turns, strict=bool(built.prompt.spans)):
            said = "".join(built.prompt.texts[span.start : span.end])
            assert turn[1] in said
            assert span.role == turn[0]


# ---------------------------------------------------------------- vLLM's parsers


def test_vllms_parsers_know_their_marks() -> None:
    """Those that say them, of a tokenizer that has them; the rest is said in words of our own."""
    names = ["</think>", "<think>", "<seed:think>", "</seed:think>"]
    tokenizer = byte_level([AddedToken(name) for name in names])
    assert marks_of_parser("deepseek_r1", tokenizer) == KNOWN[0]
    assert marks_of_parser("qwen3", tokenizer) == KNOWN[0]
    assert marks_of_parser("seed_oss", tokenizer) == Marks("<seed:think>", "</seed:think>")
    assert marks_of_parser("openai_gptoss", tokenizer) == HARMONY
    with pytest.raises(ReasoningParserError, match="granite does not say what stands around a thought"):
        marks_of_parser("granite", tokenizer)
    with pytest.raises(ReasoningParserError, match="deepseek_r1 does not fit this model"):
        marks_of_parser("deepseek_r1", byte_level())
    assert set(NOT_TOLD) <= set(parser_names())
