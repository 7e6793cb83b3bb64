"""Artefacts written by version 0.1.0 open and give the hits they gave then.

`golden/made_by_0.1.0.tar.gz` holds a video index (three drawn clips, encoder `mini`), the reference set it uses (four
made-up names, three images each), and a query image. `golden/expected.json` holds what 0.1.0 found in them.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import impart
from impart.cli.main import app

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text(encoding="utf-8"))
SEARCHES = EXPECTED["searches"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "made_by_0.1.0.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    shutil.copytree(folder / "golden.impart", folder / "without_cache.impart")
    shutil.rmtree(folder / "without_cache.impart" / "cache")
    return folder


@pytest.mark.parametrize("index", ["golden.impart", "without_cache.impart"])
@pytest.mark.parametrize("expected", SEARCHES, ids=[" ".join(search["arguments"]) for search in SEARCHES])
def test_an_index_of_0_1_0_gives_the_same_hits(
    expected: dict[str, Any], index: str, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(written)
    arguments = [*_named_now(expected["arguments"]), "--index", index, "--format", "json", "--no-fold"]
    why = ["--why"] if any("why" in hit for hit in expected["hits"]) else []
    answer = CliRunner().invoke(app, [*arguments, *why])
    assert answer.exit_code == 0, answer.output
    hits = json.loads(answer.stdout)["hits"]
    assert [Path(hit["path"]).name for hit in hits] == [Path(hit["path"]).name for hit in expected["hits"]]
    for hit, old in zip(hits, expected["hits"], strict=True):  # a hit of a video was its best segment, now a span
        assert hit["start_s"] <= old["start_s"] < old["end_s"] <= hit["end_s"]
        if "--by" not in arguments or "frame" in arguments:
            assert (hit["start_s"], hit["end_s"]) == (old["start_s"], old["end_s"])
    assert [hit["score"] for hit in hits] == pytest.approx([hit["score"] for hit in expected["hits"]], abs=2e-3)
    reasons = [[reason["text"] for reason in hit.get("why", [])] for hit in hits]
    assert reasons == [[reason["text"] for reason in hit.get("why", [])] for hit in expected["hits"]]


def test_a_reference_set_of_0_1_0_blends_as_it_did(written: Path) -> None:
    expected = EXPECTED["reference_set"]
    references = impart.ReferenceSet.open(written / "golden.refset")
    assert (len(references), references.fingerprint) == (expected["pairs"], expected["fingerprint"])
    encoder = impart.load_encoder("mini")
    augmented = impart.augment(encoder, references)
    assert augmented.fingerprint == expected["augmented_fingerprint"]
    query = [Image.open(written / "query.png")]
    plain = encoder.encode_images(query)
    nearest = references.search(plain.retrieval, 4)
    assert [references.texts[row] for row in nearest.ids[0]] == expected["nearest_texts"]
    blended = augmented.encode_images(query).embeddings[0]
    assert blended @ np.array(expected["blended"]) == pytest.approx(1, abs=1e-3)
    assert blended @ plain.embeddings[0] == pytest.approx(expected["cosine_moved"], abs=2e-3)


def _named_now(arguments: list[str]) -> list[str]:
    """Name the ranking of 0.1.0: the default was `--by mean`, and `--by moment` is now `--by frame`."""
    if "--by" in arguments:
        return ["frame" if argument == "moment" else argument for argument in arguments]
    return arguments if "--group" in arguments or arguments[0] == "similar" else [*arguments, "--by", "mean"]
