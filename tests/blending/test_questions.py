"""Leave-one-out questions: their choice, and answers against a naive loop."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.tiny_encoder import TinyEncoder
from impart.blending.questions import ENOUGH, leave_one_out, own_questions
from impart.config import VanillaSettings
from impart.encoders.base import l2_normalise
from impart.refset.refset import ReferenceSet

D, R = 12, 6


def make(texts: list[str], *, hashes: list[str] | None = None, seed: int = 0) -> ReferenceSet:
    """Make a set with random embeddings; equal hashes have equal image embeddings."""
    rng = np.random.default_rng(seed)
    hashes = hashes or [f"image {i}" for i in range(len(texts))]
    image_of = {digest: l2_normalise(rng.standard_normal((1, D + R))) for digest in hashes}
    vectors = np.concatenate([image_of[digest] for digest in hashes])
    return ReferenceSet.from_arrays(
        texts,
        image=l2_normalise(vectors[:, :D]),
        text=l2_normalise(rng.standard_normal((len(texts), D))),
        retrieval=l2_normalise(vectors[:, D:]),
        encoder_id="tiny",
        encoder_fingerprint=TinyEncoder().fingerprint,
        storage="float32",
        meta={"hash": hashes},
    )


def test_images_that_share_their_text_are_classified() -> None:
    texts = ["A fox", "the fox", "owl"] * ENOUGH + ["elk"]
    own = own_questions(make(texts))
    assert own.rows.tolist() == list(range(3 * ENOUGH))
    assert [texts[row] for row in own.texts] == ["A fox", "owl"]
    assert own.right.tolist() == [0, 0, 1] * ENOUGH
    assert own.checks_itself


def test_names_without_a_second_image_do_not_check_a_set_but_captions_do() -> None:
    names = [f"name {i}" for i in range(30)]
    assert not own_questions(make(names)).checks_itself
    captions = [f"a caption of more than five words {i}" for i in range(30)]
    assert own_questions(make(captions)).checks_itself
    assert len(own_questions(make(captions)).texts) == 30


def test_captions_of_one_image_are_one_question() -> None:
    hashes = [f"image {i // 5}" for i in range(50)]
    assert own_questions(make([f"caption {i}" for i in range(50)], hashes=hashes)).rows.tolist() == list(
        range(0, 50, 5)
    )


def test_large_sets_are_sampled_by_whole_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impart.blending.questions._MAX_QUESTIONS", 12)
    references = make([f"name {i // 4}" for i in range(80)])
    own = own_questions(references, seed=3)
    assert len(own.rows) == 12
    assert sorted(np.bincount(own.right).tolist()) == [4, 4, 4]
    assert own.rows.tolist() == own_questions(references, seed=3).rows.tolist()
    assert own.rows.tolist() != own_questions(references, seed=4).rows.tolist()


def test_hits_equal_a_naive_loop_without_the_own_image() -> None:
    texts = [f"name {i % 10}" for i in range(60)]
    references = make(texts, hashes=[f"image {i // 2}" for i in range(60)])
    own, settings = leave_one_out(references, 5), VanillaSettings(k=3, w_img=0.4, w_txt=2.0)
    chosen = own_questions(references)
    image, text = references.image_embeddings, references.text_embeddings
    want = []
    for row, right in zip(chosen.rows, chosen.right, strict=True):
        sims = references.retrieval_embeddings @ references.retrieval_embeddings[row]
        sims[references.images == references.images[row]] = -2
        nearest = sorted(range(60), key=lambda i: (-sims[i].round(6), i))[:3]
        total = image[row] + 0.4 * image[nearest].mean(axis=0) + 2.0 * text[nearest].mean(axis=0)
        want.append(float((text[chosen.texts] @ total).argmax() == right))
    assert own.hits(settings).tolist() == want
    assert 0 < sum(want) < len(want)
