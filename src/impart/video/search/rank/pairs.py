"""Reference pairs of stored neighbours: their ids must be those of the set in force.

A file that was restored from another index, or damaged, may name pairs that the set does not have. A search would then
end in an error of NumPy, or count the pair of another video. So the ids of each shard are compared once.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.errors import ReferenceSetError, VideoIndexError
from impart.refset.manifest import ReferenceSetManifest
from impart.video.index.manifest import IndexManifest

if TYPE_CHECKING:
    from impart.video.search.state.shard import VideoShard

__all__ = ["check_pairs", "pairs_in_force", "wrong_ids"]

_UNLIMITED = int(np.iinfo(np.int32).max)


def check_pairs(index: Path, manifest: IndexManifest, shards: Iterable[VideoShard]) -> None:
    """Compare the ids of all neighbours with the reference set in force; those of a shard are read once.

    Args:
        index: folder of the index.

    Raises:
        VideoIndexError: a pair is named that the set does not have.
    """
    pairs = pairs_in_force(index, manifest)
    for shard in shards:
        wrong = wrong_ids(np.array(shard.id_range), pairs)
        if wrong:
            raise VideoIndexError(
                f"the neighbours of the index {index}: one {wrong}. impart doctor --repair, with the same --index, "
                "finds the damaged file, and computes it again from the stored vectors"
            )


def pairs_in_force(index: Path, manifest: IndexManifest) -> int:
    """Return the number of pairs of the reference set in force.

    Returns:
        The largest number where ids are not used (a RAM stores what it adds), or the set cannot be read.
    """
    augmentation = manifest.augmentation
    if augmentation is None or augmentation.dense:
        return _UNLIMITED
    try:
        return ReferenceSetManifest.read(index / augmentation.folder).count
    except ReferenceSetError:
        return _UNLIMITED


def wrong_ids(ids: npt.NDArray[Any], pairs: int) -> str:
    """Describe what is wrong with ids of pairs, -1 = none; "" = nothing.

    >>> wrong_ids(np.array([[3, -1]]), 4), wrong_ids(np.array([[4]]), 4)
    ('', 'names reference pair 4, and the set has 4')
    """
    if not ids.size:
        return ""
    least, most = int(ids.min()), int(ids.max())
    if least >= -1 and most < pairs:
        return ""
    return f"names reference pair {most if most >= pairs else least}, and the set has {pairs}"
