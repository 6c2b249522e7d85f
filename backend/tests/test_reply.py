"""What of a run's steps is its reply, however steps, confirmations and the end interleave."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steersight.engine.reply import Ends, Entry, Reply
from steersight.engine.step import BARE, NO_TOKEN

PROMPT = 5


def entry(end: int, token: int, rows: int = 1) -> Entry:
    return Entry(end - rows, [0] * rows, token, -1.0, 1, None, BARE, 0)


def steps(ids: list[int], prompt_rows: int = PROMPT) -> list[Entry]:
    """What a worker sends that writes these tokens: the prompt's pass, and one per token but the last."""
    return [entry(PROMPT, ids[0], prompt_rows), *(entry(PROMPT + n, ids[n]) for n in range(1, len(ids)))]


def tokens(released: list[Entry]) -> list[int]:
    return [one.token for one in released if one.token != NO_TOKEN]


def rows(released: list[Entry]) -> list[int]:
    return [position for one in released for position in range(one.start, one.end)]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12), st.frozensets(st.integers(0, 9), max_size=3),
    st.integers(1, 12), st.integers(0, PROMPT),
)  # fmt: skip
def test_vllms_rule_ends_a_reply_at_once(
    ids: list[int], ends: frozenset[int], most: int, prompt_rows: int
) -> None:
    """A worker that goes on behind the end adds nothing, whatever it computes."""
    last = next((n + 1 for n, token in enumerate(ids) if token in ends), len(ids))
    expected = ids[: min(last, most)]
    over = last < len(ids) or ids[-1] in ends or most <= len(ids)
    reply = Reply(PROMPT, Ends(ends, most))
    released: list[Entry] = []
    for one in steps(ids, prompt_rows):
        fresh = reply.take(one)
        released += fresh
        # Never a row whose token is not here.
        assert all(row <= PROMPT + reply.tokens - 2 for row in rows(fresh))
    assert tokens(released) == expected
    assert reply.over == over
    assert rows(released) == list(range(PROMPT - prompt_rows, PROMPT + len(expected) - 1))
    assert reply.finish(expected) == []


@given(st.data())
def test_with_stop_strings_nothing_is_released_before_it_is_confirmed(data: st.DataObject) -> None:
    computed = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
    length = data.draw(st.integers(1, len(computed)))
    reply = Reply(PROMPT, None)
    waiting, released, told = steps(computed), [], 0
    while waiting or told < length:
        if waiting and (told == length or data.draw(st.booleans())):
            released += reply.take(waiting.pop(0))
        else:
            told = data.draw(st.integers(told + 1, length))
            released += reply.confirm(told)
        assert len(tokens(released)) <= told
    released += reply.finish(computed[:length])
    assert tokens(released) == computed[:length]
    assert rows(released) == list(range(PROMPT + length - 1))
    assert reply.take(entry(PROMPT + len(computed), 1)) == []


@given(st.lists(st.integers(0, 9), min_size=1, max_size=10), st.data())
def test_steps_that_never_came_cost_rows_and_no_token(ids: list[int], data: st.DataObject) -> None:
    """What a step says is lost with it; the tokens are known at the end, in order and once."""
    reply = Reply(PROMPT, Ends(frozenset(), len(ids)))
    kept = [one for one in steps(ids) if data.draw(st.booleans())]
    released = [some for one in kept for some in reply.take(one)]
    released += reply.finish(ids)
    assert tokens(released) == ids
    assert rows(released) == sorted(set(rows(released)))


def test_a_prompt_in_pieces_is_released_as_it_comes() -> None:
    reply = Reply(PROMPT, Ends(frozenset(), 4))
    pieces = [entry(2, NO_TOKEN, rows=2), entry(4, NO_TOKEN, rows=2), entry(5, 7, rows=1)]
    assert [rows(reply.take(piece)) for piece in pieces] == [[0, 1], [2, 3], [4]]
    assert reply.tokens == 1


def test_what_is_computed_again_after_a_preemption_says_no_token_twice() -> None:
    reply = Reply(PROMPT, Ends(frozenset(), 9))
    for one in steps([3, 4, 5]):
        reply.take(one)
    (again,) = reply.take(entry(PROMPT + 1, 4, rows=0))
    assert again.token == NO_TOKEN
    assert tokens(reply.take(entry(PROMPT + 3, 6))) == [6]
