"""`impart serve --refset` names the reference sets that may be put in force."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from impart.cli import serve
from impart.cli.main import app
from impart.serve.settings import ServeSettings


def test_refsets_are_given_to_the_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[ServeSettings] = []
    monkeypatch.setattr(serve, "serve_index", lambda settings, **_: given.append(settings))
    one, two = tmp_path / "a.refset", tmp_path / "sets"
    done = CliRunner().invoke(app, ["serve", "--index", str(tmp_path), "--refset", str(one), "--refset", str(two)])
    assert done.exit_code == 0, done.output
    assert given[0].refsets == (one, two)
