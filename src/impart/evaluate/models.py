"""Models: what is evaluated, an encoder plain or with a reference set. They are opened by name.

mini                      the encoder alone
mini+vanilla              blended with --refset, by the settings that are stored with the set
mini+paper                the same set by the paper's settings (K=8, w_img 0.5, w_txt 0.05)
mini+ram                  blended by the trained RAM of --ram; with --refset, else with the RAM's own set
mini+bundled              with the reference set that is bundled with the model
mini+vanilla=SET, mini+ram=CHECKPOINT      with this set or RAM
CHECKPOINT                the folder of a trained RAM: its encoder, and its set or --refset
CHECKPOINT+plain          the encoder of a trained RAM, alone
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impart.blending.encoder import AugmentedEncoder, augment, default_augmented
from impart.blending.ram_checkpoint import encoder_id_of, is_checkpoint, open_ram, references_of
from impart.blending.ram_onnx import LearnedRam
from impart.config import EncoderSettings
from impart.encoders.base import Encoder, load_encoder
from impart.errors import ConfigError, EncoderNotFoundError
from impart.evaluate.embed import base_of
from impart.refset.refset import ReferenceSet

__all__ = ["FORMS", "EvaluatedModel", "default_names", "describe", "open_models"]

FORMS = ("plain", "vanilla", "paper", "ram", "bundled")
_SPEC = re.compile(rf"(?P<base>.+?)(?:\+(?P<form>{'|'.join(FORMS)})(?:=(?P<place>.+))?)?")


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """An encoder that is evaluated.

    Attributes:
        label: its name in reports.
        encoder: plain or augmented.
        same: references dropped because the test set has the same file.
        alike: references dropped by their perceptual hash.
        near: references dropped by their retrieval embedding alone.
        bound: the cosine for that; above 1 = embeddings did not count.
        unhashed: references that could not be compared by perceptual hash.
    """

    label: str
    encoder: Encoder
    same: int = 0
    alike: int = 0
    near: int = 0
    bound: float = 2.0
    unhashed: int = 0

    @property
    def dropped(self) -> int:
        """References dropped because they show a test image."""
        return self.same + self.alike + self.near

    @property
    def references(self) -> ReferenceSet | None:
        """The reference set of an augmented encoder, else None."""
        return self.encoder.references if isinstance(self.encoder, AugmentedEncoder) else None


@dataclass(frozen=True)
class _Spec:
    text: str
    base: str
    form: str | None
    place: str | None

    @property
    def short(self) -> str:
        """The text, with the name of the folder in place of its path."""
        return self.text if self.place is None else f"{self.base}+{self.form}={Path(self.place).name}"


def default_names(*, refset: Sequence[Path] = (), ram: Sequence[Path] = ()) -> str:
    """Return the names that are evaluated by default: the encoder alone, and with each kind of set or RAM given."""
    base = encoder_id_of(ram[0]) if ram else EncoderSettings.model
    forms = ["", *(["+vanilla"] if refset else []), *(["+ram"] if ram else [])]
    return ",".join(base + form for form in forms)


def open_models(
    text: str,
    *,
    refset: Sequence[str | Path] = (),
    ram: Sequence[str | Path] = (),
    load: Callable[..., Encoder] = load_encoder,
    options: Mapping[str, Any] | None = None,
) -> list[EvaluatedModel]:
    """Open models by their names; each encoder is opened once.

    Args:
        text: names as above, with commas between them.
        refset: reference sets for `+vanilla`, `+paper`, `+ram` and bare checkpoints. Of several sets, each one that
            was made with the encoder gives a model.
        ram: checkpoints for `+ram`, likewise.
        load: opens an encoder by its id.
        options: for `load`, such as `threads=2`.

    Raises:
        ConfigError: a name is malformed, repeated, or needs a set or RAM that is not given; or no name uses a given
            set or RAM.
        EncoderNotFoundError: there is no such encoder.
        EncoderMismatchError: a set or RAM belongs to another encoder.
    """
    specs = [_spec(name) for name in text.split(",") if name.strip()]
    if not specs:
        raise ConfigError("no encoder was named: write --encoders mini, or mini,mini+vanilla")
    opener = _Opener(load, options or {}, [Path(place) for place in refset], [Path(place) for place in ram])
    found = [model for spec in specs for model in opener.open(spec)]
    _check_all_used(opener, text)
    labels = [model.label for model in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} would be evaluated twice: give each once, and folders different names")
    return found


def describe(model: EvaluatedModel) -> dict[str, Any]:
    """Describe a model for a report: ids, fingerprints, the reference set, the blending settings."""
    encoder, base = model.encoder, base_of(model.encoder)
    content: dict[str, Any] = {
        "label": model.label,
        "encoder": base.traits.id,
        "encoder_fingerprint": base.fingerprint,
        "fingerprint": encoder.fingerprint,
    }
    if isinstance(encoder, AugmentedEncoder):
        references = encoder.references
        content["references"] = {
            "name": references.name,
            "fingerprint": references.fingerprint,
            "pairs": len(references),
            "dropped_same_file": model.same,
            "dropped_near_duplicate": model.alike + model.near,
            "dropped_by_hash": model.alike,
            "dropped_by_embedding": model.near,
            "embedding_bound": round(model.bound, 4) if model.bound <= 1 else None,
            "without_hash": model.unhashed,
        }
        content["augmentation"] = {
            "kind": encoder.blender.name,
            **dataclasses.asdict(encoder.blender.settings),
        }
    return content


class _Opener:
    """Opens encoders by id, sets and RAMs by folder, each once."""

    def __init__(
        self, load: Callable[..., Encoder], options: Mapping[str, Any], refsets: list[Path], rams: list[Path]
    ) -> None:
        self._load, self._options = load, options
        self._encoders: dict[str, Encoder] = {}
        self._sets: dict[Path, ReferenceSet] = {}
        self._rams: dict[Path, LearnedRam] = {}
        self.refsets, self.rams = refsets, rams
        self.used: set[Path] = set()

    def open(self, spec: _Spec) -> list[EvaluatedModel]:
        """Open one model, or several if several sets or RAMs were made with the encoder."""
        checkpoint = Path(spec.base) if is_checkpoint(spec.base) else None
        base = self.encoder(encoder_id_of(checkpoint) if checkpoint else spec.base, spec)
        match spec.form:
            case None if checkpoint is not None:
                return self._learned(spec, base, checkpoint)
            case None | "plain":
                return [EvaluatedModel(label=spec.text, encoder=base)]
            case "bundled":
                whole = default_augmented(base)
                if whole is base:
                    raise ConfigError(f"{spec.text}: {spec.base} has no bundled reference set in use; leave it out")
                return [EvaluatedModel(label=spec.text, encoder=whole)]
            case "ram":
                return self._learned(spec, base, None)
            case _:
                return self._vanilla(spec, base)

    def encoder(self, encoder_id: str, spec: _Spec) -> Encoder:
        if encoder_id not in self._encoders:
            try:
                self._encoders[encoder_id] = self._load(encoder_id, **self._options)
            except EncoderNotFoundError as error:
                _, plus, form = spec.base.rpartition("+")
                if not plus:
                    raise
                known = ", ".join(f"+{name}" for name in FORMS)
                raise EncoderNotFoundError(
                    f"{error}. If '+{form}' is meant as a form: the forms are {known}"
                ) from error
        return self._encoders[encoder_id]

    def references(self, place: Path) -> ReferenceSet:
        if place not in self._sets:
            self._sets[place] = ReferenceSet.open(place)
        return self._sets[place]

    def ram(self, place: Path) -> LearnedRam:
        if place not in self._rams:
            self._rams[place] = open_ram(place)
        return self._rams[place]

    def _vanilla(self, spec: _Spec, base: Encoder) -> list[EvaluatedModel]:
        if spec.place is None:
            places = self._fitting(self.refsets, lambda place: self.references(place).encoder_fingerprint, base)
        else:
            places = [Path(spec.place)]
        if not places:
            raise ConfigError(
                f"{spec.text} needs a reference set: give --refset DIR, or write {spec.text}=DIR "
                "('impart refset build' makes one)"
            )
        return [
            EvaluatedModel(
                label=_label(spec, place if len(places) > 1 else None), encoder=self._blended(spec, base, place)
            )
            for place in places
        ]

    def _blended(self, spec: _Spec, base: Encoder, place: Path) -> Encoder:
        references = self.references(place)
        return augment(base, references, settings="paper" if spec.form == "paper" else "tuned")

    def _learned(self, spec: _Spec, base: Encoder, checkpoint: Path | None) -> list[EvaluatedModel]:
        if checkpoint is not None:
            rams = [checkpoint]
        elif spec.place is not None:
            rams = [Path(spec.place)]
        else:
            rams = self._fitting(self.rams, lambda place: self.ram(place).encoder_fingerprint, base)
        if not rams:
            raise ConfigError(
                f"{spec.text} needs a trained RAM: give --ram DIR, or write {spec.text}=DIR ('impart train' makes one)"
            )
        sets: list[Path | None] = []
        if self.refsets:
            sets += self._fitting(self.refsets, lambda place: self.references(place).encoder_fingerprint, base)
        sets = sets or [None]
        result = []
        for ram in rams:
            for place in sets:
                references = references_of(ram) if place is None else self.references(place)
                named = [ram] if len(rams) > 1 else []
                named += [place] if place is not None and len(sets) > 1 else []
                label = _label(spec, *named)
                result.append(EvaluatedModel(label=label, encoder=AugmentedEncoder(base, references, self.ram(ram))))
        return result

    def _fitting(self, places: list[Path], fingerprint: Callable[[Path], str], base: Encoder) -> list[Path]:
        """Return those made with the encoder. If there is none, the first, so that opening it reports the mismatch."""
        fit = [place for place in places if fingerprint(place) == base.fingerprint] or places[:1]
        self.used.update(fit)
        return fit


def _spec(text: str) -> _Spec:
    found = _SPEC.fullmatch(text.strip())
    assert found is not None, text  # anything that is not empty fits
    spec = _Spec(text.strip(), found["base"], found["form"], found["place"])
    if spec.place is not None and spec.form in ("plain", "bundled"):
        raise ConfigError(f"{spec.text}: '+{spec.form}' takes no folder")
    return spec


def _label(spec: _Spec, *places: Path | None) -> str:
    names = "=".join(place.name for place in places if place is not None)
    return f"{spec.short}={names}" if names else spec.short


def _check_all_used(opener: _Opener, text: str) -> None:
    for option, places, form in (("--refset", opener.refsets, "+vanilla"), ("--ram", opener.rams, "+ram")):
        unused = [str(place) for place in places if place not in opener.used]
        if unused:
            first = text.split(",")[0].strip()
            wanted = f"{first.partition('+')[0]}{form}"
            raise ConfigError(f"no name in {text!r} uses {option} {', '.join(unused)}: add {wanted}, or leave it out")
