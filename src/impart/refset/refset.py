"""ReferenceSet: the image-text pairs kept aside as a cheat sheet, with their embeddings.

A saved set is a folder: `manifest.json`, and an Arrow IPC file with one row a pair, which is memory-mapped. Sets do
not change in memory; `add` and `merge` return a new one. Saving writes the new table beside the old one and then
replaces the manifest, which names it: killed at any moment, the folder holds the old set or the new one.

Embeddings are kept as float16: half the size, and neighbours and scores differ by less than 0.001 (measured in
docs/reference-sets.md). A set behaves the same before it is saved and after it is opened.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from impart.encoders.base import Encoder, Float32
from impart.errors import EncoderMismatchError, ReferenceSetError
from impart.files import library_versions, now, remove_stale, write_json_atomic
from impart.retrieval.nearest import IndexInfo, Neighbours, PairIndex
from impart.retrieval.znorm import ZNorm

if TYPE_CHECKING:
    import pyarrow as pa

    from impart.refset.build import PairsInput

__all__ = ["SCHEMA_VERSION", "ReferenceSetManifest", "ReferenceSet"]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
META_COLUMNS = ("id", "text", "source", "licence", "hash", "path")
VECTOR_COLUMNS = ("image", "text_embedding", "retrieval")

_KEY_OF_FIELD = {"znorm": "cohort"}  # as version 0.1.0 wrote it
_FIELD_OF_KEY = {key: name for name, key in _KEY_OF_FIELD.items()}


@dataclass(frozen=True, kw_only=True)
class ReferenceSetManifest:
    """What `manifest.json` says.

    Attributes:
        encoder_id: id of the encoder that made the embeddings.
        encoder_fingerprint: digest of its weights and preprocessing.
        fingerprint: digest over all rows.
        count: N.
        dim: D, width of image and text embeddings.
        retrieval_dim: R.
        storage: `float16` or `float32`.
        data: name of the Arrow file in the folder.
        name: for people.
        created: ISO 8601, UTC.
        sources: what it was made from, with counts.
        settings: resolved settings of the build.
        failed: pairs that could not be used (listed in failures.csv).
        duplicates: pairs dropped because the set had the same image with the same text.
        index: how nearest pairs are found, with its recall.
        znorm: name of the file with the statistics of random images; empty = the set's own images serve.
        vanilla: settings that `refset tune` or the model's recipe chose for this set; None = not tuned.
        versions: of the libraries that wrote it.
        schema: version of the layout.
    """

    encoder_id: str
    encoder_fingerprint: str
    fingerprint: str
    count: int
    dim: int
    retrieval_dim: int
    storage: str = "float16"
    data: str = ""
    name: str = ""
    created: str = ""
    sources: tuple[dict[str, Any], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    failed: int = 0
    duplicates: int = 0
    index: dict[str, Any] = field(default_factory=lambda: IndexInfo().as_dict())
    znorm: str = ""
    vanilla: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA_VERSION

    @classmethod
    def read(cls, folder: Path) -> ReferenceSetManifest:
        """Read and check `manifest.json`.

        Raises:
            ReferenceSetError: missing, damaged, or of another schema.
        """
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ReferenceSetError(f"{folder} holds no reference set: make one with 'impart refset build'") from error
        except (OSError, ValueError) as error:
            raise ReferenceSetError(f"{path} cannot be read: {error}. Build the set again") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA_VERSION:
            raise ReferenceSetError(f"{path} has schema {schema}, this version reads {SCHEMA_VERSION}: update impart")
        content = {_FIELD_OF_KEY.get(key, key): value for key, value in content.items()}
        known = {item.name for item in dataclasses.fields(cls)}
        try:
            content["sources"] = tuple(content["sources"])
            return cls(**{name: value for name, value in content.items() if name in known})
        except (KeyError, TypeError) as error:
            raise ReferenceSetError(f"{path} is incomplete: {error}. Build the set again") from error

    def write(self, folder: Path) -> None:
        """Replace `manifest.json` in one step."""
        content = {_KEY_OF_FIELD.get(name, name): value for name, value in dataclasses.asdict(self).items()}
        write_json_atomic(folder / MANIFEST, content)


class ReferenceSet:
    """N image-text pairs with embeddings of one encoder.

    Made by `open`, `build`, `from_arrays`, `add` and `merge`; not by hand.
    """

    def __init__(
        self,
        data: pa.Table,
        manifest: ReferenceSetManifest,
        *,
        folder: Path | None = None,
        znorm: ZNorm | None = None,
    ) -> None:
        self._data = data
        self._folder = folder
        self._znorm = znorm
        self.manifest = manifest

    @classmethod
    def open(cls, path: str | Path) -> ReferenceSet:
        """Open a saved set; vectors stay on disk until they are needed.

        Raises:
            ReferenceSetError: there is none, or it is damaged.
        """
        import pyarrow as pa

        folder = Path(path).expanduser()
        manifest = ReferenceSetManifest.read(folder)
        try:
            data = pa.ipc.open_file(pa.memory_map(str(folder / manifest.data))).read_all()
        except (OSError, pa.ArrowException) as error:
            raise ReferenceSetError(f"{folder / manifest.data} cannot be read: {error}. Build the set again") from error
        missing = {*META_COLUMNS, *VECTOR_COLUMNS} - set(data.column_names)
        if missing or data.num_rows != manifest.count:
            raise ReferenceSetError(
                f"{folder / manifest.data} holds {data.num_rows} pairs where the manifest says {manifest.count}"
                + (f", and lacks {', '.join(sorted(missing))}" if missing else "")
                + ". Build the set again"
            )
        return cls(data, manifest, folder=folder)

    @classmethod
    def build(cls, pairs: PairsInput, encoder: Encoder, **options: Any) -> ReferenceSet:
        """Encode pairs; see `impart.refset.build.build` for the options."""
        from impart.refset.build import build

        return build(pairs, encoder, **options)

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
        """A set from embeddings at hand, such as class prototypes, which have no image.

        Args:
            texts: N.
            image: (N, D), L2-normalised, like `text` (N, D) and `retrieval` (N, R).
            meta: N strings each of `source`, `licence`, `hash` and `path`, where the pairs differ in them.
        """
        from impart.refset.storage import RowWriter, sources_of

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
            sources=sources_of(data),
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
    def encoder_id(self) -> str:
        return self.manifest.encoder_id

    @property
    def encoder_fingerprint(self) -> str:
        return self.manifest.encoder_fingerprint

    @property
    def fingerprint(self) -> str:
        """Digest over all rows: equal fingerprints blend equally."""
        return self.manifest.fingerprint

    @property
    def table(self) -> pa.Table:
        """id, text, source, licence, hash, path: one row a pair."""
        return self._data.select(list(META_COLUMNS))

    @property
    def data(self) -> pa.Table:
        """All columns, with the stored vectors."""
        return self._data

    @cached_property
    def texts(self) -> tuple[str, ...]:
        return tuple(self._data["text"].to_pylist())

    @cached_property
    def image_embeddings(self) -> Float32:
        """(N, D)."""
        return self._vectors("image", self.manifest.dim)

    @cached_property
    def text_embeddings(self) -> Float32:
        """(N, D)."""
        return self._vectors("text_embedding", self.manifest.dim)

    @cached_property
    def retrieval_embeddings(self) -> Float32:
        """(N, R)."""
        return self._vectors("retrieval", self.manifest.retrieval_dim)

    @cached_property
    def images(self) -> npt.NDArray[np.int32]:
        """(N,) numbers of images: captions of one image (one hash) share a number; rows without a hash differ."""
        numbers: dict[str, int] = {}
        hashes = self._data["hash"].to_pylist()
        return np.array([numbers.setdefault(key or f"row {i}", len(numbers)) for i, key in enumerate(hashes)], np.int32)

    @cached_property
    def znorm(self) -> ZNorm:
        """What random images look like to the set: as given by `with_cohort`, or else its own images."""
        return self.given_znorm or ZNorm.of(self.retrieval_embeddings)

    @property
    def given_znorm(self) -> ZNorm | None:
        """The background statistics that the set was given, if any."""
        if self._znorm is None and self.manifest.znorm and self._folder is not None:
            self._znorm = ZNorm.load(self._folder / self.manifest.znorm)
        return self._znorm

    @cached_property
    def index(self) -> PairIndex:
        """The search over retrieval embeddings; an approximate one is kept beside the table."""
        return PairIndex(
            self.retrieval_embeddings,
            kind=self._index_kind,
            images=self.images,
            file=self._folder / self._index_name if self._folder is not None else None,
        )

    @property
    def _index_kind(self) -> str:
        return str(self.manifest.index["kind"])

    @property
    def _index_name(self) -> str:
        return f"pairs-{self.fingerprint[:16]}.{self._index_kind}"

    def search(self, retrieval: Float32, k: int, *, exclude: npt.NDArray[np.int32] | None = None) -> Neighbours:
        """The k nearest pairs of B retrieval embeddings.

        Args:
            retrieval: (B, R), L2-normalised.
            k: pairs wanted; where the set has fewer, ids are -1.
            exclude: (B,) numbers from `images` whose rows are left out (-1 = none).
        """
        return self.index.search(retrieval, k, exclude=exclude)

    def image_numbers(self, hashes: Iterable[str]) -> npt.NDArray[np.int32]:
        """Image number of each content hash, -1 where the set lacks it: for `search(exclude=...)`."""
        known = {key: int(number) for key, number in zip(self._data["hash"].to_pylist(), self.images, strict=True)}
        return np.array([known.get(key, -1) if key else -1 for key in hashes], dtype=np.int32)

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse another encoder than the one that made the set.

        Raises:
            EncoderMismatchError: names both and the remedy.
        """
        if encoder.fingerprint != self.encoder_fingerprint:
            raise EncoderMismatchError(
                f"reference set {self.name!r} was made with encoder {self.encoder_id!r} "
                f"({self.encoder_fingerprint[:12]}), not with {encoder.traits.id!r} ({encoder.fingerprint[:12]}): "
                "use that encoder, or build the set again with this one"
            )

    def save(self, path: str | Path) -> Path:
        """Write the set to a folder, in place of one that is there.

        Raises:
            ReferenceSetError: the folder cannot be written.
        """
        from impart.refset.storage import write_table

        folder = Path(path).expanduser()
        name = self.name or folder.resolve().name
        data = f"pairs-{self.fingerprint[:16]}.arrow"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / data).is_file():
                write_table(self._data, folder / data)
            if self._index_kind != "exact" and not (folder / self._index_name).is_file():
                self.index.write(folder / self._index_name)
            znorm = self._save_znorm(folder)
            dataclasses.replace(self.manifest, data=data, name=name, znorm=znorm).write(folder)
        except OSError as error:
            raise ReferenceSetError(f"cannot write reference set {folder}: {error.strerror}") from error
        # Of earlier sets and of killed writers; one that another process still maps may stay.
        keep = {data.removesuffix(".arrow"), znorm.removesuffix(".npy")}
        remove_stale(folder, ("pairs-*", ".pairs-*", "cohort-*", ".cohort-*"), keep=keep)
        return folder

    def _save_znorm(self, folder: Path) -> str:
        if self.given_znorm is None:
            return ""
        name = f"cohort-{self.given_znorm.digest}.npy"
        if not (folder / name).is_file():
            self.given_znorm.save(folder / name)
        return name

    def with_vanilla(self, settings: dict[str, Any] | None) -> ReferenceSet:
        """The same pairs with other blending settings in the manifest."""
        manifest = dataclasses.replace(self.manifest, vanilla=settings)
        return ReferenceSet(self._data, manifest, folder=self._folder, znorm=self._znorm)

    def with_znorm(self, znorm: ZNorm | None) -> ReferenceSet:
        """The same pairs beside other random images; None = the set's own."""
        manifest = dataclasses.replace(self.manifest, znorm="")
        return ReferenceSet(self._data, manifest, folder=self._folder, znorm=znorm)

    def named(self, name: str) -> ReferenceSet:
        """The same pairs under another name."""
        manifest = dataclasses.replace(self.manifest, name=name)
        return ReferenceSet(self._data, manifest, folder=self._folder, znorm=self._znorm)

    def add(self, pairs: PairsInput, encoder: Encoder, **options: Any) -> ReferenceSet:
        """Encode more pairs and join them; pairs that the set has already are dropped and counted.

        Raises:
            EncoderMismatchError: the encoder is not the one that made the set.
        """
        from impart.refset.build import build

        self.check_encoder(encoder)
        return self.merge(build(pairs, encoder, **{"storage": self.manifest.storage, **options}))

    def merge(self, *others: ReferenceSet) -> ReferenceSet:
        """One set of all pairs, without duplicates (same image with the same text).

        The result is untuned: settings chosen for one set need not suit another.

        Raises:
            EncoderMismatchError: they were made with different encoders.
        """
        from impart.refset.storage import merge

        return merge([self, *others])

    def without(self, rows: Iterable[int]) -> ReferenceSet:
        """The set without some rows: with its settings, and its background statistics where it was given one.

        Args:
            rows: row numbers; none of them = the set itself.
        """
        from impart.refset.storage import without

        return without(self, rows)

    def take(self, rows: npt.ArrayLike, *, texts_of: npt.ArrayLike | None = None) -> ReferenceSet:
        """Some rows in the order given: with the settings, and the background statistics where one was given.

        Args:
            rows: n row numbers; `impart.refset.subsets` chooses them.
            texts_of: n row numbers whose texts, with their embeddings, the rows get in place of their own.
        """
        from impart.refset.storage import take

        return take(self, rows, texts_of=texts_of)

    def _vectors(self, column: str, width: int) -> Float32:
        chunks = [c.flatten().to_numpy(zero_copy_only=True) for c in self._data[column].chunks]
        flat = chunks[0] if len(chunks) == 1 else np.concatenate(chunks) if chunks else np.empty(0)
        vectors: Float32 = flat.reshape(-1, width).astype(np.float32, copy=False)
        return vectors
