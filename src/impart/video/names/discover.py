"""Discover: people, animals, places and things that recur in an index, as clusters of scenes to be named.

Each scene gives one vector, the whitened mean of its retrieval embeddings (`presence.Background`), so that a long
static shot counts once. Agglomerative clustering with average linkage joins scenes down to a mean cosine of `ALIKE`.
Unlike density-based clustering, it joins many nearly equal scenes and leaves strangers apart.

Clusters can only form within the connected components of the graph of scenes with a cosine of at least `ALIKE`. So the
pairs are found in blocks, and only the components are clustered: the result is that of clustering all scenes. A
component of more than `_LARGEST` scenes is first split at higher cosines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Float32, l2_normalise
from impart.video.names.find import Prepared
from impart.video.search.filters import first_copies
from impart.video.search.snapshot import Snapshot

__all__ = ["ALIKE", "MOST_SCENES", "Cluster", "Discovered", "cluster_scenes", "discover"]

ALIKE = 0.5
"""Mean cosine of two whitened groups of scenes from which they are joined.

Chosen on Flickr8k `val`: of 500 photographs and another crop of each, all pairs of one photograph are joined and 89% of
the joined pairs are of one; of the 500 alone, 14 clusters of up to 3 form.
"""
MOST_SCENES = 50_000
"""Scenes that are compared; of a larger index, as many are taken at equal distances."""
_LARGEST = 6000  # scenes that are clustered at once: 150 MB of distances
_STEP = 0.05  # by which the cosine is raised to split a larger component
_ROWS = 1024  # scenes per block of cosines
_PRESENT = 0.5


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Scenes that show the same.

    Attributes:
        number: from 1, in order of size.
        scenes: (k,) numbers of scenes in the snapshot, nearest to their mean first.
        best: (k,) the segment of each scene that is nearest to the mean.
        videos: number of videos that contain them.
        names: taught names that most of them show already.
    """

    number: int
    scenes: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    videos: int
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scenes)


@dataclass(frozen=True, kw_only=True)
class Discovered:
    """Clusters of an index.

    Attributes:
        clusters: biggest first.
        scenes: number of scenes that were compared.
        left_out: number of scenes that were not, since there are more than `MOST_SCENES`.
    """

    clusters: tuple[Cluster, ...]
    scenes: int
    left_out: int


def discover(prepared: Prepared, *, least: int = 2, top: int | None = None) -> Discovered:
    """Cluster the scenes of an index. Of copies of a video, one counts.

    Args:
        prepared: the index, and the names that were taught.
        least: scenes of a cluster.
        top: most clusters; None = all.
    """
    snapshot = prepared.snapshot
    chosen = _chosen(snapshot)
    compared = chosen[:: max(1, -(-len(chosen) // MOST_SCENES))]
    if not len(compared):
        return Discovered(clusters=(), scenes=0, left_out=0)
    vectors = _scene_vectors(prepared, compared)
    found = [members for members in cluster_scenes(vectors) if len(members) >= least][:top]
    present = {name: prepared.presence(name) >= _PRESENT for name in prepared.taught.names}
    clusters = []
    for number, members in enumerate(found, 1):
        mean = l2_normalise(vectors[members].mean(axis=0, keepdims=True))[0]
        scenes = compared[members[np.argsort(-(vectors[members] @ mean), kind="stable")]]
        rows = [np.arange(*_segments(snapshot, scene)) for scene in scenes]
        best = [
            segments[int(np.argmax(prepared.background.whiten(snapshot.retrieval[segments]) @ mean))]
            for segments in rows
        ]
        shown = {name: np.mean([where[segments].any() for segments in rows]) for name, where in present.items()}
        clusters.append(
            Cluster(
                number=number,
                scenes=scenes,
                best=np.array(best, np.int64),
                videos=len(np.unique(snapshot.video_of[best])),
                names=tuple(name for name, share in shown.items() if share > 0.5),
            )
        )
    return Discovered(clusters=tuple(clusters), scenes=len(compared), left_out=len(chosen) - len(compared))


def cluster_scenes(vectors: Float32, *, alike: float = ALIKE) -> list[npt.NDArray[np.int64]]:
    """Cluster unit vectors (S, R) by average linkage.

    Args:
        alike: mean cosine from which two groups are joined.

    Returns:
        Numbers of the members of each cluster of two or more, ascending; biggest cluster first.

    Example:
        >>> rows = np.float32([[1, 0], [0, 1], [0.99, 0.14], [-1, 0]])
        >>> [members.tolist() for members in cluster_scenes(rows)]
        [[0, 2]]
    """
    clusters: list[npt.NDArray[np.int64]] = []
    waiting = [(np.arange(len(vectors)), alike)]
    while waiting:
        members, least = waiting.pop()
        for part in _components(vectors[members], least):
            if len(part) <= _LARGEST:
                clusters += [members[part[one]] for one in _linked(vectors[members[part]], alike)]
            elif least + _STEP >= 1:  # they are all nearly equal
                clusters.append(members[part])
            else:
                waiting.append((members[part], least + _STEP))
    return sorted(clusters, key=lambda one: (-len(one), int(one[0])))


def _components(vectors: Float32, least: float) -> list[npt.NDArray[np.int64]]:
    """Find the connected components of two or more rows, with an edge where the cosine is at least `least`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(vectors)
    left: list[npt.NDArray[np.int64]] = []
    right: list[npt.NDArray[np.int64]] = []
    for first in range(0, count, _ROWS):
        cosines = vectors[first : first + _ROWS] @ vectors[first:].T
        i, j = np.nonzero(cosines >= least)
        later = j > i
        left.append(i[later] + first)
        right.append(j[later] + first)
    if not count:
        return []
    i, j = np.concatenate(left), np.concatenate(right)
    _, label = connected_components(coo_array((np.ones(len(i), bool), (i, j)), shape=(count, count)), directed=False)
    return _groups(label)


def _linked(vectors: Float32, alike: float) -> list[npt.NDArray[np.int64]]:
    """Cluster the rows of one component by average linkage; the clusters of two or more."""
    from scipy.cluster.hierarchy import fcluster, linkage

    label = fcluster(linkage(vectors, method="average", metric="cosine"), 1 - alike + 1e-6, criterion="distance")
    return _groups(label)


def _groups(label: npt.NDArray[np.integer]) -> list[npt.NDArray[np.int64]]:
    """List the rows of each label that occurs twice or more."""
    order = np.argsort(label, kind="stable")
    bounds = np.flatnonzero(np.diff(label[order])) + 1
    return [group for group in np.split(order, bounds) if len(group) > 1]


def _chosen(snapshot: Snapshot) -> npt.NDArray[np.int64]:
    """List the scenes of one of each video's copies."""
    videos = first_copies(snapshot, None)
    return np.flatnonzero(videos[snapshot.video_of[snapshot.scenes]]) if len(snapshot) else np.zeros(0, np.int64)


def _segments(snapshot: Snapshot, scene: int) -> tuple[int, int]:
    """Return the first segment of a scene and the first one behind it."""
    last = scene + 1 >= len(snapshot.scenes)
    return int(snapshot.scenes[scene]), len(snapshot) if last else int(snapshot.scenes[scene + 1])


def _scene_vectors(prepared: Prepared, scenes: npt.NDArray[np.int64]) -> Float32:
    """Compute the whitened unit means (k, R) of scenes; a segment counts as often as frames were sampled in it."""
    snapshot = prepared.snapshot
    means = np.empty((len(scenes), snapshot.retrieval.shape[1]), np.float32)
    for i, scene in enumerate(scenes):
        part = slice(*_segments(snapshot, int(scene)))
        means[i] = snapshot.weight[part].astype(np.float32) @ l2_normalise(snapshot.retrieval[part].astype(np.float32))
    return prepared.background.whiten(l2_normalise(means))
