"""A few pictures a class as references: base, Tip-Adapter's cache, Vanilla and a trained RAM on the same features.

    impart train ram_episodes --data ../shared/data --out runs/episodes
    python benchmarks/few_shot.py --data ../shared/data --ram runs/episodes/model --out FILE

For 1, 2, 3, 4 and 8 pictures a class of the `train` folders of Caltech-101 and CIFAR-100, in several draws: top-1 on
the `test` folders, mean and standard deviation over the draws. Draw 0 takes the first pictures by file name, as
`teaching.py` does. Tip-Adapter (Zhang et al., ECCV 2022, training-free) scores 100 v.t + alpha sum exp(-beta (1 - s))
over a class's pictures; alpha and beta are chosen on the drawn pictures alone, by leave-one-out (with one picture a
class, where that leaves nothing: what two pictures of the same draw choose). Vanilla is tuned by `impart.augment.tune`,
which sees the drawn pictures and the bundled background; closed, it knows that every picture shows one of the classes,
as Tip-Adapter does. RAM is used as it was trained. Then what foreign sets do: the bundled set, random pictures (the
usual weights, not tuned), and each of the two sets on the other pictures; RAM is behind the gate of a tuned set there.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from impart.augment.checkpoint import open_ram
from impart.augment.encoder import AugmentedEncoder, bundled, settings_of
from impart.augment.tune import USUAL, bundled_background, tune
from impart.augment.vanilla import Vanilla
from impart.encoders import Encoder, ImageEmbeddings, load_encoder
from impart.encoders.base import Float32
from impart.evaluate import open_set
from impart.evaluate.embed import embed_pictures
from impart.evaluate.prompts import class_embeddings, tidy_class_name
from impart.reference.cohort import Cohort
from impart.reference.refset import ReferenceSet

SHOTS = (1, 2, 3, 4, 8)
ALPHAS = tuple(float(2**power) for power in range(0, 13))
BETAS = (1.0, 2.0, 3.5, 5.5, 8.0, 12.0, 18.0, 25.0)
_SCALE = 100.0
Ways = dict[str, Callable[[ReferenceSet], AugmentedEncoder]]


@dataclass(frozen=True)
class Embedded:
    """A labelled folder: embeddings v (n, D) and q (n, R), labels (n,)."""

    images: ImageEmbeddings
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]

    @classmethod
    def read(cls, encoder: Encoder, folder: Path) -> Embedded:
        dataset = open_set(folder, kind="classes")
        embedded = embed_pictures(encoder, dataset.pictures)
        images = ImageEmbeddings(embedded.embeddings, embedded.retrieval)
        return cls(images, dataset.labels[embedded.kept], dataset.classes)

    def draw(self, shots: int, seed: int) -> npt.NDArray[np.int64]:
        """Rows of `shots` pictures a class; seed 0 = the first ones. More shots of a seed hold fewer of it."""
        rng = np.random.default_rng(seed)
        rows: list[int] = []
        for number in range(len(self.classes)):
            own = np.flatnonzero(self.labels == number)
            rows += (rng.permutation(own) if seed else own)[:shots].tolist()
        return np.array(rows)


@dataclass(frozen=True)
class Problem:
    """Pictures to classify among (C, D) class embeddings."""

    test: Embedded
    classes: Float32

    def top1(self, v: Float32) -> float:
        return 100 * float(((v @ self.classes.T).argmax(1) == self.test.labels).mean())

    def augmented(self, encoder: AugmentedEncoder) -> float:
        return self.top1(encoder.apply(self.test.images.embeddings, encoder.blend(self.test.images)))


def tip_scores(
    v: Float32, sims: Float32, classes: Float32, labels: npt.NDArray[np.int64], *, alpha: float, beta: float
) -> Float32:
    """(B, C): scores of v (B, D) with a cache of N pictures, `sims` (B, N) their cosines, `labels` (N,)."""
    cache = np.exp(-beta * (1 - sims)) * (sims > -1)  # -1 = the picture itself
    return _SCALE * v @ classes.T + alpha * cache @ np.eye(len(classes), dtype=np.float32)[labels]


def choose_tip(problem: Problem, train: Embedded, rows: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Alpha and beta with the best leave-one-out accuracy on the drawn pictures; the smallest of equals."""
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
    """The drawn pictures, not tuned."""
    labels = train.labels[rows]
    return ReferenceSet.from_arrays(
        [tidy_class_name(train.classes[label]) for label in labels],
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


def few_shot_rows(
    encoder: Encoder, name: str, train: Embedded, problem: Problem, ways: Ways, *, draws: int
) -> list[str]:
    texts = encoder.encode_texts([tidy_class_name(name) for name in train.classes])
    plain = problem.top1(problem.test.images.embeddings)
    lines = []
    for shots in SHOTS:
        figures: dict[str, list[float]] = {"Tip-Adapter": []}
        for seed in range(draws):
            rows = train.draw(shots, seed)
            alpha, beta = choose_tip(problem, train, rows if shots > 1 else train.draw(2, seed))
            sims = problem.test.images.retrieval @ train.images.retrieval[rows].T
            scores = tip_scores(
                problem.test.images.embeddings, sims, problem.classes, train.labels[rows], alpha=alpha, beta=beta
            )
            figures["Tip-Adapter"].append(100 * float((scores.argmax(1) == problem.test.labels).mean()))
            references = reference_set(encoder, train, rows, texts, name=name)
            for way, augment in ways.items():
                figures.setdefault(way, []).append(problem.augmented(augment(references)))
        cells = " | ".join(spread(figures[way]) for way in ("Tip-Adapter", *ways))
        lines.append(f"| {name} | {shots} | {plain:.1f} | {cells} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--ram", type=Path, help="checkpoint of a RAM trained with this encoder")
    parser.add_argument("--draws", type=int, default=5, help="draws of the reference pictures")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    images = options.data / "images"
    encoder = load_encoder(options.encoder)

    folder, background = bundled(encoder.traits.id, "references"), bundled_background(encoder.traits.id)
    bundled_set = ReferenceSet.open(folder) if folder is not None else None
    assert background is not None, f"{encoder.traits.id} has no bundled background"

    def tuned(references: ReferenceSet, closed: bool) -> AugmentedEncoder:
        if references is background or references is bundled_set:
            return AugmentedEncoder(encoder, references, Vanilla(settings_of(references) or USUAL))
        chosen = tune(references, background=background, closed=closed)
        return AugmentedEncoder(encoder, chosen.references, Vanilla(chosen.settings))

    ways: Ways = {"Vanilla": lambda references: tuned(references, False)}
    ways["Vanilla, closed"] = lambda references: tuned(references, True)
    if options.ram:
        ram = open_ram(options.ram)
        ways["RAM"] = lambda references: AugmentedEncoder(
            encoder, references.with_cohort(Cohort.of(background.retrieval_embeddings)), ram
        )
    problems = {}
    for name in ("caltech101", "cifar100", "cifar10"):
        test = Embedded.read(encoder, images / name / "test")
        problems[name] = Problem(test, class_embeddings(encoder, test.classes))
    heads = " | ".join(("Tip-Adapter", *ways))
    lines = [f"| set | pictures a class | base | {heads} |", "| --- | " + "---: | " * (3 + len(ways))]
    caltech = Embedded.read(encoder, images / "caltech101" / "train")
    lines += few_shot_rows(encoder, "caltech101", caltech, problems["caltech101"], ways, draws=options.draws)
    cifar = Embedded.read(encoder, images / "cifar100" / "train")
    lines += few_shot_rows(encoder, "cifar100", cifar, problems["cifar100"], ways, draws=options.draws)
    foreign: dict[str, ReferenceSet] = {}
    if bundled_set is not None:
        foreign["bundled set"] = bundled_set
    foreign["random pictures"] = background
    for name, train in (("caltech101", caltech), ("cifar100", cifar)):
        texts = encoder.encode_texts([tidy_class_name(label) for label in train.classes])
        drawn = reference_set(encoder, train, train.draw(3, 0), texts, name=name)
        foreign[f"{name}, 3 a class"] = tune(drawn, background=background).references  # its gate holds for the RAM too
    del ways["Vanilla, closed"]  # nothing is closed here
    lines += [
        "",
        f"| set | foreign references | base | {' | '.join(ways)} |",
        "| --- | --- | " + "---: | " * (1 + len(ways)),
    ]
    for name, problem in problems.items():
        for title, references in foreign.items():
            if title.startswith(f"{name},"):
                continue
            cells = " | ".join(f"{problem.augmented(augment(references)):.1f}" for augment in ways.values())
            plain = problem.top1(problem.test.images.embeddings)
            lines.append(f"| {name} | {title} | {plain:.1f} | {cells} |")
            print(lines[-1], flush=True)
    text = "\n".join(
        [f"Top-1 in %, encoder `{encoder.traits.id}`, {options.draws} draws of references.", "", *lines, ""]
    )
    print("\n" + text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
