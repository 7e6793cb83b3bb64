"""Teach the model names with a few images, without training: python examples/teach_a_name.py FOLDER PHOTO.

FOLDER has one sub-folder per name with about three images each. The names are then ranked for PHOTO, by the plain
encoder and by the augmented one.
"""

import sys
from pathlib import Path

from PIL import Image

import impart


def main(folder: str, photo: str) -> None:
    encoder = impart.load_encoder("mini")
    references = impart.ReferenceSet.build(folder, encoder)
    references.save(Path(folder).with_suffix(".refset"))  # for `impart refset tune` and `impart refset use`
    augmented = impart.augment(encoder, references, k=3, w_img=0.0, w_txt=0.5, tau=0.05)

    names = sorted(set(references.texts))
    texts = encoder.encode_texts([f"a photo of {name}." for name in names])  # (T, D)
    image = Image.open(photo)
    for label, model in (("plain", encoder), ("augmented", augmented)):
        cosines = model.encode_images([image]).embeddings[0] @ texts.T  # (T,)
        ranked = sorted(zip(cosines.tolist(), names, strict=True), reverse=True)
        print(f"{label:9}", ", ".join(f"{name} {cosine:.3f}" for cosine, name in ranked[:5]))


if __name__ == "__main__":
    main(*sys.argv[1:])
