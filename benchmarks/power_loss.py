"""Cut the power at a thousand random moments, and check that all that was reported as stored is there.

    python benchmarks/power_loss.py [--seeds 1000] [--load index|files] [--baseline CHECKOUT] [--out FILE]

A program is run once, with all that it writes and syncs recorded (`tests/helpers/power_cut.py`). For each seed a moment
is drawn. Each part that was not synced by then is kept, lost, cut or zeroed at random. Then every acknowledged video
must be there, the index must open and answer, and the next run must make the index of an undisturbed run and leave no
file behind. Likewise for reference sets, checkpoints, reports and embeddings of training.

With `--baseline` the same is done with the package of another checkout.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def measure(load_name: str, seeds: int, work: Path) -> None:
    from helpers.power_cut import Recorder, tree_after_cut  # type: ignore[import-not-found]
    from helpers.power_loads import FilesLoad, IndexLoad  # type: ignore[import-not-found]

    load = IndexLoad(work / "films") if load_name == "index" else FilesLoad()
    root = work / "disk"
    root.mkdir()
    recorder = Recorder(root)
    load.run(root, recorder)
    began, failures, kinds = time.monotonic(), 0, Counter[str]()
    for seed in range(seeds):
        rng = random.Random(seed)
        moment = rng.choice(recorder.moments)
        copy = work / f"cut {seed}"
        copy.mkdir()
        tree_after_cut(moment, copy, rng)
        try:
            wrong = load.check(copy, recorder, moment)
        except Exception as error:  # noqa: BLE001 - any error is a failure of this seed
            wrong = [f"{type(error).__name__}: {str(error)[:160]}"]
        if wrong:
            failures += 1
            kinds[wrong[0].split(":")[0][:60]] += 1
            if failures <= 10:
                print(f"  seed {seed}, stage {moment.stage}: {'; '.join(wrong)[:300]}", flush=True)
        shutil.rmtree(copy)
    print(
        f"{load_name}: {seeds} power cuts in {len(recorder.moments)} recorded states with {recorder.syncs} syncs and "
        f"{len(recorder.acknowledged)} acknowledgements: {failures} with a loss or an error "
        f"({time.monotonic() - began:.0f} s)"
    )
    for kind, count in kinds.most_common(8):
        print(f"  {count:5d}  {kind}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--load", choices=("index", "files"), action="append")
    parser.add_argument("--baseline", type=Path, help="another checkout, whose package is measured as well")
    parser.add_argument("--work", type=Path, help="an empty folder, for the files of one measurement (internal)")
    args = parser.parse_args()
    for load in args.load or ("index", "files"):
        if args.work is not None:
            measure(load, args.seeds, args.work)
            continue
        for checkout in filter(None, (args.baseline, ROOT)):
            print(f"{'baseline' if checkout != ROOT else 'this checkout'}:", flush=True)
            with tempfile.TemporaryDirectory() as work:
                path = os.pathsep.join([str(checkout / "src"), str(ROOT / "tests")])
                command = [sys.executable, __file__, "--seeds", str(args.seeds), "--load", load, "--work", work]
                subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=True)


if __name__ == "__main__":
    main()
