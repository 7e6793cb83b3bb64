"""Image features learned without labels: whitened patches, k-means and pooling (Coates, Ng and Lee, AISTATS 2011).

    patches of P x P pixels -> contrast normalised -> whitened (ZCA), unit length -> max(0, cosine with a centroid - A)
    -> averaged over a grid of G x G cells -> standardised -> principal components -> unit vector

It serves as the retriever of RA-CLIP that has seen the training images and no label. `PatchEncoder` has the interface
of an encoder, so that the training reads its neighbours from the same store as those of `mini`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from impart.encoders.base import EncoderTraits, Float32, ImageEmbeddings, ImageInput
from impart.encoders.preprocess import PreprocessConfig, preprocess
from impart.files import atomic_path, blake2b_hex

__all__ = ["PatchEncoder", "PatchSettings", "fit_patches", "pixels_of"]

_AT_ONCE = 8  # images whose activations are in memory
_CONTRAST = 10.0  # added to the variance of a patch (pixels 0..255), as in the paper
_ZCA = 0.1  # added to the eigenvalues


@dataclass(frozen=True, kw_only=True)
class PatchSettings:
    """Sizes of the features."""

    size_px: int = 32
    patch_px: int = 6
    centroids: int = 800
    threshold: float = 0.2
    grid: int = 3
    dim: int = 256
    patches: int = 200_000
    rounds: int = 12
    fitted: int = 6000
    """Images from which patches, standardisation and principal components are learned."""


def pixels_of(images: Sequence[ImageInput], size_px: int) -> Tensor:
    """Scale the short side to S and crop the centre: (B, 3, S, S) uint8."""
    made = preprocess(images, PreprocessConfig(size_px=size_px, mean=(0.0,) * 3, std=(1.0,) * 3))
    return torch.from_numpy(np.rint(255 * made).astype(np.uint8))


class PatchEncoder:
    """Encoder of images alone; texts are refused, since no text was learned from.

    Args:
        settings: sizes.
        weights: `mean` (P * P * 3,), `zca` (P * P * 3, P * P * 3), `centroids` (C, P * P * 3), `shift` and `spread`
            (G * G * C,), `components` (G * G * C, R).
    """

    def __init__(self, settings: PatchSettings, weights: dict[str, Tensor]):
        self.settings, self.weights = settings, weights
        digest = b"".join(weights[name].numpy().tobytes() for name in sorted(weights))
        self._fingerprint = blake2b_hex(digest + repr(settings).encode(), size_bytes=32)

    @property
    def traits(self) -> EncoderTraits:
        dim = self.settings.dim
        return EncoderTraits(
            id="patches",
            dim=dim,
            retrieval_dim=dim,
            own_retrieval=False,
            image_size_px=self.settings.size_px,
            context_tokens=1,
        )

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        """Embed B images: (B, R)."""
        made = self.embed(pixels_of(images, self.settings.size_px)).numpy()
        return ImageEmbeddings(made, made)

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        raise NotImplementedError(f"features of patches embed images alone, not {len(texts)} texts")

    @torch.no_grad()
    def embed(self, pixels: Tensor) -> Tensor:
        """Embed pixels (B, 3, S, S) uint8: (B, R), L2-normalised."""
        rows = [self._project(self.pooled(part)) for part in torch.split(pixels, _AT_ONCE)]
        return F.normalize(torch.cat(rows), dim=-1)

    def _project(self, pooled: Tensor) -> Tensor:
        weights = self.weights
        return (pooled - weights["shift"]) / weights["spread"] @ weights["components"]

    def pooled(self, pixels: Tensor) -> Tensor:
        """Compute the activations of pixels (B, 3, S, S) summed over the grid: (B, G * G * C)."""
        weights, grid = self.weights, self.settings.grid
        patches = whitened(unfolded(pixels, self.settings.patch_px), weights["mean"], weights["zca"])  # (B, L, d)
        active = (patches @ weights["centroids"].T).sub_(self.settings.threshold).relu_()  # (B, L, C)
        side = round(active.shape[1] ** 0.5)
        maps = active.transpose(1, 2).reshape(len(active), -1, side, side)  # (B, C, side, side)
        return F.adaptive_avg_pool2d(maps, grid).flatten(1)

    def save(self, path: Path) -> None:
        """Write settings and weights."""
        with atomic_path(path) as part:
            torch.save({"settings": self.settings, "weights": self.weights}, part)

    @classmethod
    def open(cls, path: Path) -> PatchEncoder:
        """Read what `save` wrote."""
        kept = torch.load(path, weights_only=False)  # a file of this benchmark
        return cls(kept["settings"], kept["weights"])


def unfolded(pixels: Tensor, patch_px: int) -> Tensor:
    """Cut all patches out of pixels (B, 3, S, S), contrast normalised: (B, L, 3 * P * P)."""
    patches = F.unfold(pixels.float(), patch_px).transpose(1, 2)
    patches = patches - patches.mean(-1, keepdim=True)
    return patches / (patches.var(-1, keepdim=True) + _CONTRAST).sqrt()


def whitened(patches: Tensor, mean: Tensor, zca: Tensor) -> Tensor:
    """Whiten patches (..., d), L2-normalised."""
    return F.normalize((patches - mean) @ zca, dim=-1)


def fit_patches(parts: Iterable[Tensor], settings: PatchSettings, *, seed: int = 0) -> PatchEncoder:
    """Learn the features from images, without labels.

    Args:
        parts: pixels (b, 3, S, S) uint8 of the images, part after part.
        settings: sizes.
        seed: of the drawn images, patches and centroids.
    """
    draw = torch.Generator().manual_seed(seed)
    pixels = torch.cat(list(parts))
    pixels = pixels[torch.randperm(len(pixels), generator=draw)[: settings.fitted]]
    places = (settings.size_px - settings.patch_px + 1) ** 2
    own = max(1, settings.patches // len(pixels))  # patches of one image
    drawn = []
    for part in torch.split(pixels, _AT_ONCE):
        found = unfolded(part, settings.patch_px)
        drawn.append(found[:, torch.randperm(places, generator=draw)[:own]].flatten(0, 1))
    patches = torch.cat(drawn)  # (n, d)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    zca = (vectors / (values + _ZCA).sqrt()) @ vectors.T
    white = whitened(patches, mean, zca)
    weights = {"mean": mean, "zca": zca, "centroids": spherical_means(white, settings, draw)}
    encoder = PatchEncoder(settings, weights)
    pooled = torch.cat([encoder.pooled(part) for part in torch.split(pixels, _AT_ONCE)])
    shift, spread = pooled.mean(0), pooled.std(0) + 1e-6
    _, singular, directions = torch.pca_lowrank((pooled - shift) / spread, q=settings.dim, center=False, niter=4)
    whitening = singular / len(pooled) ** 0.5  # the components have unit variance, up to a floor
    components = directions / (whitening + 0.3 * whitening[0])
    return PatchEncoder(settings, weights | {"shift": shift, "spread": spread, "components": components})


def spherical_means(rows: Tensor, settings: PatchSettings, draw: torch.Generator) -> Tensor:
    """Cluster rows (n, d) by spherical k-means (Coates and Ng, 2012); an empty cluster takes a random row: (C, d)."""
    centroids = F.normalize(rows[torch.randperm(len(rows), generator=draw)[: settings.centroids]], dim=1)
    for _ in range(settings.rounds):
        sums, counts = torch.zeros_like(centroids), torch.zeros(len(centroids))
        for part in torch.split(rows, 20_000):
            best = (part @ centroids.T).max(1)
            sums.index_add_(0, best.indices, part * best.values[:, None])
            counts.index_add_(0, best.indices, torch.ones(len(part)))
        empty = torch.nonzero(counts == 0)[:, 0]
        sums[empty] = rows[torch.randint(len(rows), (len(empty),), generator=draw)]
        centroids = F.normalize(sums, dim=1)
    return centroids
