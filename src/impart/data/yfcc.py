"""Turn YFCC-style metadata into shards of image-text pairs, in a training and a reference split: `impart data yfcc`.

    for event in prepare([Path("yfcc15m.csv")], Path("yfcc"), YfccSettings()):
        ...                                              # event.phase, event.done, event.total

Rows become captions (`captions`), images are fetched by img2dataset (`fetch`), checked and written (`shards`). The
state is on disk (`pair_store`), so a run that was killed at any time resumes where it stopped.
"""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
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
_ALL_FAILED = 100  # a part with this many images and no success means that the network is down
_CHECK_EVERY = 500  # images between two events
_PLAIN_ID = re.compile(r"[\w-]{1,80}")
_Checked: TypeAlias = "tuple[Fetched, tuple[bytes, int, int] | None, str]"


@dataclass(frozen=True, kw_only=True)
class YfccSettings:
    """Settings of `prepare`.

    Attributes:
        reference: fraction of the photos in the reference split.
        caption: fields joined to a caption, of title, description and usertags.
        max_word_letters: longer words are removed from captions.
        max_words: words kept of a caption; 0 = all.
        image: size limits and JPEG quality.
        shard_size: maximum number of pairs per shard.
        fetch: settings of img2dataset.
        part_size: rows that are fetched and committed together.
        limit: rows read per file; 0 = all.
        workers: threads that check images.
        retry_failed: fetch images again that failed in an earlier run.
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
            raise ConfigError(f"reference is {self.reference:g}: give a fraction between 0 and 0.5, such as 0.1")
        if not self.caption or not set(self.caption) <= set(CAPTION_FIELDS):
            raise ConfigError(f"caption is {','.join(self.caption)!r}: give some of {', '.join(CAPTION_FIELDS)}")

    def lasting(self) -> dict[str, Any]:
        """Return the settings that must stay the same for one folder."""
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
    """Progress of a run.

    Attributes:
        phase: `known` (the part was committed before), `fetch`, `check`, `part` (a part is committed) or `done`.
        file: the metadata file.
        rows: rows read of this file.
        done: images of the part that this phase has finished.
        total: images of the part.
        pairs: committed pairs of each split.
    """

    phase: str
    file: Path
    rows: int
    done: int = 0
    total: int = 0
    pairs: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A row whose image is to be fetched."""

    row: MetaRow
    caption: str


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Rows that are fetched and committed together; `rows_read` counts the rows of the file up to their end."""

    store: PairStore
    settings: YfccSettings
    file: Path
    rows: list[MetaRow]
    rows_read: int

    def progress(self, phase: str, *, done: int = 0, total: int = 0) -> YfccProgress:
        return YfccProgress(
            phase=phase, file=self.file, rows=self.rows_read, done=done, total=total, pairs=self.store.counts()
        )


def caption_of(row: MetaRow, settings: YfccSettings) -> str:
    """Return the caption of a row; empty if no text is left."""
    texts = [getattr(row, name) for name in settings.caption]
    texts = [
        text.replace(",", ", ") if name == "usertags" else text
        for name, text in zip(settings.caption, texts, strict=True)
    ]
    cleaned = [clean_text(text, max_word_letters=settings.max_word_letters) for text in texts]
    return join_caption(cleaned, max_words=settings.max_words)


def prepare(files: Sequence[Path], out: Path, settings: YfccSettings) -> Generator[YfccProgress, None, dict[str, Any]]:
    """Write the pairs of metadata files, or resume writing them.

    Args:
        files: read in this order; a later run may add files.
        out: folder for the shards.
        settings: captions, image sizes and limits.

    Returns:
        The manifest of the folder.

    Raises:
        DataError: a file is not YFCC-style metadata, the folder is not one of `impart data`, or no image could be
            fetched.
        MissingExtraError: img2dataset is not installed.
    """
    fetching.require_img2dataset()
    for file in files:
        next(read_metadata(file), None)  # report a fault of the last file before the first file is processed
    complete = False
    with PairStore(out, settings.lasting()) as store:
        try:
            for file in files:
                rows_read = 0
                for rows in _parts(file, settings):
                    rows_read += len(rows)
                    yield from _process(
                        _Part(store=store, settings=settings, file=file, rows=rows, rows_read=rows_read)
                    )
            complete = True
        finally:
            manifest = store.finish(sources=files, complete=complete)
        yield YfccProgress(phase="done", file=files[-1], rows=rows_read, pairs=store.counts())
    return manifest


def _parts(file: Path, settings: YfccSettings) -> Iterator[list[MetaRow]]:
    rows = itertools.islice(read_metadata(file), settings.limit or None)
    while part := list(itertools.islice(rows, settings.part_size)):
        yield part


def _process(part: _Part) -> Iterator[YfccProgress]:
    """Fetch, check, write and commit a part, unless it is committed already."""
    store, settings, rows = part.store, part.settings, part.rows
    key = _key(rows)
    if store.has_part(key):
        again = store.failed(key) if settings.retry_failed else set()
        if not again:
            yield part.progress("known")
            return
        rows = [row for row in rows if row.photoid in again]
        key = f"{key}-r{store.retries(key) + 1}"
    candidates, left_out = _candidates(part, rows)
    urls = [candidate.row.url for candidate in candidates]
    # The folder is named by the list of URLs: a part that is resumed after other parts may have another list.
    folder = store.work(key) / sha256_hex("\n".join(urls))[:16]
    if urls:
        for done in fetching.fetch(urls, folder, settings.fetch):
            yield part.progress("fetch", done=done, total=len(urls))
    summary = yield from _write(part, key, folder, candidates)
    store.commit(key, replace(summary, left_out=[*left_out, *summary.left_out]))
    yield part.progress("part", done=len(urls), total=len(urls))


def _candidates(part: _Part, rows: Sequence[MetaRow]) -> tuple[list[_Candidate], list[LeftOut]]:
    """Divide rows into those to fetch and those left out; rows that are pairs already are in neither."""
    candidates: list[_Candidate] = []
    left_out: list[LeftOut] = []
    seen: set[str] = set()
    for row in rows:
        if part.store.has_photo(row.photoid):
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
        elif not reason and not (caption := caption_of(row, part.settings)):
            kind, reason = "dropped", "no caption"
        seen.add(row.photoid)
        if reason:
            left_out.append(LeftOut(photoid=row.photoid, url=row.url, kind=kind, reason=reason))
        else:
            candidates.append(_Candidate(row=row, caption=caption))
    return candidates, left_out


def _write(
    part: _Part, key: str, folder: Path, candidates: Sequence[_Candidate]
) -> Generator[YfccProgress, None, PartSummary]:
    """Check the fetched images and write the shards of a part to its staging folder."""
    summary = PartSummary()
    images: set[int] = set()
    faults: Counter[str] = Counter()
    with (
        ShardWriter(part.store.staging(key), part.settings.shard_size) as writer,
        closing(_checked(folder, len(candidates), part.settings)) as checked,
    ):
        for number, (item, kept, fault) in enumerate(checked, start=1):
            candidate = candidates[item.number]
            row = candidate.row
            image = sha256_int(item.data or b"")
            kind = "failed"
            if kept and (image in images or part.store.has_image(image)):
                kind, fault = "dropped", "the same file as another photo"
            if fault or not kept:
                faults[fault] += item.data is None
                summary.left_out.append(LeftOut(photoid=row.photoid, url=row.url, kind=kind, reason=fault))
                if kind == "dropped":
                    summary.photos.append(sha256_int(row.photoid))
            else:
                data, width, height = kept
                about = {name: getattr(row, name) for name in ("photoid", "uid", "licence", "licence_url", "url")}
                about |= {"width": width, "height": height}
                split = split_of(row.photoid, reference=part.settings.reference)
                writer.write(split, Sample(key=row.photoid, data=data, caption=candidate.caption, about=about))
                images.add(image)
                summary.photos.append(sha256_int(row.photoid))
                summary.licences[row.licence or "not stated"] += 1
            if number % _CHECK_EVERY == 0:
                yield part.progress("check", done=number, total=len(candidates))
    if len(candidates) >= _ALL_FAILED and faults.total() == len(candidates):
        shutil.rmtree(folder)
        reason, count = faults.most_common(1)[0]
        raise DataError(
            f"none of {len(candidates)} images of {part.file} could be fetched ({count} times: {reason}): check the "
            "network. Nothing was recorded; run the same command again"
        )
    return replace(summary, shards=writer.counts, images=list(images))


def _checked(folder: Path, count: int, settings: YfccSettings) -> Generator[_Checked, None, None]:
    """Check the fetched files in several threads, and yield them in order, with bounded read-ahead."""

    def check(item: Fetched) -> _Checked:
        if item.data is None:
            return item, None, item.fault
        try:
            return item, checked_image(item.data, settings.image), ""
        except DataError as error:
            return item, None, str(error)

    items = fetching.read_fetched(folder, count=count)
    return read_ahead(items, check, workers=settings.workers, ahead=4 * settings.workers)


def _key(rows: Sequence[MetaRow]) -> str:
    """Return the key of a part: a hash of its rows."""
    digest = new_sha256()
    for row in rows:
        digest.update(
            "\x1f".join((row.fault or row.photoid, row.url, row.title, row.description, row.usertags)).encode()
        )
        digest.update(b"\x1e")
    return digest.hexdigest()[:16]
