"""Disturb an index hundreds of times, and check that nothing is lost and nothing is left.

    python benchmarks/endurance.py [--kills 500] [--seed 0]

Operations: a new index, `add`, `prune`, a run that merges tables, another reference set. Faults: SIGKILL of the process
with its decoder, of the decoder, of the process alone; a full disk (a limit of the size of files), a folder that
becomes read-only, a clock that jumps a year, two writers at once, a folder that is moved. They take turns. See
`tests/helpers/endurance.py`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--kills", type=int, default=500, help="number of trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fault", action="append", help="only this one")
    parser.add_argument("--baseline", type=Path, help="measure the package of this checkout instead")
    parser.add_argument("--inner", action="store_true", help="(internal)")
    args = parser.parse_args()
    if not args.inner:
        path = os.pathsep.join([str((args.baseline or ROOT) / "src"), str(ROOT / "tests")])
        command = [sys.executable, __file__, "--inner", *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode)

    from helpers.endurance import FAULTS, OPERATIONS, Trials  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "prepared").mkdir()
        trials, began, counts = Trials(Path(work)), time.monotonic(), Counter[str]()
        faults = args.fault or FAULTS
        for number in range(args.kills):
            operation = OPERATIONS[(number + number // len(faults)) % len(OPERATIONS)]
            fault = faults[number % len(faults)]
            wrong = trials.trial(operation, fault, args.seed + number)
            counts[fault] += 1
            if wrong:
                print(f"  {'; '.join(wrong)[:900]}", flush=True)
        print(
            f"{trials.made} trials, {trials.landed} of them disturbed a running process, "
            f"{len(trials.wrong)} faults ({time.monotonic() - began:.0f} s)"
        )
        print(", ".join(f"{count} x {fault}" for fault, count in counts.items()))
        raise SystemExit(bool(trials.wrong))


if __name__ == "__main__":
    main()
