"""Who is compared: encoders by name, plain or with a reference set, none of them with references from the test set.

    mini                      the encoder alone
    mini+vanilla              blended with --refset, by the settings that are stored with the set
    mini+paper                the same set by the paper's settings (K=8, w_img 0.5, w_txt 0.05)
    mini+ram                  blended by the trained RAM of --ram; with --refset, else with the RAM's own set
    mini+bundled              with the reference set that comes with the model
    mini+vanilla=SET, mini+ram=CHECKPOINT      a set or RAM of its own
    CHECKPOINT                the folder of a trained RAM: its encoder, its set (or --refset)
    CHECKPOINT+plain          the encoder of a trained RAM, alone

A reference that shows a test image tells the answer. It is dropped where its content hash is a test image's, or
where the cosine of the retrieval embeddings reaches `NEAR_DUPLICATE`.

`NEAR_DUPLICATE` is 0.93. Measured with `mini`: of 200 images of Flickr8k (192 px) and their copies, 97.5% reach it
where the copy was resized to 75%, 93% cropped by 5%, 85% as JPEG of quality 60, 80% mirrored (0.98: by 22%, 10%, 5% and
1%); a copy at half the size mostly does not (13%). Of 2,500 different images of Flickr8k no two reach it (at most
0.925, two racing motorcycles), nor any of 1,000 test images of CIFAR-10 with 1,500 train images (0.87). In
CIFAR-100 4 of 1,500 test images do, three of them the same photograph; in Caltech-101 1% to 3%: the same image, the
next of a series, or two of a kind on white. Dropping one too many costs the augmented encoder a little: the safe side.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.blending.encoder import AugmentedEncoder, augment, default_augmented
from impart.blending.ram_checkpoint import encoder_id_of, is_checkpoint, open_ram, references_of
from impart.blending.ram_onnx import LearnedRam
from impart.blending.vanilla import Vanilla
from impart.config import EncoderSettings, EvaluateSettings, VanillaSettings
from impart.encoders.base import Encoder, Float32, load_encoder
from impart.errors import ConfigError, EncoderNotFoundError
from impart.evaluate.embed import base_of
from impart.refset.refset import ReferenceSet

__all__ = [
    "FORMS",
    "NEAR_DUPLICATE",
    "EvaluatedModel",
    "Copies",
    "copies",
    "describe",
    "parse",
    "usual",
    "without_copies",
]

NEAR_DUPLICATE = EvaluateSettings.near_duplicate

FORMS = ("plain", "vanilla", "paper", "ram", "bundled")
_SPEC = re.compile(rf"(?P<base>.+?)(?:\+(?P<form>{'|'.join(FORMS)})(?:=(?P<place>.+))?)?")
_BLOCK = 4096  # images compared at a time


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """One row of a comparison.

    Attributes:
        label: what reports call it.
        encoder: plain or augmented.
        same: references dropped because the test set has the same file.
        near: references dropped because the test set has nearly the same image.
    """

    label: str
    encoder: Encoder
    same: int = 0
    near: int = 0

    @property
    def references(self) -> ReferenceSet | None:
        """What it blends in."""
        return self.encoder.references if isinstance(self.encoder, AugmentedEncoder) else None


@dataclass(frozen=True)
class Copies:
    """Rows of a reference set that show test images.

    Attributes:
        same: rows with a test image's content hash.
        near: further rows whose retrieval embedding is as good as a test image's.
    """

    same: npt.NDArray[np.int64]
    near: npt.NDArray[np.int64]

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Both, ascending."""
        return np.union1d(self.same, self.near)


@dataclass(frozen=True)
class _Spec:
    text: str
    base: str
    form: str | None
    place: str | None

    @property
    def short(self) -> str:
        """The text with the folder's name in place of its path."""
        return self.text if self.place is None else f"{self.base}+{self.form}={Path(self.place).name}"


def usual(*, refset: Sequence[Path] = (), ram: Sequence[Path] = ()) -> str:
    """Who is compared where nobody was named: the encoder alone, and with whatever was given for it."""
    base = encoder_id_of(ram[0]) if ram else EncoderSettings.model
    forms = ["", *(["+vanilla"] if refset else []), *(["+ram"] if ram else [])]
    return ",".join(base + form for form in forms)


def parse(
    text: str,
    *,
    refset: Sequence[str | Path] = (),
    ram: Sequence[str | Path] = (),
    load: Callable[..., Encoder] = load_encoder,
    options: Mapping[str, Any] | None = None,
) -> list[EvaluatedModel]:
    """Open the models that a person named; an encoder that several are based on is opened once.

    Args:
        text: names as above, with commas between them.
        refset: reference sets for `+vanilla`, `+paper`, `+ram` and bare checkpoints. Of several sets, those that the
            encoder made count; where there are two, each makes a model.
        ram: checkpoints for `+ram`, likewise.
        load: opens an encoder by id.
        options: for `load`, such as `threads=2`.

    Raises:
        ConfigError: a name cannot be read, needs what was not given, comes twice, or nobody uses what was given.
        EncoderNotFoundError: there is no such encoder.
        EncoderMismatchError: a set or RAM belongs to another encoder.
    """
    specs = [_spec(name) for name in text.split(",") if name.strip()]
    if not specs:
        raise ConfigError("no encoder was named: write --encoders mini, or mini,mini+vanilla")
    house = _House(load, options or {}, [Path(place) for place in refset], [Path(place) for place in ram])
    found = [model for spec in specs for model in house.open(spec)]
    _use_all(house, text)
    labels = [model.label for model in found]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} would be compared twice: name each once (folders by different names)")
    return found


def copies(
    references: ReferenceSet, retrieval: Float32, hashes: Sequence[str] = (), *, near: float = NEAR_DUPLICATE
) -> Copies:
    """References that show one of n test images.

    Args:
        references: the set.
        retrieval: (n, R) retrieval embeddings of the test images, of the set's encoder.
        hashes: n content hashes; none = compared by their embeddings alone.
        near: cosine from which two images are nearly the same; above 1 = only equal files.
    """
    assert retrieval.shape[1] == references.manifest.retrieval_dim, retrieval.shape
    held = references.image_numbers(set(hashes))
    same = np.flatnonzero(np.isin(references.images, held[held >= 0])).astype(np.int64)
    best = np.full(len(references), -1.0, dtype=np.float32)
    if near <= 1 and len(references):
        for first in range(0, len(references), _BLOCK):
            rows = references.retrieval_embeddings[first : first + _BLOCK]  # (b, R)
            for start in range(0, len(retrieval), _BLOCK):
                sims = (rows @ retrieval[start : start + _BLOCK].T).max(axis=1)
                best[first : first + _BLOCK] = np.maximum(best[first : first + _BLOCK], sims)
    alike = np.flatnonzero(best >= near).astype(np.int64)
    return Copies(same, np.setdiff1d(alike, same))


def without_copies(
    models: Sequence[EvaluatedModel],
    images: Callable[[Encoder], tuple[Float32, Sequence[str]]],
    *,
    near: float = NEAR_DUPLICATE,
) -> list[EvaluatedModel]:
    """The models, none with references that show test images.

    Args:
        models: plain ones stay as they are.
        images: base encoder -> retrieval embeddings (n, R) and content hashes of the test images. Asked once for
            a base, and only where something is blended in.
        near: see `copies`.
    """
    tests: dict[str, tuple[Float32, Sequence[str]]] = {}
    cleaned: dict[tuple[str, str], tuple[ReferenceSet, Copies]] = {}
    result = []
    for model in models:
        encoder = model.encoder
        if not isinstance(encoder, AugmentedEncoder):
            result.append(model)
            continue
        base = encoder.base.fingerprint
        if base not in tests:
            tests[base] = images(encoder.base)
        key = (base, f"{encoder.references.fingerprint} {encoder.references.znorm.digest}")
        if key not in cleaned:
            found = copies(encoder.references, *tests[base], near=near)
            cleaned[key] = encoder.references.without(found.rows), found
        references, found = cleaned[key]
        kept = encoder
        if len(found.rows):
            kept = AugmentedEncoder(encoder.base, references, encoder.blender)
        result.append(
            dataclasses.replace(model, encoder=kept, same=len(found.same), near=len(found.near)),
        )
    return result


def describe(model: EvaluatedModel) -> dict[str, Any]:
    """What a report says of a model: ids, fingerprints, the reference set, how it is blended in."""
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
            "dropped_near_duplicate": model.near,
        }
        content["augmentation"] = {
            "kind": encoder.blender.name,
            **dataclasses.asdict(encoder.blender.settings),
        }
    return content


class _House:
    """What is open: encoders by id, sets and RAMs by folder."""

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
        """One model, or several where several sets or RAMs fit."""
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
                    raise ConfigError(f"{spec.text}: no reference set in use comes with {spec.base}; leave it out")
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
                raise EncoderNotFoundError(f"{error}. If '+{form}' was meant as a form, there are {known}") from error
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
        if spec.form == "paper":
            return AugmentedEncoder(base, references, Vanilla(VanillaSettings()))
        return augment(base, references)

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
        """Those made with the encoder; where there is but one, that one, so that a mismatch is told in full."""
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


def _use_all(house: _House, text: str) -> None:
    for option, places, form in (("--refset", house.refsets, "+vanilla"), ("--ram", house.rams, "+ram")):
        unused = [str(place) for place in places if place not in house.used]
        if unused:
            first = text.split(",")[0].strip()
            wanted = f"{first.partition('+')[0]}{form}"
            raise ConfigError(f"nobody in {text!r} uses {option} {', '.join(unused)}: add {wanted}, or leave it out")
