"""Draw the images of the page for the docs: light, dark, and on a phone; each below 300 kB.

    impart demo && python benchmarks/page_screenshots.py impart-demo docs

Writes page-light.png (a hit that plays), page-dark.png (a search) and page-phone.png. They show the path of the demo.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from page_latency import chromium, serving

MOST_BYTES = 300_000
DESKTOP = {"viewport": {"width": 1280, "height": 800}}
TALL = {"viewport": {"width": 1280, "height": 1275}}  # a hit and the player below it
PHONE = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
VIEWS: dict[str, tuple[dict[str, Any], str, bool]] = {
    "light": (TALL | {"color_scheme": "light"}, "?q=a+rocket+on+its+launch+pad", True),
    "dark": (DESKTOP | {"color_scheme": "dark"}, "?q=a+cup+of+coffee+on+a+table&all=1", False),
    "phone": (PHONE | {"color_scheme": "light"}, "?q=a+cat&all=1", False),
}


def open_view(browser: Browser, address: str, options: dict[str, Any], *, plays: bool) -> Page:
    """Open the page with all its thumbnails; `plays` opens the first hit, one second after its start."""
    page = browser.new_page(**options)
    page.goto(address)
    page.wait_for_selector("[role=feed] .card")
    page.wait_for_function("() => [...document.images].every((image) => image.loading === 'lazy' || image.complete)")
    if plays:
        page.locator(".card .best").first.click()
        page.wait_for_function(
            "() => { const v = document.querySelector('.player video'); return v && v.currentTime > 0 && !v.paused; }"
        )
        page.wait_for_timeout(1000)
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(5, 5)
    page.wait_for_timeout(1500)  # the end of smooth scrolls, and images that were near
    return page


def save_small(png: bytes, path: Path) -> int:
    """Write an image with as many colours and pixels as fit below `MOST_BYTES`; returns its size."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    scale = 1.0
    while True:
        size = (round(image.width * scale), round(image.height * scale))
        written = io.BytesIO()
        small = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
        palette = small.quantize(256)
        small.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(written, "PNG", optimize=True)
        if len(written.getvalue()) <= MOST_BYTES:
            path.write_bytes(written.getvalue())
            return len(written.getvalue())
        scale *= 0.92


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of `impart demo`")
    parser.add_argument("out", type=Path, help="folder of the images")
    arguments = parser.parse_args()
    with serving(arguments.demo / "library.impart") as address, chromium() as browser:
        for name, (options, query, plays) in VIEWS.items():
            page = open_view(browser, address + query, options, plays=plays)
            path = arguments.out / f"page-{name}.png"
            print(f"{path}: {save_small(page.screenshot(), path):,} bytes")
            page.close()


if __name__ == "__main__":
    main()
