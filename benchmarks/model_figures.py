"""What an encoder can do without training on the task: zero-shot classification and caption retrieval.

    python benchmarks/model_figures.py --data ../shared/data

Plain and with the bundled reference set (RA-CLIP Vanilla), on the same pictures in one run; each picture is encoded
once. Classification takes the class whose text embedding is nearest, the class's texts being seven prompts averaged.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from impart.augment.encoder import AugmentedEncoder, default_augmented
from impart.encoders import Encoder, ImageEmbeddings, load_encoder
from impart.evaluate import CaptionedImages, ClassFolder, rank_metrics, ranks_of
from impart.evaluate.datasets import embed_files
from impart.evaluate.prompts import class_embeddings
from impart.evaluate.zeroshot import classification_metrics

CLASS_SETS = ("cifar10/test", "cifar100/test", "caltech101/test", "tiny_imagenet32/test")


def embed(encoder: Encoder, files: tuple[Path, ...]) -> tuple[ImageEmbeddings, np.ndarray]:
    """All pictures that can be read, and their numbers."""
    found = embed_files(encoder, files)
    embeddings = np.concatenate([part.embeddings for part in found.batches])
    return ImageEmbeddings(embeddings, np.concatenate([part.retrieval for part in found.batches])), np.array(found.kept)


def forms(base: Encoder, images: ImageEmbeddings) -> dict[str, np.ndarray]:
    """Image vectors (n, D) of the plain encoder and of the one with its bundled reference set."""
    vectors = {"plain": images.embeddings}
    augmented = default_augmented(base)
    if isinstance(augmented, AugmentedEncoder):
        vectors["Vanilla, bundled set"] = augmented.apply(images.embeddings, augmented.blend(images))
    return vectors


def half_width(fraction: float, count: int) -> float:
    """Half the 95% interval of a fraction, in points (normal approximation)."""
    return 196 * math.sqrt(fraction * (1 - fraction) / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    images = options.data / "images"
    base = load_encoder(options.encoder)
    lines = [
        f"Encoder `{base.traits.id}`; top-1 in % with the half width of its 95% interval, mean per class behind it.",
        "",
        "| set | pictures | classes | form | top-1 | mean per class |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for name in CLASS_SETS:
        dataset = ClassFolder.open(images / name)
        embedded, kept = embed(base, dataset.files)
        classifier = class_embeddings(base, dataset.classes)
        labels = np.asarray(dataset.labels)[kept]
        for form, vectors in forms(base, embedded).items():
            top1, _, mean = classification_metrics(vectors @ classifier.T, labels)
            shown = f"{100 * top1:.1f} ± {half_width(top1, len(labels)):.1f} | {100 * mean:.1f}"
            lines.append(f"| {name} | {len(labels)} | {len(dataset.classes)} | {form} | {shown} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        "| set | queries | pictures | form | R@1 | R@5 | R@10 | MedR |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    captioned = CaptionedImages.open(images / "flickr8k" / "captions.csv", split="val")
    embedded, kept = embed(base, captioned.files)
    relevant = np.asarray(captioned.owners)[:, None] == kept[None, :]
    texts = base.encode_texts(captioned.captions)
    for form, vectors in forms(base, embedded).items():
        report = rank_metrics(ranks_of(texts @ vectors.T, relevant), items=len(kept))
        recalls = [f"{100 * value:.1f}" for value in (report.recall_at_1, report.recall_at_5, report.recall_at_10)]
        cells = " | ".join([*recalls, f"{report.median_rank:g}"])
        lines.append(f"| flickr8k/val, text to image | {report.queries} | {report.items} | {form} | {cells} |")
        print(lines[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
