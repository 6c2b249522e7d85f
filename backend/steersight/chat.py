"""`steersight chat`: the live instrument in a terminal.

The input line stays alive while a reply is written, so that `/steer` can act on the very next token. With a
pipe instead of a terminal the same commands work line by line: a command acts at once, a line of chat waits
until the reply before it has ended, and so does /save.
"""

from __future__ import annotations

import asyncio
import difflib
import io
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .client import Client, Run, SteersightError, connect
from .protocol.messages import MAX_STRENGTH, ModelInfo, VectorSetting
from .protocol.parts import TemplateValue
from .template_words import taken, told

if TYPE_CHECKING:
    from prompt_toolkit.history import History

HELP = """\
/steer NAME STRENGTH  set a vector's strength, also while a reply is being written (0 switches it off);
                      without a strength its suggested one; a third word is an operator, such as ablate;
                      LAYER:NUMBER names a feature by its layer and number, such as 28:8401
/vectors, /features   the vectors and features there are, their layers, range and operators
/adapter NAME         write with a LoRA adapter from the next reply on; none is the base model, and without a
                      name it says which there are
/active               the strengths now set
/clear                set all strengths to 0
/template NAME=VALUE  tell the model's chat template something, such as enable_thinking=off; without a value
                      it is left to the template again, and /template alone lists what can be told
/save FILE            save the conversation as a recording, with what there is of the reply that is being
                      written; without a name it gets one of the time
/reset                forget the conversation
/stop                 end the reply that is being written
/help                 this list
/quit                 leave (so does Ctrl-D)"""
COMMANDS = [
    "/steer", "/vectors", "/features", "/adapter", "/active", "/clear", "/template", "/save", "/reset",
    "/stop", "/help", "/quit",
]  # fmt: skip

DIM, UNDIM = "\x1b[2m", "\x1b[22m"
"""Before and after a thought, where a terminal shows it."""

Write = Callable[[str], None]


class Quit(Exception):  # noqa: N818 - not an error: the person leaves
    """The person asked to leave."""


GONE = ("disconnected", "refused")
"""Errors after which there is nobody left to talk to."""


@dataclass
class Starting:
    """A reply that was asked for and that the server has not taken yet, and what is to be done to it then."""

    steer: str | None = None
    """What the strengths have become, in words."""
    stop: bool = False


class Chat:
    """One conversation with its strengths. Output goes through `write`, so that tests can read it."""

    def __init__(self, client: Client, write: Write, *, dim: bool = False) -> None:
        """
        Args:
            client: the connection.
            write: takes text for the terminal.
            dim: whether the terminal shows thoughts dimmed.
        """
        self.client = client
        self.strengths: dict[str, float] = {}
        self.settings: dict[str, VectorSetting] = {}
        self.adapter: str | None = None
        """The LoRA adapter that the next reply is written with; None is the base model."""
        self.template: dict[str, TemplateValue] = {}
        """What the chat template is told."""
        self._write = write
        self._model: ModelInfo | None = None
        """The one that the last reply was written by, or the person was told of."""
        self._dim = dim
        self._messages: list[dict[str, str | None]] = []
        self._turns: list[tuple[str, Run]] = []
        """What was asked, and the run that answered: those that the conversation goes on from."""
        self._asked = ""
        """What the reply that is being written answers."""
        self._run: Run | None = None
        self._starting: Starting | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def greeting(self) -> str:
        """What is served, and how it answers."""
        model = self._model = self.client.model
        how = " It has no chat template and continues your text." if model and model.chat == "none" else ""
        return f"{model.id if model else '?'}.{how} /help lists the commands.\n"

    async def command(self, line: str) -> None:
        """Carry out one `/command`; what is wrong with it is said in a sentence and changes nothing."""
        name, *rest = line.split()
        match name, rest:
            case "/steer", [word, *more] if len(more) <= 2:
                await self._steer(word, *more)
            case "/steer", _:
                self._write("Write /steer NAME STRENGTH, such as /steer pirate 0.15 or /steer 28:8401 15.\n")
            case "/vectors" | "/features", []:
                for info in self.client.vectors.values():
                    layers = ", ".join(map(str, info.layers))
                    lo, hi = info.range
                    kind = "feature, " if info.kind == "feature" else ""
                    layers += "" if info.feature is None else f":{info.feature}"
                    how = f"{info.operator or 'function'}, {lo:g} to {hi:g}"
                    self._write(f"{info.id}: {kind}layer {layers}, {how}. {info.description}\n")
                if not self.client.vectors:
                    self._write("The server has no vectors for this model.\n")
            case "/adapter", [] | [_]:
                self._adapter(*rest)
            case "/active", []:
                text = ", ".join(self._named(name) for name in self.strengths)
                self._write(f"{text or 'No vector is active'}.\n")
            case "/clear", []:
                self.strengths, self.settings = {}, {}
                self._write("All strengths are 0.\n")
                await self._send_strengths("strength 0")
            case "/template", words if len(words) <= 1:
                self._tell_template(*words)
            case "/template", _:
                self._write("Write /template NAME=VALUE, such as /template enable_thinking=off.\n")
            case "/save", _:
                self._save(line.removeprefix("/save").strip())
            case "/reset", []:
                self._messages, self._turns = [], []
                self._write("The conversation is forgotten; strengths stay.\n")
            case "/stop", []:
                await self.stop()
            case "/help", []:
                self._write(HELP + "\n")
            case "/quit", []:
                raise Quit
            case _:
                close = difflib.get_close_matches(name, COMMANDS, n=1)
                hint = f" Did you mean {close[0]}?" if close else " /help lists what there is."
                self._write(f"{name} is not a command, or not with these words.{hint}\n")

    def _adapter(self, name: str = "") -> None:
        known = [adapter.id for adapter in self.client.model.adapters] if self.client.model else []
        if name in known:
            self.adapter = name
        elif name == "none":
            self.adapter = None
        elif name:
            there = f"There are {', '.join(known)}." if known else "The server was started without any."
            self._write(f"There is no adapter {name!r}. {there}\n")
            return
        elif known:
            self._write(f"There are {', '.join(known)}. ")
        writes = "the base model" if self.adapter is None else f"the adapter {self.adapter}"
        self._write(f"The next reply is written with {writes}.\n")

    async def say(self, text: str) -> None:
        """Send one message and stream the reply until it has ended."""
        self._look_at_model()
        arguments = self.client.model.template if self.client.model else []
        messages: list[dict[str, str | None]] = [*self._messages, {"role": "user", "content": text}]
        starting = self._starting = Starting()
        try:
            self._run = await self.client.start(
                messages, adapter=self.adapter, strengths=self.strengths, settings=self.settings, metrics=[],
                template=taken(arguments, self.template),
            )  # fmt: skip
        except SteersightError as error:
            if error.code in GONE:
                raise
            self._write(f"{error}\n")
            return
        finally:
            self._starting = None
        run, self._asked = self._run, text
        try:
            if starting.steer is not None:
                await self._send_strengths(starting.steer)
            if starting.stop:
                await run.stop()
            if run.waiting:
                self._write(f"[waiting, {run.waiting - 1} before you]\n")
            await self._show(run)
            finished = await run.wait()
        except SteersightError as error:
            if error.code in GONE:
                raise
            # The server was restarted: this reply is gone, the conversation is not.
            self._write(f"\n[{error}]\n")
            return
        finally:
            self._run = None
        ending = finished.error.message if finished.error else finished.reason
        self._write("\n" if finished.reason == "stop" else f"\n[{ending}]\n")
        self._messages = [*messages, {"role": "assistant", "content": run.answer, "thought": run.thought}]
        self._turns.append((text, run))

    def _save(self, name: str) -> None:
        """Write the conversation to a file, or say why not."""
        from .client.saving import save_conversation

        turns = [*self._turns, *([(self._asked, self._run)] if self._run else [])]
        try:
            path = save_conversation(turns, self.client, name)
        except SteersightError as error:
            self._write(f"{error}\n")
        else:
            self._write(f"\nSaved as {path}. `steersight replay {path}` shows it.\n")

    async def _show(self, run: Run) -> None:
        """Write the reply as it comes, its thought dimmed where the terminal can."""
        dimmed = False
        try:
            async for thought, piece in run.passages():
                if self._dim and thought is not dimmed:
                    dimmed = thought
                    self._write(DIM if thought else UNDIM)
                self._write(piece)
        finally:
            if dimmed:
                self._write(UNDIM)

    def _look_at_model(self) -> None:
        """Say that the server's model is another, and let go of what that does not have."""
        before, self._model = self._model, self.client.model
        if before is None or self._model is None or before.id == self._model.id:
            return
        gone = [name for name in self.strengths if name not in self.client.vectors]
        for name in gone:
            del self.strengths[name]
            self.settings.pop(name, None)
        off = f" It has no vector {', '.join(gone)}, so that is off." if gone else ""
        if self.adapter is not None and self.adapter not in {one.id for one in self._model.adapters}:
            off += f" It has no adapter {self.adapter}."
            self.adapter = None
        self._write(f"[The server's model is {self._model.id} now.{off}]\n")

    async def stop(self) -> bool:
        """End the reply that is being written; False when there is none."""
        if self._run is not None:
            await self._run.stop()
        elif self._starting is not None:
            self._starting.stop = True
        return self._run is not None or self._starting is not None

    def say_aside(self, text: str) -> None:
        """Write something that is no part of the conversation."""
        self._write(text)

    def _tell_template(self, word: str = "") -> None:
        """Tell the chat template something from the next reply on, or say what it can be told."""
        model = self.client.model
        self._write(told(model.template if model else [], self.template, word))

    def _named(self, vector: str) -> str:
        setting = self.settings.get(vector)
        return f"{vector} {self.strengths[vector]:g}" + (f" {setting.operator}" if setting else "")

    def _meant(self, word: str) -> str | None:
        """The vector of this id, or of this layer and feature number; None after saying why there is none."""
        vectors = self.client.vectors
        if word in vectors:
            return word
        layer, _, number = word.partition(":")
        if not (layer.isdecimal() and number.isdecimal()):
            close = difflib.get_close_matches(word, vectors, n=3, cutoff=0.4)
            known = ", ".join(close or vectors) or "none"
            self._write(f"There is no vector {word!r}. Closest: {known}.\n")
            return None
        place = ([int(layer)], int(number))
        found = [name for name, info in vectors.items() if (info.layers, info.feature) == place]
        if len(found) == 1:
            return found[0]
        if found:
            self._write(f"There are several features {word}: {', '.join(found)}. Name one of them.\n")
        else:
            self._write(
                f"The server has no feature {int(number)} of layer {int(layer)}. /features lists those that "
                "it has; `steersight vectors import` brings others.\n"
            )
        return None

    async def _steer(self, word: str, strength: str = "", operator: str = "") -> None:
        vector = self._meant(word)
        if vector is None:
            return
        info = self.client.vectors[vector]
        if operator and not info.operators:
            self._write(f"{vector} is a function of the server and does what it does: it has no operators.\n")
            return
        if operator and operator not in info.operators:
            self._write(f"{vector} cannot do {operator!r}; it can do {', '.join(info.operators)}.\n")
            return
        if operator == "clamp":
            self._write(
                "A clamp needs bounds, which this chat has no words for. Use the page or the client.\n"
            )
            return
        try:
            value = float(strength or info.suggested)
        except ValueError:
            self._write(f"{strength!r} is not a number; a strength is one such as 0.15 or -0.2.\n")
            return
        if not -MAX_STRENGTH <= value <= MAX_STRENGTH:  # also refuses NaN
            self._write(
                f"A strength lies between {-MAX_STRENGTH:g} and {MAX_STRENGTH:g}; "
                "useful ones are far smaller, see /vectors.\n"
            )
            return
        self.strengths = {name: old for name, old in self.strengths.items() if name != vector}
        self.settings = {name: old for name, old in self.settings.items() if name != vector}
        if value != 0:
            self.strengths[vector] = value
            if operator:
                self.settings[vector] = VectorSetting.model_validate({"operator": operator})
        if self._run is None and self._starting is None:
            self._write(f"{vector} {value:g} from the next reply on.\n")
        await self._send_strengths(self._named(vector) if value else f"{vector} 0")

    async def _send_strengths(self, what: str) -> None:
        """Steer the reply that is being written, and say when it is in force without holding up anything."""
        run = self._run
        if run is None:
            if self._starting is not None:
                self._starting.steer = what
            return
        rev = await run.steer(self.strengths, self.settings)

        async def report() -> None:
            try:
                position = await run.applied(rev)
            except SteersightError as error:
                self._write(f"\n[{what}: {error}]\n")
            else:
                self._write(f"\n[{what} in force at token {position}]\n")

        task = asyncio.create_task(report())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait for reports that are still due."""
        await asyncio.gather(*self._tasks)


def is_text(line: str) -> bool:
    """Whether it has only characters that text has: bytes that are not UTF-8 come as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in line)


async def converse(chat: Chat, lines: AsyncIterator[str], *, typed: bool = True) -> None:
    """Take lines until they end: commands at once, chat one after the other. `typed`: by a person, who sees
    the reply and may mean to save a part of it."""
    waiting: asyncio.Queue[str | None] = asyncio.Queue()

    async def speak() -> None:
        while (text := await waiting.get()) is not None:
            await (chat.command(text) if text.startswith("/") else chat.say(text))
        await chat.settle()

    speaker = asyncio.create_task(speak())

    async def listen() -> None:
        try:
            async for line in lines:
                text = line.strip()
                if not is_text(text):
                    shown = text.encode("utf-8", "replace").decode()
                    chat.say_aside(
                        f"Not sent, for it is not UTF-8 text: {shown[:80]}\n"
                        "Set the terminal to UTF-8, or convert the file with iconv.\n"
                    )
                elif text.startswith("/") and (typed or text.split()[0] != "/save"):
                    await chat.command(text)
                elif text:
                    waiting.put_nowait(text)
        except Quit:
            await chat.stop()
        waiting.put_nowait(None)

    listener = asyncio.create_task(listen())
    try:
        done, _ = await asyncio.wait([speaker, listener], return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in (speaker, listener):
            task.cancel()


def main(url: str, token: str | None, history: Path) -> int:
    """Run the chat until the person leaves; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no reason to end
            stream.reconfigure(errors="replace")
    try:
        asyncio.run(_main(url, token, history))
    except SteersightError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


async def _main(url: str, token: str | None, history: Path) -> None:
    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    async with connect(url, token) as client:
        await client.ready()
        chat = Chat(client, write, dim=sys.stdout.isatty())
        if sys.stdin.isatty():
            from prompt_toolkit.patch_stdout import patch_stdout

            write(chat.greeting())
            with patch_stdout(raw=True):
                await converse(chat, _typed_lines(chat, history))
        else:
            await converse(chat, _piped_lines(), typed=False)


async def _typed_lines(chat: Chat, history: Path) -> AsyncIterator[str]:
    """Lines from a terminal, with completion and a history file only its owner can read."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import NestedCompleter, WordCompleter

    # Asked anew each time: vectors come and go.
    names = WordCompleter(lambda: list(chat.client.vectors), sentence=True)
    commands: dict[str, object] = {name: names if name == "/steer" else None for name in COMMANDS}
    completer = NestedCompleter.from_nested_dict(commands)
    inputs = kept_inputs(history, chat.say_aside)
    session: PromptSession[str] = PromptSession("> ", completer=completer, history=inputs)
    while True:
        try:
            yield await session.prompt_async()
        except EOFError:
            return
        except KeyboardInterrupt:
            if not await chat.stop():
                return


def kept_inputs(path: Path, write: Write) -> History:
    """Past inputs in a file that only its owner can read; in memory where it cannot be had."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Inputs(FileHistory):
        def store_string(self, string: str) -> None:
            if is_text(string):  # else it could not be written
                try:
                    super().store_string(string)
                except OSError as error:
                    write(f"This input is not kept in {path} ({error.strerror}).\n")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        write(f"Inputs are not kept: {path} cannot be written ({error.strerror}).\n")
        return InMemoryHistory()
    return Inputs(str(path))


async def _piped_lines(source: Iterable[bytes] | None = None) -> AsyncIterator[str]:
    """Lines from a pipe, read in a thread so that the reply goes on streaming."""
    lines = iter(sys.stdin.buffer if source is None else source)
    while (line := await asyncio.to_thread(next, lines, None)) is not None:
        yield line.decode("utf-8", "surrogateescape")
