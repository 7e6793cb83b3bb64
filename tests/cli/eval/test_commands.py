"""`impart eval`: its output, its files and its exit codes."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from helpers.clips import faststart, truncate, write_clip
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.cli.main import app
from impart.encoders.base import register
from impart.evaluate.report.folder import read_report
from impart.refset.refset import ReferenceSet

RUN = CliRunner()
ENCODED: list[int] = []


@pytest.fixture(autouse=True)
def _tiny_by_id(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Counting(TinyEncoder):
        def encode_images(self, images: Any) -> Any:
            ENCODED.append(len(images))
            return super().encode_images(images)

    register("tiny", lambda rest, **options: Counting(int(rest or 0)))
    monkeypatch.setenv("IMPART_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    ENCODED.clear()


def paint(
    folder: Path, *, count: int = 4, names: tuple[str, ...] = ("red", "green", "blue", "white"), shade: int = 0
) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            colour = tuple(abs(part - 3 * number - shade) for part in COLOURS[name])
            Image.new("RGB", (8, 8), colour).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return paint(tmp_path / "classes")


@pytest.fixture
def references(tmp_path: Path) -> Path:
    folder = paint(tmp_path / "others", count=2, shade=40)
    return ReferenceSet.build(folder, TinyEncoder(), name="others").save(tmp_path / "set")


def run(*arguments: object, code: int = 0) -> Result:
    result = RUN.invoke(app, ["eval", *(str(part) for part in arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_models_are_measured_on_the_same_items_and_reported(classes: Path, references: Path, tmp_path: Path) -> None:
    options = ("-e", "tiny,tiny+vanilla,tiny+paper", "-r", references, "--near-duplicate", "2")
    said = run("zeroshot", "--data", f"folder:{classes}", *options, "-o", "out")
    assert "tiny+paper" in said.stdout
    assert "± is half of the 95% interval" in said.stdout
    assert "report: out" in said.stderr
    report = read_report(tmp_path / "out")
    assert [result.encoder for result in report.results] == ["tiny", "tiny+vanilla", "tiny+paper"]
    assert len({result.items for result in report.results}) == 1
    assert report.results[0].figures["top-1"] == 1.0
    assert report.results[1].counts["references"] == 8
    assert {one["label"] for one in report.encoders} == {"tiny", "tiny+vanilla", "tiny+paper"}
    assert report.settings["prompts"] == "ensemble"
    assert (tmp_path / "out" / "plots").is_dir()


def test_the_default_models_use_the_given_set(classes: Path, references: Path) -> None:
    from impart.config import EncoderSettings

    assert EncoderSettings.model == "mini"
    said = run("zeroshot", classes, "-r", references, "--no-report", code=1)
    assert "was made with encoder 'tiny'" in str(said.exception)


def test_the_second_run_encodes_nothing(classes: Path) -> None:
    first = json.loads(run("zeroshot", classes, "-e", "tiny", "--json", "--no-report").stdout)
    assert sum(ENCODED) == 16
    again = json.loads(run("zeroshot", classes, "-e", "tiny", "--json", "--no-report").stdout)
    assert sum(ENCODED) == 16
    assert first["results"] == again["results"]
    run("zeroshot", classes, "-e", "tiny", "--no-cache", "--no-report")
    assert sum(ENCODED) == 32


def test_without_a_cache_a_run_still_encodes_once(classes: Path, references: Path) -> None:
    run("zeroshot", classes, "-e", "tiny,tiny+vanilla,tiny+paper", "-r", references, "--no-cache", "--no-report")
    assert sum(ENCODED) == 16


def test_references_from_the_test_set_are_dropped_and_counted(classes: Path, tmp_path: Path) -> None:
    shutil.copytree(classes / "red", tmp_path / "one" / "red")
    ReferenceSet.build(tmp_path / "one", TinyEncoder(), name="leak").save(tmp_path / "leak")
    options = ("-e", "tiny,tiny+vanilla", "-r", "leak", "--near-duplicate", "2", "--json")
    said = run("zeroshot", classes, *options, "-o", "out")
    assert "4 references show test images and were left out: 4 the same file (certain)\n" in said.stderr
    content = json.loads(said.stdout)
    assert content == json.loads((tmp_path / "out" / "report.json").read_text()) | {
        "created": content["created"],
        "seconds": content["seconds"],
    }
    counts = content["results"][1]["counts"]
    assert (counts["references"], counts["references dropped"]) == (0, 4)
    assert content["encoders"][1]["references"]["dropped_same_file"] == 4
    assert content["comparisons"][0]["differences"][0]["noise"] is True


def test_unreadable_images_are_named_and_the_code_is_3(classes: Path) -> None:
    (classes / "red" / "broken.png").write_bytes(b"no image")
    said = run("zeroshot", classes, "-e", "tiny", "--no-report", code=3)
    assert "broken.png" in said.stderr
    assert "16 images" in said.stdout
    assert "1 unreadable" in said.stdout


def test_compare_two_reports(classes: Path, references: Path) -> None:
    run("zeroshot", classes, "-e", "tiny", "-o", "a")
    Image.new("RGB", (8, 8), (250, 5, 5)).save(classes / "red" / "new.png")
    run("zeroshot", classes, "-e", "tiny", "-o", "b")
    said = run("compare", "a", "b")
    assert "16 items are in both; left out: 0 only in the first, 1 only in the second" in said.stdout
    content = json.loads(run("compare", "a", "b", "--json").stdout)
    assert content["comparisons"][0]["differences"][0]["difference"] == 0
    assert (content["comparisons"][0]["shared"], content["comparisons"][0]["only_b"]) == (16, 1)
    missing = run("compare", "a", "nowhere", code=1)
    assert "has no report" in str(missing.exception)


def test_many_reports_in_one_table_and_figures_as_csv(classes: Path, references: Path) -> None:
    options = ("-e", "tiny,tiny+vanilla", "-r", references, "--near-duplicate", "2")
    printed = run("zeroshot", classes, *options, "-o", "first", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert list(rows[0]) == ["report", "task", "dataset", "model", "figure", "value", "low", "high"]
    assert {row["model"] for row in rows} == {"tiny", "tiny+vanilla"}
    first = next(row for row in rows if row["figure"] == "top-1")
    assert float(first["low"]) <= float(first["value"]) <= float(first["high"]) <= 1
    run("zeroshot", classes, "-e", "tiny", "-o", "second")
    table = run("table", "first", "second")
    assert "Results of all reports" in table.stdout
    lines = [line.split() for line in table.stdout.splitlines() if line.startswith(("first", "second"))]
    assert [line[:2] for line in lines] == [["first", "tiny"], ["first", "tiny+vanilla"], ["second", "tiny"]]
    assert lines[0][2] == lines[2][2] == f"{100 * float(first['value']):.1f}"
    listed = list(csv.DictReader(io.StringIO(run("table", "first", "second", "--format", "csv").stdout)))
    assert {row["report"] for row in listed} == {"first", "second"}
    again = json.loads(run("table", "first", "--format", "json", "--figure", "top-1", "--bootstrap", "0").stdout)
    assert [row["model"] for row in again] == ["tiny", "tiny+vanilla"]
    assert again[0]["low"] is None
    content = json.loads(run("zeroshot", classes, "-e", "tiny", "--format", "json", "--no-report").stdout)
    assert content["kind"] == "evaluation"
    assert "there are top-1" in str(run("table", "first", "--figure", "R@5", code=1).exception)


def test_retrieval_both_ways(tmp_path: Path) -> None:
    folder = tmp_path / "captioned"
    folder.mkdir()
    rows = []
    for name in ("red", "green", "blue"):
        Image.new("RGB", (8, 8), COLOURS[name]).save(folder / f"{name}.png")
        rows += [f"{name}.png,a {name} square", f"{name}.png,{name}"]
    (folder / "captions.csv").write_text("\n".join(["file,caption", *rows]))
    content = json.loads(run("retrieval", folder, "-e", "tiny", "--query-bank", "--json", "--no-report").stdout)
    tasks = {result["task"]: result for result in content["results"]}
    assert list(tasks) == [
        "text to image",
        "image to text",
        "text to image (query bank)",
        "image to text (query bank)",
        "text to image (as searched)",
    ]
    assert tasks["text to image"]["figures"]["R@1"]["value"] == 1.0
    assert tasks["text to image"]["counts"]["queries"] == 6


def test_probe_trains_on_the_train_folder(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    paint(tmp_path / "data" / "train", count=5, shade=10)
    paint(tmp_path / "data" / "test")
    content = json.loads(run("probe", "data", "-e", "tiny", "--json", "--no-report").stdout)
    (result,) = content["results"]
    assert (result["task"], result["figures"]["top-1"]["value"]) == ("linear probe", 1.0)
    assert result["counts"]["training images"] == 20


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "a.mp4", colours=["red", "green"])
    write_clip(folder / "b.mp4", colours=["blue"])
    return folder


def test_video_retrieval_by_text_and_by_frame(clips: Path, references: Path) -> None:
    (clips / "captions.csv").write_text("file,caption\na.mp4,red\na.mp4,green\nb.mp4,blue\nabsent.mp4,white\n")
    names = ("-e", "tiny,tiny+vanilla", "-r", references, "--near-duplicate", "2")
    said = run("retrieval", "-d", f"video-captions:{clips / 'captions.csv'}", *names, "--image-queries", "--json")
    results = {(one["task"], one["encoder"]): one for one in json.loads(said.stdout)["results"]}
    assert len(results) == 8
    found = results["text to video", "tiny"]
    assert (found["counts"]["queries"], found["counts"]["items"]) == (3, 2)
    assert found["figures"]["R@1"]["value"] == 1.0
    assert results["image to video", "tiny"]["figures"]["R@5"]["value"] == 1.0
    assert results["text to video", "tiny+vanilla"]["counts"]["references"] == 8
    encoded = sum(ENCODED)
    run("retrieval", "-d", f"video-captions:{clips / 'captions.csv'}", "-e", "tiny", "--no-report")
    assert sum(ENCODED) == encoded
    run("retrieval", "-d", f"video-captions:{clips / 'captions.csv'}", "-e", "tiny", "--fit", "crop", "--no-report")
    assert sum(ENCODED) > encoded  # other frames, not in the cache
    wrong = run("retrieval", "-d", f"video-captions:{clips / 'captions.csv'}", "-e", "tiny", "--fit", "stretch", code=2)
    assert "stretch" in wrong.stderr


def test_references_that_show_a_frame_are_dropped(clips: Path, references: Path) -> None:
    (clips / "captions.csv").write_text("file,caption\na.mp4,red\nb.mp4,blue\n")
    names = ("-e", "tiny,tiny+vanilla", "-r", references, "--near-duplicate", "0.9")
    said = run("retrieval", "-d", f"video-captions:{clips / 'captions.csv'}", *names, "--json", "--no-report")
    counts = {one["encoder"]: one["counts"] for one in json.loads(said.stdout)["results"]}
    assert counts["tiny+vanilla"]["references dropped"] > 0


def test_moments_of_the_search_and_of_a_file(clips: Path, tmp_path: Path) -> None:
    write_clip(clips / "a.mp4", colours=["red", "green"], seconds_each=2)
    lines = [
        {"qid": 1, "query": "red", "duration": 4, "vid": "a", "relevant_windows": [[0, 2]]},
        {"qid": 2, "query": "green", "duration": 4, "vid": "a", "relevant_windows": [[2, 4]]},
    ]
    clip_fields = {"relevant_clip_ids": [0], "saliency_scores": [[4, 4, 4]]}
    rows = [json.dumps(line | clip_fields) for line in lines]
    (clips / "highlight_val_release.jsonl").write_text("\n".join(rows))
    content = json.loads(run("moments", "-d", f"qvhighlights:{clips}", "-e", "tiny", "--json", "--no-report").stdout)
    (result,) = content["results"]
    assert (result["task"], result["counts"]["queries"]) == ("moments", 2)
    assert result["figures"]["R1@0.7"]["value"] == 1.0
    assert result["settings"]["method"] == "search"
    (clips / "charades_sta_test.txt").write_text("a 0.0 2.0##red\na 2.0 4.0##green\n")
    content = json.loads(run("moments", "-d", f"charades-sta:{clips}", "-e", "tiny", "--json", "--no-report").stdout)
    assert content["results"][0]["figures"]["R1@0.7"]["value"] == 1.0
    for name, windows in (("right", ([[0, 2, 1.0]], [[2, 4, 1.0]])), ("wrong", ([[2, 4, 1.0]], [[0, 1, 1.0]]))):
        answers = [{"qid": qid, "pred_relevant_windows": found} for qid, found in enumerate(windows, start=1)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(answer) for answer in answers))
    files = ("--predictions", "right.jsonl", "--predictions", "wrong.jsonl")
    content = json.loads(run("moments", "-d", f"qvhighlights:{clips}", *files, "--json", "--no-report").stdout)
    figures = {one["encoder"]: one["figures"]["R1@0.5"]["value"] for one in content["results"]}
    assert figures == {"right": 1.0, "wrong": 0.0}
    assert "made elsewhere" in run("moments", "-d", f"qvhighlights:{clips}", *files, "-e", "tiny", code=2).output


def test_videos_that_are_cut_short_are_counted_and_named_with_code_3(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    write_clip(folder / "a.mp4", colours=["red"])
    truncate(faststart(write_clip(folder / "b.mp4", colours=["blue", "green"] * 4, g="10")), 0.6)
    (folder / "captions.csv").write_text("file,caption\na.mp4,red\nb.mp4,blue\n")
    lines = [
        {"qid": 1, "query": "red", "duration": 1, "vid": "a", "relevant_windows": [[0, 1]]},
        {"qid": 2, "query": "blue", "duration": 8, "vid": "b", "relevant_windows": [[0, 1]]},
    ]
    (folder / "highlight_val_release.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    made = RUN.invoke(app, ["index", str(folder), "-i", "library", "-e", "tiny"])
    assert "1 read in part" in made.stdout
    for task, *options in (
        ("retrieval", "-d", f"video-captions:{folder / 'captions.csv'}", "-e", "tiny", "--image-queries"),
        ("moments", "-d", f"qvhighlights:{folder}", "-e", "tiny"),
        ("retrieval", "-d", folder / "captions.csv", "-i", "library"),
    ):
        said = run(task, *options, "-o", f"out-{len(list(tmp_path.glob('out-*')))}", code=3)
        report = max(tmp_path.glob("out-*"), key=lambda path: path.name)
        assert "1 read in part" in said.stdout, said.stdout
        told = f"read in part: {folder / 'b.mp4'}: stopped at"
        assert told in said.stderr
        assert told in (report / "report.md").read_text()
        results = read_report(report).results
        assert {result.counts["read in part"] for result in results} == {1}
        assert all(any(note.startswith(told) for note in result.notes) for result in results)


def test_regions_of_a_table_of_boxes(tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    image = Image.new("RGB", (16, 8), COLOURS["red"])
    image.paste(COLOURS["blue"], (8, 0, 16, 8))
    image.save(folder / "both.png")
    (folder / "boxes.csv").write_text("file,label,x0,y0,x1,y1\nboth.png,red,0,0,0.5,1\nboth.png,blue,0.5,0,1,1\n")
    options = ("-e", "tiny", "--scales", "1", "--json", "--no-report")
    (result,) = json.loads(run("regions", folder, *options).stdout)["results"]
    assert (result["counts"]["boxes"], result["figures"]["top-1"]["value"]) == (2, 1.0)
    assert "--scales 'big'" in run("regions", folder, "-e", "tiny", "--scales", "big", code=2).output


def test_references_that_show_the_content_of_a_box_are_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    image = Image.new("RGB", (16, 8), COLOURS["red"])
    image.paste(COLOURS["blue"], (8, 0, 16, 8))
    image.save(folder / "both.png")
    (folder / "boxes.csv").write_text("file,label,x0,y0,x1,y1\nboth.png,red,0,0,0.5,1\nboth.png,blue,0.5,0,1,1\n")
    paint(tmp_path / "plain", names=("red", "green"), count=1)
    ReferenceSet.build(tmp_path / "plain", TinyEncoder(), name="plain").save(tmp_path / "set")
    options = ("-e", "tiny+vanilla", "-r", "set", "--scales", "1", "--json", "--no-report")
    (result,) = json.loads(run("regions", folder, *options).stdout)["results"]
    assert (result["counts"]["references"], result["counts"]["references dropped"]) == (1, 1)


def test_reproduce_table1(tmp_path: Path, references: Path) -> None:
    paint(tmp_path / "data" / "caltech101" / "test", count=1)
    told = ("reproduce", "table1", "--data", "data", "--encoder", "tiny", "-r", str(references), "-o", "out")
    said = RUN.invoke(app, [*told, "--near-duplicate", "2", "--no-cache"])
    assert said.exit_code == 0, (said.output, said.exception)
    assert "Table 1: zero-shot classification" in said.stdout
    assert "85.39" in said.stdout
    assert "impart train ram_mini" in said.stdout
    assert "CIFAR-10 is not in data" in said.stderr
    assert (tmp_path / "out" / "plots" / "table1.png").is_file()
    text = (tmp_path / "out" / "report.md").read_text()
    assert "### Settings" in text
    assert "plots/table1.png" in text


def test_data_sets_are_listed_with_their_files() -> None:
    listed = {one["name"]: one for one in json.loads(run("datasets", "--json").stdout)}
    assert listed["cifar10"]["home"].startswith("https://www.cs.toronto.edu")
    printed = run("datasets").stdout
    assert "cifar-10-python.tar.gz" in printed
    assert max(map(len, printed.splitlines())) <= 130  # addresses are not cut
    assert "  cifar10  (splits: test, train)" in printed.splitlines()


def test_usage_errors_name_the_remedy(classes: Path, tmp_path: Path) -> None:
    assert "--data cifar10:PATH" in run("zeroshot", "-e", "tiny", code=2).output
    wrong = run("zeroshot", classes, "-e", "tiny+vanilla", code=1)
    assert "give --refset DIR" in str(wrong.exception)
    assert "--index has its own" in run("retrieval", "x.csv", "-i", "library", "-e", "tiny", code=2).output


def test_two_data_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    for place in ("one", "two"):
        paint(tmp_path / place / "birds" / "test", count=1)
    said = run("zeroshot", "one/birds/test", "two/birds/test", "-e", "tiny", "--no-report", code=1)
    assert "two data sets are called 'birds/test'" in str(said.exception)


def test_intervals_can_be_left_out(classes: Path) -> None:
    content = json.loads(run("zeroshot", classes, "-e", "tiny", "--bootstrap", "0", "--json", "--no-report").stdout)
    assert content["results"][0]["figures"]["top-1"] == {"value": 1.0}


def test_figures_do_not_depend_on_the_batch(classes: Path) -> None:
    figures = [
        json.loads(run("zeroshot", classes, "-e", "tiny", "--no-cache", "--batch", n, "--json", "--no-report").stdout)
        for n in (1, 7)
    ]
    assert np.isclose(
        figures[0]["results"][0]["figures"]["log-loss"]["value"],
        figures[1]["results"][0]["figures"]["log-loss"]["value"],
    )
