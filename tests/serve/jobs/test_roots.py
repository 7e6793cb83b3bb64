"""Folders that jobs may read: whatever leads out of the roots is refused, before the disk is asked where possible."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.job_queues import make_queue
from impart.serve.jobs import roots as module
from impart.serve.jobs.refusal import JobRefusedError
from impart.serve.jobs.roots import check_folders, top_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a folder and links, beside a folder that is none."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "film.mp4").touch()
    (tmp_path / "secret").mkdir()
    (tmp_path / "root-2").mkdir()
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "in").symlink_to(root / "inner")
    (root / "loop").symlink_to(root / "loop")
    (tmp_path / "alias").symlink_to(root)
    return root


def test_folders_inside_the_roots_are_taken_with_their_links_followed(root: Path, tmp_path: Path) -> None:
    given = [str(root), f"{root}/inner/", f"{root}/./in", f"{root}//inner"]
    assert check_folders(given, [root]) == (root, root / "inner", root / "inner", root / "inner")
    alias = tmp_path / "alias"
    assert check_folders([str(alias / "inner"), str(root)], [alias]) == (root / "inner", root)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("{root}/../secret", "without '..'"),
        ("{root}/inner/../../secret", "without '..'"),
        ("inner", "absolute path"),
        ("", "absolute path"),
        ("~", "absolute path"),
        ("{root}/in\0ner", "absolute path"),
        ("{parent}/secret", "is outside"),
        ("{parent}/root-2", "is outside"),
        ("{parent}", "is outside"),
        ("/", "is outside"),
        ("/etc/passwd", "is outside"),
        ("{root}/out", "leads out"),
        ("{root}/loop", "cannot be found"),
        ("{root}/nothing", "cannot be found"),
        ("{root}/" + "x" * 5000, "cannot be found"),
        ("{root}/\ud800", "cannot be found"),
        ("{root}/film.mp4", "is a file"),
        ("{root}/film.mp4/x", "cannot be found"),
    ],
)
def test_everything_else_is_refused_with_the_roots_and_the_remedy(root: Path, path: str, reason: str) -> None:
    given = path.format(root=root, parent=root.parent)
    with pytest.raises(JobRefusedError) as refused:
        check_folders([str(root), given], [root])
    assert (refused.value.status, refused.value.code) == (403, "outside_roots")
    assert reason in str(refused.value)
    assert f"Folders that may be indexed: {root}." in str(refused.value)
    assert "impart serve --root FOLDER" in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_path_outside_is_refused_without_asking_the_disk(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.os.path, "realpath", os.path.abspath)
    monkeypatch.setattr(Path, "resolve", lambda *_, **__: pytest.fail("the disk was asked"))
    answers = set()
    for name in ("secret", "missing"):
        with pytest.raises(JobRefusedError) as refused:
            check_folders([str(tmp_path / name)], [root])
        answers.add(str(refused.value).replace(name, "NAME"))
    assert len(answers) == 1, "the answer does not tell whether a folder exists"


def test_roots_may_be_relative_to_the_working_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    queue = make_queue(tmp_path / "index", Path("root"))
    assert queue.roots() == [root]


def test_top_folders_of_nothing_and_of_nested_ones() -> None:
    assert top_folders([]) == []
    assert top_folders([Path("/x.mp4"), Path("/a/y.mp4")]) == [Path("/")]
    assert top_folders([Path("/ab/x.mp4"), Path("/a/y.mp4")]) == [Path("/a"), Path("/ab")]
