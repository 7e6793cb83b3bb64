"""Every value that a `--help` text names is accepted by the code behind it.

An option whose help names a closed set of values must declare them, as a `Literal`, an `Enum` or a `ListOf`. Each value
that is declared is then tried through the command itself. A new option with choices fails `test_every_choice_is_tried`
until a trial is written for it.
"""

from __future__ import annotations

import enum
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from PIL import Image
from typer.models import OptionInfo, ParameterInfo
from typer.testing import CliRunner

from helpers.clips import write_clip
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart import config
from impart.cli.main import app
from impart.cli.options import ListOf, encoder_options, engine_of
from impart.encoders import load_encoder
from impart.encoders.base import register
from impart.errors import EncoderNotFoundError, ImpartError
from impart.evaluate.models import FORMS
from impart.refset.refset import ReferenceSet

RUN = CliRunner()
KNOWN_SETS = [
    set(get_args(value))
    for name, value in vars(config).items()
    if name in config.__all__ and get_origin(value) is Literal
]


@dataclass(frozen=True)
class Parameter:
    """An option or argument of a command, as declared."""

    command: str
    name: str
    info: ParameterInfo
    kind: Any
    default: Any

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that are accepted; empty where any text, number or path is."""
        if isinstance(self.info.parser, ListOf):
            return self.info.parser.choices
        inner = self.kind
        if get_origin(inner) in (typing.Union, types.UnionType):
            (inner,) = (one for one in get_args(inner) if one is not type(None))
        if get_origin(inner) is list:
            (inner,) = get_args(inner)
        if get_origin(inner) is Literal:
            return tuple(get_args(inner))
        if isinstance(inner, type) and issubclass(inner, enum.Enum):
            return tuple(str(one.value) for one in inner)
        return ()


def commands(group: typer.Typer = app, path: str = "") -> Iterator[tuple[str, Callable[..., None]]]:
    for one in group.registered_commands:
        assert one.callback is not None
        yield f"{path} {one.name or one.callback.__name__.replace('_', '-')}".strip(), one.callback
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        yield from commands(sub.typer_instance, f"{path} {sub.name}".strip())


def parameters() -> Iterator[Parameter]:
    for command, callback in commands():
        hints = typing.get_type_hints(callback, include_extras=True)
        for name, declared in inspect.signature(callback).parameters.items():
            kind, info = get_args(hints[name])
            flags = [one for one in (info.default, *(info.param_decls or ())) if str(one).startswith("--")]
            option = flags[0] if flags else f"--{name.replace('_', '-')}"
            yield Parameter(command, option if isinstance(info, OptionInfo) else name, info, kind, declared.default)


ALL = list(parameters())
WITH_CHOICES = [one for one in ALL if one.choices]


def named_values(text: str, metavar: str | None = None) -> list[str]:
    """The closed set of values that a help text or a metavar names, or none.

    >>> named_values("float16 or float32.")
    ['float16', 'float32']
    >>> named_values("auto (exact up to 100,000 pairs), exact, hnsw or ivf.")
    ['auto', 'exact', 'hnsw', 'ivf']
    >>> named_values("Ways of choosing: random, class or dedup.")
    ['random', 'class', 'dedup']
    >>> named_values("Folder of the report.")
    []
    """
    if metavar and "|" in metavar:
        return metavar.strip("[]<>").split("|")
    plain = re.sub(r"\([^)]*\)|'[^']*'", "", text)
    for part in re.split(r"(?<=\w): |\. |; |\.$", plain):
        listed = part.removeprefix("one of ").removeprefix("some of ").strip()
        if re.fullmatch(r"[a-z][\w-]*( ?, [a-z][\w-]*)*(,| or| and|, or| ,) [a-z][\w-]*", listed):
            return re.findall(r"[a-z][\w-]*", re.sub(r" (or|and) ", " ", listed))
    words = set(re.findall(r"[\w-]+", plain))
    return next((sorted(known & words) for known in KNOWN_SETS if len(known & words) > 1), [])


@pytest.mark.parametrize("parameter", ALL, ids=lambda one: f"{one.command} {one.name}")
def test_values_that_a_help_text_names_are_declared(parameter: Parameter) -> None:
    named = named_values(parameter.info.help or "", parameter.info.metavar)
    if isinstance(parameter.default, str) and any(parameter.default in known for known in KNOWN_SETS):
        named = [*named, parameter.default]
    if not named or parameter.kind is bool:
        return
    assert parameter.choices, f"the help names {named}: declare them as a Literal, an Enum or a ListOf"
    if isinstance(parameter.info.parser, ListOf):
        assert set(parameter.choices) <= set(re.findall(r"[\w-]+", parameter.info.help or "")), (
            "the help names them all"
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, clips, a reference set and an index of the tiny encoder; not to be changed."""
    _register()
    folder = tmp_path_factory.mktemp("place")
    for part, shade in (("test", 0), ("train", 20), ("pairs", 40)):
        for name in ("red", "green", "blue"):
            (folder / "caltech101" / part / name).mkdir(parents=True)
            for number in range(3):
                colour = tuple(abs(value - 3 * number - shade) for value in COLOURS[name])
                Image.new("RGB", (8, 8), colour).save(folder / "caltech101" / part / name / f"{number}.png")
    (folder / "caltech101" / "pairs").rename(folder / "pairs")
    ReferenceSet.build(folder / "pairs", TinyEncoder(), name="pairs").save(folder / "set")
    (folder / "clips").mkdir()
    write_clip(folder / "clips" / "a.mp4", colours=["red", "green"])
    write_clip(folder / "clips" / "b.mp4", colours=["blue"])
    (folder / "clips" / "captions.csv").write_text("file,caption\na.mp4,red\nb.mp4,blue\n")
    windows = '{"qid": 1, "query": "red", "duration": 2, "vid": "a", "relevant_windows": [[0, 1]]}'
    (folder / "clips" / "highlight_val_release.jsonl").write_text(windows)
    (folder / "boxes").mkdir()
    Image.new("RGB", (16, 8), COLOURS["red"]).save(folder / "boxes" / "red.png")
    (folder / "boxes" / "boxes.csv").write_text("file,label,x0,y0,x1,y1\nred.png,red,0,0,1,1\nred.png,blue,0,0,0.5,1\n")
    _run("index", folder / "clips", "-i", folder / "index", "-e", "tiny")
    _run("names", "add", "Rex", folder / "pairs" / "red", "-i", folder / "index")
    _run("eval", "zeroshot", folder / "pairs", "-e", "tiny", "--bootstrap", 0, "--no-cache", "-o", folder / "report")
    return folder


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _register()
    monkeypatch.setenv("IMPART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("impart.evaluate.sweep.folder.draw_panels", lambda path, panels, **more: path)
    monkeypatch.setattr("impart.data.yfcc.prepare", lambda files, out, settings: iter([settings]))


def _register() -> None:
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


def _run(*arguments: object) -> None:
    done = RUN.invoke(app, [str(part) for part in arguments])
    assert done.exit_code == 0, (done.output, done.exception)


def _measured(task: str, *data: object) -> list[object]:
    return ["eval", task, *data, "-e", "tiny", "--bootstrap", 0, "--no-report"]


def _few_shot(place: Path, _: Path) -> list[object]:
    data = f"caltech101:{place / 'caltech101'}"
    return [*_measured("few-shot", data), "--images", 1, "--draws", 1, "--near-duplicate", 2]


def _videos(place: Path) -> list[object]:
    return _measured("retrieval", "-d", f"video-captions:{place / 'clips' / 'captions.csv'}")


def _sweep(place: Path, out: Path) -> list[object]:
    one_point = ["--k", 1, "--tau", 0, "--sizes", "100%", "--corrupt", 0, "--w-img", 1, "--w-txt", 1, "--seeds", 1]
    data = ["-d", f"caltech101:{place / 'caltech101'}", "--near-duplicate", 2]
    return ["refset", "sweep", place / "set", "-o", out, *data, *one_point]


TRIALS: dict[tuple[str, str], Callable[[Path, Path], list[object]]] = {
    ("index", "--fit"): lambda place, out: ["index", place / "clips", "-i", out / "index", "-e", "tiny"],
    ("search", "--group"): lambda place, _: ["search", "red", "-i", place / "index"],
    ("search", "--by"): lambda place, _: ["search", "red", "-i", place / "index"],
    ("search", "--kind"): lambda place, _: ["search", "red", "-i", place / "index"],
    ("search", "--format"): lambda place, _: ["search", "red", "-i", place / "index"],
    ("export", "--to"): lambda place, out: [*("export", f"{place / 'clips' / 'a.mp4'}@0-1", "-o", out.parent)],
    ("similar", "--group"): lambda place, _: ["similar", f"{place / 'clips' / 'a.mp4'}@1", "-i", place / "index"],
    ("similar", "--by"): lambda place, _: ["similar", f"{place / 'clips' / 'a.mp4'}@1", "-i", place / "index"],
    ("similar", "--kind"): lambda place, _: ["similar", f"{place / 'clips' / 'a.mp4'}@1", "-i", place / "index"],
    ("similar", "--format"): lambda place, _: ["similar", f"{place / 'clips' / 'a.mp4'}@1", "-i", place / "index"],
    ("doctor", "--format"): lambda place, _: ["doctor", "-i", place / "index"],
    ("duplicates", "--format"): lambda place, _: ["duplicates", "-i", place / "index"],
    ("refset build", "--storage"): lambda place, out: ["refset", "build", place / "pairs", "-o", out, "-e", "tiny"],
    ("refset build", "--index"): lambda place, out: ["refset", "build", place / "pairs", "-o", out, "-e", "tiny"],
    ("refset sweep", "--select"): _sweep,
    ("refset sweep", "--around"): _sweep,
    ("refset sweep", "--prompts"): _sweep,
    ("names find", "--format"): lambda place, _: ["names", "find", "Rex", "-i", place / "index"],
    ("models list", "--format"): lambda _, __: ["models", "list"],
    ("eval zeroshot", "--prompts"): lambda place, _: _measured("zeroshot", f"caltech101:{place / 'caltech101'}"),
    ("eval probe", "--features"): lambda place, _: _measured("probe", place / "caltech101"),
    ("eval few-shot", "--methods"): _few_shot,
    ("eval few-shot", "--over"): lambda place, out: [*_few_shot(place, out), "--methods", "gda"],
    ("eval few-shot", "--tuned-with"): lambda place, out: [*_few_shot(place, out), "--methods", "gda"],
    ("eval few-shot", "--prompts"): lambda place, out: [*_few_shot(place, out), "--methods", "gda"],
    ("eval few-shot", "--format"): lambda place, out: [*_few_shot(place, out), "--methods", "gda"],
    ("eval regions", "--prompts"): lambda place, _: _measured("regions", place / "boxes"),
    ("eval retrieval", "--fit"): lambda place, _: _videos(place),
    ("eval retrieval", "--by"): lambda place, _: [
        *("eval", "retrieval", "-d", place / "clips" / "captions.csv", "-i", place / "index", "--no-report")
    ],
    ("eval moments", "--fit"): lambda place, _: _measured("moments", "-d", f"qvhighlights:{place / 'clips'}"),
    ("eval zeroshot", "--format"): lambda place, _: _measured("zeroshot", place / "pairs"),
    ("eval probe", "--format"): lambda place, _: _measured("probe", place / "caltech101"),
    ("eval regions", "--format"): lambda place, _: _measured("regions", place / "boxes"),
    ("eval retrieval", "--format"): lambda place, _: _videos(place),
    ("eval moments", "--format"): lambda place, _: _measured("moments", "-d", f"qvhighlights:{place / 'clips'}"),
    ("eval table", "--format"): lambda place, _: ["eval", "table", place / "report", "--bootstrap", 0],
    ("reproduce table1", "--format"): lambda place, _: [
        *("reproduce", "table1", "-d", place, "-e", "tiny", "-r", place / "set", "--bootstrap", 0, "--no-report")
    ],
    ("reproduce table1", "--prompts"): lambda place, _: [
        *("reproduce", "table1", "-d", place, "-e", "tiny", "-r", place / "set", "--bootstrap", 0, "--no-report")
    ],
}
"""Command and option -> the arguments of a run that uses the option; `--option value` is appended."""

ELSEWHERE = {
    ("data yfcc", "--caption"): "test_every_caption_field_is_accepted",
    ("scenes", "--format"): "test_every_format_of_scenes_is_accepted",
    ("index", "--engine"): "test_every_engine_is_accepted",
    **{(one.command, one.name): "test_every_device_is_accepted" for one in WITH_CHOICES if one.name == "--device"},
    ("refset build", "--engine"): "test_every_engine_is_accepted",
}
"""Options whose values are tried by another test: one command fetches images, one writes into the working folder, Ray
takes seconds to start, and most machines lack a GPU."""


def test_every_choice_is_tried() -> None:
    assert {(one.command, one.name) for one in WITH_CHOICES} == TRIALS.keys() | ELSEWHERE.keys()
    assert set(ELSEWHERE.values()) <= globals().keys()


@pytest.mark.parametrize(
    ("parameter", "value"),
    [(one, value) for one in WITH_CHOICES for value in one.choices if (one.command, one.name) in TRIALS],
    ids=lambda one: one if isinstance(one, str) else f"{one.command} {one.name}",
)
def test_every_choice_is_accepted(parameter: Parameter, value: str, place: Path, tmp_path: Path) -> None:
    if parameter.command == "eval probe":
        pytest.importorskip("sklearn")
    _run(*TRIALS[parameter.command, parameter.name](place, tmp_path / "out"), parameter.name, value)


def test_every_format_of_scenes_is_accepted(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (parameter,) = (one for one in WITH_CHOICES if (one.command, one.name) == ("scenes", "--format"))
    for form in parameter.choices:
        if form in ("edl", "otio"):
            pytest.importorskip("impart.video.export.timelines")
        _run("scenes", "-i", place / "index", "--format", form)


def test_every_engine_is_accepted() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'impart-clip[ray]'")
    for parameter in (one for one in WITH_CHOICES if one.name == "--engine"):
        for name in parameter.choices:
            assert (engine_of(name, "", 0) == "local") == (name == "local")


def test_every_device_is_accepted() -> None:
    """Each command hands the value to the settings; `cuda` itself is tried in tests/encoders/test_device.py."""
    for parameter in (one for one in WITH_CHOICES if one.name == "--device"):
        for name in parameter.choices:
            assert encoder_options(0, name) == ({} if name == "auto" else {"device": name})


def test_every_caption_field_is_accepted() -> None:
    from impart.data.yfcc import MetaRow, YfccSettings, caption_of

    (parameter,) = (one for one in WITH_CHOICES if (one.command, one.name) == ("data yfcc", "--caption"))
    texts = {name: f"about {name}" for name in parameter.choices}
    row = MetaRow(**dict.fromkeys(MetaRow.__annotations__, "") | texts)
    for name in parameter.choices:
        assert caption_of(row, YfccSettings(caption=(name,))) == f"about {name}"


def test_the_registries_have_what_the_help_names() -> None:
    from impart.evaluate.class_prompts import templates_of
    from impart.refset.storage import STORAGES
    from impart.refset.subsets import WAYS
    from impart.retrieval.nearest import KINDS
    from impart.retrieval.prompts import ZEROSHOT_ENSEMBLE, ZEROSHOT_SINGLE

    assert set(WAYS) == set(get_args(config.SelectionWay)) == set(config.SweepSettings.ways)
    assert set(KINDS) == set(get_args(config.IndexKind))
    assert set(STORAGES) == set(get_args(config.Storage))
    assert [templates_of(name) for name in get_args(config.FixedPrompts)] == [ZEROSHOT_ENSEMBLE, ZEROSHOT_SINGLE]


def test_every_kind_of_model_id_that_a_help_text_names_is_known() -> None:
    """`hf:<folder or hub repo>` or `hf:ID`: an unknown scheme fails otherwise than a model that is not there."""
    schemes = {found for one in ALL for found in re.findall(r"\b([a-z_]+):(?:<|ID|DIR|MODEL)", one.info.help or "")}
    assert schemes == {"onnx", "hf", "open_clip"}
    for scheme in schemes:
        with pytest.raises(ImpartError) as found:
            load_encoder(f"{scheme}:/no/such/model")
        assert "unknown" not in str(found.value), found.value
    with pytest.raises(EncoderNotFoundError):
        load_encoder("no_such_scheme:x")


def test_every_form_of_an_encoder_that_a_help_text_names_is_known() -> None:
    named = {found for one in ALL for found in re.findall(r"(?<=\+)[a-z]+", one.info.help or "")}
    assert named == set(FORMS) - {"plain"}


def test_commands_and_options_that_a_help_text_names_exist() -> None:
    known = dict(commands())
    groups = {name.rpartition(" ")[0] for name in known}
    options = {one.name for one in ALL} | {"--encoder"}
    texts = {f"{one.command} {one.name}": one.info.help or "" for one in ALL}
    texts |= {name: inspect.getdoc(callback) or "" for name, callback in known.items()}
    for where, text in texts.items():
        for cited in re.findall(r"'impart ([a-z][a-z -]*?)(?: [A-Z-][^']*)?'", text):
            assert cited in known or cited in groups, f"{where} names impart {cited}"
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text):
            assert option in options, f"{where} names {option}"


@pytest.mark.parametrize("parameter", ALL, ids=lambda one: f"{one.command} {one.name}")
def test_numbers_that_a_help_text_names_are_in_range(parameter: Parameter) -> None:
    """As in `0 = all`."""
    for number in re.findall(r"(?<![\w.])(\d+(?:\.\d+)?) = ", parameter.info.help or ""):
        low, high = parameter.info.min, parameter.info.max
        assert low is None or float(number) >= low
        assert high is None or float(number) <= high
