"""vLLM's reasoning parsers: who names one at start need not know what its model writes around its thoughts.

Of a parser nothing is used but these two texts; where thought and answer part is decided in
`text/thoughts.py`, token by token. For vLLM 0.32.0.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path
from typing import Any

from ..text.thoughts import HARMONY, KNOWN, Marks

TABLE = "_REASONING_PARSERS_TO_REGISTER"
NOT_TOLD = {
    "openai_gptoss": HARMONY, "deepseek_v3": KNOWN[0], "hunyuan_a13b": KNOWN[0],
    "minimax_m2_append_think": KNOWN[0],
}  # fmt: skip
"""Of parsers that say it in code only, or only when they know the request."""


class ReasoningParserError(ValueError):
    """A parser that does not say what stands around a thought."""


@functools.cache
def parser_names() -> tuple[str, ...]:
    """The names of all of vLLM's parsers, sorted; none where there is no vLLM. Read from its source, because
    importing vLLM takes seconds, and a wrong name is to be refused at once."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        return ()
    source = Path(found.origin).with_name("reasoning") / "__init__.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == TABLE for target in node.targets
        ):
            return tuple(sorted(ast.literal_eval(node.value)))
    return ()


def marks_of_parser(name: str, tokenizer: Any) -> Marks:
    """What stands around a thought, as vLLM's parser of this name knows it.

    Raises: ReasoningParserError where the parser does not say, or does not take the model's tokenizer.
    """
    if name in NOT_TOLD:
        return NOT_TOLD[name]
    from vllm.reasoning import ReasoningParserManager

    try:
        parser = ReasoningParserManager.get_reasoning_parser(name)(tokenizer)
    except Exception as error:  # each has its own reasons
        raise ReasoningParserError(
            f"vLLM's reasoning parser {name} does not fit this model: {error} Leave --reasoning-parser out, "
            "or choose another."
        ) from error
    start, end = parser.reasoning_start_str, parser.reasoning_end_str
    if not start or not end:
        raise ReasoningParserError(
            f"vLLM's reasoning parser {name} does not say what stands around a thought. Leave "
            "--reasoning-parser out, or choose another."
        )
    return Marks(start, end)
