"""From a sentence to an exported file: the page in a browser, with the real server, the bundled model, real clips."""

from __future__ import annotations

import csv
import io
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av
import opentimelineio as otio
import pytest

from helpers.browser import (
    OpenPage,
    Site,
    drop,
    opening,
    play_state,
    search,
    serving,
    violations,
    wait_until_playing,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CLIPS = (
    "0idSKtn42WY.2", "4Q8lLQxWgmU.13", "7nxhg1S6BV4.22", "An1biDTot5Q.16", "CgcadSRtAag.140", "Kb8ON0iCs38.97",
    "MxTEUtUle1k.54", "YI5pCJ0__N8.24", "aCx99cgrkVY.22", "bpA7IQ_g9IQ.36", "nrAkn1DNorc.18",
)  # fmt: skip
DOG, BEACH, SOUP = "aCx99cgrkVY.22.mp4", "CgcadSRtAag.140.mp4", "YI5pCJ0__N8.24.mp4"
ELEPHANT = "CxeY8J99jEw.19"  # indexed as an AVI file, which no browser plays
SNAKE = "A3y8N3nnVJ8.68"  # indexed by the page
LONG = ("RfZklHmewy8.3", "alQRJjsBYDA.10", "nfgMVXJskqM.1")  # 91 s, which a job does not finish
FPS = 25  # of BEACH and SOUP
HAS_HEAT = """() => {
  const canvas = document.querySelector("[role=feed] .card canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.some((value) => value > 0);
}"""
FIRST = "[role=feed] .card >> nth=0"


@pytest.fixture(scope="module")
def captions(data_dir: Path) -> dict[str, str]:
    """Captions of the clips, by file name."""
    clips = data_dir / "videos" / "panda"
    if not clips.is_dir():
        pytest.skip(f"the clips of the evaluation are not at {clips}")
    with (clips / "captions.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: row["caption"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def site(captions: dict[str, str], data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Serve an index of a few clips, made with the bundled model."""
    from impart.serve.settings import ServeSettings
    from impart.video.index.index import VideoIndex

    folder = tmp_path_factory.mktemp("real")
    library = folder / "library"
    library.mkdir()
    for name in CLIPS:
        shutil.copy(data_dir / "videos" / "panda" / f"{name}.mp4", library)
    write_avi(data_dir / "videos" / "panda" / f"{ELEPHANT}.mp4", library / f"{ELEPHANT}.avi")
    for _ in VideoIndex.open(folder / "library.impart").add([library]):
        pass
    settings = ServeSettings(index=folder / "library.impart", cache=folder / "cache", requests_per_s=10_000)
    with serving(settings) as address:
        yield Site(address, library)


def write_avi(clip: Path, target: Path) -> None:
    """Write the frames of a clip as MPEG-4 Part 2 in an AVI file."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        video = source.streams.video[0]
        stream = container.add_stream("mpeg4", rate=video.average_rate, options={"q": "3"})
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
        for number, frame in enumerate(source.decode(video)):
            image = frame.reformat(format="yuv420p")
            image.pts, image.time_base = number, 1 / video.average_rate
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def first_name(page: Page) -> str:
    return page.locator(f"{FIRST} >> h2").inner_text()


def span_of(page: Page) -> tuple[float, float]:
    """Read the span that is open from the address of the page."""
    match = re.search(r"hit=[0-9a-f]{16}@([\d.]+)-([\d.]+)", page.evaluate("location.search"))
    assert match, page.url
    return float(match[1]), float(match[2])


def file_time(page: Page) -> float:
    """Read the time of the file that is shown; that of a preview begins later than its own clock."""
    return float(page.get_by_role("slider", name="Position").get_attribute("aria-valuenow") or "nan")


def download(page: Page) -> tuple[str, bytes]:
    """Download the finished export: its name and content."""
    with page.expect_download() as started:
        page.click("dialog >> text=Download")
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def export(page: Page, form: str) -> tuple[str, bytes]:
    """Export the two spans of the tray in the open dialog."""
    page.click(f"dialog label:has(b:text-is('{form}'))")
    page.click("dialog >> text=Export 2 spans")
    page.wait_for_selector("dialog >> text=/ is ready, /", timeout=60_000)
    found = download(page)
    page.wait_for_function("() => document.querySelector('dialog[open] [type=submit]').disabled === false")
    return found


def test_a_caption_finds_its_clip_and_plays_the_span(open_page: OpenPage, captions: dict[str, str]) -> None:
    page = open_page()
    assert not violations(page)
    for name in (SOUP, DOG):
        search(page, captions[name])
        assert first_name(page) == name
    page.wait_for_function(HAS_HEAT)
    assert not violations(page)
    page.click(f"{FIRST} >> .best")
    start_s, end_s = span_of(page)
    times = [wait_until_playing(page)]
    for _ in range(5):
        page.wait_for_timeout(150)
        times.append(play_state(page)["time_s"])
    assert all(start_s - 0.05 <= time_s <= end_s + 0.25 for time_s in times), (start_s, end_s, times)
    assert len(set(times)) > 2, f"frames do not advance: {times}"
    assert play_state(page)["width"] == 640
    assert not violations(page)
    opened = page.evaluate("location.search")
    search(page, captions[SOUP])
    page.go_back()
    page.wait_for_selector(".card.open + .player video")
    assert (page.evaluate("location.search"), page.input_value("#query")) == (opened, captions[DOG])
    page.reload()
    page.wait_for_selector(".card.open + .player video")
    page.wait_for_function(
        "(start) => Math.abs(document.querySelector('.player video').currentTime - start) < 0.1", arg=start_s
    )
    assert (first_name(page), page.input_value("#query")) == (DOG, captions[DOG])
    page.go_forward()
    page.wait_for_function("() => !document.querySelector('.player')")
    assert page.input_value("#query") == captions[SOUP]


def test_an_image_that_is_dropped_finds_its_clip(open_page: OpenPage, site: Site) -> None:
    with av.open(str(site.library / BEACH)) as container:
        frame = list(container.decode(video=0))[40].to_image()
    content = io.BytesIO()
    frame.resize((320, 180)).save(content, "JPEG", quality=80)
    page = open_page()
    page.wait_for_selector(".start-title")
    drop(page, content.getvalue(), "frame.jpg", "image/jpeg")
    page.wait_for_selector("[role=feed] .card")
    assert first_name(page) == BEACH
    assert not violations(page)
    page.reload()
    page.wait_for_selector("[role=feed] .card")
    assert first_name(page) == BEACH, "the image is kept by the server, and named in the address"


def test_a_name_that_is_taught_from_a_hit_is_found(open_page: OpenPage, captions: dict[str, str]) -> None:
    page = open_page()
    search(page, captions[DOG])
    page.click(f"{FIRST} >> [data-action=teach]")
    page.locator("#panel").get_by_label("This is").fill("Bruno")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=1 image added: Bruno has 1 image now.")
    page.click("#panel >> text=Find Bruno")
    page.wait_for_selector("#panel >> text=/Bruno is in \\d+ files?:/")
    page.wait_for_function("() => document.querySelector('#panel .face img[alt]')?.naturalWidth > 0")
    assert DOG in page.locator("#panel .block.open .path").all_inner_texts()
    assert not violations(page)
    page.click("[aria-label='Close the panel']")
    search(page, "Bruno")
    assert first_name(page) == DOG
    assert page.locator(f"{FIRST} >> .badge.name").inner_text() == "Bruno"
    page.fill("#query", "bru")
    page.wait_for_selector("#suggestions >> text=Bruno")
    page.click(f"{FIRST} >> [data-action=why]")
    page.wait_for_function("() => document.querySelectorAll('#panel .pair .weight-bar i').length >= 2")
    weights = page.locator("#panel .pair").first.locator(".weight .numbers").all_inner_texts()
    assert any(float(weight) > 0 for weight in weights)
    assert not violations(page)


def test_the_tray_is_exported_and_the_files_read_back(
    open_page: OpenPage, captions: dict[str, str], tmp_path: Path
) -> None:
    page = open_page()
    spans: list[tuple[float, float]] = []
    for name in (SOUP, BEACH):
        search(page, captions[name])
        assert first_name(page) == name
        page.click(f"{FIRST} >> .best")
        page.wait_for_selector(".player video")
        spans.append(span_of(page))
        page.click(f"{FIRST} >> [data-action=add]")
    page.reload()
    page.click(".tray-toggle")
    assert page.locator(".tray-card .tray-name").all_inner_texts() == [SOUP, BEACH], "a reload keeps the tray"
    assert not violations(page)
    page.click(".tray-bar >> text=Export")
    name, content = export(page, "EDL")
    assert name.endswith(".edl")
    assert not violations(page)
    read = otio.adapters.read_from_string(content.decode(), "cmx_3600", rate=FPS)
    clips = list(read.video_tracks()[0].find_clips())
    assert [clip.name for clip in clips] == [SOUP, BEACH]
    frames = [(clip.source_range.start_time.value, clip.source_range.duration.value) for clip in clips]
    assert frames == [(round(start * FPS), round(end * FPS) - round(start * FPS)) for start, end in spans]
    name, content = export(page, "Clips")
    assert name.endswith(".zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(tmp_path)
    written = sorted(tmp_path.rglob("*.mp4"))
    for path, (start_s, end_s) in zip(written, spans, strict=True):
        with av.open(str(path)) as container:
            times = [frame.time for frame in container.decode(video=0)]
        assert times[0] == 0
        assert len(times) == pytest.approx((end_s - start_s) * FPS, abs=1)


def test_a_video_that_browsers_do_not_play_plays_by_its_preview(open_page: OpenPage, captions: dict[str, str]) -> None:
    page = open_page()
    search(page, captions[f"{ELEPHANT}.mp4"])
    assert first_name(page) == f"{ELEPHANT}.avi"
    page.click(f"{FIRST} >> .best")
    start_s, end_s = span_of(page)
    page.wait_for_selector(".player-notice >> text=/^Preview, since not every browser plays AVI files/")
    first = wait_until_playing(page)
    page.wait_for_function("(first) => document.querySelector('.player video').currentTime > first", arg=first)
    assert "/previews/" in play_state(page)["src"]
    assert play_state(page)["width"] > 0
    assert start_s - 0.1 <= file_time(page) <= end_s + 0.25
    assert not violations(page)


def test_indexing_jobs_are_watched_and_cancelled(
    open_page: OpenPage, site: Site, data_dir: Path, captions: dict[str, str]
) -> None:
    clips = data_dir / "videos" / "panda"
    for folder, names in (("long", LONG), ("new", (SNAKE,))):
        (site.library / folder).mkdir()
        for name in names:
            shutil.copy(clips / f"{name}.mp4", site.library / folder)
    page = open_page()
    page.click("[data-panel=index]")
    page.wait_for_selector("#panel dt:text-is('Videos') + dd:text-is('12')")
    field = page.get_by_label("A folder inside those of the index")
    field.fill(str(site.library / "long"))
    field.press("Enter")
    job = page.locator("#panel .job >> nth=0")
    job.get_by_text("0 of 3 files").wait_for(timeout=60_000)
    job.get_by_text("Pause").click()
    job.get_by_text("Indexing: paused").wait_for()
    assert job.locator("progress").get_attribute("value") is not None
    assert job.get_by_text(".mp4").inner_text() in {f"{name}.mp4" for name in LONG}
    assert not violations(page)
    job.get_by_text("Cancel").click()
    job.get_by_text("Indexing: cancelled").wait_for(timeout=30_000)
    field.fill(str(site.library / "new"))
    field.press("Enter")
    job.get_by_text("Indexing: done").wait_for(timeout=60_000)
    assert job.get_by_text("1 added").is_visible()
    page.wait_for_selector("#panel dt:text-is('Videos') + dd:text-is('13')")
    assert not violations(page)
    page.click("[aria-label='Close the panel']")
    search(page, captions[f"{SNAKE}.mp4"])
    assert first_name(page) == f"{SNAKE}.mp4", "what a job has indexed is found at once"


def test_the_reference_set_is_switched(open_page: OpenPage, captions: dict[str, str]) -> None:
    page = open_page()
    search(page, captions[DOG])
    for name, ready in (("no reference set", "No reference set is in force."), ("", ".pair")):
        page.click("[data-panel=index]")
        sets = page.locator("section[aria-label='Reference sets'] label")
        (sets.filter(has_text=name) if name else sets).first.click()
        page.wait_for_selector(f".toast:has-text('In force: {name}')")
        page.locator(".toast button").first.click()
        page.click("[aria-label='Close the panel']")
        search(page, captions[SOUP if name else DOG])
        assert first_name(page) == (SOUP if name else DOG)
        page.click(f"{FIRST} >> [data-action=why]")
        page.wait_for_selector(f"#panel >> {ready if ready.startswith('.') else 'text=' + ready}")
        assert not violations(page)
        page.click("[aria-label='Close the panel']")


def test_the_token_is_asked_for_once(chromium: Browser, site: Site, captions: dict[str, str], tmp_path: Path) -> None:
    from impart.serve.settings import ServeSettings

    token = "a token of many letters"
    index = site.library.parent / "library.impart"
    settings = ServeSettings(index=index, cache=tmp_path / "cache", token=token, requests_per_s=10_000)
    with serving(settings) as address:
        guarded = Site(address, site.library)
        with opening(chromium, guarded) as open_page:
            page = open_page(allowed=("401",))
            assert not violations(page)
            page.fill("#token", "another token of letters")
            page.click("text=Open")
            page.wait_for_selector("text=this is not the token of this server")
            page.fill("#token", token)
            page.click("text=Open")
            search(page, captions[SOUP])
            page.click(f"{FIRST} >> .best")
            wait_until_playing(page)
            page.click(f"{FIRST} >> [data-action=add]")
            streams: list[int] = []
            page.on("response", lambda answer: streams.append(answer.status) if "/events" in answer.url else None)
            page.click(".tray-bar >> text=Export")
            page.click("dialog label:has(b:text-is('CSV'))")
            page.click("dialog >> text=Export 1 span")
            page.wait_for_selector("dialog >> text=/ is ready, /")
            assert download(page)[1].count(b"\n") == 2
            assert set(streams) == {200}
            page.reload()
            page.wait_for_selector("[role=feed] .card")
            assert not page.locator("#token").count()
