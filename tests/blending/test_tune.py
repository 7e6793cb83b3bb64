"""Tuning on synthetic data where the right choice is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder, augment
from impart.blending.solved.choice import solvable
from impart.blending.tune import _OPEN, OFF, USUAL, bundled_background, gated_if_single, tune
from impart.blending.vanilla import Vanilla
from impart.config import SolvedSettings, VanillaSettings
from impart.encoders.base import ImageEmbeddings, l2_normalise
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.refset.refset import ReferenceSet

WIDTH = 48


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    return l2_normalise(rng.standard_normal((count, WIDTH)))


@dataclasses.dataclass
class World:
    """Classes with clusters of retrieval embeddings; their image embeddings are only weakly similar to their texts.

    Attributes:
        vague: share of the text embedding in an image embedding.
        tight: share of the class centre in a retrieval embedding.
    """

    classes: int
    seed: int
    prefix: str
    vague: float = 0.25
    tight: float = 1.5

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        self.texts, self.centres = unit(rng, self.classes), unit(rng, self.classes)

    def draw(self, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw images: labels (n,), embeddings (n, D), retrieval embeddings (n, R)."""
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(self.classes), per_class)
        embeddings = l2_normalise(self.vague * self.texts[labels] + unit(rng, len(labels)))
        return labels, embeddings, l2_normalise(self.tight * self.centres[labels] + unit(rng, len(labels)))

    def references(self, per_class: int, *, encoder: str = "tiny") -> ReferenceSet:
        labels, embeddings, retrieval = self.draw(per_class, 1000 + self.seed)
        return ReferenceSet.from_arrays(
            [f"{self.prefix} {label}" for label in labels],
            image=embeddings,
            text=self.texts[labels],
            retrieval=retrieval,
            encoder_id=encoder,
            encoder_fingerprint=TinyEncoder().fingerprint if encoder == "tiny" else encoder,
            name=self.prefix,
        )

    def accuracy(self, augmented: AugmentedEncoder | None) -> float:
        labels, embeddings, retrieval = self.draw(10, 99)
        if augmented is not None:
            embeddings = augmented.apply(embeddings, augmented.blend(ImageEmbeddings(embeddings, retrieval)))
        return float(((embeddings @ self.texts.T).argmax(axis=1) == labels).mean())


def with_set(references: ReferenceSet, background: ReferenceSet | None) -> AugmentedEncoder:
    tuned = tune(references, background=background)
    return augment(TinyEncoder(), tuned.references)


def test_a_set_that_helps_is_used_and_other_images_are_not_harmed() -> None:
    taught, foreign, unseen = World(40, 0, "taught"), World(60, 1, "foreign", vague=0.5), World(60, 2, "unseen")
    augmented = with_set(taught.references(3), foreign.references(10))
    assert taught.accuracy(augmented) > taught.accuracy(None) + 0.2
    assert unseen.accuracy(augmented) > unseen.accuracy(None) - 0.005


def test_figures_are_reported() -> None:
    taught, foreign = World(40, 0, "taught"), World(60, 1, "foreign", vague=0.5)
    tuned = tune(taught.references(3), background=foreign.references(10))
    assert tuned.rule == "cross-validation"
    assert (tuned.items, tuned.texts, tuned.background) == (120, 40, 600)
    assert tuned.after > tuned.before + 0.2
    assert tuned.background_gate < 0.01
    assert isinstance(tuned.settings, SolvedSettings)
    assert tuned.references.manifest.solved == dataclasses.asdict(tuned.settings)
    vanilla = tuned.references.manifest.vanilla  # for a RAM and for sweeps
    assert vanilla is not None
    assert usual(VanillaSettings(**vanilla))


def test_captions_and_sets_that_are_too_large_stay_with_vanilla() -> None:
    def of(texts: list[str]) -> ReferenceSet:
        taught = World(40, 0, "taught").references(3)
        return ReferenceSet.from_arrays(
            texts,
            image=taught.image_embeddings,
            text=taught.text_embeddings,
            retrieval=taught.retrieval_embeddings,
            encoder_id="tiny",
            encoder_fingerprint=TinyEncoder().fingerprint,
        )

    names = list(World(40, 0, "taught").references(3).texts)
    assert solvable(of(names))
    assert not solvable(of([f"{name} lies on a red sofa" for name in names]))  # captions
    assert not solvable(of(["taught"] * len(names)))  # one name: nothing to decide
    assert not solvable(of(names).take(np.arange(4097) % 120))
    assert isinstance(tune(of([f"{name} lies on a red sofa" for name in names])).settings, VanillaSettings)


def test_images_of_unknown_things_of_the_same_kind_keep_their_names() -> None:
    """Half of the names are taught; the set is not used where the others lose more than 0.75 of what the half gains."""
    taught, foreign = World(40, 0, "taught", vague=0.5), World(60, 1, "foreign", vague=0.5)
    half = taught.references(4).take(np.arange(80))
    augmented = augment(TinyEncoder(), tune(half, background=foreign.references(10)).references)
    labels, embeddings, retrieval = taught.draw(10, 99)
    after = augmented.apply(embeddings, augmented.blend(ImageEmbeddings(embeddings, retrieval)))
    plain, blended = ((v @ taught.texts.T).argmax(axis=1) == labels for v in (embeddings, after))
    known = labels < 20
    assert blended[known].mean() > plain[known].mean() + 0.1
    assert blended[~known].mean() > plain[~known].mean() - 0.75 * (blended[known].mean() - plain[known].mean())


def test_a_set_with_random_neighbours_is_switched_off() -> None:
    world = World(40, 3, "noise", tight=0.0, vague=1.0)
    assert tune(world.references(3)).settings == OFF


def test_one_image_per_name_gets_the_usual_settings() -> None:
    taught, foreign, unseen = World(40, 0, "taught"), World(60, 1, "foreign", vague=0.5), World(60, 2, "unseen")
    tuned = tune(taught.references(1), background=foreign.references(10))
    assert tuned.rule == "usual weights"
    assert usual(tuned.settings)
    augmented = augment(TinyEncoder(), tuned.references)
    assert taught.accuracy(augmented) > taught.accuracy(None) + 0.1
    assert unseen.accuracy(augmented) > unseen.accuracy(None) - 0.01


def test_the_target_is_the_upper_quartile_of_the_background_cosines() -> None:
    taught, foreign = World(40, 0, "taught"), World(60, 1, "foreign", vague=2.0)
    background = foreign.references(10)
    target = tune(taught.references(1), background=background).settings.target
    cosines = (background.image_embeddings * background.text_embeddings).sum(axis=1)
    assert (cosines < target).mean() == pytest.approx(0.75, abs=0.02)
    vague = World(60, 1, "foreign", vague=0.5).references(10)  # an encoder whose images are far from all texts
    assert tune(taught.references(1), background=vague).settings.target < target - 0.2


def test_a_closed_set_is_blended_more_and_without_a_gate() -> None:
    taught, foreign = World(40, 0, "taught", tight=0.8), World(60, 1, "foreign", vague=0.5)
    opened = tune(taught.references(3), background=foreign.references(10))
    closed = tune(taught.references(3), background=foreign.references(10), closed=True)
    assert (closed.settings.floor, closed.settings.target, closed.background_gate) == (0, 0, 1)
    gained = [taught.accuracy(augment(TinyEncoder(), tuned.references)) for tuned in (opened, closed)]
    assert gained[1] > gained[0] + 0.1
    assert tune(World(40, 3, "noise", tight=0.0, vague=0.3).references(3), closed=True).settings == OFF


def test_the_choice_is_repeatable() -> None:
    references = World(30, 0, "taught").references(3)
    assert tune(references, seed=1).settings == tune(references, seed=1).settings


def test_sets_that_cannot_be_tuned_are_refused() -> None:
    world = World(5, 0, "taught")
    with pytest.raises(EncoderMismatchError, match=r"'other'.*'tiny'"):
        tune(world.references(2), background=World(5, 1, "foreign").references(2, encoder="other"))
    with pytest.raises(ReferenceSetError, match="nothing to tune on"):
        tune(world.references(1).take([]))


def test_a_single_pair_gets_the_usual_settings() -> None:
    alone = World(1, 0, "alone").references(1)
    tuned = tune(alone, background=World(60, 1, "foreign").references(10))
    assert tuned.rule == "usual weights"
    assert tuned.settings.floor >= 4


def test_names_that_the_model_already_has_are_not_taught_without_a_check() -> None:
    known, foreign = World(40, 0, "known", vague=3.0), World(60, 1, "foreign", vague=0.5)
    tuned = tune(known.references(1), background=foreign.references(10))
    assert (tuned.rule, tuned.settings) == ("known already", OFF)
    few = World(5, 0, "known", vague=3.0)  # the model classifies "our dog" as a dog: it is taught nevertheless
    assert usual(tune(few.references(1), background=foreign.references(10)).settings)


def test_the_floor_rises_until_the_gate_is_nearly_closed_for_background_images() -> None:
    taught, foreign = World(40, 0, "taught"), World(60, 1, "foreign", vague=0.5).references(10)
    near = World(40, 0, "near", tight=3.0).references(7)  # a third of the background images show taught classes
    tuned = tune(taught.references(3), background=foreign.merge(near))
    far = tune(taught.references(3), background=World(60, 1, "foreign", vague=0.5).references(10))
    assert tuned.settings.floor > far.settings.floor
    assert tuned.background_gate <= _OPEN
    for one, floor in ((tuned, None), (far, USUAL.floor)):
        vanilla = one.references.manifest.vanilla
        assert vanilla is not None
        assert (vanilla["floor"] == floor) == (floor is not None)


def test_the_bundled_background_belongs_to_one_encoder() -> None:
    background = bundled_background("mini")
    assert background is not None
    same = bundled_background("mini", fingerprint=background.encoder_fingerprint)
    assert same is not None
    assert same.fingerprint == background.fingerprint
    assert bundled_background("mini", fingerprint="another") is None
    assert bundled_background("tiny") is None


def usual(settings: VanillaSettings | SolvedSettings) -> bool:
    """Whether these are the usual settings; floor and target follow from the background set."""
    found = dataclasses.replace(settings, floor=USUAL.floor, target=USUAL.target)
    return found == USUAL


@pytest.mark.parametrize("text", ["Rex", "a dog that is called Rex lies on a red sofa in the sun"])
def test_one_pair_teaches_its_name_and_does_not_hurt_other_images(text: str) -> None:
    """Under the paper's weights, without a gate, the pair would be added to every image."""
    foreign, unseen = World(60, 1, "foreign", vague=0.5), World(60, 2, "unseen", vague=1.0)
    single = World(1, 0, text).references(1)
    single = ReferenceSet.from_arrays(
        [text],
        image=single.image_embeddings,
        text=single.text_embeddings,
        retrieval=single.retrieval_embeddings,
        encoder_id="tiny",
        encoder_fingerprint=TinyEncoder().fingerprint,
    )
    tuned = tune(single, background=foreign.references(10))
    assert tuned.rule == "usual weights"
    assert usual(tuned.settings)
    augmented = augment(TinyEncoder(), tuned.references)
    _, embeddings, retrieval = unseen.draw(10, 99)
    images = ImageEmbeddings(embeddings, retrieval)
    assert np.allclose(augmented.apply(embeddings, augmented.blend(images)), embeddings, atol=1e-6)
    own = ImageEmbeddings(single.image_embeddings, single.retrieval_embeddings)
    taught = augmented.apply(own.embeddings, augmented.blend(own)) @ single.text_embeddings[0]
    assert taught[0] > own.embeddings[0] @ single.text_embeddings[0] + 0.05
    paper = AugmentedEncoder(TinyEncoder(), tuned.references, Vanilla(VanillaSettings()))
    assert not np.allclose(paper.apply(embeddings, paper.blend(images)), embeddings, atol=0.01)


def test_one_pair_is_gated_also_where_nobody_tuned_it() -> None:
    single, unseen = World(1, 0, "Rex").references(1), World(60, 2, "unseen")
    assert single.manifest.vanilla is None
    augmented = augment(TinyEncoder(), single)
    assert augmented.blender.settings.floor > 0  # type: ignore[union-attr]
    assert unseen.accuracy(augmented) == pytest.approx(unseen.accuracy(None), abs=0.005)
    two = World(2, 0, "Rex").references(1)
    assert gated_if_single(two) is two
    assert augment(TinyEncoder(), single, settings="paper").blender.settings == VanillaSettings()
