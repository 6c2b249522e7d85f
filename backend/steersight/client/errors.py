"""What a client is told when something was refused or cannot go on."""

from __future__ import annotations

from websockets.exceptions import ConnectionClosed


class SteersightError(RuntimeError):
    """The server refused something, or is gone.

    `code` is one of ErrorCode's values, or `disconnected` (the line is lost for good), `refused` (the server
    closed it and would again), `unreadable` (the server says what this client cannot read), `failed` (this
    client itself is at fault).
    """

    def __init__(self, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.field = field


def gone(error: ConnectionClosed) -> SteersightError:
    """Why a connection ended, as far as its end says."""
    received = error.rcvd
    reason = received.reason if received and received.reason else "It may have stopped."
    # Codes of our own name what the client did; a client that comes back would do it again.
    code = "refused" if received and 4000 <= received.code < 5000 else "disconnected"
    return SteersightError(code, f"The connection to the server is gone. {reason}")


def unreadable(why: str) -> SteersightError:
    """A frame that is no frame of this protocol, or lacks what every version of it has."""
    return SteersightError(
        "unreadable", f"The server sent what this client cannot read. {why} Update the client, or the server."
    )
