"""Data sets in the formats that people have them in: `open_set("cifar10:/data")`, `open_set("images/")`."""

from __future__ import annotations

from impart.evaluate.datasets.reader import Reader
from impart.evaluate.datasets.registry import READERS, open_set, register_reader

__all__ = ["READERS", "Reader", "open_set", "register_reader"]
