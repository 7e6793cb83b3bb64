"""Defaults < TOML < environment < flags, and errors that name the setting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from impart import config
from impart.config import (
    RETIRED,
    VARIABLES,
    DecodeSettings,
    IndexSettings,
    SearchSettings,
    Settings,
    VanillaSettings,
    _variable,
)
from impart.errors import ConfigError
from impart.validation import check_names, read_toml


def test_each_source_wins_over_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "impart.toml"
    file.write_text("[decode]\nfps = 2\n[index]\ncompact_every = 3\n[search]\ntop = 7\n")
    start = Settings(decode=DecodeSettings(fps=1, stall_s=9))
    environ = {"IMPART_INDEX_COMPACT_EVERY": "5", "IMPART_SEARCH_TOP": "6"}
    settings = Settings.load(file, environ=environ, flags={"search.top": 4, "decode.fps": None}, start=start)
    assert settings.decode.stall_s == 9  # from where it started
    assert settings.decode.fps == 2  # from the file
    assert settings.index.compact_every == 5  # from the environment
    assert settings.search.top == 4  # from the flags
    assert Settings.load(environ={}) == Settings()


@pytest.mark.parametrize(("value", "expected"), [("false", False), ("0", False), ("off", False), ("True", True)])
def test_booleans_from_the_environment(value: str, expected: bool) -> None:
    assert Settings.load(environ={"IMPART_SEARCH_HUB_CORRECTION": value}).search.hub_correction is expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[decode]\nfsp = 2\n", r"impart\.toml has no setting 'decode\.fsp'; there are decode\.fps, "),
        ("[decoding]\nfps = 2\n", r"impart\.toml has no table 'decoding'; there are encoder, "),
        ("[decode]\nfps = 'fast'\n", "decode.fps"),
        ("[decode]\nfps = 0\n", "decode.fps"),
        ("[search]\ngroup = 'film'\n", "search.group"),
        ("[search]\nhub_correction = 'perhaps'\n", "true or false"),
        ("[decode\n", r"impart\.toml is not TOML"),
        ("decode = 3\n", r"write a table \[decode\]"),
    ],
)
def test_a_wrong_settings_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "impart.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named):
        Settings.load(file, environ={})


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        Settings.load(tmp_path / "nowhere.toml", environ={})


def test_values_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vanilla\.k"):
        VanillaSettings(k=0)


@pytest.mark.parametrize(("old", "new"), RETIRED.items())
def test_a_renamed_setting_is_refused_and_its_new_name_is_given(tmp_path: Path, old: str, new: str) -> None:
    concern, name = old.split(".")
    file = tmp_path / "impart.toml"
    file.write_text(f'[{concern}]\n{name} = ["{{}}"]\n')
    with pytest.raises(ConfigError, match=rf"impart\.toml: setting '{old}' is now '{new}'"):
        Settings.load(file, environ={})
    with pytest.raises(ConfigError, match="IMPART_SEARCH_PHRASINGS is now IMPART_SEARCH_PROMPTS"):
        Settings.load(environ={f"IMPART_{concern}_{name}".upper(): "{}"})
    with pytest.raises(ConfigError, match=f"'{old}' is now '{new}'"):
        Settings.load(environ={}, flags={old: ["{}"]})


def test_every_environment_variable_that_is_read_is_known() -> None:
    settings = {_variable(f"{concern}.{name}") for concern, table in Settings().as_dict().items() for name in table}
    used = set()
    for path in Path(config.__file__).parent.rglob("*.py"):
        used |= set(re.findall(r"IMPART_[A-Z]+(?:_[A-Z]+)*", path.read_text(encoding="utf-8")))
    assert used - settings - set(VARIABLES) == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (VanillaSettings, "w_img"),
        (VanillaSettings, "tau"),
        (DecodeSettings, "stall_s"),
        (IndexSettings, "cut_threshold"),
        (SearchSettings, "negative_weight"),
    ],
)
def test_settings_made_in_python_are_finite(kind: type, name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is (nan|inf): it must be a finite number"):
        kind(**{name: value})


def test_a_settings_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[search]\ntop = 3\n", encoding="utf-8-sig")
    assert Settings.load(tmp_path / "a.toml", environ={}).search.top == 3


def test_the_remedy_names_the_source_of_a_value_out_of_range(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[search]\ntop = 3\n")
    with pytest.raises(ConfigError, match=r"^environment variable IMPART_SEARCH_TOP: search\.top is 0"):
        Settings.load(tmp_path / "a.toml", environ={"IMPART_SEARCH_TOP": "0"})


def test_a_list_from_the_environment_has_one_value() -> None:
    assert Settings.load(environ={"IMPART_SEARCH_PROMPTS": "a film of {}."}).search.prompts == ("a film of {}.",)


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no setting 'search\.tpo'"):
        Settings.load(environ={}, flags={"search.tpo": 3})


def test_a_toml_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"recipe .*a\.toml is not TOML"):
        read_toml(tmp_path / "a.toml", what="recipe")
    with pytest.raises(ConfigError, match="cannot read recipe"):
        read_toml(tmp_path, what="recipe")


def test_known_names_pass_and_an_unknown_one_lists_them() -> None:
    check_names(["a"], ["a", "b"], where="here")
    with pytest.raises(ConfigError, match="here has no option 'c'; there are a, b"):
        check_names(["a", "c"], ["a", "b"], where="here", kind="option")
