"""The panels in a browser: names, index, scenes, reasons, duplicates, reference sets, photos."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from helpers.browser import OpenPage, Site, violations
from helpers.stand_in_parts import Parts, wait_for_time
from helpers.tiny_encoder import TinyEncoder
from impart.video.index.index import VideoIndex
from impart.video.names.taught import Names

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

HITS = "?q=red&all=1"
PHONE_PX = 760


def act(page: Page, action: str, name: str = "film.mp4") -> None:
    """Press an action of a hit, and wait for its panel."""
    page.wait_for_selector(".tray-bar", state="attached")
    card = f".card:has(h2:text-is('{name}'))"
    assert page.viewport_size is not None
    if page.viewport_size["width"] < PHONE_PX:  # there the actions are those of the player
        page.click(f"{card} .best")
        card = ".player"
    page.click(f"{card} [data-action={action}]")
    page.wait_for_selector("#panel .panel-body:not([aria-busy])")


def texts(found: Locator) -> list[str]:
    """Return the texts of elements, each in one line."""
    return [" ".join(text.split()) for text in found.all_inner_texts()]


def png(colour: str) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(written, "PNG")
    return written.getvalue()


def give(target: Locator, event: str, files: dict[str, bytes]) -> None:
    """Drop or paste files on an element."""
    target.evaluate(
        """(element, [type, files]) => {
            const data = new DataTransfer();
            for (const [name, bytes] of files)
                data.items.add(new File([new Uint8Array(bytes)], name, {type: 'image/png'}));
            const options = {bubbles: true, cancelable: true};
            element.dispatchEvent(type === 'paste' ? new ClipboardEvent(type, {...options, clipboardData: data})
                : new DragEvent(type, {...options, dataTransfer: data}));
        }""",
        [event, [(name, list(content)) for name, content in files.items()]],
    )


@pytest.fixture
def names(site: Site) -> Iterator[Names]:
    """Use the names of the site, which are removed at the end."""
    names = VideoIndex.open(site.library.parent / "library.impart", TinyEncoder()).names
    yield names
    for info in names.list():
        names.remove(info.name)


def teach(names: Names, name: str, *colours: str) -> None:
    images = [Image.open(io.BytesIO(png(colour))) for colour in colours]
    names.add(name, images, sources=[f"{number}.jpg" for number in range(len(colours))])


@pytest.mark.usefixtures("names")
def test_a_name_is_taught_from_a_hit_and_found(open_page: OpenPage) -> None:
    page = open_page(HITS)
    act(page, "teach")
    assert page.locator("#panel .face img[alt^='Frame at']").count() == 1
    assert page.evaluate("document.activeElement.placeholder") == "Rex"
    page.keyboard.type("Rex")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=1 image added: Rex has 1 image now.")
    told = page.locator("#panel [role=status]")
    assert told.get_by_text("2 more images recommended: 3 in all make it safer.").is_visible()
    assert page.evaluate("document.activeElement.textContent") == "Find Rex"
    page.keyboard.press("Enter")
    page.wait_for_selector("text=Rex is in 2 files: 2 spans.")
    assert page.locator("#panel .block .face img").get_attribute("alt") == "film.mp4@2"
    page.wait_for_function("() => document.querySelector('#panel .block .face img').naturalWidth > 0")
    assert texts(page.locator("#panel .block .note")) == [
        "Rex has 1 image: it is in force, but cannot be checked; two more images make it safer"
    ]
    assert page.locator("#panel .strip i").count() == 2
    page.get_by_role("button", name="Play film.mp4 from 0:02.0").click()
    wait_for_time(page, 1.9, 4.1)
    page.get_by_role("button", name="Play red.mp4 from 0:00.0").click()
    page.wait_for_selector(".player[aria-label='Player: red.mp4']")
    page.locator("#panel li:has(> .row .path:text-is('film.mp4')) .strip").click(position={"x": 160, "y": 10})
    page.wait_for_selector(".player[aria-label='Player: film.mp4']")
    page.click("#panel >> text=All to the tray >> nth=0")
    assert page.locator(".tray-bar .numbers").inner_text() == "1 span · 0:02.0"
    page.get_by_role("button", name="Search Rex").click()
    page.wait_for_function("() => location.search.includes('q=Rex')")
    page.wait_for_selector(".card .badge.name >> text=Rex")


def test_images_are_picked_dropped_and_pasted(open_page: OpenPage, names: Names) -> None:
    page = open_page()
    page.click("[data-panel=names]")
    page.wait_for_selector("text=No names yet.")
    picked = {"name": "a.png", "mimeType": "image/png", "buffer": png("red")}
    page.set_input_files("#panel input[type=file]", [picked])  # type: ignore[list-item]
    give(page.locator("#panel .dropzone"), "drop", {"b.png": b"no image"})
    give(page.get_by_label("Teach a name", exact=True).last, "paste", {"c.png": png("blue")})
    assert page.locator("#panel canvas").count() == 3
    assert "image" not in page.url, "the page must not search by a dropped image of a name"
    page.click("[aria-label='Leave out a.png']")
    page.get_by_label("Teach a name", exact=True).last.fill("Ann")
    page.click("#panel >> text=Save")
    page.wait_for_selector("text=1 image added: Ann has 1 image now.")
    assert texts(page.locator("#panel .failures li"))[0].startswith("upload: b.png ")
    assert [info.sources for info in names.list()] == [("upload: c.png",)]


def test_names_are_renamed_and_removed(open_page: OpenPage, names: Names) -> None:
    teach(names, "Rex", "#ff0000", "#f80000", "#f00404", "blue")
    page = open_page()
    page.click("[data-panel=names]")
    page.wait_for_selector("text=4 images, 1 not used")
    assert page.locator("#panel .unused img").get_attribute("alt") == "3.jpg"
    assert page.locator("#panel .note").inner_text().startswith("3.jpg is unlike the other images of Rex")
    page.click("[aria-label='Remove the image 3.jpg']")
    page.wait_for_selector("#panel .numbers:text-is('3 images')")
    page.click("#panel >> text=Rename")
    page.keyboard.type("Max")
    page.keyboard.press("Enter")
    page.wait_for_selector("#panel h3:text-is('Max')")
    page.click("#panel >> text=Remove")
    page.click("dialog >> text=Cancel")
    assert [info.name for info in names.list()] == ["Max"]
    page.click("#panel >> text=Remove")
    page.click("dialog >> text=Remove the name")
    page.wait_for_selector("text=No names yet.")
    assert not names.list()


def test_an_indexing_job_is_watched_paused_and_cancelled(open_page: OpenPage) -> None:
    page = open_page()
    parts = Parts(page)
    page.click("[data-panel=index]")
    page.wait_for_selector("text=1 h 6 min")
    page.get_by_label("Try files again that failed").check()
    page.click("#panel >> text=Index all again")
    page.wait_for_selector("text=Indexing: waiting")
    assert parts.sent[0] == ("POST", "/jobs/index", {"paths": None, "retry_failed": True, "prune": False})
    job = parts.jobs[0]
    job.event("status", status="running", error=None)
    job.event("progress", **parts.progress(0, scanning=True))
    page.wait_for_selector("text=Finding new and changed files")
    job.event("progress", **parts.progress(0.4))
    page.wait_for_selector("text=40% of 1.0 GB · 4 of 10 files · 10.0 × real time · 2 min 5 s left")
    assert page.locator("#panel progress").evaluate("bar => bar.value") == pytest.approx(0.4)
    assert page.locator("text=beach.mp4").is_visible()
    page.click("#panel >> text=Pause")
    page.wait_for_selector("text=Indexing: paused")
    page.click("#panel >> text=Resume")
    page.wait_for_selector("text=Indexing: running")
    job.event("failure", name="cut.mp4", path="/films/cut.mp4", kind="failed", reason="moov atom not found", attempts=1)
    page.wait_for_selector("#panel .job .failures >> text=moov atom not found")
    page.click("#panel .job >> text=Cancel")
    page.wait_for_selector("text=Indexing: being cancelled")
    job.end("cancelled")
    page.wait_for_selector("text=Indexing: cancelled")
    assert [path for _, path, _ in parts.sent[1:]] == [
        f"/jobs/{job.view['id']}/{what}" for what in ("pause", "resume", "cancel")
    ]
    numbers = [int(last or 0) for last in job.asked]
    assert numbers[0] == 0
    assert numbers == sorted(set(numbers)), "each portion follows the last event of the one before"
    page.click("#panel .job >> text=Go on")
    page.wait_for_selector("text=Indexing: waiting")
    parts.jobs[1].end("done")


def test_a_page_without_hits_shows_what_a_job_has_added(open_page: OpenPage) -> None:
    page = open_page()
    parts = Parts(page)
    nothing = {"videos": [], "total": 0, "next_cursor": None}
    page.route("**/api/v1/videos?*", lambda route: route.fulfill(json=nothing))
    page.reload()
    page.wait_for_selector("text=The index is empty")
    page.get_by_role("button", name="Add folders").click()
    page.click("#panel >> text=Index all again")
    page.wait_for_selector("text=Indexing: waiting")
    page.unroute("**/api/v1/videos?*")
    parts.jobs[0].end("done")
    page.wait_for_selector("#results >> text=film.mp4")


def test_the_index_panel_tells_what_runs_and_what_failed(open_page: OpenPage) -> None:
    page = open_page(allowed=("403",))
    parts = Parts(page)
    parts.job("index").end("partly_failed")
    running = parts.job("index", status="running", index=parts.progress(0.7))
    failure = {
        "name": "cut.mp4",
        "path": "/films/cut.mp4",
        "kind": "failed",
        "reason": "moov atom not found",
        "attempts": 2,
        "failed_at": 1.0,
    }
    parts.failures = [failure, {**failure, "name": "half.mp4", "kind": "partial", "attempts": None}]
    page.route(
        "**/api/v1/folders", lambda route: route.fulfill(json={"folders": [{"folder": "/films/2024", "videos": 7}]})
    )
    page.click("[data-panel=index]")
    page.wait_for_selector("text=70% of 1.0 GB")
    listed = texts(page.locator("section[aria-label=Failures] li"))
    assert listed == ["cut.mp4 moov atom not found tried 2 times", "half.mp4 read in part moov atom not found"]
    page.click("summary")
    assert page.locator("details li").inner_text().startswith("partly failed")
    running.end("done")
    page.wait_for_selector("text=Indexing: done")
    page.get_by_role("button", name="Index again: /films/2024").click()
    page.wait_for_selector("text=Indexing: waiting")
    assert parts.sent[-1][2]["paths"] == ["/films/2024"]
    parts.jobs[-1].end("done")
    problem = {
        "status": 403,
        "code": "outside_roots",
        "title": "Forbidden",
        "detail": "the path '/etc' is outside the folders",
    }
    page.route("**/api/v1/jobs/index", lambda route: route.fulfill(status=403, json=problem))
    page.get_by_label("A folder inside those of the index").fill("/etc")
    page.keyboard.press("Enter")
    page.wait_for_selector(".toast:has-text('is outside the folders')")


def test_the_reference_set_is_switched(open_page: OpenPage) -> None:
    page = open_page(allowed=("409",))
    parts = Parts(page)
    parts.refuse_switch = True
    page.click("[data-panel=index]")
    page.get_by_label("no reference set").check()
    page.wait_for_selector("dialog >> text=no place but the index has it")
    page.click("dialog >> text=Cancel")
    page.wait_for_selector("section[aria-label='Reference sets'] fieldset:enabled")
    assert page.get_by_label("things").is_checked(), "the choice goes back to what is in force"
    page.get_by_label("no reference set").check()
    page.click("dialog >> text=Switch, and lose it")
    page.wait_for_selector(".toast:has-text('In force: no reference set.')")
    assert [one[2] for one in parts.sent] == [{"id": "none", "discard": discard} for discard in (False, False, True)]


def test_scenes_are_played_and_put_into_the_tray(open_page: OpenPage) -> None:
    page = open_page(HITS)
    act(page, "scenes")
    page.wait_for_selector("#panel .scene")
    bounds = page.locator("#panel .scene label .numbers:nth-child(2)").all_inner_texts()
    assert bounds == ["0:00.0 – 0:02.0", "0:02.0 – 0:04.0", "0:04.0 – 0:06.0"]
    assert page.locator("#panel .scene").nth(1).get_attribute("aria-current") == "true", (
        "the scene of the hit is marked"
    )
    page.locator("#panel .scene-play").nth(2).click()
    wait_for_time(page, 3.9)
    boxes = page.locator("#panel .scene input")
    boxes.nth(0).check()
    boxes.nth(2).click(modifiers=["Shift"])
    page.click("#panel >> text=Add to the tray")
    page.wait_for_selector(".toast:has-text('3 scenes added to the tray.')")
    assert page.locator(".tray-bar .numbers").inner_text() == "3 spans · 0:06.0"
    boxes.nth(0).check()
    page.click("#panel >> text=Add to the tray")
    page.wait_for_selector(".toast:has-text('0 scenes added to the tray. 1 was there already.')")


def test_two_thousand_scenes_stay_fluid(open_page: OpenPage) -> None:
    page = open_page(HITS)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "w=320" in request.url else None)

    def many(route: Any) -> None:
        answer = route.fetch().json()
        answer["scenes"] = [
            {"number": i + 1, "start_s": i * 0.06, "end_s": i * 0.06 + 0.06, "kind": "cut", "best_s": i / 400}
            for i in range(2000)
        ]
        route.fulfill(json=answer)

    page.route("**/videos/*/scenes", many)
    act(page, "scenes")
    page.wait_for_selector("#panel .scene >> nth=1999", state="attached")
    page.wait_for_timeout(500)
    assert 0 < len(asked) < 100, "images are asked for as they come into view"
    page.click("#panel >> text=Choose all")
    page.click("#panel >> text=Add to the tray")
    page.wait_for_selector(".tray-bar .numbers:has-text('2,000 spans')")


def test_reasons_are_listed_with_weights(open_page: OpenPage) -> None:
    page = open_page(HITS)
    parts = Parts(page)
    pair = {
        "text": "a red car",
        "source": "cars/1.jpg",
        "weight_img": 0.31,
        "weight_txt": 0.0775,
        "similarity": 0.8,
        "row": 3,
        "image": True,
    }
    parts.why = {
        "references": "things",
        "blending": "vanilla",
        "pairs": [pair, {**pair, "text": "red", "weight_img": 0.1, "similarity": None, "image": False}],
    }
    act(page, "why")
    page.wait_for_selector("#panel .pair >> nth=1")
    assert texts(page.locator("#panel .pair"))[0] == "a red car Image 0.310 Text 0.077 similarity 0.80 · cars/1.jpg"
    assert "similarity no longer known" in page.locator("#panel .pair").nth(1).inner_text()
    widths = [
        page.locator("#panel .weight-bar i").nth(i).evaluate("bar => bar.offsetWidth / bar.parentElement.offsetWidth")
        for i in range(3)
    ]
    assert widths == pytest.approx([1, 0.25, 0.32], abs=0.02)
    assert page.locator("#panel .pair img").count() == 1
    assert page.locator("text=blended into it with the weights shown").is_visible()
    against = {**pair, "text": "a red bus", "weight_img": 0, "weight_txt": -0.02}
    parts.why = {"references": "things", "blending": "solved", "pairs": [{**pair, "weight_img": 0}, against]}
    act(page, "why", "red.mp4")
    page.wait_for_selector("text=a number below zero speaks against it")
    assert texts(page.locator("#panel .pair"))[1] == "a red bus Adds -0.020 similarity 0.80 · cars/1.jpg"
    parts.why = {"references": None, "blending": None, "pairs": []}
    act(page, "why")
    page.wait_for_selector("text=Nothing was blended into this frame")
    assert page.locator("text=No reference set is in force.").is_visible()


def test_duplicates_are_shown_when_they_are_ready(open_page: OpenPage) -> None:
    page = open_page(HITS)
    nothing = {"problem": None, "groups": [], "total": 0, "next_cursor": None, "done": 1, "total_steps": 4}
    page.route(
        "**/api/v1/duplicates*",
        lambda route: route.fulfill(status=202, json={**nothing, "status": "computing"}),
        times=1,
    )
    page.click("[data-panel=duplicates]")
    page.wait_for_selector("#panel progress")
    page.wait_for_selector("text=33% of film.mp4 and 100% of green.mp4 show the same.")
    page.get_by_role("button", name="Play green.mp4, 0:00.0 – 0:02.0").last.click()
    page.wait_for_selector(".player video")
    page.get_by_role("button", name="Play film.mp4, 0:04.0 – 0:06.0").last.click()
    wait_for_time(page, 3.9)


def test_a_server_without_these_parts_is_told_in_words(open_page: OpenPage) -> None:
    page = open_page(HITS, allowed=("404",))
    page.route(
        "**/api/v1/*",
        lambda route: (
            route.fallback()
            if route.request.url.endswith("/search")
            else route.fulfill(status=404, json={"code": "not_found", "detail": "Not Found"})
        ),
    )
    for panel, text in (
        ("names", "This server does not offer names."),
        ("duplicates", "does not offer the duplicates."),
        ("index", "This server does not run jobs."),
    ):
        page.click(f"[data-panel={panel}]")
        page.wait_for_selector(f"#panel >> text={text}")


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 360, "height": 740}, "has_touch": True},
    ],
    ids=["light", "dark", "phone"],
)
def test_axe_finds_no_violation(open_page: OpenPage, names: Names, options: dict[str, Any]) -> None:
    page = open_page(HITS, **options)
    parts = Parts(page)
    teach(names, "Rex", "#ff0000", "#f80000", "#f00404", "blue")
    parts.job("index", status="running", index=parts.progress(0.4))
    parts.job("index").end("done")
    pair = {
        "text": "a red car",
        "source": "1.jpg",
        "weight_img": 0.3,
        "weight_txt": 0.1,
        "similarity": 0.8,
        "row": 3,
        "image": True,
    }
    parts.why = {"references": "things", "pairs": [pair, {**pair, "image": False}]}
    wrong: list[tuple[str, tuple[str, str]]] = []

    def check(name: str) -> None:
        wrong.extend((name, one) for one in violations(page))
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is wider than the window by {wide} px"

    def leave() -> None:
        page.click("[aria-label='Close the panel']")

    for action, ready in (("scenes", ".scene"), ("why", ".pair"), ("teach", ".face")):
        act(page, action)
        page.wait_for_selector(f"#panel {ready}")
        check(action)
        leave()
    for panel, ready in (
        ("names", ".face img"),
        ("index", ".job progress"),
        ("duplicates", "text=100% of green.mp4"),
        ("photos", ".scene"),
    ):
        page.click(f"[data-panel={panel}]")
        page.wait_for_selector(f"#panel >> {ready}")
        if panel == "names":
            page.click("#panel >> text=Where")
            page.wait_for_selector("#panel .strip")
        check(panel)
        if panel == "names":
            page.click("#panel button:text-is('Remove')")
            check("confirm")
            page.click("dialog >> text=Cancel")
        leave()
    page.locator("[data-action=add]:visible").first.click()
    page.click(".tray-toggle")
    page.locator(".bound input").first.fill("x")
    page.keyboard.press("Enter")
    check("tray")
    page.click(".tray-bar >> text=Export")
    check("export")
    assert not wrong


def test_answers_fit_the_api(open_page: OpenPage) -> None:
    page = open_page()
    parts = Parts(page)
    parts.job("index", index=parts.progress(0.4))
    parts.failures = [{"name": "a", "path": "/a", "kind": "failed", "reason": "x", "attempts": 1, "failed_at": 1.0}]
    schemas = page.evaluate("async () => (await (await fetch('/api/v1/openapi.json')).json())")
    compared = 0
    for path in ("/index", "/jobs", "/references", "/failures"):
        described = schemas["paths"][f"/api/v1{path}"]
        answer = page.evaluate(f"async () => (await (await fetch('/api/v1{path}')).json())")
        schema = described["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        compared += compare(answer, schema, schemas["components"]["schemas"], path)
    assert compared > 4


def compare(value: Any, schema: dict[str, Any], known: dict[str, Any], place: str) -> int:
    """Compare the keys of an answer with a schema; returns the number of objects."""
    schema = known[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    if "anyOf" in schema:
        if value is None:
            return 0
        schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
        return compare(value, schema, known, place)
    if isinstance(value, list):
        return sum(compare(one, schema["items"], known, f"{place}[]") for one in value)
    if not isinstance(value, dict) or "properties" not in schema:
        return 0
    assert set(value) == set(schema["properties"]), place
    return 1 + sum(compare(one, schema["properties"][key], known, f"{place}.{key}") for key, one in value.items())
