"""Filters select files by path, folder, kind, date and length, and a search sees what they leave alone."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.photos import exif, write_photo
from helpers.snapshots import make_snapshot
from helpers.tiny_encoder import TinyEncoder
from impart.blending.base import Blend
from impart.blending.encoder import augment
from impart.errors import QueryError
from impart.retrieval.hubness import CaptionBank
from impart.video.index.index import VideoIndex
from impart.video.search.filters import allowed_videos
from impart.video.search.query import SearchKeywords, SearchOptions
from impart.video.search.rank import hits as rank_hits
from impart.video.search.snapshot import Snapshot
from impart.video.search.state import derived, in_force
from impart.video.search.state.choice import choice_of, part_of
from impart.video.search.state.derived import Derived

PATHS = ["/a/1.mp4", "/a/2.jpg", "/a/b/3.mp4", "/a/b/4.jpg", "/c/5.mp4"]
MAY, JUNE = 1714521600.0, 1717200000.0  # the first of the month in 2024, UTC


@pytest.fixture
def snapshot() -> Snapshot:
    made = make_snapshot(
        np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32),
        lengths=[4, 1, 8, 1, 10],
        scenes=[0, 2, 4, 5, 9, 13, 14, 20],
        kinds=["video", "photo", "video", "photo", "video"],
        recorded_at=[MAY, np.nan, JUNE, MAY + 5, np.nan],
        paths=PATHS,
    )
    return dataclasses.replace(made, modified_at=np.array([0, JUNE, 0, 0, np.nan]), revisions=("x", "p", "y", "x", "z"))


def options(**given: Any) -> SearchOptions:
    return SearchOptions(**{"top": 10, "group": "video", "by": "mean", "fold_copies": False, **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"kind": "photo"}, [1, 3]),
        ({"kind": "video"}, [0, 2, 4]),
        ({"folder": "/a"}, [0, 1, 2, 3]),
        ({"folder": "/a/b/"}, [2, 3]),
        ({"folder": Path("/a/b/3.mp4")}, []),
        ({"path_glob": "*.jpg", "folder": "/a/b"}, [3]),
        ({"since": MAY + 1}, [1, 2, 3]),
        ({"since": "2024-05-31T23:00:00Z"}, [1, 2]),
        ({"until": "2024-05-20"}, [0, 3]),
        ({"since": MAY, "until": MAY}, [0]),
        ({"since": "1900"}, [0, 1, 2, 3]),  # of the last file, no date is known
        ({"min_length": "2s"}, [2, 4]),
        ({"max_length": 1.0}, [0]),
        ({"max_length": "1h", "kind": "photo"}, []),
    ],
)
def test_selection(snapshot: Snapshot, given: dict[str, Any], expected: list[int]) -> None:
    mask = allowed_videos(snapshot, options(**given))
    assert mask is not None
    assert np.flatnonzero(mask).tolist() == expected


def test_without_a_filter_all_are_allowed(snapshot: Snapshot) -> None:
    assert allowed_videos(snapshot, options()) is None
    assert Derived(snapshot).narrowed(options()).snapshot is snapshot
    assert Derived(snapshot).narrowed(options(kind="video")).snapshot is snapshot  # most of it


def test_a_part_has_the_rows_of_its_videos(snapshot: Snapshot) -> None:
    count = len(snapshot)
    numbers = np.arange(count, dtype=np.float32)[:, None]
    blend = Blend(numbers.astype(np.int32), numbers, numbers, numbers[:, 0], None)
    retrieval = numbers.astype(np.float16)
    whole = dataclasses.replace(snapshot, blend=blend, read_retrieval=lambda: retrieval)
    part = part_of(whole, choice_of(whole), np.array([1, 2]))
    rows = np.arange(4, 13)
    assert part.offsets.tolist() == [0, 1, 9]
    assert part.scenes.tolist() == [0, 1, 5]
    assert part.scene_of.tolist() == [0] + [1] * 4 + [2] * 4
    assert part.state != whole.state
    np.testing.assert_array_equal(part.retrieval, retrieval[rows])
    np.testing.assert_array_equal(part.blend.ids, blend.ids[rows])
    np.testing.assert_array_equal(part.vectors, whole.vectors[rows])
    # Every field, also one that is added later, has the length of the part.
    lengths = {5: 2, count: 9, len(whole.scenes): 3, 6: 3}
    for field in dataclasses.fields(Snapshot):
        before, after = getattr(whole, field.name), getattr(part, field.name)
        if isinstance(before, np.ndarray | tuple | Blend) and len(getattr(before, "norm", before)):
            before, after = getattr(before, "norm", before), getattr(after, "norm", after)
            assert len(after) == lengths[len(before)], field.name


def test_copies_of_what_is_allowed_are_kept(snapshot: Snapshot) -> None:
    part = Derived(snapshot).narrowed(options(path_glob="1.mp4", fold_copies=True)).snapshot
    assert [str(path) for path in part.paths] == ["/a/1.mp4", "/a/b/4.jpg"]
    mask = allowed_videos(part, options(path_glob="1.mp4", fold_copies=True))
    assert mask is not None
    assert mask.tolist() == [True, False]


@pytest.mark.parametrize(
    "given",
    [
        {"kind": "audio"},
        {"since": "2025", "until": "2024"},
        {"since": "May"},
        {"until": "May"},
        {"min_length": "5m", "max_length": "10s"},
        {"max_length": "long"},
    ],
)
def test_values_that_cannot_be_are_errors(given: dict[str, Any]) -> None:
    with pytest.raises(QueryError):
        options(**given)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    folder = tmp_path_factory.mktemp("library")
    (folder / "films").mkdir()
    (folder / "photos").mkdir()
    for number, colour in enumerate(["red", "green", "blue", "white", "black", "yellow"]):
        write_clip(folder / "films" / f"{colour}.mp4", colours=[colour, "grey"], seconds_each=0.5 + number / 4)
        write_photo(folder / "photos" / f"{colour}.png", colour, exif=exif(taken=f"2024:0{number + 1}:01 12:00:00"))
    (folder / "photos" / "red copy.png").write_bytes((folder / "photos" / "red.png").read_bytes())
    os.utime(folder / "films" / "red.mp4", (MAY, MAY))
    index = VideoIndex.open(folder / "index", augment(TinyEncoder(), colour_set(), k=3))
    for _ in index.add([folder / "films", folder / "photos"]):
        pass
    return index


FILTERS: list[SearchKeywords] = [
    {"kind": "photo"},
    {"path_glob": "red*"},
    {"since": "2024-04", "until": "2024-06"},
    {"max_length": "1.5s"},
    {"path_glob": "nothing"},
]


@pytest.mark.parametrize("given", FILTERS)
@pytest.mark.parametrize("group", ["video", "scene", "frame"])
@pytest.mark.parametrize("by", ["mean", "moment"])
def test_a_search_of_a_part_has_the_hits_of_the_whole(
    library: VideoIndex, monkeypatch: pytest.MonkeyPatch, given: SearchKeywords, group: Any, by: Any
) -> None:
    small = library.search(text="red", group=group, by=by, top=5, **given)
    monkeypatch.setattr(derived, "narrowed_to", lambda _snapshot, _options: None)
    assert library.search(text="red", group=group, by=by, top=5, **given) == small
    assert (not small) == (given == {"path_glob": "nothing"})


@pytest.mark.parametrize("group", ["video", "moment", "scene", "frame"])
@pytest.mark.parametrize("by", ["mean", "moment", "frame"])
def test_no_file_passes_the_filters_of_a_model_with_captions(
    library: VideoIndex, monkeypatch: pytest.MonkeyPatch, group: Any, by: Any
) -> None:
    bank = CaptionBank(TinyEncoder().encode_texts(["red", "blue"]))
    monkeypatch.setattr(in_force, "bundled_bank", lambda _encoder: bank)
    index = VideoIndex.open(library.path, library.encoder)
    assert index.search(text="red", group=group, by=by, path_glob="nothing") == []
    assert index.search(text="red", group=group, by=by)


def test_only_allowed_frames_are_scored(library: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    score = rank_hits.frame_scores

    def counted(vectors: Any, snapshot: Snapshot, *args: Any, **keywords: Any) -> Any:
        scores = score(vectors, snapshot, *args, **keywords)
        seen.append(scores.shape[1])
        return scores

    monkeypatch.setattr(rank_hits, "frame_scores", counted)
    library.search(text="red", by="frame", path_glob="green.*")
    green = sum(record.segments for record in library.videos() if record.path.stem == "green")
    assert max(seen) == green


def test_a_file_without_a_date_counts_by_its_last_change(library: VideoIndex) -> None:
    hits = library.search(text="red", kind="video", until="2024-06")
    assert [hit.path.name for hit in hits] == ["red.mp4"]
    assert hits[0].recorded_at is None


def test_similar_is_filtered(library: VideoIndex) -> None:
    film = next(record.path for record in library.videos() if record.path.name == "red.mp4")
    assert {hit.kind for hit in library.similar(film, 0.1, kind="photo")} == {"photo"}
