"""Defaults < TOML < environment < flags, and errors that name the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from impart.config import DecodeSettings, Settings, VanillaSettings
from impart.errors import ConfigError


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


@pytest.mark.parametrize(("said", "means"), [("false", False), ("0", False), ("off", False), ("True", True)])
def test_yes_and_no_from_the_environment(said: str, means: bool) -> None:
    assert Settings.load(environ={"IMPART_SEARCH_HUB_CORRECTION": said}).search.hub_correction is means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[decode]\nfsp = 2\n", "fsp"),
        ("[decoding]\nfps = 2\n", "decoding"),
        ("[decode]\nfps = 'fast'\n", "decode.fps"),
        ("[decode]\nfps = 0\n", "decode.fps"),
        ("[search]\ngroup = 'film'\n", "search.group"),
        ("[search]\nhub_correction = 'perhaps'\n", "true or false"),
        ("[decode\n", "TOML"),
    ],
)
def test_a_wrong_settings_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "impart.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says):
        Settings.load(file, environ={})


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        Settings.load(tmp_path / "nowhere.toml", environ={})


def test_values_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vanilla\.k"):
        VanillaSettings(k=0)
