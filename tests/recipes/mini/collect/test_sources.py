"""Collection of training images: a local repository in place of a host, generated images in place of photographs."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impart.errors import ConfigError, DataError
from impart.recipes.mini.collect import guard
from impart.recipes.mini.collect.git_images import items_of
from impart.recipes.mini.collect.guard import Guard, clean, evaluation_images, looks_drawn, prints_of
from impart.recipes.mini.collect.source_list import Source, read_source_list
from impart.recipes.mini.collect.sources import collect_all, main


def photo(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Generate an image with the many colours and soft edges of a photograph."""
    coarse = np.random.default_rng(seed).integers(0, 230, (6, 8, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = np.random.default_rng(seed + 1000).integers(-9, 10, image.shape, np.int16)
    return Image.fromarray((image + grain).clip(0, 239).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", quality: int = 92) -> bytes:
    stored = io.BytesIO()
    image.save(stored, kind, quality=quality)
    return stored.getvalue()


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, check=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Development data with one evaluation image and one that is trained on already."""
    for name, seed in (("images/coco/images/x.jpg", 50), ("images/flickr8k/images/y.jpg", 60)):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded(photo(seed)))
    return tmp_path / "data"


@pytest.fixture
def remote(tmp_path: Path) -> tuple[str, str]:
    """A repository's URL and the hash of a commit that is not its newest."""
    work = tmp_path / "work"
    flat = Image.new("RGB", (120, 120), "white")
    flat.paste("red", (20, 20, 100, 100))
    files = {
        "images/Sea_Lion-01.jpg": encoded(photo(1)),
        "images/lantern.png": encoded(photo(2), "PNG"),
        "images/lantern2.jpg": encoded(photo(3)),
        "images/drawn.png": encoded(flat, "PNG"),
        "images/tiny.jpg": encoded(photo(4, (40, 40))),
        "images/broken.jpg": b"not an image",
        "images/copied.jpg": encoded(photo(50).resize((96, 72)), quality=60),  # of the evaluation image
        "images/known.jpg": encoded(photo(60).resize((120, 90))),
        "images/again.jpg": encoded(photo(1)),
        "other/skipped.jpg": encoded(photo(5)),
        "words/wateringcan.jpg": encoded(photo(6, (700, 500))),
        "captions.csv": b"image,caption\nC:/images/lantern.png,A child plays.\nlantern.png,A lantern on a table.\n",
    }
    for name, content in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    git(work, "init", "-q")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "images")
    commit = git(work, "rev-parse", "HEAD")
    git(work, "rm", "-q", "-r", "images")
    git(work, "commit", "-q", "-m", "away with them")
    git(tmp_path, "clone", "-q", "--bare", str(work), "owner/images.git")
    return f"file://{tmp_path}/owner/images.git", commit


def list_file(folder: Path, url: str, commit: str, *, more: str = "") -> Path:
    path = folder / "list.toml"
    path.write_text(
        'guarded = ["images/coco"]\nknown = ["images/flickr8k"]\nshort_side_px = 96\n'
        f'[[source]]\nname = "things"\nrepository = "{url}"\ncommit = "{commit}"\nlicence = "MIT"\n'
        "images = '^images/(?P<text>[^/]+)\\.(?:jpg|png)$'\n" + more
    )
    return path


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "captions.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_collects_cleans_and_keeps_evaluation_images_out(tmp_path, data, remote):
    listed = read_source_list(list_file(tmp_path, *remote))
    (report,) = collect_all(listed, tmp_path / "out", data=data)
    rows = rows_of(tmp_path / "out" / "things")
    assert sorted(row["label"] for row in rows) == ["lantern", "lantern", "sea lion"]
    assert {row["text"] for row in rows} == {"a lantern", "a sea lion"}
    assert (report.kept, report.labels) == (3, 2)
    assert (report.broken, report.drawn, report.guarded, report.repeated) == (2, 1, 1, 1)
    for row in rows:
        with Image.open(tmp_path / "out" / "things" / "images" / row["file"]) as image:
            assert (image.format, min(image.size)) == ("JPEG", 96)


def test_continues_after_a_stop_and_repeats_exactly(tmp_path, data, remote):
    more = (
        f'[[source]]\nname = "words"\nrepository = "{remote[0]}"\ncommit = "{remote[1]}"\nlicence = "MIT"\n'
        "images = '^words/(?P<text>[^/]+)\\.jpg$'\n"
    )
    listed = read_source_list(list_file(tmp_path, *remote, more=more))
    out = tmp_path / "out"
    assert [report.name for report in collect_all(listed, out, data=data, only="words")] == ["words"]
    assert rows_of(out / "words")[0]["text"] == "a watering can"
    assert [report.name for report in collect_all(listed, out, data=data)] == ["things"]
    assert list(collect_all(listed, out, data=data)) == []
    list(collect_all(listed, tmp_path / "again", data=data, repositories=out / ".repositories"))
    for folder in ("things", "words"):
        first, second = (
            {path.name: path.read_bytes() for path in (root / folder).rglob("*") if path.is_file()}
            for root in (out, tmp_path / "again")
        )
        assert first == second


def test_texts_from_a_caption_file_one_row_each(tmp_path, data, remote):
    table = '[[source.tables]]\npath = "captions.csv"\nfile = "image"\ntexts = ["caption"]\n'
    (report,) = collect_all(read_source_list(list_file(tmp_path, *remote, more=table)), tmp_path / "out", data=data)
    assert report.kept == 1
    rows = rows_of(tmp_path / "out" / "things")
    assert [row["text"] for row in rows] == ["A child plays.", "A lantern on a table."]
    assert len({row["file"] for row in rows}) == 1
    wrong = table.replace('"caption"', '"text"')
    with pytest.raises(DataError, match=r"captions\.csv does not have the layout of the source list"):
        list(collect_all(read_source_list(list_file(tmp_path, *remote, more=wrong)), tmp_path / "o2", data=data))


def test_a_limit_takes_labels_in_turn(tmp_path, data, remote):
    listed = read_source_list(list_file(tmp_path, *remote, more="per_label = 1\n"))
    (report,) = collect_all(listed, tmp_path / "out", data=data)
    assert (report.kept, report.labels) == (2, 2)


def test_mistakes_are_named(tmp_path, data, remote):
    url, commit = remote
    out = tmp_path / "out"
    with pytest.raises(DataError, match="has no commit 1234"):
        list(collect_all(read_source_list(list_file(tmp_path, url, "1234" * 10)), out, data=data))
    with pytest.raises(DataError, match="no evaluation images"):
        list(collect_all(read_source_list(list_file(tmp_path, url, commit)), out, data=tmp_path / "work"))
    with pytest.raises(ConfigError, match="there are things"):
        list(collect_all(read_source_list(list_file(tmp_path, url, commit)), out, data=data, only="thing"))
    list_file(tmp_path, url, commit).write_text('guarded = []\n[[source]]\nname = "a"\n')
    with pytest.raises(ConfigError, match="'a' has no 'repository'"):
        read_source_list(tmp_path / "list.toml")
    assert not out.joinpath("things").exists()
    assert main(["--data", str(data), "--out", str(out), "--config", str(tmp_path / "none.toml")]) == 1


def test_command_line_writes_the_folder(tmp_path, data, remote):
    path = list_file(tmp_path, *remote)
    assert main(["--data", str(data), "--out", str(tmp_path / "out"), "--config", str(path)]) == 0
    facts = json.loads((tmp_path / "out" / "things" / "source.json").read_text())
    assert (facts["kept"], facts["commit"], facts["licence"]) == (3, remote[1], "MIT")


@pytest.mark.parametrize("change", ["smaller", "squared", "middle", "recoded"])
def test_guard_finds_changed_copies_and_no_others(tmp_path, change):
    paths = []
    for seed in range(20):
        paths.append(tmp_path / f"{seed}.png")
        photo(seed).save(paths[-1])
    found = Guard.of_files(paths)
    changed = {
        "smaller": photo(7).resize((32, 24)),
        "squared": photo(7).resize((64, 64)),
        "middle": photo(7).crop((20, 0, 140, 120)),
        "recoded": Image.open(io.BytesIO(encoded(photo(7), quality=30))),
    }[change]
    assert found.copies(prints_of(changed)).tolist() == [True]
    assert not any(found.copies(prints_of(photo(seed)))[0] for seed in range(100, 160))


def test_guard_keeps_prints(tmp_path, monkeypatch):
    for name, seed in (("a.png", 1), ("b.png", 2)):
        photo(seed).save(tmp_path / name)
    paths = evaluation_images(tmp_path, ["."])
    first = Guard.of_files(paths[:1], cache=tmp_path / "cache")
    opened = []
    monkeypatch.setattr(guard, "_frames", lambda path, real=guard._frames: opened.append(path) or real(path))
    both = Guard.of_files(paths, cache=tmp_path / "cache")
    assert opened == paths[1:]
    for found in (both, Guard.of_files(paths, cache=tmp_path / "cache"), Guard.of_files(paths)):
        assert found.is_known_file((tmp_path / "a.png").read_bytes())
        assert [found.copies(prints_of(photo(seed)))[0] for seed in (1, 2, 3)] == [True, True, False]
    assert not first.copies(prints_of(photo(2)))[0]


@pytest.mark.parametrize("cached", [False, True])
def test_an_unreadable_evaluation_image_is_an_error(tmp_path, cached):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"evaluation image .*a\.png"):
        Guard.of_files([tmp_path / "a.png"], cache=tmp_path / "cache" if cached else None)


def test_cleaning():
    page = Image.new("RGBA", (400, 200), (0, 0, 0, 0))
    page.paste(photo(3, (100, 100)), (150, 50))
    cleaned = clean(encoded(page, "PNG"), min_side_px=64, short_side_px=256, trim=True)
    assert cleaned is not None
    assert cleaned.mode == "RGB"
    assert cleaned.size == (116, 116)  # the thing and 8 % around it
    assert cleaned.getpixel((0, 0)) == (255, 255, 255)
    assert clean(encoded(photo(1, (300, 70))), min_side_px=64, short_side_px=256) is None  # a banner
    assert not looks_drawn(photo(3))


def test_bundled_source_list_is_complete():
    listed = read_source_list()
    assert len(listed.sources) > 30
    assert {"images/coco", "images/caltech101", "images/cifar10", "images/cifar100", "videos"} <= set(listed.guarded)
    for source in listed.sources:
        assert len(source.commit) == 40, f"{source.name}: a commit is a full hash"
        assert source.repository.startswith("https://github.com/")
        assert source.licence


def test_names_keep_their_words(tmp_path, remote):
    clone = Path(remote[0].removeprefix("file://"))
    source = Source(
        name="things",
        repository=remote[0],
        commit=remote[1],
        licence="MIT",
        images=r"^images/(?P<text>[^/]+)\.(?:jpg|png)$",
        rename={"lantern": "counting frame"},
        skip="broken|tiny",
        template="a photo of {a}",
    )
    texts = {item.path: item.texts for item in items_of(source, clone, seed=0)}
    assert texts["images/lantern.png"] == ("a photo of a counting frame",)
    assert texts["images/Sea_Lion-01.jpg"] == ("a photo of a sea lion",)
    assert not {"images/broken.jpg", "images/tiny.jpg"} & texts.keys()
