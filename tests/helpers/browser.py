"""A browser on a real server: Debian's Chromium, a small index of generated clips, and a page that must stay clean.

Fixtures, to be imported by a `conftest.py`: `chromium` (one per module), `site` (a server; a module may have its own),
`open_page` (makes a page in a context of its own). A test fails on any error of the console or of the page, and on any
request to another host. All skip where Chromium or Playwright is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from helpers.clips import write_clip
from helpers.photos import write_photo
from helpers.served import served
from helpers.shades import register_tiny
from helpers.tiny_encoder import TinyEncoder

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from impart.serve.settings import ServeSettings

CHROMIUM = "/usr/bin/chromium"
SIZE = (320, 180)
CLIPS: dict[str, tuple[str, ...]] = {
    "film.mp4": ("blue", "red", "green"),
    "red.mp4": ("red",),
    "blue.mp4": ("blue",),
    "green.mp4": ("green",),
    "yellow.mp4": ("yellow",),
    "black.mp4": ("black",),
    "further/a clip whose name is much longer than there is room for on a card, part 12 of 40.mp4": ("white", "grey"),
}
SECONDS_EACH = 2.0

OpenPage = Callable[..., "Page"]


@dataclass(frozen=True)
class Site:
    """A server on a free port of this machine."""

    address: str
    library: Path

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc


def write_library(folder: Path) -> Path:
    """Write the clips of `CLIPS`, 2 s per colour, and a photo."""
    for name, colours in CLIPS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, colours=colours, seconds_each=SECONDS_EACH, size=SIZE, g="5")
    write_photo(folder / "magenta.jpg", "magenta")
    return folder


@contextmanager
def serving(settings: ServeSettings) -> Iterator[str]:
    """Serve an index on a free port of this machine, in a thread; gives its address."""
    with served(replace(settings, port=0)) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve an index of `write_library`, made with the tiny encoder."""
    from impart.serve.settings import ServeSettings
    from impart.video.index.index import VideoIndex

    register_tiny()
    folder = tmp_path_factory.mktemp("site")
    library = write_library(folder / "library")
    for _ in VideoIndex.open(folder / "library.impart", TinyEncoder()).add([library]):
        pass
    settings = ServeSettings(index=folder / "library.impart", cache=folder / "cache", requests_per_s=10_000)
    with serving(settings) as address:
        yield Site(address, library)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Start the browser once per module: Playwright's event loop is the thread's own until it stops."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the page is tested with playwright: pip install playwright"
    )
    if not Path(CHROMIUM).exists() and shutil.which("chromium") is None:
        pytest.skip("the page is tested with Chromium: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium"),
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser, site: Site) -> Iterator[OpenPage]:
    """Open pages of the site: `open_page("?q=red", color_scheme="dark")`; at the end each must have stayed clean."""
    with opening(chromium, site) as make:
        yield make


@contextmanager
def opening(chromium: Browser, site: Site) -> Iterator[OpenPage]:
    """Open pages of a site; at the end each must have stayed clean.

    `allowed` has parts of errors that the test itself causes.
    """
    wrong: list[str] = []
    with ExitStack() as stack:

        def make(path: str = "", *, allowed: tuple[str, ...] = (), **options: Any) -> Page:
            def note(text: str) -> None:
                if not any(part in text for part in allowed):
                    wrong.append(text)

            context = chromium.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
            stack.callback(context.close)
            context.set_default_timeout(15_000)
            page = context.new_page()
            page.on("console", lambda message: note(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: note(str(error)))
            page.on(
                "request", lambda request: note(f"request to {request.url}") if is_foreign(request.url, site) else None
            )
            page.goto(site.address + path)
            return page

        yield make
    assert not wrong, wrong


def search(page: Page, text: str) -> None:
    """Type a text, and wait for its hits."""
    page.fill("#query", text)
    page.press("#query", "Enter")
    page.wait_for_function(
        "(text) => document.title.startsWith(text) && !document.querySelector('#results').ariaBusy"
        " && document.querySelector('[role=feed] .card')",
        arg=text,
    )


def drop(page: Page, content: bytes, name: str = "image.png", media_type: str = "image/png") -> None:
    """Drop an image file on the page."""
    page.evaluate(
        """([bytes, name, type]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], name, {type}));
          for (const type of ["dragenter", "dragover", "drop"])
            document.body.dispatchEvent(new DragEvent(type, {bubbles: true, cancelable: true, dataTransfer: data}));
        }""",
        [list(content), name, media_type],
    )


def violations(page: Page) -> list[tuple[str, str]]:
    """Check the page, as it is shown, with axe-core: (rule, element) of each violation."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")
    rules = {name: {"enabled": True} for name in ("target-size", "label-content-name-mismatch")}  # off by default
    found = axe.Axe().run(page, options={"rules": rules}).response["violations"]
    return [(one["id"], node["html"]) for one in found for node in one["nodes"]]


def is_foreign(url: str, site: Site) -> bool:
    """Whether a request leaves the server; addresses within the page are none."""
    parts = urlsplit(url)
    return parts.scheme not in ("blob", "data") and parts.netloc != site.host


def play_state(page: Page) -> dict[str, Any]:
    """Read the video element: its time in seconds, whether it is paused, the width of its frames."""
    found = page.evaluate(
        "() => { const v = document.querySelector('.player video');"
        " return v && {time_s: v.currentTime, paused: v.paused, width: v.videoWidth, src: v.currentSrc}; }"
    )
    assert found is not None, "no player is open"
    assert isinstance(found, dict)
    return found


def wait_until_playing(page: Page) -> float:
    """Wait until frames advance; returns the time (s) of one that was shown."""
    page.wait_for_function(
        "() => { const v = document.querySelector('.player video');"
        " return v && v.currentTime > 0 && !v.seeking && !v.paused; }"
    )
    before = play_state(page)["time_s"]
    page.wait_for_function("(before) => document.querySelector('.player video').currentTime !== before", arg=before)
    return float(play_state(page)["time_s"])
