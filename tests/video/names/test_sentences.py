"""Taught names are found in sentences, and what remains is the context."""

from __future__ import annotations

import numpy as np
import pytest

from impart.video.names.scores import context_fit, group_averages, named_scores
from impart.video.names.sentences import Sentence, named_query, read_sentence
from impart.video.search.query import Query, Term

NAMES = ["Rex", "Rex Junior", "Anna", "Rose", "bonsai", "Uncle Joe", "O'Brien", "小明", "Zoë"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Rex on a beach", ("Rex",)),
        ("REX ON A BEACH", ("Rex",)),
        ("a man walks with rex.", ("Rex",)),
        ("Rex's ball", ("Rex",)),
        ("Rex’s ball", ("Rex",)),
        ("the toys of Rex", ("Rex",)),
        ("Rex Junior swims", ("Rex Junior",)),
        ("Rex Junior, Rex & Anna in a car", ("Rex Junior", "Rex", "Anna")),
        ("Anna and Anna", ("Anna",)),
        ("uncle   joe\nwith a suitcase", ("Uncle Joe",)),
        ("O'Brien's dog", ("O'Brien",)),
        ("Zoe\u0308 dances", ("Zoë",)),
        ("小明在海边", ("小明",)),
        ("a T-Rex", ()),
        ("Rex-like", ()),
        ("Rexford, Annabel and bonsais", ()),
        ("uncle Sam, Joe", ()),
        ("a dog on a beach", ()),
    ],
)
def test_names_are_whole_words_in_any_case_the_longest_first(text: str, names: tuple[str, ...]) -> None:
    assert read_sentence(text, NAMES).names == names


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        ("a rose in a vase", False),
        ("a red rose in a vase", False),
        ("her rose", False),
        ("it rose above the sea", False),
        ("a Rose in a vase", True),
        ("rose in a garden", True),
        ("the dog rose", True),  # "the dog rex" is said as well
        ("a photo of rose", True),
        ("a, rose", True),
    ],
)
def test_a_name_that_is_also_a_word_is_a_word_behind_an_article_and_without_capital(text: str, is_name: bool) -> None:
    assert (read_sentence(text, NAMES).names == ("Rose",)) is is_name


def test_a_name_taught_without_a_capital_is_always_the_name() -> None:
    assert read_sentence("a bonsai on a table", NAMES) == Sentence(
        names=("bonsai",), contexts=("on a table", "someone on a table")
    )


@pytest.mark.parametrize(
    ("text", "contexts"),
    [
        ("Rex on a beach", ("on a beach", "someone on a beach")),
        ("Rex and Anna on a beach", ("on a beach", "someone on a beach")),
        ("a man with Rex", ("a man", "a man with someone")),
        ("a cat and Rex", ("a cat", "a cat and someone")),
        ("the Uncle Joe at night", ("at night", "someone at night")),
        ("Rex's ball", ("ball", "someone's ball")),
    ],
)
def test_the_context_is_the_rest_without_the_name_and_with_someone(text: str, contexts: tuple[str, ...]) -> None:
    assert read_sentence(text, NAMES).contexts == contexts


@pytest.mark.parametrize(
    "text", ["Rex", "rex.", "Rex and Anna", "a photo of Rex", "photos of Rex", "where is Rex?", "all scenes with Rex"]
)
def test_a_name_alone_has_no_context(text: str) -> None:
    found = read_sentence(text, NAMES)
    assert found.names
    assert found.contexts == ()


def test_without_names_nothing_is_found() -> None:
    assert read_sentence("Rex on a beach", []) == Sentence(names=(), contexts=())
    assert named_query(Query(text="Rex on a beach"), [], negative_weight=0.75) is None
    assert named_query(Query(text="a dog on a beach"), NAMES, negative_weight=0.75) is None


def test_terms_keep_their_weights() -> None:
    query = Query(text="Rex on a beach", terms=[Term(text="at night", weight=2), Term(text="rain", weight=-0.5)])
    found = named_query(query, NAMES, negative_weight=0.75)
    assert found is not None
    assert found.context is not None
    assert found.present == ("Rex",)
    assert [(term.text, term.weight) for term in found.context.terms] == [
        ("on a beach", 0.5),
        ("someone on a beach", 0.5),
        ("at night", 2),
        ("rain", -0.5),
    ]


def test_an_unwanted_name_is_absent_and_an_unwanted_sentence_is_not_changed() -> None:
    found = named_query(Query(text="a beach", not_text=["Rex", "Anna asleep"]), NAMES, negative_weight=0.75)
    assert found is not None
    assert found.context is not None
    assert (found.present, found.absent) == ((), ("Rex",))
    assert [(term.text, term.weight) for term in found.context.terms] == [("a beach", 1.0), ("Anna asleep", -0.375)]


def test_a_name_without_something_compares_with_someone() -> None:
    found = named_query(Query(text="Rex", not_text=["snow"]), NAMES, negative_weight=0.75)
    assert found is not None
    assert found.context is not None
    assert [(term.text, term.weight) for term in found.context.terms] == [("snow", -0.75), ("someone", 1.0)]


def test_the_score_is_high_only_where_name_and_context_meet() -> None:
    n = 40
    rex, beach = np.zeros(n, np.float32), np.full(n, 0.1, np.float32)
    rex[:4] = 1.0
    beach[3:6] = 0.4  # the name on the beach is frame 3; 4 and 5 are the beach without it
    scores = named_scores(context_fit(beach, np.ones(n, int)), [rex], count=n)
    assert scores.argmax() == 3
    assert (scores[4:] == 0).all()
    assert scores[3] > 5 * scores[:3].max()
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_several_names_multiply_and_an_absent_one_excludes() -> None:
    rex, anna = np.float32([1, 1, 0, 0.5]), np.float32([1, 0, 1, 0.5])
    assert named_scores(None, [rex, anna], count=4).tolist() == [1, 0, 0, 0.25]
    assert named_scores(None, [rex], [anna], count=4).tolist() == [0, 1, 0, 0.25]


def test_the_context_is_standardised_over_the_frames_that_segments_stand_for() -> None:
    context, weight = np.float32([0.1, 0.3, 0.2, 0.5]), np.array([3, 1, 2, 1])
    once = context_fit(context, weight)
    assert np.allclose(once, context_fit(np.repeat(context, weight), np.ones(7, int))[[0, 3, 4, 6]])
    assert np.allclose(once, context_fit(10 * context - 3, weight), atol=1e-6)  # of any encoder
    assert np.isfinite(context_fit(np.full(3, 0.2, np.float32), np.ones(3, int))).all()


def test_averages_of_groups_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    values, weight = rng.random(9).astype(np.float32), rng.integers(1, 5, 9)
    parts = [slice(0, 2), slice(2, 3), slice(3, 9)]
    expected = [np.average(values[part], weights=weight[part]) for part in parts]
    assert np.allclose(group_averages(values, weight, np.array([0, 2, 3])), expected)
