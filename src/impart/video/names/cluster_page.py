"""Page of clusters: one HTML file without further files, which shows the number and some frames of each cluster.

The clusters are kept in the index (`names-clusters.json`), so that `impart names add NAME --from-cluster N` knows what
a number means after the index has changed.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from impart.errors import DataError, DecodeError, QueryError, VideoIndexError
from impart.files import atomic_path, write_atomic
from impart.images import to_rgb
from impart.video.index.remote.mirror import publishing
from impart.video.index.store import CLUSTERS
from impart.video.names.discover import Cluster
from impart.video.names.examples import Given, load
from impart.video.search.hits import timecode
from impart.video.search.snapshot import Snapshot

__all__ = ["ClusterFrame", "frames_of", "load_clusters", "save_clusters", "write_page"]

_FRAMES = 12  # of a cluster that are kept: those nearest to its mean
_SHOWN = 6
_SHORT_SIDE_PX = 120
_STYLE = (
    "body{font-family:sans-serif;margin:1em}section{border-top:1px solid #ccc;padding:.5em 0}h2{margin:.2em 0}"
    "figure{display:inline-block;margin:.3em;vertical-align:top}figcaption{font-size:.7em;max-width:16em;"
    "overflow-wrap:anywhere}img{height:120px}code{background:#eee;padding:.2em}"
)


@dataclass(frozen=True, kw_only=True)
class ClusterFrame:
    """One frame of a cluster: the best of a scene.

    Attributes:
        number: of the cluster.
        at_s: seconds from the start of the video; None of a photo.
    """

    number: int
    path: Path
    at_s: float | None

    def given(self, name: str) -> Given:
        """Return the frame as an image of a name."""
        source = str(self.path) if self.at_s is None else f"{self.path}@{self.at_s:g}"
        return Given(name=name, source=source, image=self.path, at_s=self.at_s)


def frames_of(cluster: Cluster, snapshot: Snapshot) -> list[ClusterFrame]:
    """List up to 12 frames of a cluster, nearest to its mean first."""
    found = []
    for row in cluster.best[:_FRAMES]:
        video = int(snapshot.video_of[row])
        at_s = None if snapshot.kinds[video] == "photo" else float(snapshot.start_s[row])
        found.append(ClusterFrame(number=cluster.number, path=snapshot.paths[video], at_s=at_s))
    return found


def save_clusters(index: Path, frames: Sequence[ClusterFrame]) -> None:
    """Keep the frames of all clusters in an index, in place of those that were kept before.

    Raises:
        VideoIndexError: the index cannot be written.
    """
    rows = [{"number": one.number, "path": os.fsencode(one.path).hex(), "at_s": one.at_s} for one in frames]
    try:
        with publishing(index, CLUSTERS), atomic_path(index / CLUSTERS) as part:
            part.write_text(json.dumps(rows), encoding="ascii")
    except OSError as error:
        raise VideoIndexError(f"cannot write {index / CLUSTERS}: {error.strerror or error}") from error


def load_clusters(index: Path, number: int) -> list[ClusterFrame]:
    """Read the frames of a cluster.

    Raises:
        QueryError: there is no such cluster; names the remedy.
    """
    try:
        rows = json.loads((index / CLUSTERS).read_text(encoding="ascii"))
        frames = [ClusterFrame(**(row | {"path": Path(os.fsdecode(bytes.fromhex(row["path"])))})) for row in rows]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise QueryError(f"no clusters of the index {index} are kept: impart names discover -i {index}") from error
    found = [frame for frame in frames if frame.number == number]
    if not found:
        last = max((frame.number for frame in frames), default=0)
        known = f"there are 1 to {last}" if last else "there are none"
        raise QueryError(f"no cluster {number}: {known}; impart names discover -i {index} makes them anew")
    return found


def write_page(
    path: Path, clusters: Sequence[Cluster], snapshot: Snapshot, *, index: Path, stream: int = 0
) -> list[tuple[Path, str]]:
    """Write the page. A frame that cannot be decoded is left out of it.

    Args:
        index: folder of the index, for the commands on the page.
        stream: number of the video stream that the index takes.

    Returns:
        (file, reason) of frames that could not be decoded.

    Raises:
        VideoIndexError: the page cannot be written.
    """
    failed: list[tuple[Path, str]] = []
    sections = []
    for cluster in clusters:
        figures = []
        for frame in frames_of(cluster, snapshot)[:_SHOWN]:
            try:
                image = load(frame.given(""), None, short_side_px=_SHORT_SIDE_PX, stream=stream).image
            except (DataError, DecodeError, QueryError) as error:
                failed.append((frame.path, error.reason if isinstance(error, DecodeError) else str(error)))
                continue
            assert image is not None
            image.thumbnail((4 * _SHORT_SIDE_PX, _SHORT_SIDE_PX))
            label = html.escape(frame.path.name + ("" if frame.at_s is None else f" {timecode(frame.at_s)}"))
            figures.append(f'<figure><img alt="" src="{_data_url(image)}"><figcaption>{label}</figcaption></figure>')
        known = f": {html.escape(', '.join(cluster.names))}" if cluster.names else ""
        command = html.escape(f"impart names add --from-cluster {cluster.number} NAME -i {index}")
        sections.append(
            f"<section><h2>{cluster.number}{known}</h2><p>{len(cluster)} scenes in {cluster.videos} videos. "
            f"<code>{command}</code></p>{''.join(figures)}</section>"
        )
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Clusters</title><style>{_STYLE}</style>'
        f"<h1>What recurs in {html.escape(str(index))}</h1>{''.join(sections)}</html>\n"
    )
    try:
        write_atomic(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise VideoIndexError(f"cannot write {path}: {error.strerror or error}") from error
    return failed


def _data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    to_rgb(image).save(stream, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
