"""The names that callers rely on (README.md, "As a library"): adding one is a decision, losing one breaks people."""

from __future__ import annotations

import inspect
import subprocess
import sys

import impart

PUBLIC = {
    "AugmentedEncoder",
    "Encoder",
    "ImpartError",
    "ReferenceSet",
    "VideoIndex",
    "augment",
    "evaluate",
    "load_encoder",
}


def test_public_names_are_locked() -> None:
    assert set(impart.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(impart, name) is not None


def test_augment_stays_the_function_after_its_modules_are_imported() -> None:
    code = (
        "import impart.blending.encoder, impart.blending.tune, impart\n"
        "assert callable(impart.augment), impart.augment\n"
        "from impart.blending.encoder import augment\n"
        "assert impart.augment is augment\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_signatures_of_the_few_nouns() -> None:
    def names(function: object) -> list[str]:
        return list(inspect.signature(function).parameters)  # type: ignore[arg-type]

    assert names(impart.load_encoder)[0] == "model_id"
    assert names(impart.augment)[:3] == ["encoder", "references", "k"]
    assert names(impart.VideoIndex.open)[:2] == ["path", "encoder"]
    assert names(impart.VideoIndex.add)[1] == "paths"
    assert {"text", "image", "not_text", "top", "group", "why"} <= set(names(impart.VideoIndex.search))
    assert names(impart.ReferenceSet.open)[0] == "path"
    assert names(impart.ReferenceSet.build)[:2] == ["pairs", "encoder"]
    assert names(impart.evaluate.zeroshot)[:2] == ["encoder", "dataset"]


def test_importing_impart_loads_nothing_heavy() -> None:
    code = (
        "import sys, impart\n"
        "heavy = {'numpy', 'torch', 'lancedb', 'onnxruntime', 'av', 'faiss', 'pyarrow', 'rich', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
