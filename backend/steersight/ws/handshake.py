"""Before the first frame: the subprotocol. After it: `welcome`, and `engine` whenever that has changed.

Both say what everybody may choose from, which takes milliseconds to put together when there are hundreds of
vectors. So each is packed once for all connections, and anew when the engine has changed (`Offering`).
"""

from __future__ import annotations

from typing import cast

from starlette.websockets import WebSocket

from .. import __version__
from ..engine.service import EngineService, ModelFacts
from ..interventions import SteeringFunction
from ..protocol import codec
from ..protocol.close import CloseCode
from ..protocol.messages import (
    MAX_FRAME_BYTES,
    MAX_MESSAGES,
    MAX_STRENGTH,
    MAX_VECTORS,
    SUBPROTOCOL,
    AdapterInfo,
    ColorScale,
    EditInfo,
    Edits,
    Engine,
    EngineStatus,
    ExpertsInfo,
    Limits,
    MetricInfo,
    ModelInfo,
    Operator,
    TemplateArgument,
    ThoughtMarks,
    VectorInfo,
    Welcome,
)
from ..runs.table import RunLimits
from ..runs.telling import Telling
from ..vectors.store import SteeringVector

MAX_RUNS_PER_CONNECTION = 16


def refusal(socket: WebSocket) -> CloseCode | None:
    """Why this socket may not be used, or None. It is accepted first, so that a browser reads the code."""
    if SUBPROTOCOL not in socket.scope.get("subprotocols", []):
        return CloseCode.WRONG_SUBPROTOCOL
    return None


def metric_infos(engine: EngineService) -> list[MetricInfo]:
    """All metrics, as the wire describes them."""
    return [
        MetricInfo(
            id=metric.id, label=metric.label, description=metric.description, unit=metric.unit,
            transform=metric.transform,
            scale=ColorScale(
                kind=metric.scale.kind, lo=metric.scale.lo, hi=metric.scale.hi, mid=metric.scale.mid
            ),
            family=metric.family, cost=metric.cost, default=metric.default,
            error=engine.offer.failed_metrics.get(metric.id),
        )
        for metric in engine.offer.registry.all()
    ]  # fmt: skip


def vector_info(vector: SteeringVector, *, own: bool) -> VectorInfo:
    """One vector, as the wire describes it."""
    return VectorInfo(
        id=vector.id, label=vector.label, description=vector.description, layers=vector.layers,
        range=list(vector.range), suggested=vector.suggested, kind=vector.kind,
        operator=cast(Operator, vector.operator), operators=cast("list[Operator]", vector.operators),
        feature=vector.feature, adapter=vector.adapter or None, own=own,
    )  # fmt: skip


def function_info(function: SteeringFunction) -> VectorInfo:
    """One function of the server's own files, as the wire describes it."""
    return VectorInfo(
        id=function.id, label=function.label, description=function.description, layers=function.layers,
        range=list(function.range), suggested=function.suggested, kind="function", operator=None,
        operators=[], file=function.file.name, own=False,
    )  # fmt: skip


def vector_infos(engine: EngineService) -> list[VectorInfo]:
    """All vectors that fit the served model, then the server's functions."""
    offer = engine.offer
    return [
        *(vector_info(vector, own=vector.id in offer.own) for vector in offer.vectors.values()),
        *map(function_info, offer.functions.values()),
    ]


def model_info(engine: EngineService) -> ModelInfo | None:
    """The served model, once its configuration has been read."""
    return None if engine.model is None else model_info_of(engine.model)


def model_info_of(facts: ModelFacts) -> ModelInfo:
    """A model, as the wire describes it."""
    marks, experts = facts.thoughts, facts.experts
    return ModelInfo(
        **{
            **vars(facts),
            "experts": None if experts is None else ExpertsInfo(**vars(experts)),
            "adapters": [AdapterInfo(id=adapter.id, rank=adapter.rank) for adapter in facts.adapters],
            "thoughts": None if marks is None else ThoughtMarks(start=marks.start, end=marks.end),
            "template": [
                TemplateArgument(name=one.name, kind=one.kind, choices=list(one.choices), default=one.default)
                for one in facts.template
            ],
        }
    )


def edit_infos(engine: EngineService) -> list[EditInfo]:
    """All edits, as the wire describes them."""
    return [
        EditInfo(
            id=edit.id, name=edit.name, since=edit.since, bytes=len(edit.payload), runs=edit.runs,
            error=edit.error,
        )
        for edit in engine.edits.listing()
    ]  # fmt: skip


class Offering:
    """What all clients are told of the server and its engine."""

    def __init__(
        self, engine: EngineService, limits: RunLimits, name: str, epoch: str, *, change_model: bool = False
    ) -> None:
        """
        Args:
            engine: says when something has changed.
            limits: of the runs.
            name: of this server, of which there may be several.
            epoch: of this life of it.
            change_model: whether whoever is let in may change the model.
        """
        self.epoch = epoch
        self._engine = engine
        self._limits = limits
        self._name = name
        self._change_model = change_model
        self.edits = Telling(lambda: Edits(edits=edit_infos(engine)))
        """Tells of the edits that there are."""
        self._welcome: bytes | None = None
        self._engine_frame: bytes | None = None
        engine.listen(self._changed)
        engine.edits.changed = self._edits_changed

    def _changed(self) -> None:
        self._welcome = self._engine_frame = None

    def _edits_changed(self) -> None:
        self._welcome = None
        self.edits.changed()

    def welcome(self) -> bytes:
        """The answer to `hello`, packed."""
        if self._welcome is None:
            self._welcome = codec.encode(self._make_welcome())
        return self._welcome

    def engine_frame(self) -> bytes:
        """The engine's state as a frame of its own, packed."""
        if self._engine_frame is None:
            engine = self._engine
            self._engine_frame = codec.encode(
                Engine(
                    **vars(engine.status), model=model_info(engine), metrics=metric_infos(engine),
                    vectors=vector_infos(engine),
                )
            )  # fmt: skip
        return self._engine_frame

    def _make_welcome(self) -> Welcome:
        engine, limits = self._engine, self._limits
        most = engine.options.max_model_len if engine.model is None else engine.model.max_model_len
        return Welcome(
            server=f"steersight/{__version__}",
            name=self._name,
            epoch=self.epoch,
            engine=EngineStatus(**vars(engine.status)),
            model=model_info(engine),
            metrics=metric_infos(engine),
            vectors=vector_infos(engine),
            limits=Limits(
                max_frame_bytes=MAX_FRAME_BYTES, max_messages=MAX_MESSAGES, max_vectors=MAX_VECTORS,
                max_strength=MAX_STRENGTH, max_runs_per_connection=MAX_RUNS_PER_CONNECTION,
                max_reply_tokens=min(most, limits.max_reply_tokens or most),
                grace_seconds=limits.grace_seconds,
            ),
            change_model=self._change_model, edits=edit_infos(engine),
        )  # fmt: skip
