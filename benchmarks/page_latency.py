"""Measure the page in a browser on the library of the demo: time from Enter to the first visible hit, and its weight.

    impart demo && python benchmarks/page_latency.py impart-demo [--scroll]

With --scroll it also scrolls through 10,000 hits, which stand for those of a large index: frame times and elements.
A hit counts as visible once its card has been painted; the time until its thumbnail is painted too is told beside it.
Every search is asked once before: the thumbnails are in the cache of the server, but not in that of the browser.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Route, sync_playwright

__all__ = ["chromium", "serving"]

SENTENCES = (
    "a cup of coffee on a table", "a rocket on its launch pad", "people on bicycles in a city street", "a cat",
    "an astronaut in an orange suit", "a motorcycle in a garage", "galaxies in the night sky", "old coins",
    "a printed page", "a man in a car", "a cartoon rabbit on a meadow", "a flag", "a spoon", "a truck in a street",
    "stars", "whiskers", "green grass", "a wheel", "a smiling woman", "text in a book",
)  # fmt: skip
START_S = 120  # most seconds that the server takes to start

SEARCH = """
(text) => new Promise((resolve) => {
  const box = document.querySelector("#query");
  const began = performance.now();
  let shown = null;
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const painted = async () => {
    await frame();
    await frame();
    return performance.now() - began;
  };
  const watch = new MutationObserver(async () => {
    const card = document.querySelector("[role=feed] .card");
    if (shown !== null || !card || !document.title.startsWith(text)) return;
    shown = 0;
    watch.disconnect();
    const image = card.querySelector("img");
    shown = await painted();
    await image.decode().catch(() => {});
    resolve([shown, await painted()]);
  });
  watch.observe(document.querySelector("#results"), { childList: true, subtree: true });
  box.value = text;
  box.form.requestSubmit();
})
"""

SCROLL = """
async () => {
  const times = [];
  let elements = 0;
  let last = performance.now();
  for (let frame = 0; frame < 300; frame += 1) {
    scrollBy(0, -120);
    await new Promise((done) => requestAnimationFrame(done));
    times.push(performance.now() - last);
    last = performance.now();
    elements = Math.max(elements, document.querySelectorAll("*").length);
  }
  return [times, elements];
}
"""


@contextmanager
def serving(index: Path) -> Iterator[str]:
    """Serve an index in a process of its own, until the end of the block; gives the address of the page."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/"
    server = subprocess.Popen([sys.executable, "-m", "impart", "serve", "--index", str(index), "--port", str(port)])
    try:
        ends = time.monotonic() + START_S
        while True:
            try:
                urllib.request.urlopen(f"{address}ready", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                if time.monotonic() > ends or server.poll() is not None:
                    raise
                time.sleep(0.2)
        yield address
    finally:
        server.terminate()
        server.wait(60)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()


def measure_searches(browser: Browser, address: str) -> dict[str, float]:
    """Compute medians over `SENTENCES` (ms): until the first hit is painted, and until its thumbnail is."""
    for _ in range(2):  # the first round fills the caches of the server
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector(".start-title")
        times: list[list[float]] = [page.evaluate(SEARCH, text) for text in SENTENCES]
        page.close()
    cards, thumbnails = zip(*times, strict=True)
    return {
        "searches": len(times),
        "card_ms": statistics.median(cards),
        "slowest_card_ms": max(cards),
        "thumbnail_ms": statistics.median(thumbnails),
    }


def measure_weight(browser: Browser, address: str) -> dict[str, int]:
    """Compute the bytes of the page with all its panels, without what the API answers."""
    page = browser.new_page()
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto(address)
    page.wait_for_selector(".start-title")
    for panel in page.locator("[data-panel]").all():
        panel.click()
        page.wait_for_timeout(1000)
    assets = {url.partition("#")[0] for url in urls if "/api/" not in url}
    unpacked = sum(len(page.request.get(url).body()) for url in assets)
    page.close()
    return {"files": len(assets), "bytes": sum(map(transferred, assets)), "bytes_unpacked": unpacked}


def measure_scroll(browser: Browser, address: str, *, total: int = 10_000) -> dict[str, float]:
    """Compute times of frames (ms) while `total` hits are scrolled back, and the most elements at any time."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    answer = page.request.post(f"{address}api/v1/search", data={"text": SENTENCES[0], "limit": 1}).json()
    hit = answer["hits"][0] | {"strong": True}

    def respond(route: Route) -> None:
        asked: dict[str, Any] = route.request.post_data_json or {}
        first = int(asked.get("cursor") or 0)
        last = min(total, first + asked["limit"])
        hits = [hit | {"rank": place + 1, "name": f"{place + 1}.mp4"} for place in range(first, last)]
        route.fulfill(json=answer | {"hits": hits, "next_cursor": str(last) if last < total else None})

    page.route("**/api/v1/search", respond)
    page.goto(f"{address}?q=all")
    page.wait_for_selector("[role=feed] .card")
    while page.locator(".more:visible").count():
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(20)
    frames, elements = page.evaluate(SCROLL)
    page.close()
    return {
        "hits": total,
        "frames": len(frames),
        "frame_ms": statistics.median(frames),
        "frame_p95_ms": statistics.quantiles(frames, n=20)[-1],
        "most_elements": elements,
    }


def transferred(url: str) -> int:
    """Count the bytes of an answer as a browser asks for it: compressed."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request) as answer:
        return len(answer.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of `impart demo`")
    parser.add_argument("--scroll", action="store_true", help="also scroll through 10,000 hits")
    arguments = parser.parse_args()
    with serving(arguments.demo / "library.impart") as address, chromium() as browser:
        found: dict[str, Any] = {
            "search": measure_searches(browser, address),
            "weight": measure_weight(browser, address),
        }
        if arguments.scroll:
            found["scroll"] = measure_scroll(browser, address)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
