"""Report on taught names: which images help, by leave-one-out, and which do not belong.

Each image of a name is looked for with the other images of the name. This is what a search with the name does, so that
an image that the others do not find tells what frames like it will be: not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from impart.retrieval.near_duplicates import HASH_BITS, hash_signs
from impart.video.names.find import Prepared
from impart.video.names.presence import Detector

__all__ = ["SAME_BITS", "NameReport", "report_on"]

SAME_BITS = 12
"""Two images whose perceptual hashes differ in at most this many bits are one image: resized, or saved again."""
_SHOWN = 3  # images that one line names


@dataclass(frozen=True, kw_only=True)
class NameReport:
    """What leave-one-out tells about one name.

    Attributes:
        name: the name.
        sources: m images, as they were given.
        in_force: (m,) False for an image that is unlike the others: it does not count.
        found: (m,) whether the other images find it; all False where there is one image.
        remarks: sentences for people, the most important first; none where all is well.
    """

    name: str
    sources: tuple[str, ...]
    in_force: npt.NDArray[np.bool_]
    found: npt.NDArray[np.bool_]
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.sources)


def report_on(name: str, prepared: Prepared) -> NameReport:
    """Check the images of a taught name.

    Args:
        name: a taught name.
        prepared: the names of the index.
    """
    taught = prepared.taught
    detector, rows = prepared.detector(name), taught.retrieval(name)
    count = len(rows)
    found = np.zeros(count, bool)
    if count > 1:
        for i in range(count):
            others = Detector.of(np.delete(rows, i, axis=0), prepared.background)
            found[i] = others.presence(rows[i : i + 1])[0] >= 0.5
    sources = tuple(taught.column(name, "path"))
    alone = _on_finding(name, sources, detector.kept, found)
    remarks = (*alone, *_on_others(name, prepared), *_on_likeness(name, prepared))
    return NameReport(name=name, sources=sources, in_force=detector.kept, found=found, remarks=remarks)


def _on_finding(
    name: str, sources: tuple[str, ...], kept: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]
) -> Iterator[str]:
    unlike = [source for source, one in zip(sources, kept, strict=True) if not one]
    for source in unlike:
        yield f"{source} is unlike the other images of {name} and does not count: remove it, or add images like it"
    alone = [source for source, here, one in zip(sources, found, kept, strict=True) if one and not here]
    count = int(kept.sum())
    if len(sources) == 1:
        yield f"{name} has 1 image: it is in force, but cannot be checked; two more images make it safer"
    elif count and len(alone) == count:
        yield f"{name}: none of its {count} images is found by the others: add images, more of one kind"
    elif alone:
        them = "it" if len(alone) == 1 else "them"
        yield f"{name}: {_listed(alone)} not found by the others: remove {them} if wrong, else add images like {them}"


def _on_others(name: str, prepared: Prepared) -> Iterator[str]:
    """Name images that belong to another name as well."""
    taught = prepared.taught
    assert taught.references is not None
    hashes, texts = taught.references.table["hash"].to_pylist(), taught.references.texts
    signs = hash_signs(taught.references.table["phash"].to_pylist())
    shared: dict[str, list[str]] = {}
    for row, source in zip(taught.rows[name], taught.column(name, "path"), strict=True):
        differ = (HASH_BITS - signs @ signs[row]) / 2 if signs[row].any() else np.full(len(signs), np.inf)
        same = {text for i, text in enumerate(texts) if hashes[i] == hashes[row] or differ[i] <= SAME_BITS}
        for other in sorted(same - {name}):
            shared.setdefault(other, []).append(source)
    for other, sources in shared.items():
        them = "it" if len(sources) == 1 else "them"
        yield f"{name}: {_listed(sources)} already an image of {other}: remove {them} from one of the two names"


def _on_likeness(name: str, prepared: Prepared) -> Iterator[str]:
    """Name other names whose images find those of this one as well."""
    rows = prepared.taught.retrieval(name)
    own = prepared.detector(name)
    for other in prepared.taught.names:
        if other == name:
            continue
        presence = prepared.detector(other).presence(rows)
        alike, count = int(((presence >= 0.5) & own.kept).sum()), int(own.kept.sum())
        if 2 * alike > count:
            yield f"{name} and {other} are alike: {alike} of {count} images of {name} are found as {other} too"


def _listed(sources: list[str]) -> str:
    """List sources with their verb.

    >>> _listed(["a.jpg"]), _listed(["a", "b", "c", "d"])
    ('a.jpg is', 'a, b, c and 1 more are')
    """
    if len(sources) == 1:
        return f"{sources[0]} is"
    more = f" and {len(sources) - _SHOWN} more" if len(sources) > _SHOWN else ""
    return f"{', '.join(sources[:_SHOWN])}{more} are"
