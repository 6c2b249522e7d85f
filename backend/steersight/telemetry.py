"""What the server counts of itself, for Prometheus: all of `/metrics` is defined here and nowhere else.

One `Telemetry` is made with the application and handed to whoever has something to tell; each method is one
event in the words of the caller, so nobody else knows names, labels or buckets. The registry is its own, not
prometheus_client's global one: two applications in one process (tests) do not share their counts.

Labels only take values from closed sets. A close code or an error code that comes from outside and is not in
its set is counted as `other`, because every new label value is a time series that Prometheus keeps.

Prometheus wants seconds; callers here have milliseconds, as the wire does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from .protocol.close import CloseCode
from .protocol.messages import ErrorCode, Finished

REASONS: tuple[str, ...] = get_args(Finished.model_fields["reason"].annotation)
CLOSE_CODES = frozenset({1000, 1001, 1002, 1003, 1005, 1006, 1007, 1009, 1011, 1012, *map(int, CloseCode)})
ERROR_CODES = frozenset(code.value for code in ErrorCode)
OTHER = "other"

# From a step of a fast GPU to what a person calls stuck.
TOKEN_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FIRST_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
STEER_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
POSITION_BUCKETS = (0, 1, 2, 3, 4, 6, 8, 16, 32, 64)


class Frequent(Collector):  # type: ignore[misc]  # prometheus_client ships no types here
    """What is counted for every token and every frame.

    As plain numbers, and put into Prometheus' form when somebody asks: its own counters take a lock each
    time, and three of them for each token of a hundred runs were a fifth of all that the server did.
    """

    COUNTERS = (
        ("tokens", "steersight_tokens", "Tokens of replies"),
        ("rows", "steersight_rows", "Rows that reached their run"),
        ("rows_sent", "steersight_rows_sent", "Rows sent, once for each client that got them"),
        ("bytes_sent", "steersight_sent_bytes", "Bytes of frames sent"),
    )

    def __init__(self) -> None:
        self.tokens = self.rows = self.rows_sent = self.bytes_sent = 0
        self._pauses = [0] * (len(TOKEN_BUCKETS) + 1)
        self._paused = 0.0

    def pause(self, seconds: float) -> None:
        """Note one pause between two arrivals of tokens of one run."""
        self._pauses[bisect_left(TOKEN_BUCKETS, seconds)] += 1
        self._paused += seconds

    def collect(self) -> Iterable[Metric]:
        """All of it, as Prometheus takes it."""
        for attribute, name, words in self.COUNTERS:
            yield CounterMetricFamily(name, words, value=getattr(self, attribute))
        bounds = [*map(str, TOKEN_BUCKETS), "+Inf"]
        yield HistogramMetricFamily(
            "steersight_between_tokens_seconds",
            "Between two arrivals of tokens of one run at the server",
            buckets=list(zip(bounds, accumulate(self._pauses), strict=True)),
            sum_value=self._paused,
        )


class Telemetry:
    """The server's counts. Every method returns at once and never raises for a value from outside."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._frequent = Frequent()
        self.registry.register(self._frequent)
        self._restarts_told = 0
        self._define_state()
        self._define_runs()
        self._define_sockets()
        ProcessCollector(registry=self.registry)

    def render(self) -> bytes:
        """Everything in Prometheus' text format. Call `state` before: gauges show what they last heard."""
        text: bytes = generate_latest(self.registry)
        return text

    # ------------------------------------------------------------ what is so now, read when somebody asks

    def _define_state(self) -> None:
        registry = self.registry
        self._runs_live = Gauge(
            "steersight_runs_live", "Runs between started and finished", registry=registry
        )
        self._runs_queued = Gauge(
            "steersight_runs_queued", "Runs that wait for a place in the engine", registry=registry
        )
        self._engine_requests = Gauge(
            "steersight_engine_requests",
            "Requests that vLLM, NNsight or the observer still holds (the largest; -1: not known)",
            registry=registry,
        )
        self._engine_ready = Gauge(
            "steersight_engine_ready", "1 when the engine takes runs", registry=registry
        )
        self._steps_dropped = Gauge(
            "steersight_steps_dropped", "Steps whose rows the worker had to drop", registry=registry
        )
        self._kept_rows = Gauge(
            "steersight_kept_rows_bytes",
            "Rows of prompts that are kept for the next run that begins alike",
            registry=registry,
        )
        self._engine_restarts = Counter(
            "steersight_engine_restarts", "Times the engine was built again after a fault", registry=registry
        )

    def state(
        self,
        *,
        runs_live: int,
        runs_queued: int,
        engine_requests: int,
        engine_ready: bool,
        engine_restarts: int,
        steps_dropped: int,
        kept_rows_bytes: int,
    ) -> None:
        """What is so at this moment; told just before `render`, so that no gauge can drift."""
        self._runs_live.set(runs_live)
        self._runs_queued.set(runs_queued)
        self._engine_requests.set(engine_requests)
        self._engine_ready.set(engine_ready)
        self._engine_restarts.inc(engine_restarts - self._restarts_told)
        self._restarts_told = engine_restarts
        self._steps_dropped.set(steps_dropped)
        self._kept_rows.set(kept_rows_bytes)

    # ------------------------------------------------------------ runs

    def _define_runs(self) -> None:
        registry = self.registry
        self._runs_started = Counter("steersight_runs_started", "Runs admitted", registry=registry)
        self._runs_finished = Counter(
            "steersight_runs_finished", "Runs that ended, by reason", ["reason"], registry=registry
        )
        for reason in REASONS:
            self._runs_finished.labels(reason)
        self._prompt_tokens = Counter(
            "steersight_prompt_tokens", "Tokens of prompts that the engine has read", registry=registry
        )
        self._cached_tokens = Counter(
            "steersight_cached_tokens",
            "Those of them that the engine had in its cache and did not compute",
            registry=registry,
        )
        self._steps = Counter(
            "steersight_steps", "Engine steps whose rows reached the server", registry=registry
        )
        self._rows_dropped = Counter(
            "steersight_rows_dropped", "Rows lost between engine and server, for good", registry=registry
        )
        self._rows_trimmed = Counter(
            "steersight_rows_trimmed",
            "Rows of live runs that were let go because all together held too much memory",
            registry=registry,
        )
        self._first_token = Histogram(
            "steersight_first_token_seconds",
            "From a start frame to the first token of its reply",
            buckets=FIRST_BUCKETS,
            registry=registry,
        )
        self._steers = Counter(
            "steersight_steers", "Changes of steering handed to the engine", registry=registry
        )
        self._steer_positions = Histogram(
            "steersight_steer_positions",
            "Positions between the newest when a change was asked for and the first row computed with it",
            buckets=POSITION_BUCKETS,
            registry=registry,
        )
        self._steer_seconds = Histogram(
            "steersight_steer_seconds",
            "From a steer frame to the first row computed with it",
            buckets=STEER_BUCKETS,
            registry=registry,
        )

    def run_started(self) -> None:
        """A run was admitted, whether it waits or begins."""
        self._runs_started.inc()

    def run_finished(self, reason: str, first_token_ms: float | None) -> None:
        """A run has ended; `first_token_ms` is that of its `timing`, None when no token was written."""
        self._runs_finished.labels(reason if reason in REASONS else OTHER).inc()
        if first_token_ms is not None:
            self._first_token.observe(first_token_ms / 1e3)

    def prompt_read(self, tokens: int, cached: int) -> None:
        """The engine has read a prompt of so many tokens, so many of them from its cache."""
        self._prompt_tokens.inc(tokens)
        self._cached_tokens.inc(cached)

    def tokens_written(self, count: int, since_last_ms: float | None) -> None:
        """`count` tokens of one run arrived together, so long after those before; None for the first ones.

        One observation per arrival, however many tokens it brings: it is the pause that a reader sees.
        """
        self._frequent.tokens += count
        if since_last_ms is not None:
            self._frequent.pause(since_last_ms / 1e3)

    def step_arrived(self) -> None:
        """One engine step's message has come out of the worker."""
        self._steps.inc()

    def rows_written(self, count: int) -> None:
        """So many rows were put into a run's log."""
        self._frequent.rows += count

    def rows_dropped(self, count: int) -> None:
        """So many rows will never come: a `gap` that is not `kept`."""
        self._rows_dropped.inc(count)

    def rows_trimmed(self, count: int) -> None:
        """So many of the oldest rows of live runs were let go; who has not had them gets a `gap`."""
        self._rows_trimmed.inc(count)

    def steered(self) -> None:
        """A new revision was handed to the engine."""
        self._steers.inc()

    def steer_applied(self, positions: int, ms: float) -> None:
        """The first row of a revision is here.

        Args:
            positions: its position, less the newest position that had a token when the change was asked for.
            ms: since the change was asked for.
        """
        self._steer_positions.observe(positions)
        self._steer_seconds.observe(ms / 1e3)

    # ------------------------------------------------------------ connections

    def _define_sockets(self) -> None:
        registry = self.registry
        self._open = Gauge("steersight_connections_open", "WebSockets open now", registry=registry)
        self._opened = Counter("steersight_connections_opened", "WebSockets accepted", registry=registry)
        self._closed = Counter(
            "steersight_connections_closed", "WebSockets ended, by close code", ["code"], registry=registry
        )
        self._resumes = Counter(
            "steersight_resumes", "Requests to go on with a run, by answer", ["answer"], registry=registry
        )
        for answer in ("ok", "refused"):
            self._resumes.labels(answer)
        self._refused = Counter(
            "steersight_refused", "Error frames sent, by error code", ["code"], registry=registry
        )
        for code in ErrorCode:
            self._refused.labels(code.value)
        self._rows_skipped = Counter(
            "steersight_rows_skipped",
            "Rows skipped for clients that read too slowly; they may ask again",
            registry=registry,
        )
        self._bytes_received = Counter(
            "steersight_received_bytes", "Bytes of frames received", registry=registry
        )

    def connection_opened(self) -> None:
        """A WebSocket was accepted."""
        self._open.inc()
        self._opened.inc()

    def connection_closed(self, code: int) -> None:
        """It has ended: with the server's code, the client's, or 1006 when it just was gone."""
        self._open.dec()
        self._closed.labels(str(code) if code in CLOSE_CODES else OTHER).inc()

    def frames_sent(self, size: int) -> None:
        """Frames of `size` bytes together were handed to the transport."""
        self._frequent.bytes_sent += size

    def frame_received(self, size: int) -> None:
        """One frame of `size` bytes has come, good or bad."""
        self._bytes_received.inc(size)

    def rows_sent(self, count: int) -> None:
        """So many rows were sent to one client; their bytes are told with `frames_sent`."""
        self._frequent.rows_sent += count

    def rows_skipped(self, count: int) -> None:
        """So many rows were skipped for one slow client: a `gap` that is `kept`."""
        self._rows_skipped.inc(count)

    def resumed(self, *, ok: bool) -> None:
        """A client asked to go on with a run."""
        self._resumes.labels("ok" if ok else "refused").inc()

    def refused(self, code: str) -> None:
        """An `error` frame with this code was sent."""
        self._refused.labels(code if code in ERROR_CODES else OTHER).inc()
