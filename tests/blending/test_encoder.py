"""AugmentedEncoder against naive loops, and as an implementation of Encoder."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from helpers.tiny_encoder import DIM, RETRIEVAL_DIM, TinyEncoder
from impart.blending.encoder import AugmentedEncoder, augment, default_augmented
from impart.blending.vanilla import Vanilla
from impart.config import VanillaSettings
from impart.encoders.base import Encoder, ImageEmbeddings, l2_normalise
from impart.errors import ConfigError, EncoderMismatchError
from impart.refset.refset import ReferenceSet

PAPER = VanillaSettings()
WEIGHTED = VanillaSettings(k=5, w_img=0.7, w_txt=1.3, tau=0.1, floor=0.6, ramp=0.9)


def make_set(count: int, *, encoder: Encoder | None = None, seed: int = 0) -> ReferenceSet:
    rng = np.random.default_rng(seed)
    encoder = encoder or TinyEncoder()
    return ReferenceSet.from_arrays(
        [f"thing {i}" for i in range(count)],
        image=l2_normalise(rng.standard_normal((count, DIM))),
        text=l2_normalise(rng.standard_normal((count, DIM))),
        retrieval=l2_normalise(rng.standard_normal((count, RETRIEVAL_DIM))),
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="random",
    )


def make_images(count: int, seed: int = 1) -> ImageEmbeddings:
    rng = np.random.default_rng(seed)
    return ImageEmbeddings(
        l2_normalise(rng.standard_normal((count, DIM))), l2_normalise(rng.standard_normal((count, RETRIEVAL_DIM)))
    )


def naive(images: ImageEmbeddings, references: ReferenceSet, options: VanillaSettings) -> np.ndarray:
    """Compute eq. 1 and its weighted form, one image and one neighbour at a time."""
    rows = []
    for v, q in zip(images.embeddings.astype(float), images.retrieval.astype(float), strict=True):
        sims = [float(q @ r) for r in references.retrieval_embeddings.astype(float)]
        best = sorted(range(len(sims)), key=lambda i: -sims[i])[: options.k]
        z_scores = (np.array(sims) - np.mean(sims)) / np.std(sims)  # the set is its own background set
        kept = [i for i in best if not options.floor or z_scores[i] >= options.floor]
        raw = [np.exp(sims[i] / options.tau) if options.tau else 1.0 for i in kept]
        open_ = 1.0
        if kept and options.ramp:
            open_ = min(1.0, (z_scores[kept[0]] - options.floor) / options.ramp)
        for i, share in zip(kept, raw, strict=True):
            share = open_ * share / sum(raw)
            v = v + options.w_img * share * references.image_embeddings[i]
            v = v + options.w_txt * share * references.text_embeddings[i]
        rows.append(v / np.linalg.norm(v))
    return np.stack(rows)


@pytest.mark.parametrize("options", [PAPER, WEIGHTED, VanillaSettings(k=3, w_img=0, w_txt=2, tau=0, floor=1.2)])
def test_apply_equals_the_naive_loop(options: VanillaSettings) -> None:
    references, images = make_set(40), make_images(50)
    encoder = AugmentedEncoder(TinyEncoder(), references, Vanilla(options))
    got = encoder.apply(images.embeddings, encoder.blend(images))
    np.testing.assert_allclose(got, naive(images, references, options), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)


def test_the_default_is_the_papers_uniform_mean_over_k() -> None:
    references, images = make_set(40), make_images(20)
    encoder = AugmentedEncoder(TinyEncoder(), references, Vanilla(PAPER))
    nearest = np.argsort(-(images.retrieval @ references.retrieval_embeddings.T), axis=1)[:, :8]
    want = images.embeddings + 0.5 / 8 * references.image_embeddings[nearest].sum(axis=1)
    want = want + 0.05 / 8 * references.text_embeddings[nearest].sum(axis=1)
    got = encoder.apply(images.embeddings, encoder.blend(images))
    np.testing.assert_allclose(got, l2_normalise(want), atol=1e-6)


@pytest.mark.parametrize("options", [PAPER, WEIGHTED])
@pytest.mark.parametrize("texts", [1, 7, DIM + 5])  # above D, v' is formed
@pytest.mark.parametrize("count", [3, 40, 3000])
def test_scores_equal_texts_times_v_prime(options: VanillaSettings, texts: int, count: int) -> None:
    references, images = make_set(count), make_images(64)
    sentences = l2_normalise(np.random.default_rng(3).standard_normal((texts, DIM)))
    encoder = AugmentedEncoder(TinyEncoder(), references, Vanilla(options))
    blend = encoder.blend(images)
    want = sentences @ encoder.apply(images.embeddings, blend).T
    np.testing.assert_allclose(encoder.scores(sentences, images.embeddings, blend), want, atol=1e-5)


def test_results_do_not_depend_on_chunks_or_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    references, images = make_set(200), make_images(100)
    encoder = AugmentedEncoder(TinyEncoder(), references, Vanilla(WEIGHTED))
    whole = encoder.blend(images)
    module = importlib.import_module("impart.blending.encoder")
    monkeypatch.setattr(module, "_CHUNK", 7)
    monkeypatch.setattr(module, "_PRODUCT", 400)
    np.testing.assert_array_equal(
        encoder.apply(images.embeddings, whole),
        np.concatenate(
            [
                encoder.apply(part.embeddings, encoder.blend(part))
                for part in (
                    ImageEmbeddings(images.embeddings[i : i + 9], images.retrieval[i : i + 9]) for i in range(0, 100, 9)
                )
            ]
        ),
    )
    texts = l2_normalise(np.random.default_rng(3).standard_normal((6, DIM)))
    want = texts @ encoder.apply(images.embeddings, whole).T
    np.testing.assert_allclose(encoder.scores(texts, images.embeddings, whole), want, atol=1e-5)


def test_far_images_keep_their_embedding() -> None:
    references, images = make_set(40), make_images(30)
    encoder = AugmentedEncoder(TinyEncoder(), references, Vanilla(VanillaSettings(floor=99, w_txt=5)))
    blend = encoder.blend(images)
    assert not blend.img.any()
    assert not blend.txt.any()
    np.testing.assert_allclose(encoder.apply(images.embeddings, blend), images.embeddings, atol=1e-6)


def test_fewer_pairs_than_k() -> None:
    references, images = make_set(3), make_images(5)
    encoder = AugmentedEncoder(TinyEncoder(), references, Vanilla(VanillaSettings(k=8, tau=0.05)))
    blend = encoder.blend(images)
    assert (blend.ids[:, 3:] == -1).all()
    np.testing.assert_allclose(blend.img.sum(axis=1), 0.5, atol=1e-6)


def test_it_is_an_encoder_with_its_own_fingerprint(tiny: TinyEncoder) -> None:
    references = make_set(40)
    one = augment(tiny, references, k=8)
    assert isinstance(one, Encoder)
    images = [np.full((8, 8, 3), value, np.uint8) for value in (0, 100, 250)]
    out, plain = one.encode_images(images), tiny.encode_images(images)
    assert out.embeddings.shape == (3, DIM)
    np.testing.assert_array_equal(out.retrieval, plain.retrieval)
    assert np.abs(out.embeddings - plain.embeddings).max() > 0.01
    np.testing.assert_array_equal(one.encode_texts(["red"]), tiny.encode_texts(["red"]))
    same, other_k, other_set = augment(tiny, references, k=8), augment(tiny, references, k=4), make_set(40, seed=9)
    assert one.fingerprint == same.fingerprint
    assert len({tiny.fingerprint, one.fingerprint, other_k.fingerprint, augment(tiny, other_set, k=8).fingerprint}) == 4


def test_another_encoders_set_is_refused_with_both_names(tiny: TinyEncoder) -> None:
    with pytest.raises(EncoderMismatchError, match=r"'tiny:5'.*'tiny'.*build the set again"):
        augment(tiny, make_set(4, encoder=TinyEncoder(5)))


def test_named_settings_stand_on_the_tuned_ones(tiny: TinyEncoder) -> None:
    stored = {"k": 3, "w_img": 0.25, "w_txt": 1.0, "tau": 0.05, "floor": 0.3, "ramp": 0.1, "target": 0.4}
    references = make_set(10).with_vanilla(stored)
    assert augment(tiny, references).blender.settings == VanillaSettings(**stored)
    assert augment(tiny, references, k=2).blender.settings == VanillaSettings(**{**stored, "k": 2})
    assert augment(tiny, references, w_txt=0.0).blender.settings == VanillaSettings(**{**stored, "w_txt": 0.0})
    assert augment(tiny, references, settings="paper").blender.settings == VanillaSettings()
    assert augment(tiny, references, k=2, settings="paper").blender.settings == VanillaSettings(k=2)
    assert augment(tiny, make_set(10), k=2).blender.settings == VanillaSettings(k=2)  # an untuned set has the paper's
    with pytest.raises(ConfigError, match="use tuned or paper"):
        augment(tiny, references, settings="best")  # type: ignore[arg-type]
    assert augment(tiny, references, np.int64(2)).blender.settings.k == 2  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no setting 'weight'; there are floor, k"):
        augment(tiny, references, weight=2)
    for wrong in (2.5, "8", True):
        with pytest.raises(ConfigError, match="must be a whole number"):
            augment(tiny, references, k=wrong)  # type: ignore[arg-type]


def test_a_model_without_bundled_references_is_returned_unchanged(tiny: TinyEncoder) -> None:
    assert default_augmented(tiny) is tiny
