"""Inverted lists of codes: the index of a reference set of millions, with 64 bytes per row.

IVF with product quantisation (Jegou et al., PAMI 2011): each row belongs to the list of its nearest centre, and is
stored as 4-bit codes, 128 per row. FAISS searches such codes in registers ("fast scan"). Codes order rows roughly, so
that many candidates are taken, and the caller compares their stored vectors.

Measured on 400,000 mixtures of real retrieval embeddings (R = 256), 256 images that are not in them, one thread, with
`benchmarks/large_refset.py --kinds`; other kinds, and HNSW, are in docs/reference-sets.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from impart.encoders.base import Float32
from impart.retrieval.rows import StoredRows, blocks

__all__ = ["build_codes", "candidates"]

_CODES = 128  # most codes per row
_BITS = 4  # fast scan knows no other
_PROBES = 64
_PER_LIST = 48  # rows per list that the centres are computed from
_ROUNDS = 10  # of k-means
_FEWEST, _PER_RESULT = 256, 8


def candidates(count: int) -> int:
    """Return the number of candidates among which the `count` nearest rows are searched by their stored vectors."""
    return max(_FEWEST, _PER_RESULT * count)


def build_codes(vectors: Float32 | StoredRows) -> tuple[Any, dict[str, int]]:
    """Build the index of N rows, which are read in blocks: (FAISS index, its parameters)."""
    import faiss

    count, width = vectors.shape
    lists = max(1, min(int(2 * np.sqrt(count)), count))
    codes = max(number for number in range(1, min(_CODES, width) + 1) if width % number == 0)
    index = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(width), width, lists, codes, _BITS, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False
    index.cp.niter, index.cp.max_points_per_centroid = _ROUNDS, _PER_LIST
    index.nprobe = min(_PROBES, lists)
    sample = np.random.default_rng(0).choice(count, min(count, _PER_LIST * lists), replace=False)
    index.train(vectors[np.sort(sample)])
    for _, part in blocks(vectors):
        index.add(np.ascontiguousarray(part))
    return index, {"lists": lists, "probes": index.nprobe, "codes": codes, "candidates": _FEWEST}
