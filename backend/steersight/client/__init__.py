"""Async client of the wire protocol: the terminal chat, benchmarks, tests and notebooks use it.

    async with connect("127.0.0.1:8000") as client:
        await client.ready()
        run = await client.start([{"role": "user", "content": "Hello"}], strengths={"joy": 0.15})
        async for text in run.texts():
            print(text, end="")

One task reads the socket and hands every frame to the run it belongs to, so several runs share a connection.
When the line is lost, the client comes back by itself and resumes its runs from the last event it has had;
whoever waits for text or rows notices a pause, nothing else. When it cannot come back in time, finds another
life of the server, cannot read what the server says or fails itself, everybody who waits is told so with one
sentence: no call waits for a reader that has ended.
"""

from .asking import Asked, How
from .connection import Client
from .dialing import connect
from .errors import SteersightError
from .numbers import to_display
from .run import Revision, Run

__all__ = ["Asked", "Client", "How", "Revision", "Run", "SteersightError", "connect", "to_display"]
