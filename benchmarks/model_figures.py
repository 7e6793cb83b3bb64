"""What an encoder can do without training on the task: zero-shot classification and caption retrieval.

    python benchmarks/model_figures.py --data ../shared/data

Plain and with the bundled reference set (RA-CLIP Vanilla), on the same pictures in one run; each picture is encoded
once. Classification takes the class whose text embedding is nearest, the class's texts being seven prompts averaged.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

from impart.augment.encoder import AugmentedEncoder, default_augmented
from impart.encoders import Encoder, load_encoder
from impart.evaluate import open_set, retrieval, zeroshot
from impart.evaluate.cache import EmbeddingCache

CLASS_SETS = ("cifar10/test", "cifar100/test", "caltech101/test", "tiny_imagenet32/test")


def forms(base: Encoder) -> dict[str, Encoder]:
    """The plain encoder, and the one with its bundled reference set."""
    augmented = default_augmented(base)
    return {"plain": base} | ({"Vanilla, bundled set": augmented} if isinstance(augmented, AugmentedEncoder) else {})


def half_width(fraction: float, count: int) -> float:
    """Half the 95% interval of a fraction, in points (normal approximation)."""
    return 196 * math.sqrt(fraction * (1 - fraction) / count)


def measure(base: Encoder, images: Path, cache: EmbeddingCache) -> list[str]:
    """Lines of markdown, printed as they come."""
    lines = [
        f"Encoder `{base.traits.id}`; top-1 in % with the half width of its 95% interval, mean per class behind it.",
        "",
        "| set | pictures | classes | form | top-1 | mean per class |",
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    for name in CLASS_SETS:
        dataset = open_set(images / name, kind="classes")
        for form, encoder in forms(base).items():
            found = zeroshot(encoder, dataset, cache=cache)
            top1, count = found.figures["top-1"], found.counts["pictures"]
            shown = f"{100 * top1:.1f} ± {half_width(top1, count):.1f} | {100 * found.figures['mean per class']:.1f}"
            lines.append(f"| {name} | {count} | {len(dataset.classes)} | {form} | {shown} |")
            print(lines[-1], flush=True)
    lines += [
        "",
        "| set | queries | pictures | form | R@1 | R@5 | R@10 | MedR |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    captioned = open_set(images / "flickr8k" / "captions.csv", split="val", kind="captions")
    for form, encoder in forms(base).items():
        found, _ = retrieval(encoder, captioned, cache=cache)
        recalls = [f"{100 * found.figures[name]:.1f}" for name in ("R@1", "R@5", "R@10")]
        cells = " | ".join([*recalls, f"{found.figures['median rank']:g}"])
        counts = f"{found.counts['queries']} | {found.counts['items']}"
        lines.append(f"| flickr8k/val, text to image | {counts} | {form} | {cells} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--out", type=Path, help="markdown file to write as well")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lines = measure(load_encoder(options.encoder), options.data / "images", EmbeddingCache(scratch))
    if options.out:
        options.out.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
