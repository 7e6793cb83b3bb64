"""Class prototypes for the bundled reference set, from training images and the backbone's classifier.

No image of an evaluation set is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from impart.train.heads.onnx_export import ImageTower

__all__ = ["class_features", "write_prototypes"]


@torch.inference_mode()
def class_features(clean: Tensor, tower: ImageTower) -> Tensor:
    """Compute a typical feature vector of each class of the backbone's classifier.

    It is the mean of the training images' features, weighted by the square of the class's probability. For a class with
    few images the direction of the classifier, scaled to half the spread of real images, replaces it.

    Args:
        clean: (n, F') of training images: pooled features and cells.
        tower: contains classifier and standardisation.

    Returns:
        (C, F'); the pooled part is not negative.
    """
    head = tower.head
    weights = head.logits(clean).softmax(1).square()  # (n, C)
    evidence = weights.sum(0)  # (C,)
    means = (weights.T @ clean) / evidence.clamp(min=1e-6)[:, None]  # (C, F')
    spread = head.standardise(clean).norm(dim=1).mean() / 2
    pointed = head.mean + F.normalize(head.weight - head.weight.mean(0), dim=1) * spread / head.scale
    trust = (evidence / (evidence + 0.5))[:, None]
    pooled = (trust * head.pooled(means) + (1 - trust) * pointed).clamp(min=0)
    cells = trust * head.cells(means) + (1 - trust) * head.cells(clean).mean(0)
    return torch.cat([pooled, cells], dim=1)


@torch.inference_mode()
def write_prototypes(path: Path, clean: Tensor, tower: ImageTower, names: Sequence[str]) -> None:
    """Write `names` (C,), `image` (C, D) and `retrieval` (C, R), float16 with L2-normalised rows."""
    features = class_features(clean, tower)
    np.savez_compressed(
        path,
        names=np.array(names),
        image=F.normalize(tower.head(features), dim=-1).cpu().numpy().astype(np.float16),
        retrieval=_retrieval(features, tower).astype(np.float16),
    )


def _retrieval(features: Tensor, tower: ImageTower) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = F.normalize(tower(features)[-1], dim=-1).cpu().numpy()
    return found
