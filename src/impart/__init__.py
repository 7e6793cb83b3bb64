"""IMPART: retrieval-augmented CLIP for classification, training and video search.

    import impart

    encoder = impart.load_encoder("mini")                      # or "onnx:...", "hf:openai/clip-vit-base-patch32"
    references = impart.ReferenceSet.open("my-pairs")          # or ReferenceSet.build(pairs, encoder)
    augmented = impart.augment(encoder, references, k=8)       # still an Encoder
    index = impart.VideoIndex.open("library.impart", augmented)
    for event in index.add(["films/"]): ...                    # progress, failures
    hits = index.search(text="a dog on a skateboard", top=10)  # hits[0].path, .start_s, .end_s, .score, .why
    report = impart.evaluate.zeroshot(augmented, dataset)

Importing this package is cheap: every name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impart import evaluate
    from impart.blending.encoder import AugmentedEncoder, augment
    from impart.encoders.base import Encoder, load_encoder
    from impart.errors import ImpartError
    from impart.refset.refset import ReferenceSet
    from impart.video.index.index import VideoIndex

__version__ = "0.1.0"
__all__ = [
    "AugmentedEncoder",
    "Encoder",
    "ImpartError",
    "ReferenceSet",
    "VideoIndex",
    "augment",
    "evaluate",
    "load_encoder",
]

_HOMES = {
    "AugmentedEncoder": "impart.blending.encoder",
    "Encoder": "impart.encoders",
    "ImpartError": "impart.errors",
    "ReferenceSet": "impart.refset.refset",
    "VideoIndex": "impart.video.index.index",
    "augment": "impart.blending.encoder",
    "load_encoder": "impart.encoders",
}


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return importlib.import_module("impart.evaluate")
    if name not in _HOMES:
        raise AttributeError(f"module 'impart' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
