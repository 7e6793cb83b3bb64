"""The entry point: exit code and message of an interrupted command."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from impart.cli.main import main
from impart.video.index.index import VideoIndex


def test_an_interrupted_command_names_what_is_kept(monkeypatch, capsys, tmp_path) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoIndex, "open", interrupted)
    monkeypatch.setattr(sys, "argv", ["impart", "stats", "--index", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 130
    assert "finished work is kept" in capsys.readouterr().err


CLOSED = [
    ["search", "red", "-i", "{}"],
    ["stats", "-i", "{}"],
    ["index", ".", "-i", "{}"],
    ["index", ".", "-i", "new", "--config", "{}/impart.toml"],
    ["index", ".", "-i", "new", "--refset", "{}"],
    ["index", ".", "-i", "new", "-e", "mini:{}"],
    ["index", ".", "-i", "new", "-e", "onnx:{}"],
    ["index", ".", "-i", "new", "-e", "{}"],
    ["refset", "info", "{}"],
    ["refset", "build", "{}", "-o", "new"],
    ["refset", "build", ".", "-o", "{}"],
    ["refset", "use", "--none", "-i", "{}"],
    ["train", "{}/ram.toml", "-o", "new"],
    ["train", "ram_mini", "-o", "new", "--pairs", "{}"],
    ["eval", "zeroshot", "{}"],
]


@pytest.mark.parametrize("arguments", CLOSED, ids=" ".join)
@pytest.mark.parametrize("closed", [True, False])
def test_a_place_that_the_system_refuses_ends_in_one_sentence(
    monkeypatch, capsys, tmp_path: Path, arguments: list[str], closed: bool
) -> None:
    """A closed folder, and for root, whom nothing is closed to, a name that is longer than the system takes."""
    place = tmp_path / ("closed" if closed else "x" * 300)
    if closed:
        if os.geteuid() == 0:
            pytest.skip("nothing is closed to root")
        place.mkdir(mode=0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["impart", *(part.format(place) for part in arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    message = capsys.readouterr().err
    assert end.value.code in (1, 2)
    assert place.name[:20] in message.replace("\n", "")
    assert not (tmp_path / "new").exists()
