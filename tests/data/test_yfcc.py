"""`prepare`, which `impart data yfcc` runs: with images made in place, and with img2dataset and a loopback server."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from helpers.photo_server import PhotoServer, image, photo_server
from impart.data import fetch as fetching
from impart.data.captions import clean_text, join_caption
from impart.data.fetch import Fetched, FetchSettings
from impart.data.shards import ImageSettings, checked_image, split_of
from impart.data.yfcc import YfccProgress, YfccSettings, prepare
from impart.data.yfcc_table import OFFICIAL, OFFICIAL_LATER, read_metadata
from impart.errors import ConfigError, DataError, MissingExtraError
from impart.refset.pairs import read_pairs

HEADER = ["photoid", "uid", "title", "description", "usertags", "downloadurl", "licensename", "licenseurl", "marker"]
QUICK = FetchSettings(retries=1, timeout_s=1.5, deadline_s=2.5, pause_s=0.05, threads=16, batch=8)


def row(
    photoid: str, url: str, *, title: str = "", description: str = "", licence: str = "CC BY", marker: str = "0"
) -> dict[str, str]:
    return {
        "photoid": photoid,
        "uid": "1@N00",
        "title": title or f"a photo number {photoid}",
        "description": description,
        "usertags": "sea,dog",
        "downloadurl": url,
        "licensename": licence,
        "licenseurl": "http://creativecommons.org/licenses/by/2.0/",
        "marker": marker,
    }


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(files: list[Path], out: Path, settings: YfccSettings) -> list[YfccProgress]:
    return list(prepare(files, out, settings))


def manifest_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())  # type: ignore[no-any-return]


def failures(out: Path) -> dict[str, tuple[str, str]]:
    with (out / "failures.csv").open(encoding="utf-8", newline="") as file:
        return {line["photoid"]: (line["outcome"], line["reason"]) for line in csv.DictReader(file)}


def samples(folder: Path) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = tar.extractfile(member).read()  # type: ignore[union-attr]
    return found


@pytest.fixture
def site() -> Iterator[PhotoServer]:
    with photo_server() as server:
        yield server


@pytest.fixture
def directly(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Make images in place of fetching them: `/ok/7.jpg` is image 7, other URLs fail. Returns the lists of URLs."""
    asked: list[list[str]] = []
    monkeypatch.setattr(fetching, "require_img2dataset", lambda: None)

    def fetch(urls: list[str], folder: Path, settings: FetchSettings) -> Iterator[int]:
        asked.append(list(urls))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "urls.json").write_text(json.dumps(urls))
        yield len(urls)

    def read_fetched(folder: Path, *, count: int) -> Iterator[Fetched]:
        for number, url in enumerate(json.loads((folder / "urls.json").read_text()) if count else []):
            good = "/ok/" in url
            name = int(url.rsplit("/", 1)[1].partition(".")[0])
            yield Fetched(number=number, data=image(name) if good else None, fault="" if good else "HTTP 404")

    monkeypatch.setattr(fetching, "fetch", fetch)
    monkeypatch.setattr(fetching, "read_fetched", read_fetched)
    return asked


# --- captions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>Two&nbsp;dogs &amp; a <b>c</b>at</p>", "Two dogs & a cat"),
        ("&lt;a href=&quot;x&quot;&gt;Harbour&lt;/a&gt; at night", "Harbour at night"),
        ("5 < 6 and 7 > 3 dogs", "5 < 6 and 7 > 3 dogs"),
        ("See http://flic.kr/p/abc or www.example.org/x, mail me@example.org", "See or, mail"),
        ("_MG_1234 copy", "copy"),
        ("P1010023.JPG", ""),
        ("DSCN0042", ""),
        ("100_2345", ""),
        ("20080712-123456 Harbour", "Harbour"),
        ("Route 66 in 2008", "Route 66 in 2008"),
        ("woo" + "o" * 23 + " fun", "fun"),
        ("woo" + "o" * 22 + " fun", "woo" + "o" * 22 + " fun"),
        ("!!! 123 ...", ""),
        ("line one\r\nline\x00 two\u200b", "line one line two"),
        ("Café ☕ 東京タワー", "Café ☕ 東京タワー"),
    ],
)
def test_clean_text(text: str, expected: str) -> None:
    assert clean_text(text) == expected


def test_join_caption() -> None:
    assert join_caption(["Dog", ""]) == "Dog"
    assert join_caption(["The dog!", "He runs."]) == "The dog! He runs."
    assert join_caption(["A long walk", "by the sea"], max_words=4) == "A long walk. by"


# --- metadata ---------------------------------------------------------------------------------------------------


def official(columns: list[str], **values: str) -> str:
    return "\t".join(values.get(name, "") for name in columns)


@pytest.mark.parametrize("columns", [OFFICIAL, OFFICIAL_LATER], ids=["23 columns", "25 columns"])
@pytest.mark.parametrize("suffix", ["", ".bz2", ".gz"])
def test_the_official_dump_has_no_header_and_is_percent_encoded(
    columns: list[str], suffix: str, tmp_path: Path
) -> None:
    lines = [
        official(
            columns,
            photoid="1",
            title="A+%22dog%22",
            description="caf%C3%A9+%26amp%3B+bar",
            downloadurl="http://x/1.jpg",
        ),
        official(columns, photoid="2", title='"quote', downloadurl="http://x/2.jpg", licensename="CC BY", marker="1"),
        "cut\toff",
    ]
    opener = {"": open, ".bz2": bz2.open, ".gz": gzip.open}[suffix]
    path = tmp_path / f"yfcc100m_dataset{suffix}"
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    first, second, third = read_metadata(path)
    assert (first.photoid, first.title, first.description) == ("1", 'A "dog"', "café &amp; bar")
    assert (second.title, second.licence, second.marker) == ('"quote', "CC BY", "1")
    assert third.fault == f"2 columns instead of {len(columns)}"


def test_csv_tsv_and_parquet_give_the_same_rows(tmp_path: Path) -> None:
    rows = [
        row("1", "http://x/1.jpg", title="C++ and, dogs"),
        row("2", "http://x/2.jpg", description='say "hi"\nthere'),
    ]
    table = write_csv(tmp_path / "a.csv", rows)
    with (tmp_path / "a.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, HEADER, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist([r | {"img": b"not read"} for r in rows]), tmp_path / "a.parquet")
    expected = list(read_metadata(table))
    assert [r.title for r in expected] == ["C++ and, dogs", "a photo number 2"]
    assert list(read_metadata(tmp_path / "a.tsv")) == expected
    assert list(read_metadata(tmp_path / "a.parquet")) == expected


def test_quotes_in_a_tab_separated_file_do_not_change_other_rows(tmp_path: Path) -> None:
    lines = [
        "photoid\ttitle\tdownloadurl\tdescription",
        "1\tplain\thttp://a/1\tone",
        '2\t"lone quote\thttp://a/2\ttwo',
        '3\t"quoted ""twice"""\thttp://a/3\tthree',
        '4\t"a\ttab"\thttp://a/4\tfour',
        '5\tfive\thttp://a/5\t"of two',
        'lines"',
        '6\tsix\thttp://a/6\t"never closed',
        "7\ttoo few",
        '8\teight\thttp://a/8\t6" wide',
        '9\tnine\thttp://a/9\t"',
    ]
    (tmp_path / "a.tsv").write_text("\n".join(lines) + "\n")
    rows = {row.photoid: row for row in read_metadata(tmp_path / "a.tsv")}
    good = {key: (row.title, row.description) for key, row in rows.items() if not row.fault}
    assert good == {
        "1": ("plain", "one"),
        "2": ('"lone quote', "two"),
        "3": ('quoted "twice"', "three"),
        "4": ("a\ttab", "four"),
        "5": ("five", "of two\nlines"),
        "6": ("six", '"never closed'),
        "8": ("eight", '6" wide'),
        "9": ("nine", '"'),
    }
    assert sum(bool(row.fault) for row in rows.values()) == 1


def test_the_error_for_another_table_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("file,caption\na.jpg,a dog\n")
    with pytest.raises(
        DataError, match=r"a\.csv is not YFCC.*columns file, caption; it lacks photoid, downloadurl, title"
    ):
        list(read_metadata(tmp_path / "a.csv"))
    with pytest.raises(DataError, match=r"b\.csv does not exist"):
        list(read_metadata(tmp_path / "b.csv"))
    (tmp_path / "c.bz2").write_bytes(bz2.compress(b"photoid,title,downloadurl\n" * 10000)[:-20])
    with pytest.raises(DataError, match="is the file complete"):
        list(read_metadata(tmp_path / "c.bz2"))


# --- images and the split -------------------------------------------------------------------------------------


def test_images_are_checked_and_resized() -> None:
    settings = ImageSettings(image_size=64)
    small, large = image(1, size=(60, 80)), image(2, size=(300, 200), form="PNG")
    assert checked_image(small, settings) == (small, 60, 80)
    data, width, height = checked_image(large, settings)
    assert (width, height) == (96, 64)
    assert Image.open(io.BytesIO(data)).size == (96, 64)
    data, width, height = checked_image(large, ImageSettings(image_size=0))
    assert (width, height) == (300, 200)
    for bad, reason in (
        (small[:-200], "the image is cut off"),
        (b"\xef\xbb\xbf <HTML>", "HTML instead of an image"),
        (b"text", "not an image"),
        (image(1, size=(20, 90)), "smaller than 32 px"),
    ):
        with pytest.raises(DataError, match=reason):
            checked_image(bad, settings)


def test_the_split_follows_from_the_photoid() -> None:
    splits = [split_of(str(photo), reference=0.1) for photo in range(5000)]
    assert 0.085 < splits.count("reference") / 5000 < 0.115
    wider = [split_of(str(photo), reference=0.15) for photo in range(5000)]
    assert all(b == "reference" for a, b in zip(splits, wider, strict=True) if a == "reference")


# --- prepare, with images made in place -----------------------------------------------------------------------


def test_pairs_keep_their_split_when_files_are_added(tmp_path: Path, directly: list[list[str]]) -> None:
    rows = [row(str(i), f"http://x/ok/{i}.jpg") for i in range(60)]
    first, second = write_csv(tmp_path / "a.csv", rows[:25]), write_csv(tmp_path / "b.csv", rows)
    settings = YfccSettings(reference=0.3, shard_size=8)
    run([first], tmp_path / "grown", settings)
    before = {split: set(samples(tmp_path / "grown" / split)) for split in ("train", "reference")}
    run([second], tmp_path / "grown", settings)
    assert [len(urls) for urls in directly] == [25, 35]
    run([second], tmp_path / "at_once", settings)
    for split in before:
        grown = samples(tmp_path / "grown" / split)
        assert before[split] < set(grown)
        assert grown == samples(tmp_path / "at_once" / split)
    manifest = manifest_of(tmp_path / "grown")
    assert sum(manifest["counts"].values()) == 60
    assert max(shard["pairs"] for shard in manifest["shards"]["train"]) == 8


def test_a_second_run_fetches_nothing_and_must_have_the_same_settings(
    tmp_path: Path, directly: list[list[str]]
) -> None:
    table = write_csv(tmp_path / "a.csv", [row(str(i), f"http://x/ok/{i}.jpg") for i in range(10)])
    run([table], tmp_path / "out", YfccSettings(part_size=4))
    files = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.tar"))}
    events = run([table], tmp_path / "out", YfccSettings(part_size=4))
    assert len(directly) == 3
    assert [event.phase for event in events] == ["known"] * 3 + ["done"]
    assert files == {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.tar"))}
    with pytest.raises(DataError, match=r"other settings \(reference 0.1 -> 0.2\)"):
        run([table], tmp_path / "out", YfccSettings(reference=0.2))
    with pytest.raises(DataError, match="contains files of another program"):
        run([table], tmp_path, YfccSettings())
    with pytest.raises(ConfigError, match="between 0 and"):
        YfccSettings(reference=10)
    with pytest.raises(ConfigError, match="usertags"):
        YfccSettings(caption=("titel",))


@pytest.mark.parametrize("stop", ["before", "after"])
def test_an_interrupted_commit_is_finished_at_the_next_start(
    stop: str, tmp_path: Path, directly: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is killed before the commit of a part is written, or while its shards are moved."""
    from impart.data import pair_store

    table = write_csv(tmp_path / "a.csv", [row(str(i), f"http://x/ok/{i}.jpg") for i in range(20)])
    settings = YfccSettings(reference=0.3, part_size=10)
    run([table], tmp_path / "whole", settings)
    real = pair_store.PairStore._move_to_places

    def killed(self: pair_store.PairStore, work: Path) -> None:
        if stop == "before":
            (work / "commit.json").unlink()
        else:
            moves = json.loads((work / "commit.json").read_text())["moves"]
            name, final = next(iter(moves.items()))
            (work / "out" / name).replace(tmp_path / "out" / final.split("-")[0] / final)
        raise KeyboardInterrupt

    monkeypatch.setattr(pair_store.PairStore, "_move_to_places", killed)
    with pytest.raises(KeyboardInterrupt):
        run([table], tmp_path / "out", settings)
    monkeypatch.setattr(pair_store.PairStore, "_move_to_places", real)
    run([table], tmp_path / "out", settings)
    for split in ("train", "reference"):
        shards = sorted(path.name for path in (tmp_path / "out" / split).iterdir())
        assert shards == sorted(path.name for path in (tmp_path / "whole" / split).iterdir())
        for name in shards:
            assert (tmp_path / "out" / split / name).read_bytes() == (tmp_path / "whole" / split / name).read_bytes()
    assert not list((tmp_path / "out" / ".state" / "work").iterdir())


def test_retry_failed_fetches_failed_images_again(
    tmp_path: Path, directly: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = [f"http://x/{'missing' if i % 2 else 'ok'}/{i}.jpg" for i in range(6)]
    table = write_csv(tmp_path / "a.csv", [row(str(i), url) for i, url in enumerate(urls)])
    run([table], tmp_path / "out", YfccSettings())
    assert len(failures(tmp_path / "out")) == 3
    run([table], tmp_path / "out", YfccSettings(retry_failed=True))
    assert directly[1] == urls[1::2]
    assert len(failures(tmp_path / "out")) == 3
    here = fetching.read_fetched

    def back(folder: Path, *, count: int) -> Iterator[Fetched]:
        for item in here(folder, count=count):
            yield Fetched(number=item.number, data=image(100 + item.number))

    monkeypatch.setattr(fetching, "read_fetched", back)
    run([table], tmp_path / "out", YfccSettings(retry_failed=True))
    manifest = manifest_of(tmp_path / "out")
    assert sum(manifest["counts"].values()) == 6
    assert failures(tmp_path / "out") == {}
    assert manifest["failed"] == {}


def test_every_row_without_a_pair_is_listed(tmp_path: Path, directly: list[list[str]]) -> None:
    missing = row("7", "http://x/missing/7.jpg")
    tables = [
        write_csv(tmp_path / name, [missing, missing, row(str(i), "http://x/ok/1.jpg")])
        for i, name in [(1, "a"), (2, "b")]
    ]
    for table in tables:
        with table.open("a") as file:
            file.write("5,too,short\n")
    run(tables, tmp_path / "out", YfccSettings())
    manifest = manifest_of(tmp_path / "out")
    assert manifest["failed"] == {"HTTP 404": 1, "3 columns instead of 9": 2}
    assert manifest["dropped"] == {"the photoid was there before": 2, "the same file as another photo": 1}
    assert {"a:4", "b:4"} < set(failures(tmp_path / "out"))


def test_the_manifest_of_a_stopped_run_is_marked_incomplete(tmp_path: Path, directly: list[list[str]]) -> None:
    table = write_csv(tmp_path / "a.csv", [row(str(i), f"http://x/ok/{i}.jpg") for i in range(8)])
    events = prepare([table], tmp_path / "out", YfccSettings(part_size=4))
    assert next(event for event in events if event.phase == "part").rows == 4
    events.close()
    manifest = manifest_of(tmp_path / "out")
    assert manifest["complete"] is False
    assert sum(manifest["counts"].values()) == 4
    assert sum(run([table], tmp_path / "out", YfccSettings(part_size=4))[-1].pairs.values()) == 8
    assert len(directly) == 2


OLD_KEY = "9b216e5e895d6809"
OLD_FAILURES = """photoid,url,outcome,reason
1,http://x/missing/1.jpg,failed,HTTP 404
2,http://x/ok/2.jpg,failed,the picture is cut off
3,http://x/ok/0.jpg,dropped,the same file as another photo
"""


def write_old_folder(out: Path) -> None:
    """Write a folder as version 0.1.0 did: one part of four rows, one pair. The numbers are of that version."""
    parts = out / ".state" / "parts"
    parts.mkdir(parents=True)
    (out / "train").mkdir()
    with tarfile.open(out / "train" / "train-00000.tar", "w") as tar:
        for name, content in (("0.jpg", image(0)), ("0.txt", b"a photo number 0"), ("0.json", b"{}")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    settings = {
        "reference": 0.1,
        "caption": ["title", "description"],
        "max_word_letters": 25,
        "max_words": 100,
        "image_size": 256,
        "min_size": 32,
        "quality": 92,
        "max_megapixels": 100.0,
        "shard_size": 10000,
    }
    (out / ".state" / "settings.json").write_text(json.dumps(settings))
    shards = {"train-00000.tar": {"pairs": 1, "bytes": 10240}}
    record = {"order": 0, "key": OLD_KEY, "shards": shards, "licences": {"CC BY": 1}}
    (parts / f"{OLD_KEY}.json").write_text(json.dumps(record))
    (parts / f"{OLD_KEY}.csv").write_text(OLD_FAILURES)
    photos = np.array([6912158355717386040, 5622533601426856843], np.uint64)
    np.savez(parts / f"{OLD_KEY}.npz", photos=photos, images=np.array([4140892164330093402], np.uint64))


def test_a_folder_of_version_0_1_is_resumed(tmp_path: Path, directly: list[list[str]]) -> None:
    urls = {"0": "http://x/ok/0.jpg", "1": "http://x/missing/1.jpg", "2": "http://x/ok/2.jpg", "3": "http://x/ok/0.jpg"}
    table, out = write_csv(tmp_path / "a.csv", [row(key, url) for key, url in urls.items()]), tmp_path / "out"
    write_old_folder(out)
    assert [event.phase for event in run([table], out, YfccSettings())] == ["known", "done"]
    assert (out / "failures.csv").read_text() == OLD_FAILURES
    assert manifest_of(out)["failed"] == {"HTTP 404": 1, "the picture is cut off": 1}
    assert directly == []
    run([table], out, YfccSettings(retry_failed=True))
    assert directly == [[urls["1"], urls["2"]]]
    assert set(samples(out / "train")) | set(samples(out / "reference")) == {"0", "2"}
    assert failures(out) == {
        "1": ("failed", "HTTP 404"),
        "3": ("dropped", "the same file as another photo"),
    }
    assert manifest_of(out)["dropped"] == {"the same file as another photo": 1}


def test_the_manifest_is_the_result_of_the_generator(tmp_path: Path, directly: list[list[str]]) -> None:
    table = write_csv(tmp_path / "a.csv", [row("1", "http://x/ok/1.jpg")])
    results = []

    def followed() -> Iterator[YfccProgress]:
        results.append((yield from prepare([table], tmp_path / "out", YfccSettings())))

    assert [event.phase for event in followed()] == ["fetch", "part", "done"]
    assert results == [manifest_of(tmp_path / "out")]


def test_nothing_is_recorded_when_all_images_fail(tmp_path: Path, directly: list[list[str]]) -> None:
    table = write_csv(tmp_path / "a.csv", [row(str(i), f"http://x/missing/{i}.jpg") for i in range(120)])
    with pytest.raises(DataError, match=r"none of 120 images .* \(120 times: HTTP 404\)"):
        run([table], tmp_path / "out", YfccSettings())
    assert failures(tmp_path / "out") == {}


def test_without_img2dataset_the_error_shows_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "img2dataset", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'impart-clip\[data\]'"):
        run([tmp_path / "a.csv"], tmp_path / "out", YfccSettings())


# --- prepare, with img2dataset ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_kind_of_failure_of_a_site(tmp_path: Path, site: PhotoServer) -> None:
    pytest.importorskip("img2dataset")
    kinds = {
        "ok": [10, 11, 12, 13],
        "large": [20],
        "flaky": [30, 31],
        "same": [40, 41],
        "missing": [50],
        "html": [60],
        "text": [61],
        "half": [70],
        "cut": [71],
        "slow": [80],
        "endless": [81],
        "gone": [90],
    }
    rows = [row(str(i), f"{site.address}/{kind}/{i}.jpg") for kind, numbers in kinds.items() for i in numbers]
    rows += [
        row("1", f"{site.address}/ok/1.jpg", title="DSC_0001", description="<a href='http://x.org'>http://x.org</a>"),
        row("2", f"{site.address}/ok/2.jpg", marker="1"),
        row("3", "file:///etc/hostname"),
        row("10", f"{site.address}/ok/10.jpg"),
        row("14", f"{site.address}/ok/14.jpg", title="A%20dog", description="He &lt;3 the <i>sea</i>", licence="CC0"),
    ]
    settings = YfccSettings(reference=0.3, image=ImageSettings(image_size=128), fetch=QUICK)
    run([write_csv(tmp_path / "meta.csv", rows)], tmp_path / "out", settings)
    manifest = manifest_of(tmp_path / "out")
    train, reference = samples(tmp_path / "out" / "train"), samples(tmp_path / "out" / "reference")
    assert set(train) | set(reference) == {"10", "11", "12", "13", "14", "20", "30", "31", "40"}
    assert set(reference) == {key for key in {**train, **reference} if split_of(key, reference=0.3) == "reference"}
    everything = train | reference
    assert everything["14"]["txt"].decode() == "A dog. He <3 the sea"
    about = json.loads(everything["14"]["json"])
    assert about["photoid"] == "14"
    assert about["licence"] == "CC0"
    assert about["url"].endswith("/ok/14.jpg")
    assert everything["10"]["jpg"] == image(10)
    assert Image.open(io.BytesIO(everything["20"]["jpg"])).size == (171, 128)
    found = failures(tmp_path / "out")
    found_10 = found.pop("10")
    assert found_10 == ("dropped", "the photoid was there before")
    assert found == {
        "41": ("dropped", "the same file as another photo"),
        "50": ("failed", "HTTP 404"),
        "60": ("failed", "HTML instead of an image"),
        "61": ("failed", "not an image"),
        "70": ("failed", "the image is cut off"),
        "71": ("failed", "cut off by the server"),
        "80": ("failed", "timed out"),
        "81": ("failed", "timed out"),
        "90": ("failed", "gone: the site serves a placeholder"),
        "1": ("dropped", "no caption"),
        "2": ("dropped", "a video"),
        "3": ("failed", "no http or https address"),
    }
    assert manifest["complete"]
    assert manifest["failed"]["timed out"] == 2
    assert manifest["licences"] == {"CC BY": 8, "CC0": 1}
    assert manifest["counts"] == {"train": len(train), "reference": len(reference)}
    assert site.asked["/flaky/30.jpg"] == 2
    pairs = list(read_pairs(tmp_path / "out" / "train"))
    assert {pair.text for pair in pairs} == {sample["txt"].decode() for sample in train.values()}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_a_killed_run_resumes_and_leaves_no_process(tmp_path: Path, site: PhotoServer) -> None:
    pytest.importorskip("img2dataset")
    rows = [row(str(i), f"{site.address}/ok/{i}.jpg") for i in range(64)]
    table, out = write_csv(tmp_path / "meta.csv", rows), tmp_path / "out"
    site.delay_s = 0.3
    program = (
        "from pathlib import Path; from impart.data.fetch import FetchSettings; from impart.data.yfcc import *\n"
        f"fetch = FetchSettings(threads=4, batch=8, timeout_s=5)\n"
        f"for event in prepare([Path({str(table)!r})], Path({str(out)!r}), YfccSettings(fetch=fetch)): pass"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    images = []
    while len(images) < 3:
        images = list(out.rglob("*_stats.json"))
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.0)
    asked = site.asked.total()
    assert asked < 64
    time.sleep(1.0)
    assert site.asked.total() == asked  # img2dataset ended with its parent
    site.delay_s = 0.0
    settings = YfccSettings(fetch=FetchSettings(threads=4, batch=8, timeout_s=5))
    run([table], out, settings)
    manifest = manifest_of(out)
    assert sum(manifest["counts"].values()) == 64
    finished = 8 * len(images)
    assert all(site.asked[f"/ok/{i}.jpg"] == 1 for i in range(finished))
    assert set(samples(out / "train")) | set(samples(out / "reference")) == {str(i) for i in range(64)}
    assert list((out / ".state" / "work").iterdir()) == []
