"""Nearest references of every image, precomputed and memory-mapped.

RA-CLIP searches the neighbours of each training image among the references once, since the retrieval encoder is frozen.
The image itself (equal content) and near-duplicates of it (retrieval cosine above a threshold) are masked: from those
RAM would learn to copy the answer.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32
from impart.errors import TrainingError
from impart.files import arrays_fit, atomic_path, make_folder, new_sha256, write_json_atomic
from impart.retrieval.nearest import PairIndex
from impart.train.events import Note, Preparing, TrainEvent
from impart.train.settings import TrainConfig

__all__ = ["NeighbourTable", "Queries", "find_neighbours", "nearest", "neighbours_of_parts"]

_CHUNK = 8192  # queries between two reports
_SPARE = 8  # more candidates than neighbours, in the first search


@dataclass(frozen=True)
class NeighbourTable:
    """K nearest references of n images, best first.

    Attributes:
        ids: (n, K) int32 rows of the reference set; -1 = there are fewer.
        sims: (n, K) float32 cosines; -1 where there is none.
        masked: candidates left out as the image itself or a near-duplicate of it.
    """

    ids: npt.NDArray[np.int32]
    sims: Float32
    masked: int = 0


def nearest(
    index: PairIndex,
    queries: Float32,
    k: int,
    *,
    groups: npt.NDArray[np.int64],
    own: npt.NDArray[np.int64],
    near_duplicate: float,
) -> NeighbourTable:
    """Search the nearest references, with masks.

    Args:
        index: over N references.
        queries: (n, R), L2-normalised.
        k: neighbours wanted.
        groups: (N,) content number of each reference.
        own: (n,) content number of each query; references with the same number are masked. -1 = no reference has it.
        near_duplicate: references with a higher cosine are masked.
    """
    ids = np.full((len(queries), k), -1, dtype=np.int32)
    sims = np.full((len(queries), k), -1.0, dtype=np.float32)
    todo = np.arange(len(queries))
    masked = 0
    wanted = min(len(groups), k + _SPARE)
    while len(todo):
        found = index.search(queries[todo], wanted)
        there = found.ids >= 0
        same = there & ((groups[found.ids] == own[todo, None]) | (found.sims > near_duplicate))
        good = there & ~same
        enough = (good.sum(1) >= k) | (wanted >= len(groups))
        order = np.argsort(~good[enough], axis=1, kind="stable")[:, :k]  # good ones first, in their order
        rows = todo[enough]
        kept = np.take_along_axis(good[enough], order, axis=1)
        columns = order.shape[1]
        ids[rows, :columns] = np.where(kept, np.take_along_axis(found.ids[enough], order, axis=1), -1)
        sims[rows, :columns] = np.where(kept, np.take_along_axis(found.sims[enough], order, axis=1), -1.0)
        masked += int(same[enough].sum())
        todo = todo[~enough]
        wanted = min(len(groups), 4 * wanted)
    return NeighbourTable(ids, sims, masked)


def find_neighbours(
    folder: Path,
    queries: npt.NDArray[Any],
    references: npt.NDArray[Any],
    *,
    k: int,
    query_hashes: Sequence[str],
    reference_hashes: Sequence[str],
    near_duplicate: float,
    index: str = "auto",
    name: str = "neighbours",
) -> Generator[Preparing, None, NeighbourTable]:
    """Search the neighbours of all queries and store them; a table made from the same vectors is read back.

    Args:
        folder: `<name>.ids.npy`, `<name>.sims.npy` and `<name>.json` are written here.
        queries: (n, R), L2-normalised, float16 or float32; may be memory-mapped.
        references: (N, R), likewise.
        k: neighbours wanted.
        query_hashes: n content hashes; a reference with the same one is masked.
        reference_hashes: N.
        near_duplicate: references with a higher cosine are masked.
        index: `auto`, `exact`, `hnsw` or `ivf`.
        name: of the table, when a run has several.

    Yields:
        Progress.

    Returns:
        The table, memory-mapped.
    """
    facts: dict[str, Any] = {"k": k, "near_duplicate": near_duplicate, "index": index}
    facts["queries"], facts["references"] = _digest(queries, query_hashes), _digest(references, reference_hashes)
    paths = {part: folder / f"{name}.{part}.npy" for part in ("ids", "sims")}
    known = _read(folder / f"{name}.json")
    if {key: known.get(key) for key in facts} == facts:
        table = _open(paths, known, shape=(len(queries), k))
        if table is not None:
            return table
    make_folder(folder)
    numbers: dict[str, int] = {}
    groups = np.array([numbers.setdefault(key, len(numbers)) for key in reference_hashes], dtype=np.int64)
    own = np.array([numbers.get(key, -1) for key in query_hashes], dtype=np.int64)
    searcher = PairIndex(np.asarray(references, dtype=np.float32), kind=index)
    masked = 0
    with atomic_path(paths["ids"]) as ids_part, atomic_path(paths["sims"]) as sims_part:
        ids = np.lib.format.open_memmap(ids_part, "w+", np.int32, (len(queries), k))
        sims = np.lib.format.open_memmap(sims_part, "w+", np.float32, (len(queries), k))
        for first in range(0, len(queries), _CHUNK):
            part = slice(first, first + _CHUNK)
            rows = np.asarray(queries[part], dtype=np.float32)
            found = nearest(searcher, rows, k, groups=groups, own=own[part], near_duplicate=near_duplicate)
            ids[part], sims[part] = found.ids, found.sims
            masked += found.masked
            yield Preparing(what="neighbours", done=min(first + _CHUNK, len(queries)), total=len(queries))
        ids.flush()
        sims.flush()
        del ids, sims
    write_json_atomic(folder / f"{name}.json", {**facts, "masked": masked}, indent=None, ascii_only=True)
    made = _open(paths, {"masked": masked}, shape=(len(queries), k))
    if made is None:
        raise TrainingError(f"{paths['ids']} cannot be read: the disk may be full or damaged")
    return made


Queries = tuple[npt.NDArray[Any], Sequence[str]]
"""Vectors (n, R), L2-normalised, and their n content hashes."""


def neighbours_of_parts(
    config: TrainConfig, out: Path, parts: Mapping[str, Queries], references: Queries
) -> Generator[TrainEvent, None, dict[str, NeighbourTable]]:
    """Search the neighbours of each part of a split, and store them in `OUT/neighbours`.

    Args:
        config: `ram.k` and `reference` are read.
        out: folder of the run.
        parts: queries by name of the part.
        references: of the run.
    """
    tables: dict[str, NeighbourTable] = {}
    for name, (queries, hashes) in parts.items():
        table = yield from find_neighbours(
            out / "neighbours",
            queries,
            references[0],
            k=config.ram.k,
            query_hashes=hashes,
            reference_hashes=references[1],
            near_duplicate=config.reference.near_duplicate,
            index=config.reference.index,
            name=name,
        )
        if table.masked:
            yield Note(message=f"{name}: {table.masked} references masked as the image itself or a near-duplicate")
        tables[name] = table
    return tables


def _open(paths: dict[str, Path], facts: dict[str, Any], *, shape: tuple[int, int]) -> NeighbourTable | None:
    """Map a table; None where it is missing, damaged or of another shape: it is computed again."""
    try:
        arrays = {part: np.load(path, mmap_mode="r") for part, path in paths.items()}
    except (OSError, ValueError, EOFError):
        return None
    if not arrays_fit(arrays, {"ids": ("i", shape), "sims": ("f", shape)}):
        return None
    masked = facts.get("masked", 0)
    return NeighbourTable(arrays["ids"], arrays["sims"], masked if isinstance(masked, int) else 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _digest(vectors: npt.NDArray[Any], hashes: Sequence[str]) -> str:
    digest = new_sha256(f"{vectors.shape} {vectors.dtype}")
    for first in range(0, len(vectors), _CHUNK):
        digest.update(np.ascontiguousarray(vectors[first : first + _CHUNK]).tobytes())
    for key in hashes:
        digest.update(key.encode())
    return digest.hexdigest()
