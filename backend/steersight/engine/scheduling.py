"""vLLM's scheduler, with a cache of prefixes that knows what acted on them.

What vLLM keeps of a prompt that it has read, so that nobody needs to read it again, is keyed by the prompt's
tokens. That is wrong here as soon as somebody steers: the same tokens, pushed, leave another trace in every
later layer. So a block's key holds its tokens *and what acted on each of them*. Who is not steered has the
keys that vLLM gives, and shares; who steers only replies shares the prompt; a slider moved in mid-run changes
the keys of the blocks from there on, and no run that was computed otherwise finds them.

Which revision a position is computed with is decided in the worker, by the step that a change lands before
(`run_state.py`). The scheduler must come to the same answer, so it keeps the same `RunStates`, and hears of a
change where the workers are told: in vLLM's engine process, between two steps, before the next is scheduled.
All steps scheduled until then have been handed to the workers, in this order; so the first position that
the workers have not begun is the first that is not scheduled (`ahead` below).

That this holds is not only reasoned: each worker keeps what acted on the blocks that it has computed, and
fails a run that is about to read one that was computed otherwise (`ledger.py`).

vLLM imports this module by name in its engine process, and nothing else does. For vLLM 0.32.0, whose
scheduler is no public interface.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core.kv_cache_utils import generate_block_hash_extra_keys, hash_block_tokens
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.core import EngineCore

from ..vectors.action import Action, acting
from .errors import ERROR
from .request import RunOptions
from .run_state import Revision, RunStates
from .submission import OPTIONS_KEY
from .tokenizer import tokenizer_for
from .whole_prompts import TRACED, WholePrompts

if TYPE_CHECKING:
    from vllm.v1.request import Request

logger = logging.getLogger(__name__)

STEER = "steersight_steer"
"""The workers' method that changes what acts on a run."""


class DeedKeys:
    """The keys of blocks, from their tokens and from what acted on each."""

    def __init__(self, block_size: int, hash_name: str, tokenizer: Any = None) -> None:
        """
        Args:
            block_size: tokens of a block.
            hash_name: vLLM's name of the function that makes keys.
            tokenizer: of a model that thinks, as transformers has it; None for one that does not.
        """
        self.states = RunStates(tokenizer)
        self._size = block_size
        self._hash: Callable[[Any], bytes] = get_hash_fn_by_name(hash_name)

    def of(self, request: Request) -> list[Any]:
        """The keys of a request's full blocks that it does not have yet."""
        state = self.states.get(request.request_id)
        if state is not None and (parts := state.parts) is not None and not parts.settled:
            # All that is in a full block is known, and so what acted on it.
            parts.tell_all(parts.known, request.all_token_ids[parts.known :])
        found = []
        parent = request.block_hashes[-1] if request.block_hashes else None
        first = len(request.block_hashes) * self._size
        for start in range(first, request.num_tokens - self._size + 1, self._size):
            end = start + self._size
            extra, _ = generate_block_hash_extra_keys(request, start, end, 0)
            deeds = "" if state is None else state.deeds(start, end)
            if deeds:
                extra = (*(extra or ()), ("steersight", deeds))
            parent = hash_block_tokens(self._hash, parent, request.all_token_ids[start:end], extra)
            found.append(parent)
        return found

    def renew(self, request: Request, ahead: int = 0) -> None:
        """Make the keys of all blocks anew that are not computed before position `ahead`."""
        del request.block_hashes[ahead // self._size :]
        request.update_block_hashes()


class Deeds:
    """Mixed into a scheduler of vLLM's: its cache of prefixes knows what acted on them."""

    requests: dict[str, Request]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config: Any = self.vllm_config.cache_config  # type: ignore[attr-defined]
        self._keys: DeedKeys | None = None
        if config.enable_prefix_caching:
            size: int = self.hash_block_size  # type: ignore[attr-defined]
            tokenizer = tokenizer_for(self.vllm_config)  # type: ignore[attr-defined]
            self._keys = DeedKeys(size, config.prefix_caching_hash_algo, tokenizer)
            self._limit_what_is_read()
        scheduler: Any = self
        self._whole = WholePrompts(scheduler)
        self._names: dict[str, str] = {}  # of live runs: vLLM's ids
        self._read_most: dict[str, int] = {}  # by vLLM's ids
        self._forgotten = 0

    def _limit_what_is_read(self) -> None:
        """Have a run read no more of the cache than it wants: what it wants to see has to be computed.

        vLLM looks once, when it first schedules a request, and would take all that it finds.
        """
        manager: Any = self.kv_cache_manager  # type: ignore[attr-defined]
        look_up, find = manager.get_computed_blocks, manager.coordinator.find_longest_cache_hit
        most: int | None = None

        def found(block_hashes: Any, length: int) -> Any:
            return find(block_hashes, length if most is None else min(length, most))

        def looked_up(request: Request) -> Any:
            nonlocal most
            # What it has computed itself before it was thrown out, it may read.
            most = None if request.num_preemptions else self._read_most.get(request.request_id)
            try:
                return look_up(request)
            finally:
                most = None

        manager.get_computed_blocks, manager.coordinator.find_longest_cache_hit = looked_up, found

    def add_request(self, request: Request) -> None:
        if self._keys is not None and request.request_id not in self.requests:
            self._take_up(self._keys, request)
        self._whole.note(request)
        super().add_request(request)  # type: ignore[misc]

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        with self._whole.in_turn():
            return super().schedule(*args, **kwargs)  # type: ignore[misc]

    def _take_up(self, keys: DeedKeys, request: Request) -> None:
        """Give a new request its keys."""
        extra = (request.sampling_params and request.sampling_params.extra_args) or {}
        known = not any(key in extra for key in TRACED)
        if OPTIONS_KEY in extra:
            try:
                options = RunOptions.from_wire(extra[OPTIONS_KEY])
                keys.states.add(request.request_id, options, acting(options.actions))
                self._names[options.run] = request.request_id
                if options.read_most is not None:
                    self._read_most[request.request_id] = options.read_most
            except Exception:
                # The workers will say so, and the server ends the run. Nothing may raise in here.
                logger.exception("The options of request %s cannot be read", request.request_id)
                known = False
        if not known:
            # Nobody knows what a block of code does to the activations: its cache is its own.
            request.cache_salt = uuid.uuid4().hex
        elif self._forgotten:
            request.cache_salt = f"{request.cache_salt or ''}{self._forgotten}"
        request._block_hasher = keys.of
        state = keys.states.get(request.request_id)
        if request.cache_salt or (state is not None and state.deeds(0, request.num_tokens)):
            keys.renew(request)  # else they are those that vLLM has made already

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        self._note_ahead(request)
        super()._preempt_request(request, *args, **kwargs)  # type: ignore[misc]

    def _note_ahead(self, request: Request) -> int:
        """The first position of a run that has not been scheduled. One that was, and was thrown away with its
        cache, is computed again as it was."""
        state = self._keys and self._keys.states.get(request.request_id)
        if not state:
            return 0
        state.next_position = max(state.next_position, request.num_computed_tokens)
        return state.next_position

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        freed = super()._free_request(request, *args, **kwargs)  # type: ignore[misc]
        state = self._keys and self._keys.states.get(request.request_id)
        if self._keys is not None and state:
            self._keys.states.remove(request.request_id)
            self._names.pop(state.run, None)
        self._read_most.pop(request.request_id, None)
        self._whole.forget(request)
        return freed

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        """Whatever is in the cache, nobody reads it any more.

        vLLM's own empties it, and cannot while requests are live. Here new requests get keys of their own
        instead, and what has the old ones leaves the cache as the oldest.
        """
        self._forgotten += 1
        return True

    def steered(self, run: str, rev: int, actions: Sequence[Any], done: bool) -> None:
        """The workers have been told what acts on a run from its next position on.

        Args:
            run: its name.
            rev: number of the state.
            actions: maps, as the workers got them.
            done: whether all of them could do it.
        """
        if self._keys is None:
            return
        # What some ranks did and others did not has no name: nobody else may ever read of it.
        known = tuple(map(Action.from_map, actions)) if done else (Action(f"?{uuid.uuid4().hex}", 1.0),)
        request = self.requests.get(self._names.get(run, ""))
        ahead = 0 if request is None else self._note_ahead(request)
        self._keys.states.steer(run, Revision(rev, acting(known)))
        if request is not None:
            self._keys.renew(request, ahead)


class DeedScheduler(Deeds, Scheduler):  # type: ignore[misc]
    """Where each step is scheduled when the one before has ended."""


class DeedAsyncScheduler(Deeds, AsyncScheduler):  # type: ignore[misc]
    """Where the next step is scheduled while one is computed."""


def scheduler(*, vllm_config: Any, **more: Any) -> Any:
    """The scheduler for an engine: vLLM decides late whether it schedules ahead, and this is called then."""
    ahead = vllm_config.scheduler_config.async_scheduling
    return (DeedAsyncScheduler if ahead else DeedScheduler)(vllm_config=vllm_config, **more)


_collective_rpc: Callable[..., list[Any]] = EngineCore.collective_rpc


@functools.wraps(_collective_rpc)
def _told(
    core: Any, method: Any, timeout: float | None = None, args: Sequence[Any] = (), kwargs: Any = None
) -> list[Any]:
    """`EngineCore.collective_rpc`, through which everything goes that the workers are told; the scheduler
    hears what concerns it, and no later than before the next step. vLLM 0.32 has no door for that."""
    if method != STEER:
        return _collective_rpc(core, method, timeout, tuple(args), kwargs)
    done = False
    try:
        answers = _collective_rpc(core, method, timeout, tuple(args), kwargs)
        done = not any(isinstance(answer, dict) and ERROR in answer for answer in answers)
    finally:
        core.scheduler.steered(*args, done=done)
    return answers


EngineCore.collective_rpc = _told
