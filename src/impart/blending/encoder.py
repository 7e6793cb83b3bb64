"""AugmentedEncoder: base encoder, reference set and blender together; still an encoder.

Drop-in replacement for its base encoder: `encode_images` returns the blended v', `encode_texts` is unchanged. A caller
that stores base embeddings (the video index) computes the `Blend` once. From it `apply` derives v', and `scores`
computes the cosines t.v' without v', by one product with the reference set:

    t.v' = (t.v + sum_k img_k t.r_img_k + sum_k txt_k t.r_txt_k) / norm

What solved references and a RAM add is no such sum; their blends contain the added vectors themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from impart.blending.base import Blend, Blender
from impart.blending.solved.blender import Solved
from impart.blending.tune import gated_if_single
from impart.blending.vanilla import Vanilla, mixture
from impart.config import SolvedSettings, VanillaSettings
from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings, ImageInput
from impart.encoders.bundled import bundled
from impart.errors import ConfigError, ReferenceSetError
from impart.files import sha256_hex
from impart.refset.manifest import ReferenceSetManifest
from impart.refset.refset import ReferenceSet
from impart.retrieval.rows import StoredRows
from impart.retrieval.threads import in_pieces
from impart.validation import build

__all__ = [
    "AugmentedEncoder",
    "augment",
    "blender_of",
    "default_augmented",
    "settings_in",
    "settings_of",
    "vanilla_of",
]

_Kind = TypeVar("_Kind", VanillaSettings, SolvedSettings)

_PIECE = 1024  # images that one thread blends
_CHUNK = 512  # images at a time, so that their (chunk, D) sums fit the CPU cache
_PRODUCT = 32_000_000  # numbers of one texts x references product, 128 MB


class AugmentedEncoder:
    """Encoder that blends the neighbours of an image in a reference set into its embedding.

    Args:
        base: the encoder that made the set.
        references: the set.
        blender: `Vanilla`, `Solved`, or a trained RAM.

    Raises:
        EncoderMismatchError: the set was made with another encoder, or the RAM was trained with another.

    Example:
        >>> import numpy as np
        >>> from impart import ReferenceSet, load_encoder
        >>> encoder = load_encoder("mini")
        >>> logo = np.zeros((64, 64, 3), np.uint8)
        >>> logo[16:48, 16:48] = (255, 0, 0)
        >>> references = ReferenceSet.build([(logo, "our logo")], encoder)
        >>> augmented = AugmentedEncoder(encoder, references, Vanilla(VanillaSettings(k=1, w_img=0, w_txt=1)))
        >>> text = encoder.encode_texts(["our logo"])[0]
        >>> plain, blended = (model.encode_images([logo]).embeddings[0] @ text for model in (encoder, augmented))
        >>> bool(blended > plain)
        True
    """

    def __init__(self, base: Encoder, references: ReferenceSet, blender: Blender) -> None:
        references.check_encoder(base)
        blender.check_encoder(base)
        self.base = base
        self.references = references
        self.blender = blender

    def __repr__(self) -> str:
        return f"AugmentedEncoder({self.base.traits.id!r}, {self.references!r}, {self.blender.settings})"

    @property
    def traits(self) -> EncoderTraits:
        """Traits of the base encoder, with the name of the set appended to the id."""
        return dataclasses.replace(self.base.traits, id=f"{self.base.traits.id}+{self.references.name}")

    @cached_property
    def fingerprint(self) -> str:
        """Digest over base encoder, reference rows, background statistics, the set's settings and the blender."""
        stored = self.references.manifest
        set_ = f"{self.references.fingerprint} {self.references.znorm.digest} {stored.vanilla}"
        set_ += f" {stored.solved}" if stored.solved is not None else ""
        parts = f"{self.base.fingerprint} {set_} {self.blender.digest}"
        return sha256_hex(parts)

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Encode B images to v' (B, D); the retrieval embeddings are those of the base encoder."""
        plain = self.base.encode_images(images)
        return ImageEmbeddings(self.apply(plain.embeddings, self.blend(plain)), plain.retrieval)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode T texts with the base encoder to (T, D)."""
        return self.base.encode_texts(texts)

    def blend(self, embeddings: ImageEmbeddings) -> Blend:
        """Search the neighbours of B images and compute their weights; of many images, some at a time in threads."""
        count = len(embeddings.embeddings)
        made: dict[int, Blend] = {}

        def work(part: slice) -> None:
            some = ImageEmbeddings(embeddings.embeddings[part], embeddings.retrieval[part])
            made[part.start] = self._blend(some)

        in_pieces(count, work, rows=_PIECE)
        blends = [made[first] for first in sorted(made)]
        return Blend.joined(blends) if blends else self._blend(embeddings)

    def _blend(self, embeddings: ImageEmbeddings) -> Blend:
        neighbours = self.references.search(embeddings.retrieval, self.blender.k)
        z_scores = self.references.znorm.z_scores(embeddings.retrieval, neighbours.sims)
        found = self.blender.amounts(embeddings, neighbours, z_scores, self.references)
        norm = np.ones(len(neighbours), dtype=np.float32)
        blend = Blend(neighbours.ids if found.ids is None else found.ids, found.img, found.txt, norm, found.added)
        for part in _parts(len(neighbours)):
            total = self._sum(embeddings.embeddings[part], blend[part])
            norm[part] = np.sqrt(np.einsum("bd,bd->b", total, total))
        # A sum of zero has no direction: division by one keeps it zero.
        norm[norm <= 0] = 1
        return blend

    def apply(self, embeddings: Float32, blend: Blend) -> Float32:
        """Compute v' (B, D), L2-normalised, from base embeddings v (B, D) and their blend."""
        assert len(embeddings) == len(blend), (len(embeddings), len(blend))
        result = np.empty_like(embeddings, dtype=np.float32)
        for part in _parts(len(embeddings)):
            result[part] = self._sum(embeddings[part], blend[part]) / blend.norm[part, None]
        return result

    def scores(self, texts: Float32, base: Float32, blend: Blend) -> Float32:
        """Compute the cosines t.v' (T, B) of texts (T, D) with images given by their base embeddings (B, D)."""
        assert len(base) == len(blend), (len(base), len(blend))
        if not len(self.references):
            return texts @ base.T / blend.norm
        if blend.added is not None or len(texts) > texts.shape[1]:  # gathering T numbers per neighbour costs more
            return texts @ self.apply(base, blend).T
        images, pairs = self.references.image_rows, self.references.text_rows
        ids = blend.ids
        if isinstance(images, StoredRows) or isinstance(pairs, StoredRows):  # of a large set, what these images use
            used, places = np.unique(np.maximum(ids, 0), return_inverse=True)
            images, pairs = images[used], pairs[used]
            ids = places.reshape(ids.shape).astype(np.int32)
        step = max(1, _PRODUCT // max(1, len(images)))
        if len(texts) > step:
            rows = [self.scores(texts[first : first + step], base, blend) for first in range(0, len(texts), step)]
            return np.concatenate(rows)
        by_image = np.ascontiguousarray(images @ texts.T)  # (N, T)
        by_text = np.ascontiguousarray(pairs @ texts.T)
        result = np.empty((len(texts), len(base)), dtype=np.float32)
        for part in _parts(len(base)):
            total = base[part] @ texts.T  # (b, T)
            rows_of = np.maximum(ids[part], 0)
            for k in range(rows_of.shape[1]):
                total += blend.img[part, k, None] * by_image[rows_of[:, k]]
                total += blend.txt[part, k, None] * by_text[rows_of[:, k]]
            result[:, part] = (total / blend.norm[part, None]).T
        return result

    def _sum(self, embeddings: Float32, blend: Blend) -> Float32:
        """Add the blend to v: (b, D), not normalised."""
        total = embeddings.astype(np.float32)  # a copy
        if not len(self.references):
            return total
        if blend.added is not None:
            total += blend.added
            return total
        total += mixture(blend.img, blend.ids, self.references.image_rows)
        total += mixture(blend.txt, blend.ids, self.references.text_rows)
        return total


def augment(
    encoder: Encoder,
    references: ReferenceSet | str | Path,
    k: int | None = None,
    *,
    settings: Literal["tuned", "paper"] = "tuned",
    **named: float,
) -> AugmentedEncoder:
    """Give an encoder a reference set, blended as it was tuned: by `Solved` or `Vanilla`.

    Args:
        encoder: the one that made the set.
        references: a set, or the folder of one.
        k: pairs retrieved per image; of solved references, pairs named as an explanation.
        settings: `tuned`, those that `refset tune` stored with the set, or the paper's where it is not tuned (a set of
            one image is tuned then, see `gated_if_single`); `paper`, the paper's (K=8, w_img 0.5, w_txt 0.05, uniform
            mean).
        named: of `VanillaSettings`, or of `SolvedSettings` where the set is solved. These, and `k`, replace their
            values in `settings`; the others stay.

    Raises:
        EncoderMismatchError: the set was made with another encoder.
        ConfigError: a setting is unknown or cannot work.

    Example:
        >>> import numpy as np
        >>> from impart import ReferenceSet, load_encoder
        >>> encoder = load_encoder("mini")
        >>> logo = np.zeros((64, 64, 3), np.uint8)
        >>> logo[16:48, 16:48] = (255, 0, 0)
        >>> references = ReferenceSet.build([(logo, "our logo")], encoder)
        >>> augmented = augment(encoder, references, k=1, w_img=0.5, w_txt=0.5)
        >>> augmented.encode_images([logo]).embeddings.shape
        (1, 384)
    """
    if not isinstance(references, ReferenceSet):
        references = ReferenceSet.open(references)
    if settings not in ("tuned", "paper"):
        raise ConfigError(f"settings is {settings!r}: use tuned or paper, and name single settings, as in k=8")
    if settings == "tuned" and k is None and not named:
        references = gated_if_single(references)
    chosen = (settings_of(references) if settings == "tuned" else None) or VanillaSettings()
    given = dataclasses.asdict(chosen) | ({} if k is None else {"k": k}) | named
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    chosen = build(type(chosen), plain, where="augment")
    return AugmentedEncoder(encoder, references, blender_of(references, chosen))


def blender_of(references: ReferenceSet, settings: VanillaSettings | SolvedSettings | None = None) -> Vanilla | Solved:
    """Make the blender of a set.

    Args:
        references: the set.
        settings: None = those stored with it, or the paper's.

    Raises:
        ReferenceSetError: the stored settings are damaged.
    """
    chosen = settings or settings_of(references) or VanillaSettings()
    return Solved(chosen) if isinstance(chosen, SolvedSettings) else Vanilla(chosen)


def settings_of(references: ReferenceSet) -> VanillaSettings | SolvedSettings | None:
    """Read the settings by which a set is blended; None where it was not tuned.

    Raises:
        ReferenceSetError: they are damaged.
    """
    return settings_in(references.manifest, _place(references))


def settings_in(manifest: ReferenceSetManifest, place: Path | str) -> VanillaSettings | SolvedSettings | None:
    """Read the settings of a manifest, see `settings_of`; `place` names the set in messages."""
    if manifest.solved is not None:
        return _read(SolvedSettings, manifest.solved, place, "solved")
    return None if manifest.vanilla is None else _read(VanillaSettings, manifest.vanilla, place, "vanilla")


def vanilla_of(references: ReferenceSet) -> VanillaSettings | None:
    """Read the settings of Vanilla that are stored with a set; a solved one has them too, for a RAM and for sweeps.

    Raises:
        ReferenceSetError: they are damaged.
    """
    stored = references.manifest.vanilla
    return None if stored is None else _read(VanillaSettings, stored, _place(references), "vanilla")


def _place(references: ReferenceSet) -> Path | str:
    return references.folder or repr(references.name)


def _read(kind: type[_Kind], stored: dict[str, Any], place: Path | str, key: str) -> _Kind:
    try:
        chosen = {item.name: stored[item.name] for item in dataclasses.fields(kind)}
        return build(kind, chosen, where=f"{key} in its manifest.json")
    except (KeyError, ConfigError) as error:
        raise ReferenceSetError(
            f"reference set {place} has blending settings that cannot be read ({error}): run 'impart refset tune' on it"
        ) from error


def default_augmented(base: Encoder) -> Encoder:
    """Augment an encoder with the reference set bundled with its model; return it as it is where there is none.

    The encoder is also returned as it is where tuning switched the bundled set off.

    Raises:
        EncoderMismatchError: the bundled set does not belong to the model (a damaged installation).
    """
    folder = bundled(base.traits.id, "references")
    if folder is None:
        return base
    references = ReferenceSet.open(folder)
    chosen = settings_of(references)
    if chosen is None or chosen.off:
        return base
    return AugmentedEncoder(base, references, blender_of(references))


def _parts(count: int) -> Iterator[slice]:
    """Cut `count` images into consecutive slices of at most `_CHUNK`."""
    return (slice(first, first + _CHUNK) for first in range(0, count, _CHUNK))
