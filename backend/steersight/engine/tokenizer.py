"""The tokenizer: how it is loaded, and the proof that it can do what the server needs of it.

What is missing is said at load, in a sentence, and not by the first reply that stumbles over it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..text.pieces import TokenTexts
from ..text.rendering import Chat, Renderer, named, outside
from .options import CONFIG_KEY
from .reasoning import marks_of_parser

NOTHING_MORE: Mapping[str, Any] = MappingProxyType({})
PROBE = "Hello, world: Grüße, 你好, 👋."
HELLO = {"role": "user", "content": "Hello"}
CONVERSATION = [HELLO, {"role": "assistant", "content": "Good day"}, {"role": "user", "content": "Goodbye"}]


class TokenizerError(ValueError):
    """The tokenizer cannot do what the server needs; the message says what, and what to do."""


@dataclass(frozen=True)
class Read:
    """A tokenizer that has been proved."""

    renderer: Renderer
    special_ids: list[int]
    problems: list[str]
    """What it cannot do, where the server can go on without."""


def load_tokenizer(model: str, source: Mapping[str, Any] = NOTHING_MORE) -> Any:
    """The transformers tokenizer of a checkpoint folder or hub name.

    Args:
        model: folder or name.
        source: further arguments of `from_pretrained`, such as the revision.

    Raises: whatever transformers raises.
    """
    from transformers import AutoTokenizer

    # Where mistral_common is installed, transformers 5.19 takes its tokenizer as soon as there is a
    # tekken.json, which tells no offsets. Without it the folder's own tokenizer.json is taken, or the
    # same kind of tokenizer is made of tekken.json.
    return AutoTokenizer.from_pretrained(model, mistral_format=False, **source)


def tokenizer_for(config: Any) -> Any:
    """In the engine's processes: what tells a reply's thought from its answer; None where the model does not
    think.

    Args:
        config: vLLM's `VllmConfig`.
    """
    ours = config.additional_config[CONFIG_KEY]
    return load_tokenizer(config.model_config.model, ours["pretrained"]) if ours.get("thinks") else None


def read_tokenizer(
    model: str,
    config: Any,
    template: str = "",
    source: Mapping[str, Any] = NOTHING_MORE,
    *,
    parser: str = "",
) -> Read:
    """Load and prove it.

    Args:
        model: checkpoint folder or hub name.
        config: the model's configuration.
        template: file of a chat template instead of the model's own; empty is none.
        source: further arguments of `from_pretrained`, such as the revision.
        parser: vLLM's name of the reasoning parser that knows the marks of the model's thoughts; empty is
            what the chat template says of them.

    Raises: TokenizerError.
    """
    try:
        tokenizer = load_tokenizer(model, source)
    except Exception as error:
        raise TokenizerError(
            f"The tokenizer of {model} cannot be read: {error} A folder needs tokenizer.json, or files that "
            "transformers makes one of."
        ) from error
    prove_tokens(tokenizer)
    chat: Chat = "template" if tokenizer.chat_template else "none"
    if template:
        tokenizer.chat_template = _template_of(Path(template))
        chat = "file"
    problems = prove_template(tokenizer, template) if chat != "none" else []
    marks = marks_of_parser(parser, tokenizer) if parser else None
    renderer = Renderer.of(tokenizer, chat, config.get_text_config().vocab_size, marks)
    foreign = outside(tokenizer.get_vocab().values(), renderer.vocab_size)
    if foreign:
        problems.append(
            f"{named(tokenizer, foreign)}: the tokenizer has {'them' if len(foreign) > 1 else 'it'}, and the "
            f"model, with {renderer.vocab_size} tokens, has not. Prompts that contain one are refused."
        )
    return Read(renderer, special_ids(model, config, tokenizer, source), problems)


def prove_tokens(tokenizer: Any) -> None:
    """See that it tells where its tokens stand, and turns them back into text one by one.

    Raises: TokenizerError.
    """
    kind = type(tokenizer).__name__
    if not getattr(tokenizer, "is_fast", False) or not hasattr(tokenizer, "backend_tokenizer"):
        raise TokenizerError(
            f"The model's tokenizer is of the kind {kind}, which does not say where its tokens stand in the "
            "text. It needs one of the fast kind: a tokenizer.json in the checkpoint's folder."
        )
    try:
        encoded = tokenizer(PROBE, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        texts = TokenTexts(tokenizer)
        pieces = [texts.next(token) for token in ids]
    except Exception as error:
        raise TokenizerError(
            f"The model's tokenizer ({kind}) does not do what it must: {error} Its tokenizer.json is "
            "damaged, or of a kind that is not known here."
        ) from error
    if not ids or len(offsets) != len(ids) or not "".join(pieces).strip():
        raise TokenizerError(
            f"The model's tokenizer ({kind}) makes nothing of the text {PROBE!r}. Its tokenizer.json is "
            "damaged, or not this model's."
        )


def _template_of(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"The chat template {path} cannot be read: {error}.") from error
    if not text.strip():
        raise TokenizerError(f"The chat template {path} is empty.")
    return text


def prove_template(tokenizer: Any, file: str) -> list[str]:
    """Render plain conversations with it; what it cannot do and need not comes back in sentences.

    Raises: TokenizerError where it cannot render one question.
    """
    whose = f"The chat template {file}" if file else "The model's chat template"
    try:
        text: str = tokenizer.apply_chat_template([HELLO], tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise TokenizerError(
            f"{whose} cannot render a question: {str(error).rstrip('.')}. Mend it, or give another with "
            "--chat-template."
        ) from error
    if HELLO["content"] not in text:
        raise TokenizerError(
            f"{whose} leaves out what the user says. Mend it, or give another with --chat-template."
        )
    try:
        tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        return [f"{whose} cannot render a second question: {error}"]
    return []


def special_ids(
    model: str, config: Any, tokenizer: Any, source: Mapping[str, Any] = NOTHING_MORE
) -> list[int]:
    """Ids that are no part of a reply's text: named special tokens, added ones that are marked special, and
    those that end a reply."""
    from transformers import GenerationConfig

    found = set(tokenizer.all_special_ids)
    found.update(token for token, added in tokenizer.added_tokens_decoder.items() if added.special)
    ends = [config.get_text_config().eos_token_id]
    with contextlib.suppress(OSError, ValueError):  # most checkpoints have one; none is no fault
        ends.append(GenerationConfig.from_pretrained(model, **source).eos_token_id)
    for end in ends:
        found.update(end if isinstance(end, list) else [] if end is None else [end])
    return sorted(found)
