"""What can go wrong between the server and its engine; every message is a sentence for people."""

from __future__ import annotations

ERROR = "steersight_error"
"""Key of a worker's answer that is an error; see `worker_methods.answering`."""


class EngineNotReadyError(RuntimeError):
    """The engine cannot take a run now; the message says why."""


class StartError(RuntimeError):
    """The engine did not start; the message says why and what to do, as far as that is known."""


class ChangeError(RuntimeError):
    """The model is not changed, and everything is as it was; the message says why."""


class EngineLostError(RuntimeError):
    """The engine ended, or was ended because it hung, while it owed an answer. It is started again."""


class RunFailedError(RuntimeError):
    """Something went wrong in the engine with this run alone; the engine and its neighbours go on."""


class CodeFailedError(RunFailedError):
    """Code of a client's that takes part in the run has raised."""
