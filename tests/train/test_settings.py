"""Configs: bundled ones resolve, errors name the setting, --set overrides the file."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.errors import ConfigError
from impart.train import settings
from impart.train.config_file import bundled_configs, load_config
from impart.train.retired import RETIRED
from impart.train.run import MODES
from impart.train.settings import TABLES, DataSettings, PairsFrom, TrainConfig


def test_every_bundled_config_resolves_and_names_its_command():
    from importlib import resources

    assert "ram_mini" in bundled_configs()
    for name in bundled_configs():
        assert load_config(name).mode in MODES
        text = (resources.files("impart.train") / "configs" / f"{name}.toml").read_text(encoding="utf-8")
        assert f"impart train {name} " in "".join(text.splitlines()[:4]), name


def test_names_of_bundled_configs_resolve_without_a_folder():
    assert load_config("ram_mini") == load_config("ram_mini.toml") == load_config("configs/ram_mini.toml")


def test_a_file_overrides_defaults_and_set_overrides_the_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('mode = "ram"\n[loop]\nepochs = 3\n[[data.pairs]]\npath = "a.csv"\nwhere = { split = "train" }\n')
    config = load_config(
        path, sets=["loop.epochs=0.5", "ram.norm=l2", "seed=7", 'reference.sources=["a", "b"]', "optimiser.rates.ram=2"]
    )
    assert (config.loop.epochs, config.ram.norm, config.seed) == (0.5, "l2", 7)
    assert config.reference.sources == ("a", "b")
    assert config.optimiser.rates == {"ram": 2.0}
    assert config.data.pairs[0].where == {"split": "train"}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('mode = "rom"', "rom"),
        ('mode = "ram"\n[loop]\nepoch = 3', "loop.epoch"),
        ('mode = "ram"\n[loop]\nbatch = "many"', "loop.batch"),
        ('mode = "ram"\n[loop]\nbatch = 0', "loop.batch"),
        ('mode = "ram"\n[heads]\nema = 0.9', "does not read 'heads'"),
        ('mode = "ram"\n[reference]\nfraction = 0', "reference.fraction"),
        ('mode = "ram"\n[[data.pairs]]\nimage = "file"', "path"),
        ('mode = "ram"\n[reference]\nfraction = 1.0', "left to train on"),
        ('mode = "ram"\n[reference]\naugment = "none"', "reference.augment is 'none', which mode 'ram'"),
        ('mode = "episodes"\n[loss]\nsmoothing = 0.1', "loss.smoothing"),
        ('mode = "ram"\n[loss]\nsmoothing = 3', "loss.smoothing"),
        ('mode = "pretrain"\n[optimiser]\nrates = { towre = 0.1 }', "rates.towre: .* towers"),
        ("mode =", "not TOML"),
    ],
)
def test_mistakes_name_the_setting(tmp_path, content, named):
    path = tmp_path / "own.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=named):
        load_config(path)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('regime = "ram"', "mode instead of regime"),
        ('regime = "lit"', "mode instead of regime, mode = 'heads' instead of 'lit'"),
        (
            'mode = "full"\n[full]\nmodel = "tiny"',
            r"mode = 'pretrain' instead of 'full', \[pretrain\] instead of \[full\]",
        ),
        ('mode = "heads"\n[lit]\nema = 0.9', r"\[heads\] instead of \[lit\]"),
        ('mode = "ram"\n[data]\nvalidation_pictures = 3', "data.validation_images instead of data.validation_pictures"),
    ],
)
def test_names_of_an_earlier_version_are_refused_with_the_new_ones(tmp_path, content, named):
    path = tmp_path / "own.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=named):
        load_config(path)


def test_every_retired_name_is_refused_and_every_new_name_exists():
    for old, new in RETIRED["config"].items():
        assert new in bundled_configs()
        for name in (old, f"{old}.toml", f"configs/{old}.toml"):
            with pytest.raises(ConfigError, match=f"{new} now"):
                load_config(name)
    assert set(RETIRED["mode"].values()) | set(RETIRED["table"].values()) <= set(MODES)
    assert not RETIRED["mode"].keys() & MODES.keys()
    fields = asdict(settings.TrainConfig())
    for old, new in RETIRED["setting"].items():
        for name, there in ((old, False), (new, True)):
            table, _, leaf = name.rpartition(".")
            assert (leaf in (fields[table] if table else fields)) == there, name
    with pytest.raises(ConfigError, match="mode instead of regime"):
        load_config("ram_mini", sets=["regime=lit"])


def test_an_unknown_config_lists_the_bundled_ones(tmp_path):
    with pytest.raises(ConfigError, match="ram_mini"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="--set"):
        load_config("ram_mini", sets=["loop.epochs"])


def test_the_kept_settings_are_those_the_mode_reads():
    kept = load_config("ram_mini").as_dict()
    assert set(kept) == {"mode", "seed", *TABLES["ram"]}


def test_a_run_of_an_earlier_version_has_the_same_kept_pairs():
    kept = TrainConfig(
        data=DataSettings(pairs=(PairsFrom(path="a"), PairsFrom(path="b", class_names="c.txt")))
    ).as_dict()
    assert [pairs.get("class_names") for pairs in kept["data"]["pairs"]] == [None, "c.txt"]


def test_every_mode_is_named_where_modes_are_listed():
    root = Path(__file__).resolve().parents[2]
    lists = {
        "settings": settings.__doc__,
        "TrainConfig": settings.TrainConfig.__doc__,
        "README.md": (root / "README.md").read_text(encoding="utf-8"),
        "docs/training.md": (root / "docs" / "training.md").read_text(encoding="utf-8"),
    }
    for where, text in lists.items():
        for mode in MODES:
            assert re.search(rf"\b{mode}\b", text), f"{where} lacks {mode}"
    assert TABLES.keys() == MODES.keys()
