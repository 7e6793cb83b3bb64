"""ReferenceSet: image-text pairs kept aside for retrieval, with their embeddings for one encoder.

A saved set is a folder: `manifest.json`, and an Arrow IPC file with one row per pair, which is memory-mapped. Sets are
immutable; `add` and `merge` return a new one. Saving writes the new table beside the old one and then replaces the
manifest, which names the table. A process killed at any moment leaves the old set or the new one.

Embeddings are stored as float16: half the size, and neighbours and scores differ by less than 0.001 (measured in
docs/reference-sets.md). A set gives the same results before it is saved and after it is opened.

A set of more than `ANN_ABOVE` pairs is never whole in memory for looking up and blending: `image_rows`, `text_rows` and
`retrieval_rows` gather the rows that are needed. The properties `*_embeddings` are whole arrays, at any size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder, Float32
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.files import library_versions, make_folder, now, remove_stale
from impart.refset import combine
from impart.refset.build import PairsInput, build
from impart.refset.manifest import ReferenceSetManifest
from impart.refset.storage import (
    META_COLUMNS,
    VECTOR_COLUMNS,
    RowWriter,
    StoredTable,
    file_name,
    load_weights,
    pieces,
    read_rows,
    save_weights,
    vectors,
    write_rows,
)
from impart.refset.texts import StoredTexts
from impart.retrieval.near_duplicates import CopyBounds
from impart.retrieval.nearest import ANN_ABOVE, IndexInfo, Neighbours, PairIndex, kind_of
from impart.retrieval.rows import MappedFile, StoredRows
from impart.retrieval.znorm import ZNorm

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ReferenceSet"]

_HEX = "[0-9a-f]" * 16
_KINDS = ("pairs", ".pairs", "cohort", ".cohort", "solved", ".solved")
_OWN_FILES = (*(f"{kind}-{_HEX}.*" for kind in _KINDS), ".pairs-building.*", ".manifest.json.*.part")
"""Patterns of the files of a set; other files of its folder belong to others."""


class ReferenceSet:
    """N image-text pairs with embeddings of one encoder.

    Made by `open`, `build`, `from_arrays`, `add`, `merge`, `take` and `without`; not by the constructor.

    Example:
        >>> import numpy as np
        >>> vectors = np.eye(3, dtype=np.float32)  # one L2-normalised vector per pair
        >>> references = ReferenceSet.from_arrays(
        ...     ["a red wall", "a dog", "a tree"],
        ...     image=vectors,
        ...     text=vectors,
        ...     retrieval=vectors,
        ...     encoder_id="mini",
        ...     encoder_fingerprint="0123456789abcdef",
        ... )
        >>> nearest = references.search(vectors[1:2], k=1)
        >>> references.texts[nearest.ids[0, 0]]
        'a dog'
    """

    def __init__(
        self,
        data: pa.Table,
        manifest: ReferenceSetManifest,
        *,
        folder: Path | None = None,
        znorm: ZNorm | None = None,
        weights: Float32 | None = None,
        file: MappedFile | None = None,
    ) -> None:
        self._data = data
        self._folder = folder
        self._znorm = znorm
        self._weights = weights
        self._file = file
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> ReferenceSet:
        """Open a saved set; vectors stay on disk until they are needed.

        Raises:
            ReferenceSetError: there is none, or it is damaged.
        """
        folder = Path(path).expanduser()
        manifest = ReferenceSetManifest.read(folder)
        if kind_of(manifest.index["kind"], manifest.count) == "exact":  # earlier versions searched few pairs otherwise
            manifest = dataclasses.replace(manifest, index=IndexInfo().as_dict())
        rows = _rows_of(folder, manifest)
        return cls(rows.data, manifest, folder=folder, file=rows.file)

    @classmethod
    def build(
        cls, pairs: PairsInput, encoder: Encoder, *, path: str | Path | None = None, index: str = "auto", **options: Any
    ) -> ReferenceSet:
        """Encode pairs into a reference set.

        Args:
            pairs: a file or folder (see `impart.refset.pairs.read_pairs`), or pairs: `Pair`, or (image, text).
            encoder: its fingerprint is stored; the set serves this encoder alone.
            path: folder to write to, with `failures.csv` and, for a hold-out, `rest.csv` (pairs that training may use).
                None = keep the set in memory.
            index: `auto`, `exact`, `hnsw` or `ivf`; fewer than `EXACT_BELOW` pairs are always searched exactly.
            options: see `impart.refset.build.build`.

        Raises:
            ReferenceSetError: the source cannot be read, or no pair of it could be used.
        """
        built = build(pairs, encoder, path=path, **options)
        references = cls(built.rows.data, built.manifest, file=built.rows.file)._indexed(index)
        if path is None:
            return references
        folder = references.save(path)
        built.write_lists(folder)
        return cls.open(folder)

    @classmethod
    def from_arrays(
        cls,
        texts: Sequence[str],
        *,
        image: npt.NDArray[Any],
        text: npt.NDArray[Any],
        retrieval: npt.NDArray[Any],
        encoder_id: str,
        encoder_fingerprint: str,
        name: str = "",
        source: str = "",
        licence: str = "",
        storage: str = "float16",
        vanilla: dict[str, Any] | None = None,
        meta: Mapping[str, Sequence[str]] | None = None,
    ) -> ReferenceSet:
        """Make a set from given embeddings, such as class prototypes, which have no image.

        Args:
            texts: N.
            image: (N, D), L2-normalised, like `text` (N, D) and `retrieval` (N, R).
            meta: N strings each of `source`, `licence`, `hash`, `path` and `phash`, where the pairs differ in them.
        """
        writer = RowWriter(dim=image.shape[1], retrieval_dim=retrieval.shape[1], storage=storage)
        count = len(texts)
        blank = [""] * count
        writer.write(
            {
                "text": list(texts),
                "source": [source] * count,
                "licence": [licence] * count,
                "hash": blank,
                "path": blank,
                **{column: list(values) for column, values in (meta or {}).items()},
            },
            image=image,
            text_embedding=text,
            retrieval=retrieval,
        )
        data = writer.table()
        manifest = ReferenceSetManifest(
            encoder_id=encoder_id,
            encoder_fingerprint=encoder_fingerprint,
            fingerprint=writer.fingerprint,
            count=count,
            dim=image.shape[1],
            retrieval_dim=retrieval.shape[1],
            storage=storage,
            name=name,
            created=now(),
            sources=writer.sources,
            vanilla=vanilla,
            versions=library_versions(),
        )
        return cls(data, manifest)

    def __len__(self) -> int:
        return self.manifest.count

    def __repr__(self) -> str:
        return f"ReferenceSet({self.name!r}, {len(self)} pairs, encoder {self.encoder_id!r})"

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def folder(self) -> Path | None:
        """Folder that the set was opened from; None for a set in memory."""
        return self._folder

    @property
    def encoder_id(self) -> str:
        return self.manifest.encoder_id

    @property
    def encoder_fingerprint(self) -> str:
        return self.manifest.encoder_fingerprint

    @property
    def fingerprint(self) -> str:
        """Digest over all rows; sets with equal fingerprints give equal blends."""
        return self.manifest.fingerprint

    @property
    def table(self) -> pa.Table:
        """Columns id, text, source, licence, hash, path and phash; one row per pair."""
        return self._data.select(list(META_COLUMNS))

    @property
    def data(self) -> pa.Table:
        """All columns, including the stored vectors."""
        return self._data

    @cached_property
    def texts(self) -> Sequence[str]:
        """The N texts; of a large set they are read from disk one by one."""
        return StoredTexts(self._data["text"]) if self._is_large else tuple(self._data["text"].to_pylist())

    @cached_property
    def image_embeddings(self) -> Float32:
        """Image embeddings (N, D), float32."""
        return self._float32("image")

    @cached_property
    def text_embeddings(self) -> Float32:
        """Text embeddings (N, D), float32."""
        return self._float32("text_embedding")

    @cached_property
    def retrieval_embeddings(self) -> Float32:
        """Retrieval embeddings (N, R), float32."""
        return self._float32("retrieval")

    @cached_property
    def image_rows(self) -> Float32 | StoredRows:
        """Image embeddings (N, D) to gather from, or to multiply with."""
        return self._rows("image") if self._is_large else self.image_embeddings

    @cached_property
    def text_rows(self) -> Float32 | StoredRows:
        """Text embeddings (N, D), as `image_rows`."""
        return self._rows("text_embedding") if self._is_large else self.text_embeddings

    @cached_property
    def retrieval_rows(self) -> Float32 | StoredRows:
        """Retrieval embeddings (N, R), as `image_rows`."""
        return self._rows("retrieval") if self._is_large else self.retrieval_embeddings

    @cached_property
    def images(self) -> npt.NDArray[np.int32]:
        """Image number of each row, (N,): captions of one image (one hash) share it; rows without a hash differ."""
        import pyarrow as pa
        import pyarrow.compute as pc

        hashes = self._data["hash"]
        names = pc.binary_join_element_wise("row", pa.array(np.arange(len(hashes))).cast(pa.string()), " ")
        numbered = pc.if_else(pc.equal(hashes, ""), names, hashes).dictionary_encode()
        chunks = [chunk.indices.to_numpy() for chunk in numbered.chunks]  # in the order of the first rows
        return np.concatenate([np.empty(0, np.int32), *chunks]).astype(np.int32, copy=False)

    @cached_property
    def znorm(self) -> ZNorm:
        """Background statistics: those given by `with_znorm`, or else those of the set's own images."""
        return self._znorm or self._stored_znorm or ZNorm.of(self.retrieval_rows)

    @property
    def given_znorm(self) -> ZNorm | None:
        """Background statistics given to the set; None = it has none but its own."""
        return self._znorm or (None if self.manifest.own_znorm else self._stored_znorm)

    @cached_property
    def _stored_znorm(self) -> ZNorm | None:
        """Background statistics in the folder: given ones, or those of the set's own images where it is large."""
        if not self.manifest.znorm or self._folder is None:
            return None
        path = self._folder / self.manifest.znorm
        stored = ZNorm.load(path, width=self.manifest.retrieval_dim)
        if stored.digest not in path.name:
            raise ReferenceSetError(f"{path} is damaged. Build the set again, or restore it from a copy")
        return stored

    @cached_property
    def solved_weights(self) -> Float32 | None:
        """Weights (N, C) that `with_solved` stored; None = they are computed from the rows."""
        if self._weights is not None or not self.manifest.weights or self._folder is None:
            return self._weights
        return load_weights(self._folder / self.manifest.weights)

    @cached_property
    def index(self) -> PairIndex:
        """Nearest-neighbour index over the retrieval embeddings; an approximate one is stored beside the table."""
        return PairIndex(
            self.retrieval_rows,
            kind=self._index_kind,
            images=lambda: self.images,
            file=self._folder / self._index_name if self._folder is not None else None,
        )

    @cached_property
    def copy_bounds(self) -> CopyBounds:
        """Bounds of the cosine of copies, by the set's own unrelated images."""
        return CopyBounds.of(self.retrieval_rows, self.texts, self.images)

    @property
    def _is_large(self) -> bool:
        return len(self) > ANN_ABOVE

    @property
    def _index_kind(self) -> str:
        return str(self.manifest.index["kind"])

    @property
    def _index_name(self) -> str:
        return f"pairs-{self.fingerprint[:16]}.{self._index_kind}"

    def search(self, retrieval: Float32, k: int, *, exclude: npt.NDArray[np.int32] | None = None) -> Neighbours:
        """Search the k nearest pairs of B retrieval embeddings.

        Args:
            retrieval: (B, R), L2-normalised.
            k: pairs wanted; where the set has fewer, ids are -1.
            exclude: (B,) numbers from `images`; their rows are left out (-1 = none).
        """
        return self.index.search(retrieval, k, exclude=exclude)

    def image_numbers(self, hashes: Iterable[str]) -> npt.NDArray[np.int32]:
        """Map content hashes to image numbers, for `search(exclude=...)`; -1 where the set lacks the image."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = pa.array(hashes, pa.string())
        rows = pc.index_in(wanted, value_set=self._data["hash"]).fill_null(-1).to_numpy()
        rows = np.where(pc.equal(wanted, "").to_numpy(zero_copy_only=False), -1, rows)
        return np.append(self.images, np.int32(-1))[rows].astype(np.int32, copy=False)

    def check_encoder(self, encoder: Encoder) -> None:
        """Check that an encoder is the one that made the set.

        Raises:
            EncoderMismatchError: it is another one.
        """
        if encoder.fingerprint != self.encoder_fingerprint:
            raise EncoderMismatchError(
                f"reference set {self.name!r} was made with encoder {self.encoder_id!r} "
                f"({self.encoder_fingerprint[:12]}), not with {encoder.traits.id!r} ({encoder.fingerprint[:12]}): "
                "use that encoder, or build the set again with this one"
            )

    def save(self, path: str | Path) -> Path:
        """Write the set to a folder; a set that is there is replaced.

        Raises:
            ReferenceSetError: the folder cannot be written.
        """
        folder = Path(path).expanduser()
        name = self.name or folder.resolve().name
        data = file_name(self.fingerprint)
        try:
            make_folder(folder)
            if not _has_rows(folder, dataclasses.replace(self.manifest, data=data)):
                write_rows(self._data, folder / data, release=self._file.release if self._file else None)
            if self._index_kind != "exact" and not (folder / self._index_name).is_file():
                self.index.write(folder / self._index_name)
            znorm, own = self._save_znorm(folder)
            weights = "" if self.solved_weights is None else save_weights(self.solved_weights, folder)
            places: dict[str, Any] = {"data": data, "znorm": znorm, "own_znorm": own, "weights": weights}
            dataclasses.replace(self.manifest, name=name, **places).write(folder)
        except OSError as error:
            raise ReferenceSetError(f"cannot write reference set {folder}: {error.strerror or error}") from error
        # Files of earlier sets and of killed writers; one that another process still maps may remain.
        keep = {data.removesuffix(".arrow"), znorm.removesuffix(".npy"), weights.removesuffix(".npy")}
        remove_stale(folder, _OWN_FILES, keep=keep)
        return folder

    def _save_znorm(self, folder: Path) -> tuple[str, bool]:
        """Write the background statistics: (name of the file, whether they are those of the set's own images)."""
        own = self.given_znorm is None
        if own and not self._is_large:  # computed again in no time
            return "", False
        name = f"cohort-{self.znorm.digest}.npy"
        self.znorm.save(folder / name)
        return name, own

    def with_vanilla(self, settings: dict[str, Any] | None) -> ReferenceSet:
        """Return the set with other blending settings in the manifest; those of solved references are dropped."""
        return self._replaced(vanilla=settings, solved=None, weights="")

    def with_solved(self, settings: dict[str, Any], weights: Float32) -> ReferenceSet:
        """Return the set with solved weights (N, C) and their settings; those of Vanilla stay beside them.

        `impart.blending.solved` computes them. They belong to these rows: `take` and `without` keep the settings
        alone.
        """
        assert len(weights) == len(self), (weights.shape, len(self))
        chosen = self._replaced(solved=settings, weights="")
        chosen._weights = np.ascontiguousarray(weights, dtype=np.float32)
        return chosen

    def with_znorm(self, znorm: ZNorm | None) -> ReferenceSet:
        """Return the set with other background statistics; None = those of its own images."""
        manifest = dataclasses.replace(self.manifest, znorm="", own_znorm=False, weights="")
        return ReferenceSet(self._data, manifest, folder=self._folder, znorm=znorm, file=self._file)

    def named(self, name: str) -> ReferenceSet:
        """Return the set under another name."""
        return self._replaced(name=name)

    def add(self, pairs: PairsInput, encoder: Encoder, **options: Any) -> ReferenceSet:
        """Encode more pairs and merge them; pairs that the set already has are dropped and counted.

        Args:
            pairs: as in `build`.
            encoder: the one that made the set.
            options: see `impart.refset.build.build`.

        Raises:
            EncoderMismatchError: the encoder is not the one that made the set.
        """
        self.check_encoder(encoder)
        return self.merge(ReferenceSet.build(pairs, encoder, **{"storage": self.manifest.storage, **options}))

    def merge(self, *others: ReferenceSet) -> ReferenceSet:
        """Merge sets without duplicates (same image with the same text).

        The result is untuned: settings chosen for one set need not suit another.

        Raises:
            EncoderMismatchError: they were made with different encoders.
        """
        sets = (self, *others)
        data, manifest = combine.merge([(part.data, part.manifest) for part in sets])
        znorm = next((part.given_znorm for part in sets if part.given_znorm is not None), None)
        kinds = {part._index_kind for part in sets} - {"exact"}
        return ReferenceSet(data, manifest, znorm=znorm)._indexed(kinds.pop() if len(kinds) == 1 else "auto")

    def without(self, rows: Iterable[int]) -> ReferenceSet:
        """Leave out some rows; settings and given background statistics are kept.

        Args:
            rows: row numbers; none of them = the set itself.
        """
        dropped = np.unique(np.fromiter((int(row) for row in rows), dtype=np.int64))
        if not len(dropped):
            return self
        data, manifest = combine.without(self._data, self.manifest, dropped)
        return ReferenceSet(data, manifest, znorm=self.given_znorm)._indexed(self._index_kind)

    def take(self, rows: npt.ArrayLike, *, texts_of: npt.ArrayLike | None = None) -> ReferenceSet:
        """Take some rows in the order given; settings and given background statistics are kept.

        Args:
            rows: n row numbers; `impart.refset.subsets` chooses them.
            texts_of: n row numbers whose texts, with their embeddings, replace those of the rows.
        """
        data, manifest = combine.take(self._data, self.manifest, rows, texts_of=texts_of)
        return ReferenceSet(data, manifest, znorm=self.given_znorm)._indexed(self._index_kind)

    def _replaced(self, **changes: Any) -> ReferenceSet:
        manifest = dataclasses.replace(self.manifest, **changes)
        weights = None if "weights" in changes else self._weights
        given: dict[str, Any] = {"znorm": self._znorm, "weights": weights, "file": self._file}
        return ReferenceSet(self._data, manifest, folder=self._folder, **given)

    def _indexed(self, kind: str) -> ReferenceSet:
        """Return the set with this kind of index; the recall of an approximate one is measured."""
        index: PairIndex | None = None
        info = IndexInfo()
        if kind_of(kind, len(self)) != "exact":
            index = PairIndex(self.retrieval_rows, kind=kind, images=lambda: self.images)
            info = index.measure()
        chosen = self._replaced(index=info.as_dict())
        if index is not None:
            chosen.__dict__["index"] = index  # it was built for the measurement
        return chosen

    def _float32(self, column: str) -> Float32:
        return vectors(self._data, column).astype(np.float32, copy=False)

    def _rows(self, column: str) -> StoredRows:
        width = self._data.schema.field(column).type.list_size
        return StoredRows(pieces(self._data, column), width=width, file=self._file)


def _rows_of(folder: Path, manifest: ReferenceSetManifest) -> StoredTable:
    path = folder / manifest.data
    rows = read_rows(path, count=manifest.count, fingerprint=manifest.fingerprint, storage=manifest.storage)
    widths = tuple(rows.data.schema.field(column).type.list_size for column in VECTOR_COLUMNS)
    if widths != (manifest.dim, manifest.dim, manifest.retrieval_dim):
        raise ReferenceSetError(
            f"{path} has vectors of width {widths}, the manifest states {manifest.dim} and {manifest.retrieval_dim}. "
            "Build the set again"
        )
    return rows


def _has_rows(folder: Path, manifest: ReferenceSetManifest) -> bool:
    """Whether the rows of a set are in a folder, whole."""
    try:
        return (folder / manifest.data).is_file() and _rows_of(folder, manifest) is not None
    except ReferenceSetError:
        return False
