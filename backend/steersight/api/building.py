"""New vectors over HTTP: start one, see how far it is, cancel it. One at a time per server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..making.builder import TOPICS, Built, Wish, build
from ..runs.places import Places
from ..vectors.store import VectorError
from ..ws.handshake import vector_info
from .answers import Refusal, body
from .vectors import VectorApi

logger = logging.getLogger(__name__)

MAX_BODY = 1 << 20


class Job:
    """One vector that is being built, or was."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        self.state: Literal["running", "done", "failed", "cancelled"] = "running"
        self.stage = "Starting"
        self.progress = 0.0
        self.error: str | None = None
        self.result: dict[str, Any] | None = None
        self.task: asyncio.Task[None] | None = None

    def say(self, stage: str, progress: float) -> None:
        """Note how far it is."""
        self.stage, self.progress = stage, progress

    def over(self, _task: asyncio.Task[None]) -> None:
        """Its task is over. One that was cancelled, before its first step even, could not say so itself."""
        if self.state == "running":
            self.state = "cancelled"

    def to_wire(self) -> dict[str, Any]:
        """As clients see it."""
        return {
            "job": self.id, "state": self.state, "stage": self.stage, "progress": self.progress,
            "error": self.error, "result": self.result,
        }  # fmt: skip


class BuildApi:
    """Handlers of /api/vectors/build. The newest job can be looked at until the next one starts."""

    def __init__(self, vectors: VectorApi, places: Places) -> None:
        self._vectors = vectors
        self._places = places
        self._job: Job | None = None

    async def start(self, request: Request) -> Response:
        """Begin to build; answers with the job's id."""
        self._check_free()
        wish = _wish(await body(request, MAX_BODY), self._vectors.adapters)
        self._check_free()  # while the body came, anything may have happened
        job = self._job = Job()
        job.task = asyncio.create_task(self._run(job, wish), name=f"build-{job.id}")
        job.task.add_done_callback(job.over)
        return JSONResponse({"job": job.id}, status_code=202)

    def _check_free(self) -> None:
        engine = self._vectors.engine
        if not engine.status.ready:
            raise Refusal(503, f"The engine is {engine.status.state}: {engine.status.stage}")
        if self._job is not None and self._job.state == "running":
            raise Refusal(409, "Another vector is being built. Wait for it, or cancel it.")

    async def look(self, request: Request) -> Response:
        """How far a job is."""
        return JSONResponse(self._named(request).to_wire())

    async def cancel(self, request: Request) -> Response:
        """End a job; nothing of it stays."""
        await self._end(self._named(request))
        return Response(status_code=204)

    async def close(self) -> None:
        """End what is running."""
        if self._job is not None:
            await self._end(self._job)

    async def _end(self, job: Job) -> None:
        if job.task is not None and not job.task.done():
            # Once: a second time would cut off the work of giving back what the job holds.
            if not job.task.cancelling():
                job.task.cancel()
            await asyncio.wait([job.task])

    def _named(self, request: Request) -> Job:
        job = self._job
        if job is None or job.id != request.path_params["job"]:
            raise Refusal(404, "There is no such job. A server remembers its newest one only.")
        return job

    async def _run(self, job: Job, wish: Wish) -> None:
        try:
            built = await build(self._vectors.engine, self._places, wish, job.say)
            job.say("Saving the vector", 0.98)
            job.result = _result(built, await self._vectors.keep(built.vector))
            job.state = "done"
            job.say("Done", 1.0)
        except VectorError as error:
            job.state, job.error = "failed", str(error)
        except Exception as error:
            logger.exception("A vector could not be built")
            job.state, job.error = "failed", f"The vector could not be built: {error}"


def _wish(data: bytes, adapters: list[str]) -> Wish:
    try:
        asked = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(422, "The request is not JSON.") from None
    if not isinstance(asked, dict) or asked.keys() - {"label", "positive", "negative", "topics", "adapter"}:
        raise Refusal(
            422,
            "A vector is built from `label`, `positive`, `negative` and, if you like, `topics` and "
            "`adapter`.",
        )
    adapter = asked.get("adapter") or ""
    if adapter and adapter not in adapters:
        raise Refusal(422, f"`adapter` is none of those that are served: {', '.join(adapters) or 'none'}.")

    def texts(name: str) -> str | tuple[str, ...]:
        given = asked.get(name)
        if isinstance(given, str):
            return given
        if isinstance(given, list) and all(isinstance(text, str) for text in given):
            return tuple(given)
        raise Refusal(422, f"`{name}` is missing, or neither a text nor a list of texts.")

    topics = texts("topics") if "topics" in asked else TOPICS
    if not isinstance(asked.get("label"), str) or isinstance(topics, str):
        raise Refusal(422, "`label` must be a text and `topics` a list of texts.")
    with contextlib.suppress(UnicodeEncodeError):
        try:
            return Wish(asked["label"], texts("positive"), texts("negative"), topics, adapter)
        except VectorError as error:
            raise Refusal(422, str(error)) from None
    raise Refusal(422, "The request holds characters that no text has.")


def _result(built: Built, vector: Any) -> dict[str, Any]:
    return {
        "vector": vector_info(vector, own=True).model_dump(),
        "layer": built.layer,
        "range": list(vector.range),
        "suggested": vector.suggested,
        "separation": [
            {"layer": layer, "score": round(float(score), 4)}
            for layer, score in enumerate(built.found.separation)
        ],
        "sweep": [
            {
                "strength": point.strength, "effect": round(point.effect, 4),
                "damage": round(point.damage, 4), "sample": point.sample,
            }
            for point in built.sweep
        ],
    }  # fmt: skip
