"""Compare an encoder with and without references, zero-shot: python examples/compare_two_models.py TEST REFERENCES.

Both are folders with one sub-folder of images per class. The interval of the difference is a paired bootstrap: both
models are measured on the same images.
"""

import sys

import impart
from impart.evaluate.report.compare import paired


def main(test: str, references: str) -> None:
    encoder = impart.load_encoder("mini")
    augmented = impart.augment(encoder, impart.ReferenceSet.build(references, encoder))
    dataset = impart.evaluate.open_set(test, kind="classes")
    plain = impart.evaluate.zeroshot(encoder, dataset, label="mini")
    better = impart.evaluate.zeroshot(augmented, dataset, label="mini+vanilla")
    for result in (plain, better):
        print(f"{result.encoder:13} top-1 {100 * result.figures['top-1']:.1f}%  images {result.counts['images']}")
    found = paired(plain, better).of("top-1")
    assert found is not None
    verdict = "noise" if found.noise else "a difference"
    interval = "" if found.low is None or found.high is None else f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    print(f"difference {100 * found.difference:+.1f} points{interval}: {verdict}")


if __name__ == "__main__":
    main(*sys.argv[1:])
