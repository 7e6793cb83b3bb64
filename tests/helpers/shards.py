"""WebDataset shards from names and contents."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_shard"]


def write_shard(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """Write a tar file with (name, content) members in the given order."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
