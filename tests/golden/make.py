"""Make the golden files of this version: an index with everything in it, a reference set, and what is found in them.

    python tests/golden/make.py 0.2.0 [--replace]

writes `made_by_0.2.0.tar.gz` and `made_by_0.2.0.json` beside this file. Run it once per version, when its formats are
final. Files of older versions stay as they are: each later version opens them (`tests/test_golden_versions.py`). The
encoder is that of the tests, so the files are small and depend on no model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parent
sys.path.insert(0, str(GOLDEN.parent))

SEARCHES: tuple[dict[str, Any], ...] = (
    {"text": "red"},
    {"text": "blue", "group": "frame", "by": "frame"},
    {"text": "green", "group": "scene"},
    {"text": "sunset", "group": "video", "by": "mean"},
)


def main() -> None:
    from helpers.colour_references import colour_set
    from helpers.damage import make_library

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="that the files are named after")
    parser.add_argument("--replace", action="store_true", help="write over the files of this version")
    given = parser.parse_args()
    name = f"made_by_{given.version}"
    if (GOLDEN / f"{name}.tar.gz").exists() and not given.replace:
        parser.error(f"{name}.tar.gz exists: a released version keeps its files; --replace writes over them")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        library = make_library(folder)
        colour_set().save(folder / "colours.refset")
        expected = describe(folder, made_by=given.version)
        with tarfile.open(GOLDEN / f"{name}.tar.gz", "w:gz") as archive:
            for part in (library.index, library.films, folder / "colours.refset"):
                archive.add(part, part.name, filter=_anonymous)
        (GOLDEN / f"{name}.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    size = (GOLDEN / f"{name}.tar.gz").stat().st_size
    sys.stdout.write(f"{GOLDEN / name}.tar.gz: {size / 1000:.0f} kB\n")


def describe(folder: Path, *, made_by: str) -> dict[str, Any]:
    """Describe what is found in the golden files in a folder."""
    from impart.refset.refset import ReferenceSet
    from impart.video.index.index import VideoIndex

    index = VideoIndex.open(folder / "library.impart", create=False)
    references = ReferenceSet.open(folder / "colours.refset")
    numbers = index.stats()
    nearest = references.search(references.retrieval_embeddings[:3], 4)
    return {
        "made_by": made_by,
        "searches": [{"query": query, "hits": hits_of(index, query)} for query in SEARCHES],
        "names": [{"name": name, "spans": spans_of(index, name)} for name in ("sunset",)],
        "stats": {name: getattr(numbers, name) for name in ("videos", "photos", "segments", "scenes", "with_crops")},
        "references": {
            "pairs": len(references),
            "fingerprint": references.fingerprint,
            "nearest": nearest.ids.tolist(),
        },
    }


def hits_of(index: Any, query: dict[str, Any]) -> list[list[Any]]:
    """Search, and list file name, span (s) and score of each hit."""
    return [[hit.path.name, hit.start_s, hit.end_s, hit.score] for hit in index.search(**query, top=20)]


def spans_of(index: Any, name: str) -> list[list[Any]]:
    """Find a taught name, and list file name and span (s)."""
    return [[hit.path.name, hit.start_s, hit.end_s] for hit in index.find(name)]


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if entry.name.endswith(".lock") else entry


if __name__ == "__main__":
    main()
