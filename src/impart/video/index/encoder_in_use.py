"""The encoder of an open index: given or loaded, with the reference set that is in force now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from impart.blending.encoder import AugmentedEncoder
from impart.blending.ram_checkpoint import open_encoder
from impart.blending.ram_onnx import LearnedRam
from impart.config import EncoderSettings
from impart.encoders.base import Encoder, load_encoder
from impart.errors import EncoderMismatchError
from impart.video.index.manifest import Augmentation, IndexManifest
from impart.video.index.refset_switch import check_encoder, describe, with_references

__all__ = ["EncoderInUse"]


class EncoderInUse:
    """Encoders of one index, each loaded when it is first needed and then kept.

    Args:
        folder: of the index.
        given: the caller's encoder, or None for the index's own.
        settings: model of a new index, device and threads.
    """

    def __init__(self, folder: Path, given: Encoder | None, settings: EncoderSettings) -> None:
        self.given = given
        self._folder = folder
        self._settings = settings
        self._base: Encoder | None = None
        self._kept: dict[str | None, Encoder] = {}

    def for_new_index(self) -> Encoder:
        """Return the given encoder, or load that of the settings with its bundled reference set."""
        if self.given is None:
            self.given = open_encoder(self._settings.model, **self._settings.options)
        return self.given

    def of(self, manifest: IndexManifest) -> Encoder:
        """Return the base encoder, augmented by the reference set in force where there is one."""
        key = manifest.augmentation.fingerprint if manifest.augmentation else None
        if key not in self._kept:
            if isinstance(self.given, AugmentedEncoder) and self.given.fingerprint == key:
                self._kept[key] = self.given
            else:
                self._kept[key] = with_references(self.base(manifest), self._folder, manifest)
        return self._kept[key]

    def base(self, manifest: IndexManifest) -> Encoder:
        """Return the base encoder.

        Raises:
            EncoderMismatchError: the model under the manifest's id is not the one that made the index.
        """
        if self._base is None:
            given = self.given
            base = given.base if isinstance(given, AugmentedEncoder) else given
            base = base or load_encoder(manifest.encoder_id, **self._settings.options)
            check_encoder(base, self._folder, manifest)
            self._base = base
        return self._base

    def check_given(self, manifest: IndexManifest, *, is_empty: Callable[[], bool]) -> None:
        """Refuse a given encoder that is not the index's; an empty index takes any reference set.

        Raises:
            EncoderMismatchError: names both and the remedy.
        """
        if self.given is None:
            return
        check_encoder(self.given, self._folder, manifest)
        if not isinstance(self.given, AugmentedEncoder):
            return  # a base encoder is augmented by the set in force
        in_force, asked = manifest.augmentation, describe(self.given)
        if (in_force is None or in_force.fingerprint != asked.fingerprint) and not is_empty():
            what = "CHECKPOINT" if isinstance(self.given.blender, LearnedRam) else "SET"
            raise EncoderMismatchError(
                f"the index {self._folder} has {_in_words(in_force)} in force, not {_in_words(asked)}: switch with "
                f"impart refset use {what} --index {self._folder}, or open it without a reference set of your own"
            )


def _in_words(augmentation: Augmentation | None) -> str:
    """Name a reference set, with the fingerprints of its rows and of its blend."""
    if augmentation is None:
        return "no reference set"
    fingerprints = f"rows {augmentation.references_fingerprint[:12]}, blend {augmentation.fingerprint[:12]}"
    return f"reference set {augmentation.references_name!r} ({augmentation.name}, {fingerprints})"
