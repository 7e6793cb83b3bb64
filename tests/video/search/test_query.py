"""Texts that the model does not read: a warning names the text."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from helpers.clips import write_clip
from helpers.tiny_onnx import write_tokenizer
from impart.config import SearchSettings
from impart.encoders.base import Encoder, load_encoder
from impart.encoders.paired import PairedEncoder
from impart.encoders.tokens import TextTokenizer
from impart.errors import ImpartWarning, QueryError
from impart.video.search.query import Query, Term, combine, parse_expression, query_vectors


@pytest.fixture(scope="module")
def mini() -> Encoder:
    return load_encoder("mini", threads=1)


def told(encoder: Encoder, *queries: Query) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        query_vectors(queries, encoder, SearchSettings(), fit="squash")
    return [str(one.message) for one in caught if issubclass(one.category, ImpartWarning)]


@pytest.mark.parametrize("text", ["🦄", "🦄 🐉", "ქართული"])
def test_a_query_without_a_known_word(mini: Encoder, text: str) -> None:
    (message,) = told(mini, Query(text=text))
    assert f"the query {text!r} has no word that the model knows" in message


@pytest.mark.parametrize("text", ["a dog " * 200, "a " * 125 + "dog"])
def test_a_query_that_is_cut(mini: Encoder, text: str) -> None:
    (message,) = told(mini, Query(text=text))
    assert "is longer than the 128 tokens" in message
    assert len(message) < 200


@pytest.mark.parametrize("text", ["qwzx blorft", "jklö", "a qwzx", "Hund", "собака"])
def test_a_query_that_is_read_in_letters(mini: Encoder, text: str) -> None:
    (message,) = told(mini, Query(text=text))
    assert f"the query {text!r} has no word of the model's vocabulary" in message


def test_a_query_of_punctuation(mini: Encoder) -> None:
    (message,) = told(mini, Query(text="?!"))
    assert "punctuation only" in message


@pytest.mark.parametrize(
    "text", ["snowboarder", "xylophone", "Pikachu", "the qwzx", "2024", "u2", "犬", "a black pug", "don't"]
)
def test_rare_words_are_not_mentioned(mini: Encoder, text: str) -> None:
    assert told(mini, Query(text=text)) == []


def test_ordinary_queries_are_not_mentioned_and_negative_terms_are(mini: Encoder) -> None:
    assert told(mini, Query(text="a dog"), Query(text="a 🦄 in a wood"), Query(text="chien dans la forêt")) == []
    (message,) = told(mini, Query(text="a dog", not_text=["🦄"]))
    assert "🦄" in message


def test_an_encoder_made_of_another_has_its_tokenizer(mini: Encoder) -> None:
    assert told(PairedEncoder(mini, mini, encoder_id="paired:x"), Query(text="🦄"))


def test_the_limit_of_any_tokenizer(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = TextTokenizer.from_folder(tmp_path, context_tokens=4, clean="whitespace")
    words = [word for word in tokenizer.tokenizer.get_vocab() if not word.startswith("<")][:3]
    assert tokenizer.remark(words[0]) == ""
    assert "4 tokens" in tokenizer.remark(" ".join(words))
    assert "no word" in tokenizer.remark("unheard")
    assert tokenizer.remark(f"unheard {words[0]}") == ""


def test_the_command_prints_it_on_stderr(tmp_path: Path) -> None:
    write_clip(tmp_path / "red.mp4")
    index = "from impart.video.index.index import VideoIndex as V; list(V.open('x').add(['.']))"
    subprocess.run([sys.executable, "-c", index], cwd=tmp_path, check=True)
    command = [sys.executable, "-m", "impart", "search", "🦄", "-i", "x", "-f", "json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("warning: the query '🦄' has no word")
    assert "warning" not in done.stdout


@pytest.mark.parametrize(
    ("expression", "terms"),
    [
        ("a red car", [("a red car", None, 1)]),
        (
            "2*a red car + at night - 0.5*people",
            [("a red car", None, 2), ("at night", None, 1), ("people", None, -0.5)],
        ),
        ("2 * a dog  -  rain", [("a dog", None, 2), ("rain", None, -1)]),
        ("- rain + a dog", [("rain", None, -1), ("a dog", None, 1)]),
        ("a well-known C++ book + 2 dogs", [("a well-known C++ book", None, 1), ("2 dogs", None, 1)]),
        ('.5*"black + white - grey" + sea', [("black + white - grey", None, 0.5), ("sea", None, 1)]),
        ('a dog + 0.3*image:"my dog - 1.jpg"', [("a dog", None, 1), (None, "my dog - 1.jpg", 0.3)]),
        ("image:a.jpg - 2.*rain", [(None, "a.jpg", 1), ("rain", None, -2)]),
    ],
)
def test_an_expression(expression: str, terms: list[tuple[str | None, str | None, float]]) -> None:
    assert [(term.text, term.image, term.weight) for term in parse_expression(expression)] == terms


@pytest.mark.parametrize(
    "expression", ["", "  ", "a +", "a + + b", "2*", 'a + "b', "a + image:", '"a" b', "+", "a - 3*"]
)
def test_an_expression_that_cannot_be_read_shows_the_form(expression: str) -> None:
    with pytest.raises(QueryError, match=r"such as 2\*a red car"):
        parse_expression(expression)


def test_weights_of_a_query() -> None:
    a, b, c = np.eye(3, dtype=np.float32)
    vectors = np.stack([a, b, c])
    naive = (2 * a + b) / np.linalg.norm(2 * a + b)
    want = naive - 0.5 * c
    np.testing.assert_allclose(combine(vectors, [2, 1, -0.5]), want / np.linalg.norm(want), atol=1e-6)
    np.testing.assert_allclose(combine(vectors, [4, 2, -0.5]), combine(vectors, [2, 1, -0.5]), atol=1e-6)


def test_the_simple_form_is_the_same_as_terms(mini: Encoder) -> None:
    simple = Query(text="a dog", not_text=["rain", "snow"])
    terms = [Term(text="a dog"), Term(text="rain", weight=-0.25), Term(text="snow", weight=-0.25)]
    vectors = query_vectors([simple, Query(terms=terms), Query(text="a dog")], mini, SearchSettings(), fit="squash")
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert vectors[0] @ vectors[2] < 0.999


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Term(), "text or an image"),
        (lambda: Term(text="a", image="b.jpg"), "text or an image"),
        (lambda: Term(text="a", weight=0), "other than 0"),
        (lambda: Term(text="a", weight=float("nan")), "other than 0"),
        (lambda: Query(terms=[Term(text="a", weight=-1)]), "negative terms alone"),
        (lambda: Query(not_text=["a"]), "negative terms alone"),
        (lambda: Query(text=" "), "is empty"),
        (lambda: Query(terms=[Term(text=" ")]), "is empty"),
        (lambda: Query(text="a", within_s=-1), "0 seconds or more"),
        (lambda: Query(text="a", also=Query(text="b", then=Query(text="c"))), "no sequence of its own"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(QueryError, match=told):
        make()


def test_parts_of_a_sequence_in_the_order_of_time() -> None:
    query = Query(text="a", also=Query(text="b"), then=Query(text="c", then=Query(text="d", also=Query(text="e"))))
    assert [part.text for part in query.parts()] == ["a", "b", "c", "d", "e"]
    assert [step.text for step in query.steps()] == ["a", "c", "d"]
    assert query.joined
    assert not Query(text="a").joined
