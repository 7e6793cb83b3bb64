"""Switch the reference set of an index, without decoding a video.

Neighbours are searched again from the stored retrieval embeddings and written to a table of their own. The set, and the
trained RAM if one blends it in, is copied into the index. Then one replacement of the manifest puts the new set in
force. A run that is killed before leaves the old set in force.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from impart.blending.base import Blender
from impart.blending.encoder import AugmentedEncoder
from impart.blending.ram_onnx import LearnedRam
from impart.blending.vanilla import Vanilla
from impart.config import RamSettings
from impart.encoders.base import Encoder, ImageEmbeddings
from impart.errors import EncoderMismatchError
from impart.files import atomic_path
from impart.refset.refset import ReferenceSet
from impart.video.index.manifest import Augmentation, IndexManifest
from impart.video.index.store import NEIGHBOURS_PREFIX, SEGMENTS, Store
from impart.video.index.writer import Writer, blend_columns

__all__ = ["check_encoder", "describe", "install", "switch", "with_references"]

_ROWS = 16_384  # segments whose neighbours are searched at once


def describe(encoder: AugmentedEncoder) -> Augmentation:
    """Make the manifest's record of an augmentation."""
    references, blending = encoder.references, encoder.blender
    return Augmentation(
        name=blending.name,
        fingerprint=encoder.fingerprint,
        settings=blending.settings,
        references_name=references.name,
        references_fingerprint=references.fingerprint,
        folder=f"references/{references.fingerprint[:16]}-{references.znorm.digest[:8]}",
        table=f"{NEIGHBOURS_PREFIX}{encoder.fingerprint[:16]}",
        graph=f"rams/{blending.digest[:16]}.onnx" if isinstance(blending, LearnedRam) else "",
    )


def with_references(base: Encoder, folder: Path, manifest: IndexManifest) -> Encoder:
    """Augment `base` by the reference set in force; return `base` where there is none."""
    augmentation = manifest.augmentation
    if augmentation is None:
        return base
    references, settings = ReferenceSet.open(folder / augmentation.folder), augmentation.settings
    blending: Blender
    if isinstance(settings, RamSettings):
        blending = LearnedRam(
            folder / augmentation.graph,
            settings,
            encoder_id=manifest.encoder_id,
            encoder_fingerprint=manifest.encoder_fingerprint,
        )
    else:
        blending = Vanilla(settings)
    return AugmentedEncoder(base, references, blending)


def check_encoder(encoder: Encoder, folder: Path, manifest: IndexManifest) -> None:
    """Refuse a base encoder other than the one that made the index.

    Raises:
        EncoderMismatchError: names both and the remedy.
    """
    base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
    if base.fingerprint == manifest.encoder_fingerprint:
        return
    if base.traits.id == manifest.encoder_id:
        remedy = "the model has changed since: index your videos again into a new folder (--index DIR)"
    else:
        remedy = "open it without naming an encoder (no --encoder), or index into a new folder (--index DIR)"
    raise EncoderMismatchError(
        f"the index {folder} was made with encoder {manifest.encoder_id!r} ({manifest.encoder_fingerprint[:12]}), "
        f"not with {base.traits.id!r} ({base.fingerprint[:12]}): {remedy}"
    )


def install(store: Store, encoder: AugmentedEncoder, manifest: IndexManifest) -> Augmentation:
    """Copy the set and the RAM into the index and create an empty neighbours table.

    The set is in force once a manifest names it.

    Args:
        manifest: of the index now. Files that it names already are not replaced, so that a crash cannot lose them.
    """
    augmentation, present = describe(encoder), manifest.augmentation
    folder = store.folder / augmentation.folder
    if present is None or present.folder != augmentation.folder:
        shutil.rmtree(folder, ignore_errors=True)  # an incomplete copy of an interrupted run
        encoder.references.save(folder)
    with store.errors("write to"):
        if isinstance(encoder.blender, LearnedRam) and (present is None or present.graph != augmentation.graph):
            graph = store.folder / augmentation.graph
            graph.parent.mkdir(exist_ok=True)
            with atomic_path(graph) as part:
                shutil.copyfile(encoder.blender.path, part)
        store.make_neighbours(augmentation, manifest)
    return augmentation


def switch(writer: Writer, encoder: Encoder) -> None:
    """Put the encoder's reference set in force; none, if it is a base encoder.

    Raises:
        VideoIndexError: the index cannot be written; the old set stays in force.
    """
    store, manifest = writer.store, writer.manifest
    if not isinstance(encoder, AugmentedEncoder):
        writer.save_manifest(dataclasses.replace(manifest, augmentation=None))
        return
    if manifest.augmentation is not None and manifest.augmentation.fingerprint == encoder.fingerprint:
        return
    augmentation = install(store, encoder, manifest)
    with store.errors("write to"):
        for rows in _batches(store):
            store.table(augmentation.table).add(_neighbours(rows, encoder, manifest))
    writer.save_manifest(dataclasses.replace(manifest, augmentation=augmentation))


def _batches(store: Store) -> Iterator[Any]:
    """Read the segments in tables of about `_ROWS` rows."""
    columns = ["video_id", "revision", "number", "vector", "retrieval"]
    yield from _joined(store.table(SEGMENTS).search().select(columns).to_batches(_ROWS))


def _joined(batches: Any) -> Iterator[Any]:
    """Join small batches (one fragment per video) to tables of about `_ROWS` rows."""
    import pyarrow as pa

    waiting, count = [], 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        if count >= _ROWS:
            yield pa.Table.from_batches(waiting)
            waiting, count = [], 0
    if count:
        yield pa.Table.from_batches(waiting)


def _neighbours(rows: Any, encoder: AugmentedEncoder, manifest: IndexManifest) -> Any:
    """Compute rows of a neighbours table from rows of the segments."""
    import pyarrow as pa

    vectors, retrieval = (_matrix(rows[name]) for name in ("vector", "retrieval"))
    blend = encoder.blend(ImageEmbeddings(vectors, retrieval))
    columns = {name: rows[name] for name in ("video_id", "revision", "number")}
    return pa.table(columns | blend_columns(blend, manifest))


def _matrix(column: Any) -> Any:
    """Convert a column of n lists to (n, width) float32."""
    flat = np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
    return flat.reshape(len(column), -1).astype(np.float32)
