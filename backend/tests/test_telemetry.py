"""The counts behind /metrics: each event moves what it should, nothing from outside makes a time series."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from steersight.config import REPOSITORY
from steersight.protocol.close import CloseCode
from steersight.protocol.messages import ErrorCode
from steersight.telemetry import CLOSE_CODES, REASONS, Telemetry

DASHBOARD = REPOSITORY / "docker/grafana/steersight.json"


@pytest.fixture
def told() -> Telemetry:
    return Telemetry()


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    found: float | None = telemetry.registry.get_sample_value(f"steersight_{name}", labels)
    return found


def test_the_gauges_show_what_they_were_last_told(told: Telemetry) -> None:
    told.state(
        runs_live=3, runs_queued=2, engine_requests=4, engine_ready=True, engine_restarts=1, steps_dropped=1,
        kept_rows_bytes=9,
    )  # fmt: skip
    told.state(
        runs_live=1, runs_queued=0, engine_requests=2, engine_ready=False, engine_restarts=3, steps_dropped=5,
        kept_rows_bytes=4,
    )  # fmt: skip
    text = told.render().decode()
    for line in (
        "steersight_runs_live 1.0",
        "steersight_runs_queued 0.0",
        "steersight_engine_requests 2.0",
        "steersight_engine_ready 0.0",
        "steersight_steps_dropped 5.0",
        "steersight_engine_restarts_total 3.0",
        "steersight_kept_rows_bytes 4.0",
    ):
        assert f"\n{line}\n" in text


def test_a_run_from_start_to_end(told: Telemetry) -> None:
    told.run_started()
    told.tokens_written(1, None)
    told.tokens_written(2, 80.0)
    told.step_arrived()
    told.rows_written(7)
    told.rows_dropped(2)
    told.rows_trimmed(256)
    told.prompt_read(100, 64)
    told.prompt_read(20, 0)
    told.run_finished("stop", 250.0)
    told.run_finished("cancelled", None)
    assert value(told, "runs_started_total") == 1
    assert value(told, "runs_finished_total", reason="stop") == 1
    assert value(told, "runs_finished_total", reason="cancelled") == 1
    assert value(told, "runs_finished_total", reason="error") == 0
    assert value(told, "tokens_total") == 3
    assert value(told, "steps_total") == 1
    assert value(told, "rows_total") == 7
    assert value(told, "rows_dropped_total") == 2
    assert value(told, "rows_trimmed_total") == 256
    assert value(told, "prompt_tokens_total") == 120
    assert value(told, "cached_tokens_total") == 64
    assert value(told, "between_tokens_seconds_count") == 1
    assert value(told, "between_tokens_seconds_sum") == pytest.approx(0.08)
    assert value(told, "first_token_seconds_count") == 1
    assert value(told, "first_token_seconds_sum") == pytest.approx(0.25)


def test_steering_is_timed_in_positions_and_seconds(told: Telemetry) -> None:
    told.steered()
    told.steer_applied(1, 63.0)
    told.steer_applied(40, 2600.0)
    assert value(told, "steers_total") == 1
    assert value(told, "steer_positions_bucket", le="1.0") == 1
    assert value(told, "steer_positions_bucket", le="64.0") == 2
    assert value(told, "steer_seconds_bucket", le="0.1") == 1
    assert value(told, "steer_seconds_count") == 2


def test_a_connection(told: Telemetry) -> None:
    told.connection_opened()
    told.connection_opened()
    told.connection_closed(int(CloseCode.TOO_SLOW))
    told.frames_sent(100)
    told.frame_received(20)
    told.rows_sent(4)
    told.rows_skipped(3)
    told.resumed(ok=True)
    told.resumed(ok=False)
    told.refused(ErrorCode.BUSY)
    assert value(told, "connections_open") == 1
    assert value(told, "connections_opened_total") == 2
    assert value(told, "connections_closed_total", code="4508") == 1
    assert value(told, "sent_bytes_total") == 100
    assert value(told, "received_bytes_total") == 20
    assert value(told, "rows_sent_total") == 4
    assert value(told, "rows_skipped_total") == 3
    assert value(told, "resumes_total", answer="ok") == 1
    assert value(told, "resumes_total", answer="refused") == 1
    assert value(told, "refused_total", code="busy") == 1


def test_what_comes_from_outside_makes_no_time_series(told: Telemetry) -> None:
    for code in range(3000, 5000):
        told.connection_closed(code)
    for number in range(100):
        told.refused(f"made up {number}")
        told.run_finished(f"made up {number}", None)
    series = {
        metric.name: {sample.labels[label] for sample in metric.samples for label in sample.labels}
        for metric in told.registry.collect()
        if metric.name.startswith("steersight_")
    }
    assert series["steersight_connections_closed"] <= {*map(str, CLOSE_CODES), "other"}
    assert series["steersight_refused"] == {*ErrorCode, "other"}
    assert series["steersight_runs_finished"] == {*REASONS, "other"}


def test_two_applications_do_not_share_their_counts(told: Telemetry) -> None:
    told.run_started()
    assert value(Telemetry(), "runs_started_total") == 0


# ---------------------------------------------------------------- the dashboard


def expressions(node: Any) -> Iterator[str]:
    """Every query of the dashboard, wherever it stands."""
    if isinstance(node, dict):
        for key, inner in node.items():
            if key == "expr":
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from expressions(inner)


def known_names(telemetry: Telemetry) -> set[str]:
    """Names of all time series, also of metrics whose labels have had no value yet."""
    names: set[str] = set()
    for metric in telemetry.registry.collect():
        suffixes = {
            "counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"],
        }[metric.type]  # fmt: skip
        names.update(metric.name + suffix for suffix in suffixes)
    return names


def test_the_dashboard_asks_for_metrics_that_exist(told: Telemetry) -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked = list(expressions(dashboard))
    assert len(asked) >= 20
    known = known_names(told)
    used = set()
    for query in asked:
        names = set(re.findall(r"\b(?:steersight|process)_[a-z_]+", query))
        assert names, f"a query without a metric: {query}"
        assert names <= known, f"{query} names {names - known}"
        used |= names
    own = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known if name.startswith("steersight_")}
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in used}
    assert own <= shown, f"no panel shows {own - shown}"


def test_panels_have_names_and_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, f"{panel['title']} lies on another panel"
        taken |= cells
