"""Measure reference sets of a few named images per class, on their own data set and on others.

    python benchmarks/teaching.py --data ../shared/data --out FILE

A reference set is built and tuned from 1, 2, 3, 4 and 8 images per class of `caltech101/train`, the first by file name.
Tuning (`impart.blending.tune`) is by leave-one-out on the set itself, with the bundled background of training images
and without test data. References that show a test image are left out, as in `impart eval`.

The figures are zero-shot top-1, class texts against v', on Caltech-101 test, and on CIFAR-10 and CIFAR-100 test, where
the set should do no harm: plain, with the settings of the paper (K=8, w_img 0.5, w_txt 0.05, uniform), tuned, and
tuned for a closed set (`--closed`: every image shows one of the classes, which is true for Caltech-101 alone).
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart.blending.encoder import AugmentedEncoder, blender_of
from impart.blending.tune import Tuned, bundled_background, tune
from impart.config import VanillaSettings
from impart.encoders import Encoder, ImageEmbeddings, load_encoder
from impart.evaluate import open_set
from impart.evaluate.class_prompts import class_embeddings
from impart.evaluate.contamination import ImagesUnderTest, find_contamination
from impart.evaluate.embed import embed_images
from impart.metrics.classification import top_k
from impart.refset.build import Selection
from impart.refset.refset import ReferenceSet

SHOTS = (1, 2, 3, 4, 8)
TESTS = ("caltech101/test", "cifar10/test", "cifar100/test")


@dataclass(frozen=True)
class TestSet:
    """Test set, embedded once: images (n), class embeddings (C, D), labels (n,)."""

    name: str
    images: ImageEmbeddings
    classes: np.ndarray
    labels: np.ndarray
    hashes: tuple[str, ...]
    phashes: tuple[tuple[str, str], ...]

    def top1(self, augmented: AugmentedEncoder | None) -> float:
        embeddings = self.images.embeddings
        if augmented is not None:
            embeddings = augmented.apply(embeddings, augmented.blend(self.images))
        return 100 * float(top_k(embeddings @ self.classes.T, self.labels, k=1).mean())


def open_test(encoder: Encoder, folder: Path, name: str) -> TestSet:
    dataset = open_set(folder, kind="classes")
    embedded = embed_images(encoder, dataset.images)
    images = ImageEmbeddings(embedded.embeddings, embedded.retrieval)
    classes = class_embeddings(encoder, dataset.classes)
    return TestSet(name, images, classes, dataset.labels[embedded.kept], embedded.hashes, embedded.phashes)


def row_of(shots: int, kind: str, results: Sequence[float], plain: Sequence[float]) -> str:
    cells = [f"{now:.1f} ({now - before:+.1f})" for now, before in zip(results, plain, strict=True)]
    return f"| {shots or ''} | {kind} | " + " | ".join(cells) + " |"


def describe(tuned: Tuned) -> str:
    s = tuned.settings
    own = f"{100 * tuned.before:.1f} -> {100 * tuned.after:.1f} ({tuned.items})"
    own = own if tuned.rule in ("leave-one-out", "cross-validation") else "cannot be checked"
    words = ", ".join(f"{name} {value:g}" for name, value in dataclasses.asdict(s).items())
    return f"{words} | {tuned.rule} | {own} | {100 * tuned.background_gate:.1f}%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    images = options.data / "images"
    encoder = load_encoder(options.encoder)
    background = bundled_background(encoder.traits.id)
    tests = [open_test(encoder, images / name, name) for name in TESTS]
    plain = [test.top1(None) for test in tests]
    lines = [
        "| images per class | reference set | " + " | ".join(f"{t.name} ({len(t.labels)})" for t in tests) + " |",
        "| ---: | --- | " + "---: | " * len(tests),
        row_of(0, "none", plain, plain),
    ]
    choices = [
        "| images per class | chosen settings | rule | leave-one-out accuracy of own images "
        "| gate for the background set |",
        "| ---: | --- | --- | --- | --- |",
    ]
    left_out = []
    for shots in SHOTS:
        references = ReferenceSet.build(images / "caltech101" / "train", encoder, selection=Selection(per_class=shots))
        retrieval = tests[0].images.retrieval
        under_test = ImagesUnderTest(retrieval=retrieval, hashes=tests[0].hashes, phashes=tests[0].phashes)
        shown = find_contamination(references, under_test).rows
        references = references.without(shown)
        left_out.append(str(len(shown)))
        started = time.monotonic()
        tuned = tune(references, background=background)
        seconds = time.monotonic() - started
        closed = tune(references, background=background, closed=True)
        for kind, settings in (
            ("paper's settings", VanillaSettings()),
            ("tuned", tuned.settings),
            ("tuned, closed", closed.settings),
        ):
            augmented = AugmentedEncoder(encoder, tuned.references, blender_of(tuned.references, settings))
            lines.append(row_of(shots, f"{kind}, {len(references)} pairs", [t.top1(augmented) for t in tests], plain))
            print(lines[-1], flush=True)
        choices.append(f"| {shots} | {describe(tuned)} |")
        choices.append(f"| {shots}, closed | {describe(closed)} |")
        print(f"  tuned in {seconds:.1f} s", flush=True)
    notes = (
        f"Zero-shot top-1 in %, encoder `{encoder.traits.id}`, seven prompts averaged. References: the first images "
        f"of each class of caltech101/train, by file name, without the {', '.join(left_out)} that show a test image. "
        "Closed: every image is taken to show one of the 101 classes."
    )
    text = "\n".join([notes, "", *lines, "", *choices, ""])
    print("\n" + text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
