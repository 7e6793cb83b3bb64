"""`impart search` and `impart similar`: find moments by text, by image, or by another moment."""

from __future__ import annotations

import io
import itertools
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from impart.cli.options import (
    DEFAULT_INDEX,
    ConfigOption,
    EncoderOption,
    IndexOption,
    NoAugmentOption,
    load,
    settings_for,
)
from impart.cli.output import Answer, Format, print_answers
from impart.config import By, Group, SearchSettings
from impart.errors import DataError, QueryError

if TYPE_CHECKING:
    from impart.video.index.index import VideoIndex
    from impart.video.search.query import SearchKeywords

__all__ = ["search", "similar"]

_AT_ONCE = 256  # queries of a file that are answered together
_DEFAULTS = SearchSettings()
TopOption = Annotated[
    int | None, typer.Option("--top", "-n", min=1, help="Return this many hits.", show_default=str(_DEFAULTS.top))
]
GroupOption = Annotated[
    Group | None,
    typer.Option(
        "--group",
        "-g",
        help="Return one hit per video, with its best moment and further ones; or one per moment, scene or frame.",
        show_default=_DEFAULTS.group,
    ),
]
ByOption = Annotated[
    By | None,
    typer.Option(
        help="Rank a video by its best moment, by the mean of all its frames (for short clips), or by its best frame.",
        show_default=_DEFAULTS.by,
    ),
]
PathOption = Annotated[
    str | None, typer.Option("--path", help="Search only videos whose name matches, such as '*.mp4'.", metavar="GLOB")
]
WhyOption = Annotated[
    bool, typer.Option("--why", help="Name the reference pairs that were blended into each moment, with weights.")
]
ExactOption = Annotated[
    bool,
    typer.Option(
        "--exact", help="Refine bounds at cuts to the exact frame, by decoding the frames around them. Takes longer."
    ),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", "-f", help="Print hits in this format. Default: table; jsonl with --queries.", show_default=False
    ),
]


def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Find this, described in words, in quotes.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image", help="Find moments that look like this image; with a text, both count.", metavar="FILE"
        ),
    ] = None,
    not_text: Annotated[
        list[str] | None,
        typer.Option("--not", help="Rank lower what looks like this; may be repeated.", metavar="TEXT"),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Answer each line of this file as a query ('-' = stdin).", metavar="FILE")
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Correct the lines of --queries for hubs by each other: a video that many lines find counts less for "
            "each. Finds more where each line has a video of its own; the hits of a line then depend on the others.",
        ),
    ] = False,
    index_dir: IndexOption = DEFAULT_INDEX,
    top: TopOption = None,
    group: GroupOption = None,
    by: ByOption = None,
    path: PathOption = None,
    why: WhyOption = False,
    exact: ExactOption = False,
    no_augment: NoAugmentOption = False,
    form: FormatOption = None,
    encoder: EncoderOption = None,
    config: ConfigOption = None,
) -> None:
    """Find moments by a text, an image, or both. Works while indexing runs.

    Scores are cosines, those of a text less a correction for hubs: compare them within one query only.
    """
    from impart.video.search.query import Query

    if len(words or ()) > 1:
        raise typer.BadParameter(f"put the text in quotes: impart search {shlex.quote(' '.join(words or ()))}")
    text = words[0] if words else None
    if queries is not None and (text is not None or image is not None):
        raise typer.BadParameter("--queries has its own texts: leave the text and --image out")
    if queries is None and text is None and image is None:
        raise typer.BadParameter("give a query: a text, --image FILE, or --queries FILE")
    if together and queries is None:
        raise typer.BadParameter("--together needs --queries: a single query cannot be corrected by others")
    negatives = tuple(not_text or ())
    opened = _open(index_dir, encoder, config, top=top, group=group, by=by)
    keywords: SearchKeywords = {"augment": not no_augment, "path_glob": path, "why": why, "exact": exact}
    extra: dict[str, Any] = {"not": list(negatives)} if negatives else {}
    if queries is None:
        if image is not None and text is not None:
            extra = {"image": str(image), **extra}
        query = Query(text=text, image=image, not_text=negatives)
        answers: Iterable[Answer] = [
            Answer(query=text or str(image), hits=opened.search_many([query], **keywords)[0], extra=extra)
        ]
    else:
        answers = _answer_lines(
            opened, _lines(queries), together=together, negatives=negatives, keywords=keywords, extra=extra
        )
    hits = print_answers(answers, form or (Format.jsonl if queries else Format.table), why=why)
    if not hits and not opened.videos():
        print(
            f"the index {index_dir} holds no videos: add some with impart index PATH... -i {index_dir}", file=sys.stderr
        )


def similar(
    moment: Annotated[
        str, typer.Argument(help="Start from this time of an indexed file: clip.mp4@12.5 or clip.mp4@00:12.5.")
    ],
    index_dir: IndexOption = DEFAULT_INDEX,
    top: TopOption = None,
    group: GroupOption = None,
    by: ByOption = None,
    path: PathOption = None,
    why: WhyOption = False,
    exact: ExactOption = False,
    no_augment: NoAugmentOption = False,
    form: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Find moments that look like a moment of an indexed video."""
    file, at_s = parse_moment(moment)
    opened = _open(index_dir, None, config, top=top, group=group, by=by)
    hits = opened.similar(file, at_s, augment=not no_augment, path_glob=path, why=why, exact=exact)
    print_answers([Answer(query=moment, hits=hits, extra={})], form or Format.table, why=why)


def parse_moment(moment: str) -> tuple[str, float]:
    """Parse `path@time`; the time is seconds, MM:SS or HH:MM:SS, each with a fraction.

    >>> parse_moment("films/a@b.mp4@01:02.5")
    ('films/a@b.mp4', 62.5)

    Raises:
        QueryError: there is no valid time.
    """
    file, at, clock = moment.rpartition("@")
    try:
        if not at or not file:
            raise ValueError("no time")
        seconds = 0.0
        for part in clock.split(":"):
            seconds = seconds * 60 + float(part)
    except ValueError as error:
        raise QueryError(f"{moment!r} has no time: write path@seconds or path@MM:SS, as in clip.mp4@12.5") from error
    return file, seconds


def _open(
    index_dir: Path, encoder_id: str | None, config: Path | None, *, top: int | None, group: Group | None, by: By | None
) -> VideoIndex:
    from impart.video.index.index import VideoIndex
    from impart.video.index.manifest import IndexManifest

    flags = {"search.top": top, "search.group": group, "search.by": by}
    settings = settings_for(IndexManifest.load(index_dir), config, flags)
    threads = settings.encoder.threads
    encoder = load(encoder_id, refset=None, augment=False, threads=threads) if encoder_id else None
    return VideoIndex.open(index_dir, encoder, create=False, settings=settings)


def _lines(queries: Path) -> Iterator[str]:
    """Read the queries of a file, one per line; empty lines are ignored."""
    piped = str(queries) == "-"
    try:
        source = io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig") if piped else queries.open(encoding="utf-8-sig")
        with source as lines:
            yield from (line.strip() for line in lines if line.strip())
    except OSError as error:
        raise DataError(f"cannot read the queries {queries}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        name = "of the standard input" if piped else queries
        raise DataError(f"the queries {name} are not UTF-8 text: save them as UTF-8") from error


def _answer_lines(
    opened: VideoIndex,
    lines: Iterator[str],
    *,
    together: bool,
    negatives: tuple[str, ...],
    keywords: SearchKeywords,
    extra: dict[str, Any],
) -> Iterator[Answer]:
    from impart.video.search.query import Query

    while part := list(itertools.islice(lines, None if together else _AT_ONCE)):
        asked = [Query(text=line, not_text=negatives) for line in part]
        found = opened.search_many(asked, together=together, **keywords)
        for line, hits in zip(part, found, strict=True):
            yield Answer(query=line, hits=hits, extra=extra)
