"""Build the rows of a reference set: choose pairs from a source, encode them in batches, write rows as they come.

When the rows are written to a folder, a few batches are in memory, however long the source is. A pair that cannot be
used is counted and listed with its reason, and the build continues. `ReferenceSet.build` makes a set of the rows.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from impart.encoders.base import Encoder, Float32
from impart.encoders.cluster.connection import EngineInput, RayEngine, check_engine
from impart.errors import ConfigError, ReferenceSetError
from impart.files import library_versions, make_folder, move_synced, now, read_ahead, write_csv_atomic
from impart.images import ImageSource
from impart.refset.engines.reading import KEPT_TEXTS, READERS, LoadedPair, load_pair
from impart.refset.journal import Journal
from impart.refset.manifest import ReferenceSetManifest
from impart.refset.pairs import Columns, Pair, read_pairs
from impart.refset.seen import SeenPairs
from impart.refset.storage import STORAGES, RowWriter, StoredTable, file_name, read_rows
from impart.retrieval.prompts import prompt_ensemble

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL import Image

    from impart.encoders.cluster.pool import Lost, Ready

__all__ = ["BuildProgress", "BuiltRows", "Failure", "PairsInput", "Selection", "build", "select"]

PairsInput: TypeAlias = "str | Path | Iterable[Pair | tuple[ImageSource, str]]"
_MAX_MEGAPIXELS = 100.0


@dataclass(frozen=True)
class Failure:
    """A pair that could not be used, with the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class BuildProgress:
    """Counts of pairs after each batch."""

    read: int
    written: int
    failed: int
    duplicates: int


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Choice of the pairs of a source that become references.

    Attributes:
        fraction: share of the *images* held out as references; an image's captions stay together. The paper holds
            out a tenth and trains on the rest.
        limit: at most this many pairs; 0 = all.
        per_class: at most this many pairs of each text; 0 = all.
        seed: of the draw for `fraction`; with `shuffle`, also of which pairs `limit` and `per_class` take.
        shuffle: take pairs at random instead of the first in order.
    """

    fraction: float = 1.0
    limit: int = 0
    per_class: int = 0
    seed: int = 0
    shuffle: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction is {self.fraction}: it must be above 0 and at most 1")
        if self.limit < 0 or self.per_class < 0:
            raise ConfigError("limit and per_class must not be negative; 0 takes all")


def select(pairs: Iterable[Pair], selection: Selection) -> Iterator[tuple[Pair, bool]]:
    """Mark each pair that becomes a reference.

    The fraction is exact: `round(fraction * images)`, drawn with the seed.

    Returns:
        Every pair in the order of the source, with True where it becomes a reference.

    >>> pairs = [Pair(image=b"", text=t, path=str(i)) for i, t in enumerate("aabbbc")]
    >>> [pair.path for pair, taken in select(pairs, Selection(per_class=1)) if taken]
    ['0', '2', '5']
    """
    rng = np.random.default_rng(selection.seed)
    held: set[str] | None = None
    order: Sequence[int] | None = None
    if selection.fraction < 1 or selection.shuffle:
        pairs = list(pairs)
        if selection.fraction < 1:
            keys = list(dict.fromkeys(pair.image_key for pair in pairs if not pair.problem))
            count = round(selection.fraction * len(keys))
            held = {keys[i] for i in rng.choice(len(keys), count, replace=False)}
        if selection.shuffle:
            order = rng.permutation(len(pairs)).tolist()
    taken_of: Counter[str] = Counter()
    taken = 0

    def wanted(pair: Pair) -> bool:
        nonlocal taken
        if pair.problem:  # it is listed among the failures, and counts for no limit
            return True
        if held is not None and pair.image_key not in held:
            return False
        if selection.limit and taken >= selection.limit:
            return False
        if selection.per_class and taken_of[pair.text] >= selection.per_class:
            return False
        taken += 1
        taken_of[pair.text] += 1
        return True

    if order is not None:
        listed = list(pairs)
        chosen = {i for i in order if wanted(listed[i])}
        yield from ((pair, i in chosen) for i, pair in enumerate(listed))
    else:
        for pair in pairs:
            if selection.limit and taken >= selection.limit and held is None:
                yield pair, False
            else:
                yield pair, wanted(pair)


@dataclass(frozen=True)
class BuiltRows:
    """Rows of a new reference set, not yet saved as one.

    Attributes:
        rows: the table of rows.
        manifest: without the index, which `ReferenceSet.build` chooses.
        failures: pairs that could not be used.
        rest: list of the pairs that are not held out.
        journal: of the build, for a set in a folder.
    """

    rows: StoredTable
    manifest: ReferenceSetManifest
    failures: tuple[Failure, ...]
    rest: RestList
    journal: Journal | None = None

    def write_lists(self, folder: Path) -> None:
        """Write `failures.csv` and, for a hold-out, `rest.csv`: call it once the manifest names the rows."""
        path = folder / "failures.csv"
        if self.failures:
            rows = ((failure.path, failure.reason) for failure in self.failures)
            write_csv_atomic(path, ("path", "reason"), rows, line_end="\r\n")
        else:
            path.unlink(missing_ok=True)
        self.rest.commit()
        if self.journal is not None:
            self.journal.remove()


def build(
    pairs: PairsInput,
    encoder: Encoder,
    *,
    path: str | Path | None = None,
    columns: Columns | None = None,
    class_names: str | Path | None = None,
    selection: Selection | None = None,
    prompts: Sequence[str] = (),
    source: str = "",
    licence: str = "",
    name: str = "",
    storage: str = "float16",
    batch: int = 32,
    max_megapixels: float = _MAX_MEGAPIXELS,
    replace: bool = False,
    on_resume: Callable[[int], None] | None = None,
    on_progress: Callable[[BuildProgress], None] | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    engine: EngineInput = "local",
    on_worker: Callable[[Ready | Lost], None] | None = None,
) -> BuiltRows:
    """Encode pairs into rows.

    A build of a file or folder into `path` that was stopped is continued by a build with the same settings (`journal`).

    Args:
        pairs: a file or folder (see `pairs.read_pairs`), or pairs: `Pair`, or (image, text).
        encoder: its fingerprint is stored; the set serves this encoder alone.
        path: folder to write rows to, batch by batch, and `rest.csv` for a hold-out (file, text, source, licence of the
            pairs that training may use). None = keep the rows in memory.
        columns: of tables.
        class_names: file with the names of class numbers or codes (see `pairs.read_pairs`).
        selection: the pairs that are taken; default all.
        prompts: templates with `{}`; a text's embedding is the mean over them (class names). None = the text as it is.
        source: collection of the pairs that name none.
        licence: licence of the pairs that state none.
        name: of the set; default is the folder's.
        storage: `float16` or `float32`.
        batch: images per forward pass.
        max_megapixels: larger images are refused.
        replace: start anew where `path` contains a build that was stopped and had other settings.
        on_resume: called with the number of pairs read before, where such a build is continued.
        on_progress: called after each batch.
        on_failure: called for each pair that could not be used.
        engine: `local`, or `ray` (or a `RayEngine`): workers read and encode, this process writes. The set is the same.
        on_worker: called for each worker of `ray` that is ready, or lost.

    Raises:
        ConfigError: there is no such storage, or no such engine.
        MissingExtraError, ClusterError: of `ray`.
        ReferenceSetError: the source cannot be read, or no pair of it could be used.
    """
    if storage not in STORAGES:
        raise ConfigError(f"storage is {storage!r}: use {' or '.join(STORAGES)}")
    ray = check_engine(engine)
    selection = selection or Selection()
    folder = Path(path).expanduser() if path is not None else None
    traits = encoder.traits
    if folder is not None:
        try:
            make_folder(folder)
        except OSError as error:
            raise ReferenceSetError(f"cannot write reference set {folder}: {error.strerror}") from error
    run = _Run(encoder=encoder, prompts=tuple(prompts), max_megapixels=max_megapixels)
    settings = {
        "input": str(pairs) if isinstance(pairs, (str, Path)) else "pairs in memory",
        "prompts": list(prompts),
        "max_megapixels": max_megapixels,
        **dataclasses.asdict(selection),
    }
    if folder is not None and isinstance(pairs, (str, Path)):
        given = {
            "columns": dataclasses.asdict(columns) if columns is not None else None,
            "class_names": str(class_names),
            "source": source,
            "licence": licence,
            "storage": storage,
            "encoder": encoder.fingerprint,
        }
        run.journal = Journal(folder, {**settings, "input": str(Path(pairs).resolve()), **given}, replace=replace)
    if isinstance(pairs, (str, Path)):
        listed: Iterable[Pair] = read_pairs(
            Path(pairs),
            columns=columns,
            class_names=Path(class_names) if class_names is not None else None,
            source=source,
            licence=licence,
            on_failure=run.fail,
            on_note=run.notes.append,
        )
        name = name or Path(pairs).resolve().stem
    else:
        listed = _as_pairs(pairs, source=source, licence=licence)
    temporary = folder / f".pairs-building.{os.getpid()}" if folder is not None else None
    writer = RowWriter(dim=traits.dim, retrieval_dim=traits.retrieval_dim, storage=storage, path=temporary)
    rest = RestList(folder if selection.fraction < 1 else None)
    try:
        chosen = rest.divert(select(listed, selection))
        run.restore(chosen, writer)
        if run.read and on_resume is not None:
            on_resume(run.read)
        with _batches(chosen, run, batch=batch, ray=ray, on_worker=on_worker) as batches:
            for items in batches:
                run.encode(items, writer)
                run.report_failures(on_failure)
                if on_progress is not None:
                    on_progress(BuildProgress(run.read, writer.count, len(run.failures), run.duplicates))
        run.report_failures(on_failure)
        writer.close()
        if not writer.count:
            first = f"; the first: {run.failures[0].path}: {run.failures[0].reason}" if run.failures else ""
            raise ReferenceSetError(
                f"no pair of {name or 'the source'} could be used ({len(run.failures)} failed{first})"
            )
    except BaseException:
        writer.discard()
        rest.discard()
        if run.journal is not None:
            run.journal.discard_empty()
        if folder is not None:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only an empty one: a build that fails leaves nothing behind
        raise
    if folder is not None and temporary is not None:
        # Only now that the rows are complete: a build that fails leaves the set that was there unchanged.
        target = folder / file_name(writer.fingerprint)
        move_synced(temporary, target)
        rows = read_rows(target, count=writer.count, fingerprint=writer.fingerprint, storage=storage)
    else:
        rows = StoredTable(writer.table())
    manifest = ReferenceSetManifest(
        encoder_id=traits.id,
        encoder_fingerprint=encoder.fingerprint,
        fingerprint=writer.fingerprint,
        count=writer.count,
        dim=traits.dim,
        retrieval_dim=traits.retrieval_dim,
        storage=storage,
        data=file_name(writer.fingerprint) if folder is not None else "",
        name=(folder.resolve().name if folder is not None else "") or name,
        created=now(),
        sources=writer.sources,
        settings=settings,
        failed=len(run.failures),
        duplicates=run.duplicates,
        notes=tuple(run.notes),
        versions=library_versions(),
    )
    return BuiltRows(rows, manifest, tuple(run.failures), rest, run.journal)


@contextmanager
def _batches(
    pairs: Iterable[Pair],
    run: _Run,
    *,
    batch: int,
    ray: RayEngine | None,
    on_worker: Callable[[Ready | Lost], None] | None,
) -> Iterator[Iterator[list[LoadedPair]]]:
    """Read pairs in batches; with workers, their images are encoded already, and `run` gets the results."""
    if ray is None:
        with closing(read_ahead(pairs, run.load, workers=READERS, ahead=2 * batch)) as loaded:
            yield iter(lambda: list(itertools.islice(loaded, batch)), [])
        return
    from impart.refset.engines.sharded import open_sharded

    with open_sharded(
        run.encoder,
        engine=ray,
        batch=batch,
        prompts=run.prompts,
        max_megapixels=run.max_megapixels,
        on_worker=on_worker,
    ) as sharded:
        run.encoder = sharded
        yield sharded.batches(pairs)


class RestList:
    """List of the pairs that are not held out: `rest.csv`, for training.

    Args:
        folder: where it is written; None = every pair is a reference, and there is no list.
    """

    def __init__(self, folder: Path | None) -> None:
        self._target = folder / "rest.csv" if folder is not None else None
        self._temporary = folder / f".rest.{os.getpid()}" if folder is not None else None

    def divert(self, chosen: Iterable[tuple[Pair, bool]]) -> Iterator[Pair]:
        """Yield the chosen pairs and list the others."""
        if self._temporary is None:
            yield from (pair for pair, taken in chosen if taken)
            return
        with self._temporary.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("file", "text", "source", "licence"))
            for pair, taken in chosen:
                if taken:
                    yield pair
                else:
                    rows.writerow((pair.image_key, pair.text, pair.source, pair.licence))

    def commit(self) -> None:
        """Put the list in place."""
        if self._temporary is not None and self._target is not None and self._temporary.is_file():
            move_synced(self._temporary, self._target)

    def discard(self) -> None:
        """Remove an unfinished list."""
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)


@dataclass
class _Run:
    """State of one build."""

    encoder: Encoder
    prompts: tuple[str, ...]
    max_megapixels: float
    read: int = 0
    duplicates: int = 0
    failures: list[Failure] = field(default_factory=list)
    fresh: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    journal: Journal | None = None
    _seen: SeenPairs = field(default_factory=SeenPairs)
    _texts: dict[str, Float32] = field(default_factory=dict)

    def load(self, pair: Pair) -> LoadedPair:
        """Read an image: (pair, image, hash, perceptual hash), or (pair, None, reason, ""). Runs in a reader thread."""
        side_px = self.encoder.traits.image_size_px
        return load_pair(pair, side_px=side_px, max_megapixels=self.max_megapixels)

    def fail(self, path: str, reason: str) -> None:
        """Record a pair that could not be used."""
        failure = Failure(path, reason)
        self.failures.append(failure)
        self.fresh.append(failure)

    def report_failures(self, listener: Callable[[Failure], None] | None) -> None:
        """Report the failures since the last call."""
        fresh, self.fresh = self.fresh, []
        if listener is not None:
            for failure in fresh:
                listener(failure)

    def restore(self, pairs: Iterator[Pair], writer: RowWriter) -> None:
        """Take over the rows of a build that was stopped; their pairs are taken off the source, and not read."""
        for part in self.journal.replay(pairs) if self.journal is not None else ():
            for meta, embeddings in part.rows():
                writer.write(meta, **embeddings)
                for digest, text in zip(meta["hash"], meta["text"], strict=True):
                    self._seen.add(digest, text)
            self.read += part.read
            self.duplicates += part.duplicates
            for path, reason in part.failures:
                self.fail(path, reason)

    def encode(self, items: Sequence[LoadedPair], writer: RowWriter) -> None:
        """Encode one batch, write its rows, and record it in the journal."""
        self.read += len(items)
        failed, duplicates = len(self.failures), self.duplicates
        rows = self._write(items, writer)
        if self.journal is not None:
            failures = [(failure.path, failure.reason) for failure in self.failures[failed:]]
            dropped = self.duplicates - duplicates
            self.journal.add([pair for pair, *_ in items], rows, failures=failures, dropped=dropped)

    def _write(self, items: Sequence[LoadedPair], writer: RowWriter) -> pa.RecordBatch | None:
        """Write the rows of one batch: the rows, None where no pair of it can be used."""
        good: list[tuple[Pair, Image.Image, str, str]] = []
        for pair, image, digest_or_reason, phash in items:
            if image is None:
                self.fail(pair.path or pair.image_key, digest_or_reason)
            elif self._seen.add(digest_or_reason, pair.text):
                good.append((pair, image, digest_or_reason, phash))
            else:
                self.duplicates += 1
        if not good:
            return None
        unique = {digest: image for _, image, digest, _ in good}  # captions of one image share a forward pass
        images = self.encoder.encode_images(list(unique.values()))
        row = {digest: i for i, digest in enumerate(unique)}
        rows = [row[digest] for _, _, digest, _ in good]
        return writer.write(
            {
                "text": [pair.text for pair, *_ in good],
                "source": [pair.source for pair, *_ in good],
                "licence": [pair.licence for pair, *_ in good],
                "hash": [digest for _, _, digest, _ in good],
                "path": [pair.path for pair, *_ in good],
                "phash": [phash for *_, phash in good],
            },
            image=images.embeddings[rows],
            text_embedding=self._encode_texts([pair.text for pair, *_ in good]),
            retrieval=images.retrieval[rows],
        )

    def _encode_texts(self, texts: Sequence[str]) -> Float32:
        """Encode n texts to (n, D). Class names repeat, so embeddings of the last texts are kept."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if len(self._texts) + len(missing) > KEPT_TEXTS:
            self._texts.clear()
            missing = list(dict.fromkeys(texts))
        if missing:
            vectors = prompt_ensemble(missing, self.encoder.encode_texts, prompts=self.prompts or ("{}",))
            self._texts.update(zip(missing, vectors, strict=True))
        return np.stack([self._texts[text] for text in texts])


def _as_pairs(pairs: Iterable[Pair | tuple[ImageSource, str]], *, source: str, licence: str) -> Iterator[Pair]:
    for number, item in enumerate(pairs):
        if isinstance(item, Pair):
            yield dataclasses.replace(item, source=item.source or source, licence=item.licence or licence)
            continue
        image, text = item
        image = Path(image) if isinstance(image, str) else image
        where = str(image) if isinstance(image, Path) else f"pair {number}"
        yield Pair(image=image, text=text, path=where, location=where, source=source, licence=licence)
