"""Pictures that are near to every text, and how a search by text is kept from finding them all the time.

In a space of many dimensions some pictures lie near to most sentences (hubs) and turn up for queries they have nothing
to do with. CSLS (Conneau et al., ICLR 2018, eq. 4) takes off a score half of what the picture gets from its nearest
texts on average:

    score(t, v) = t.v - 1/2 mean of the 10 highest b.v

Its texts are the queries themselves, which a search does not have. Here they are captions b that were used in training
the model and stay the same: nothing is known of other queries, and the score of one picture does not depend on the
others. A number a picture is taken off, so which class a picture is most like does not change: this is for ranking
pictures by a text. (The text's own half of CSLS would not change the order of one text's answers, and is left out.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from impart.augment.encoder import AugmentedEncoder, model_home
from impart.encoders.base import Encoder, Float32, l2_normalise
from impart.errors import EncoderError

__all__ = ["FILE", "CaptionBank", "bundled_bank"]

FILE = "captions.npz"
NEAREST = 10
_BLOCK = 8192  # pictures at a time: 32 MB of cosines with a thousand captions


@dataclass(frozen=True)
class CaptionBank:
    """Embeddings of everyday captions, by one encoder.

    Attributes:
        captions: (M, D) float32, L2-normalised.
    """

    captions: Float32

    def __len__(self) -> int:
        return len(self.captions)

    def hubness(self, images: Float32) -> Float32:
        """What is taken off the scores of n pictures.

        Args:
            images: (n, D), L2-normalised.

        Returns:
            (n,) half the mean of each picture's highest cosines with captions.
        """
        result = np.zeros(len(images), np.float32)
        nearest = min(NEAREST, len(self.captions))
        for first in range(0, len(images) if nearest else 0, _BLOCK):
            cosines = images[first : first + _BLOCK] @ self.captions.T  # (b, M)
            result[first : first + _BLOCK] = np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1) / 2
        return result

    def save(self, path: Path, *, fingerprint: str) -> None:
        """Write the bank in fifteen levels a number, which cosines of it hardly feel: 0.2 MB for a thousand of 384."""
        scale = np.abs(self.captions).max(axis=1, keepdims=True) / 7
        whole = np.rint(self.captions / np.maximum(scale, 1e-12)).astype(np.int8)
        with path.open("wb") as file:
            np.savez_compressed(file, captions=whole, fingerprint=np.array(fingerprint))

    @classmethod
    def load(cls, path: Path, *, fingerprint: str) -> CaptionBank:
        """Read what `save` wrote; the lengths are made 1 again, so that no scale is needed.

        Raises:
            EncoderError: the file is damaged, or belongs to another model.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                captions, owner = stored["captions"], str(stored["fingerprint"])
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(f"{path} cannot be read: {error}. Reinstall the model") from error
        if owner != fingerprint:
            raise EncoderError(f"{path} belongs to another version of the model: reinstall it")
        return cls(l2_normalise(captions.astype(np.float32)))


def bundled_bank(encoder: Encoder) -> CaptionBank | None:
    """The bank that comes with a model, or None where it has none."""
    base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
    path = model_home(base.traits.id) / FILE
    return CaptionBank.load(path, fingerprint=base.fingerprint) if path.is_file() else None
