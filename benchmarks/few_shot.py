"""Measure few-shot classification: base, Tip-Adapter's cache, Vanilla and a trained RAM on the same features.

    impart train ram_episodes --data ../shared/data --out runs/episodes
    python benchmarks/few_shot.py --data ../shared/data --ram runs/episodes/model --out FILE

The references are 1, 2, 3, 4 and 8 images per class of the `train` folders of Caltech-101 and CIFAR-100, in several
draws. The figures are top-1 on the `test` folders, mean and standard deviation over the draws. Draw 0 takes the first
images by file name, as `teaching.py` does. Images that show a test image, as `impart eval` finds them, are not drawn.

Tip-Adapter (Zhang et al., ECCV 2022, training-free) scores 100 v.t + alpha sum exp(-beta (1 - s)) over the images of a
class. Alpha and beta are chosen by leave-one-out on the drawn images. One image per class leaves nothing for that, so
two images of the same draw choose them.

Vanilla and RAM use the same set, tuned by `impart.blending.tune` on the drawn images and the bundled background.
`closed` means that every image shows one of the classes, as Tip-Adapter assumes. The last table has foreign sets: the
bundled set, random images (not tuned; Vanilla with the usual weights), and each of the two sets on the other data set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder, blender_of, settings_of
from impart.blending.ram_checkpoint import open_ram
from impart.blending.ram_onnx import LearnedRam
from impart.blending.tune import USUAL, bundled_background, tune
from impart.encoders import Encoder, ImageEmbeddings, load_encoder
from impart.encoders.base import Float32
from impart.encoders.bundled import bundled
from impart.evaluate import open_set
from impart.evaluate.class_prompts import class_embeddings
from impart.evaluate.contamination import ImagesUnderTest, find_contamination
from impart.evaluate.embed import embed_images
from impart.readers.names import label_text
from impart.refset.refset import ReferenceSet
from impart.retrieval.znorm import ZNorm

SHOTS = (1, 2, 3, 4, 8)
ALPHAS = tuple(float(2**power) for power in range(0, 13))
BETAS = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 18.0, 25.0)
_SCALE = 100.0


@dataclass(frozen=True)
class Embedded:
    """Embedded class folder: embeddings v (n, D) and q (n, R), labels (n,); content hashes and perceptual hashes."""

    images: ImageEmbeddings
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    hashes: tuple[str, ...]
    phashes: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, encoder: Encoder, folder: Path) -> Embedded:
        dataset = open_set(folder, kind="classes")
        embedded = embed_images(encoder, dataset.images)
        images = ImageEmbeddings(embedded.embeddings, embedded.retrieval)
        labels = dataset.labels[embedded.kept]
        return cls(images, labels, dataset.classes, embedded.hashes, embedded.phashes)

    def without(self, hashes: set[str]) -> Embedded:
        """Leave out the images with these content hashes."""
        kept = np.array([row for row, own in enumerate(self.hashes) if own not in hashes])
        images = ImageEmbeddings(self.images.embeddings[kept], self.images.retrieval[kept])
        left = (tuple(self.hashes[row] for row in kept), tuple(self.phashes[row] for row in kept))
        return Embedded(images, self.labels[kept], self.classes, *left)

    def draw(self, shots: int, seed: int) -> npt.NDArray[np.int64]:
        """Draw the rows of `shots` images per class; seed 0 = the first ones. More shots include fewer of a seed."""
        rng = np.random.default_rng(seed)
        rows: list[int] = []
        for number in range(len(self.classes)):
            own = np.flatnonzero(self.labels == number)
            rows += (rng.permutation(own) if seed else own)[:shots].tolist()
        return np.array(rows)


@dataclass(frozen=True)
class Problem:
    """Test images, and the (C, D) embeddings of their classes."""

    test: Embedded
    classes: Float32

    def top1(self, v: Float32) -> float:
        return 100 * float(((v @ self.classes.T).argmax(1) == self.test.labels).mean())

    def augmented(self, encoder: AugmentedEncoder) -> float:
        return self.top1(encoder.apply(self.test.images.embeddings, encoder.blend(self.test.images)))


def shown_by(references: ReferenceSet, test: Embedded) -> set[str]:
    """Find the content hashes of the references that show a test image, as `impart eval` does."""
    tests = ImagesUnderTest(retrieval=test.images.retrieval, hashes=test.hashes, phashes=test.phashes)
    rows = find_contamination(references, tests).rows
    return {references.table["hash"][int(row)].as_py() for row in rows}


def tip_scores(
    v: Float32, sims: Float32, classes: Float32, labels: npt.NDArray[np.int64], *, alpha: float, beta: float
) -> Float32:
    """Score v (B, D) with a cache of N images: `sims` (B, N) cosines, `labels` (N,). Returns (B, C)."""
    cache = np.exp(-beta * (1 - sims)) * (sims > -1)  # -1 = the image itself
    scores: Float32 = _SCALE * v @ classes.T + alpha * cache @ np.eye(len(classes), dtype=np.float32)[labels]
    return scores


def choose_tip(problem: Problem, train: Embedded, rows: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Choose alpha and beta by leave-one-out accuracy on the drawn images; the smallest of equals."""
    v, q, labels = train.images.embeddings[rows], train.images.retrieval[rows], train.labels[rows]
    sims = q @ q.T
    np.fill_diagonal(sims, -1)
    found = [
        (
            (tip_scores(v, sims, problem.classes, labels, alpha=a, beta=b).argmax(1) == labels).mean(),
            -number,
            (a, b),
        )
        for number, (a, b) in enumerate(product(ALPHAS, BETAS))
    ]
    return max(found)[2]


def reference_set(
    encoder: Encoder, train: Embedded, rows: npt.NDArray[np.int64], texts: Float32, *, name: str
) -> ReferenceSet:
    """Make a reference set of the drawn images, not tuned."""
    labels = train.labels[rows]
    return ReferenceSet.from_arrays(
        [label_text(train.classes[label]) for label in labels],
        image=train.images.embeddings[rows],
        text=texts[labels],
        retrieval=train.images.retrieval[rows],
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name=name,
        meta={"hash": [f"{name} {row}" for row in rows]},
    )


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f} ± {np.std(values):.1f}"


def ways(encoder: Encoder, references: ReferenceSet, ram: LearnedRam | None) -> dict[str, AugmentedEncoder]:
    """Augment the encoder with one set, by Vanilla and by RAM."""
    augmented = {
        "Vanilla": AugmentedEncoder(encoder, references, blender_of(references, settings_of(references) or USUAL))
    }
    if ram is not None:
        augmented["RAM"] = AugmentedEncoder(encoder, references, ram)
    return augmented


def few_shot_figures(
    encoder: Encoder,
    name: str,
    train: Embedded,
    problem: Problem,
    *,
    shots: int,
    draws: int,
    background: ReferenceSet,
    ram: LearnedRam | None,
) -> dict[str, list[float]]:
    """Measure top-1 of every draw, by method."""
    texts = encoder.encode_texts([label_text(name) for name in train.classes])
    figures: dict[str, list[float]] = {}
    for seed in range(draws):
        rows = train.draw(shots, seed)
        alpha, beta = choose_tip(problem, train, rows if shots > 1 else train.draw(2, seed))
        sims = problem.test.images.retrieval @ train.images.retrieval[rows].T
        scores = tip_scores(
            problem.test.images.embeddings, sims, problem.classes, train.labels[rows], alpha=alpha, beta=beta
        )
        tip = 100 * float((scores.argmax(1) == problem.test.labels).mean())
        figures.setdefault("Tip-Adapter", []).append(tip)
        references = reference_set(encoder, train, rows, texts, name=name)
        for closed in (False, True):
            chosen = tune(references, background=background, closed=closed).references
            for way, augmented in ways(encoder, chosen, ram).items():
                figures.setdefault(way + ", closed" * closed, []).append(problem.augmented(augmented))
    return figures


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: int) -> list[str]:
    """Format a markdown table; the first `words` columns are text, the others numbers."""
    rule = ["---"] * words + ["---:"] * (len(heads) - words)
    return [f"| {' | '.join(row)} |" for row in (heads, rule, *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--ram", type=Path, help="checkpoint of a RAM trained with this encoder")
    parser.add_argument("--draws", type=int, default=5, help="draws of the reference images")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    images = options.data / "images"
    encoder = load_encoder(options.encoder)
    ram = open_ram(options.ram) if options.ram else None
    background = bundled_background(encoder.traits.id)
    assert background is not None, f"{encoder.traits.id} has no bundled background"

    problems, trains, left_out = {}, {}, {}
    for name in ("caltech101", "cifar100", "cifar10"):
        test = Embedded.read(encoder, images / name / "test")
        problems[name] = Problem(test, class_embeddings(encoder, test.classes))
    base = {name: f"{problem.top1(problem.test.images.embeddings):.1f}" for name, problem in problems.items()}
    foreign = {"random images": background.with_znorm(ZNorm.of(background.retrieval_embeddings))}
    if (folder := bundled(encoder.traits.id, "references")) is not None:
        foreign["bundled set"] = ReferenceSet.open(folder)
    for name in ("caltech101", "cifar100"):
        whole = Embedded.read(encoder, images / name / "train")
        trains[name] = whole.without(
            shown_by(ReferenceSet.build(images / name / "train", encoder), problems[name].test)
        )
        left_out[name] = len(whole.labels) - len(trains[name].labels)
        texts = encoder.encode_texts([label_text(label) for label in trains[name].classes])
        drawn = reference_set(encoder, trains[name], trains[name].draw(3, 0), texts, name=name)
        foreign[f"{name}, 3 per class"] = tune(drawn, background=background).references

    fitting: list[list[str]] = []
    figures: dict[str, list[float]] = {}
    for name, train in trains.items():
        for shots in SHOTS:
            figures = few_shot_figures(
                encoder,
                name,
                train,
                problems[name],
                shots=shots,
                draws=options.draws,
                background=background,
                ram=ram,
            )
            fitting.append([name, str(shots), base[name], *map(spread, figures.values())])
            print(*fitting[-1], sep=" | ", flush=True)
    foreigners: list[list[str]] = []
    for name, problem in problems.items():
        for title, references in foreign.items():
            if title.startswith(f"{name},"):
                continue
            shown = [f"{problem.augmented(way):.1f}" for way in ways(encoder, references, ram).values()]
            foreigners.append([name, title, base[name], *shown])
            print(*foreigners[-1], sep=" | ", flush=True)
    lines = table(["set", "images per class", "base", *figures], fitting, words=1)
    lines += ["", *table(["set", "foreign references", "base", "Vanilla", "RAM"][: 4 + bool(ram)], foreigners, words=2)]
    dropped = ", ".join(f"{count} of {name}" for name, count in left_out.items())
    head = [
        f"Top-1 in %, encoder `{encoder.traits.id}`, {options.draws} draws of references.",
        f"Images left out for showing a test image: {dropped}.",
    ]
    text = "\n".join([*head, "", *lines, ""])
    print("\n" + text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
