"""Measure plain encoder, Vanilla and trained RAM on the tasks of the development data, through the command line.

    python benchmarks/evaluation.py --data ../shared/data --out evaluation.md --plots docs/evaluation

First the reference sets are built: three images per class of Caltech-101, a tenth of the training photos of Flickr8k,
one photo per ImageNet class. Without `--ram` a RAM is trained: `impart train ram_mini`.
"""

from __future__ import annotations

import argparse
import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

TASKS = {
    "zeroshot": [
        "cifar10:{images}/cifar10",
        "cifar100:{images}/cifar100",
        "caltech101:{images}/caltech101",
        "{images}/tiny_imagenet32/test",
    ],
    "probe": ["cifar10:{images}/cifar10", "cifar100:{images}/cifar100", "caltech101:{images}/caltech101"],
    "regions": ["boxes:{images}/coco"],
    "retrieval": ["captions:{images}/flickr8k/captions.csv"],
    "videos": ["video-captions:{data}/videos/panda/captions.csv"],
}
OPTIONS = {
    "retrieval": ["--split", "val", "--query-bank"],
    "videos": ["--query-bank", "--image-queries"],
}
SWEPT = {
    "caltech101": ["--sizes", "3%,10%,30%,100%", "--select", "random,class,cluster,coverage,agreement,dedup"],
    "imagenet": ["--around", "usual", "--sizes", "3%,10%,30%,100%", "--select", "random,coverage,agreement"],
}


def impart(*arguments: str) -> None:
    """Run a command; exit code 3 (some images are left out and listed) is not a failure."""
    print("$ impart", *arguments, flush=True)
    code = subprocess.run([sys.executable, "-m", "impart", *arguments], check=False).returncode
    if code not in (0, 3):
        raise SystemExit(f"impart {' '.join(arguments)} ended with exit code {code}")


def build_sets(images: Path, work: Path) -> dict[str, Path]:
    """Build the reference sets, by name."""
    sets = {name: work / name for name in ("caltech101-3", "caltech101-12", "flickr8k-tenth", "imagenet-1")}
    if not sets["caltech101-3"].exists():
        train = str(images / "caltech101" / "train")
        impart("refset", "build", train, "-o", str(sets["caltech101-3"]), "--per-class", "3", "--class-prompts")
        impart("refset", "build", train, "-o", str(sets["caltech101-12"]), "--class-prompts")
        impart("refset", "build", str(_imagenet(images, work)), "-o", str(sets["imagenet-1"]), "--class-prompts")
        source = str(_flickr_train(images, work))
        impart("refset", "build", source, "-o", str(sets["flickr8k-tenth"]), "--fraction", "0.1")
    return sets


def _flickr_train(images: Path, work: Path) -> Path:
    """Write the captions of the training split, with absolute paths."""
    with (images / "flickr8k" / "captions.csv").open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == "train"]
    folder = images / "flickr8k" / "images"
    return _table(work / "flickr8k-train.csv", [(_image(folder, row["file"]), row["caption"]) for row in rows])


def _imagenet(images: Path, work: Path) -> Path:
    with (images / "imagenet_sample" / "labels.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    folder = images / "imagenet_sample" / "images"
    return _table(work / "imagenet.csv", [(_image(folder, row["file"]), row["label"]) for row in rows])


def _image(folder: Path, file: str) -> Path:
    return (folder if folder.is_dir() else folder.parent).resolve() / file


def _table(path: Path, rows: list[tuple[Path, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(("file", "text"))
        writer.writerows(rows)
    return path


def tables(report: Path) -> str:
    """Extract the tables of a report, without plots, settings, differences, and notes of encoders after the first."""
    text = (report / "report.md").read_text(encoding="utf-8").partition("\n## Encoders")[0]
    kept = []
    for section in text.split("\n### ")[1:]:
        if section.splitlines()[0].endswith("differences"):
            continue
        section = re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", section)
        section = re.sub(r"^± is half.*\n?", "", section, flags=re.MULTILINE)
        lines = [line for line in section.strip().splitlines() if not line.startswith("mini+")]
        kept.append("### " + re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).replace("\nmini: ", "\n"))
    return "\n\n".join(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, required=True, help="markdown file to write")
    parser.add_argument("--plots", type=Path, help="folder for the plots of the sweeps")
    parser.add_argument("--ram", type=Path, help="a trained RAM; default: train one, ten minutes")
    parser.add_argument("--work", type=Path, default=Path("runs/evaluation"), help="folder for sets, reports and cache")
    parser.add_argument("tasks", nargs="*", help=f"some of {', '.join(TASKS)}; default: all")
    options = parser.parse_args()
    data, work = options.data.resolve(), options.work.resolve()
    images = data / "images"
    work.mkdir(parents=True, exist_ok=True)
    sets = build_sets(images, work)
    ram = options.ram
    if ram is None:
        ram = work / "ram" / "model"
        if not ram.exists():
            impart("train", "ram_mini", "--data", str(data), "--out", str(work / "ram"))
    own = [f"mini+vanilla={sets[name]}" for name in ("caltech101-3", "flickr8k-tenth")]
    encoders = ",".join(["mini", "mini+bundled", *own, f"mini+ram={ram}"])
    parts = []
    for task, specs in TASKS.items():
        if options.tasks and task not in options.tasks:
            continue
        report = work / task
        if not (report / "report.json").is_file():
            named = [argument for spec in specs for argument in ("--data", spec.format(images=images, data=data))]
            command = "retrieval" if task == "videos" else task
            extra = [*OPTIONS.get(task, []), "--cache", str(work / "cache"), "--out", str(report)]
            impart("eval", command, *named, "--encoders", encoders, *extra)
        parts.append(tables(report))
    for name, settings in SWEPT.items():
        folder = work / f"sweep-{name}"
        references = sets["caltech101-12" if name == "caltech101" else "imagenet-1"]
        if not (folder / "report.md").is_file():
            specs = [part.format(images=images) for part in TASKS["zeroshot"][:3]]
            named = [argument for spec in specs for argument in ("--data", spec)]
            extra = ["--cache", str(work / "cache"), "--out", str(folder)]
            impart("refset", "sweep", str(references), *named, *settings, *extra)
        if options.plots:
            options.plots.mkdir(parents=True, exist_ok=True)
            for plot in ("size", "corrupt", "k", "weights") if name == "caltech101" else ("size",):
                found = folder / "plots" / f"{plot}.png"
                if found.is_file():
                    shutil.copyfile(found, options.plots / f"{name}-{plot}.png")
    options.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
