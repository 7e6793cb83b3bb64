"""`impart refset` on the command line: output, files and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.clips import write_clip
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.cli.main import app as whole
from impart.cli.refset import app
from impart.encoders.base import register
from impart.errors import ImpartError
from impart.refset.refset import ReferenceSet
from impart.video.index.manifest import IndexManifest

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _tiny_by_id() -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    folder = tmp_path / "classes"
    for name in ("red", "green", "blue", "white"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            r, g, b = COLOURS[name]
            Image.new("RGB", (8, 8), (abs(r - i), abs(g - i), abs(b - i))).save(folder / name / f"{i}.png")
    return folder


def test_build_info_add_merge_tune(classes: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    built = RUN.invoke(
        app, ["build", str(classes), "-o", str(out), "-e", "tiny", "--per-class", "3", "--licence", "CC0"]
    )
    assert built.exit_code == 0, built.output
    assert "12 pairs, 4 texts" in built.output
    assert "classes: 12 pairs, CC0" in built.output
    manifest = json.loads(RUN.invoke(app, ["info", str(out), "--json"]).output)
    assert (manifest["encoder_id"], manifest["count"], manifest["dim"]) == ("tiny", 12, 16)
    assert manifest["settings"]["per_class"] == 3
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert set(manifest["vanilla"]) == {"k", "w_img", "w_txt", "tau", "floor", "ramp", "target"}
    added = RUN.invoke(app, ["add", str(out), str(classes)])
    assert added.exit_code == 0, added.output
    assert "24 pairs" in added.output
    assert "12 duplicates" in added.output
    other = tmp_path / "other"
    shutil.copytree(classes / "red", tmp_path / "named" / "crimson")
    RUN.invoke(app, ["build", str(tmp_path / "named"), "-o", str(other), "-e", "tiny", "--no-tune"])
    merged = RUN.invoke(app, ["merge", str(out), str(other), "-o", str(tmp_path / "both")])
    assert merged.exit_code == 0, merged.output
    assert "30 pairs" in merged.output
    tuned = RUN.invoke(app, ["tune", str(tmp_path / "both")])
    assert tuned.exit_code == 0, tuned.output
    assert "chosen by leave-one-out: of 24 own images" in tuned.output


def test_failures_are_listed_with_exit_code_3(classes: Path, tmp_path: Path) -> None:
    (classes / "red" / "broken.png").write_bytes(b"no image")
    result = RUN.invoke(app, ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--no-tune"])
    assert result.exit_code == 3
    assert "left out: red/broken.png: not a readable image" in result.output
    assert "24 pairs" in result.output
    assert "red/broken.png" in (tmp_path / "set" / "failures.csv").read_text()


def test_hold_out(classes: Path, tmp_path: Path) -> None:
    arguments = ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--fraction", "0.25", "--seed", "2"]
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "6 pairs" in result.output
    assert len((tmp_path / "set" / "rest.csv").read_text().splitlines()) == 1 + 18


def refused(arguments: list[object], *, within: str = "refset") -> str:
    """Run a command that must fail without a traceback; return its message."""
    result = RUN.invoke(whole, [within, *map(str, arguments)])
    assert result.exit_code != 0, result.output
    assert isinstance(result.exception, ImpartError | SystemExit), result.exception
    return result.output + (str(result.exception) if isinstance(result.exception, ImpartError) else "")


def built(source: Path, out: Path, *more: str) -> Path:
    result = RUN.invoke(app, ["build", str(source), "-o", str(out), "-e", "tiny", *more])
    assert result.exit_code == 0, (result.output, result.exception)
    return out


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    write_clip(tmp_path / "films" / "red.mp4", colours=["red"])
    folder = tmp_path / "library.impart"
    result = RUN.invoke(whole, ["index", str(tmp_path / "films"), "-i", str(folder), "-e", "tiny"])
    assert result.exit_code == 0, (result.output, result.exception)
    return folder


def test_a_set_and_other_files_are_not_overwritten_without_a_word(classes: Path, index: Path, tmp_path: Path) -> None:
    out = built(classes, tmp_path / "set", "--no-tune")
    before = (out / "manifest.json").read_bytes()
    one = tmp_path / "one"
    shutil.copytree(classes / "red", one / "red")
    arguments = ["build", one, "-o", out, "-e", "tiny", "--no-tune"]
    assert "--overwrite replaces it" in refused(arguments)
    assert "--overwrite replaces it" in refused(["merge", out, out, "-o", out])
    assert (out / "manifest.json").read_bytes() == before
    built(one, out, "--no-tune", "--overwrite")
    assert len(ReferenceSet.open(out)) == 6
    (tmp_path / "notes").mkdir()
    notes = [tmp_path / "notes" / name for name in ("pairs-2024.csv", "cohort-list.txt")]
    for note in notes:
        note.write_text("mine")
    assert "contains other files" in refused(["build", classes, "-o", tmp_path / "notes", "-e", "tiny"])
    built(classes, tmp_path / "notes", "--no-tune", "--overwrite")
    assert [note.read_text() for note in notes] == ["mine", "mine"]
    assert "is a video index" in refused(["build", classes, "-o", index, "-e", "tiny", "--overwrite"])
    IndexManifest.load(index)
    assert "is a file" in refused(["build", classes, "-o", notes[0], "-e", "tiny", "--overwrite"])


def test_a_build_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(["build", tmp_path / "empty", "-o", tmp_path / "set", "-e", "tiny"])
    assert not (tmp_path / "set").exists()


def test_one_pair_gets_the_gated_settings(classes: Path, tmp_path: Path) -> None:
    out = built(classes, tmp_path / "set", "--limit", "1")
    stored = ReferenceSet.open(out).manifest.vanilla
    assert stored is not None
    assert stored["floor"] >= 4
    assert stored["w_img"] == 0


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("limit", ["1", "5", "20"])
def test_a_small_set_is_searched_exactly(classes: Path, tmp_path: Path, kind: str, limit: str) -> None:
    arguments = ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--index", kind, "--limit", limit]
    result = RUN.invoke(app, [*arguments, "--no-tune"])
    assert result.exit_code == 0, (result.output, result.exception)
    assert f"exact, not {kind}: a set of this size is always searched exactly, recall@8 1" in result.output
    assert ReferenceSet.open(tmp_path / "set").manifest.index["recall"] == 1


def test_one_image_under_two_texts_is_named_by_build_and_add(classes: Path, tmp_path: Path) -> None:
    (classes / "blue" / "copy.png").write_bytes((classes / "red" / "0.png").read_bytes())
    result = RUN.invoke(app, ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--no-tune"])
    assert "the same image under two texts: blue/copy.png (blue), red/0.png (red)" in result.stderr
    other = tmp_path / "more" / "green"
    other.mkdir(parents=True)
    (other / "white.png").write_bytes((classes / "white" / "1.png").read_bytes())
    added = RUN.invoke(app, ["add", str(tmp_path / "set"), str(other.parent), "--no-tune"])
    assert "white/1.png (white), green/white.png (green)" in added.stderr
    assert "impart refset use" in added.stdout  # an index has a copy of the set
    captions = tmp_path / "captions.csv"
    captions.write_text(f"file,text\n{classes / 'red' / '0.png'},a wall\n{classes / 'red' / '0.png'},a red wall\n")
    built = RUN.invoke(app, ["build", str(captions), "-o", str(tmp_path / "captions"), "-e", "tiny", "--no-tune"])
    assert built.exit_code == 0
    assert "two texts" not in built.stderr  # captions of one image are no mistake


def test_the_set_in_force_is_switched_off_and_on(
    classes: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = built(classes, tmp_path / "set")

    def in_force() -> str | None:
        augmentation = IndexManifest.load(index).augmentation
        return augmentation.references_name if augmentation else None

    def use(*arguments: object) -> str:
        result = RUN.invoke(app, ["use", *map(str, arguments)])
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    assert in_force() is None
    use(out, "--index", index)
    assert in_force() == "set"
    message = refused([tmp_path / "films", "-i", index, "--no-augment"], within="index")
    assert f"impart refset use --none --index {index}" in message
    message = refused([tmp_path / "films", "-i", index, "--no-augment", "--refset", out], within="index")
    assert "contradict" in message
    assert "no reference set" in use(index, "--none")
    assert in_force() is None
    result = RUN.invoke(whole, ["index", str(tmp_path / "films"), "-i", str(index), "--no-augment"])
    assert result.exit_code == 0, result.output
    assert "impart refset use" in refused([tmp_path / "films", "-i", index, "--refset", out], within="index")
    use(out, "--index", index)
    use("--none", "--index", index)
    assert in_force() is None
    use(out, "--index", index)
    monkeypatch.setenv("IMPART_INDEX", str(tmp_path / "another"))
    use(index, "--none")  # what is named counts, not the environment
    assert in_force() is None
    assert "not both" in refused(["use", out, "--none"])
    monkeypatch.delenv("IMPART_INDEX")
    assert "no reference set comes with the model 'tiny'" in refused(["use", "--default", "-i", index])


def test_wrong_places_give_the_right_remedy(classes: Path, index: Path, tmp_path: Path) -> None:
    out = built(classes, tmp_path / "set", "--no-tune")
    assert f"impart refset use {out} --index {index}" in refused(["use", index, "--index", out])
    assert f"impart refset use SET --index {index}" in refused(["use", index])
    assert f"impart refset use SET --index {index}" in refused(["use", index, "-i", index])
    assert "is a reference set" in refused(["use", out, "-i", out])
    assert "library.impart: make one with" in refused(["use", out])
    assert "contradict" in refused(["use", index, "--default", "--none"])
    for command in (["info", index], ["add", index, classes], ["tune", index], ["merge", out, index, "-o", "both"]):
        assert "is a video index, not a reference set" in refused(command)
    assert "contains no reference set" in refused(["use", tmp_path / "nowhere", "-i", index])


def test_class_names_are_given_by_a_file_and_notes_are_printed(classes: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("red", "green", "blue", "white")):
        (classes / name).rename(classes / str(number))
    shutil.copytree(classes / "0", classes / "0_")
    arguments = ["build", str(classes), "-o", str(tmp_path / "set"), "-e", "tiny", "--no-tune"]
    refused = RUN.invoke(app, arguments)
    assert "its class is '0', a number or a code: give its name in a file (--class-names" in str(refused.exception)
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"0": "red", "1": "green", "2": "blue", "3": "white", "0_": "red"}))
    result = RUN.invoke(app, [*arguments, "--class-names", str(names)])
    assert result.exit_code == 0, result.output
    assert "4 texts" in result.output
    assert "note       2 folders share 1 text, first '0' and '0_': 'red'" in result.output
