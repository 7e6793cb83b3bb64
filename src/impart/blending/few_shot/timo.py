"""TIMO: texts and images guide each other (Li et al., AAAI 2025, equations 5 to 12).

Image-guided text: the prompts of a class are weighted by how well they match the mean embedding p_c of its references,

    m_cp = p_c . t_cp,   u_c = normalise(sum_p softmax_p(gamma m_cp / |m_c|) t_cp)

Text-guided image: the prompts are further samples of a class, each scaled by m_cp, in the discriminant analysis of
`gda` on the embeddings. The logits are a v . u_c + GDA_c(v); with a = s / alpha and in units of zero-shot,

    g_c(v) = s v . (u_c - t_c) + alpha GDA_c(v)

All prompts count (the authors' default of their number). Texts and images must be in one space, so that the
embeddings are used, not the retrieval embeddings. Where the left-out reference is the only one of its class, the mean
match of the other classes stands for it. Leaving one out changes the means and the scatter of one class: an update of
low rank, solved by the Woodbury identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from impart.blending.few_shot.gda import Float64, discriminant, precision
from impart.blending.few_shot.support import LOGIT_SCALE, Support
from impart.encoders.base import Float32, ImageEmbeddings

__all__ = ["Guided", "Timo"]


def _unit(rows: Float64) -> Float64:
    found: Float64 = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
    return found


@dataclass(frozen=True)
class Guided:
    """Guided texts and samples of references and prompts, for any alpha.

    Attributes:
        support: the references, with prompts; without them, the text of each class is its one prompt.
        gamma: sharpness of the weights of the prompts.
    """

    support: Support
    gamma: float

    @cached_property
    def prompts(self) -> Float64:
        """(C, P, D)."""
        given = self.support.texts[:, None] if self.support.prompts is None else self.support.prompts
        return given.astype(np.float64)

    @cached_property
    def vectors(self) -> Float64:
        return self.support.embeddings.astype(np.float64)

    @cached_property
    def sums(self) -> Float64:
        found: Float64 = self.support.one_hot.T @ self.vectors  # (C, D)
        return found

    @cached_property
    def matches(self) -> Float64:
        """(C, P) m_cp."""
        found: Float64 = np.einsum("cd,cpd->cp", _unit(self.sums), self.prompts)
        return found

    def text(self, prompts: Float64, matches: Float64) -> Float64:
        """Weigh prompts (..., P, D) by their matches (..., P): u (..., D)."""
        scaled = self.gamma * _unit(matches)
        weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        return _unit(np.einsum("...p,...pd->...d", weights / weights.sum(axis=-1, keepdims=True), prompts))

    @cached_property
    def texts(self) -> Float64:
        """(C, D) u_c."""
        return self.text(self.prompts, self.matches)

    @cached_property
    def samples(self) -> list[Float64]:
        """Samples of each class: its references, and its prompts scaled by their matches."""
        scaled = self.matches[..., None] * self.prompts
        labels = self.support.labels
        return [np.concatenate([self.vectors[labels == number], own]) for number, own in enumerate(scaled)]

    @cached_property
    def means(self) -> Float64:
        return np.stack([rows.mean(axis=0) for rows in self.samples])

    @property
    def count(self) -> int:
        return len(self.support) + int(self.prompts.shape[0] * self.prompts.shape[1])

    @cached_property
    def scatter(self) -> Float64:
        away = np.concatenate([rows - mean for rows, mean in zip(self.samples, self.means, strict=True)])
        found: Float64 = away.T @ away
        return found

    def parts(self, embeddings: npt.NDArray[np.float32]) -> tuple[Float64, Float64]:
        """Compute v . (u - t) and GDA(v), both (B, C)."""
        weights, biases = discriminant(self.means, precision(self.scatter, self.count))
        return embeddings @ (self.texts - self.support.texts).T, embeddings @ weights + biases

    @cached_property
    def left_out(self) -> tuple[Float64, Float64]:
        """The same of the references, each without itself."""
        support, width = self.support, self.vectors.shape[1]
        values, basis = np.linalg.eigh(self.scatter)
        values = np.maximum(values, 0)
        turned = self.means @ basis
        text, other = self.vectors @ (self.texts - support.texts).T, np.empty((len(support), len(support.texts)))
        for row, (x, label) in enumerate(zip(self.vectors, support.labels, strict=True)):
            matches = self._matches_without(row)
            text[row, label] = x @ (self.text(self.prompts[label], matches) - support.texts[label])
            images = np.flatnonzero(support.labels == label)
            kept = self.vectors[images[images != row]]
            rows = np.concatenate([kept, matches[:, None] * self.prompts[label]])
            mean = rows.mean(axis=0)
            before, after = self.samples[label] - self.means[label], rows - mean
            changed = np.concatenate([before, after]) @ basis  # (m, D)
            signs = np.concatenate([-np.ones(len(before)), np.ones(len(after))])
            trace = values.sum() + (signs[:, None] * changed**2).sum()
            scaled = 1 / (values + trace / (self.count - 2))
            means = turned.copy()
            means[label] = mean @ basis
            narrow = changed * scaled
            inner = np.linalg.inv(np.diag(signs) + narrow @ changed.T)  # (m, m)
            side = means @ narrow.T  # (C, m)
            direct = (means * scaled) @ (x @ basis) - side @ (inner @ (narrow @ (x @ basis)))
            squares = (means**2) @ scaled - np.einsum("cm,mn,cn->c", side, inner, side)
            other[row] = width * (direct - 0.5 * squares)
        return text, other

    def _matches_without(self, row: int) -> Float64:
        label = self.support.labels[row]
        if self.support.counts[label] == 1:
            others = np.delete(self.matches, label, axis=0)
            return np.asarray(others.mean(axis=0) if len(others) else self.matches[label])
        return np.asarray(self.prompts[label] @ _unit(self.sums[label] - self.vectors[row]))


@dataclass(frozen=True)
class Timo:
    """Guided texts, and discriminant analysis of images and prompts.

    Attributes:
        guided: what was computed from references and prompts.
        alpha: weight of the discriminant, in logits.
    """

    guided: Guided
    alpha: float

    def offsets(self, images: ImageEmbeddings) -> Float32:
        """Compute the offsets g (B, C) of the zero-shot logits of B images."""
        return self._joined(*self.guided.parts(images.embeddings))

    def left_out(self) -> Float32:
        """Compute the offsets (R, C) of the references, each without itself."""
        return self._joined(*self.guided.left_out)

    def _joined(self, text: Float64, other: Float64) -> Float32:
        return (LOGIT_SCALE * text + self.alpha * other).astype(np.float32)
