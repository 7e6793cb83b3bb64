"""AugmentedEncoder: encoder + reference set + augmentation = encoder.

Who gets one need not know: it encodes images to v' and texts as its base does. Who keeps base vectors (the video index)
asks for the `Blend` once and derives v', or scores without forming v', in one product with the reference set:
t.v' = (t.v + sum_k img_k t.r_img_k + sum_k txt_k t.r_txt_k) / norm. What a learned RAM adds is no such sum; there the
blend holds what is added itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from impart.blending.base import Blend, Blender
from impart.blending.vanilla import Vanilla, mixture
from impart.config import VanillaSettings
from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings, ImageInput
from impart.encoders.bundled import bundled
from impart.errors import ConfigError, ReferenceSetError
from impart.files import sha256_hex
from impart.refset.refset import ReferenceSet

__all__ = ["AugmentedEncoder", "augment", "default_augmented", "settings_of"]

_CHUNK = 2048  # images at a time: their (chunk, D) sums stay in the cache
_PRODUCT = 32_000_000  # numbers of one texts x references product, 128 MB


class AugmentedEncoder:
    """An encoder whose image embeddings know a reference set.

    Args:
        base: the encoder that made the set.
        references: the cheat sheet.
        augmentation: how neighbours are blended in.

    Raises:
        EncoderMismatchError: the set was made with another encoder, or the augmentation learned with another.
    """

    def __init__(self, base: Encoder, references: ReferenceSet, augmentation: Blender) -> None:
        references.check_encoder(base)
        augmentation.check_encoder(base)
        self.base = base
        self.references = references
        self.augmentation = augmentation

    def __repr__(self) -> str:
        return f"AugmentedEncoder({self.base.traits.id!r}, {self.references!r}, {self.augmentation.settings})"

    @property
    def traits(self) -> EncoderTraits:
        """The base's, with the set's name behind the id."""
        return dataclasses.replace(self.base.traits, id=f"{self.base.traits.id}+{self.references.name}")

    @cached_property
    def fingerprint(self) -> str:
        """Digest over base, reference rows, background statistics, the set's settings and augmentation."""
        set_ = f"{self.references.fingerprint} {self.references.znorm.digest} {self.references.manifest.vanilla}"
        parts = f"{self.base.fingerprint} {set_} {self.augmentation.digest}"
        return sha256_hex(parts)

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """v' (B, D) of B images; the retrieval embeddings are the base's."""
        plain = self.base.encode_images(images)
        return ImageEmbeddings(self.apply(plain.embeddings, self.blend(plain)), plain.retrieval)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """(T, D), the base's."""
        return self.base.encode_texts(texts)

    def blend(self, embeddings: ImageEmbeddings) -> Blend:
        """Find the neighbours of B images and how much of each is added."""
        neighbours = self.references.search(embeddings.retrieval, self.augmentation.k)
        z_scores = self.references.znorm.z_scores(embeddings.retrieval, neighbours.sims)
        found = self.augmentation.amounts(embeddings, neighbours, z_scores, self.references)
        norm = np.ones(len(neighbours), dtype=np.float32)
        blend = Blend(neighbours.ids, found.img, found.txt, norm, found.added)
        for part in _parts(len(neighbours)):
            total = self._sum(embeddings.embeddings[part], blend[part])
            norm[part] = np.sqrt(np.einsum("bd,bd->b", total, total))
        # A sum of zero has no direction; its zero vector is kept by dividing by one.
        norm[norm <= 0] = 1
        return blend

    def apply(self, embeddings: Float32, blend: Blend) -> Float32:
        """v' (B, D), L2-normalised, from base embeddings v (B, D) and their blend."""
        assert len(embeddings) == len(blend), (len(embeddings), len(blend))
        result = np.empty_like(embeddings, dtype=np.float32)
        for part in _parts(len(embeddings)):
            result[part] = self._sum(embeddings[part], blend[part]) / blend.norm[part, None]
        return result

    def scores(self, texts: Float32, base: Float32, blend: Blend) -> Float32:
        """Cosines t.v' (T, B) of texts (T, D) with images whose base embeddings are (B, D)."""
        assert len(base) == len(blend), (len(base), len(blend))
        if not len(self.references):
            return texts @ base.T / blend.norm
        if blend.added is not None or len(texts) > texts.shape[1]:  # gathering T numbers a neighbour would cost more
            return texts @ self.apply(base, blend).T
        step = max(1, _PRODUCT // len(self.references))
        if len(texts) > step:
            rows = [self.scores(texts[first : first + step], base, blend) for first in range(0, len(texts), step)]
            return np.concatenate(rows)
        by_image = np.ascontiguousarray(self.references.image_embeddings @ texts.T)  # (N, T)
        by_text = np.ascontiguousarray(self.references.text_embeddings @ texts.T)
        result = np.empty((len(texts), len(base)), dtype=np.float32)
        for part in _parts(len(base)):
            total = base[part] @ texts.T  # (b, T)
            rows_of = np.maximum(blend.ids[part], 0)
            for k in range(rows_of.shape[1]):
                total += blend.img[part, k, None] * by_image[rows_of[:, k]]
                total += blend.txt[part, k, None] * by_text[rows_of[:, k]]
            result[:, part] = (total / blend.norm[part, None]).T
        return result

    def _sum(self, embeddings: Float32, blend: Blend) -> Float32:
        """v + what is added: (b, D), not normalised."""
        total = embeddings.astype(np.float32)  # a copy
        if not len(self.references):
            return total
        if blend.added is not None:
            total += blend.added
            return total
        total += mixture(blend.img, blend.ids, self.references.image_embeddings)
        total += mixture(blend.txt, blend.ids, self.references.text_embeddings)
        return total


def augment(
    encoder: Encoder, references: ReferenceSet | str | Path, k: int | None = None, **settings: float
) -> AugmentedEncoder:
    """Give an encoder a reference set.

    Args:
        encoder: the one that made the set.
        references: a set, or the folder of one.
        k: pairs retrieved for an image.
        settings: of `VanillaSettings`. With neither `k` nor `settings` given, those that `refset tune` stored with the
            set are used, or the paper's where it is not tuned; a named setting stands on the paper's defaults.

    Raises:
        EncoderMismatchError: the set was made with another encoder.
        ConfigError: a setting is unknown or cannot work.
    """
    if not isinstance(references, ReferenceSet):
        references = ReferenceSet.open(references)
    if k is None and not settings:
        chosen = settings_of(references) or VanillaSettings()
    else:
        try:
            chosen = VanillaSettings(**({} if k is None else {"k": k}), **settings)  # type: ignore[arg-type]
        except TypeError as error:
            names = ", ".join(item.name for item in dataclasses.fields(VanillaSettings))
            raise ConfigError(f"unknown blending setting in {', '.join(settings)}: there are {names}") from error
    return AugmentedEncoder(encoder, references, Vanilla(chosen))


def settings_of(references: ReferenceSet) -> VanillaSettings | None:
    """The settings stored with a set, or None where it was not tuned.

    Raises:
        ReferenceSetError: they are damaged.
    """
    stored = references.manifest.vanilla
    if stored is None:
        return None
    try:
        return VanillaSettings(**{item.name: stored[item.name] for item in dataclasses.fields(VanillaSettings)})
    except (KeyError, TypeError) as error:
        raise ReferenceSetError(
            f"reference set {references.name!r} holds blending settings that cannot be read ({error}): "
            "run 'impart refset tune' on it"
        ) from error


def default_augmented(base: Encoder) -> Encoder:
    """The encoder with the reference set bundled with its model, or itself where there is none or it is switched off.

    Raises:
        EncoderMismatchError: the bundled set does not belong to the model (a damaged installation).
    """
    folder = bundled(base.traits.id, "references")
    if folder is None:
        return base
    references = ReferenceSet.open(folder)
    chosen = settings_of(references)
    if chosen is None or (chosen.w_img == 0 and chosen.w_txt == 0):
        return base
    return AugmentedEncoder(base, references, Vanilla(chosen))


def _parts(count: int) -> Iterator[slice]:
    """Consecutive slices of at most `_CHUNK` images."""
    return (slice(first, first + _CHUNK) for first in range(0, count, _CHUNK))
