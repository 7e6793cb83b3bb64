"""The page in a browser: from a sentence to the second that plays, with all state in the address."""

from __future__ import annotations

import io
import itertools
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from helpers.browser import SECONDS_EACH, OpenPage, Site, drop, play_state, search, violations, wait_until_playing

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

FILM = ".card[aria-labelledby]:has-text('film.mp4')"
RED_S = (SECONDS_EACH, 2 * SECONDS_EACH)  # span of red in film.mp4


def state_of(page: Page) -> str:
    return page.evaluate("location.search")  # type: ignore[no-any-return]


def test_typed_sentence_plays_the_right_seconds(open_page: OpenPage) -> None:
    page = open_page()
    search(page, "something red")
    assert {"film.mp4", "red.mp4"} == set(page.locator(".card h2").all_inner_texts()[:2])
    page.click(f"{FILM} .best")
    times = [wait_until_playing(page)]
    for _ in range(8):  # longer than the span lasts: it must loop
        page.wait_for_timeout(400)
        times.append(play_state(page)["time_s"])
    assert all(RED_S[0] - 0.1 <= time_s <= RED_S[1] + 0.25 for time_s in times), times
    assert any(after < before for before, after in itertools.pairwise(times)), "the span did not loop"
    assert play_state(page)["width"] == 320


def test_reload_back_and_forward_keep_the_state(open_page: OpenPage) -> None:
    page = open_page()
    search(page, "red")
    page.click(f"{FILM} .best")
    wait_until_playing(page)
    opened = state_of(page)
    assert re.search(r"hit=[0-9a-f]{16}@2-4", opened)
    search(page, "green")
    assert not page.locator(".player").count()
    page.go_back()
    page.wait_for_selector(".player video")
    assert (state_of(page), page.input_value("#query")) == (opened, "red")
    page.reload()
    page.wait_for_selector(".card.open + .player video")
    assert page.input_value("#query") == "red"
    page.wait_for_function(f"() => Math.abs(document.querySelector('.player video').currentTime - {RED_S[0]}) < 0.1")
    assert play_state(page)["paused"], "a reload must not start sound"
    page.go_forward()
    page.wait_for_function("() => !document.querySelector('.player')")
    assert page.input_value("#query") == "green"


def test_filters_and_fields_are_in_the_address(open_page: OpenPage) -> None:
    page = open_page("?q=red&not=blue&then=green&within=30&kind=video&min=1&group=moment&since=2020-01-01")
    page.wait_for_selector("#results[aria-label]:not([aria-busy])")
    sent: list[dict[str, Any]] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if request.url.endswith("/search") else None)
    page.reload()
    page.wait_for_function("() => document.querySelector('[role=feed] .card, .notice')")
    expected = {
        "text": "red",
        "not_text": ["blue"],
        "then": "green",
        "within_s": 30,
        "kind": "video",
        "min_length_s": 1,
    }
    expected |= {"group": "moment", "since": "2020-01-01", "limit": 24}
    assert sent == [expected]
    assert page.input_value("[name=not]") == "blue"
    assert (page.input_value("[name=then]"), page.input_value("[name=within]")) == ("green", "30")
    page.click("text=Clear filters")
    page.wait_for_function("() => !location.search.includes('kind')")
    assert sorted(part.split("=")[0] for part in state_of(page)[1:].split("&")) == [
        "group",
        "not",
        "q",
        "then",
        "within",
    ]


def test_keyboard_from_the_box_to_the_player_and_back(open_page: OpenPage) -> None:
    page = open_page()
    page.click("main h2")
    page.keyboard.press("/")
    page.keyboard.type("red")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=feed] .card")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.closest('.card')?.id") == "hit-1"
    page.keyboard.press("Enter")
    wait_until_playing(page)
    page.keyboard.press("Space")
    page.wait_for_function("() => document.querySelector('.player video').paused")
    before = play_state(page)["time_s"]
    page.keyboard.press(".")
    page.wait_for_function("(before) => document.querySelector('.player video').currentTime > before", arg=before)
    assert play_state(page)["time_s"] == pytest.approx(before + 1 / 25, abs=0.01)
    page.keyboard.press("Escape")
    assert page.locator(".player").count() == 0
    assert page.evaluate("document.activeElement.closest('.card')?.id") == "hit-1"
    page.keyboard.press("s")
    page.wait_for_function("() => location.search.includes('like=')")
    page.keyboard.press("Control+k")
    assert page.evaluate("document.activeElement.id") == "query"


def test_bounds_of_the_span_are_moved_by_keys_and_kept(open_page: OpenPage) -> None:
    page = open_page("?q=red")
    page.click(f"{FILM} .best")
    wait_until_playing(page)
    end = page.get_by_role("slider", name="End of the span")
    end.focus()
    end.press("Shift+ArrowLeft")
    page.wait_for_function("() => location.search.endsWith('@2-3')")
    assert end.get_attribute("aria-valuenow") == "3.000"
    page.get_by_role("button", name="One frame back").click()
    page.wait_for_function("() => Math.abs(document.querySelector('.player video').currentTime - 2.96) < 0.01")
    page.get_by_role("button", name="Begin the span here").click()
    page.wait_for_function("() => location.search.endsWith('@2.96-3')")


def test_photo_opens_as_an_image_and_can_be_magnified(open_page: OpenPage) -> None:
    page = open_page("?q=magenta&kind=photo")
    page.get_by_role("button", name="Show magenta.jpg, Photo").click()
    photo = page.locator(".player .photo")
    page.wait_for_function("() => document.querySelector('.player .photo')?.naturalWidth > 0")
    before = photo.bounding_box()
    page.get_by_role("button", name="Larger").click()
    after = photo.bounding_box()
    assert before is not None
    assert after is not None
    assert after["width"] == pytest.approx(1.5 * before["width"], rel=0.02)
    assert not page.locator(".player video, .player [data-action=scenes]").count()


def test_text_that_is_being_typed_stays_while_a_hit_is_opened(open_page: OpenPage) -> None:
    page = open_page("?q=red")
    page.wait_for_selector("[role=feed] .card")
    page.fill("#query", "red and then")
    page.locator(".card .best:visible").first.click()
    page.wait_for_selector(".player video")
    assert page.input_value("#query") == "red and then"


def test_suggestions_by_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    for text in ("red", "green"):
        search(page, text)
    page.fill("#query", "re")
    page.wait_for_selector("#suggestions [role=option]")
    assert page.locator("#suggestions .suggestion-text").all_inner_texts() == ["green", "red"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    active = page.get_attribute("#query", "aria-activedescendant")
    assert page.get_attribute(f"#{active}", "aria-selected") == "true"
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.search === '?q=red'")
    assert page.locator("#suggestions").is_hidden()


def test_hits_below_the_cut_are_folded(open_page: OpenPage) -> None:
    page = open_page("?q=red")
    fold = page.locator("button.fold")
    fold.wait_for()
    shown = page.locator("[role=feed] .card:visible").count()
    hidden = int(re.match(r"(\d+) more below", fold.inner_text()).group(1))  # type: ignore[union-attr]
    assert hidden > 0
    fold.click()
    assert page.locator("[role=feed] .card:visible").count() == shown + hidden
    page.reload()
    page.wait_for_selector("[role=feed] .card")
    assert page.locator("[role=feed] .card:visible").count() == shown + hidden


def test_ten_thousand_hits_stay_few_elements(open_page: OpenPage, site: Site) -> None:
    page = open_page("?q=red")
    page.wait_for_selector("[role=feed] .card")
    stub_many(page, site, total=10_000)
    page.goto(f"{site.address}?q=blue")
    page.wait_for_selector("[role=feed] .card")
    most = 0
    for _ in range(12):
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        page.wait_for_timeout(120)
        most = max(most, page.locator("#results .card").count())
    loaded = int(page.evaluate("history.state.count"))
    assert loaded >= 240
    assert most < 200, "cards far from the viewport must be emptied"
    place = page.evaluate("scrollY")
    page.wait_for_timeout(200)
    page.reload()
    page.wait_for_function("(place) => Math.abs(scrollY - place) < 400", arg=place)


def stub_many(page: Page, site: Site, *, total: int) -> None:
    """Answer searches with `total` hits that differ in their place alone."""
    answer = page.request.post(f"{site.address}api/v1/search", data={"text": "red", "limit": 1}).json()
    hit = answer["hits"][0] | {"strong": True, "moments": [], "near_copies": [], "also_at": []}

    def respond(route: Route) -> None:
        asked = route.request.post_data_json
        first = int(asked.get("cursor") or 0)
        last = min(total, first + asked["limit"])
        hits = [hit | {"rank": place + 1, "name": f"clip {place + 1}.mp4"} for place in range(first, last)]
        cursor = str(last) if last < total else None
        route.fulfill(
            json={
                "hits": hits,
                "next_cursor": cursor,
                "strong": len(hits),
                "took_ms": 1.0,
                "image_id": None,
                "names": [],
            }
        )

    page.route("**/api/v1/search", respond)


def test_dropped_image_searches(open_page: OpenPage) -> None:
    page = open_page()
    content = io.BytesIO()
    Image.new("RGB", (64, 48), (0, 0, 255)).save(content, "PNG")
    drop(page, content.getvalue())
    page.wait_for_selector("[role=feed] .card")
    assert "image=" in state_of(page)
    assert "blue.mp4" in page.locator(".card h2").all_inner_texts()[:2]
    page.wait_for_function("() => document.querySelector('.query-image img')?.naturalWidth > 0")
    page.click("[aria-label='Remove: Image']")
    page.wait_for_selector(".start")
    assert state_of(page) == ""


def test_file_that_the_browser_cannot_play_is_shown_as_a_preview(open_page: OpenPage) -> None:
    page = open_page("?q=red")
    page.wait_for_selector(FILM)
    page.route("**/api/v1/media/**", lambda route: route.fulfill(body=b"no video", content_type="video/mp4"))
    page.click(f"{FILM} .best")
    page.wait_for_selector(".player-notice >> text=/^Preview, since this browser does not play the file/")
    wait_until_playing(page)
    shown = page.get_by_role("slider", name="Position").get_attribute("aria-valuenow")
    assert RED_S[0] - 0.1 <= float(shown or 0) <= RED_S[1] + 0.25


def test_server_that_is_gone_is_told_and_tried_again(open_page: OpenPage) -> None:
    page = open_page(allowed=("503",))
    page.wait_for_selector(".start")
    down = [True]
    page.route(
        "**/api/v1/search",
        lambda route: (
            route.fulfill(status=503, json={"title": "Busy", "detail": "too many searches", "code": "busy"})
            if down[0]
            else route.continue_()
        ),
    )
    page.fill("#query", "red")
    page.press("#query", "Enter")
    page.wait_for_selector(".notice >> text=too many searches")
    down[0] = False
    page.click("text=Try again")
    page.wait_for_selector("[role=feed] .card")


def test_nothing_moves_while_the_page_loads(open_page: OpenPage, site: Site) -> None:
    page = open_page()
    page.context.add_init_script(
        """window.moved = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((one) => (window.moved += one.value))).observe(
          {type: "layout-shift", buffered: true});"""
    )
    for query in ("", "?q=red&all=1"):
        page.goto(site.address + query)
        page.wait_for_selector("#results .card img")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("window.moved") < 0.005


def test_first_hit_is_visible_soon_after_enter(open_page: OpenPage) -> None:
    page = open_page()
    search(page, "green")
    page.fill("#query", "red")
    began = time.perf_counter()
    page.press("#query", "Enter")
    page.wait_for_function("() => document.title.startsWith('red') && document.querySelector('[role=feed] .card')")
    assert time.perf_counter() - began < 2, "two orders above what it takes on a free machine"


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"color_scheme": "light"}, id="light"),
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}, id="phone"),
    ],
)
def test_no_violation_of_accessibility_rules(open_page: OpenPage, options: dict[str, Any]) -> None:
    page = open_page(**options)
    page.wait_for_selector(".start-title")
    wrong = violations(page)
    page.goto(f"{page.url}?q=red&not=blue&then=green&all=1")
    page.wait_for_selector("[role=feed] .card")
    wrong += violations(page)
    page.locator(".card .best:visible").first.click()
    page.wait_for_selector(".player video")
    wrong += violations(page)
    page.keyboard.press("?")
    page.wait_for_selector("dialog[open]")
    wrong += violations(page)
    assert not wrong
    if "viewport" in options:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the phone"
