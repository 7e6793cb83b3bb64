"""Configs: bundled ones resolve, mistakes name the setting, --set wins over the file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")

from impart.errors import ConfigError
from impart.train import settings
from impart.train.config_file import bundled_configs, load_config
from impart.train.run import REGIMES
from impart.train.settings import TABLES


def test_every_bundled_config_resolves_and_says_its_command():
    from importlib import resources

    assert "ram_mini.toml" in bundled_configs()
    for name in bundled_configs():
        assert load_config(name).regime in REGIMES
        text = (resources.files("impart.train") / "configs" / name).read_text(encoding="utf-8")
        assert f"impart train {name.removesuffix('.toml')} " in "".join(text.splitlines()[:4]), name


def test_names_of_bundled_configs_resolve_without_a_folder():
    assert load_config("ram_mini") == load_config("ram_mini.toml") == load_config("configs/ram_mini.toml")


def test_a_file_wins_over_defaults_and_set_over_the_file(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text('regime = "ram"\n[loop]\nepochs = 3\n[[data.pairs]]\npath = "a.csv"\nwhere = { split = "train" }\n')
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
        ('regime = "rom"', "rom"),
        ('regime = "ram"\n[loop]\nepoch = 3', "loop.epoch"),
        ('regime = "ram"\n[loop]\nbatch = "many"', "loop.batch"),
        ('regime = "ram"\n[loop]\nbatch = 0', "loop.batch"),
        ('regime = "ram"\n[lit]\nema = 0.9', "does not read 'lit'"),
        ('regime = "ram"\n[reference]\nfraction = 0', "reference.fraction"),
        ('regime = "ram"\n[[data.pairs]]\nimage = "file"', "path"),
        ('regime = "ram"\n[reference]\nfraction = 1.0', "left to train on"),
        ('regime = "ram"\n[reference]\naugment = "none"', "reference.augment is 'none', which regime 'ram'"),
        ('regime = "episodes"\n[loss]\nsmoothing = 0.1', "loss.smoothing"),
        ('regime = "ram"\n[loss]\nsmoothing = 3', "loss.smoothing"),
        ('regime = "full"\n[optimiser]\nrates = { towre = 0.1 }', "rates.towre: .* towers"),
        ("regime =", "not TOML"),
    ],
)
def test_mistakes_name_the_setting(tmp_path, content, named):
    path = tmp_path / "own.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=named):
        load_config(path)


def test_an_unknown_config_lists_ours(tmp_path):
    with pytest.raises(ConfigError, match="ram_mini"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="--set"):
        load_config("ram_mini", sets=["loop.epochs"])


def test_the_kept_settings_are_those_the_regime_reads():
    kept = load_config("ram_mini").as_dict()
    assert set(kept) == {"regime", "seed", *TABLES["ram"]}


def test_every_regime_is_named_where_regimes_are_listed():
    root = Path(__file__).resolve().parents[2]
    lists = {
        "settings": settings.__doc__,
        "TrainConfig": settings.TrainConfig.__doc__,
        "README.md": (root / "README.md").read_text(encoding="utf-8"),
        "docs/training.md": (root / "docs" / "training.md").read_text(encoding="utf-8"),
    }
    for where, text in lists.items():
        for regime in REGIMES:
            assert re.search(rf"\b{regime}\b", text), f"{where} leaves {regime} out"
    assert TABLES.keys() == REGIMES.keys()
