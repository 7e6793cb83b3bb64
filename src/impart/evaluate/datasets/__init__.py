"""Readers of evaluation data sets: `open_set("cifar10:/data")`, `open_set("images/")`.

To add a reader:

1. Copy the module of the same kind: `classification/stl10.py` for classes, `captions.py` for captioned images,
   `detection.py` for boxes, `videos/captions.py` for captioned videos, `videos/moments.py` for moments.
2. Describe the data set in a `DataSetInfo`, and write `open_NAME(path, split)`. It returns a set of `types`, and raises
   `info.missing(...)` if files are missing. Count what is left out in `notes`.
3. Add the reader to `READERS` of the module, and a new module to `registry`.
4. Add a row to the table of `docs/evaluation.md`, and a test with small files in the published layout; copy
   `tests/evaluate/datasets/classification/test_known_sets.py`.

Code outside of this package calls `register_reader(Reader(...))`.
"""

from __future__ import annotations

from impart.evaluate.datasets.reader import Reader
from impart.evaluate.datasets.registry import READERS, open_set, register_reader

__all__ = ["READERS", "Reader", "open_set", "register_reader"]
