"""Where the HTTP doors for vectors, models, recordings and code are."""

from __future__ import annotations

from starlette.routing import Route

from .answers import Handler, answered
from .building import BuildApi
from .edits import EditApi
from .models import ModelApi
from .nnsight import NnsightApi
from .recordings import RecordingApi
from .vectors import VectorApi


def code_routes(nnsight: NnsightApi, edits: EditApi) -> list[Route]:
    """Where code of clients comes in, as NNsight's client has it."""

    def answer(handler: Handler) -> Handler:
        return answered(handler, key="detail")

    return [
        Route("/health", answer(nnsight.health), methods=["GET"]),
        Route("/v1/nnsight/health", answer(nnsight.health), methods=["GET"]),
        Route("/v1/nnsight/generate", answer(nnsight.generate), methods=["POST"]),
        Route("/v1/nnsight/register/{id}", answer(edits.install), methods=["POST"]),
        Route("/v1/nnsight/register/{id}/clear", answer(edits.clear), methods=["POST"]),
    ]


def routes(
    api: VectorApi, building: BuildApi, models: ModelApi, recordings: RecordingApi, edits: EditApi
) -> list[Route]:
    """All routes below /api."""
    return [
        Route("/api/edits", answered(edits.everything), methods=["GET"]),
        Route("/api/edits/{id}", answered(edits.remove), methods=["DELETE"]),
        Route("/api/model", answered(models.served), methods=["GET"]),
        Route("/api/model", answered(models.change), methods=["POST"]),
        Route("/api/models", answered(models.everything), methods=["GET"]),
        Route("/api/runs/{run}/recording", answered(recordings.recording), methods=["GET"]),
        Route("/api/vectors", answered(api.everything), methods=["GET"]),
        Route("/api/vectors", answered(api.bring), methods=["POST"]),
        Route("/api/vectors/build", answered(building.start), methods=["POST"]),
        Route("/api/vectors/build/{job}", answered(building.look), methods=["GET"]),
        Route("/api/vectors/build/{job}", answered(building.cancel), methods=["DELETE"]),
        Route("/api/vectors/{id}", answered(api.card), methods=["GET"]),
        Route("/api/vectors/{id}", answered(api.delete), methods=["DELETE"]),
        Route("/api/vectors/{id}/file", answered(api.file), methods=["GET"]),
    ]
