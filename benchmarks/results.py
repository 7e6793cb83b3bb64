"""Measure the figures of `docs/results.md`, and write them there.

    python benchmarks/results.py --data ../shared/data                # all parts, about half an hour on two cores
    python benchmarks/results.py --data ../shared/data teaching       # one part; the others do not change

Each part is another benchmark, run in a new process. Its table is written between the marks of the part.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parent / "docs" / "results.md"
PARTS = {
    "evaluation": ["evaluation.py", "--data", "{data}", "--out", "{out}", "--plots", "{docs}/evaluation"],
    "video": ["video_retrieval.py", "--data", "{data}", "--out", "{out}"],
    "moments": ["moments.py", "--data", "{data}", "--out", "{out}"],
    "latency": ["search_latency.py", "--out", "{out}"],
    "load": ["serve_load.py", "--data", "{data}", "--out", "{out}"],
    "sequences": ["sequences.py", "--data", "{data}", "--out", "{out}"],
    "teaching": ["teaching.py", "--data", "{data}", "--out", "{out}"],
    "reuse": ["reuse.py", "retrieval", "{data}"],
    "scenes": ["scenes.py", "--data", "{data}", "--out", "{out}"],
    "sentences": ["names_sentences.py", "--data", "{data}", "--out", "{out}"],
    "crops": ["crops.py", "--data", "{data}", "--out", "{out}"],
    "names": ["names.py", "--data", "{data}", "--out", "{out}"],
    "faces": ["faces.py", "--data", "{data}", "--out", "{out}"],
    "exports": ["exports.py", "--out", "{out}"],
    "photos": ["photos.py", "--data", "{data}", "--count", "48", "--repeat", "2", "--out", "{out}"],
    "filters": ["filters.py", "--out", "{out}"],
    "switching": ["refset_use.py"],
    "copies": ["copies.py", "--data", "{data}", "--out", "{out}"],
    "copies-speed": ["copies.py", "--speed", "--out", "{out}"],
    "training": ["train_speed.py"],
    "speed": ["index_speed.py", "{data}/videos/panda", "--torch", "--repeat", "2", "--out", "{out}"],
}


def measure(part: str, data: Path) -> str:
    """Run the benchmark of a part; return the markdown that it writes, or else its output."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "part.md"
        script, *arguments = [argument.format(data=data, out=out, docs=DOCUMENT.parent) for argument in PARTS[part]]
        command = [sys.executable, str(HERE / script), *arguments]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        print(printed, flush=True)
        return out.read_text(encoding="utf-8").strip() if out.exists() else f"```\n{printed.strip()}\n```"


def put(document: str, part: str, text: str) -> str:
    """Replace the table of a part in the document."""
    pattern = re.compile(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", re.DOTALL)
    if not pattern.search(document):
        raise SystemExit(f"{DOCUMENT} has no marks <!-- {part} --> and <!-- /{part} -->")
    return pattern.sub(lambda found: f"{found[1]}{text}\n{found[2]}", document)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    for part in options.parts or PARTS:
        print(f"== {part}", flush=True)
        text = measure(part, options.data)
        DOCUMENT.write_text(put(DOCUMENT.read_text(encoding="utf-8"), part, text), encoding="utf-8")


if __name__ == "__main__":
    main()
