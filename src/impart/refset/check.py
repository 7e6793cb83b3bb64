"""Check every file of a reference set, and make its manifest again where it is lost.

The rows have a digest, which is part of the name of their file, so a lost manifest costs the name and the settings of
the set, but no row.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impart.errors import ReferenceSetError
from impart.files import library_versions, now
from impart.refset.manifest import MANIFEST, ReferenceSetManifest
from impart.refset.refset import ReferenceSet
from impart.refset.storage import fingerprint_of, read_rows
from impart.retrieval.nearest import kind_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SetFault", "check_set", "made_again"]

_ROWS = re.compile("pairs-([0-9a-f]{16})[.]arrow")


@dataclass(frozen=True, kw_only=True)
class SetFault:
    """A damaged or missing file of a reference set.

    Attributes:
        derived: whether it can be made again from the other files.
    """

    file: Path
    wrong: str
    derived: bool


def check_set(folder: Path) -> list[SetFault]:
    """Read every file of the reference set in a folder, and compare the rows with their digest."""
    try:
        manifest = ReferenceSetManifest.read(folder)
    except ReferenceSetError as error:
        return [SetFault(file=folder / MANIFEST, wrong=str(error), derived=made_again(folder) is not None)]
    path = folder / manifest.data
    stated = {"count": manifest.count, "fingerprint": manifest.fingerprint, "storage": manifest.storage}
    faults = []
    try:
        read_rows(path, **stated, again=True)  # type: ignore[arg-type]
        references = ReferenceSet.open(folder)
    except ReferenceSetError as error:
        return [SetFault(file=path, wrong=str(error), derived=False)]
    try:
        _ = references.given_znorm
    except ReferenceSetError as error:
        faults.append(SetFault(file=folder / manifest.znorm, wrong=str(error), derived=False))
    try:
        _ = references.solved_weights
    except ReferenceSetError as error:
        faults.append(SetFault(file=folder / manifest.weights, wrong=str(error), derived=True))
    kind = kind_of(manifest.index["kind"], manifest.count)
    if kind != "exact":
        file = folder / f"{path.stem}.{kind}"
        wrong = _wrong_index(file, manifest)
        if wrong:
            faults.append(SetFault(file=file, wrong=wrong, derived=True))
    return faults


def made_again(folder: Path, *, encoder_id: str = "", encoder_fingerprint: str = "") -> ReferenceSetManifest | None:
    """Make the manifest of a set from its rows.

    Args:
        folder: of the set.
        encoder_id, encoder_fingerprint: of the encoder that made it; "" = those of the manifest, where it can be read.

    Returns:
        None where no file of rows has the digest of its name.
    """
    import pyarrow as pa

    for path in sorted(folder.glob("pairs-*.arrow")):
        found = _ROWS.fullmatch(path.name)
        try:
            data = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            data.validate(full=True)
            widths = [data.schema.field(name).type.list_size for name in ("image", "retrieval")]
            storage = "float16" if data.schema.field("image").type.value_type == pa.float16() else "float32"
            fingerprint = fingerprint_of(data, storage=storage)
        except (OSError, ValueError, KeyError, AttributeError, pa.ArrowException):
            continue
        if found is None or fingerprint[:16] != found[1]:
            continue
        znorm = next((file.name for file in sorted(folder.glob("cohort-*.npy"))), "")
        return ReferenceSetManifest(
            encoder_id=encoder_id,
            encoder_fingerprint=encoder_fingerprint,
            fingerprint=fingerprint,
            count=data.num_rows,
            dim=widths[0],
            retrieval_dim=widths[1],
            storage=storage,
            data=path.name,
            name=folder.name,
            created=now(),
            sources=_sources_of(data),
            znorm=znorm,
            versions=library_versions(),
        )
    return None


def _sources_of(data: pa.Table) -> tuple[dict[str, Any], ...]:
    """Count the pairs of each collection and licence of a table, sorted by name."""
    counts = Counter(zip(data["source"].to_pylist(), data["licence"].to_pylist(), strict=True))
    return tuple({"source": s, "licence": lic, "pairs": n} for (s, lic), n in sorted(counts.items()))


def _wrong_index(file: Path, manifest: ReferenceSetManifest) -> str:
    """Describe what is wrong with the stored nearest-neighbour index of a set; "" = nothing."""
    if not file.is_file():
        return "is missing: searches build it again each time"
    import faiss

    try:
        index = faiss.read_index(str(file))
    except RuntimeError:
        return "cannot be read: searches build it again each time"
    if (index.ntotal, index.d) != (manifest.count, manifest.retrieval_dim):
        return f"has {index.ntotal} rows of width {index.d}"
    return ""
