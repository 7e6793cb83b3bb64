"""IMPART: retrieval-augmented CLIP for classification, training and video search.

Example:
    Two class folders with one image each become a reference set. It is blended into the bundled model, which then
    classifies images and finds a moment of a video.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import impart
    >>> temporary = tempfile.TemporaryDirectory()
    >>> folder = Path(temporary.name)
    >>> colours = {name: Image.new("RGB", (64, 64), name) for name in ("red", "blue")}
    >>> for name, image in colours.items():
    ...     (folder / "images" / name).mkdir(parents=True)
    ...     image.save(folder / "images" / name / "square.png")
    >>> colours["red"].save(
    ...     folder / "film.gif", save_all=True, append_images=[colours["red"], *[colours["blue"]] * 2], duration=500
    ... )

    >>> encoder = impart.load_encoder("mini")  # or "onnx:...", "hf:openai/clip-vit-base-patch32"
    >>> references = impart.ReferenceSet.build(folder / "images", encoder)
    >>> augmented = impart.augment(encoder, references, k=1, w_txt=1.0)  # still an encoder
    >>> isinstance(augmented, impart.Encoder)
    True

    >>> dataset = impart.evaluate.open_set(folder / "images", kind="classes")
    >>> impart.evaluate.zeroshot(augmented, dataset).figures["top-1"]
    1.0

    >>> index = impart.VideoIndex.open(folder / "library.impart", augmented)
    >>> for event in index.add([folder]):
    ...     pass  # progress, failures
    >>> hit = index.search(text="blue", group="frame", top=1)[0]
    >>> hit.path.name, hit.start_s, hit.end_s
    ('film.gif', 1.0, 2.0)
    >>> temporary.cleanup()

Importing this package is cheap: each public name is imported when it is first used. It switches off the telemetry of
libraries, since ONNX Runtime reads its switch once, at its own import.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from impart import evaluate
    from impart.blending.encoder import AugmentedEncoder, augment
    from impart.encoders.base import Encoder, load_encoder
    from impart.errors import ImpartError
    from impart.refset.refset import ReferenceSet
    from impart.serve.client.client import Client
    from impart.video.index.index import VideoIndex

for _switch in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE"):
    os.environ.setdefault(_switch, "1")  # child processes inherit it; a value that the user has set is kept

__version__ = "0.1.0"
__all__ = [
    "AugmentedEncoder",
    "Client",
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
    "Client": "impart.serve.client.client",
    "Encoder": "impart.encoders",
    "ImpartError": "impart.errors",
    "ReferenceSet": "impart.refset.refset",
    "VideoIndex": "impart.video.index.index",
    "augment": "impart.blending.encoder",
    "load_encoder": "impart.encoders",
}
"""Public name -> module that defines it. `evaluate` is a sub-package."""


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "evaluate":
        return importlib.import_module("impart.evaluate")
    if name not in _HOMES:
        raise AttributeError(f"module 'impart' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
