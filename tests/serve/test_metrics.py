"""Metrics: histograms count, gauges are read when asked for, and each application has its own."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from impart.errors import VideoIndexError
from impart.serve.metrics import Metrics


def samples(metrics: Metrics) -> dict[str, float]:
    return {
        sample.name + "".join(f"|{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text())
        for sample in family.samples
    }


def test_a_stage_is_timed_also_where_it_raises() -> None:
    metrics = Metrics()
    with pytest.raises(ZeroDivisionError), metrics.time("decode"):
        _ = 1 / 0
    metrics.observe("decode", 0.15)
    found = samples(metrics)
    assert found["impart_decode_seconds_count"] == 2
    assert found["impart_decode_seconds_bucket|0.1"] == 1
    assert found["impart_decode_seconds_bucket|0.2"] == 2
    assert found["impart_encode_seconds_count"] == 0


def test_two_applications_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.problem("video_not_found")
    first.request("GET", "/videos/{video_id}", 404, 0.01)
    assert samples(first)["impart_problems_total|video_not_found"] == 1
    assert samples(first)["impart_http_request_seconds_count|GET|/videos/{video_id}|4xx"] == 1
    assert "impart_problems_total|video_not_found" not in samples(second)


def test_a_gauge_is_read_when_asked_for_and_costs_nothing_else_where_it_fails() -> None:
    metrics, value = Metrics(), [1.0]
    metrics.gauge("jobs_running", "Jobs that run.", lambda: value[0])

    def fails() -> float:
        raise VideoIndexError("damaged")

    metrics.gauge("broken", "A gauge that fails.", fails)
    assert samples(metrics)["impart_jobs_running"] == 1
    value[0] = 3.0
    found = samples(metrics)
    assert found["impart_jobs_running"] == 3
    assert found["impart_broken"] != found["impart_broken"]
    assert found["process_resident_memory_bytes"] > 1e6
