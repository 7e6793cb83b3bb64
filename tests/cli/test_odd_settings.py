"""Odd and damaged settings, over all commands that read them: one sentence that names the file, and no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.clips import write_clip
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.cli.main import app
from impart.encoders.base import register
from impart.encoders.onnx.encoder import MINI_FOLDER
from impart.errors import ImpartError
from impart.video.search.state.shard_files import map_arrays, write_arrays

RUN = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def _tiny_by_id() -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with films, an index and a reference set; tests change copies."""
    root = tmp_path_factory.mktemp("made")
    (root / "films").mkdir()
    write_clip(root / "films" / "red.mp4", colours=["red"])
    for name in ("red", "blue"):
        (root / "classes" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), tuple(abs(part - number) for part in COLOURS[name])).save(
                root / "classes" / name / f"{number}.png"
            )
    run("refset", "build", root / "classes", "-o", root / "set", "-e", "tiny")
    run("index", root / "films", "-i", root / "library", "-e", "tiny", "--refset", root / "set")
    return root


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """Copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "made"))


def run(*arguments: object) -> None:
    result = RUN.invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, (result.output, result.exception)


def refused(*arguments: object, env: dict[str, str] | None = None) -> str:
    """Run a command that must fail with one sentence; return it."""
    result = RUN.invoke(app, [*map(str, arguments)], env=env)
    command = " ".join(map(str, arguments))
    assert result.exit_code != 0, f"{command}: taken without a word: {result.output}"
    assert isinstance(result.exception, ImpartError | SystemExit), f"{command}: {result.exception!r}"
    message = str(result.exception) if isinstance(result.exception, ImpartError) else result.output
    assert "Value error" not in message
    assert "pydantic" not in message
    return message


SETTINGS: dict[str, tuple[bytes, str]] = {
    "another encoding": ("[search]\ntop = 3 # größe\n".encode("utf-16"), "UTF-8"),
    "latin-1": ("[search]\n# größe\n".encode("latin-1"), "UTF-8"),
    "not TOML": (b"{", "not TOML"),
    "nested too deeply": (b"[search]\ntop = " + b"[" * 5000, "not TOML"),
    "a value in place of a table": (b"search = 5\n", r"write a table [search]"),
    "a list of tables": (b"[[search]]\ntop = 5\n", r"write a table [search]"),
    "a truth value in place of a number": (b"[search]\ntop = true\n", "search.top is true, but must be a whole number"),
    "a fraction": (b"[search]\ntop = 2.5\n", "search.top is 2.5, but must be a whole number, such as top = 10"),
    "a word in place of a number": (b'[decode]\nfps = "4"\n', "decode.fps is '4', but must be a finite number"),
    "nan": (b"[decode]\nreuse_threshold = nan\n", "decode.reuse_threshold is nan, but must be a finite number"),
    "infinite": (b"[decode]\nfps = inf\n", "decode.fps is inf"),
    "a number in place of a text": (b"[search]\nprompts = [1]\n", "search.prompts is [1], but must be a list of texts"),
    "a text in place of a list": (b'[search]\nprompts = "{}"\n', "search.prompts is '{}', but must be a list of texts"),
    "an empty list": (b"[search]\nprompts = []\n", "search.prompts"),
    "a date": (b"[search]\ntop = 2020-01-01\n", "search.top"),
    "a table in place of a number": (b"[search.top]\nvalue = 3\n", "search.top"),
    "an unknown choice": (b'[search]\ngroup = "film"\n', "search.group is 'film', but must be one of video"),
    "a list in place of a choice": (b'[search]\ngroup = ["video"]\n', "search.group"),
    "a misspelt setting": (b"[search]\ntpo = 3\n", "search.tpo"),
    "a misspelt table": (b"[serach]\ntop = 3\n", "serach"),
    "out of range": (b"[search]\ntop = 0\n", "search.top is 0"),
    "no batch": (b"[encoder]\nbatch = 0\n", "encoder.batch is 0"),
    "negative threads": (b"[decode]\nthreads = -1\n", "decode.threads is -1"),
    "a cosine of two": (b"[index]\ncut_threshold = 2.0\n", "index.cut_threshold is 2.0"),
    "never compacted": (b"[index]\ncompact_every = 0\n", "index.compact_every is 0"),
    "a number in place of a truth value": (b"[search]\nhub_correction = 1\n", "must be true or false"),
    "a number in place of a model": (b"[encoder]\nmodel = 5\n", "encoder.model is 5, but must be a text in quotes"),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("command", ["index", "search", "similar"])
def test_a_settings_file(made: Path, tmp_path: Path, command: str, name: str) -> None:
    content, wanted = SETTINGS[name]
    file = tmp_path / "odd.toml"
    file.write_bytes(content)
    what = {"index": made / "films", "search": "red", "similar": "red.mp4@0"}[command]
    message = refused(command, what, "-i", made / "library", "--config", file)
    assert str(file) in message
    assert wanted in message


def test_a_settings_file_that_is_a_folder_or_missing(made: Path, tmp_path: Path) -> None:
    for file in (tmp_path, tmp_path / "nothing.toml"):
        assert str(file) in refused("search", "red", "-i", made / "library", "--config", file)


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("IMPART_SEARCH_TOP", "many", "must be a whole number, such as 10"),
        ("IMPART_SEARCH_TOP", "", "must be a whole number"),
        ("IMPART_SEARCH_TOP", "0", "search.top is 0"),
        ("IMPART_DECODE_FPS", "nan", "must be a finite number"),
        ("IMPART_SEARCH_HUB_CORRECTION", "perhaps", "must be true or false"),
        ("IMPART_SEARCH_GROUP", "film", "must be one of video"),
        ("IMPART_SEARCH_PROMPTS", "no place", "search.prompts"),
        ("IMPART_SERACH_TOP", "3", "did you mean IMPART_SEARCH_TOP?"),
        ("IMPART_SEARCH_TPO", "3", "did you mean IMPART_SEARCH_TOP?"),
        ("IMPART_INDX", "library", "did you mean IMPART_INDEX?"),
        ("IMPART_SEARCH_PHRASINGS", "{}", "is now IMPART_SEARCH_PROMPTS"),
    ],
)
@pytest.mark.parametrize("command", ["index", "search", "similar"])
def test_the_environment(made: Path, command: str, variable: str, value: str, wanted: str) -> None:
    what = {"index": made / "films", "search": "red", "similar": "red.mp4@0"}[command]
    message = refused(command, what, "-i", made / "library", env={variable: value})
    assert f"environment variable {variable}" in message
    assert wanted in message


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "films", "--fps", "nan"],
        ["index", "films", "--fps", "inf"],
        ["index", "films", "--reuse-threshold", "nan"],
        ["refset", "build", "classes", "-o", "new", "--fraction", "nan"],
        ["refset", "sweep", "set", "-o", "sweep", "--w-img", "0,nan"],
        ["refset", "sweep", "set", "-o", "sweep", "--tau", "inf"],
        ["refset", "sweep", "set", "-o", "sweep", "--k", "1.5"],
        ["refset", "sweep", "set", "-o", "sweep", "--corrupt", "nan"],
    ],
)
def test_an_option(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.chdir(made)
    if arguments[0] == "index":
        arguments = [*arguments, "-i", "library"]
    message = refused(*arguments).replace("-", "_")
    assert arguments[arguments.index(arguments[-1] if arguments[0] != "index" else "-i") - 1] is not None
    assert any(part.strip("-").replace("-", "_") in message for part in arguments if part.startswith("--")), message
    assert not (made / "new").exists()


CONFIGS: dict[str, tuple[bytes, str]] = {
    "another encoding": ('mode = "ram" # größe'.encode("utf-16"), "UTF-8"),
    "a list as mode": (b'mode = ["ram"]\n', "mode"),
    "a table as mode": (b"[mode]\nram = 1\n", "mode"),
    "a value in place of a table": (b'mode = "ram"\nloop = 5\n', "write a table [loop]"),
    "a truth value": (b'mode = "ram"\n[loop]\nbatch = true\n', "loop.batch is true, but must be a whole number"),
    "nan": (b'mode = "ram"\n[loss]\nnear_text = nan\n', "loss.near_text is nan, but must be a finite number"),
    "letter by letter": (b'mode = "ram"\n[reference]\nsources = "flickr"\n', "must be a list of texts"),
    "one text in place of pairs": (b'mode = "ram"\n[data]\npairs = "a.csv"\n', "[[data.pairs]]"),
    "texts in place of pairs": (b'mode = "ram"\n[data]\npairs = ["a.csv"]\n', "data.pairs[0]"),
    "pairs as a table": (b'mode = "ram"\n[data.pairs]\npath = "a.csv"\n', "[[data.pairs]]"),
    "a path that is a number": (b'mode = "ram"\n[[data.pairs]]\npath = 5\n', "data.pairs[0].path is 5"),
    "a list in a selection": (b'mode = "ram"\n[[data.pairs]]\npath = "a"\nwhere = { a = [1] }\n', "where"),
    "three betas in words": (b'mode = "ram"\n[optimiser]\nbetas = ["a", "b"]\n', "optimiser.betas"),
    "a rate in words": (b'mode = "ram"\n[optimiser]\nrates = { ram = "fast" }\n', "optimiser.rates"),
    "a seed with a fraction": (b'mode = "ram"\nseed = 0.5\n', "seed is 0.5, but must be a whole number"),
    "shares of two views": (b'mode = "heads"\n[heads]\nview_shares = [0.5, 0.5]\n', "a list of 3 finite numbers"),
    "an unknown setting": (b'mode = "ram"\n[loop]\nepoch = 3\n', "loop.epoch"),
    "out of range": (b'mode = "ram"\n[loop]\nbatch = 0\n', "loop.batch is 0"),
    "layers in words": (b'mode = "pretrain"\n[pretrain]\nimage = { layers = "six" }\n', "pretrain.image"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_training_config(tmp_path: Path, name: str) -> None:
    content, wanted = CONFIGS[name]
    file = tmp_path / "odd.toml"
    file.write_bytes(content)
    message = refused("train", file, "-o", tmp_path / "run")
    assert str(file) in message
    assert wanted in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("loop.batch=true", "loop.batch is true"),
        ("loop.batch=many", "loop.batch is 'many'"),
        ("loop.epochs=nan", "loop.epochs is nan"),
        ("loop=5", "write a table [loop]"),
        ("seed.more=5", "seed"),
        ("loop.batch.more=5", "loop.batch"),
        ("reference.sources=flickr", "must be a list of texts"),
        ("loop.batch=" + "[" * 3000, "loop.batch"),
        ("=5", "--set"),
        ("loop.batch", "--set"),
    ],
)
def test_a_change_on_the_command_line(tmp_path: Path, change: str, wanted: str) -> None:
    assert wanted in refused("train", "ram_mini", "-o", tmp_path / "run", "--set", change)
    assert not (tmp_path / "run").exists()


def _entry(name: str, value: Any) -> Callable[[Any], Any]:
    """Change an entry of a JSON file, by its dotted name."""

    def change(content: Any) -> Any:
        holder = content
        *parents, leaf = name.split(".")
        for parent in parents:
            holder = holder[parent]
        holder[leaf] = value
        return content

    return change


WHOLE: dict[str, bytes] = {
    "another encoding": '{"größe": 1}'.encode("utf-16"),
    "cut off": b'{"schema": 1, ',
    "a list": b"[1, 2]",
    "a number": b"5",
    "nested too deeply": b"[" * 100_000,
    "empty": b"",
}

INDEX = ["decode", "decode.fps", "decode.fit", "index", "index.precision", "augmentation", "augmentation.settings"]
INDEX += ["augmentation.settings.k", "augmentation.folder", "dim", "encoder_id", "schema", "kind", "created_at"]
SET = ["count", "dim", "storage", "sources", "settings", "index", "index.kind", "index.sample", "vanilla", "vanilla.k"]
SET += ["encoder_id", "fingerprint", "data", "schema", "znorm"]


def _odd(names: list[str], *, texts: tuple[str, ...]) -> list[tuple[str, object]]:
    """Pair entries with values that they cannot have; `texts` are entries that may be any text."""
    values = (True, "many", [1], float("nan"))
    return [(name, value) for name in names for value in values if value != "many" or name not in texts]


def _damaged(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


@pytest.mark.parametrize(("name", "value"), _odd(INDEX, texts=("encoder_id", "created_at", "augmentation.folder")))
def test_the_manifest_of_an_index(place: Path, name: str, value: Any) -> None:
    path = place / "library" / "manifest.json"
    _damaged(path, _entry(name, value))
    for arguments in (["search", "red"], ["index", place / "films"]):
        message = refused(*arguments, "-i", place / "library")
        assert str(place / "library") in message


@pytest.mark.parametrize("name", WHOLE)
def test_a_damaged_manifest(place: Path, name: str) -> None:
    path = place / "library"
    (path / "manifest.json").write_bytes(WHOLE[name])
    for arguments in (["search", "red"], ["stats"], ["index", place / "films"]):
        assert str(path) in refused(*arguments, "-i", path)
    path = place / "set"
    (path / "manifest.json").write_bytes(WHOLE[name])
    for arguments in (["info", path], ["tune", path], ["add", path, place / "classes"], ["merge", path, "-o", "new"]):
        assert str(path) in refused("refset", *arguments)


@pytest.mark.parametrize(("name", "value"), _odd(SET, texts=("encoder_id", "fingerprint", "znorm")))
def test_the_manifest_of_a_set(place: Path, name: str, value: Any) -> None:
    _damaged(place / "set" / "manifest.json", _entry("cohort" if name == "znorm" else name, value))
    commands: list[list[object]] = [["refset", "info", place / "set"]]
    if name.startswith("vanilla"):
        commands.append(["refset", "use", place / "set", "-i", place / "library"])
    for command in commands:
        assert str(place / "set") in refused(*command)


MODEL = ["dim", "retrieval_dim", "context_tokens", "preprocess", "preprocess.size", "preprocess.mean", "logit_scale"]
MODEL += ["preprocess.interpolation", "small_pictures", "small_pictures.size", "small_pictures.up_to_px"]


@pytest.mark.parametrize("value", [True, "many", {"a": 1}, float("nan")], ids=str)
@pytest.mark.parametrize("name", MODEL)
def test_the_description_of_a_model(made: Path, tmp_path: Path, name: str, value: Any) -> None:
    for file in MINI_FOLDER.iterdir():
        if file.is_file() and file.name != "model.json":
            (tmp_path / file.name).symlink_to(file)
    content = json.loads((MINI_FOLDER / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps(_entry(name, value)(content)))
    arguments = ["build", made / "classes", "-o", tmp_path / "new", "-e", f"mini:{tmp_path}"]
    assert "model.json" in refused("refset", *arguments)


def test_a_cache_of_an_index_that_does_not_fit_is_made_anew(place: Path) -> None:
    arguments = ["search", "red", "-i", str(place / "library"), "-f", "json"]
    want = RUN.invoke(app, arguments).stdout
    for path in sorted((place / "library" / "cache").glob("*.*")):
        kept = path.read_bytes()
        arrays = map_arrays(path) or {}
        for name, whole in arrays.items():
            for odd in (whole[..., :-1], np.zeros((1, 1, 1, 1), whole.dtype)):
                path.unlink()
                write_arrays(path, arrays | {name: odd})
                result = RUN.invoke(app, arguments)
                assert result.exit_code == 0, (path.name, name, odd.shape, result.exception)
                assert result.stdout == want
        path.write_bytes(kept)
