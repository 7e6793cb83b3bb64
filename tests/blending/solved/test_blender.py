"""Solved references: parity with the classifier, exact cross-validation, storage, and signed contributions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny_encoder import TinyEncoder
from impart.blending.encoder import AugmentedEncoder, augment, settings_of
from impart.blending.few_shot.logistic import logistic_weights
from impart.blending.solved.blender import Fitted, Solved, names_of, solve, with_solved_weights, within_name
from impart.blending.solved.choice import choose_closed
from impart.blending.solved.folds import folded, logistic_offsets
from impart.blending.tune import tune
from impart.config import SolvedSettings, VanillaSettings
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise
from impart.errors import ConfigError, ImpartWarning, ReferenceSetError
from impart.refset.check import check_set
from impart.refset.refset import ReferenceSet
from impart.retrieval.znorm import ZNorm

D, Q, C = 24, 12, 6
CLOSED = SolvedSettings(alpha=64, debias=0.2)
LOGISTIC = SolvedSettings(alpha=20, beta=1, penalty=0.1, debias=0.2)
OPEN = SolvedSettings(alpha=256, text_ridge=0.3, floor=1.0, ramp=1.0, low=0.1, high=0.5, target=0.6)


def world(per_class: int = 4, *, classes: int = C, seed: int = 0, known: float = 0.3) -> ReferenceSet:
    rng = np.random.default_rng(seed)
    texts, centres = (l2_normalise(rng.standard_normal((classes, width))) for width in (D, Q))
    labels = np.repeat(np.arange(classes), per_class)
    made = ReferenceSet.from_arrays(
        [f"name {label}" for label in labels],
        image=l2_normalise(known * texts[labels] + l2_normalise(rng.standard_normal((len(labels), D)))),
        text=texts[labels],
        retrieval=l2_normalise(centres[labels] + 0.7 * l2_normalise(rng.standard_normal((len(labels), Q)))),
        encoder_id="tiny",
        encoder_fingerprint=TinyEncoder().fingerprint,
        storage="float32",
        name="world",
    )
    return made.with_znorm(ZNorm.of(l2_normalise(rng.standard_normal((100, Q)))))


def images(count: int = 50, seed: int = 5) -> ImageEmbeddings:
    rng = np.random.default_rng(seed)
    return ImageEmbeddings(*(l2_normalise(rng.standard_normal((count, width))) for width in (D, Q)))


def blended(references: ReferenceSet, settings: SolvedSettings) -> AugmentedEncoder:
    return AugmentedEncoder(TinyEncoder(), references, Solved(settings))


def test_a_closed_set_gives_the_logits_of_the_classifier() -> None:
    references, some = world(), images()
    encoder = blended(references, CLOSED)
    blend = encoder.blend(some)
    names = names_of(references)
    logits = 100 * encoder.apply(some.embeddings, blend) * blend.norm[:, None] @ names.texts.T
    # The classifier, written out.
    moments = references.znorm.covariance + np.outer(references.znorm.mean, references.znorm.mean)
    values, vectors = np.linalg.eigh(moments.astype(np.float64))
    white = vectors @ np.diag((values + 0.1 * values.mean()) ** -0.2) @ vectors.T
    q, own = (l2_normalise(rows @ white) for rows in (some.retrieval, references.retrieval_embeddings))
    weights = np.linalg.inv(np.exp(2 * (own @ own.T - 1)) + 0.1 * np.eye(len(own))) @ np.eye(C)[names.labels]
    zeroshot = 20 * references.image_embeddings @ names.texts.T
    shares = np.exp(zeroshot) / np.exp(zeroshot).sum(axis=1, keepdims=True)
    bias = np.log(shares.mean(axis=0) + 1e-4) / 0.2
    expected = 100 * some.embeddings @ names.texts.T - bias + 64 * np.exp(2 * (q @ own.T - 1)) @ weights
    np.testing.assert_allclose(logits / 100, expected / 100, atol=1e-5)


def test_the_balance_weights_each_name_equally() -> None:
    names = names_of(world())
    v = l2_normalise(world().image_embeddings)
    often = np.concatenate([np.arange(len(v)), np.repeat(np.arange(4), 25)])  # the images of one name, many times
    repeated = dataclasses.replace(names, labels=names.labels[often])
    once, many = names.balance(v, temperature=0.2), repeated.balance(v[often], temperature=0.2)
    np.testing.assert_allclose(many, once, atol=1e-4)
    assert np.ptp(once) > 0.1


@pytest.mark.parametrize("settings", [CLOSED, OPEN])
def test_contributions_add_up_to_what_the_predicted_name_gets(settings: SolvedSettings) -> None:
    references, some = world(), images()
    every = dataclasses.replace(settings, k=len(references), debias=0.0)
    blend = blended(references, every).blend(some)
    fitted = Fitted(references, every)
    found = fitted.similar(some.retrieval) @ fitted.weights
    near = references.search(some.retrieval, 1)
    share = fitted.added(some.embeddings, found, references.znorm.z_scores(some.retrieval, near.sims))[1]
    np.testing.assert_allclose(blend.txt.sum(axis=1), share * settings.alpha / 100 * found.max(axis=1), atol=1e-4)
    assert (blend.txt < 0).any()
    assert (np.diff(np.abs(blend.txt), axis=1) <= 0).all()
    few = blended(references, dataclasses.replace(every, k=3)).blend(some)
    np.testing.assert_array_equal(few.txt, blend.txt[:, :3])
    np.testing.assert_allclose(few.norm, blend.norm, atol=1e-6)


def test_the_target_and_the_gates_bound_what_is_added() -> None:
    references, some = world(), images()
    fitted = Fitted(references, dataclasses.replace(OPEN, floor=0.0, high=0.0))
    found = fitted.similar(some.retrieval) @ fitted.weights
    added, share = fitted.added(some.embeddings, found, np.zeros((50, 1), np.float32))
    near = (some.embeddings * (texts := fitted.names.texts[found.argmax(axis=1)])).sum(axis=1)
    cosine = (l2_normalise(some.embeddings + added) * texts).sum(axis=1)
    assert (cosine <= np.maximum(near, 0.6) + 1e-5).all()
    assert ((share < 1) & (np.abs(cosine - 0.6) < 1e-4)).any()
    gated = blended(references, dataclasses.replace(OPEN, floor=50.0))
    np.testing.assert_allclose(gated.apply(some.embeddings, gated.blend(some)), some.embeddings, atol=1e-6)
    assert (gated.blend(some).ids == -1).all()


def test_no_amount_within_the_bound_exceeds_the_target() -> None:
    rng = np.random.default_rng(0)
    v, t = (l2_normalise(rng.standard_normal((500, 8)).astype(np.float32)) for _ in range(2))
    added = rng.standard_normal((500, 8)).astype(np.float32) * 2
    factors = within_name(v, added, t, target=0.7)
    for part in (0.25, 0.5, 1.0):
        cosine = (l2_normalise(v + (part * factors)[:, None] * added) * t).sum(axis=1)
        assert (cosine <= np.maximum((v * t).sum(axis=1), 0.7) + 1e-4).all()
    assert 0.05 < (factors < 1).mean() < 0.95


def test_cross_validation_equals_fitting_without_the_left_out_images() -> None:
    # With two images per name there are two folds, one image of each name in each.
    pairs = world(2)
    names = names_of(pairs)
    for order in folded(pairs, names, OPEN)[:2]:
        similar = Fitted(pairs, OPEN).similar(pairs.retrieval_embeddings).astype(np.float64)
        best = np.inf
        for number in range(2 ** (C - 1)):  # every division of the names' images into two folds
            first = np.array([(number >> name) & 1 for name in range(C)])
            fold = np.array([(index % 2) ^ first[index // 2] for index in range(2 * C)])
            expected, unnamed = np.zeros((2 * C, C)), np.zeros((2 * C, C))
            for part in (0, 1):
                kept, left = np.flatnonzero(fold != part), np.flatnonzero(fold == part)
                matrix = similar[np.ix_(kept, kept)] + 0.1 * np.eye(len(kept))
                expected[left] = similar[np.ix_(left, kept)] @ np.linalg.solve(matrix, np.eye(C)[names.labels[kept]])
                for row in left:
                    rest = kept[names.labels[kept] != names.labels[row]]
                    matrix = similar[np.ix_(rest, rest)] + 0.1 * np.eye(len(rest))
                    unnamed[row] = similar[row, rest] @ np.linalg.solve(matrix, np.eye(C)[names.labels[rest]])
            differences = np.abs(expected - order.known).max(), np.abs(unnamed - order.unnamed).max()
            best = min(best, float(max(differences)))
        assert best < 1e-5


def test_a_saved_set_gives_the_same_embeddings_and_is_of_schema_3(tmp_path: Path) -> None:
    references, some = world(), images()
    solved = with_solved_weights(references, OPEN)
    opened = ReferenceSet.open(solved.save(tmp_path / "set"))
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert (manifest["schema"], manifest["solved"]) == (3, dataclasses.asdict(OPEN))
    assert settings_of(opened) == OPEN
    assert opened.solved_weights is not None
    np.testing.assert_array_equal(opened.solved_weights, solve(references, OPEN))
    before, after = augment(TinyEncoder(), solved), augment(TinyEncoder(), tmp_path / "set")
    assert before.fingerprint == after.fingerprint
    np.testing.assert_array_equal(
        before.apply(some.embeddings, before.blend(some)), after.apply(some.embeddings, after.blend(some))
    )
    back = opened.with_vanilla(dataclasses.asdict(VanillaSettings()))
    back.save(tmp_path / "set")
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert manifest["schema"] == 1
    assert "solved" not in manifest
    assert not list((tmp_path / "set").glob("solved-*"))


def test_changed_rows_are_solved_again(tmp_path: Path) -> None:
    solved, some = with_solved_weights(world(), OPEN), images()
    fewer = solved.take(np.arange(12))
    assert fewer.solved_weights is None
    assert settings_of(fewer) == OPEN
    fewer.save(tmp_path / "fewer")
    again = with_solved_weights(world().take(np.arange(12)), OPEN)
    encoders = [augment(TinyEncoder(), one) for one in (again, fewer, ReferenceSet.open(tmp_path / "fewer"))]
    first, *others = [one.apply(some.embeddings, one.blend(some)) for one in encoders]
    for other in others:
        np.testing.assert_array_equal(other, first)
    assert settings_of(solved.merge(fewer)) is None
    assert solved.with_znorm(None).solved_weights is None


def test_named_settings_stand_on_the_tuned_ones() -> None:
    solved = with_solved_weights(world(), OPEN)
    assert augment(TinyEncoder(), solved, k=2, target=0.0).blender.settings == dataclasses.replace(OPEN, k=2, target=0)
    assert augment(TinyEncoder(), solved, settings="paper").blender.settings == VanillaSettings()
    with pytest.raises(ConfigError, match="no setting 'w_txt'; there are alpha"):
        augment(TinyEncoder(), solved, w_txt=1.0)
    for wrong in ({"alpha": 0.0}, {"lam": -1.0}, {"high": 0.05}, {"target": 1.0}, {"k": 0}, {"power": -0.1}):
        with pytest.raises(ConfigError, match=f"solved.{next(iter(wrong))} is"):
            augment(TinyEncoder(), solved, **wrong)


def test_damaged_weights_are_named_and_can_be_made_again(tmp_path: Path) -> None:
    from impart.video.index.doctor.check import check_references
    from impart.video.index.doctor.repair import repair_references

    folder = with_solved_weights(world(), OPEN).save(tmp_path / "set")
    (file,) = folder.glob("solved-*.npy")
    content = bytearray(file.read_bytes())
    whole = augment(TinyEncoder(), folder).blend(images()).added
    content[-1] ^= 1
    for damage in (bytes(content), b"no array", None):
        file.unlink() if damage is None else file.write_bytes(damage)
        with pytest.raises(ReferenceSetError, match=r"solved-.*refset tune"):
            _ = ReferenceSet.open(folder).solved_weights
        with pytest.warns(ImpartWarning, match=r"solved again from the rows of the set: .*solved-"):
            found = augment(TinyEncoder(), folder).blend(images()).added
        np.testing.assert_array_equal(found, whole)
        (fault,) = check_set(folder)
        assert fault.derived
        repair_references(folder, check_references(folder))
        assert not check_set(folder)
        assert augment(TinyEncoder(), folder).blend(images()).added is not None


def test_texts_that_are_nearly_equal_do_not_explode() -> None:
    rng = np.random.default_rng(1)
    references = world(4)
    texts = references.text_embeddings.copy()
    texts[4:8] = l2_normalise(texts[:4] + 1e-4 * rng.standard_normal((4, D)).astype(np.float32))  # two near synonyms
    near = ReferenceSet.from_arrays(
        references.texts,
        image=references.image_embeddings,
        text=texts,
        retrieval=references.retrieval_embeddings,
        encoder_id="tiny",
        encoder_fingerprint=TinyEncoder().fingerprint,
        storage="float32",
    )
    chosen = tune(near, closed=True).settings
    assert isinstance(chosen, SolvedSettings)
    assert chosen.text_ridge > 0
    some = images()
    assert blended(near, chosen).blend(some).norm.max() < 20
    assert blended(near, dataclasses.replace(chosen, text_ridge=0.0)).blend(some).norm.max() > 100


def test_logistic_weights_are_stationary_and_shown_by_the_classifier() -> None:
    references, some = world(), images()
    settings = dataclasses.replace(LOGISTIC, alpha=2.0, debias=0.0, penalty=0.5)
    fitted, names = Fitted(references, settings), names_of(references)
    similar = fitted.similar(references.retrieval_embeddings)
    logits = 100 / 2 * references.image_embeddings @ names.texts.T + similar @ fitted.weights
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(0.5 * fitted.weights, names.one_hot - shares, atol=0.05)  # after the steps of the solver
    encoder = blended(references, settings)
    blend = encoder.blend(some)
    shown = 100 * encoder.apply(some.embeddings, blend) * blend.norm[:, None] @ names.texts.T
    expected = 100 * some.embeddings @ names.texts.T + 2 * fitted.similar(some.retrieval) @ fitted.weights
    np.testing.assert_allclose(shown, expected, atol=1e-3)


def test_logistic_cross_validation_equals_fitting_without_the_left_out_images() -> None:
    references = world(2)  # two folds of one image of each name
    names = names_of(references)
    found = list(logistic_offsets(references, names, LOGISTIC, alphas=(4.0, 20.0)))
    assert [alpha for alpha, _ in found] == [4.0, 20.0] * 4
    row = 3
    others = []
    for number in range(2**C):  # every other half of the images
        kept = np.array([2 * name + ((number >> name) & 1) for name in range(C)])
        if row in kept:
            continue
        bias = names.balance(references.image_embeddings, temperature=LOGISTIC.debias)
        matrix = Fitted(references, LOGISTIC).similar(references.retrieval_embeddings)
        zero_shot = 100 * references.image_embeddings @ names.texts.T - bias
        (weights,) = logistic_weights(
            matrix[np.ix_(kept, kept)], names.one_hot[kept], zero_shot[kept], penalty=LOGISTIC.penalty, taus=(1 / 20,)
        )
        others.append(matrix[row, kept] @ weights)
    for _, offsets in found[1::2]:
        assert np.abs(np.array(others) - offsets[row]).max(axis=1).min() < 1e-4
        assert np.abs(np.array(others) - offsets[row]).max() > 0.01


def test_a_closed_set_is_solved_by_logistic_regression_and_stored(tmp_path: Path) -> None:
    tuned = tune(world(8), closed=True)
    assert isinstance(tuned.settings, SolvedSettings)
    assert tuned.settings.penalty > 0
    assert tuned.after > tuned.before
    again = ReferenceSet.open(tuned.references.save(tmp_path / "set"))
    assert settings_of(again) == tuned.settings
    np.testing.assert_array_equal(again.solved_weights, solve(again, tuned.settings))
    some = images()
    first, second = (augment(TinyEncoder(), one) for one in (tuned.references, again))
    np.testing.assert_array_equal(
        first.apply(some.embeddings, first.blend(some)), second.apply(some.embeddings, second.blend(some))
    )


def test_in_a_closed_set_only_a_measured_loss_speaks_against_solving() -> None:
    known = world(2, known=5.0)  # the plain encoder is right: nothing can be gained
    closed, open_ = (tune(known, closed=each, background=None) for each in (True, False))
    assert closed.before == closed.after == 1
    assert isinstance(closed.settings, SolvedSettings)
    assert closed.settings.alpha == 8  # the usual one of names that the model knows
    assert isinstance(open_.settings, VanillaSettings)


@pytest.mark.parametrize("orders", [1, 4])
def test_a_small_gain_of_few_images_does_not_move_the_weight(monkeypatch: pytest.MonkeyPatch, orders: int) -> None:
    references = world(2, classes=20)  # one image of 40 is less than the distance from 20 to 5.5 costs
    right = names_of(references).one_hot

    def offsets(*_: object, alphas: Sequence[float], **__: object) -> Iterator[tuple[float, Float32]]:
        for _order in range(orders):
            for alpha in alphas:  # right at and below 5.5, and at 20 for all but one image
                wrong = np.arange(len(right)) < (0 if alpha < 6 else 1)
                yield alpha, 1000 * np.where(wrong[:, None], 1 - right, right)

    monkeypatch.setattr("impart.blending.solved.choice.logistic_offsets", offsets)
    found = choose_closed(references, whitened=True)
    assert found is not None
    assert found.settings.alpha == 22
    assert found.hits.max() <= 1


@pytest.mark.parametrize("closed", [True, False])
def test_tuning_tells_the_folds_that_are_done(closed: bool) -> None:
    references, told = world(3, classes=30), list[tuple[int, int]]()
    tuned = tune(references, closed=closed, on_progress=lambda done, total: told.append((done, total)))
    assert tuned.items == 90
    assert told == [(done, 12) for done in range(1, 13)]  # three folds in each of four orders
