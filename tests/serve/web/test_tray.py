"""The tray in a browser: spans are added, ordered, edited, kept and exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.browser import OpenPage
from helpers.stand_in_parts import Parts, wait_for_time

if TYPE_CHECKING:
    from playwright.sync_api import Page

CARD = ".tray-card"
HITS = "?q=red&all=1"


def with_spans(page: Page, *names: str) -> None:
    """Put the hits with these names into the tray, and open it."""
    page.wait_for_selector("[role=feed] .card")
    page.wait_for_selector(".tray-bar", state="attached")
    for name in names:
        page.locator(f".card:has(h2:text-is('{name}')) [data-action=add]").click()
    page.click(".tray-toggle")
    page.wait_for_selector(f"{CARD} >> nth={len(names) - 1}")


def listed(page: Page) -> list[str]:
    return page.locator(f"{CARD} .tray-name").all_text_contents()


def bounds(page: Page, card: int = 0) -> list[str]:
    return [page.locator(CARD).nth(card).locator(".bound input").nth(i).input_value() for i in range(2)]


def set_bound(page: Page, which: int, text: str) -> None:
    field = page.locator(f"{CARD} .bound input").nth(which)
    field.fill(text)
    field.press("Enter")


def test_spans_are_added_moved_removed_and_kept(open_page: OpenPage) -> None:
    page = open_page(HITS)
    with_spans(page, "film.mp4", "red.mp4", "blue.mp4")
    assert page.locator(".tray-bar .numbers").inner_text() == "3 spans · 0:06.0"
    page.locator(f"{CARD} [data-move=later]").nth(0).click()
    assert listed(page) == ["red.mp4", "film.mp4", "blue.mp4"]
    assert page.evaluate("document.activeElement.dataset.move") == "later", "the focus follows the moved span"
    page.locator(f"{CARD} [data-remove]").nth(1).click()
    page.locator(f"{CARD} [data-remove]").nth(0).click()
    assert listed(page) == ["blue.mp4"]
    page.click(".tray-bar >> text=Undo")
    assert listed(page) == ["red.mp4", "blue.mp4"]
    page.reload()
    page.wait_for_selector(".tray-bar:visible")
    page.click(".tray-toggle")
    assert listed(page) == ["red.mp4", "blue.mp4"]
    page.click(".tray-bar >> text=Clear")
    assert listed(page) == []
    page.click(".tray-bar >> text=Undo")
    assert listed(page) == ["red.mp4", "blue.mp4"]


def test_a_span_is_dragged(open_page: OpenPage) -> None:
    page = open_page(HITS)
    with_spans(page, "film.mp4", "red.mp4", "blue.mp4")
    grip = page.locator("[data-grip]").nth(0).bounding_box()
    target = page.locator(CARD).nth(2).bounding_box()
    assert grip is not None
    assert target is not None
    page.mouse.move(grip["x"] + 5, grip["y"] + 5)
    page.mouse.down()
    page.mouse.move(target["x"] + 20, target["y"] + 20, steps=8)
    page.mouse.up()
    assert listed(page) == ["red.mp4", "blue.mp4", "film.mp4"]
    page.mouse.move(grip["x"] + 5, grip["y"] + 5)
    page.mouse.down()
    page.mouse.move(target["x"] + 20, target["y"] + 20, steps=8)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert listed(page) == ["red.mp4", "blue.mp4", "film.mp4"], "Escape puts it back"


def test_bounds_are_edited_and_checked(open_page: OpenPage) -> None:
    page = open_page(HITS)
    with_spans(page, "film.mp4")
    assert bounds(page) == ["0:02.00", "0:04.00"]
    page.wait_for_selector(f"{CARD} .tray-frames img[src*='t=3.96']")  # the last frame: the rate is known
    set_bound(page, 0, "0:02.5")
    set_bound(page, 1, "3,25")
    assert bounds(page) == ["0:02.50", "0:03.25"]
    page.get_by_role("button", name="Out: one frame later").click()
    page.locator(f"{CARD} .bound input").nth(0).press("ArrowDown")
    assert bounds(page) == ["0:02.46", "0:03.29"]
    message = page.locator(f"{CARD} p.bad")
    for which, text, part in (
        (0, "1:75", "no time"),
        (0, "5", "before out"),
        (1, "99", "ends at 0:06.00"),
        (1, "2", "before out"),
    ):
        set_bound(page, which, text)
        assert part in message.inner_text()
        assert page.locator(f"{CARD} [aria-invalid=true]").count() == 1
        page.locator(f"{CARD} .bound input").nth(which).press("Escape")
        assert message.is_hidden()
    assert bounds(page) == ["0:02.46", "0:03.29"], "what is wrong changes nothing"
    page.get_by_label("Label").fill("sunset")
    page.get_by_label("Label").press("Enter")
    page.reload()
    page.click(".tray-toggle")
    assert bounds(page) == ["0:02.46", "0:03.29"]
    assert page.get_by_label("Label").input_value() == "sunset"


def test_a_span_plays_with_its_bounds(open_page: OpenPage) -> None:
    page = open_page(HITS)
    with_spans(page, "film.mp4")
    set_bound(page, 0, "2.8")
    page.click(".tray-frames")
    wait_for_time(page, 2.7, 4.1)


def test_the_open_tray_covers_no_control(open_page: OpenPage) -> None:
    page = open_page(HITS)
    with_spans(page, "film.mp4")
    page.click("[data-panel=index]")
    page.get_by_label("no reference set").check(timeout=3000)
    last = page.locator("[role=feed] .card:visible").last
    last.scroll_into_view_if_needed()
    page.mouse.wheel(0, 10_000)
    page.wait_for_timeout(300)
    box, tray = last.bounding_box(), page.locator("#tray").bounding_box()
    assert box is not None
    assert tray is not None
    assert box["y"] + box["height"] <= tray["y"]


def test_another_tab_follows(open_page: OpenPage) -> None:
    page = open_page(HITS)
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector(".tray-bar", state="attached")
    with_spans(page, "film.mp4", "red.mp4")
    other.wait_for_selector(".tray-bar:visible")
    other.click(".tray-toggle")
    assert listed(other) == ["film.mp4", "red.mp4"]
    page.locator(f"{CARD} [data-remove]").nth(0).click()
    other.wait_for_function("() => document.querySelectorAll('.tray-card').length === 1")


def test_an_export_is_watched(open_page: OpenPage) -> None:
    page = open_page(HITS)
    parts = Parts(page)
    with_spans(page, "film.mp4", "red.mp4")
    page.click(".tray-bar >> text=Export")
    page.click("label:has-text('EDL')")
    page.fill("[aria-label=Handles]", "12")
    page.click("dialog >> text=Export 2 spans")
    page.wait_for_selector("dialog progress")
    method, path, asked = parts.sent[-1]
    assert (method, path, asked["form"], asked["handles"]) == ("POST", "/exports", "edl", "12f")
    assert [(one["start_s"], one["end_s"], one["label"]) for one in asked["spans"]] == [(2, 4, "red"), (0, 2, "red")]
    job = parts.jobs[0]
    done = {"form": "edl", "spans_done": 1, "spans_total": 2, "notes": [], "file": None}
    job.event("status", status="running", error=None)
    job.event("progress", **done)
    page.wait_for_selector("text=1 of 2 spans")
    job.event("failure", number=2, video_id="0" * 16, reason="the file has changed since it was indexed")
    file = {"name": "tray.edl", "size_bytes": 1234, "media_type": "text/plain", "files": 1}
    job.event("progress", **(done | {"spans_done": 2, "file": file, "notes": ["rates differ"]}))
    job.end("partly_failed")
    page.wait_for_selector("text=tray.edl is ready, 1.2 kB.")
    assert page.locator("dialog li").all_inner_texts() == ["2. red: the file has changed since it was indexed"]
    assert page.locator("text=rates differ").is_visible()
    assert job.asked[0] is None
    assert job.asked[1] is not None, "the browser must go on from the last event"
    link = page.locator("dialog >> text=Download")
    assert (link.get_attribute("download"), link.get_attribute("href")) == (
        "tray.edl",
        f"/api/v1/exports/{job.view['id']}/file",
    )


def test_the_tray_is_exported_where_no_events_come(open_page: OpenPage) -> None:
    page = open_page(HITS, allowed=("net::ERR_FAILED",))
    page.route("**/jobs/*/events", lambda route: route.abort())
    with_spans(page, "film.mp4", "red.mp4")
    page.click(".tray-bar >> text=Export")
    page.click("label:has-text('CSV')")
    page.click("dialog >> text=Export 2 spans")
    assert downloaded(page)[1].decode().splitlines()[2].count("red") >= 1


def downloaded(page: Page) -> tuple[str, bytes]:
    """Wait for the end of an export, and download its file."""
    with page.expect_download() as started:
        page.click("dialog >> text=Download")
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def test_a_refused_export_says_why(open_page: OpenPage) -> None:
    page = open_page(HITS, allowed=("429",))
    problem: dict[str, Any] = {
        "status": 429,
        "code": "busy",
        "title": "Too Many Requests",
        "detail": "8 exports wait: try again later",
    }
    page.route("**/api/v1/exports", lambda route: route.fulfill(status=429, json=problem))
    with_spans(page, "film.mp4")
    page.click(".tray-bar >> text=Export")
    page.click("dialog >> text=Export 1 span")
    page.wait_for_selector("text=8 exports wait: try again later")
    assert page.get_by_role("button", name="Export 1 span").is_enabled()


def test_photos_are_left_out_of_all_but_sheets(open_page: OpenPage) -> None:
    page = open_page(HITS)
    with_spans(page, "film.mp4")
    page.click("[data-panel=photos]")
    page.get_by_role("button", name="Add magenta.jpg to the tray").click()
    page.click(".tray-bar >> text=Export")
    page.wait_for_selector("text=1 photo is left out: photos have no length.")
    page.click("dialog >> text=Export 1 span")
    name, content = downloaded(page)
    assert (name.endswith(".mp4"), content[4:8]) == (True, b"ftyp")
    page.click("label:has-text('Contact sheet')")
    page.click("dialog >> text=Export 2 entries")
    page.wait_for_selector("text=/png is ready/")
    assert downloaded(page)[1].startswith(b"\x89PNG")
