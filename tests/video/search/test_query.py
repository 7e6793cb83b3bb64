"""Texts that the model does not read: a warning names the text."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from helpers.clips import write_clip
from helpers.tiny_onnx import write_tokenizer
from impart.config import SearchSettings
from impart.encoders.base import Encoder, load_encoder
from impart.encoders.paired import PairedEncoder
from impart.encoders.tokens import TextTokenizer
from impart.errors import ImpartWarning
from impart.video.search.query import Query, query_vectors


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
