"""`impart index`, `search`, `similar`, `stats`, `eval` through the command line, with the tiny encoder."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from helpers.clips import write_audio, write_clip, write_two_streams
from helpers.tiny_encoder import TinyEncoder
from impart.cli.main import app
from impart.cli.output import Answer, Format, print_answers
from impart.cli.video.search import _print_one
from impart.encoders.base import register
from impart.errors import ConfigError, DataError, EncoderMismatchError, EncoderNotFoundError, QueryError
from impart.video.search.hits import Hit, Moment, NearCopy, Reason, parse_moment
from impart.video.search.last_search import load_last_search

RUN = CliRunner()


@pytest.fixture(autouse=True)
def _tiny_by_id() -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    write_clip(folder / "red.mp4", colours=["red"])
    write_clip(folder / "blue.mp4", colours=["blue"])
    write_clip(folder / "both.mp4", colours=["green", "yellow"], seconds_each=2.0)
    return folder


def run(*arguments: object, code: int = 0) -> Result:
    result = RUN.invoke(app, [str(part) for part in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


@pytest.fixture
def index(library: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "library.impart"
    assert "3 added" in run("index", library, "-i", folder, "-e", "tiny").stdout
    return folder


def test_crops_are_made_for_an_index_that_exists_and_counted(library: Path, index: Path) -> None:
    assert "crops of" not in run("stats", "-i", index).stdout
    assert "crops of" not in run("index", library, "-i", index, "--crops", "--dry-run").stdout
    printed = run("index", library, "-i", index, "--crops").stdout
    assert "3 unchanged" in printed
    assert "crops of 3 videos, 0.0 MB" in printed
    assert "crops of 3 of 3 videos and photos" in run("stats", "-i", index).stdout
    assert json.loads(run("stats", "-i", index, "--json").stdout)["with_crops"] == 3
    (library / next(path.name for path in sorted(library.glob("*.mp4")))).unlink()
    printed = run("index", library, "-i", index, "--crops", "--prune").stdout
    assert "crops of 2 videos" in printed


def test_a_second_run_has_nothing_to_do(library: Path, index: Path) -> None:
    assert "3 unchanged" in run("index", library, "-i", index).stdout
    assert "added" not in run("index", library, "-i", index, "--dry-run").stdout


def test_settings_of_a_search_come_from_file_environment_and_flags(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hits(*more: object) -> list[str]:
        found = json.loads(run("search", "red", "-i", index, "-f", "json", *more).stdout)["hits"]
        return [hit["timecode"] for hit in found]

    config = tmp_path / "impart.toml"
    config.write_text('[search]\ntop = 2\ngroup = "scene"\n')
    assert len(hits()) == 3
    assert len(hits("--config", config)) == 2
    assert len(hits("--config", config, "--top", 4)) == 4  # four scenes of three videos
    monkeypatch.setenv("IMPART_SEARCH_TOP", "1")
    assert len(hits("--config", config)) == 1
    assert len(json.loads(run("similar", "blue.mp4@0.2", "-i", index, "-f", "json").stdout)["hits"]) == 1
    monkeypatch.setenv("IMPART_SEARCH_GROUP", "film")
    with pytest.raises(ConfigError, match=r"search\.group"):
        RUN.invoke(app, ["search", "red", "-i", str(index)], catch_exceptions=False)


def test_together_needs_queries(index: Path, tmp_path: Path) -> None:
    lines = tmp_path / "queries.txt"
    lines.write_text("red\nblue\nyellow\n")
    answers = [run("search", "--queries", lines, "-i", index, *more).stdout for more in ([], ["--together"])]
    scores = [
        [hit["score"] for line in printed.splitlines() for hit in json.loads(line)["hits"]] for printed in answers
    ]
    assert len(scores[0]) == len(scores[1]) == 9
    assert scores[0] != scores[1]
    assert "--queries" in run("search", "red", "-i", index, "--together", code=2).output


def test_reasons_in_csv(index: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("search", "red", "-i", index, "-f", "csv", "--why").stdout)))
    assert all(json.loads(row["why"]) == [] for row in rows)  # the tiny encoder has no references


def test_a_text_without_quotes_is_answered_by_the_right_command(index: Path) -> None:
    assert "impart search 'a red car'" in run("search", "a", "red", "car", "-i", index, code=2).output


def test_a_long_text_takes_one_line_of_the_table(index: Path) -> None:
    lines = run("search", "red " * 100, "-i", index, "--all").stdout.splitlines()
    assert len(lines) == 5
    assert lines[0].endswith("...")
    assert len(lines[0]) <= 80
    assert not any(line.endswith(" ") for line in lines)


def test_reasons_name_only_weights_that_count(capsys: pytest.CaptureFixture[str]) -> None:
    reason = Reason(text="skis", source="", weight_img=0.0, weight_txt=0.02, similarity=0.8)
    times = {"start_s": 0, "end_s": 1, "best_s": 0, "scene_start_s": 0, "scene_end_s": 1, "video_s": 1}
    against = Reason(text="slide", source="", weight_img=0.0, weight_txt=-0.01, similarity=0.7)  # of a solved set
    hit = Hit(rank=1, path=Path("a.mp4"), score=0.3, video_id="", why=(reason, against), **times)
    print_answers([Answer(query="snow", hits=[hit], extra={})], Format.table, why=True)
    printed = capsys.readouterr().out
    assert "+ skis  (text 0.020, similarity 0.80)" in printed
    assert "- slide  (text -0.010, similarity 0.70)" in printed
    assert "the moment's vector" in printed.splitlines()[-1]
    assert max(map(len, printed.splitlines())) <= 100


def test_the_first_run_names_the_next_command(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "my lib"
    first = run("index", library, "-i", folder, "-e", "tiny")
    assert f"next: impart search \"a dog on a skateboard\" -i '{folder}'" in first.stderr
    assert "next:" not in run("index", library, "-i", folder).stderr


def test_a_time_outside_names_the_indexed_file(index: Path, library: Path) -> None:
    error = RUN.invoke(app, ["similar", "red.mp4@99", "-i", str(index)]).exception
    assert str(library / "red.mp4") in str(error)


def test_a_misspelt_encoder_and_a_folder_without_a_model(tmp_path: Path) -> None:
    for model, told in (("minni", "did you mean mini?"), (str(tmp_path), "is not the id of a model: write onnx:")):
        refused = RUN.invoke(app, ["index", str(tmp_path), "-e", model, "-i", str(tmp_path / "x")])
        assert isinstance(refused.exception, EncoderNotFoundError)
        assert told in str(refused.exception)


def test_a_single_query_in_every_format(index: Path) -> None:
    found = json.loads(run("search", "red", "-i", index, "-f", "json").stdout)
    assert found["query"] == "red"
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert Path(found["hits"][0]["path"]).name == "red.mp4"
    assert found["hits"][0]["score"] > 0.99
    assert {"rank", "path", "start_s", "end_s", "timecode", "score", "best_s", "scene_start_s", "scene_end_s"} < set(
        found["hits"][0]
    )
    assert (found["hits"][0]["kind"], found["hits"][0]["video_s"]) == (
        "video",
        pytest.approx(found["hits"][0]["scene_end_s"], abs=0.05),
    )
    lines = run("search", "red", "-i", index, "-f", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [found]
    rows = list(csv.DictReader(io.StringIO(run("search", "red", "-i", index, "-f", "csv").stdout)))
    assert [Path(row["path"]).name for row in rows] == [Path(hit["path"]).name for hit in found["hits"]]
    assert "red.mp4" in run("search", "red", "-i", index).stdout


def test_queries_print_one_object_per_line(index: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.txt"
    queries.write_text("red\nblue\n\nyellow\n")
    lines = [json.loads(line) for line in run("search", "--queries", queries, "-i", index, "-n", 1).stdout.splitlines()]
    assert [line["query"] for line in lines] == ["red", "blue", "yellow"]
    assert [Path(line["hits"][0]["path"]).stem for line in lines] == ["red", "blue", "both"]


def test_a_scene_is_found_at_its_second(index: Path) -> None:
    hit = json.loads(run("search", "yellow", "-i", index, "-g", "scene", "-f", "json", "-n", 1).stdout)["hits"][0]
    assert Path(hit["path"]).name == "both.mp4"
    assert hit["start_s"] == pytest.approx(2.0, abs=0.26)
    assert hit["end_s"] == pytest.approx(4.0, abs=0.26)
    assert hit["timecode"].startswith("00:00:0")


def test_images_and_negatives(index: Path, tmp_path: Path) -> None:
    image = tmp_path / "blue.png"
    Image.new("RGB", (40, 30), (0, 0, 255)).save(image)
    found = json.loads(run("search", "--image", image, "-i", index, "-f", "json").stdout)
    assert found["query"] == str(image)
    assert Path(found["hits"][0]["path"]).name == "blue.mp4"
    both = json.loads(run("search", "magenta", "--not", "red", "-i", index, "-f", "json").stdout)
    assert both["not"] == ["red"]
    assert Path(both["hits"][0]["path"]).name == "blue.mp4"


def test_similar_takes_a_photo_without_a_time(library: Path, index: Path) -> None:
    Image.new("RGB", (64, 48), (255, 0, 0)).save(library / "still@home.png")
    assert "0 videos, 1 photo\n" in run("index", library, "-i", index).stdout
    plain, timed = (
        json.loads(run("similar", f"{library / 'still@home.png'}{at}", "-i", index, "-f", "json").stdout)["hits"]
        for at in ("", "@0")
    )
    assert plain == timed
    assert plain[0]["path"] == str(library / "red.mp4")
    error = RUN.invoke(app, ["similar", str(library / "red.mp4"), "-i", str(index)]).exception
    assert isinstance(error, QueryError)
    assert "has no time" in str(error)


def test_similar_takes_a_name_or_a_path(library: Path, index: Path) -> None:
    by_name = run("similar", "red.mp4@0.5", "-i", index, "-f", "json").stdout
    by_path = run("similar", f"{library / 'red.mp4'}@00:00.5", "-i", index, "-f", "json").stdout
    assert json.loads(by_name)["hits"] == json.loads(by_path)["hits"]
    assert "red.mp4" not in {Path(hit["path"]).name for hit in json.loads(by_name)["hits"]}


@pytest.mark.parametrize("moment", ["clip.mp4", "clip.mp4@", "@3", "clip.mp4@one"])
def test_a_moment_without_a_time_is_refused(moment: str) -> None:
    with pytest.raises(QueryError, match=r"clip\.mp4@12\.5"):
        parse_moment(moment)


def test_another_encoder_is_refused_with_both_names_and_the_remedy(index: Path) -> None:
    result = run("search", "red", "-i", index, "-e", "tiny:1", code=1)
    assert isinstance(result.exception, EncoderMismatchError)
    assert "tiny:1" in str(result.exception)
    assert "'tiny'" in str(result.exception)
    assert "--encoder" in str(result.exception)


def test_bad_files_are_listed_and_the_rest_is_indexed(library: Path, tmp_path: Path) -> None:
    index = tmp_path / "bad.impart"
    (library / "empty.mp4").touch()
    (library / "notes.mp4").write_text("this is no video")
    write_clip(library / "dot.mkv", size=(2, 2))
    write_audio(library / "sound.mp4")
    write_clip(library / "wave.gif", colours=["cyan"], codec="gif")
    write_clip(library / 'it\'s a "name" with ünïcode.mp4', colours=["white"])
    (library / "loop").symlink_to(library)
    result = run("index", library, "-i", index, "-e", "tiny", code=3)
    assert "5 added" in result.stdout
    assert "3 failed" in result.stdout
    assert "1 without a video or photo" in result.stdout
    for name in ("empty.mp4", "notes.mp4", "dot.mkv", "sound.mp4"):
        assert f"{name}: " in result.stderr
    assert "Traceback" not in result.output
    listed = run("stats", "-i", index, "--failures").stdout.splitlines()
    assert sorted(Path(line.split(": ")[0]).name for line in listed) == [
        "dot.mkv",
        "empty.mp4",
        "notes.mp4",
        "sound.mp4",
    ]
    again = run("index", library, "-i", index, code=3)
    assert "3 skipped (failed before)" in again.stdout
    assert "3 failed" in run("index", library, "-i", index, "--retry-failed", code=3).stdout


def test_sound_recordings_do_not_fail_a_run(tmp_path: Path) -> None:
    write_audio(tmp_path / "podcast.mp4")
    write_clip(tmp_path / "film.mp4")
    index = tmp_path / "sound.impart"
    first = run("index", tmp_path, "-i", index, "-e", "tiny", code=0)
    assert "podcast.mp4: has sound but no image" in first.stderr
    assert "1 without a video or photo" in first.stdout
    again = run("index", tmp_path, "-i", index, code=0)
    assert "podcast" not in again.stderr
    assert "0 failed, 0 read in part, 1 without a video or photo" in run("stats", "-i", index).stderr


def test_another_video_stream_is_named_and_can_be_chosen(tmp_path: Path) -> None:
    film = write_two_streams(tmp_path / "two.mkv", "red", "blue")
    index = tmp_path / "two.impart"
    result = run("index", film, "-i", index, "-e", "tiny", code=0)
    assert "two.mkv: 1 further video stream left out (--stream chooses)" in result.stderr
    for number, colour in ((1, "red"), (2, "blue")):
        run("index", film, "-i", index, "--stream", str(number), code=0)
        found = json.loads(run("search", colour, "-i", index, "-f", "json", "--by", "moment").stdout)["hits"]
        assert found[0]["score"] > 0.9
    assert "1 unchanged" in run("index", film, "-i", index, code=0).stdout


def test_eval_counts_each_captions_own_video(index: Path, tmp_path: Path) -> None:
    captions = tmp_path / "captions.csv"
    captions.write_text("file,caption\nred.mp4,red\nblue.mp4,red\nabsent.mp4,white\n")
    found = json.loads(run("eval", "retrieval", captions, "-i", index, "--json", "--no-report").stdout)
    (result,) = found["results"]
    assert result["counts"] == {"queries": 2, "items": 3, "files not in the index": 1, "read in part": 0}
    assert (result["figures"]["R@1"]["value"], result["figures"]["R@5"]["value"]) == (0.5, 1.0)


def test_eval_of_an_index_counts_equals_as_ahead_and_leaves_out_names_that_are_there_twice(
    library: Path, index: Path, tmp_path: Path
) -> None:
    for name in ("copy.mp4", "again/blue.mp4"):
        (library / name).parent.mkdir(exist_ok=True)
        write_clip(library / name, colours=["red" if name == "copy.mp4" else "blue"], seconds_each=2.0)
    run("index", library, "-i", index)
    captions = tmp_path / "captions.csv"
    captions.write_text("file,caption\nred.mp4,red\ncopy.mp4,red\nblue.mp4,blue\nabsent.mp4,white\n")
    printed = run("eval", "retrieval", captions, "-i", index, "--json", "--no-report")
    (result,) = json.loads(printed.stdout)["results"]
    assert result["counts"] == {"queries": 2, "items": 5, "files not in the index": 1, "read in part": 0}
    assert result["figures"]["mean rank"]["value"] == 2.0  # both are red: neither is first
    assert "left out: 1 file names that several videos of the index have" in printed.stderr


def test_usage_errors_name_the_remedy(index: Path, tmp_path: Path) -> None:
    assert "--queries FILE" in run("search", "-i", index, code=2).output
    assert "leave the text" in run("search", "red", "--queries", tmp_path / "q", "-i", index, code=2).output


def test_the_console_script_reports_errors_in_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "none.impart"
    done = subprocess.run(
        [sys.executable, "-c", "from impart.cli.main import main; main()", "search", "x", "-i", str(missing)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert str(missing) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time\n"
        "from impart.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'lancedb', 'onnxruntime', 'av', 'faiss', 'pyarrow', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print('cpu', time.process_time(), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert "demo" in done.stdout
    assert float(done.stderr.split("cpu")[-1]) < 1.0  # 0.2 s when measured; wide, since test machines are busy


def test_a_home_folder_that_the_shell_left_alone(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run("index", library, "--index=~/mine.impart", "-e", "tiny", "--fps", 1)
    assert "3 unchanged" in run("index", library, "--index=~/mine.impart").stdout  # the index's own settings hold
    assert json.loads(run("search", "red", "--index=~/mine.impart", "-f", "json").stdout)["hits"]


def test_queries_from_a_pipe_are_utf8_too(index: Path) -> None:
    given = ["search", "--queries", "-", "-i", str(index), "-f", "jsonl"]
    done = RUN.invoke(app, given, input="\ufeffred\r\n".encode())
    assert json.loads(done.stdout)["query"] == "red"
    refused = RUN.invoke(app, given, input=b"caf\xe9\n")
    assert isinstance(refused.exception, DataError)
    assert "UTF-8" in str(refused.exception)


MAIN = "from helpers.tiny_encoder import TinyEncoder as T; from impart.encoders.base import register; "
MAIN += "register('tiny', lambda rest, **options: T()); from impart.cli.main import main; main()"


def console(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """Start the console script with the tiny encoder, in an ordinary UTF-8 locale (which is strict)."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, **options)


def test_names_that_are_not_utf8_are_printed_and_come_back_from_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / "films").mkdir()
    clip = write_clip(tmp_path / "films" / "x.mp4", colours=["red"])
    try:
        clip.rename(tmp_path / "films" / name)
    except OSError:
        pytest.skip("this file system takes only text for names")
    run("index", tmp_path / "films", "-i", tmp_path / "i", "-e", "tiny")
    printed = {}
    for arguments in (
        ("search", "red", "-i", tmp_path / "i"),
        ("search", "red", "-i", tmp_path / "i", "-f", "csv"),
        ("search", "red", "-i", tmp_path / "i", "-f", "jsonl"),
        ("stats", "-i", tmp_path / "i", "--videos"),
        ("index", tmp_path / "films", "-i", tmp_path / "new", "-e", "tiny", "--dry-run"),
    ):
        output, errors = (started := console(*arguments)).communicate(timeout=60)
        assert (started.returncode, errors) == (0, b""), arguments
        assert "caf\\udce9.mp4" in output.decode("utf-8")
        printed[arguments[-1]] = output.decode("utf-8")
    (hit,) = json.loads(printed["jsonl"])["hits"]
    assert Path(hit["path"]) == tmp_path / "films" / name


def test_a_closed_pipe_is_no_error(index: Path) -> None:
    for arguments in (("search", "red", "-f", "csv"), ("search", "red"), ("stats", "--videos")):
        started = console(*arguments, "-i", index)
        assert started.stdout is not None
        started.stdout.close()
        assert started.wait(timeout=60) == 0, arguments
        assert started.stderr is not None
        assert started.stderr.read() == b"", arguments
        started.stderr.close()


def test_copies_are_named_in_every_format(library: Path, index: Path) -> None:
    (library / "blue copy.mp4").write_bytes((library / "blue.mp4").read_bytes())
    run("index", library, "-i", index)
    (hit,) = json.loads(run("search", "blue", "-i", index, "-f", "jsonl", "-n", 1).stdout)["hits"]
    assert (Path(hit["path"]).name, [Path(path).name for path in hit["also_at"]]) == ("blue copy.mp4", ["blue.mp4"])
    (row,) = csv.DictReader(io.StringIO(run("search", "blue", "-i", index, "-f", "csv", "-n", 1).stdout))
    assert json.loads(row["also_at"]) == hit["also_at"]
    assert "also at" in run("search", "blue", "-i", index, "-n", 1).stdout


def test_nothing_found_leaves_nothing_and_is_told(library: Path, index: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    printed = run("index", tmp_path / "empty", "-i", tmp_path / "new", "-e", "tiny").stdout
    assert "no videos or photos found" in printed
    assert ".mp4" in printed
    assert "typo" in run("index", tmp_path / "typo", "-i", tmp_path / "new", "-e", "tiny", code=3).stderr
    assert not (tmp_path / "new").exists()
    assert "nothing to do: 3 files" in run("index", library, "-i", index, "--dry-run").stdout
    assert "no failures" in run("stats", "-i", index, "--failures").stdout
    for clip in library.iterdir():
        clip.unlink()
    kept = run("index", library, "-i", index, "--prune", code=3)
    assert "3 indexed videos are kept" in kept.stderr
    assert "3 removed" in run("index", library, "-i", index, "--prune", "--force").stdout
    assert "typo" in run("index", library / "typo", "-i", index, "--prune", "--force", code=3).stderr
    assert "--force needs --prune" in run("index", library, "-i", index, "--force", code=2).output
    assert "holds no videos" in run("search", "red", "-i", index).stderr
    assert "no videos" in run("stats", "-i", index, "--videos").stdout


def hits_of(index: Path, *arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("search", *arguments, "-i", index, "-f", "json").stdout)["hits"]
    return found


def test_one_colour_then_another(index: Path) -> None:
    found = json.loads(
        run("search", "green", "--then", "yellow", "--within", "1s", "-i", index, "-f", "json", "-n", 1).stdout
    )
    assert (found["then"], found["within_s"]) == (["yellow"], 1.0)
    (hit,) = found["hits"]
    assert Path(hit["path"]).name == "both.mp4"
    assert (hit["start_s"], hit["end_s"]) == (pytest.approx(0, abs=0.3), pytest.approx(4, abs=0.3))
    assert [step["start_s"] for step in hit["steps"]] == [pytest.approx(0, abs=0.3), pytest.approx(2, abs=0.3)]
    before, after = hits_of(index, "green", "--before", "yellow"), hits_of(index, "yellow", "--after", "green")
    assert (before[0]["start_s"], before[0]["end_s"]) == (pytest.approx(0, abs=0.3), pytest.approx(2, abs=0.3))
    assert (after[0]["start_s"], after[0]["end_s"]) == (pytest.approx(2, abs=0.3), pytest.approx(4, abs=0.3))
    printed = run("search", "green", "--then", "yellow", "-i", index, "-n", 1).stdout
    assert printed.splitlines()[0] == "green, then yellow"
    assert "part 1" in printed
    assert "part 2" in printed


def test_both_in_one_span(index: Path) -> None:
    assert Path(hits_of(index, "green", "--with", "red")[0]["path"]).name != "blue.mp4"
    assert len(hits_of(index, "yellow", "--with", "green", "--then", "green")) <= 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("red", "--then", "blue", "--before", "green"), "one of --then, --before and --after"),
        (("red", "--within", "5s"), "--within needs"),
        (("red", "--image-weight", "2"), "--image-weight needs"),
        (("--expression", "--image", "x.png"), "--expression needs a text"),
    ],
)
def test_options_that_do_not_go_together(index: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in " ".join(run("search", *arguments, "-i", index, code=2).output.replace("│", " ").split())


@pytest.mark.parametrize("within", ["soon", "-3s", "5x", "nan", ""])
def test_a_length_of_time_that_is_none_is_refused(index: Path, within: str) -> None:
    refused = RUN.invoke(app, ["search", "red", "--then", "blue", f"--within={within}", "-i", str(index)])
    assert isinstance(refused.exception, QueryError)
    assert "10s, 5m, 1h30m or 1:30" in str(refused.exception)


def test_an_expression_and_a_plain_sentence(index: Path, tmp_path: Path) -> None:
    image = tmp_path / "blue - 1.png"
    Image.new("RGB", (40, 30), (0, 0, 255)).save(image)
    assert Path(hits_of(index, "3*blue + red - 0.5*green", "--expression")[0]["path"]).name == "blue.mp4"
    assert Path(hits_of(index, "3*red + blue - 0.5*green", "--expression")[0]["path"]).name == "red.mp4"
    assert Path(hits_of(index, f'red + 5*image:"{image}"', "--expression")[0]["path"]).name == "blue.mp4"
    plain = hits_of(index, "3*blue + red - 0.5*green")
    assert plain == hits_of(index, "blue and red and green")  # without the option, a sentence as any other
    weights = [hits_of(index, "red", "--image", image, "--image-weight", w)[0]["path"] for w in (0.2, 5)]
    assert [Path(path).name for path in weights] == ["red.mp4", "blue.mp4"]


def test_pages_and_least_scores(index: Path) -> None:
    everything = hits_of(index, "red")
    assert [hit["rank"] for hit in everything] == [1, 2, 3]
    assert hits_of(index, "red", "--top", 1, "--offset", 1) == everything[1:2]
    assert hits_of(index, "red", "--min-score", everything[1]["score"]) == everything[:2]


def test_filters_without_a_hit_are_told(index: Path, tmp_path: Path) -> None:
    lines = tmp_path / "queries.txt"
    lines.write_text("red\nblue\n")
    for asked in (["red"], ["--queries", lines], ["red", "--then", "blue"]):
        assert "fits the filters" in run("search", *asked, "--path", "none", "-i", index).stderr
        assert "fits the filters" not in run("search", *asked, "--path", "*.mp4", "-i", index).stderr
        assert "fits the filters" not in run("search", *asked, "--min-score", "99", "-i", index).stderr


def test_the_table_ends_where_good_hits_end(index: Path) -> None:
    marked = [hit["strong"] for hit in hits_of(index, "red")]
    assert marked[0]
    assert not marked[-1]
    printed = run("search", "red", "-i", index).stdout
    assert f"{marked[::-1].index(True)} more below: --all" in printed
    assert "more below" not in run("search", "red", "-i", index, "--all").stdout
    assert len(run("search", "red", "-i", index, "--all").stdout.splitlines()) == 5


def test_a_query_that_nothing_matches_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    times = {"start_s": 0, "end_s": 1, "best_s": 0, "scene_start_s": 0, "scene_end_s": 1, "video_s": 1}
    weak = [
        Hit(rank=rank, path=Path(f"{rank}.mp4"), score=0.1, video_id="", strong=False, **times) for rank in range(1, 9)
    ]
    answer = Answer(query="asdf", hits=weak, extra={})
    assert _print_one(answer, Format.table, tmp_path, command="search", why=False) == 8
    out, err = capsys.readouterr()
    assert "nothing matches 'asdf' well: these are the best hits" in err
    assert "5 more below: --all" in out
    assert "3.mp4" in out
    assert "4.mp4" not in out


def test_the_last_search_is_kept_as_printed(index: Path) -> None:
    run("search", "red", "-i", index)
    shown = load_last_search(index)
    assert (shown.query, shown.command) == ("red", "search")
    assert shown.hits[0].number == 1
    assert len(shown.hits) < 3
    run("search", "red", "-i", index, "--all", "--offset", 1)
    assert [hit.number for hit in load_last_search(index).hits] == [2, 3]
    run("similar", "red.mp4@0.5", "-i", index, "-f", "json")
    assert load_last_search(index).command == "similar"


def test_a_table_of_eighty_columns(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    hit = Hit(
        rank=12,
        path=Path("/films/holidays/a long name of a film in the mountains.mp4"),
        score=0.3456,
        video_id="",
        start_s=3723.2,
        end_s=3731.75,
        best_s=3725,
        scene_start_s=3700,
        scene_end_s=3800,
        video_s=7200,
        moments=(Moment(start_s=61, end_s=64.5, score=0.3, best_s=62),),
        near_copies=(
            NearCopy(path=Path("/films/copy.mp4"), start_s=5, end_s=9, score=0.3),
            NearCopy(path=Path("/films/still.jpg"), start_s=0, end_s=0, score=0.3, kind="photo"),
        ),
    )
    print_answers([Answer(query="a dog", hits=[hit], extra={})], Format.table, why=False)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["#", "score", "start", "-", "end", "length", "video"]
    assert "12  0.346  1:02:03.2 - 1:02:11.8   8.6 s  /films/holidays/" in lines[2]
    assert any("1:01.0 - 1:04.5   3.5 s    further span" in line for line in lines)
    assert any("0:05.0 - 0:09.0          same in /films/copy.mp4" in line for line in lines)
    assert any(re.search(r"   photo +same in /films/still.jpg", line) for line in lines)
