"""Give IMPART an encoder of your own and measure it: python examples/own_encoder.py FOLDER.

FOLDER has one sub-folder of images per colour (red, green, blue). Embeddings are (B, D), float32, L2-normalised.
"""

import sys
from collections.abc import Sequence

import numpy as np

import impart
from impart.encoders import EncoderTraits, ImageEmbeddings, ImageInput, l2_normalise, register

COLOURS = ("red", "green", "blue")


class MeanColour:
    """An image is its mean colour; a text is the colours that it names."""

    traits = EncoderTraits(
        id="mean-colour", dim=3, retrieval_dim=3, own_retrieval=False, image_size_px=1, context_tokens=64
    )
    fingerprint = "mean-colour 1"  # change it when the vectors change

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        means = [np.asarray(image)[..., :3].reshape(-1, 3).mean(axis=0) for image in images]
        vectors = l2_normalise(np.stack(means))
        return ImageEmbeddings(vectors, vectors)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return l2_normalise(np.array([[name in text for name in COLOURS] for text in texts], np.float32))


if __name__ == "__main__":
    register("mean-colour", lambda _rest, **_options: MeanColour())  # now also: impart eval --encoders mean-colour
    encoder = impart.load_encoder("mean-colour")
    result = impart.evaluate.zeroshot(encoder, impart.evaluate.open_set(sys.argv[1], kind="classes"))
    print({name: round(value, 3) for name, value in result.figures.items()})
