"""The entry point: exit code and message of an interrupted command."""

from __future__ import annotations

import sys

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
