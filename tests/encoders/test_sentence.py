"""`SentenceEncoder` alone, and in real pipelines that were written for sentence-transformers and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import impart
from helpers.image_sets import image
from helpers.tiny_encoder import COLOURS, TinyEncoder
from impart.encoders.base import Encoder
from impart.encoders.sentence import SentenceEncoder
from impart.errors import ConfigError, DataError
from impart.refset.refset import ReferenceSet

NAMES = ("red", "green", "blue", "yellow")


@pytest.fixture
def model(tiny: TinyEncoder) -> SentenceEncoder:
    return SentenceEncoder(tiny)


def solid(name: str) -> Image.Image:
    return Image.new("RGB", (32, 32), COLOURS[name])


def test_mixed_lists_keep_their_order_in_any_batches(model: SentenceEncoder, tiny: TinyEncoder, tmp_path: Path) -> None:
    mixed = ["red", solid("green"), image(tmp_path / "blue.png", "blue"), "yellow", np.asarray(solid("red"))]
    vectors = model.encode(mixed)
    assert (vectors.shape, vectors.dtype) == ((5, 16), np.float32)
    expected = [
        tiny.encode_texts(["red"])[0],
        tiny.encode_images([solid("green")]).embeddings[0],
        tiny.encode_images([solid("blue")]).embeddings[0],
        tiny.encode_texts(["yellow"])[0],
        tiny.encode_images([solid("red")]).embeddings[0],
    ]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(model.encode(mixed, batch_size=2), vectors, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_one_input_gives_one_vector_and_a_text_is_never_a_path(model: SentenceEncoder, tmp_path: Path) -> None:
    file = image(tmp_path / "x.png", "blue")
    for one in ("red", file, solid("red"), np.asarray(solid("red"))):
        assert model.encode(one).shape == (16,)
    assert not np.allclose(model.encode(str(file)), model.encode(file))
    assert model.encode(["red"]).shape == (1, 16)
    assert model.encode([]).shape == (0, 16)
    assert model.encode(np.array(["red", "blue"])).shape == (2, 16)
    np.testing.assert_array_equal(model.encode(sentences="red"), model.encode("red"))
    np.testing.assert_array_equal(model.encode("sky", prompt="blue "), model.encode("blue sky"))


def test_what_an_encoder_cannot_do_is_refused(model: SentenceEncoder, tmp_path: Path) -> None:
    refused = [
        {"output_value": "token_embeddings"},
        {"precision": "int8"},
        {"device": "cuda"},
        {"truncate_dim": 8},
        {"prompt_name": "query"},
        {"batch_size": 0},
    ]
    for keywords in refused:
        with pytest.raises(ConfigError, match=next(iter(keywords))):
            model.encode("red", **keywords)
    with pytest.raises(ConfigError, match="dict"):
        model.encode({"text": "red"})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="texts or images"):
        model.encode()
    with pytest.raises(DataError, match=r"missing\.png"):
        model.encode(tmp_path / "missing.png")


def test_tensors(model: SentenceEncoder) -> None:
    torch = pytest.importorskip("torch")
    tensor = model.encode(["red", "blue"], convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert tensor.shape == (2, 16)
    rows = model.encode(["red", "blue"], convert_to_numpy=False)
    assert isinstance(rows, list)
    assert all(isinstance(row, torch.Tensor) for row in rows)
    similarity = model.similarity(tensor, tensor)
    assert isinstance(similarity, torch.Tensor)
    np.testing.assert_allclose(similarity.numpy(), model.similarity(tensor.numpy(), tensor.numpy()), atol=1e-6)


def test_similarity_is_the_cosine_of_any_rows(model: SentenceEncoder) -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 16)), rng.normal(size=(3, 16))
    naive = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in second] for a in first]
    np.testing.assert_allclose(model.similarity(first, second), naive)
    np.testing.assert_allclose(model.similarity_pairwise(first, second), np.diag(naive))
    assert model.similarity(first[0], second).shape == (1, 3)


def test_an_augmented_encoder_is_one_as_well(tiny: TinyEncoder, tmp_path: Path) -> None:
    for name in NAMES:
        image(tmp_path / "set" / name / "a.png", name)
    augmented = impart.augment(tiny, ReferenceSet.build(tmp_path / "set", tiny), k=1, w_txt=1.0)
    assert isinstance(augmented, Encoder)
    vectors = SentenceEncoder(augmented).encode([solid("red"), "red"])
    np.testing.assert_allclose(vectors[0], augmented.encode_images([solid("red")]).embeddings[0], atol=1e-6)
    assert not np.allclose(vectors[0], tiny.encode_images([solid("red")]).embeddings[0])


def test_utilities_of_sentence_transformers(model: SentenceEncoder) -> None:
    util = pytest.importorskip("sentence_transformers.util")
    images = [solid(name) for name in NAMES]
    corpus, queries = model.encode(images), model.encode(list(NAMES), convert_to_tensor=True)
    found = util.semantic_search(queries, corpus, top_k=1)
    assert [hits[0]["corpus_id"] for hits in found] == [0, 1, 2, 3]
    twice = model.encode([*images, *images], convert_to_tensor=True)
    groups = util.community_detection(twice, min_community_size=2, threshold=0.99)
    assert sorted(sorted(group) for group in groups) == [[0, 4], [1, 5], [2, 6], [3, 7]]


def test_the_retrieval_evaluator_of_sentence_transformers(model: SentenceEncoder, tmp_path: Path) -> None:
    evaluation = pytest.importorskip("sentence_transformers.evaluation")
    evaluator = evaluation.InformationRetrievalEvaluator(
        queries={name: name for name in NAMES},
        corpus={f"d-{name}": f"a wall in {name}" for name in NAMES},
        relevant_docs={name: {f"d-{name}"} for name in NAMES},
        accuracy_at_k=[1],
        precision_recall_at_k=[1],
        ndcg_at_k=[3],
        mrr_at_k=[3],
        map_at_k=[3],
        name="walls",
    )
    results = evaluator(model)
    assert results["walls_cosine_accuracy@1"] == 1.0
    assert results["walls_cosine_ndcg@3"] == 1.0


def test_a_pipeline_of_scikit_learn(model: SentenceEncoder) -> None:
    pytest.importorskip("sklearn")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    pipeline = make_pipeline(FunctionTransformer(model.encode), LogisticRegression(C=100))
    pipeline.fit([solid(name) for name in NAMES], list(NAMES))
    assert list(pipeline.predict([solid("blue"), "yellow"])) == ["blue", "yellow"]


def test_a_table_of_lancedb_with_its_registry(tmp_path: Path) -> None:
    import lancedb
    from lancedb.embeddings import EmbeddingFunction, EmbeddingFunctionRegistry, register
    from lancedb.pydantic import LanceModel, Vector

    @register("impart-test")
    class Impart(EmbeddingFunction):
        def compute_source_embeddings(self, texts, *args, **kwargs):  # type: ignore[no-untyped-def]
            return list(SentenceEncoder(TinyEncoder()).encode([*self.sanitize_input(texts)]))

        compute_query_embeddings = compute_source_embeddings

        def ndims(self) -> int:
            return 16

    function = EmbeddingFunctionRegistry.get_instance().get("impart-test").create()

    class Wall(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    table = lancedb.connect(tmp_path).create_table("walls", schema=Wall)
    table.add([{"text": f"a {name} wall"} for name in NAMES])
    assert table.search("something blue").limit(1).to_list()[0]["text"] == "a blue wall"
