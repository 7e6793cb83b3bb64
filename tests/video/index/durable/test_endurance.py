"""Faults at random moments lose nothing and leave nothing; `benchmarks/endurance.py` makes five hundred of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[4] / "benchmarks" / "endurance.py"
FAULTS = ("kill process", "kill worker", "kill parent alone", "full disk", "two writers", "folder moved")
"""Without those that need rights of root, or take long."""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_one_fault_of_each_kind() -> None:
    given = [word for fault in FAULTS for word in ("--fault", fault)]
    # In a process of its own: the trials are forked, and threads of the database do not survive a fork.
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(len(FAULTS)), *given], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{len(FAULTS)} trials" in done.stdout
    assert " 0 faults" in done.stdout
