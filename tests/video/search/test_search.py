"""Ranking against naive loops, and the hits of a search."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.caches import is_cached
from helpers.clips import solid, write_clip
from helpers.colour_references import colour_set
from helpers.snapshots import make_snapshot
from helpers.tiny_encoder import DIM, RETRIEVAL_DIM, TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.vanilla import Vanilla
from impart.config import DecodeSettings, SearchSettings, Settings, VanillaSettings
from impart.encoders.base import ImageEmbeddings, l2_normalise
from impart.errors import ConfigError, DataError, EncoderMismatchError, ImpartWarning, QueryError, VideoIndexError
from impart.refset.refset import ReferenceSet
from impart.retrieval.hubness import CaptionBank
from impart.video.index.index import Query, VideoIndex
from impart.video.search.hits import timecode
from impart.video.search.query import SearchKeywords, SearchOptions, combine
from impart.video.search.ranking import group_means, top_groups
from impart.video.search.scoring import frame_scores
from impart.video.search.snapshot import Snapshot
from impart.video.search.state.derived import Derived
from impart.video.search.state.shard_files import map_arrays, write_arrays


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    """Six films; red is alone, in a long film's middle, and absent."""
    folder = tmp_path_factory.mktemp("library")
    films = folder / "films"
    (films / "sub").mkdir(parents=True)
    write_clip(films / "a red.mp4", colours=["red"], seconds_each=1)
    write_clip(films / "b long.mp4", colours=["blue", "red", "green"], seconds_each=2)
    write_clip(films / "c green.mp4", colours=["green"], seconds_each=1)
    write_clip(films / "d grey.mp4", colours=["grey", "black"], seconds_each=1)
    write_clip(films / "sub" / "e red too.mp4", colours=["red"], seconds_each=1, g="5")
    index = VideoIndex.open(folder / "index", TinyEncoder())
    for _ in index.add([films]):
        pass
    return index


def names(hits: list) -> list[str]:
    return [hit.path.stem for hit in hits]


def augmented(rng: np.random.Generator, pairs: int) -> AugmentedEncoder:
    draw = [l2_normalise(rng.standard_normal((pairs, width))) for width in (DIM, DIM, RETRIEVAL_DIM)]
    encoder = TinyEncoder()
    references = ReferenceSet.from_arrays(
        [f"pair {i}" for i in range(pairs)],
        image=draw[0],
        text=draw[1],
        retrieval=draw[2],
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
    )
    return AugmentedEncoder(encoder, references, Vanilla(VanillaSettings(k=3, w_img=0.5, w_txt=0.7, floor=0.5)))


def snapshot_of(rng: np.random.Generator, lengths: list[int], encoder: AugmentedEncoder) -> Snapshot:
    count = sum(lengths)
    vectors = l2_normalise(rng.standard_normal((count, DIM))).astype(np.float16)
    retrieval = l2_normalise(rng.standard_normal((count, RETRIEVAL_DIM)))
    blend = encoder.blend(ImageEmbeddings(vectors.astype(np.float32), retrieval))
    weight = rng.integers(1, 9, count).astype(np.int32)
    return make_snapshot(vectors, lengths=lengths, weight=weight, blend=blend)


def test_means_and_scores_equal_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    encoder = augmented(rng, 40)
    snapshot = snapshot_of(rng, [1, 7, 30, 2], encoder)
    assert snapshot.blend is not None
    seen = encoder.apply(snapshot.vectors.astype(np.float32), snapshot.blend)  # v'
    queries = l2_normalise(rng.standard_normal((5, DIM)))

    for references, vectors in ((encoder.references, seen), (None, snapshot.vectors.astype(np.float32))):
        means = group_means(snapshot, snapshot.offsets[:-1], references=references)
        for video in range(4):
            total = np.zeros(DIM)
            for i in range(snapshot.offsets[video], snapshot.offsets[video + 1]):
                total += snapshot.weight[i] * vectors[i].astype(np.float64)
            assert np.allclose(means[video], total / np.linalg.norm(total), atol=1e-5)

    scores = frame_scores(queries, snapshot, encoder)
    assert np.allclose(scores, queries @ seen.T, atol=1e-5)
    rows = np.array([3, 39, 0])
    assert np.allclose(frame_scores(queries, snapshot, encoder, rows=rows), scores[:, rows], atol=1e-6)
    plain = frame_scores(queries, snapshot, None)
    assert np.allclose(plain, queries @ l2_normalise(snapshot.vectors).T, atol=1e-6)
    assert len(snapshot.blend[2:5]) == 3


def test_ties_go_to_the_earlier_group_and_disallowed_groups_are_not_returned() -> None:
    scores = np.array([0.5, 0.7, 0.7 + 1e-8, 0.1, 0.7], np.float32)
    assert top_groups(scores, top=2).tolist() == [1, 2]
    assert top_groups(scores, top=10).tolist() == [1, 2, 4, 0, 3]
    allowed = np.array([True, False, True, True, False])
    assert top_groups(scores, top=10, allowed=allowed).tolist() == [2, 0, 3]
    assert top_groups(np.zeros(0, np.float32), top=3).tolist() == []


def test_negative_terms_are_subtracted() -> None:
    x, y = np.eye(2, dtype=np.float32)
    assert np.allclose(combine(np.stack([x, y]), [1, 1]), [0.5**0.5, 0.5**0.5])
    away = combine(np.stack([x, y]), [1, -0.5])
    assert away[1] < 0
    assert np.isclose(np.linalg.norm(away), 1)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "00:00:00.000"), (59.9996, "00:01:00.000"), (36_061.25, "10:01:01.250")]
)
def test_timecode(seconds: float, shown: str) -> None:
    assert timecode(seconds) == shown


def test_text_finds_videos_by_moment_by_mean_and_by_frame(library: VideoIndex) -> None:
    hits = library.search(text="red")
    assert names(hits)[:3] == ["a red", "b long", "e red too"]  # equal scores: by path
    assert [hit.rank for hit in hits] == list(range(1, 6))
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    assert (hits[1].start_s, hits[1].end_s, hits[1].timecode) == (2, 4, "00:00:02.000")
    assert (hits[1].scene_start_s, hits[1].scene_end_s, hits[1].video_s) == (2, 4, 6)
    assert hits[1].moments == ()  # blue and green are far below red
    means = library.search(text="red", by="mean")
    assert names(means)[:2] == ["a red", "e red too"]
    long = next(hit for hit in means if hit.path.stem == "b long")
    assert (long.start_s, long.end_s) == (2, 4)  # ranked by its mean, it still points to its best moment
    assert long.score < hits[1].score
    frames = library.search(text="red", by="frame", top=3)
    assert names(frames) == ["a red", "b long", "e red too"]
    fast = library.search_many([Query(text="red")], spans=False)[0]
    assert [(hit.path, hit.score) for hit in fast] == [(hit.path, hit.score) for hit in hits]


def test_moments_of_all_videos_in_one_list(library: VideoIndex) -> None:
    hits = library.search(text="red", group="moment", top=4)
    assert names(hits)[:3] == ["a red", "b long", "e red too"]
    assert (hits[1].start_s, hits[1].end_s) == (2, 4)
    every = library.search(text="red", group="moment", top=50)
    assert sum(hit.length_s for hit in every) == pytest.approx(11)  # each second of the library once
    assert sorted(names(every)).count("b long") == 3
    again = library.similar(library.path.parent / "films" / "b long.mp4", 2.5, group="moment", top=50)
    assert len(again) == len(every) - 1
    assert not any(hit.path.stem == "b long" and hit.start_s == 2 for hit in again)
    assert names(again)[:2] == ["a red", "e red too"]


def test_scenes_and_frames(library: VideoIndex) -> None:
    scenes = library.search(text="red", group="scene", top=3)
    assert names(scenes) == ["a red", "b long", "e red too"]
    assert (scenes[1].start_s, scenes[1].end_s) == (2, 4)
    frames = library.search(text="green", group="frame", top=2)
    assert names(frames) == ["b long", "c green"]
    assert frames[0].start_s == 4


def test_images_negatives_and_globs(library: VideoIndex, tmp_path: Path) -> None:
    from PIL import Image

    image = tmp_path / "green.png"
    Image.fromarray(solid("green")).save(image)
    assert names(library.search(image=image, top=1, by="mean")) == ["c green"]
    assert names(library.search(image=solid("green"), top=1, by="mean")) == ["c green"]
    assert names(library.search(text="green", image=image, top=2)) == ["b long", "c green"]
    assert library.search(image=image)[0].start_s == 4
    without = library.search(text="red", not_text=["red"])
    assert np.isfinite([hit.score for hit in without]).all()
    assert library.search(text="grey", not_text=["black"])[0].score < library.search(text="grey")[0].score
    assert names(library.search(text="red", path_glob="*too*")) == ["e red too"]
    assert names(library.search(text="red", path_glob="sub/*")) == ["e red too"]
    assert library.search(text="red", path_glob="*.avi") == []


def test_many_queries_at_once_equal_one_by_one(library: VideoIndex) -> None:
    queries = [Query(text=f"{a} {b}") for a in ("red", "green", "grey") for b in ("blue", "white", "")] * 9
    ways = [("video", by) for by in ("moment", "mean", "frame")] + [
        ("moment", "moment"),
        ("scene", "mean"),
        ("frame", "mean"),
    ]
    for group, by in ways:
        together = library.search_many(queries, group=group, by=by, top=2)
        for query, hits in list(zip(queries, together, strict=True))[:9]:
            alone = library.search(text=query.text, group=group, by=by, top=2)
            assert [(hit.path, hit.start_s) for hit in hits] == [(hit.path, hit.start_s) for hit in alone]
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=2e-6)


def test_similar_leaves_the_moment_itself_out(library: VideoIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    films = library.path.parent / "films"
    assert names(library.similar(films / "b long.mp4", 2.5, group="frame", top=2)) == ["a red", "e red too"]
    assert names(library.similar(films / "a red.mp4", 0, top=1)) == ["b long"]
    monkeypatch.chdir(films)
    assert names(library.similar("c green.mp4", 0.1, group="scene", top=1)) == ["b long"]
    with pytest.raises(QueryError, match="ends at 00:00:06"):
        library.similar("b long.mp4", 7)
    with pytest.raises(QueryError, match="not in the index"):
        library.similar("z.mp4", 0)


def test_reasons_name_pairs_with_their_weights(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "f.mp4", colours=["red"])
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(index.add(film))
    assert index.search(text="red", why=True)[0].why == ()
    index.use_references(colour_set(), VanillaSettings(k=2, w_img=0.4, w_txt=0.2, tau=0.1))
    why = index.search(text="red", why=True)[0].why
    assert [reason.text for reason in why] == ["red", "orange"]
    assert sum(reason.weight_img for reason in why) == pytest.approx(0.4, abs=1e-5)
    assert sum(reason.weight_txt for reason in why) == pytest.approx(0.2, abs=1e-5)
    assert why[0].similarity == pytest.approx(1, abs=1e-3)
    assert index.search(text="red")[0].why == ()
    assert index.search(text="red", why=True, augment=False)[0].why == ()


def test_augmented_and_plain_search_equal_their_encoders(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "f.mp4", colours=["red", "cyan"])
    base = TinyEncoder()
    encoder = AugmentedEncoder(base, colour_set(), Vanilla(VanillaSettings(k=3)))
    index = VideoIndex.open(tmp_path / "index", encoder)
    list(index.add(film))
    text = base.encode_texts(["yellow"])[0]
    images = [np.asarray(solid("red")), np.asarray(solid("cyan"))]
    for augment, one in ((True, encoder), (False, base)):
        expected = sorted(one.encode_images(images).embeddings @ text, reverse=True)
        hits = index.search(text="yellow", group="frame", augment=augment)
        assert [hit.score for hit in hits] == pytest.approx(expected, abs=0.02)  # what x264 does to colours


def test_an_invalid_query_or_option_is_refused(library: VideoIndex, tmp_path: Path) -> None:
    for query in ({}, {"text": " "}, {"not_text": ["red"]}, {"text": "red", "not_text": "blue"}):
        with pytest.raises(QueryError):
            library.search(**query)
    for option in ({"top": 0}, {"group": "shot"}, {"by": "median"}):
        with pytest.raises(QueryError):
            library.search(text="red", **option)
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    for path in (broken, tmp_path / "missing.jpg"):
        with pytest.raises(DataError, match=path.name):
            library.search(image=path)


def test_an_empty_index_finds_nothing_and_a_missing_one_is_named(tmp_path: Path) -> None:
    index = VideoIndex.open(tmp_path / "new", TinyEncoder())
    assert index.search(text="red") == []
    assert index.videos() == index.failures() == []
    assert not (tmp_path / "new").exists()
    list(index.add([]))
    for group in ("video", "moment", "scene", "frame"):
        assert index.search(text="red", group=group) == []
    with pytest.raises(VideoIndexError, match="no video index"):
        VideoIndex.open(tmp_path / "other", create=False)
    with pytest.raises(VideoIndexError, match="no video index"):
        VideoIndex.open(tmp_path / "other").stats()


def test_another_encoder_is_refused_with_both_names(library: VideoIndex) -> None:
    with pytest.raises(EncoderMismatchError, match=r"'tiny' \(0000.*'tiny:3' \(0000.*new folder"):
        VideoIndex.open(library.path, TinyEncoder(3))


def test_a_model_that_changed_under_its_id_needs_a_new_index(
    library: VideoIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyEncoder, "fingerprint", "f" * 16)
    with pytest.raises(EncoderMismatchError, match="has changed since: index your videos again"):
        VideoIndex.open(library.path, TinyEncoder())


def test_another_reference_set_is_refused_until_switched(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "f.mp4")
    encoder = AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=3)))
    other = AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=2)))
    index = VideoIndex.open(tmp_path / "index", encoder)
    list(index.add([]))
    list(VideoIndex.open(tmp_path / "index", other).add(film))  # nothing in it yet: taken over
    assert index.manifest.augmentation is not None
    assert index.manifest.augmentation.settings.k == 2
    with pytest.raises(EncoderMismatchError, match="impart refset use"):
        VideoIndex.open(tmp_path / "index", encoder)
    assert VideoIndex.open(tmp_path / "index", TinyEncoder()).encoder.fingerprint == other.fingerprint
    index.use_references(None)
    assert VideoIndex.open(tmp_path / "index", TinyEncoder()).encoder.fingerprint == TinyEncoder().fingerprint


def test_a_moved_index_works(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "f.mp4", colours=["red"])
    encoder = AugmentedEncoder(TinyEncoder(), colour_set(), Vanilla(VanillaSettings(k=2)))
    list(VideoIndex.open(tmp_path / "one", encoder).add(film))
    os.rename(tmp_path / "one", tmp_path / "two")  # noqa: PTH104
    hits = VideoIndex.open(tmp_path / "two", TinyEncoder()).search(text="red", why=True)
    assert hits[0].path == film
    assert hits[0].why[0].text == "red"


def test_the_cache_changes_nothing(library: VideoIndex) -> None:
    cached = VideoIndex.open(library.path, TinyEncoder()).search(text="red blue")
    shutil.copytree(library.path, library.path.parent / "bare")
    shutil.rmtree(library.path.parent / "bare" / "cache")
    assert VideoIndex.open(library.path.parent / "bare", TinyEncoder()).search(text="red blue") == cached


def test_a_text_is_corrected_for_hubs_and_an_image_is_not(
    library: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, folder = TinyEncoder(), library.path
    bank = CaptionBank(encoder.encode_texts(["red", "a red one"]))  # everything red is near to every caption
    monkeypatch.setattr("impart.video.search.state.in_force.bundled_bank", lambda _: bank)
    corrected = VideoIndex.open(folder, encoder)
    plain = VideoIndex.open(folder, encoder, settings=Settings(search=SearchSettings(hub_correction=False)))
    red = solid("red")
    for options in (
        {"by": "mean"},
        {"by": "moment"},
        {"by": "frame"},
        {"group": "moment"},
        {"group": "scene"},
        {"group": "frame"},
    ):
        before = {(hit.path, hit.start_s): hit.score for hit in plain.search(text="yellow", top=99, **options)}
        after = {(hit.path, hit.start_s): hit.score for hit in corrected.search(text="yellow", top=99, **options)}
        lost = {where[0].stem: before[where] - after[where] for where in before.keys() & after.keys()}
        assert lost["a red"] == pytest.approx(0.6, abs=0.01)
        assert lost["c green"] < 0.4
        assert corrected.search(text="yellow", path_glob="no such file", **options) == []
        images = [index.search(image=red, top=9, **options) for index in (plain, corrected)]
        assert [hit.score for hit in images[0]] == [hit.score for hit in images[1]]


def test_queries_of_one_list_correct_each_other(library: VideoIndex) -> None:
    queries = [Query(text=text) for text in ["red"] * 60 + ["yellow"]]
    alone, together = (library.search_many(queries, top=99, together=way) for way in (False, True))
    assert alone[-1] == library.search(text="yellow", top=99)  # whatever the other queries are
    before, after = ({Path(hit.path).stem: hit.score for hit in found[-1]} for found in (alone, together))
    lost = {name: before[name] - after[name] for name in before}
    assert lost["a red"] > lost["c green"] + 0.1
    images = [library.search_many([Query(image=solid("red"))], together=way) for way in (False, True)]
    assert images[0] == images[1]  # only texts are corrected


def test_texts_are_encoded_in_the_prompts_of_the_settings(library: VideoIndex, monkeypatch) -> None:
    encoder = TinyEncoder()
    encoded: list[str] = []
    encode = encoder.encode_texts
    monkeypatch.setattr(encoder, "encode_texts", lambda texts: encoded.extend(texts) or encode(texts))
    VideoIndex.open(library.path, encoder).search(text="Something red. ", not_text=["{} blue"])
    assert sorted(encoded) == sorted(
        prompt.replace("%", text)
        for prompt in ("%.", "a photo of %.", "a picture of %.")
        for text in ("Something red", "{} blue")
    )
    encoded.clear()
    typed = Settings(search=SearchSettings(prompts=("{}",)))
    VideoIndex.open(library.path, encoder, settings=typed).search(text="Something red. ")
    assert encoded == ["Something red. "]


@pytest.mark.parametrize(("fit", "seen"), [("squash", (32, 32)), ("crop", (160, 90))])
def test_a_query_image_becomes_a_square_like_the_frames(
    tmp_path: Path, monkeypatch, fit: str, seen: tuple[int, int]
) -> None:
    film = write_clip(tmp_path / "wide.mp4", colours=["red"], size=(160, 90))
    index = VideoIndex.open(tmp_path / "index", TinyEncoder(), settings=Settings(decode=DecodeSettings(fit=fit)))
    list(index.add([film]))
    encoder = TinyEncoder()
    assert encoder.traits.image_size_px == 32
    sizes: list[tuple[int, int]] = []
    encode = encoder.encode_images
    monkeypatch.setattr(
        encoder,
        "encode_images",
        lambda images: sizes.append(Image.fromarray(np.asarray(images[0])).size) or encode(images),
    )
    wide = solid("red", size=(160, 90))
    reopened = VideoIndex.open(tmp_path / "index", encoder)  # the fit is in the manifest
    for image in (wide, Image.fromarray(wide)):
        assert reopened.search(image=image)[0].score == pytest.approx(1, abs=2e-3)
    assert sizes == [seen, seen]


def test_options_take_their_defaults_from_the_settings() -> None:
    settings = SearchSettings(top=3, group="scene", by="moment")
    options = SearchOptions.of(settings, group=None, by="mean", path_glob="*.mp4")
    assert options == SearchOptions(top=3, group="scene", by="mean", path_glob="*.mp4")
    assert {*SearchKeywords.__annotations__, "together"} == {item.name for item in dataclasses.fields(SearchOptions)}
    with pytest.raises(TypeError, match="shot"):
        SearchOptions.of(settings, shot=1)  # type: ignore[call-arg]


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"squash or crop"):
        DecodeSettings(fit="stretch")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"prompts"):
        SearchSettings(prompts=("a photo",))


@pytest.mark.parametrize("damage", ["empty", "short", "foreign", "names", "lost", "layout", "twice"])
def test_a_damaged_cache_is_ignored_and_written_again(library: VideoIndex, damage: str) -> None:
    whole = VideoIndex.open(library.path, TinyEncoder()).search(text="red blue")
    copy = library.path.parent / damage
    shutil.copytree(library.path, copy)
    (base,) = (copy / "cache").glob("*.base")
    content, layout = base.read_bytes(), copy / "cache" / "layout.json"
    if damage == "empty":
        base.write_bytes(b"")
    elif damage == "short":
        base.write_bytes(content[:-64])
    elif damage == "foreign":
        arrays = dict(map_arrays(base) or {})
        base.unlink()
        write_arrays(base, arrays | {"start_s": np.zeros(2)})
    elif damage == "names":
        base.write_bytes(content.replace(b'"video_ids"', b'"video_idx"'))
    elif damage == "lost":
        next((copy / "cache").glob("*.plain")).unlink()
    elif damage == "layout":
        layout.write_text("{")
    else:
        layout.write_text(layout.read_text().replace('"dead": []', '"dead": [99]'))
    index = VideoIndex.open(copy, TinyEncoder())
    assert not is_cached(index)
    assert index.search(text="red blue") == whole
    list(index.add([library.path.parent / "films"]))  # nothing new
    assert is_cached(index)
    assert VideoIndex.open(copy, TinyEncoder()).search(text="red blue") == whole


def test_query_images_are_read_like_all_images(library: VideoIndex, tmp_path: Path) -> None:
    grey = np.full((40, 40), 90, np.uint8)
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "16.png")
    assert library.search(image=tmp_path / "16.png") == library.search(image=tmp_path / "8.png")
    Image.new("RGB", (40, 40), "white").save(tmp_path / "white.png")
    Image.new("RGBA", (40, 40), (255, 0, 0, 0)).save(tmp_path / "hidden red.png")
    assert library.search(image=tmp_path / "hidden red.png") == library.search(image=tmp_path / "white.png")


def test_a_query_of_bytes_that_are_no_text_is_refused() -> None:
    with pytest.raises(QueryError, match="UTF-8"):
        Query(text="caf\udce9")


@pytest.mark.parametrize("name", ["search.hits", "search.query", "search.ranking", "index.events"])
def test_examples_in_the_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"impart.video.{name}")).failed == 0


def test_copies_and_hard_links_are_one_hit(tmp_path: Path) -> None:
    films = tmp_path / "films"
    (films / "sub").mkdir(parents=True)
    long = write_clip(films / "b long.mp4", colours=["blue", "red"])
    write_clip(films / "c.mp4", colours=["green", "magenta"])
    shutil.copy(long, films / "a copy.mp4")
    os.link(long, films / "sub" / "link.mp4")
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(index.add([films]))
    for _ in range(2):  # from the tables, and from the cache of a new process
        for group in ("video", "scene", "frame"):
            hits = index.search(text="red", group=group, top=4)
            assert names(hits).count("a copy") == len(hits) - names(hits).count("c") > 0
            assert [path.stem for path in hits[0].also_at] == ["b long", "link"]
        assert next(hit for hit in index.search(text="green") if hit.path.stem == "c").also_at == ()
        only = index.search(text="red", path_glob="sub/*")
        assert names(only) == ["link"]
        assert [path.stem for path in only[0].also_at] == ["a copy", "b long"]
        like = index.similar(long, 1.5, group="scene")  # the scene itself is left out, also in its copies
        assert sorted(names(like)) == ["b long", "c", "c"]
        assert all(hit.start_s == 0 for hit in like if hit.path.stem == "b long")
        apart = index.search_many([Query(text="red")], fold_copies=False)[0]
        assert names(apart)[:3] == ["a copy", "b long", "link"]
        assert apart[0].also_at == ()
        index = VideoIndex.open(tmp_path / "index", TinyEncoder())


def test_exact_bounds_are_decoded_where_an_index_has_none(tmp_path: Path) -> None:
    film = write_clip(tmp_path / "f.mp4", colours=["blue", "red", "green"], seconds_each=1.6, fps=25)
    index = VideoIndex.open(tmp_path / "index", TinyEncoder())
    list(index.add(film))
    (hit,) = index.search(text="red")
    assert (hit.start_s, hit.end_s) == pytest.approx((1.6, 3.2), abs=1e-3)
    # An index of version 0.1.0 has the bounds of segments alone.
    snapshot = index._searcher.current()
    last = np.append(snapshot.scenes[1:], len(snapshot)) - 1
    coarse = {"scene_start_s": snapshot.start_s[snapshot.scenes], "scene_end_s": snapshot.end_s[last]}
    index.searcher.state._derived = Derived(dataclasses.replace(snapshot, **coarse))
    (hit,) = index.search(text="red")
    assert hit.start_s == pytest.approx(1.75)
    (hit,) = index.search(text="red", exact=True)
    assert (hit.start_s, hit.end_s) == pytest.approx((1.6, 3.2), abs=1e-3)
    ((hit,),) = index.search_many([Query(text="red", then=Query(text="green"))], exact=True)
    assert [hit.start_s, *(step.start_s for step in hit.steps)] == pytest.approx([1.6, 1.6, 3.2], abs=1e-3)
    film.unlink()
    with pytest.warns(ImpartWarning, match=r"cannot refine the bounds in .*f\.mp4"):
        (hit,) = index.search(text="red", exact=True)
    assert hit.start_s == pytest.approx(1.75)


def test_one_colour_followed_by_another_is_a_span_of_one_film(library: VideoIndex) -> None:
    first = library.search_many([Query(text="blue", then=Query(text="red"))])[0][0]
    assert first.path.stem == "b long"
    assert (first.start_s, first.end_s) == (pytest.approx(0, abs=0.3), pytest.approx(4, abs=0.3))
    assert [round(step.start_s) for step in first.steps] == [0, 2]
    assert first.strong
    skipped = library.search_many([Query(text="blue", then=Query(text="green"), within_s=2.5)])[0][0]
    assert (round(skipped.start_s), round(skipped.end_s)) == (0, 6)
    close = library.search_many([Query(text="blue", then=Query(text="green"), within_s=0.5)])[0][0]
    assert close.score < 0.9 * skipped.score


def test_of_a_sequence_the_first_or_last_span_is_kept(library: VideoIndex) -> None:
    red = Query(text="red")
    before, after = (
        library.search_many([Query(text="blue", then=red, keep=keep)], top=1)[0][0] for keep in ("first", "last")
    )
    assert (round(before.start_s), round(before.end_s)) == (0, 2)
    assert (round(after.start_s), round(after.end_s)) == (2, 4)
    assert len(before.steps) == len(after.steps) == 2


def test_joined_and_plain_queries_in_one_call(library: VideoIndex) -> None:
    queries = [Query(text="grey"), Query(text="blue", then=Query(text="red")), Query(text="green")]
    alone = [library.search_many([query])[0] for query in queries]
    for hits, want in zip(library.search_many(queries), alone, strict=True):
        assert [(hit.path, hit.start_s, hit.end_s) for hit in hits] == [
            (hit.path, hit.start_s, hit.end_s) for hit in want
        ]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in want], abs=1e-5)


def test_pages_continue_each_other(library: VideoIndex) -> None:
    everything = library.search(text="red", top=5)
    pages = [library.search_many([Query(text="red")], top=2, offset=offset)[0] for offset in (0, 2, 4)]
    assert [hit for page in pages for hit in page] == everything
    assert [hit.rank for hit in everything] == [1, 2, 3, 4, 5]
    assert library.search_many([Query(text="red")], offset=5)[0] == []
    least = everything[2].score
    assert library.search_many([Query(text="red")], min_score=least)[0] == everything[:3]


@pytest.mark.parametrize("option", [{"offset": -1}, {"min_score": float("nan")}])
def test_options_of_a_page_are_checked(library: VideoIndex, option: dict[str, float]) -> None:
    with pytest.raises(QueryError, match=r"offset|min_score"):
        library.search_many([Query(text="red")], **option)  # type: ignore[arg-type]


def test_a_mark_shows_where_good_hits_end(library: VideoIndex) -> None:
    hits = library.search(text="red", by="mean")
    marked = [hit.path.stem for hit in hits if hit.strong]
    assert {"a red", "b long", "e red too"} <= set(marked)
    assert "c green" not in marked
