"""Blender of a RAM of form `solved`, without torch: what it reads of a set, and closed and open sets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from impart.blending import ram_solved
from impart.blending.few_shot.logistic import Constants, KernelLogistic, choose_temperature
from impart.blending.few_shot.support import LOGIT_SCALE, dual_texts
from impart.blending.ram_solved import SolvedRam, learned_ram, support_of
from impart.config import RamSettings, VanillaSettings
from impart.encoders.base import Float32, ImageEmbeddings, l2_normalise
from impart.errors import ReferenceSetError
from impart.refset.refset import ReferenceSet

CONSTANTS = Constants(beta=1.0, ridge=0.05, alpha=80.0, penalty=0.05, temperature=0.1, share=1.0)


def ram(monkeypatch: pytest.MonkeyPatch) -> SolvedRam:
    monkeypatch.setattr(ram_solved, "constants_of", lambda *_, **__: CONSTANTS)
    monkeypatch.setattr(SolvedRam, "_session", None)
    made = learned_ram(
        Path("ram.onnx"), RamSettings(form="solved", k=3), encoder_id="tiny", encoder_fingerprint="0" * 64
    )
    assert isinstance(made, SolvedRam)
    return made


def images(per_class: int, seed: int) -> tuple[Float32, Float32, list[str]]:
    rng, own = np.random.default_rng(0), np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), per_class)
    retrieval = rng.standard_normal((6, 16))[labels] + own.standard_normal((len(labels), 16))
    image = own.standard_normal((len(labels), 24))
    return *(l2_normalise(array.astype(np.float32)) for array in (image, retrieval)), [f"thing {n}" for n in labels]


def a_set(per_class: int = 4) -> ReferenceSet:
    image, retrieval, names = images(per_class, 1)
    texts = dict(zip(sorted(set(names)), np.random.default_rng(2).standard_normal((6, 24)), strict=True))
    return ReferenceSet.from_arrays(
        names,
        image=image,
        text=l2_normalise(np.stack([texts[name] for name in names]).astype(np.float32)),
        retrieval=retrieval,
        encoder_id="tiny",
        encoder_fingerprint="0" * 64,
        name="things",
        meta={"hash": [str(n) for n in range(len(names))]},
    )


def added(blender: SolvedRam, references: ReferenceSet, z_score: float) -> tuple[Float32, Float32]:
    v, q, _ = images(2, 3)
    neighbours = references.search(q, blender.k)
    z_scores = np.full(neighbours.sims.shape, z_score, np.float32)
    found = blender.amounts(ImageEmbeddings(v, q), neighbours, z_scores, references)
    assert found.added is not None
    return found.added, found.txt


@pytest.mark.parametrize("closed", [True, False])
def test_the_temperature_is_chosen_on_closed_sets_alone(monkeypatch: pytest.MonkeyPatch, closed: bool) -> None:
    settings = VanillaSettings(k=3, w_img=0.0, w_txt=0.5, floor=0.0 if closed else 4.0, ramp=3.0)
    references = a_set().with_vanilla(dataclasses.asdict(settings))
    own, _ = support_of(references)
    constants = choose_temperature(own, CONSTANTS) if closed else CONSTANTS
    assert (choose_temperature(own, CONSTANTS) != CONSTANTS) is True
    v, q, _ = images(2, 3)
    expected = KernelLogistic(own, constants).offsets(ImageEmbeddings(v, q)) / LOGIT_SCALE @ dual_texts(own.texts)
    np.testing.assert_allclose(added(ram(monkeypatch), references, 9.0)[0], expected, atol=1e-4)


def test_the_gate_of_a_tuned_set_holds_and_neighbours_explain_with_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = VanillaSettings(k=3, w_img=0.0, w_txt=0.5, floor=4.0, ramp=3.0)
    references = a_set().with_vanilla(dataclasses.asdict(settings))
    blender = ram(monkeypatch)
    near, shares = added(blender, references, 9.0)
    far, none = added(blender, references, 1.0)
    assert np.abs(near).max() > 0.05
    assert not far.any()
    assert not none.any()
    assert (shares > 0).mean() > 0.9  # of the neighbour's own text


def test_another_set_is_solved_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    blender, small = ram(monkeypatch), a_set(2)
    first = added(blender, small, 9.0)[0]
    other = added(blender, a_set(4), 9.0)[0]
    assert np.abs(first - other).max() > 0.01
    np.testing.assert_array_equal(added(blender, small, 9.0)[0], first)


def test_images_of_a_set_are_read_once_and_named_by_their_text() -> None:
    rng = np.random.default_rng(0)
    image, text, retrieval = (l2_normalise(rng.standard_normal((5, n)).astype(np.float32)) for n in (6, 6, 4))
    made = ReferenceSet.from_arrays(
        ["a cat", "two words", "Cat", "dog", "dog"],
        image=image,
        text=text,
        retrieval=retrieval,
        encoder_id="tiny",
        encoder_fingerprint="0" * 64,
        name="five",
        meta={"hash": ["x", "x", "y", "z", "w"]},  # two texts of one image
    )
    own, number = support_of(made)
    assert own.labels.tolist() == [0, 0, 1, 1]
    mean = l2_normalise(text[[0, 3]] + text[[2, 4]])  # of the rows of one name, each image once
    np.testing.assert_allclose(own.texts, mean, atol=1e-3)  # stored as float16
    assert number.tolist() == [0, 0, 1, 2, 3]


def test_a_set_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impart.blending.ram_solved.LARGEST", 1)
    made = ReferenceSet.from_arrays(
        ["a", "b"],
        image=np.eye(2, 6, dtype=np.float32),
        text=np.eye(2, 6, dtype=np.float32),
        retrieval=np.eye(2, 4, dtype=np.float32),
        encoder_id="tiny",
        encoder_fingerprint="0" * 64,
        name="two",
    )
    with pytest.raises(ReferenceSetError, match=r"has 2 images; a RAM of form solved serves up to 1: take a part"):
        support_of(made)
