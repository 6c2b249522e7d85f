"""What is typed in the terminal chat to tell the model's chat template something, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .protocol.messages import TemplateArgument
from .protocol.parts import TemplateValue

SWITCHES = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


def told(arguments: Sequence[TemplateArgument], values: dict[str, TemplateValue], word: str) -> str:
    """Take `name=value` into `values`, and say what is so from now on; what is wrong changes nothing.

    Args:
        arguments: what the template can be told.
        values: what it is told, by name.
        word: as it was typed; empty asks what can be told, and a name alone leaves it to the template again.
    """
    known = {argument.name: argument for argument in arguments}
    if not word:
        lines = [_line(argument, values.get(argument.name, argument.default)) for argument in arguments]
        return "".join(lines) or "The model's chat template takes no arguments.\n"
    name, _, text = word.partition("=")
    if name not in known:
        names = ", ".join(known) or "nothing"
        return f"The model's chat template does not read {name!r}; it reads {names}.\n"
    if not text:
        values.pop(name, None)
        return f"{name} is left to the chat template from the next reply on.\n"
    try:
        values[name] = value_of(known[name], text)
    except ValueError as error:
        return f"{error}\n"
    return f"{name} is {said(values[name])} from the next reply on.\n"


def taken(
    arguments: Sequence[TemplateArgument], values: Mapping[str, TemplateValue]
) -> dict[str, TemplateValue]:
    """Of what a person has said, what this model's template takes: it may have been said of another's."""
    return {one.name: values[one.name] for one in arguments if one.name in values and _fits(one, values)}


def _fits(argument: TemplateArgument, values: Mapping[str, TemplateValue]) -> bool:
    value = values[argument.name]
    match argument.kind:
        case "switch":
            return isinstance(value, bool)
        case "choice":
            return value in argument.choices
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _line(argument: TemplateArgument, now: TemplateValue | None) -> str:
    choices = ["on", "off"] if argument.kind == "switch" else argument.choices or [f"a {argument.kind}"]
    return f"{argument.name}: {' or '.join(choices)}; now {said(now)}.\n"


def value_of(argument: TemplateArgument, text: str) -> TemplateValue:
    """A typed word as a value of the chat template's argument. Raises ValueError with a sentence."""
    if argument.kind == "switch":
        if (word := text.lower()) in SWITCHES:
            return SWITCHES[word]
        raise ValueError(f"{argument.name} is on or off, and not {text!r}.")
    if argument.kind == "number":
        try:
            return int(text) if text.lstrip("-").isdecimal() else float(text)
        except ValueError:
            raise ValueError(f"{argument.name} is a number, and {text!r} is none.") from None
    if argument.kind == "choice" and text not in argument.choices:
        raise ValueError(f"{argument.name} is one of {', '.join(argument.choices)}, and not {text!r}.")
    return text


def said(value: TemplateValue | None) -> str:
    """A value as people type it."""
    if value is None:
        return "as the template has it"
    return ("off", "on")[value] if isinstance(value, bool) else str(value)
