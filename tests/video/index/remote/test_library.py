"""Index, search, names, reference sets and prune on object storage: as in a folder, and seen by other machines."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

from helpers.clips import solid, write_clip
from helpers.colour_references import colour_set
from helpers.index_rows import encoder, rows_of
from helpers.s3_server import S3Server
from helpers.tiny_encoder import TinyEncoder
from helpers.tiny_server import API, client_of
from impart.cli.main import app
from impart.encoders.base import register
from impart.serve.mcp.client_config import stdio_config
from impart.video.index.index import VideoIndex
from impart.video.index.pause import is_paused, pause, resume
from impart.video.index.remote.location import place_of
from impart.video.index.remote.mirror import mirror_of


def settle(*indexes: VideoIndex) -> None:
    """Ask the server again now, and not only after a quarter of a second."""
    for index in indexes:
        mirror = mirror_of(index.path)
        assert mirror is not None
        mirror.forget()


def paths_of(hits: list[Any]) -> list[str]:
    return [hit.path.name for hit in hits]


def test_an_index_at_a_url_has_the_rows_and_hits_of_one_in_a_folder(url: str, films: Path, tmp_path: Path) -> None:
    (films / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypisom" + bytes(200))
    pages = []
    for place in (str(tmp_path / "local"), url):
        index = VideoIndex.open(place, encoder())
        events = [type(event).__name__ for event in index.add([films])]
        index.names.add("our colour", [solid("red"), solid("blue")])
        hits = [index.search(text=text, by="frame") for text in ("red", "green", "our colour")]
        scores = np.array([hit.score for found in hits for hit in found])
        stats = index.stats()
        pages.append((events, [paths_of(found) for found in hits], stats.segments, stats.failures, rows_of(index.path)))
        assert paths_of(index.find("our colour"))
        assert scores.size
    assert pages[0] == pages[1]


def test_another_machine_sees_what_the_first_one_commits(
    url: str, films: Path, on_machine: Callable[[str], None], tmp_path: Path
) -> None:
    first = VideoIndex.open(url, encoder())
    list(first.add([films / "red.mp4"]))
    on_machine("there")
    second = VideoIndex.open(url, TinyEncoder(), create=False)
    assert second.path != first.path
    assert paths_of(second.search(text="green")) == ["red.mp4"]
    list(first.add([films]))
    settle(first, second)
    assert paths_of(second.search(text="green"))[0] == "green.mp4"

    first.names.add("our colour", [solid("blue")])
    settle(first, second)
    assert [info.name for info in second.names.list()] == ["our colour"]
    assert second.names.list()[0].thumbnails[0] is not None
    second.names.rename("our colour", "their colour")
    settle(first, second)
    assert [info.name for info in first.names.list()] == ["their colour"]
    second.names.remove("their colour")
    settle(first, second)
    assert first.names.list() == ()

    second.use_references(None)
    settle(first, second)
    assert first.manifest.augmentation is None
    assert first.search(text="green", why=True)[0].why == ()
    first.use_references(colour_set())
    settle(first, second)
    assert second.manifest.augmentation is not None
    assert second.search(image=solid("green"), why=True)[0].why[0].text == "green"
    assert (second.path / second.manifest.augmentation.folder / "manifest.json").is_file()

    (films / "green.mp4").unlink()
    assert [type(event).__name__ for event in second.add([films], prune=True)].count("VideoRemoved") == 1
    settle(first, second)
    assert "green.mp4" not in paths_of(first.search(text="green"))

    pause(first.path)
    mirror = mirror_of(second.path)
    assert mirror is not None
    mirror.refresh(whole=True)
    assert is_paused(second.path)
    assert resume(second.path)
    assert not is_paused(second.path)


def test_a_second_search_reads_no_table(url: str, films: Path, server: S3Server, on_machine: Any) -> None:
    list(VideoIndex.open(url, encoder()).add([films]))
    on_machine("there")
    counts = []
    for _ in range(2):
        before = len(server.requests())
        assert paths_of(VideoIndex.open(url, TinyEncoder()).search(text="red"))[0] == "red.mp4"
        counts.append(server.requests()[before:])
    tables = [[one for one in requests if ".lance/data/" in one] for requests in counts]
    assert tables[0]
    assert not tables[1], "the second search reads the local cache"
    index = VideoIndex.open(url, TinyEncoder())
    index.search(text="red")
    settle(index)
    before = len(server.requests())
    index.search(text="green")
    assert len(server.requests()) - before <= 6, "two manifests and the versions of a table, twice if it is slow"


def test_what_was_not_uploaded_is_taken_back(url: str, films: Path) -> None:
    index = VideoIndex.open(url, encoder())
    list(index.add([films / "red.mp4"]))
    index.names.add("our colour", [solid("blue")])
    manifest, names = index.path / "manifest.json", index.path / "names"
    whole, pairs = manifest.read_bytes(), next(names.glob("pairs-*"))
    manifest.write_text("{}", encoding="utf-8")
    (names / "manifest.json").unlink()
    shutil.copyfile(pairs, names / "pairs-0123456789abcdef.arrow")
    (index.path / "crops").mkdir()
    (index.path / "crops" / "x.npy").touch()
    os.truncate(pairs, 10)
    mirror = mirror_of(index.path)
    assert mirror is not None
    mirror.refresh(whole=True)
    assert manifest.read_bytes() == whole
    assert sorted(path.name for path in names.glob("*.arrow")) == [pairs.name]
    assert [info.name for info in VideoIndex.open(url, TinyEncoder()).names.list()] == ["our colour"]
    assert not list((index.path / "crops").iterdir())


def test_manifests_are_uploaded_last(url: str, films: Path, server: S3Server) -> None:
    before = len(server.requests())
    index = VideoIndex.open(url, encoder())
    list(index.add([films / "red.mp4"]))
    index.names.add("our colour", [solid("blue")])
    key = url.partition("://")[2]
    puts = [one.removeprefix(f"PUT /{key}/") for one in server.requests()[before:] if one.startswith("PUT ")]
    puts = [one for one in puts if not one.startswith("locks/")]
    assert puts.index("manifest.json") < puts.index("manifest.copy.json")
    reference = [place for place, one in enumerate(puts) if one.startswith("references/")]
    assert max(reference) < puts.index("manifest.json")
    taught = [one for one in puts if one.startswith("names/") and not one.endswith("/")]
    assert taught[-1] == "names/manifest.json"
    assert len(taught) == 3


def test_an_index_that_was_copied_to_a_bucket_is_used(url: str, films: Path, tmp_path: Path) -> None:
    from pyarrow import fs

    local = VideoIndex.open(tmp_path / "local", encoder())
    list(local.add([films]))
    mirror = mirror_of(VideoIndex.open(url, TinyEncoder()).path)
    assert mirror is not None
    fs.copy_files(str(local.path), mirror.location.key(""), destination_filesystem=mirror.bucket._files())
    index = VideoIndex.open(url, TinyEncoder(), create=False)
    assert paths_of(index.search(text="green")) == paths_of(local.search(text="green"))
    write_clip(films / "grey.mp4", colours=["grey"])
    assert [type(event).__name__ for event in index.add([films])].count("VideoDone") == 1


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_the_commands_take_a_url(url: str, films: Path, tmp_path: Path) -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))
    made = run("index", films, "-i", url, "-e", "tiny")
    assert f"{url}: 3 added" in made.stdout
    assert f"-i {url}" in made.stderr
    assert run("stats", "-i", url).stdout.startswith(f"{url}: 3 videos")
    found = json.loads(run("search", "red", "-i", url, "--format", "json").stdout)
    assert found["hits"][0]["path"].endswith("red.mp4")
    run("export", "-i", url, "1", "--out", tmp_path / "cut.edl")
    colour_set().save(tmp_path / "colours")
    assert url in run("refset", "use", tmp_path / "colours", "-i", url).output
    run("names", "add", "leaf", films / "green.mp4@0.2", "-i", url)
    assert "leaf" in run("names", "list", "-i", url).stdout
    assert "green.mp4" in run("names", "find", "leaf", "-i", url).stdout
    run("names", "discover", "-i", url, "--page", tmp_path / "page.html")
    assert "red.mp4" in run("scenes", "-i", url).stdout
    run("duplicates", "-i", url)
    assert run("pause", "-i", url).stderr.strip().endswith(f"impart resume -i {url}")
    run("resume", "-i", url)
    (films / "blue.mp4").unlink()
    assert "1 removed" in run("index", films, "-i", url, "--prune").stdout
    assert url in stdio_config(place_of(url))["mcpServers"]["impart"]["args"]


def test_a_server_answers_from_a_url(url: str, films: Path) -> None:
    index = VideoIndex.open(url, encoder())
    list(index.add([films / "red.mp4"]))
    with client_of(index.path) as client:
        assert client.post(f"{API}/search", json={"text": "red"}).json()["hits"][0]["name"] == "red.mp4"
        list(index.add([films]))
        until = time.monotonic() + 20
        while client.get(f"{API}/index").json()["videos"] < 3 and time.monotonic() < until:
            time.sleep(0.1)
        assert client.get(f"{API}/index").json()["videos"] == 3
