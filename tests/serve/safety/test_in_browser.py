"""The guards in a real browser: the token's form and cookie, the policy of the page, an attack from another page."""

from __future__ import annotations

import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.served import TOKEN, served
from impart.serve.app import create_app
from impart.serve.settings import ServeSettings

sync_api = pytest.importorskip("playwright.sync_api")
Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")

ATTACK = """<!doctype html><html><body><img id="image" src="{target}static/icon.svg"><script>
const told = {{}};
const done = (name) => (value) => {{ told[name] = String(value); }};
const json = {{ method: "POST", body: '{{"text": "red"}}' }};
const all = [
  fetch("{target}api/v1/videos").then(done("read"), done("read")),
  fetch("{target}api/v1/search", {{ ...json, mode: "no-cors" }}).then(done("blind"), done("blind")),
  fetch("{target}api/v1/search", {{ ...json, headers: {{ "Content-Type": "application/json" }} }})
    .then(done("json"), done("json")),
  new Promise((resolve) => {{
    const script = document.createElement("script");
    script.src = "{target}static/js/dom.js"; script.type = "module";
    script.onload = () => resolve("loaded"); script.onerror = () => resolve("refused");
    document.head.append(script);
  }}).then(done("script")),
];
Promise.allSettled(all).then(() => {{ window.told = told; }});
</script></body></html>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def other_site(text: str) -> Iterator[str]:
    """Serve one page on another port; yield its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()


def test_the_form_lets_a_person_in_once(browser: sync_api.Browser, tmp_path: Path) -> None:
    with served(ServeSettings(index=tmp_path / "none.impart", port=0, token=TOKEN)) as port:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/?q=a+cat")
        assert Axe().run(page).violations_count == 0
        page.get_by_label("Token").fill("a-token-of-other-letters")
        page.get_by_role("button").click()
        assert "not the token" in page.get_by_role("alert").inner_text()
        assert Axe().run(page).violations_count == 0
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button").click()
        page.wait_for_selector("#results", state="attached")
        assert page.url == f"http://127.0.0.1:{port}/?q=a+cat"
        assert page.evaluate("document.cookie") == ""
        assert page.evaluate("fetch('/api/v1/videos').then((answer) => answer.status)") == 200
        headers = "{'Content-Type': 'application/json'}"
        posted = f"fetch('/api/v1/search', {{method: 'POST', headers: {headers}, body: '{{\"text\":\"a\"}}'}})"
        assert page.evaluate(f"{posted}.then((answer) => answer.status)") == 200
        page.reload()
        page.wait_for_selector("#results", state="attached")
        stranger = browser.new_context().new_page()
        stranger.goto(f"http://127.0.0.1:{port}/")
        assert stranger.get_by_label("Token").is_visible()


def test_the_page_loads_nothing_foreign_or_inline(browser: sync_api.Browser, tmp_path: Path) -> None:
    with served(ServeSettings(index=tmp_path / "none.impart", port=0)) as port, other_site("foreign") as foreign:
        page = browser.new_context().new_page()
        messages: list[str] = []
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_load_state("networkidle")
        assert [message for message in messages if message.startswith(("error", "warning"))] == []
        assert page.evaluate(f"fetch('{foreign}').then(() => 'fetched', () => 'refused')") == "refused"
        page.evaluate("""() => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
        }""")
        assert page.evaluate("window.ran") is None
        assert any("Content Security Policy" in message for message in messages)


def test_a_page_of_another_site_gets_nothing(browser: sync_api.Browser, tmp_path: Path) -> None:
    settings = ServeSettings(index=tmp_path / "none.impart", port=0)
    app = create_app(settings)
    with served(settings, app) as port, other_site(ATTACK.format(target=f"http://127.0.0.1:{port}/")) as site:
        page = browser.new_context().new_page()
        page.goto(site)
        page.wait_for_function("window.told")
        told = page.evaluate("window.told")
        assert "Failed to fetch" in told["read"]
        assert "Failed to fetch" in told["json"]
        assert told["script"] == "refused"
        text = app.state.service.metrics.text()
        assert 'impart_problems_total{code="foreign_origin"} 3.0' in text
        assert 'route="/search",status="2xx"' not in text  # none of them was carried out
        assert page.evaluate("document.getElementById('image').naturalWidth") == 0
