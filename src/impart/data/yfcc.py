"""From YFCC-style metadata to shards of image-text pairs, one of them the reference split: `impart data yfcc`.

    for event in prepare([Path("yfcc15m.csv")], Path("yfcc"), YfccSettings()):
        ...                                              # event.phase, event.done, event.total

Rows become captions (`captions`), images are fetched by img2dataset (`fetch`), checked and written (`shards_out`),
and what was done is remembered (`pair_store`), so that a run killed at any moment goes on where it stopped.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, get_args

from impart.config import CaptionField
from impart.data import fetch as fetching
from impart.data.captions import clean_text, join_caption
from impart.data.fetch import Fetched, FetchSettings
from impart.data.pair_store import LeftOut, PairStore, PartSummary
from impart.data.shards import ImageSettings, Sample, ShardWriter, checked_image, split_of
from impart.data.yfcc_table import MetaRow, read_metadata
from impart.errors import ConfigError, DataError
from impart.files import new_sha256, read_ahead, sha256_hex, sha256_int

__all__ = ["CAPTION_FIELDS", "YfccProgress", "YfccSettings", "caption_of", "prepare"]

CAPTION_FIELDS = get_args(CaptionField)
_ALL_FAILED = 100
_PLAIN_ID = re.compile(r"[\w-]{1,80}")
_Checked: TypeAlias = "tuple[Fetched, tuple[bytes, int, int] | None, str]"


@dataclass(frozen=True, kw_only=True)
class YfccSettings:
    """What the pairs look like, and how they are had.

    Attributes:
        reference: share of the photos that go to the reference split.
        caption: fields joined to a caption, of title, description and usertags.
        max_word_letters: longer words are dropped from captions.
        max_words: captions are cut there; 0 = never.
        image: how images are kept.
        shard_size: pairs in a shard at most.
        fetch: how images are fetched.
        part_size: rows that are fetched and committed together.
        limit: rows read of each file; 0 = all.
        workers: threads that check images.
        retry_failed: try images that failed in an earlier run again.
    """

    reference: float = 0.1
    caption: tuple[str, ...] = ("title", "description")
    max_word_letters: int = 25
    max_words: int = 100
    image: ImageSettings = field(default_factory=ImageSettings)
    shard_size: int = 10_000
    fetch: FetchSettings = field(default_factory=FetchSettings)
    part_size: int = 50_000
    limit: int = 0
    workers: int = 4
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.reference <= 0.5:
            raise ConfigError(f"reference is {self.reference:g}: give a share between 0 and 0.5, such as 0.1")
        if not self.caption or not set(self.caption) <= set(CAPTION_FIELDS):
            raise ConfigError(f"caption is {','.join(self.caption)!r}: give some of {', '.join(CAPTION_FIELDS)}")

    def lasting(self) -> dict[str, Any]:
        """The settings that must stay the same for one folder."""
        return {
            "reference": self.reference,
            "caption": list(self.caption),
            "max_word_letters": self.max_word_letters,
            "max_words": self.max_words,
            **asdict(self.image),
            "shard_size": self.shard_size,
        }


@dataclass(frozen=True, kw_only=True)
class YfccProgress:
    """How far a run has come.

    Attributes:
        phase: `known` (the part was done before), `fetch`, `check`, `part` (one is committed) or `done`.
        file: at work.
        rows: read of the file so far.
        done: images of the part in this phase.
        total: images of the part.
        pairs: of each split, committed so far.
        manifest: with `done` alone.
    """

    phase: str
    file: Path
    rows: int
    done: int = 0
    total: int = 0
    pairs: dict[str, int] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    row: MetaRow
    caption: str


def caption_of(row: MetaRow, settings: YfccSettings) -> str:
    """The caption of a row; empty where nothing is left."""
    texts = [getattr(row, name) for name in settings.caption]
    texts = [
        text.replace(",", ", ") if name == "usertags" else text
        for name, text in zip(settings.caption, texts, strict=True)
    ]
    cleaned = [clean_text(text, max_word_letters=settings.max_word_letters) for text in texts]
    return join_caption(cleaned, max_words=settings.max_words)


def prepare(files: Sequence[Path], out: Path, settings: YfccSettings) -> Iterator[YfccProgress]:
    """Make or go on making the pairs of some metadata files.

    Args:
        files: read in this order; others may follow in a later run.
        out: folder to fill.
        settings: see there.

    Raises:
        DataError: a file is no metadata, the folder is another's, or fetching failed altogether.
        MissingExtraError: img2dataset is not installed.
    """
    fetching.require_img2dataset()
    for file in files:
        next(read_metadata(file), None)  # so that the last file's fault shows before the first one's work
    complete = False
    with PairStore(out, settings.lasting()) as store:
        try:
            for file in files:
                read = 0
                for rows in _parts(file, settings):
                    read += len(rows)
                    yield from _part(store, file, rows, read, settings)
            complete = True
        finally:
            manifest = store.finish(sources=files, complete=complete)
        yield YfccProgress(phase="done", file=files[-1], rows=read, pairs=store.counts(), manifest=manifest)


def _parts(file: Path, settings: YfccSettings) -> Iterator[list[MetaRow]]:
    rows = itertools.islice(read_metadata(file), settings.limit or None)
    while part := list(itertools.islice(rows, settings.part_size)):
        yield part


def _part(
    store: PairStore, file: Path, rows: list[MetaRow], read: int, settings: YfccSettings
) -> Iterator[YfccProgress]:
    key = _key(rows)
    if store.has(key):
        again = store.failed(key) if settings.retry_failed else set()
        if not again:
            yield YfccProgress(phase="known", file=file, rows=read, pairs=store.counts())
            return
        rows = [row for row in rows if row.photoid in again]
        key = f"{key}-r{store.attempts(key) + 1}"
    result = PartSummary()
    candidates = _candidates(store, rows, settings, result)
    urls = [candidate.row.url for candidate in candidates]
    # The list of addresses names the folder: another list (a part taken up after others) is another fetch.
    folder = store.work(key) / sha256_hex("\n".join(urls))[:16]
    if urls:
        for done in fetching.fetch(urls, folder, settings.fetch):
            yield YfccProgress(phase="fetch", file=file, rows=read, done=done, total=len(urls), pairs=store.counts())
    yield from _write(store, key, folder, file, read, candidates, settings, result)
    store.commit(key, result)
    yield YfccProgress(phase="part", file=file, rows=read, done=len(urls), total=len(urls), pairs=store.counts())


def _candidates(
    store: PairStore, rows: Sequence[MetaRow], settings: YfccSettings, result: PartSummary
) -> list[_Candidate]:
    """Rows worth fetching; the others are noted in `result`."""
    candidates = []
    seen: set[str] = set()
    for row in rows:
        if store.knows_photo(row.photoid):
            continue
        caption = ""
        kind, reason = "failed", row.fault
        if not reason and not _PLAIN_ID.fullmatch(row.photoid):
            reason = "the photoid is not of letters and digits"
        elif not reason and row.marker == "1":
            kind, reason = "dropped", "a video"
        elif not reason and row.photoid in seen:
            kind, reason = "dropped", "the photoid was there before"
        elif not reason and not row.url.lower().startswith(("http://", "https://")):
            reason = "no http or https address"
        elif not reason and not (caption := caption_of(row, settings)):
            kind, reason = "dropped", "no caption"
        seen.add(row.photoid)
        if reason:
            result.left_out.append(LeftOut(photoid=row.photoid, url=row.url, result=kind, reason=reason))
        else:
            candidates.append(_Candidate(row=row, caption=caption))
    return candidates


def _write(
    store: PairStore,
    key: str,
    folder: Path,
    file: Path,
    read: int,
    candidates: Sequence[_Candidate],
    settings: YfccSettings,
    result: PartSummary,
) -> Iterator[YfccProgress]:
    """Check what was fetched and write the shards of a part to its staging folder."""
    images: set[int] = set()
    faults: Counter[str] = Counter()
    staging = store.staging(key)
    with (
        ShardWriter(staging, settings.shard_size) as writer,
        closing(_checked(folder, len(candidates), settings)) as checked,
    ):
        for number, (item, kept, fault) in enumerate(checked, start=1):
            candidate = candidates[item.number]
            row = candidate.row
            image = sha256_int(item.data or b"")
            kind = "failed"
            if kept and (image in images or store.knows_image(image)):
                kind, fault = "dropped", "the same file as another photo"
            if fault or not kept:
                faults[fault] += item.data is None
                result.left_out.append(LeftOut(photoid=row.photoid, url=row.url, result=kind, reason=fault))
                if kind == "dropped":
                    result.photos.append(sha256_int(row.photoid))
            else:
                data, width, height = kept
                about = {name: getattr(row, name) for name in ("photoid", "uid", "licence", "licence_url", "url")}
                about |= {"width": width, "height": height}
                split = split_of(row.photoid, reference=settings.reference)
                writer.write(split, Sample(key=row.photoid, data=data, caption=candidate.caption, about=about))
                images.add(image)
                result.photos.append(sha256_int(row.photoid))
                result.licences[row.licence or "not stated"] += 1
            if number % 500 == 0:
                yield YfccProgress(
                    phase="check", file=file, rows=read, done=number, total=len(candidates), pairs=store.counts()
                )
    if len(candidates) >= _ALL_FAILED and faults.total() == len(candidates):
        shutil.rmtree(folder)
        reason, count = faults.most_common(1)[0]
        raise DataError(
            f"none of {len(candidates)} images of {file} could be fetched ({count} times: {reason}): is the network "
            "there? Nothing was recorded; the same command tries again"
        )
    result.shards = writer.counts
    result.images = list(images)


def _checked(folder: Path, count: int, settings: YfccSettings) -> Generator[_Checked, None, None]:
    """Fetched files in order, checked by several threads with bounded look-ahead."""

    def check(item: Fetched) -> _Checked:
        if item.data is None:
            return item, None, item.fault
        try:
            return item, checked_image(item.data, settings.image), ""
        except DataError as error:
            return item, None, str(error)

    items = fetching.fetched(folder, count=count)
    return read_ahead(items, check, workers=settings.workers, ahead=4 * settings.workers)


def _key(rows: Sequence[MetaRow]) -> str:
    digest = new_sha256()
    for row in rows:
        digest.update(
            "\x1f".join((row.fault or row.photoid, row.url, row.title, row.description, row.usertags)).encode()
        )
        digest.update(b"\x1e")
    return digest.hexdigest()[:16]
