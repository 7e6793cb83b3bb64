"""Presence: how probable it is that a frame shows what a name was taught with. Pure functions of embeddings.

Frames and examples are compared by their retrieval embeddings, after three steps.

1. **Whitening.** Cosines of raw embeddings are high between all frames of one kind, such as two beaches. The covariance
   C of unrelated images tells which directions those are. Rows become `W(x - m) / |W(x - m)|` with `W = C_s^(-1/2)` and
   `C_s = (1 - s) C + s t I`, t the mean eigenvalue (linear discriminant analysis with shrinkage). C and the mean m are
   half from the frames of the index and half from the background set of the encoder.
2. **Examples.** The score of a frame is the mean of its cosine with the nearest example and of its mean cosine with the
   nearest five. An example that no other one resembles is left out where the others resemble each other.
3. **Calibration.** The score becomes a z-score against the same background. The cut is where the z-score leaves those
   of unrelated images: a share of what the examples reach among each other, within bounds. Presence is a logistic
   function of the z-score, one half at the cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32, l2_normalise
from impart.files import sha256_hex

__all__ = ["Background", "Detector", "presence"]

_SHRINKAGE = 0.3  # chosen on crops of 320 photos and on photos of 107 things, like all constants here
_NEAREST = 5  # examples whose mean cosine counts
_MOST = 400  # frames of the index that calibrate, as many as the background set of `mini` has
_UNLIKE_Z, _ALIKE_Z = 2.0, 4.0  # of the nearest other example: below, it is unlike; above, two are alike
_USUAL_CUT_Z = 6.0  # of a name with one example
_LOWEST_CUT_Z, _HIGHEST_CUT_Z = 5.0, 9.0
_CUT_SHARE = 0.5  # of the z-scores of the examples among each other
_OF_TOP = 0.7  # of the z-score of an example itself
_WIDTH_Z = 0.75
_ROWS = 16_384  # frames at once


@dataclass(frozen=True, kw_only=True)
class Background:
    """Statistics of unrelated images: mean, whitening, and rows that calibrate scores.

    Attributes:
        mean: m (R,).
        whitening: W (R, R), symmetric.
        unrelated: (M, R) whitened rows of unit length.
    """

    mean: Float32
    whitening: Float32
    unrelated: Float32

    @classmethod
    def of(cls, frames: npt.NDArray[np.floating], others: npt.NDArray[np.floating] | None = None) -> Background:
        """Compute the statistics.

        Args:
            frames: (n, R) retrieval embeddings of the index; n may be 0 where there are `others`.
            others: (M, R) retrieval embeddings of the encoder's background set; None = it has none.

        Example:
            >>> rng = np.random.default_rng(0)
            >>> background = Background.of(rng.standard_normal((50, 8)), rng.standard_normal((40, 8)))
            >>> background.whitening.shape, background.unrelated.shape
            ((8, 8), (90, 8))
        """
        step = max(1, len(frames) // (10 * _MOST))
        sets = [l2_normalise(np.asarray(rows, np.float32)) for rows in (frames[::step], others) if rows is not None]
        sets = [rows for rows in sets if len(rows)]
        if not sets:
            raise ValueError("a background needs frames or a background set")
        mean = np.mean([rows.mean(axis=0) for rows in sets], axis=0).astype(np.float32)
        covariance = np.mean([np.cov(rows, rowvar=False, bias=True) for rows in sets], axis=0)
        values, vectors = np.linalg.eigh(np.atleast_2d(covariance))
        level = max(float(values.mean()), 1e-12)
        scale = 1 / np.sqrt((1 - _SHRINKAGE) * values.clip(min=0) + _SHRINKAGE * level)
        whitening = ((vectors * scale) @ vectors.T).astype(np.float32)
        chosen = np.concatenate([rows[:: max(1, -(-len(rows) // _MOST))] for rows in sets])
        return cls(mean=mean, whitening=whitening, unrelated=l2_normalise((chosen - mean) @ whitening))

    @property
    def digest(self) -> str:
        """Digest of mean and whitening: equal digests give equal lengths."""
        return sha256_hex(self.mean.tobytes(), self.whitening.tobytes())[:16]

    @cached_property
    def usual(self) -> float:
        """Standard deviation of the cosines of unrelated whitened rows, from the median of their distances."""
        rows = self.unrelated[:: max(1, len(self.unrelated) // _MOST)]
        cosines = (rows @ rows.T)[np.triu_indices(len(rows), k=1)]
        return max(1.4826 * float(np.median(np.abs(cosines - np.median(cosines)))), 1e-3) if len(cosines) else 0.1

    def whiten(self, rows: npt.NDArray[np.floating]) -> Float32:
        """Whiten retrieval embeddings (n, R) to unit rows (n, R)."""
        return l2_normalise((np.asarray(rows, np.float32) - self.mean) @ self.whitening)

    def lengths(self, rows: npt.NDArray[np.floating]) -> Float32:
        """Compute the lengths (n,) of the whitened rows: the part of `whiten` that costs, the same for every name."""
        result = np.empty(len(rows), np.float32)
        for first in range(0, len(rows), _ROWS):
            part = (np.asarray(rows[first : first + _ROWS], np.float32) - self.mean) @ self.whitening
            result[first : first + _ROWS] = np.sqrt(np.einsum("br,br->b", part, part))
        return np.maximum(result, np.float32(1e-12))


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Scores frames for one name. Made by `Detector.of`.

    Attributes:
        background: of the index and the encoder.
        examples: (m, R) whitened unit rows of all examples.
        kept: (m,) False for an example that is unlike the others and does not count.
        centre, spread: mean and standard deviation of the scores of unrelated images.
        cut_z: z-score at which presence is one half.
        own_z: (m,) z-score of each example by the others; NaN of a single one.
    """

    background: Background
    examples: Float32
    kept: npt.NDArray[np.bool_]
    centre: float
    spread: float
    cut_z: float
    own_z: Float32

    @classmethod
    def of(cls, examples: npt.NDArray[np.floating], background: Background) -> Detector:
        """Calibrate the examples of a name.

        Args:
            examples: (m, R) retrieval embeddings, m >= 1.
            background: of the index and the encoder.
        """
        rows = background.whiten(examples)
        among: Float32 = rows @ rows.T  # (m, m)
        usual = background.usual
        kept = _kept(among, usual)
        scores = _combined(background.unrelated @ rows[kept].T)
        centre = float(np.median(scores))
        # The median of the distances: frames of the index that show the name are no part of the spread.
        spread = max(1.4826 * float(np.median(np.abs(scores - centre))), 0.5 * usual, 1e-6)
        own_z = np.full(len(rows), np.nan, np.float32)
        for i in range(len(rows)):
            others = np.flatnonzero(kept & (np.arange(len(rows)) != i))
            if len(others):
                own_z[i] = (float(_combined(among[[i]][:, others])[0]) - centre) / spread
        reached = own_z[kept & np.isfinite(own_z)]
        cut_z = _USUAL_CUT_Z
        if len(reached):
            cut_z = float(np.clip(_CUT_SHARE * np.median(reached), _LOWEST_CUT_Z, _HIGHEST_CUT_Z))
        cut_z = min(cut_z, _OF_TOP * (1 - centre) / spread)  # a narrow embedding reaches no high z-score
        return cls(
            background=background, examples=rows, kept=kept, centre=centre, spread=spread, cut_z=cut_z, own_z=own_z
        )

    def z_scores(self, frames: npt.NDArray[np.floating], lengths: Float32 | None = None) -> Float32:
        """Compute the z-scores (n,) of frames (n, R).

        Args:
            frames: retrieval embeddings.
            lengths: (n,) `Background.lengths` of them; None computes them.
        """
        lengths = self.background.lengths(frames) if lengths is None else lengths
        towards = (self.background.whitening @ self.examples[self.kept].T).astype(np.float32)  # (R, m)
        offset = self.background.mean @ towards  # (m,)
        result = np.empty(len(frames), np.float32)
        for first in range(0, len(frames), _ROWS):
            part = slice(first, first + _ROWS)
            rows = np.asarray(frames[part], np.float32)
            cosines = np.asarray((rows @ towards - offset) / lengths[part, None], np.float32)
            result[part] = (_combined(cosines) - self.centre) / self.spread
        return result

    def presence(self, frames: npt.NDArray[np.floating], lengths: Float32 | None = None) -> Float32:
        """Compute the presence (n,) of the name in frames (n, R), from 0 to 1."""
        return self.as_presence(self.z_scores(frames, lengths))

    def as_presence(self, z_scores: Float32) -> Float32:
        """Convert z-scores to presence: one half at the cut."""
        result: Float32 = (1 / (1 + np.exp(np.clip((self.cut_z - z_scores) / _WIDTH_Z, -50, 50)))).astype(np.float32)
        return result


def presence(
    frames: npt.NDArray[np.floating],
    examples: npt.NDArray[np.floating],
    background: Background,
    *,
    lengths: Float32 | None = None,
) -> Float32:
    """Compute the presence of a name in frames.

    Args:
        frames: (n, R) retrieval embeddings, such as `Snapshot.retrieval`.
        examples: (m, R) retrieval embeddings of the name's images.
        background: made once per snapshot.
        lengths: (n,) `Background.lengths` of the frames, computed once per snapshot; None computes them.

    Returns:
        (n,) from 0 to 1; one half at the cut.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> frames = rng.standard_normal((300, 32)).astype(np.float32)
        >>> background = Background.of(frames[:200], rng.standard_normal((200, 32)))
        >>> found = presence(frames, frames[7:8], background)
        >>> int(found.argmax()), bool(found[7] > 0.9), int((found > 0.5).sum())
        (7, True, 1)
    """
    return Detector.of(examples, background).presence(frames, lengths)


def _combined(cosines: Float32) -> Float32:
    """Combine the cosines (n, m) of frames with examples into scores (n,)."""
    nearest = cosines.max(axis=1)
    if cosines.shape[1] > _NEAREST:
        cosines = np.partition(cosines, -_NEAREST, axis=1)[:, -_NEAREST:]
    combined: Float32 = (0.5 * nearest + 0.5 * cosines.mean(axis=1)).astype(np.float32)
    return combined


def _kept(among: Float32, usual: float) -> npt.NDArray[np.bool_]:
    """Select the examples that count, by their cosines among each other (m, m).

    An example is left out where no other one resembles it, but others resemble each other. At most a quarter is left
    out, or one of three: a name with many appearances has many examples that resemble no other.
    """
    count = len(among)
    kept = np.ones(count, bool)
    if count < 3:
        return kept
    nearest = (among - 2 * np.eye(count, dtype=np.float32)).max(axis=1)
    usual = min(usual, _OF_TOP / _ALIKE_Z)  # narrow embeddings
    unlike = nearest < _UNLIKE_Z * usual
    if (nearest > _ALIKE_Z * usual).sum() >= 2 and unlike.sum() <= max(1, count // 4):
        kept &= ~unlike
    return kept
