"""Which encoder an opened index works with: given or loaded, and with the reference set that is in force now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from impart.blending.encoder import AugmentedEncoder
from impart.blending.ram_checkpoint import open_encoder
from impart.blending.ram_onnx import LearnedRam
from impart.config import EncoderSettings
from impart.encoders.base import Encoder, load_encoder
from impart.errors import EncoderMismatchError
from impart.video.index.manifest import IndexManifest
from impart.video.index.refset_switch import check_encoder, describe, with_references

__all__ = ["Session"]


class Session:
    """Encoders of one index, each loaded when it is first needed and then kept.

    Args:
        folder: of the index.
        given: the caller's encoder, or None for the index's own.
        settings: which model a new index gets, and threads.
    """

    def __init__(self, folder: Path, given: Encoder | None, settings: EncoderSettings) -> None:
        self.given = given
        self._folder = folder
        self._settings = settings
        self._base: Encoder | None = None
        self._kept: dict[str | None, Encoder] = {}

    def of_new(self) -> Encoder:
        """The encoder of an index that is yet to be made: as given, or the setting's with its bundled references."""
        if self.given is None:
            self.given = open_encoder(self._settings.model, **self._options)
        return self.given

    def of(self, manifest: IndexManifest) -> Encoder:
        """The base encoder with the reference set that a manifest names."""
        key = manifest.augmentation.fingerprint if manifest.augmentation else None
        if key not in self._kept:
            if isinstance(self.given, AugmentedEncoder) and self.given.fingerprint == key:
                self._kept[key] = self.given
            else:
                self._kept[key] = with_references(self.base(manifest), self._folder, manifest)
        return self._kept[key]

    def base(self, manifest: IndexManifest) -> Encoder:
        """The base encoder.

        Raises:
            EncoderMismatchError: the model of the manifest's id is not the one the index was made with any more.
        """
        if self._base is None:
            given = self.given
            base = given.base if isinstance(given, AugmentedEncoder) else given
            base = base or load_encoder(manifest.encoder_id, **self._options)
            check_encoder(base, self._folder, manifest)
            self._base = base
        return self._base

    def check_given(self, manifest: IndexManifest, *, is_empty: Callable[[], bool]) -> None:
        """Refuse an encoder that is not the index's; an empty index takes over any reference set.

        Raises:
            EncoderMismatchError: names both and the remedy.
        """
        if self.given is None:
            return
        check_encoder(self.given, self._folder, manifest)
        if not isinstance(self.given, AugmentedEncoder):
            return  # a base encoder looks through whatever set is in force
        force, asked = manifest.augmentation, describe(self.given)
        if (force is None or force.fingerprint != asked.fingerprint) and not is_empty():
            present = "no reference set"
            if force is not None:
                present = f"reference set {force.references_name!r} ({force.references_fingerprint[:12]}, "
                present += f"{force.settings})"
            what = "CHECKPOINT" if isinstance(self.given.blender, LearnedRam) else "R"
            raise EncoderMismatchError(
                f"the index {self._folder} has {present} in force, not {asked.references_name!r} "
                f"({asked.references_fingerprint[:12]}, {asked.settings}): switch with "
                f"impart refset use {what} --index {self._folder}, or open it without a reference set of your own"
            )

    @property
    def _options(self) -> dict[str, int]:
        return {"threads": self._settings.threads} if self._settings.threads else {}
