"""Public names are locked: adding one is a decision, and losing one breaks the callers of README.md, "As a library"."""

from __future__ import annotations

import inspect
import subprocess
import sys

import impart

PUBLIC = {
    "AugmentedEncoder",
    "Client",
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
    assert set(dir(impart)) >= PUBLIC
    assert not hasattr(impart, "no_such_name")


def test_augment_is_the_function_and_its_module_imports_under_its_dotted_path() -> None:
    code = (
        "import impart.blending.encoder as e, impart.blending.tune, impart\n"
        "assert impart.augment is e.augment, impart.augment\n"
        "assert callable(impart.augment)\n"
        "import impart.evaluate as evaluate\n"
        "assert impart.evaluate is evaluate\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_signatures_of_the_public_functions() -> None:
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


def test_the_query_of_search_many_is_imported_from_the_package_of_search() -> None:
    import impart.video.search
    import impart.video.search.query

    assert impart.video.search.__all__ == ["Query"]
    assert impart.video.search.Query is impart.video.search.query.Query


def test_importing_impart_loads_nothing_heavy() -> None:
    code = (
        "import sys, impart\n"
        "heavy = {'numpy', 'torch', 'lancedb', 'onnxruntime', 'av', 'faiss', 'pyarrow', 'rich', 'typer'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
