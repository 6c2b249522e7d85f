"""What a block may emit, in which rows it stands, and how it comes to the server, without an engine."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from steersight import live
from steersight.engine.emissions import MAX_NAMES, Emissions, Emitter, in_columns
from steersight.engine.outgoing import DeviceStep
from steersight.engine.plan import Block
from steersight.engine.step import Emitted, Step

from .sent import once_over_the_wire

ME = Emitter("request-1", "run")
LAYERS = 6


def begun(tokens: int = 1) -> Emissions:
    emissions = Emissions(LAYERS, torch.device("cpu"))
    emissions.begin({ME.request_id: tokens})
    return emissions


def leaving(emissions: Emissions, *blocks: Block) -> Step:
    """The step that these blocks make, as the server has it."""
    drawn = torch.zeros(len(blocks), dtype=torch.int64)
    step = DeviceStep(
        list(blocks), 0, drawn, drawn.float(), drawn, [], LAYERS, None, None, None,
        emitted=in_columns(emissions.complete(), list(blocks)),
    )  # fmt: skip
    assert step.numbers > 0 or step.emitted is None
    return once_over_the_wire(step.arrive())


def block(run: str, start: int, rows: int) -> Block:
    return Block(run, start, [0] * rows, True, 0)


def found(step: Step, entry: int = 0) -> dict[tuple[str, int], list[float]]:
    assert step.emitted is not None
    return {(name, layer): values.tolist() for name, layer, values in step.emitted.of(entry)}


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (3, 3.0), (True, 1.0), (0.25, 0.25), (10**400, 65504.0), (-1e30, -65504.0), (math.nan, math.nan),
        (math.inf, math.nan), (np.float64(2.5), 2.5), (np.array([1.5]), 1.5), (torch.tensor(7), 7.0),
        (torch.tensor([0.5], dtype=torch.bfloat16, requires_grad=True), 0.5), (torch.tensor(1e6), 65504.0),
        (torch.tensor(-math.inf), math.nan),
    ],
)  # fmt: skip
def test_any_real_number_is_taken(value: Any, kept: float) -> None:
    emissions = begun()
    emissions.emit(ME, "a", 2, value)
    assert found(leaving(emissions, block("run", 9, 1)))["a", 2] == pytest.approx([kept], nan_ok=True)


def test_what_a_block_reads_may_be_written_over_at_once() -> None:
    emissions, memory = begun(3), torch.arange(3.0)
    emissions.emit(ME, "a", 0, memory)
    emissions.emit(ME, "b", 0, memory.numpy())
    memory.zero_()
    step = leaving(emissions, block("run", 0, 3))
    assert found(step) == {("a", 0): [0.0, 1.0, 2.0], ("b", 0): [0.0, 1.0, 2.0]}


def test_numbers_stand_at_the_last_rows_of_their_pass() -> None:
    """One number at the last; of one for each token those whose rows are sent; of a run without rows none."""
    emissions = Emissions(LAYERS, torch.device("cpu"))
    emissions.begin({"request-1": 4, "request-2": 4, "request-3": 4})
    for number in "123":
        me = Emitter(f"request-{number}", f"run-{number}")
        emissions.emit(me, "each", None, torch.arange(4.0))
        emissions.emit(me, "one", 1, 9)
    step = leaving(emissions, block("run-1", 0, 4), block("run-2", 2, 2), block("run-3", 4, 0))
    assert found(step, 0) == {("each", LAYERS - 1): [0.0, 1.0, 2.0, 3.0], ("one", 1): [9.0]}
    assert found(step, 1) == {("each", LAYERS - 1): [2.0, 3.0], ("one", 1): [9.0]}
    assert found(step, 2) == {}


def test_what_lies_on_the_device_comes_in_one_copy_in_its_places() -> None:
    """As on a GPU, whose tensors stay tensors until their step is complete."""
    blocks = [block("a", 0, 2), block("b", 0, 1), block("c", 3, 1)]
    taken = in_columns(
        {
            "a": {("x", 0): torch.tensor([1.0, 2.0, 3.0]), ("y", 1): 9.0},
            "c": {("x", 2): np.array([5.0], dtype=np.float32), ("z", 2): torch.tensor([math.inf])},
        },
        blocks,
    )
    drawn = torch.zeros(3, dtype=torch.int64)
    step = DeviceStep(blocks, 0, drawn, drawn.float(), drawn, [], LAYERS, None, None, None, emitted=taken)
    arrived = once_over_the_wire(step.arrive())
    assert found(arrived, 0) == {("x", 0): [2.0, 3.0], ("y", 1): [9.0]}
    assert found(arrived, 1) == {}
    assert found(arrived, 2) == {("x", 2): [5.0], ("z", 2): pytest.approx([math.nan], nan_ok=True)}


def test_of_two_values_for_one_place_the_later_counts() -> None:
    emissions = begun()
    emissions.emit(ME, "a", 1, 1)
    emissions.emit(ME, "a", 1, 2)
    assert found(leaving(emissions, block("run", 0, 1))) == {("a", 1): [2.0]}


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (("a b", 0, 1), ValueError, "'a b' is no name of a metric. Take 1 to 64 letters"),
        (("", 0, 1), ValueError, "is no name"),
        (("é" * 3, 0, 1), ValueError, "is no name"),
        (("a" * 65, 0, 1), ValueError, "is no name"),
        ((7, 0, 1), ValueError, "7 is no name"),
        (("a", 6, 1), ValueError, "there is no layer 6; this model has 0 to 5"),
        (("a", -1, 1), ValueError, "there is no layer -1"),
        (("a", 1.0, 1), TypeError, "the layer is 1.0. Give its number"),
        (("a", True, 1), TypeError, "the layer is True"),
        (("a", 0, "3"), TypeError, "a value of type str"),
        (("a", 0, [1.0]), TypeError, "a value of type list"),
        (("a", 0, Fraction(1, 2)), TypeError, "a value of type Fraction"),
        (("a", 0, None), TypeError, "a value of type NoneType"),
        (("a", 0, torch.zeros(2)), ValueError, r"shape \[2\]. .* each of the 3 tokens"),
        (("a", 0, torch.zeros(3, 576)), ValueError, r"shape \[3, 576\]"),
        (("a", 0, torch.zeros(3, dtype=torch.complex64)), TypeError, "of torch.complex64"),
        (("a", 0, np.array(["x"])), TypeError, "takes real numbers"),
        (("a", 0, torch.zeros(3, device="meta")), NotImplementedError, "no data"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_where_it_is_called(
    arguments: tuple[Any, Any, Any], error: type[Exception], sentence: str
) -> None:
    emissions = begun(3)
    with pytest.raises(error, match=sentence):
        emissions.emit(ME, *arguments)
    assert emissions.complete() == {}


def test_a_run_has_so_many_names_and_no_more() -> None:
    emissions = begun()
    for number in range(MAX_NAMES):
        emissions.emit(ME, f"name-{number}", 0, 1)
    with pytest.raises(ValueError, match="'more' would be the 17th metric of this run"):
        emissions.emit(ME, "more", 0, 1)
    emissions.emit(ME, "name-3", 1, 1)
    emissions.forget(ME.request_id)
    emissions.emit(ME, "more", 0, 1)


def test_between_two_passes_and_outside_of_a_block_nothing_can_be_emitted() -> None:
    emissions = begun()
    with pytest.raises(RuntimeError, match=r"Call it inside `with model.trace\(..., serve=URL\)`"):
        emissions.emit(None, "a", 0, 1)
    emissions.emit(ME, "a", 0, 1)
    assert emissions.complete() == {"run": {("a", 0): 1.0}}
    with pytest.raises(RuntimeError, match="came when the last pass of its run was over"):
        emissions.emit(ME, "a", 0, 1)
    emissions.begin({"another": 1})
    with pytest.raises(RuntimeError, match="came when the last pass of its run was over"):
        emissions.emit(ME, "a", 0, 1)


def test_a_step_that_was_never_sampled_leaves_nothing_to_the_next() -> None:
    emissions = begun()
    emissions.emit(ME, "a", 0, 1)
    emissions.begin({ME.request_id: 1})
    assert emissions.complete() == {}


def test_a_program_that_no_server_runs_is_told_so() -> None:
    with pytest.raises(RuntimeError, match="this one runs somewhere else"):
        live.emit("a", 0, 1)


def test_whoever_is_installed_is_handed_what_is_emitted() -> None:
    said: list[tuple[Any, ...]] = []
    live.install(lambda *one: said.append(one))
    try:
        live.emit("a", None, 2.0)
    finally:
        live.install(None)
    assert said == [("a", None, 2.0)]


def test_without_room_a_step_leaves_what_was_emitted_out_and_says_so() -> None:
    emissions = begun()
    emissions.emit(ME, "a", 0, 1)
    drawn = torch.zeros(1, dtype=torch.int64)
    blocks = [block("run", 0, 1)]
    taken = in_columns(emissions.complete(), blocks)
    step = DeviceStep(blocks, 0, drawn, drawn.float(), drawn, [], LAYERS, None, None, None, emitted=taken)
    step.leave_numbers_out()
    arrived = once_over_the_wire(step.arrive())
    assert (step.numbers, arrived.emitted, arrived.lost) == (0, None, True)


def test_a_part_of_an_entry_has_its_part_of_the_numbers() -> None:
    """Five rows, of which the last three have numbers, and one number for the last."""
    whole = Emitted(
        ["a", "b"], np.array([1, 1]), np.array([1, 0]), np.array([2, 5]), np.array([3, 1]),
        np.array([2, 3, 4, 9], dtype="<f2"),
    )  # fmt: skip
    lengths = np.array([1, 5])

    def part(begin: int, end: int) -> list[tuple[str, int, list[float]]]:
        cut = whole.part([(0, 0, 1), (1, begin, end)], lengths)
        return [] if cut is None else [(name, at, values.tolist()) for name, at, values in cut.of(1)]

    assert part(0, 2) == []
    assert part(0, 3) == [("b", 2, [2.0])]
    assert part(2, 4) == [("b", 2, [2.0, 3.0])]
    assert part(4, 5) == [("b", 2, [4.0]), ("a", 5, [9.0])]
    assert part(0, 5) == [("b", 2, [2.0, 3.0, 4.0]), ("a", 5, [9.0])]
