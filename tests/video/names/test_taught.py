"""Teaching names to an index: add, list, remove, rename, find."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.clips import write_clip
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.errors import (
    ConfigError,
    DataError,
    EncoderMismatchError,
    IndexLockedError,
    QueryError,
    VideoIndexError,
)
from impart.refset.refset import ReferenceSet
from impart.video.index.durable.lock import write_lock
from impart.video.index.index import VideoIndex
from impart.video.names import store, taught
from impart.video.names.store import names_lock
from impart.video.search.last_search import LastSearch, SavedHit, save_last_search


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Index three films once; each test takes a copy of the index."""
    folder = tmp_path_factory.mktemp("films")
    write_clip(folder / "a.mp4", colours=["red", "green", "blue", "red"], seconds_each=2)
    write_clip(folder / "b.mp4", colours=["grey", "yellow", "cyan", "black"], seconds_each=2)
    write_clip(folder / "c.mp4", colours=["white", "red", "magenta", "orange"], seconds_each=2)
    made = VideoIndex.open(folder / "index", TinyEncoder())
    for _ in made.add([folder / f"{name}.mp4" for name in "abc"]):
        pass
    return folder


@pytest.fixture
def index(indexed: Path, tmp_path: Path) -> VideoIndex:
    shutil.copytree(indexed / "index", tmp_path / "index")
    return VideoIndex.open(tmp_path / "index", TinyEncoder())


def photo(path: Path, colour: str = "red", *, seed: int = 0) -> Path:
    """Write a noisy image of a colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-20, 21, (60, 80, 3))
    Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def spans(index: VideoIndex, name: str, **keywords: object) -> list[tuple[str, int, int]]:
    found = index.find(name, by_time=True, **keywords)  # type: ignore[arg-type]
    return [(hit.path.stem, round(hit.start_s), round(hit.end_s)) for hit in found]


def test_one_image_finds_its_spans_at_once_also_in_another_process(index: VideoIndex, tmp_path: Path) -> None:
    other = VideoIndex.open(index.path, TinyEncoder())
    assert other.names.list() == ()
    done = index.names.add("Rex", [photo(tmp_path / "r.png")])
    assert done.added == {"Rex": 1}
    assert done.reports[0].remarks[0].startswith("Rex has 1 image")
    for opened in (index, other):
        assert spans(opened, "rex") == [("a", 0, 2), ("a", 6, 8), ("c", 2, 4)]
    hit = index.find("Rex", top=1)[0]
    assert hit.names == ("Rex",)
    assert 0.5 < hit.score <= 1
    assert hit.video_s == pytest.approx(8, abs=0.1)
    assert spans(index, "Rex", path_glob="c*") == [("c", 2, 4)]


def test_names_survive_indexing_and_pruning_and_cover_new_videos(index: VideoIndex, tmp_path: Path) -> None:
    index.names.add("Rex", [photo(tmp_path / "r.png")])
    (tmp_path / "films").mkdir()
    first = write_clip(tmp_path / "films" / "d.mp4", colours=["blue", "red"], seconds_each=2)
    for number in range(2):
        for _ in index.add([first.parent], prune=True):
            pass
        assert spans(index, "Rex", path_glob="[de].mp4") == [("de"[number], 2, 4)]
        if not number:
            first.rename(first.with_name("gone"))
            write_clip(first.with_name("e.mp4"), colours=["green", "red"], seconds_each=2)
    assert index.names.list()[0].thumbnails[0].is_file()  # type: ignore[union-attr]


def test_images_are_added_to_a_known_name_and_the_same_one_is_said(index: VideoIndex, tmp_path: Path) -> None:
    first = photo(tmp_path / "1.png", seed=1)
    index.names.add("Rex", [first])
    copy = tmp_path / "copy.png"
    copy.write_bytes(first.read_bytes())
    done = index.names.add(" rex ", [photo(tmp_path / "2.png", seed=2), copy, first])
    assert done.added == {"Rex": 1}
    assert done.known == (("Rex", str(copy)), ("Rex", str(first)))
    assert [(info.name, info.images) for info in index.names.list()] == [("Rex", 2)]
    index.names.add("Rex", [first])  # nothing new is no error
    assert index.names.list()[0].images == 2


def test_folder_has_a_name_per_sub_folder(index: VideoIndex, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    for seed in range(3):
        photo(folder / "Uncle_Joe" / f"{seed}.png", "blue", seed=seed)
    photo(folder / "Rex" / "r.png")
    (folder / "Rex" / "bad.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("x")
    (folder / "empty").mkdir()
    done = index.names.add_folder(folder)
    assert done.added == {"Rex": 1, "Uncle Joe": 3}
    assert [Path(source).name for source, _ in done.failed] == ["bad.jpg"]
    assert any("notes.txt" in note for note in done.notes)
    assert any("empty has no images" in note for note in done.notes)
    assert spans(index, "uncle joe") == [("a", 4, 6)]
    with pytest.raises(DataError, match="one sub-folder per name"):
        index.names.add_folder(folder / "Rex")


def test_moment_of_a_file_or_of_an_indexed_video_whose_file_is_gone(
    index: VideoIndex, indexed: Path, tmp_path: Path
) -> None:
    new = write_clip(tmp_path / "new.mp4", colours=["yellow", "red"], seconds_each=2)
    index.names.add("Rex", [f"{new}@00:03"])
    assert spans(index, "Rex") == [("a", 0, 2), ("a", 6, 8), ("c", 2, 4)]
    film = indexed / "b.mp4"
    film.rename(indexed / "away.mp4")
    try:
        done = index.names.add("Cy", ["b.mp4@5"])
    finally:
        (indexed / "away.mp4").rename(film)
    assert done.added == {"Cy": 1}
    assert spans(index, "Cy") == [("b", 4, 6)]
    assert index.names.list()[0].thumbnails == (None,)
    with pytest.raises(DataError, match="ends at"):
        index.names.add("Cy", [f"{new}@99"])
    with pytest.raises(DataError, match="a video: name a moment of it"):
        index.names.add("Cy", [new])
    with pytest.raises(DataError, match="no such file"):
        index.names.add("Cy", ["nothing.mp4@1"])


def test_hits_of_the_last_search_teach_a_name(index: VideoIndex) -> None:
    hits = [hit for hit in index.search(text="blue", group="frame", top=3) if hit.path.stem == "a"]
    save_last_search(index.path, LastSearch.of(hits, query="blue", command="search"))
    done = index.names.add_hits("Sea", [1])
    assert done.added == {"Sea": 1}
    assert spans(index, "Sea") == [("a", 4, 6)]
    with pytest.raises(QueryError, match="no hit 9"):
        index.names.add_hits("Sea", [9])


def test_report_names_wrong_shared_and_lonely_images(index: VideoIndex, tmp_path: Path) -> None:
    wrong = photo(tmp_path / "wrong.png", "cyan")
    images = [photo(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)]
    index.names.add("Rex", [*images, wrong])
    info = index.names.list(check=True)[0]
    assert info.report is not None
    assert info.report.found.tolist() == [True, True, True, False]
    assert info.in_force == 3
    assert "wrong.png is unlike the other images of Rex" in info.report.remarks[0]
    assert spans(index, "Rex") == [("a", 0, 2), ("a", 6, 8), ("c", 2, 4)]

    done = index.names.add("Wet", [wrong])
    assert any("already an image of Rex" in remark for remark in done.reports[0].remarks)

    done = index.names.add("Mix", [photo(tmp_path / "b.png", "blue"), photo(tmp_path / "o.png", "orange")])
    assert "none of its 2 images is found by the others: add images" in done.reports[0].remarks[0]


def test_removing_images_and_names_deletes_their_files(index: VideoIndex, tmp_path: Path) -> None:
    index.names.add("Rex", [photo(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)])
    index.names.add("Sea", [photo(tmp_path / "sea.png", "blue")])
    assert index.names.remove("rex", ["1.png"]) == 1
    assert [Path(source).name for source in index.names.list()[0].sources] == ["0.png", "2.png"]
    with pytest.raises(QueryError, match=r"no image 7\.png"):
        index.names.remove("Rex", ["7.png"])
    assert index.names.remove("Rex") == 2
    assert [info.name for info in index.names.list()] == ["Sea"]
    assert index.names.remove("Sea") == 1
    assert [path.name for path in (index.path / "names").rglob("*") if path.is_file()] == [".lock"]
    assert index.names.list() == ()
    with pytest.raises(QueryError, match="teach it with"):
        index.find("Sea")
    index.names.add("Sea", [photo(tmp_path / "sea.png", "blue")])
    assert spans(index, "Sea") == [("a", 4, 6)]


def test_rename_keeps_images_and_vectors(index: VideoIndex, tmp_path: Path) -> None:
    index.names.add("Rex", [photo(tmp_path / "r.png")])
    index.names.add("Sea", [photo(tmp_path / "s.png", "blue")])
    before = spans(index, "Rex")
    assert index.names.rename("rex", "blue dog") == "blue dog"
    assert spans(index, "blue dog") == before
    text = TinyEncoder().encode_texts(["blue dog"])[0]
    references = ReferenceSet.open(index.path / "names")
    row = references.texts.index("blue dog")
    assert references.text_embeddings[row] @ text > 0.99
    with pytest.raises(QueryError, match="Sea is a name already"):
        index.names.rename("blue dog", "SEA")
    assert index.names.rename("sea", "SEA") == "SEA"  # only another case


def test_composed_and_decomposed_letters_are_one_name(index: VideoIndex, tmp_path: Path) -> None:
    photo(tmp_path / "people" / "Zoe\u0308" / "z.png")
    index.names.add_folder(tmp_path / "people")
    assert [info.name for info in index.names.list()] == ["Zo\u00eb"]
    assert index.find("zoe\u0308") == index.find("Zo\u00eb") != []


@pytest.mark.parametrize("name", ["", "  ", "a\nb\x00", "x" * 200])
def test_bad_names_are_refused(index: VideoIndex, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no name"):
        index.names.add(name, [photo(tmp_path / "r.png")])


def test_names_are_a_reference_set_with_a_gate(index: VideoIndex, tmp_path: Path) -> None:
    index.names.add("Rex", [photo(tmp_path / "r.png")])
    references = ReferenceSet.open(index.path / "names")
    assert references.texts == ("Rex",)
    assert references.manifest.vanilla is not None
    assert references.manifest.vanilla["floor"] > 0


def test_only_one_process_teaches_at_a_time(index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo(tmp_path / "r.png")
    monkeypatch.setattr(store, "_WAIT_S", 0.05)
    with names_lock(index.path), pytest.raises(IndexLockedError, match="teaching names"):
        index.names.add("Rex", [image])
    assert index.names.list() == ()


def test_names_are_taught_while_another_process_indexes(index: VideoIndex, tmp_path: Path) -> None:
    with write_lock(index.path):
        index.names.add("Rex", [photo(tmp_path / "r.png")])
        index.names.add("Rex", [photo(tmp_path / "b.png", "blue")])
        index.names.rename("Rex", "Max")
        assert index.names.remove("Max", ["b.png"]) == 1
        assert [info.name for info in index.names.list()] == ["Max"]
        assert index.names.remove("Max") == 1
    assert index.names.list() == ()


def test_names_that_an_older_version_saves_meanwhile_are_kept(
    index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.names.add("Rex", [photo(tmp_path / "r.png")])
    other = VideoIndex.open(index.path, TinyEncoder())
    tune = store.tune

    def tune_while_another_saves(*given: Any, **keywords: Any) -> Any:
        monkeypatch.setattr(store, "tune", tune)
        monkeypatch.setattr(taught, "names_lock", lambda _: nullcontext())  # it knows the lock of the index alone
        other.names.add("Sea", [photo(tmp_path / "s.png", "blue")])
        return tune(*given, **keywords)

    monkeypatch.setattr(store, "tune", tune_while_another_saves)
    with pytest.raises(IndexLockedError, match="meanwhile: try again"):
        index.names.add("Max", [photo(tmp_path / "m.png", "green")])
    assert [info.name for info in index.names.list()] == ["Rex", "Sea"]


def test_images_in_memory_have_the_sources_given_and_are_removed_by_hash(index: VideoIndex) -> None:
    images = [Image.new("RGB", (40, 40), "red"), Image.radial_gradient("L")]
    index.names.add("Rex", images, sources=["same.png", "same.png"])
    (info,) = index.names.list()
    assert info.sources == ("same.png", "same.png")
    assert index.names.remove("Rex", hashes=[info.hashes[1]]) == 1
    (left,) = index.names.list()
    assert left.hashes == info.hashes[:1]
    with pytest.raises(QueryError, match="no image"):
        index.names.remove("Rex", hashes=["0" * 64])


def test_a_name_is_taught_by_spans_of_indexed_videos(index: VideoIndex) -> None:
    video = index.videos()[0]
    moment = SavedHit(
        number=1, path=video.path, start_s=0.5, end_s=0.5, best_s=0.5, score=0.0, video_id=video.video_id,
        kind=video.kind, label="",
    )  # fmt: skip
    assert index.names.add_moments("Rex", [moment]).added == {"Rex": 1}
    assert index.find("Rex") != []
    with pytest.raises(QueryError, match="no longer in the index"):
        index.names.add_moments("Rex", [dataclasses.replace(moment, video_id="0" * 16)])


def test_names_of_another_encoder_and_damaged_ones_are_refused(index: VideoIndex, tmp_path: Path) -> None:
    other = VideoIndex.open(tmp_path / "other", TinyEncoder(1))
    for _ in other.add([]):
        pass
    other.names.add("Rex", [photo(tmp_path / "r.png")])
    (other.path / "names").rename(index.path / "names")
    with pytest.raises(EncoderMismatchError, match="taught with encoder"):
        index.names.list()
    (index.path / "names" / "manifest.json").write_text("{")
    with pytest.raises(VideoIndexError, match="teach the names again"):
        index.names.list()


def test_lengths_are_kept_in_the_cache_and_a_damaged_file_is_made_again(index: VideoIndex, tmp_path: Path) -> None:
    index.names.add("Rex", [photo(tmp_path / "r.png")])
    before = index.find("Rex")
    (kept,) = (index.path / "cache").rglob("lengths-*.npy")
    lengths = np.load(kept)
    assert len(lengths) == len(index.names.prepared().snapshot)
    (presence,) = (index.path / "cache").rglob("presence-*.npy")
    presence.unlink()
    np.save(kept, lengths * 2)  # what is kept is taken
    assert VideoIndex.open(index.path, TinyEncoder()).find("Rex") != before
    kept.write_bytes(b"cut")
    presence.unlink()
    assert VideoIndex.open(index.path, TinyEncoder()).find("Rex") == before
    assert np.array_equal(np.load(kept), lengths)


def test_presence_is_kept_per_set_of_images(index: VideoIndex, tmp_path: Path) -> None:
    index.names.add("Rex", [photo(tmp_path / "r.png")])
    before = index.find("Rex")
    (kept,) = (index.path / "cache").rglob("presence-*.npy")
    values = np.load(kept)
    np.save(kept, np.zeros_like(values))
    assert VideoIndex.open(index.path, TinyEncoder()).find("Rex") == []  # what is kept is taken
    kept.write_bytes(b"cut")
    assert VideoIndex.open(index.path, TinyEncoder()).find("Rex") == before
    index.names.add("Rex", [photo(tmp_path / "b.png", "blue")])  # other images: computed anew
    index.find("Rex")
    assert len(list((index.path / "cache").rglob("presence-*.npy"))) == 2


def test_empty_index_takes_names(tmp_path: Path) -> None:
    empty = VideoIndex.open(tmp_path / "index", TinyEncoder())
    for _ in empty.add([]):
        pass
    assert empty.names.add("Rex", [photo(tmp_path / "r.png")]).added == {"Rex": 1}
    assert empty.find("Rex") == []
