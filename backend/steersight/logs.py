"""What the server writes down: one line per event, as text or as JSON, with the ids of run and connection.

What people write and what the model answers is theirs: it is in no line unless `--log-prompts` asks for it,
and then only in those of the logger `steersight.prompts`, which is silent otherwise. Tokens are in no line at
all.

The ids travel in context variables, so that whatever is logged while a frame is taken or a run goes on
carries them, in whichever module.
"""

from __future__ import annotations

import json
import logging
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from .engine.status import EnginePhase

if TYPE_CHECKING:
    from .engine.service import EngineService

connection: ContextVar[str | None] = ContextVar("connection", default=None)
"""Id of the socket that the present task serves."""
run: ContextVar[str | None] = ContextVar("run", default=None)
"""Id of the run that the present task generates."""

door: ContextVar[str | None] = ContextVar("door", default=None)
"""Which door the present task came in by, where that is one for code."""

prompts = logging.getLogger("steersight.prompts")
prompts.setLevel(logging.CRITICAL + 1)


CODE_DOOR = "nnsight"


def event(logger: logging.Logger, level: int, sentence: str, **facts: Any) -> None:
    """Log something that happened, with what there is to know of it by name."""
    logger.log(level, sentence, extra={"facts": facts})


def follow(engine: EngineService) -> None:
    """Log every change of the engine's state; its stages and vectors change far more often."""
    logger = logging.getLogger("steersight.engine")
    last = engine.status.state

    def changed() -> None:
        nonlocal last
        if engine.status.state != last:
            last = engine.status.state
            level = logging.ERROR if last is EnginePhase.FAILED else logging.INFO
            event(logger, level, "The engine's state has changed.", state=last, stage=engine.status.stage)

    engine.listen(changed)


class Ids(logging.Filter):
    """Gives every record the ids of the task it comes from."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.ids = {
            name: value
            for name, value in (("door", door.get()), ("connection", connection.get()), ("run", run.get()))
            if value
        }
        return True


class _Formatter(logging.Formatter):
    def _facts(self, record: logging.LogRecord) -> dict[str, Any]:
        return {**getattr(record, "ids", {}), **getattr(record, "facts", {})}

    def _time(self, record: logging.LogRecord) -> str:
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{whole}.{int(record.msecs):03d}Z"

    def _trouble(self, record: logging.LogRecord) -> str | None:
        return self.formatException(record.exc_info) if record.exc_info else None


class Text(_Formatter):
    """`2026-01-31T12:00:00.000Z INFO steersight.runs.run A run has finished. run=1f tokens=12`"""

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self._time(record)} {record.levelname} {record.name} {record.getMessage()}"
        # JSON's way of writing a value keeps it on the line, whatever is in it.
        facts = "".join(
            f" {name}={json.dumps(value, default=str)}" for name, value in self._facts(record).items()
        )
        trouble = self._trouble(record)
        return head + facts + (f"\n{trouble}" if trouble else "")


class Json(_Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self._time(record), "level": record.levelname, "logger": record.name,
            "message": record.getMessage(), **self._facts(record),
        }  # fmt: skip
        if (trouble := self._trouble(record)) is not None:
            line["trouble"] = trouble
        return json.dumps(line, default=str)


FORMATS: dict[str, type[_Formatter]] = {"text": Text, "json": Json}


def _is_for_people(record: logging.LogRecord) -> bool:
    """Whether a line is a sentence that a terminal does not have yet: the engine's state is shown there, and
    a fault is for the file, with its traceback."""
    return record.exc_info is None and record.name != "steersight.engine"


def configure(kind: str, log_prompts: bool, terminal: TextIO | None = None) -> None:
    """Write to standard error from now on: all that Steersight says, and uvicorn's complaints.

    Args:
        kind: a key of FORMATS.
        log_prompts: whether what people write is to be in it.
        terminal: gets warnings as bare sentences, where standard error is not what a person sees.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[kind]())
    handler.addFilter(Ids())
    handlers: list[logging.Handler] = [handler]
    if terminal is not None:
        bare = logging.StreamHandler(terminal)
        bare.setLevel(logging.WARNING)
        bare.addFilter(_is_for_people)
        handlers.append(bare)
    for name, level in (("steersight", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [*handlers], False
        logger.setLevel(level)
    prompts.setLevel(logging.INFO if log_prompts else logging.CRITICAL + 1)
