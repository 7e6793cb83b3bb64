"""Rates: a client may send a burst, then as many as the rate allows; memory is bounded; thumbnails cost little."""

from __future__ import annotations

from pathlib import Path

from helpers.served import client_of
from impart.serve.safety.rates import Buckets
from impart.serve.safety.rates import client_of as address_of


def test_a_bucket_fills_at_its_rate() -> None:
    now = [0.0]
    buckets = Buckets(per_s=2, burst=4, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(6)] == [0, 0, 0, 0, 0.5, 0.5]
    assert buckets.take("b") == 0  # another client
    now[0] = 1.0
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]
    now[0] = 1000.0
    assert sum(buckets.take("a") == 0 for _ in range(10)) == 4  # never more than the burst


def test_the_most_recent_clients_are_remembered_and_no_more() -> None:
    buckets = Buckets(per_s=1, burst=1, most=100, clock=lambda: 0.0)
    buckets.take("kept")
    for i in range(10_000):
        buckets.take(f"client {i}")
        assert buckets.take("kept") == 1  # used all the time, so never forgotten
    assert len(buckets) == 100


def test_addresses_of_one_ipv6_network_are_one_client() -> None:
    assert address_of({"client": ("2001:db8:1:2::1", 1)}) == address_of({"client": ("2001:db8:1:2:ffff::", 2)})
    assert address_of({"client": ("2001:db8:1:3::1", 1)}) != address_of({"client": ("2001:db8:1:2::1", 1)})
    assert address_of({"client": ("::ffff:192.0.2.7", 1)}) == address_of({"client": ("192.0.2.7", 1)})
    assert address_of({"client": None}) == ""


def test_too_many_requests_are_refused_with_the_time_to_wait(tmp_path: Path) -> None:
    client = client_of(tmp_path / "none.impart", requests_per_s=1.0)
    answers = [client.get("/api/v1/videos") for _ in range(13)]
    assert [answer.status_code for answer in answers[:10]] == [200] * 10
    last = answers[-1]
    assert (last.status_code, last.json()["code"], last.headers["Retry-After"]) == (429, "too_many_requests", "1")


def test_a_page_of_thumbnails_costs_little(tmp_path: Path) -> None:
    client = client_of(tmp_path / "none.impart", requests_per_s=1.0)
    codes = [client.get(f"/api/v1/frames/{'0' * 16}.webp?t={i}").status_code for i in range(90)]
    assert 429 not in codes
    assert client.get("/static/js/main.js").status_code == 200
