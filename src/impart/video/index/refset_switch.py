"""Switch the reference set of an index, without decoding a video.

Neighbours are searched again from the stored retrieval embeddings and written to a table of their own. The set, and the
trained RAM if one blends it in, is copied into the index. Then one replacement of the manifest puts the new set in
force. A run that is killed before leaves the old set in force.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from impart.blending.base import Blender
from impart.blending.encoder import AugmentedEncoder, blender_of
from impart.blending.ram_onnx import LearnedRam
from impart.blending.ram_solved import learned_ram
from impart.config import RamSettings
from impart.encoders.base import Encoder, ImageEmbeddings
from impart.errors import EncoderError, EncoderMismatchError, ReferenceSetError, VideoIndexError
from impart.files import atomic_path, make_folder, read_ahead, sha256_of_file
from impart.refset.refset import ReferenceSet
from impart.video.index.manifest import Augmentation, IndexManifest
from impart.video.index.remote.mirror import publishing
from impart.video.index.store import NEIGHBOURS_PREFIX, SEGMENTS, Store
from impart.video.index.writer import Writer, blend_columns

__all__ = ["check_encoder", "complete", "describe", "install", "switch", "with_references"]

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
    settings = augmentation.settings
    blending: Blender
    try:
        references = ReferenceSet.open(folder / augmentation.folder)
        if references.fingerprint != augmentation.references_fingerprint:
            raise ReferenceSetError(f"{folder / augmentation.folder} contains another set than the index names")
        if isinstance(settings, RamSettings):
            blending = learned_ram(
                folder / augmentation.graph,
                settings,
                encoder_id=manifest.encoder_id,
                encoder_fingerprint=manifest.encoder_fingerprint,
            )
            if blending.digest[:16] != Path(augmentation.graph).stem:
                raise EncoderError(f"{blending.path} is damaged")
        else:
            blending = blender_of(references, settings)
        return AugmentedEncoder(base, references, blending)
    except (ReferenceSetError, EncoderError) as error:
        what = "SET, or the checkpoint of the RAM," if isinstance(settings, RamSettings) else "SET"
        raise VideoIndexError(
            f"the reference set of the index {folder} cannot be used: {error}. Put {augmentation.references_name!r} or "
            f"another in force: impart refset use {what} --index {folder}"
        ) from error


def check_encoder(encoder: Encoder, folder: Path, manifest: IndexManifest) -> None:
    """Refuse a base encoder other than the one that made the index.

    Raises:
        EncoderMismatchError: names both and the remedy.
        VideoIndexError: the manifest has other widths than this encoder.
    """
    base = encoder.base if isinstance(encoder, AugmentedEncoder) else encoder
    if base.fingerprint == manifest.encoder_fingerprint:
        given, named = (base.traits.dim, base.traits.retrieval_dim), (manifest.dim, manifest.retrieval_dim)
        if given != named:
            raise VideoIndexError(
                f"the manifest of the index {folder} is damaged: dim and retrieval_dim are {named[0]} and {named[1]}, "
                f"but {given[0]} and {given[1]} with encoder {manifest.encoder_id!r}. Restore it from a copy of the "
                "index, or index your videos into a new folder (--index DIR)"
            )
        return
    if base.traits.id == manifest.encoder_id:
        remedy = "the model has changed since: index your videos again into a new folder (--index DIR)"
    else:
        remedy = "open it without naming an encoder (no --encoder), or index into a new folder (--index DIR)"
    raise EncoderMismatchError(
        f"the index {folder} was made with encoder {manifest.encoder_id!r} ({manifest.encoder_fingerprint[:12]}), "
        f"not with {base.traits.id!r} ({base.fingerprint[:12]}): {remedy}"
    )


def install(store: Store, encoder: AugmentedEncoder) -> Augmentation:
    """Copy the set and the RAM into the index; copies that are there and whole are kept.

    The set is in force once a manifest names it.

    Raises:
        VideoIndexError: the index cannot be written.
    """
    augmentation = describe(encoder)
    with store.errors("write to"), publishing(store.folder, "references", "rams"):
        folder = store.folder / augmentation.folder
        if not _is_copy(folder, encoder.references):
            if not _has_rows(folder, encoder.references):
                shutil.rmtree(folder, ignore_errors=True)  # damaged, or of an interrupted run
            encoder.references.save(folder)
            if not _is_copy(folder, encoder.references):
                raise OSError(f"the copy of the reference set in {folder} cannot be read back: is the disk failing?")
        if isinstance(encoder.blender, LearnedRam):
            _copy_graph(encoder.blender, store.folder / augmentation.graph)
    return augmentation


def _is_copy(folder: Path, references: ReferenceSet) -> bool:
    """Whether a folder contains a whole copy of a reference set, tuned alike."""
    try:
        copy, given = ReferenceSet.open(folder).manifest, references.manifest
        _ = ReferenceSet.open(folder).solved_weights  # raises where it is damaged
        return _has_rows(folder, references) and (copy.vanilla, copy.solved) == (given.vanilla, given.solved)
    except ReferenceSetError:
        return False


def _has_rows(folder: Path, references: ReferenceSet) -> bool:
    """Whether a folder contains the rows and the background statistics of a reference set."""
    try:
        copy = ReferenceSet.open(folder)
        return copy.fingerprint == references.fingerprint and copy.znorm.digest == references.znorm.digest
    except ReferenceSetError:
        return False


def _copy_graph(ram: LearnedRam, graph: Path) -> None:
    """Copy the graph of a RAM to a file, unless it is there and whole."""
    if graph.is_file() and sha256_of_file(graph) == sha256_of_file(ram.path):
        return
    make_folder(graph.parent, parents=False)
    with atomic_path(graph) as part:
        shutil.copyfile(ram.path, part)


def switch(writer: Writer, encoder: Encoder) -> None:
    """Put the encoder's reference set in force; none, if it is a base encoder.

    Raises:
        VideoIndexError: the index cannot be written; the old set stays in force.
    """
    store, manifest = writer.store, writer.manifest
    if not isinstance(encoder, AugmentedEncoder):
        writer.save_manifest(dataclasses.replace(manifest, augmentation=None))
        return
    in_force = manifest.augmentation
    augmentation = install(store, encoder)
    if in_force is not None and in_force.fingerprint == encoder.fingerprint:
        complete(writer, encoder)
        return
    with store.errors("write to"):
        store.make_neighbours(augmentation, manifest)
        # One block is blended while the next is read and the one before is written.
        compute = partial(_neighbours, encoder=encoder, manifest=manifest)
        with closing(read_ahead(_batches(store), compute, workers=1, ahead=2)) as blended:
            for rows in blended:
                store.table(augmentation.table).add(rows)
    writer.save_manifest(dataclasses.replace(manifest, augmentation=augmentation))


def complete(writer: Writer, encoder: Encoder) -> None:
    """Compute the rows that the neighbours table lacks from the stored vectors.

    Args:
        encoder: augmented by the set in force.

    Raises:
        VideoIndexError: the index cannot be written.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    store, manifest = writer.store, writer.manifest
    if not writer.unblended or manifest.augmentation is None or not isinstance(encoder, AugmentedEncoder):
        return
    lacking = pa.array([record.video_id for record in writer.unblended], pa.string())
    with store.errors("write to"):
        for batch in _batches(store):
            rows = batch.filter(pc.is_in(batch["video_id"], lacking))
            if len(rows):
                store.table(manifest.augmentation.table).add(_neighbours(rows, encoder, manifest))
    writer.blended()


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
