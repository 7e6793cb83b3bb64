"""JSON files of models: entries of another type are named with their file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_onnx import write_tokenizer
from impart.encoders.tokens import _ENTRIES, TextTokenizer, read_json
from impart.errors import EncoderError


def nested(key: str, value: Any) -> dict[str, Any]:
    first, _, rest = key.partition(".")
    return {first: nested(rest, value) if rest else value}


@pytest.mark.parametrize(("file", "key"), [(file, key) for file, entries in _ENTRIES.items() for key in entries])
@pytest.mark.parametrize("value", ["many", True, 5, [[]], {"a": []}, float("nan")], ids=str)
def test_an_entry_of_another_type(tmp_path: Path, file: str, key: str, value: Any) -> None:
    path = tmp_path / file
    path.write_text(json.dumps(nested(key, value)))
    alternatives = str(_ENTRIES[file][key]).replace("<class '", "").replace("'>", "").split(" | ")
    fits = {"str": isinstance(value, str), "bool": value is True, "int": value == 5 and value is not True}
    fits |= {"float": fits["int"], "dict[str, typing.Any]": isinstance(value, dict)}
    if any(fits.get(kind, False) for kind in alternatives):
        assert read_json(path)
        return
    with pytest.raises(EncoderError, match=rf"{file}: {key} is .*, but must be .*fetch or export the model again"):
        read_json(path)


@pytest.mark.parametrize("content", [b"[1]", b"5", b"", b"{", b"[" * 100_000, '{"a": "ü"}'.encode("utf-16")])
def test_a_file_that_is_no_object(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"model\.json"):
        read_json(path)


def test_null_and_other_entries_are_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"embed_dim": null, "text_cfg": {"context_length": null}, "something": [1]}')
    assert read_json(path)["something"] == [1]


@pytest.mark.parametrize("context_tokens", [0, -1])
def test_a_context_without_tokens(tmp_path: Path, context_tokens: int) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(EncoderError, match="too short"):
        TextTokenizer.from_folder(tmp_path, context_tokens=context_tokens, clean="lower")
