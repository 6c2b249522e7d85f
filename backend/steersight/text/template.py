"""What a chat template can be told beside the messages: the variables that it reads and nobody sets.

`enable_thinking` and `reasoning_effort` are such variables, and every maker has others. A template says
nowhere what it takes; here it is read off what it does with each variable: one that is only tested is a
switch, one that is compared with words is a choice between them, one that is written out is a text. What it
goes through as a list, or calls, is not offered: the settings have no word for it.

Pure: the template is parsed and never run.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["switch", "choice", "text", "number"]
Value = bool | int | float | str

GIVEN = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "continue_final_message", "raise_exception"}
    | {"strftime_now", "tojson", "loop", "caller", "varargs", "kwargs", "self", "super"}
)
"""Variables that transformers (5.19) or jinja set themselves."""
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
"""Names by which templates read the thought of an earlier reply, the commonest first."""
TEXT_FILTERS = frozenset({"upper", "lower", "title", "capitalize", "trim", "string", "replace", "e"})
MOST_TEXT = 2_000
"""Characters of one value."""


class TemplateArgumentError(ValueError):
    """An argument that the template does not take; the message is a sentence."""


@dataclass(frozen=True)
class TemplateArgument:
    """One variable that a chat template reads."""

    name: str
    kind: Kind
    choices: tuple[str, ...] = ()
    """Of a choice, all of its words, in the template's order."""
    default: Value | None = None
    """What the template itself takes where nothing is said; None where it does not say so plainly."""

    def check(self, value: object) -> Value:
        """A value for it. Raises TemplateArgumentError."""
        fits = {
            "switch": isinstance(value, bool),
            "number": isinstance(value, int | float) and not isinstance(value, bool),
            "text": isinstance(value, str) and len(value) <= MOST_TEXT,
            "choice": value in self.choices,
        }[self.kind]
        if not fits:
            wants = {
                "switch": "true or false", "number": "a number", "text": "a text",
                "choice": "one of " + ", ".join(self.choices),
            }[self.kind]  # fmt: skip
            raise TemplateArgumentError(
                f"The chat template's {self.name!r} is {wants}, and not {str(value)[:60]!r}."
            )
        assert isinstance(value, bool | int | float | str)  # noqa: S101 - all that fits is one of them
        return value


def checked(said: Mapping[str, object], known: Sequence[TemplateArgument]) -> dict[str, Value]:
    """Arguments for a template. Raises TemplateArgumentError where it does not read one, or not so."""
    by_name = {argument.name: argument for argument in known}
    for name in said:
        if name not in by_name:
            names = ", ".join(by_name)
            raise TemplateArgumentError(
                f"The model's chat template does not read {name!r}; "
                + (f"it reads {names}." if names else "it reads no arguments.")
            )
    return {name: by_name[name].check(value) for name, value in said.items()}


def arguments_of(tokenizer: Any) -> tuple[TemplateArgument, ...]:
    """What the template of a tokenizer can be told, sorted by name; nothing where it cannot be read."""
    source = source_of(tokenizer)
    if not source:
        return ()
    from jinja2 import TemplateError, meta

    try:
        names = meta.find_undeclared_variables(_parsed(source))
        tree = _parsed(source)  # anew: looking for variables folds constants
    except TemplateError:
        return ()
    taken = inspect.signature(tokenizer.apply_chat_template).parameters
    special = getattr(tokenizer, "special_tokens_map", {})
    ours = {name for name in names if name not in GIVEN and name not in taken and name not in special}
    ours = {name for name in ours if not name.endswith("_token") and _comes_from_outside(tree, name)}
    found = [argument for name in sorted(ours) if (argument := _Uses(tree, name).argument()) is not None]
    return tuple(found)


def thought_field(tokenizer: Any) -> str | None:
    """The name by which the template reads the thought of an earlier reply; None where it reads none."""
    source = source_of(tokenizer)
    if not source:
        return None
    from jinja2 import TemplateError, nodes

    try:
        tree = _parsed(source)
    except TemplateError:
        return None
    read = {node.attr for node in tree.find_all(nodes.Getattr)}
    read |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return next((name for name in THOUGHT_FIELDS if name in read), None)


def source_of(tokenizer: Any) -> str:
    """The text of the template that transformers would use for a conversation; "" where there is none."""
    try:
        return str(tokenizer.get_chat_template())
    except Exception:  # transformers raises where there is none, or several without a default
        return ""


def _parsed(source: str) -> Any:
    """As transformers parses it: with its own tags, whose names are no variables."""
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja's own way

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    ).parse(source)


def _comes_from_outside(tree: Any, name: str) -> bool:
    """Whether a variable that some branches of the template set is meant to be set from outside too: the
    template asks whether it is there. jinja alone would also name what is always set before it is read."""
    from jinja2 import nodes

    if all(node.ctx == "load" for node in tree.find_all(nodes.Name) if node.name == name):
        return True
    asked = [node.node for node in tree.find_all(nodes.Test) if node.name in ("defined", "undefined", "none")]
    asked += [node.node for node in tree.find_all(nodes.Filter) if node.name in ("default", "d")]
    return any(isinstance(node, nodes.Name) and node.name == name for node in asked)


class _Uses:
    """What a template does with one variable, and with those that it makes of it."""

    def __init__(self, tree: Any, name: str) -> None:
        self._name = name
        self._names = {name}
        self._words: dict[str, None] = {}
        self._numbers = self._written = self._tested = self._structure = False
        self._default: Value | None = None
        while True:
            before = len(self._names)
            self._find_others(tree)
            if len(self._names) == before:
                break
        self._walk(tree)

    def argument(self) -> TemplateArgument | None:
        if self._structure:
            return None
        words = tuple(self._words)
        default = self._default
        kind: Kind
        if isinstance(default, str) or words or (self._written and not self._numbers):
            kind = "text" if self._written or not words else "choice"
            if kind == "choice" and isinstance(default, str) and default not in words:
                words = (default, *words)
            if kind == "text":
                words = ()
            default = default if isinstance(default, str) else None
        elif self._numbers or (isinstance(default, int | float) and not isinstance(default, bool)):
            kind = "number"
            default = None if isinstance(default, bool) else default
        elif self._tested or isinstance(default, bool):
            kind = "switch"
        else:
            return None
        return TemplateArgument(self._name, kind, words, default)

    def _mine(self, node: Any) -> bool:
        from jinja2 import nodes

        if isinstance(node, nodes.Filter):
            return node.name in ("default", "d", *TEXT_FILTERS) and self._mine(node.node)
        if isinstance(node, nodes.CondExpr):
            return self._mine(node.expr1) or self._mine(node.expr2)
        return isinstance(node, nodes.Name) and node.name in self._names

    def _find_others(self, tree: Any) -> None:
        """`{% set other = variable or a constant %}`: what is done with one is done with both."""
        from jinja2 import nodes

        for node in tree.find_all(nodes.Assign):
            value = node.node
            if isinstance(node.target, nodes.Name) and (
                self._mine(value) or (isinstance(value, nodes.Or) and self._mine(value.left))
            ):
                self._names.add(node.target.name)

    def _walk(self, node: Any) -> None:
        from jinja2 import nodes

        if isinstance(node, nodes.Assign) and isinstance(node.target, nodes.Name):
            if node.target.name in self._names:
                self._note_default(node.node)
        elif isinstance(node, nodes.Compare):
            self._note_compared(node)
        elif isinstance(node, nodes.Test) and self._mine(node.node):
            self._note_test(node)
        elif isinstance(node, nodes.Filter) and node.node is not None and self._mine(node.node):
            if node.name in ("default", "d") and node.args:
                self._note_default(node.args[0])
            elif node.name in TEXT_FILTERS:
                pass  # what becomes of the text is looked at above it
            else:
                self._structure = True
        elif isinstance(node, nodes.Output | nodes.Concat):
            self._written |= any(self._mine(one) for one in node.nodes)
        elif isinstance(node, nodes.Add):
            self._written |= self._mine(node.left) or self._mine(node.right)
        elif isinstance(node, nodes.If | nodes.CondExpr):
            self._tested |= self._mine(node.test)
            if isinstance(node, nodes.CondExpr) and self._mine(node):
                for one in (node.expr1, node.expr2):
                    self._note_default(one)
        elif isinstance(node, nodes.And | nodes.Or):
            self._tested |= self._mine(node.left) or self._mine(node.right)
        elif isinstance(node, nodes.Not):
            self._tested |= self._mine(node.node)
        elif (isinstance(node, nodes.For) and self._mine(node.iter)) or (
            isinstance(node, nodes.Getattr | nodes.Getitem | nodes.Call) and self._mine(node.node)
        ):
            self._structure = True
        for child in node.iter_child_nodes():
            self._walk(child)

    def _note_default(self, node: Any) -> None:
        from jinja2 import nodes

        if isinstance(node, nodes.Or):
            node = node.right
        if isinstance(node, nodes.Const) and self._default is None and node.value not in (None, ""):
            self._default = node.value

    def _note_compared(self, node: Any) -> None:
        from jinja2 import nodes

        others = [operand.expr for operand in node.ops]
        if not self._mine(node.expr):
            if not any(self._mine(other) for other in others):
                return
            if any(op.op in ("in", "notin") for op in node.ops):
                self._structure = True  # it is what is looked into
                return
            others = [node.expr]
        for other in others:
            items = other.items if isinstance(other, nodes.List | nodes.Tuple) else [other]
            for item in items:
                value = item.value if isinstance(item, nodes.Const) else None
                if isinstance(value, bool):
                    self._tested = True
                elif isinstance(value, int | float):
                    self._numbers = True
                elif isinstance(value, str) and value:
                    self._words[value] = None

    def _note_test(self, node: Any) -> None:
        if node.name in ("true", "false", "boolean", "sameas"):
            self._tested = True
        elif node.name == "string":
            self._written = True
        elif node.name in ("number", "integer", "float"):
            self._numbers = True
        elif node.name in ("mapping", "iterable", "sequence"):
            self._structure = True
        elif node.name in ("in", "eq", "equalto", "ne") and node.args:
            from jinja2 import nodes

            self._note_compared(nodes.Compare(node.node, [nodes.Operand("eq", node.args[0])]))
