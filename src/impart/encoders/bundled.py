"""Locate the files that belong to a model beside its weights: reference set, background set, captions."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundled", "model_home"]

_MODELS = Path(__file__).parent / "models"


def bundled(encoder_id: str, what: str) -> Path | None:
    """Locate a reference set that belongs to a model; None where the model has none.

    Args:
        encoder_id: as `EncoderTraits.id` has it.
        what: name of the set's folder: `references` or `background`.

    >>> bundled("mini", "background").name, bundled("hf:openai/clip-vit-base-patch32", "references")
    ('background', None)
    """
    folder = model_home(encoder_id) / what
    return folder if (folder / "manifest.json").is_file() else None


def model_home(encoder_id: str) -> Path:
    """Return the folder of a model: the local folder that the id names, else the one in this package.

    The folder need not exist: a hub repository has none.
    """
    scheme, _, rest = encoder_id.partition(":")
    return Path(rest) if rest else _MODELS / scheme
