"""What acted on a stretch of tokens, the keys of blocks that are made of it, and the ledger that holds them
against what was computed: all without an engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.request import Request

from steersight.engine.ledger import BlockLedger, ReadOtherwiseError
from steersight.engine.request import RunOptions
from steersight.engine.run_state import Revision, RunState
from steersight.engine.scheduling import DeedKeys
from steersight.vectors.action import Action

HASH = "sha256"
BLOCK = 4

actions = st.builds(
    Action,
    vector=st.sampled_from("vw"),
    strength=st.sampled_from([0.1, 0.2]),
    start=st.integers(1, 12),
    end=st.none() | st.integers(1, 24),
)
revisions = st.lists(
    st.tuples(st.integers(1, 8), st.lists(actions, max_size=2, unique_by=lambda action: action.vector)),
    min_size=1,
    max_size=4,
)
"""(tokens until the next change, what acts meanwhile)"""


def make_state(changes: list[tuple[int, list[Action]]]) -> RunState:
    (_, first), *rest = changes
    state = RunState.begin(RunOptions("run"), tuple(first))
    for rev, ((tokens, _), (_, after)) in enumerate(zip(changes, rest, strict=False), 1):
        state.next_position += tokens
        state.steer(Revision(rev, tuple(after)))
    return state


def by_token(state: RunState, start: int, end: int) -> list[set[object]]:
    """The same said at length: what is done to each token."""
    return [
        {
            action.deed
            for action in state.revision_at(position).actions
            if action.start <= position and position >= 1 and (action.end is None or position < action.end)
        }
        for position in range(start, end)
    ]


@given(revisions, revisions, st.integers(0, 20), st.integers(1, 8))
def test_deeds_are_equal_exactly_where_every_token_is_steered_alike(
    mine: list[tuple[int, list[Action]]], theirs: list[tuple[int, list[Action]]], start: int, count: int
) -> None:
    one, other = make_state(mine), make_state(theirs)
    same = by_token(one, start, start + count) == by_token(other, start, start + count)
    assert (one.deeds(start, start + count) == other.deeds(start, start + count)) is same
    assert (one.deeds(start, start + count) == "") is (not any(by_token(one, start, start + count)))


def test_a_vector_is_known_by_its_number_and_not_by_its_id() -> None:
    """An id may be another vector's tomorrow, and the retired one has another name in the worker."""
    first, second, renamed = (
        make_state([(1, [Action(name, 0.5, serial=serial)])])
        for name, serial in (("v", 1), ("v", 2), ("v@1", 1))
    )
    assert first.deeds(0, 4) != second.deeds(0, 4)
    assert first.deeds(0, 4) == renamed.deeds(0, 4)


def request(tokens: list[int], name: str = "r") -> Request:
    hash_function = get_hash_fn_by_name(HASH)
    init_none_hash(hash_function)
    return Request(
        request_id=name, prompt_token_ids=tokens, sampling_params=SamplingParams(max_tokens=8),
        pooling_params=None, block_hasher=get_request_block_hasher(BLOCK, hash_function),
    )  # fmt: skip


def keyed(keys: DeedKeys, name: str, acting: tuple[Action, ...] = (), tokens: int = 16) -> Request:
    found = request(list(range(tokens)), name)
    keys.states.add(name, RunOptions(name), acting)
    found._block_hasher = keys.of
    keys.renew(found)
    return found


def test_who_is_not_steered_has_the_keys_of_vllm() -> None:
    assert keyed(DeedKeys(BLOCK, HASH), "r").block_hashes == request(list(range(16))).block_hashes


def test_who_steers_the_reply_shares_the_prompt() -> None:
    keys = DeedKeys(BLOCK, HASH)
    plain = keyed(keys, "a").block_hashes
    reply = keyed(keys, "b", (Action("v", 0.5, start=9),)).block_hashes
    prompt = keyed(keys, "c", (Action("v", 0.5, end=9),)).block_hashes
    assert [one == other for one, other in zip(plain, reply, strict=True)] == [True, True, False, False]
    # What a block's tokens attend to is in its key: the chain parts for good.
    assert not any(one == other for one, other in zip(plain, prompt, strict=True))


def test_a_change_makes_other_keys_from_the_first_position_on_that_is_not_computed() -> None:
    keys = DeedKeys(BLOCK, HASH)
    run = keyed(keys, "r")
    before = list(run.block_hashes)
    state = keys.states.get("r")
    assert state is not None
    state.next_position = 10
    keys.states.steer("r", Revision(1, (Action("v", 0.5),)))
    keys.renew(run, 10)
    assert run.block_hashes[:2] == before[:2]
    assert not set(run.block_hashes[2:]) & set(before)
    # Another run that was steered there from the beginning finds them.
    assert keyed(keys, "s", (Action("v", 0.5, start=10),)).block_hashes == run.block_hashes


def test_keys_follow_the_reply() -> None:
    keys = DeedKeys(BLOCK, HASH)
    run = keyed(keys, "r", (Action("v", 0.5, start=12),), tokens=10)
    assert len(run.block_hashes) == 2
    run.append_output_token_ids(list(range(10, 16)))
    assert run.block_hashes == keyed(keys, "s", (Action("v", 0.5, start=12),)).block_hashes


# ------------------------------------------------------------ the ledger


def acted(*steered: Action) -> RunState:
    return RunState.begin(RunOptions("run"), steered)


Part = tuple[str, RunState | None, int, int, list[int]]
"""One request's part of a step: its name, its run, first position, positions, blocks."""


def step(ledger: BlockLedger, *parts: Part) -> None:
    ledger.begin()
    for _, state, start, count, blocks in parts:
        ledger.compute(None if state is None else state.deeds, start, count, blocks)
    for name, state, start, _, blocks in parts:
        ledger.read(name, None if state is None else state.deeds, start, blocks)


def test_what_was_computed_alike_is_read() -> None:
    ledger = BlockLedger(BLOCK)
    v = Action("v", 0.5, start=6)
    step(ledger, ("a", acted(v), 0, 9, [7, 8, 9]))
    # The first block is the same for those who are not steered.
    step(ledger, ("b", acted(v), 8, 2, [7, 8, 5]), ("c", acted(), 4, 2, [7, 6]))


def test_what_is_computed_in_the_same_step_is_read() -> None:
    """Of two prompts that begin alike, in whatever order the batch has them."""
    ledger = BlockLedger(BLOCK)
    step(ledger, ("b", acted(), 4, 2, [7, 6]), ("a", acted(), 0, 5, [7, 8]))


@pytest.mark.parametrize(
    ("reader", "until"), [(acted(), 8), (acted(Action("v", 0.4, start=6)), 8), (acted(Action("v", 0.5)), 4)]
)
def test_what_was_computed_otherwise_is_not_read(reader: RunState, until: int) -> None:
    ledger = BlockLedger(BLOCK)
    step(ledger, ("a", acted(Action("v", 0.5, start=6)), 0, 9, [7, 8, 9]))
    with pytest.raises(ReadOtherwiseError, match="other steering"):
        step(ledger, ("b", reader, until, 1, [7, 8, 5]))


def test_a_block_that_is_filled_in_the_course_of_a_reply_is_known() -> None:
    ledger = BlockLedger(BLOCK)
    state = acted()
    for position in range(6):
        step(ledger, ("a", state, position, 1, [3, 4]))
        state.next_position = position + 1
        if position == 2:
            state.steer(Revision(1, (Action("v", 0.5),)))
    with pytest.raises(ReadOtherwiseError):
        step(ledger, ("b", acted(), 4, 1, [3, 9]))
    step(ledger, ("c", acted(Action("v", 0.5, start=3)), 4, 1, [3, 9]))


def test_a_run_that_comes_back_is_checked_again() -> None:
    ledger = BlockLedger(BLOCK)
    v = acted(Action("v", 0.5))
    step(ledger, ("a", v, 0, 5, [3, 4]))
    ledger.leave("a")
    step(ledger, ("other", acted(), 0, 5, [3, 8]))  # its block was given to somebody else
    with pytest.raises(ReadOtherwiseError):
        step(ledger, ("a", v, 4, 1, [3, 9]))


@pytest.mark.parametrize("how", ["failed before", "failed in the step"])
def test_nobody_reads_what_a_run_left_that_went_wrong(how: str) -> None:
    ledger = BlockLedger(BLOCK)
    step(ledger, ("a", None if how == "failed before" else acted(), 0, 5, [3, 4]))
    if how == "failed in the step":
        ledger.spoil()
    with pytest.raises(ReadOtherwiseError):
        step(ledger, ("b", acted(), 4, 1, [3, 9]))
