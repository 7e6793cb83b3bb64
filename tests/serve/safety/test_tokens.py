"""The token: in a header, in a cookie, in the form of the page; wrong ones are refused, then slowed down."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from helpers.served import HERE, TOKEN, client_of, raw, served
from impart.serve.safety import tokens
from impart.serve.settings import ServeSettings

WRONG = "a-token-of-other-letters"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    made = client_of(tmp_path / "none.impart", token=TOKEN)
    made.follow_redirects = False
    return made


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


PATHS = ("/api/v1/videos", "/api/v1/openapi.json", "/metrics", "/ready", "/static/js/main.js", "/nothing")


@pytest.mark.parametrize("path", PATHS)
def test_without_the_token_nothing_is_told(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "headers", [bearer(WRONG), bearer(TOKEN[:-1]), bearer(TOKEN + "x"), bearer("\xe9"), bearer("")]
)
def test_a_wrong_token_is_refused(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/api/v1/videos", headers={name: value.encode("latin-1") for name, value in headers.items()})
    assert (answer.status_code, answer.json()["code"]) == (401, "wrong_token")


def test_the_right_token_is_taken_and_health_needs_none(client: TestClient) -> None:
    assert client.get("/api/v1/videos", headers=bearer(TOKEN)).status_code == 200
    assert client.get("/api/v1/videos", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
    assert client.get("/health").json() == {"status": "ok"}


def test_the_comparison_takes_constant_time(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = tokens.hmac.compare_digest
    monkeypatch.setattr(tokens.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    client.get("/api/v1/videos", headers=bearer(WRONG))
    assert compared == [(WRONG.encode(), TOKEN.encode())]


def test_an_address_with_the_token_sets_a_cookie_and_leaves_the_address(client: TestClient) -> None:
    answer = client.get(f"/?q=a+cat&token={TOKEN}&not=a&not=b")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/?q=a+cat&not=a&not=b")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200  # the client has the cookie
    assert client.get("/api/v1/videos").status_code == 200


def test_the_cookie_is_secure_where_the_address_is(tmp_path: Path) -> None:
    client = client_of(tmp_path / "none.impart", token=TOKEN)
    client.base_url, client.follow_redirects = HERE.replace("http:", "https:"), False  # type: ignore[assignment]
    assert "Secure" in client.get(f"/?token={TOKEN}").headers["Set-Cookie"]


def test_the_form_works_without_a_script(client: TestClient) -> None:
    page = client.get('/?q="><b>')
    assert page.status_code == 401
    assert "<script" not in page.text
    assert "style" not in page.text
    assert "<b>" not in page.text
    assert 'action="/?q=%22%3E%3Cb%3E"' in page.text
    wrong = client.post("/?q=a", data={"token": WRONG})
    assert wrong.status_code == 401
    assert "not the token" in wrong.text
    right = client.post("/?q=a", data={"token": TOKEN})
    assert (right.status_code, right.headers["Location"]) == (303, "/?q=a")
    assert client.get("/").status_code == 200
    assert client.post("/", data={"other": "x"}).status_code == 405  # with the cookie, it is a request for the page


def test_an_old_cookie_is_refused_and_forgotten(client: TestClient) -> None:
    client.cookies.set("impart_token_8765", "0" * 64)
    for _ in range(40):  # the page repeats it for every image; this is no guessing
        assert client.get("/api/v1/videos").json()["code"] == "wrong_token"
    page = client.get("/")
    assert page.status_code == 401
    assert "Max-Age=0" in page.headers["Set-Cookie"]
    assert client.get(f"/?token={TOKEN}").status_code == 303


def test_guesses_are_slowed_down_also_when_one_is_right(client: TestClient) -> None:
    codes = [client.get("/api/v1/videos", headers=bearer(f"{WRONG}-{i}")).json()["code"] for i in range(12)]
    assert codes == ["wrong_token"] * 10 + ["too_many_tokens"] * 2
    answer = client.get("/api/v1/videos", headers=bearer(TOKEN))
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    form = client.post("/", data={"token": TOKEN})
    assert form.status_code == 429
    assert "try again" in form.text


def test_another_client_is_not_slowed_down(tmp_path: Path) -> None:
    first = client_of(tmp_path / "none.impart", token=TOKEN)
    second = TestClient(first.app, base_url=HERE, client=("192.0.2.7", 1))
    for i in range(12):
        first.get("/ready", headers=bearer(f"{WRONG}-{i}"))
    assert second.get("/api/v1/videos", headers=bearer(TOKEN)).status_code == 200


@pytest.mark.parametrize(("hosts", "secure"), [((), False), (("films.example",), True)])
def test_headers_of_a_proxy_are_believed_only_where_one_is_named(
    tmp_path: Path, hosts: tuple[str, ...], secure: bool
) -> None:
    settings = ServeSettings(index=tmp_path / "none.impart", port=0, token=TOKEN, hosts=hosts)
    lines = (
        f"GET /?token={TOKEN} HTTP/1.1",
        "Host: 127.0.0.1",
        "X-Forwarded-Proto: https",
        "Connection: close",
        "",
        "",
    )
    with served(settings) as port:
        answer = raw(port, "\r\n".join(lines).encode())
    assert answer.startswith(b"HTTP/1.1 303")
    assert (b"; secure" in answer.lower()) == secure
