"""A frozen encoder that looks at pictures in another way: what else RAM learns to see."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings, ImageInput
from impart.train.features import look

__all__ = ["ViewEncoder"]


class ViewEncoder:
    """An encoder that takes one look at each picture first (see `features.look`), such as `small0`."""

    def __init__(self, base: Encoder, view: str):
        self._base, self._view = base, view
        self.fingerprint = base.fingerprint if view == "clean" else f"{zlib.crc32(view.encode()):08x}{base.fingerprint}"

    @property
    def traits(self) -> EncoderTraits:
        return self._base.traits

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        seen = [image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image)) for image in images]
        seeds = [zlib.crc32(picture.tobytes()) for picture in seen]
        return self._base.encode_images(
            [look(picture.convert("RGB"), self._view, seed=seed) for picture, seed in zip(seen, seeds, strict=True)]
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return self._base.encode_texts(texts)
