"""Edits without an engine: the server's list, what the workers are told, and which requests have which."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from steersight.api.edits import EditApi
from steersight.api.routes import answered
from steersight.engine import edits as module
from steersight.engine.channel import FailedRuns, pack, unpack
from steersight.engine.edits import EditError, Edits
from steersight.engine.errors import CodeFailedError
from steersight.engine.life import CallError
from steersight.engine.tracing.edited import AGAIN, EDITS, MEDIATOR, Edited
from steersight.protocol.codec import FrameError
from steersight.protocol.messages import ChatMessage, Start, Started
from steersight.protocol.messages import Edits as EditsFrame

from .sent import sent
from .test_connection import connected
from .test_run_table import MakeTable, Table, ending, settle, table
from .test_run_table import prompts_of_five_tokens as prompts_of_five_tokens

__all__ = ["table"]


class Workers:
    """All ranks, which take what they are told, or fail at a method that the test names."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.fails: dict[str, Exception] = {}

    async def call(self, method: str, *args: Any) -> list[Any]:
        self.told.append((method.removeprefix("steersight_"), *args))
        if (error := self.fails.get(method.removeprefix("steersight_"))) is not None:
            raise error
        return []


@pytest.fixture
def workers() -> Workers:
    return Workers()


@pytest.fixture
def edits(workers: Workers) -> Edits:
    return Edits(workers.call)


async def test_an_edit_is_read_by_all_ranks_before_any_takes_it_up(edits: Edits, workers: Workers) -> None:
    heard: list[tuple[str, ...]] = []
    edits.changed = lambda: heard.append(edits.names())
    await edits.install("a", "calm", b"code")
    await edits.install("b", None, b"more")
    assert workers.told == [
        ("prepare_edit", "a", b"code"), ("take_up_edit", "a", "calm", []),
        ("prepare_edit", "b", b"more"), ("take_up_edit", "b", "edit-1", []),
    ]  # fmt: skip
    assert heard == [("calm",), ("calm", "edit-1")]
    await edits.remove("a")
    assert workers.told[-1] == ("remove_edit", "a")
    assert edits.names() == ("edit-1",)
    with pytest.raises(EditError, match="There is no edit 'a'"):
        await edits.remove("a")


async def test_one_that_a_rank_cannot_read_is_on_none_of_them(edits: Edits, workers: Workers) -> None:
    workers.fails["prepare_edit"] = CallError("ModuleNotFoundError: No module named 'mine'")
    with pytest.raises(EditError, match=r"could not read it\. ModuleNotFoundError: No module named 'mine'"):
        await edits.install("a", "calm", b"code")
    assert workers.told[-1] == ("drop_edit", "a")
    assert edits.listing() == []


async def test_one_of_the_same_name_takes_the_others_place(edits: Edits, workers: Workers) -> None:
    """A cell of a notebook that is run again."""
    await edits.install("a", "calm", b"code")
    await edits.install("b", "calm", b"better")
    assert workers.told[-1] == ("take_up_edit", "b", "calm", ["a"])
    assert [(edit.id, edit.payload) for edit in edits.listing()] == [("b", b"better")]
    workers.fails["prepare_edit"] = CallError("No.")
    with pytest.raises(EditError):
        await edits.install("c", "calm", b"worse")
    assert edits.names() == ("calm",), "the one before is still there"


@pytest.mark.parametrize(
    ("edit_id", "name", "payload", "sentence"),
    [
        ("../a", "calm", b"x", "The id of an edit"),
        ("a", "", b"x", "The name of an edit"),
        ("a", "two\nlines", b"x", "The name of an edit"),
        ("a", "n" * 65, b"x", "The name of an edit"),
        ("a", "calm", b"", "no code"),
        ("a", "calm", b"x" * 9, "one may have 0"),
    ],
)
async def test_what_is_not_taken_is_said(
    edits: Edits, workers: Workers, monkeypatch: pytest.MonkeyPatch,
    edit_id: str, name: str, payload: bytes, sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "MAX_EDIT_BYTES", 8)
    with pytest.raises(EditError, match=sentence):
        await edits.install(edit_id, name, payload)
    assert (workers.told, edits.listing()) == ([], [])


async def test_there_is_room_for_so_many(edits: Edits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EDITS", 2)
    monkeypatch.setattr(module, "MAX_BYTES", 10)
    await edits.install("a", "one", b"12345")
    with pytest.raises(EditError, match="All edits together"):
        await edits.install("b", "two", b"123456")
    await edits.install("b", "two", b"12345")
    with pytest.raises(EditError, match="2 edits are installed"):
        await edits.install("c", "three", b"1")
    await edits.install("c", "two", b"1")
    assert edits.names() == ("one", "two")


async def test_an_engine_that_is_started_again_has_them_again_and_another_models_none(
    edits: Edits, workers: Workers
) -> None:
    await edits.install("a", "calm", b"code")
    await edits.install("b", "loud", b"more")
    workers.told.clear()
    await edits.give_all()
    assert [told[:2] for told in workers.told if told[0] == "prepare_edit"] == [
        ("prepare_edit", "a"),
        ("prepare_edit", "b"),
    ]
    workers.fails["prepare_edit"] = CallError("No.")
    await edits.give_all()
    assert edits.names() == ()
    workers.fails.clear()
    await edits.install("a", "calm", b"code")
    await edits.forget_all()
    assert edits.names() == ()


async def test_runs_and_errors_are_counted(edits: Edits) -> None:
    await edits.install("a", "calm", b"code")
    await edits.install("b", "loud", b"more")
    edits.began(("calm",))
    edits.began(("calm", "loud"))
    edits.failed({"loud": "ValueError: No."})
    assert [(one.name, one.runs, one.error) for one in edits.listing()] == [
        ("calm", 2, None),
        ("loud", 1, "ValueError: No."),
    ]


# ------------------------------------------------------------ in the table


def asks(*names: str) -> Start:
    return Start(id="x", messages=[ChatMessage(role="user", content="hi")], edits=list(names))


async def test_a_chat_names_its_edits_and_nobody_else_has_them(table: MakeTable) -> None:
    t = table()
    with pytest.raises(FrameError, match=r"There is no edit 'calm': none is installed\.") as refused:
        await t.table.admit(asks("calm"), lambda: None)
    assert (refused.value.code, refused.value.field) == ("unknown_edit", "edits")
    await t.engine.edits.install("a", "calm", b"code")
    plain, edited = await t.start(), await t.table.admit(asks("calm"), lambda: None)
    await settle()
    assert [t.engine.requests[run.id].edits for run in (plain, edited)] == [(), ("calm",)]
    (started,) = [frame for frame in sent(edited.log.frames_since(0)[0]) if isinstance(frame, Started)]
    assert started.edits == ["calm"]


async def test_rows_of_a_run_with_edits_are_neither_kept_nor_read(table: MakeTable) -> None:
    t = table()
    await t.engine.edits.install("a", "calm", b"code")
    run = await t.table.admit(asks("calm"), lambda: None)
    await settle()
    assert t.engine.requests[run.id].options.read_most is None
    t.engine.end(run)
    await settle()
    assert (run.done, len(t.table.kept)) == (True, 0)


async def test_a_chat_whose_edit_raises_says_that_it_was_code(table: MakeTable) -> None:
    t = table()
    run = await t.start()
    await settle()
    t.engine.end(run, CodeFailedError("The edit 'calm' failed in this reply: ValueError: No. It was ended."))
    await settle()
    error = ending(run).error
    assert error is not None
    assert (error.code, "'calm'" in error.message) == ("block_failed", True)


async def test_everybody_is_told_of_edits() -> None:
    t = Table()
    async with connected(t) as (socket, connection):
        await t.engine.edits.install("a", "calm", b"code")
        await socket.until(lambda: socket.of(EditsFrame))
        (one,) = socket.of(EditsFrame)[0].edits
        assert (one.id, one.name, one.bytes, one.runs, one.error) == ("a", "calm", 4, 0, None)
        assert [edit.name for edit in connection._offering._make_welcome().edits] == ["calm"]


# ------------------------------------------------------------ over HTTP


@pytest.fixture
def http(edits: Edits) -> Any:
    status = SimpleNamespace(ready=True)
    api = EditApi(SimpleNamespace(edits=edits, status=status))  # type: ignore[arg-type]
    app = Starlette(
        routes=[
            Route("/api/edits", answered(api.everything)),
            Route("/api/edits/{id}", answered(api.remove), methods=["DELETE"]),
            Route("/v1/nnsight/register/{id}", answered(api.install, key="detail"), methods=["POST"]),
            Route("/v1/nnsight/register/{id}/clear", answered(api.clear, key="detail"), methods=["POST"]),
        ]
    )
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x")


async def test_edits_come_and_go_over_http(http: httpx.AsyncClient, edits: Edits) -> None:
    async with http:
        made = await http.post("/v1/nnsight/register/r-1?name=no%20MLP", content=b"code")
        assert (made.status_code, made.json()) == (200, {"status": "ok", "id": "r-1", "name": "no MLP"})
        unnamed = await http.post("/v1/nnsight/register/r-2", content=b"code")
        assert unnamed.json()["name"] == "edit-1"
        listed = (await http.get("/api/edits")).json()
        assert [(one["id"], one["name"], one["bytes"]) for one in listed] == [
            ("r-1", "no MLP", 4),
            ("r-2", "edit-1", 4),
        ]
        assert (await http.delete("/api/edits/r-1")).status_code == 204
        again = await http.delete("/api/edits/r-1")
        assert (again.status_code, again.json()) == (404, {"error": "There is no edit 'r-1'."})
        for _ in range(2):
            assert (await http.post("/v1/nnsight/register/r-2/clear")).status_code == 200
        refused = await http.post("/v1/nnsight/register/r-3", content=b"")
        assert (refused.status_code, refused.json()) == (400, {"detail": "The edit has no code."})
    assert edits.listing() == []


# ------------------------------------------------------------ in a worker


class Stock:
    """What NNsight's `Requests` does with templates, in a few words."""

    def __init__(self) -> None:
        self.requests: dict[str, Any] = {}
        self.templates: dict[str, Any] = {}
        self.names: dict[str, str | None] = {}

    def add(self, new_requests: list[Any], _known: dict[str, Any]) -> None:
        for data in new_requests:
            extra = data.sampling_params.extra_args or {}
            wanted = extra.get(EDITS)
            self.requests[data.req_id] = SimpleNamespace(
                named=lambda ids, name=data.req_id: name in ids, error=None, harvested={},
                copies={
                    one: SimpleNamespace(exception=None, saves={"x": object()})
                    for one in self.templates
                    if wanted is None or self.names[one] in wanted
                },
            )  # fmt: skip

    def harvest(self, finished: set[str]) -> None:
        for request in self.requests.values():
            if request.named(finished):
                kept = {one: copy for one, copy in request.copies.items() if one in self.templates}
                request.harvested = {one: {"saves": copy.saves} for one, copy in kept.items()}
                request.copies = {}

    def finish_dangling(self, mediator: Any, *_: Any, **__: Any) -> None:
        mediator.unwound = True


class Requests(Edited, Stock):
    """Both."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[Any] = []

    def let_go(self, saved: Any) -> None:
        self.gone += saved

    def says(self, error: BaseException) -> str | None:
        return None if isinstance(error, StopIteration) else super().says(error)


def data(name: str, **extra: Any) -> Any:
    return SimpleNamespace(
        req_id=name,
        sampling_params=SimpleNamespace(extra_args={"steersight": {"run": f"run-{name}"}, **extra}),
    )


@pytest.fixture
def worker() -> Requests:
    made = Requests()
    for edit_id, name in (("a", "calm"), ("b", "loud")):
        made.prepare(edit_id, object())
        made.take_up(edit_id, name, [])
    return made


def copies(worker: Requests) -> dict[str, list[str]]:
    return {name: list(request.copies) for name, request in worker.requests.items()}


def test_only_those_that_are_named_act_and_a_trace_has_its_own_rule(worker: Requests) -> None:
    worker.add(
        [
            data("plain"), data("edited", **{EDITS: ["loud"]}),
            data("trace", **{MEDIATOR: b"", EDITS: ["calm"]}), data("all", **{MEDIATOR: b""}),
        ],
        {},
    )  # fmt: skip
    assert copies(worker) == {"plain": [], "edited": ["b"], "trace": ["a"], "all": ["a", "b"]}


def test_requests_are_left_as_they_are_where_there_are_no_edits() -> None:
    worker, asked = Requests(), data("plain")
    worker.add([asked], {})
    assert EDITS not in asked.sampling_params.extra_args


def test_a_removed_edit_acts_to_the_end_of_the_runs_that_have_it(worker: Requests) -> None:
    worker.add([data("one", **{EDITS: ["calm"]})], {})
    copy = worker.requests["one"].copies["a"]
    worker.take_out("a")
    worker.add([data("two", **{EDITS: ["loud"]})], {})
    assert copies(worker) == {"one": ["a"], "two": ["b"]}
    copy.exception = ValueError("No.")
    assert worker.failed([]).edits == {"calm": "ValueError: No."}
    worker.harvest({"one"})
    assert copy.unwound
    assert list(worker.requests) == ["two"]


def test_an_edit_takes_anothers_place_and_one_that_was_dropped_is_not_there(worker: Requests) -> None:
    worker.prepare("c", object())
    worker.take_up("c", "calm", ["a"])
    worker.prepare("d", object())
    worker.drop("d")
    with pytest.raises(KeyError):
        worker.take_up("d", "calm", [])
    assert worker.names == {"b": "loud", "c": "calm"}


def test_what_a_chats_edits_saved_is_nobodys_and_a_traces_goes_home(worker: Requests) -> None:
    worker.add([data("chat", **{EDITS: ["calm"]}), data("trace", **{MEDIATOR: b"", EDITS: ["calm"]})], {})
    saved = worker.requests["chat"].copies["a"].saves["x"]
    worker.harvest({"chat", "trace"})
    assert list(worker.requests) == ["trace"]
    assert worker.gone == [saved]


def test_an_edit_that_raises_ends_its_chat_and_is_told_once(worker: Requests) -> None:
    worker.add(
        [
            data("chat", **{EDITS: ["calm", "loud"]}), data("trace", **{MEDIATOR: b"", EDITS: ["loud"]}),
            data("stops", **{EDITS: ["calm"]}), data("plain"),
        ],
        {},
    )  # fmt: skip
    assert worker.failed(["plain"]) == worker.failed([])
    worker.requests["chat"].copies["b"].exception = ValueError("No such layer.")
    worker.requests["trace"].copies["b"].exception = ValueError("Nor here.")
    worker.requests["stops"].copies["a"].exception = StopIteration()
    found = worker.failed([])
    assert found.runs == {"run-chat": "The edit 'loud' failed in this reply: ValueError: No such layer."}
    assert found.edits == {"loud": "ValueError: Nor here."}
    assert (worker.failed([]).runs, worker.failed([]).edits) == ({}, {})


def test_a_chat_whose_edits_could_not_be_taken_up_or_would_miss_a_part_fails(worker: Requests) -> None:
    worker.add([data("one", **{EDITS: ["calm"]}), data("two", **{EDITS: ["calm"]}), data("plain")], {})
    worker.requests["one"].error = {"type_name": "ValueError", "message": "no edit is installed under 'calm'"}
    found = worker.failed(["two", "plain"])
    assert found.runs["run-one"].endswith("ValueError: no edit is installed under 'calm'")
    assert found.runs["run-two"] == AGAIN
    assert len(found.runs) == 2


def test_the_news_of_it_travels() -> None:
    for item in (FailedRuns({"r": "No."}), FailedRuns({"r": "No."}, {"calm": "ValueError: No."})):
        assert unpack([pack(item)]) == item


def test_an_exception_that_raises_when_it_is_asked_what_it_says_ends_nothing_but_its_run() -> None:
    from steersight.engine.nnsight_adapter import BoundRequests
    from steersight.engine.tracing.guard import Guard

    class SlyError(Exception):
        def __str__(self) -> str:
            raise SystemExit

    requests = BoundRequests()
    requests.guard = Guard(30.0, 2 << 30, on_cpu=False)
    mediator = SimpleNamespace(exception=SlyError(), lcls={}, presaved=set())
    requests.record(mediator)
    assert mediator.nnsight_error["type_name"] == "SlyError"
    assert requests.says(SlyError()) == "SlyError: What it says cannot be had: that raised BlockLeftError."
