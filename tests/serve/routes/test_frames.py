"""Frames over HTTP."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from helpers.coded_films import number_in, write_coded_film
from helpers.media_server import client_of
from helpers.photos import write_photo

API = "/api/v1"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> tuple[TestClient, dict[str, str], Path]:
    folder = tmp_path_factory.mktemp("frames")
    write_coded_film(folder / "film.mp4", frames=100, size=(320, 192))
    write_photo(folder / "photo.jpg", Image.new("RGB", (3000, 2000), "blue"))
    client, ids = client_of(folder, folder / "film.mp4", folder / "photo.jpg")
    return client, ids, folder


def image_in(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(("time_s", "number"), [(0, 0), (1.0, 25), (1.0391, 25), (1.04, 26), (3.97, 99), (4.5, 99)])
def test_the_frame_that_is_shown_at_a_time(server, time_s, number):
    client, ids, _ = server
    got = client.get(f"{API}/frames/{ids['film.mp4']}.webp?t={time_s}&w=320")
    assert (got.status_code, got.headers["content-type"]) == (200, "image/webp")
    assert number_in(np.asarray(image_in(got.content).convert("RGB"))) == number


@pytest.mark.parametrize(("wanted", "width"), [(1, 160), (160, 160), (161, 320), (1920, 320)])
def test_widths_are_few_and_never_above_the_video(server, wanted, width):
    client, ids, _ = server
    got = client.get(f"{API}/frames/{ids['film.mp4']}.webp?t=1&w={wanted}")
    assert image_in(got.content).size == (width, width * 192 // 320)


def test_a_photo(server):
    client, ids, _ = server
    for width, size in ((320, (320, 213)), (1920, (1920, 1280))):
        got = client.get(f"{API}/frames/{ids['photo.jpg']}.webp?w={width}")
        image = image_in(got.content)
        assert image.size == size
        assert np.abs(np.asarray(image.convert("RGB"))[100, 100].astype(int) - (0, 0, 255)).max() < 12


def test_tags_and_times_to_keep(server):
    client, ids, _ = server
    url = f"{API}/frames/{ids['film.mp4']}.webp?t=2"
    got = client.get(url)
    again = client.get(url, headers={"if-none-match": got.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"{url}.04").headers["etag"] != got.headers["etag"]
    assert "immutable" not in got.headers["cache-control"]
    assert "immutable" in client.get(f"{url}&v=1").headers["cache-control"]
    assert client.head(url).headers["content-length"] == str(len(got.content))


@pytest.mark.parametrize("query", ["t=-1", "t=nan", "t=inf", "w=0", "w=5000", "t=x", "t=99"])
def test_values_that_cannot_work(server, query):
    client, ids, _ = server
    assert client.get(f"{API}/frames/{ids['film.mp4']}.webp?{query}").status_code == 422


def test_a_kept_frame_outlives_its_file(server):
    client, ids, folder = server
    url = f"{API}/frames/{ids['film.mp4']}.webp?t=0.5&w=160"
    first = client.get(url)
    (folder / "film.mp4").rename(folder / "away.mp4")
    try:
        assert client.get(url).content == first.content
        gone = client.get(f"{API}/frames/{ids['film.mp4']}.webp?t=0.7&w=160")
        assert (gone.status_code, gone.json()["code"]) == (404, "file_gone")
    finally:
        (folder / "away.mp4").rename(folder / "film.mp4")
