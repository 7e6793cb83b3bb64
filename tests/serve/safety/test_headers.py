"""Headers: on every answer, also of refused requests and failures; JSON is not stored, nothing foreign loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from helpers.served import TOKEN, client_of

EXPECTED = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


def check(headers: dict[str, str]) -> None:
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert "unsafe" not in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    for name, value in EXPECTED.items():
        assert headers[name] == value
    assert "camera=()" in headers["permissions-policy"]


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/", "127.0.0.1", 200),
        ("/static/css/page.css", "127.0.0.1", 200),
        ("/api/v1/videos", "127.0.0.1", 200),
        ("/api/v1/videos/x", "127.0.0.1", 422),
        ("/nothing", "127.0.0.1", 404),
        ("/api/v1/search", "127.0.0.1", 405),
        ("/", "e.example", 421),
    ],
)
def test_every_answer_has_them(tmp_path: Path, path: str, host: str, status: int) -> None:
    answer = client_of(tmp_path / "none.impart").get(path, headers={"Host": host})
    assert answer.status_code == status
    check(dict(answer.headers))
    assert answer.headers["cache-control"] == ("no-cache" if status == 200 and "api" not in path else "no-store")


def test_a_failure_has_them_and_tells_no_more_than_its_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = client_of(tmp_path / "none.impart")

    @client.app.get("/fails")  # type: ignore[attr-defined]
    def fails() -> None:
        raise RuntimeError("the secret of the server")

    answer = TestClient(client.app, base_url=str(client.base_url)).get("/fails")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "the secret of the server" in caplog.text
    check(dict(answer.headers))


def test_the_form_for_the_token_has_them(tmp_path: Path) -> None:
    check(dict(client_of(tmp_path / "none.impart", token=TOKEN).get("/").headers))
