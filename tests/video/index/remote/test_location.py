"""URLs of indexes, and their local folders."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from impart.errors import ConfigError
from impart.video.index.remote.location import Location, MirrorPath, location_of, place_of


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IMPART_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("s3://films/library.impart", "s3://films/library.impart"),
        ("S3://films//a//b.impart/", "s3://films/a/b.impart"),
        ("gs://films/a b", "gs://films/a b"),
        ("az://films/x", "az://films/x"),
    ],
)
def test_a_url_is_read(text: str, url: str) -> None:
    assert Location.parse(text).url == url


@pytest.mark.parametrize(
    "text", ["s3://films", "s3:///x", "s3://films/../x", "s3://films/a?b", "ftp://films/x", "s3://f%ilms/x", "films/x"]
)
def test_what_is_no_url_of_an_index_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"bucket/library\.impart"):
        Location.parse(text)


def test_a_folder_stays_a_folder(tmp_path: Path) -> None:
    place = place_of(tmp_path / "a" / ".." / "library.impart")
    assert place == tmp_path / "library.impart"
    assert not isinstance(place, MirrorPath)
    assert location_of(place) is None
    assert not place.exists()


def test_a_mirror_is_shown_as_its_url_and_used_as_a_folder(tmp_path: Path) -> None:
    place = place_of("s3://films/library.impart")
    file = place / "names" / "manifest.json"
    assert (f"{place}", f"{file}") == ("s3://films/library.impart", "s3://films/library.impart/names/manifest.json")
    assert f"{place:>30}" == "     s3://films/library.impart"
    assert os.fspath(place).startswith(str(tmp_path / "cache"))
    assert place.is_dir()
    assert f"{place.parent}" == os.fspath(place.parent)
    assert f"{pickle.loads(pickle.dumps(place))}" == "s3://films/library.impart"
    assert place == Path(os.fspath(place))
    assert hash(place) == hash(Path(os.fspath(place)))


def test_the_folder_of_a_mirror_is_known_to_be_one() -> None:
    place = place_of("s3://films/library.impart")
    again = place_of(Path(os.fspath(place)))
    assert f"{again}" == "s3://films/library.impart"
    assert location_of(Path(os.fspath(place))) == Location("s3", "films", "library.impart")


def test_equal_names_in_other_buckets_have_other_folders() -> None:
    assert place_of("s3://films/library.impart") != place_of("s3://photos/library.impart")
    assert place_of("s3://films/library.impart") == place_of("s3://films/library.impart/")
