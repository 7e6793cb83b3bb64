"""Time putting another reference set in force on a large index, against an older build, in turns.

    python benchmarks/refset_switch.py COPY_OF_INDEX --real real.npz [--baseline ../checkout] [--rounds 3]

The index is one of `benchmarks/million.py`; work on a copy, it is changed. `real.npz` has the embeddings that
`benchmarks/large_refset.py` keeps. The sets are 1,000 of its photographs each, with captions. Printed per run: the
wall-clock and CPU time of computing and storing the neighbours (`switch`), those of everything (with the cache that
searches read), and the peak of resident memory of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PAIRS = 1000


def made(real: Path, seed: int):
    """Make a reference set of photographs and captions, with the settings of a tuned set."""
    from impart.encoders import load_encoder
    from impart.refset.refset import ReferenceSet

    encoder = load_encoder("mini")
    with np.load(real) as stored:
        rows = np.random.default_rng(seed).permutation(len(stored["texts"]))[:PAIRS]
        return ReferenceSet.from_arrays(
            [f"caption {row}" for row in rows.tolist()],
            image=stored["embeddings"][rows],
            text=stored["texts"][rows],
            retrieval=stored["retrieval"][rows],
            encoder_id="mini",
            encoder_fingerprint=encoder.fingerprint,
            name=f"photographs {seed}",
        )


def switch_once(folder: Path, real: Path, seed: int) -> dict[str, float]:
    """Put a set in force and return what it cost."""
    from impart.config import VanillaSettings
    from impart.video.index import index as module

    references = made(real, seed)
    index = module.VideoIndex.open(folder, create=False)
    spent: dict[str, float] = {}
    before = module.switch

    def timed(*given: object) -> None:
        began, cpu = time.perf_counter(), time.process_time()
        before(*given)
        spent.update(switch_s=time.perf_counter() - began, switch_cpu_s=time.process_time() - cpu, switch_mb=peak_mb())

    module.switch = timed
    settings = VanillaSettings(k=8, w_img=0.1, w_txt=0.5, tau=0.05, floor=2.0, ramp=3.0, target=0.35)
    began, cpu = time.perf_counter(), time.process_time()
    index.use_references(references, settings)
    spent.update(all_s=time.perf_counter() - began, all_cpu_s=time.process_time() - cpu, all_mb=peak_mb())
    return {name: round(value, 2) for name, value in spent.items()}


def peak_mb() -> float:
    """Read the largest resident memory of this process in MB."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").split("VmHWM:")[1].split()[0]) / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="copy of an index")
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--baseline", type=Path, help="checkout of an older build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is not None:
        print(json.dumps(switch_once(options.index, options.real, options.seed)))
        return
    sources = {"this build": None, **({"baseline": options.baseline} if options.baseline else {})}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sources}
    for turn in range(options.rounds):
        for number, (name, checkout) in enumerate(sources.items()):
            seed = 2 * turn + number  # each run puts a set in force that is not
            given = [sys.executable, __file__, str(options.index), "--real", str(options.real), "--seed", str(seed)]
            variables = os.environ | ({"PYTHONPATH": str(checkout / "src")} if checkout else {})
            output = subprocess.run(given, env=variables, check=True, capture_output=True, text=True).stdout
            runs[name].append(json.loads(output.splitlines()[-1]))
            print(name, runs[name][-1], flush=True)
    for key in runs["this build"][0]:
        found = {name: [run[key] for run in rows] for name, rows in runs.items()}
        shown = [f"{name} {statistics.median(x):.1f} ({min(x):.1f} to {max(x):.1f})" for name, x in found.items()]
        medians = [statistics.median(x) for x in found.values()]
        print(f"{key:<14} {', '.join(shown)}" + (f"; ratio {medians[0] / medians[1]:.2f}" if len(medians) > 1 else ""))


if __name__ == "__main__":
    main()
