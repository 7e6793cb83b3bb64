"""Measure few-shot classification on Caltech-101 and CIFAR-100, by all methods, and what foreign references cost.

    impart train ram_episodes --data ../shared/data --out runs/episodes
    python benchmarks/few_shot.py --data ../shared/data --ram runs/episodes/model --out FILE

The first tables are those of `impart eval few-shot` on the `train` and `test` folders: top-1 in %, mean over the draws
of references, and behind it half of the 95% interval over test images and draws. Classes are named by their folders.
docs/few-shot.md explains the methods, and how their constants are chosen.

The last table has foreign sets: the bundled set, random images (not tuned; Vanilla with the usual weights), and three
images per class of the other data set (tuned, open). Vanilla and RAM use them as they are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from impart.blending.base import Blender
from impart.blending.encoder import AugmentedEncoder, blender_of, settings_of
from impart.blending.ram_checkpoint import open_ram
from impart.blending.ram_onnx import LearnedRam
from impart.blending.tune import USUAL, bundled_background, tune
from impart.encoders import Encoder, load_encoder
from impart.encoders.bundled import bundled
from impart.evaluate import ClassSet, Result, few_shot, open_set
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.report.compare import intervals, paired
from impart.evaluate.result import shown
from impart.evaluate.tasks.few_shot import METHODS, PER_CLASS, TUNINGS
from impart.evaluate.tasks.few_shot_problem import FewShotProblem, open_problem
from impart.refset.refset import ReferenceSet
from impart.retrieval.znorm import ZNorm

PROBLEMS = {"Caltech-101": "caltech101", "CIFAR-100": "cifar100"}
FOREIGN_PER_CLASS = 3


def opened(images: Path, name: str) -> tuple[ClassSet, ClassSet]:
    train, test = (open_set(images / name / part, kind="classes") for part in ("train", "test"))
    assert isinstance(train, ClassSet)
    assert isinstance(test, ClassSet)
    return train, test


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> list[str]:
    """Format a markdown table; the first `words` columns are text, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    return [f"| {' | '.join(row)} |" for row in (heads, rule, *rows)]


def figures(results: Sequence[Result]) -> list[str]:
    """One row per method: mean and half interval; `~` where the difference from the first may be noise."""
    rows = []
    for result in results:
        bounds = intervals(result)
        row = [result.encoder]
        for name, value in result.figures.items():
            low, high = bounds[name]
            found = None if result is results[0] else paired(results[0], result).of(name)
            noise = " ~" if found is not None and found.noise else ""
            row.append(f"{shown(name, value)} ± {shown(name, (high - low) / 2)}{noise}")
        rows.append(row)
    return table(["method", *results[0].figures], rows)


def foreign_sets(encoder: Encoder, problems: dict[str, FewShotProblem]) -> dict[str, ReferenceSet]:
    """Title -> a set that does not fit: random images, the bundled set, and the classes of each data set."""
    background = bundled_background(encoder.traits.id)
    assert background is not None, f"{encoder.traits.id} has no bundled background"
    sets = {"random images": background.with_znorm(ZNorm.of(background.retrieval_embeddings))}
    if (folder := bundled(encoder.traits.id, "references")) is not None:
        sets["bundled set"] = ReferenceSet.open(folder)
    for title, problem in problems.items():
        references = problem.references(problem.draw(FOREIGN_PER_CLASS, 0))
        sets[f"{title}, {FOREIGN_PER_CLASS} per class"] = tune(references, background=background).references
    return sets


def top1(problem: FewShotProblem, encoder: Encoder) -> str:
    v = problem.test.images.embeddings
    if isinstance(encoder, AugmentedEncoder):
        v = encoder.apply(v, encoder.blend(problem.test.images))
    return f"{100 * float(((v @ problem.texts.T).argmax(1) == problem.test.labels).mean()):.1f}"


def foreign_figures(encoder: Encoder, problems: dict[str, FewShotProblem], ram: LearnedRam | None) -> list[str]:
    sets = foreign_sets(encoder, {title: problems[title] for title in PROBLEMS})
    rows = []
    for title, problem in problems.items():
        for name, references in sets.items():
            if not name.startswith(f"{title},"):
                blenders: list[Blender] = [
                    blender_of(references, settings_of(references) or USUAL),
                    *([ram] if ram else []),
                ]
                found = [top1(problem, AugmentedEncoder(encoder, references, blender)) for blender in blenders]
                rows.append([title, name, top1(problem, encoder), *found])
    heads = ["set", "foreign references", "zero-shot", "Vanilla", *(["RAM"] if ram else [])]
    return table(heads, rows, words=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--ram", type=Path, help="checkpoint of a RAM trained with this encoder")
    parser.add_argument("--draws", type=int, default=5, help="draws of the reference images")
    parser.add_argument("--images", default=",".join(map(str, PER_CLASS)), help="references per class")
    parser.add_argument("--tuned-with", default="none,folds", help=f"of {', '.join(TUNINGS)}; few and full take longer")
    parser.add_argument("--methods", default=",".join(METHODS), help="of impart eval few-shot")
    parser.add_argument("--cache", type=Path, help="folder of cached embeddings")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    started, encoder, cache = time.monotonic(), load_encoder(options.encoder), EmbeddingCache(options.cache)
    ram = open_ram(options.ram) if options.ram else None
    lines: list[str] = []
    problems: dict[str, FewShotProblem] = {}
    for title, name in PROBLEMS.items():
        train, test = opened(options.data / "images", name)
        problems[title] = open_problem(encoder, train, test, cache=cache)
        for tuning in options.tuned_with.split(","):
            found = few_shot(
                encoder,
                train,
                test,
                images=[int(part) for part in options.images.split(",")],
                draws=options.draws,
                tuned_with=[tuning],
                methods=options.methods.split(","),
                rams={"RAM": ram} if ram else None,
                cache=cache,
            )
            counts = found[0].counts
            what = f"{title}, {TUNINGS[tuning]}: {counts['images']:,} test images, draws of references: {options.draws}"
            lines += [what, "", *figures(found), ""]
            print("\n".join(lines[-len(found) - 4 :]), flush=True)
    dropped = ", ".join(f"{problem.dropped} of {title}" for title, problem in problems.items())
    problems["CIFAR-10"] = open_problem(encoder, *opened(options.data / "images", "cifar10"), cache=cache)
    lines += foreign_figures(encoder, problems, ram)
    head = [
        f"Top-1 in %, encoder `{encoder.traits.id}`. ±: half of the 95% interval over test images and draws. ~: the",
        "difference from the first row may be noise. Training images not drawn, since they show a test image:",
        f"{dropped}. {round((time.monotonic() - started) / 60)} minutes.",
    ]
    text = "\n".join([*head, "", *lines, ""])
    print("\n" + text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
