"""`impart search` and `impart similar`: find moments by text, by image, or by another moment."""

from __future__ import annotations

import dataclasses
import io
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from impart.cli.options import (
    DEFAULT_INDEX,
    ConfigOption,
    DeviceOption,
    EncoderOption,
    IndexOption,
    NoAugmentOption,
    in_shell,
    load,
    settings_for,
)
from impart.cli.output import Answer, Format, print_answers
from impart.cli.video.copies import CopyFormat, print_copies
from impart.cli.video.export import OpenOption, PageOption, show_hits
from impart.config import By, Device, Group, SearchSettings
from impart.errors import DataError, QueryError

if TYPE_CHECKING:
    from impart.video.index.index import VideoIndex
    from impart.video.search.query import Query, SearchKeywords

__all__ = ["search", "similar"]

_QUERY, _FILES, _HITS = "Query", "Which files", "Hits"  # panels of the help
_AT_ONCE = 256  # queries of a file that are answered together
_FILTERS = ("path_glob", "folder", "kind", "since", "until", "min_length", "max_length")
_DEFAULTS = SearchSettings()
TopOption = Annotated[
    int | None,
    typer.Option(
        "--top", "-n", min=1, help="Return this many hits.", show_default=str(_DEFAULTS.top), rich_help_panel=_HITS
    ),
]
GroupOption = Annotated[
    Group | None,
    typer.Option(
        "--group",
        "-g",
        help="Return one hit per video, with its best moment and further ones; or one per moment, scene or frame.",
        show_default=_DEFAULTS.group,
        rich_help_panel=_HITS,
    ),
]
ByOption = Annotated[
    By | None,
    typer.Option(
        help="Rank a video by its best moment, by the mean of all its frames (for short clips), or by its best frame.",
        show_default=_DEFAULTS.by,
        rich_help_panel=_HITS,
    ),
]
PathOption = Annotated[
    str | None,
    typer.Option(
        "--path", help="Search only videos whose name matches, such as '*.mp4'.", metavar="GLOB", rich_help_panel=_FILES
    ),
]
OffsetOption = Annotated[
    int,
    typer.Option(
        min=0, help="Leave out this many of the best hits: --offset 10 shows hits 11 to 20.", rich_help_panel=_HITS
    ),
]
MinScoreOption = Annotated[
    float | None,
    typer.Option(
        help="Leave out hits that score less. Scores compare within one query only.",
        metavar="SCORE",
        rich_help_panel=_HITS,
    ),
]
AllOption = Annotated[
    bool,
    typer.Option(
        "--all", help="Also show the hits below the good ones in the table, up to --top.", rich_help_panel=_HITS
    ),
]
NoFoldOption = Annotated[
    bool,
    typer.Option(
        "--no-fold",
        help="Show each copy as a hit of its own: of equal files, and of other videos that show the same.",
        rich_help_panel=_HITS,
    ),
]
FolderOption = Annotated[
    Path | None, typer.Option(help="Search only in this folder.", metavar="DIR", rich_help_panel=_FILES)
]
KindOption = Annotated[
    Literal["video", "photo"] | None,
    typer.Option(help="Search only videos, or only photos.", show_default="both", rich_help_panel=_FILES),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        help="Search only what was recorded on this date or later: 2024, 2024-05, 2024-05-01 or 2024-05-01T18:30.",
        metavar="DATE",
        rich_help_panel=_FILES,
    ),
]
UntilOption = Annotated[
    str | None,
    typer.Option(help="Search only what was recorded on this date or earlier.", metavar="DATE", rich_help_panel=_FILES),
]
MinLengthOption = Annotated[
    str | None,
    typer.Option(
        help="Search only videos of at least this length: 90, 10s, 5m or 1h30m.",
        metavar="LENGTH",
        rich_help_panel=_FILES,
    ),
]
MaxLengthOption = Annotated[
    str | None,
    typer.Option(help="Search only videos of at most this length.", metavar="LENGTH", rich_help_panel=_FILES),
]
WhyOption = Annotated[
    bool,
    typer.Option(
        "--why",
        help="Name the reference pairs that were blended into each moment, with weights.",
        rich_help_panel=_HITS,
    ),
]
ExactOption = Annotated[
    bool,
    typer.Option(
        "--exact",
        help="Compare the query with every vector, also in a large index, and refine bounds at cuts to the exact "
        "frame, by decoding the frames around them. Takes longer.",
        rich_help_panel=_HITS,
    ),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        help="Print hits in this format. Default: table; jsonl with --queries.",
        show_default=False,
        rich_help_panel=_HITS,
    ),
]


def search(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Find this, described in words, in quotes.")
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            help="Find moments that look like this image; with a text, both count.",
            metavar="FILE",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    image_weight: Annotated[
        float,
        typer.Option(
            help="Weight of --image; the text has 1. With 0.3 the text counts more.",
            metavar="NUMBER",
            rich_help_panel=_QUERY,
        ),
    ] = 1.0,
    not_text: Annotated[
        list[str] | None,
        typer.Option(
            "--not",
            help="Rank lower what looks like this; may be repeated: 'a dog' --not snow.",
            metavar="TEXT",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    expression: Annotated[
        bool,
        typer.Option(
            "--expression",
            help="Read TEXT as terms with weights: '2*a red car + at night - 0.5*people + image:photo.jpg'. "
            "Spaces around + and -; put a term that contains them in double quotes.",
            rich_help_panel=_QUERY,
        ),
    ] = False,
    also: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="Find spans that show this as well: 'a dog' --with 'a red ball'.",
            metavar="TEXT",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    then: Annotated[
        list[str] | None,
        typer.Option(
            "--then",
            help="Find TEXT followed by this in the same video; a hit is the span of both. May be repeated: "
            "'a man opens a door' --then 'a dog runs out' --within 10s.",
            metavar="TEXT",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            help="Find TEXT where this follows; a hit is the span of TEXT alone.",
            metavar="TEXT",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            help="Find TEXT where this came before; a hit is the span of TEXT alone.",
            metavar="TEXT",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            help="Most time between the parts of --then, --before and --after: 20s, 2m or 1:30.",
            metavar="TIME",
            show_default="20s",
            rich_help_panel=_QUERY,
        ),
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(
            help="Answer each line of this file as a query ('-' = stdin).", metavar="FILE", rich_help_panel=_QUERY
        ),
    ] = None,
    together: Annotated[
        bool,
        typer.Option(
            "--together",
            help="Correct the lines of --queries for hubs by each other: a video that many lines find counts less for "
            "each. Finds more where each line has a video of its own; the hits of a line then depend on the others.",
            rich_help_panel=_QUERY,
        ),
    ] = False,
    index_dir: IndexOption = DEFAULT_INDEX,
    top: TopOption = None,
    group: GroupOption = None,
    by: ByOption = None,
    path: PathOption = None,
    folder: FolderOption = None,
    kind: KindOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    min_length: MinLengthOption = None,
    max_length: MaxLengthOption = None,
    offset: OffsetOption = 0,
    min_score: MinScoreOption = None,
    everything: AllOption = False,
    no_fold: NoFoldOption = False,
    why: WhyOption = False,
    exact: ExactOption = False,
    no_names: Annotated[
        bool,
        typer.Option("--no-names", help="Take taught names in the text as ordinary words.", rich_help_panel=_QUERY),
    ] = False,
    no_augment: NoAugmentOption = False,
    form: FormatOption = None,
    page: PageOption = None,
    open_first: OpenOption = False,
    encoder: EncoderOption = None,
    device: DeviceOption = None,
    config: ConfigOption = None,
) -> None:
    """Find moments by a text, an image, or both. Works while indexing runs.

    Scores are cosines, those of a text less a correction for hubs; those of --with and --then are standard deviations
    above the mean of the index. Compare scores within one query only. The table ends where the good hits end; in the
    other formats each hit has the field strong. The hits are kept for impart export, but not those of --queries.
    """
    from impart.video.search.dates import length_s
    from impart.video.search.query import WITHIN_S, Query, Term, parse_expression

    if len(words or ()) > 1:
        raise typer.BadParameter(f"put the text in quotes: impart search {shlex.quote(' '.join(words or ()))}")
    text = words[0] if words else None
    if queries is not None and (text is not None or image is not None):
        raise typer.BadParameter("--queries has its own texts: leave the text and --image out")
    if queries is None and text is None and image is None:
        raise typer.BadParameter("give a query: a text, --image FILE, or --queries FILE")
    if image is None and image_weight != 1:
        raise typer.BadParameter("--image-weight needs --image FILE")
    if together and queries is None:
        raise typer.BadParameter("--together needs --queries: a single query cannot be corrected by others")
    if sum(map(bool, (then, before, after))) > 1:
        raise typer.BadParameter("give one of --then, --before and --after")
    if within is not None and not (then or before or after):
        raise typer.BadParameter("--within needs --then, --before or --after: it is the most time between two parts")
    if expression and queries is None and text is None:
        raise typer.BadParameter("--expression needs a text, such as: impart search --expression '2*dog - 0.5*snow'")
    within_s = length_s(within) if within is not None else WITHIN_S
    negatives = tuple(not_text or ())
    opened = _open(index_dir, encoder, config, device=device, top=top, group=group, by=by)
    keywords: SearchKeywords = {
        "augment": not no_augment,
        "path_glob": path,
        "folder": folder,
        "kind": kind,
        "since": since,
        "until": until,
        "min_length": min_length,
        "max_length": max_length,
        "why": why,
        "exact": exact,
        "offset": offset,
        "min_score": min_score,
        "fold_copies": not no_fold,
        "names": not no_names,
    }

    def query_of(asked: str | None) -> Query:
        terms = parse_expression(asked) if expression and asked is not None else ()
        if image is not None:
            terms = (*terms, Term(image=image, weight=image_weight))
        own = Query(
            text=None if expression else asked,
            terms=terms,
            not_text=negatives,
            also=Query(text=also) if also is not None else None,
            within_s=within_s,
        )
        if after is not None:
            return Query(text=after, within_s=within_s, then=own, keep="last")
        later = None
        for follows in reversed([before] if before is not None else then or []):
            later = Query(text=follows, within_s=within_s, then=later)
        return dataclasses.replace(own, then=later, keep="all" if before is None else "first")

    given = {"with": also, "then": then, "before": before, "after": after}
    extra: dict[str, Any] = {"not": list(negatives)} if negatives else {}
    extra |= {"expression": True} if expression else {}
    extra |= {name: value for name, value in given.items() if value}
    extra |= {"within_s": within_s} if then or before or after else {}
    form = form or (Format.jsonl if queries else Format.table)
    if queries is None:
        if image is not None and text is not None:
            extra = {"image": str(image), "image_weight": image_weight, **extra}
        hits = opened.search_many([query_of(text)], **keywords)[0]
        answer = Answer(query=text or str(image), hits=hits, extra=extra, everything=everything)
        count = _print_one(answer, form, index_dir, command="search", why=why)
        show_hits([answer], page=page, open_first=open_first)
    else:
        answers = _answer_lines(opened, _lines(queries), query_of, together=together, keywords=keywords, extra=extra)
        if everything:
            answers = (dataclasses.replace(answer, everything=True) for answer in answers)
        if page is not None or open_first:
            shown = list(answers)
            show_hits(shown, page=page, open_first=open_first)
            answers = iter(shown)
        count = print_answers(answers, form, why=why)
    if not count and not opened.videos():
        print(
            f"the index {index_dir} holds no videos: add some with impart index PATH... -i {index_dir}", file=sys.stderr
        )
    elif not count and any(keywords.get(name) is not None for name in _FILTERS):
        print("no hit in a file that fits the filters (impart stats --videos lists all files)", file=sys.stderr)


def similar(
    moment: Annotated[
        str | None,
        typer.Argument(
            metavar="MOMENT",
            help="Start from a time of an indexed file, clip.mp4@12.5 or clip.mp4@00:12.5, or from an indexed photo.",
        ),
    ] = None,
    video: Annotated[
        Path | None,
        typer.Option(
            "--video",
            help="Find the indexed videos that contain this clip or a part of it, and where. It need not be indexed.",
            metavar="FILE",
        ),
    ] = None,
    index_dir: IndexOption = DEFAULT_INDEX,
    top: TopOption = None,
    group: GroupOption = None,
    by: ByOption = None,
    path: PathOption = None,
    folder: FolderOption = None,
    kind: KindOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    min_length: MinLengthOption = None,
    max_length: MaxLengthOption = None,
    offset: OffsetOption = 0,
    min_score: MinScoreOption = None,
    everything: AllOption = False,
    no_fold: NoFoldOption = False,
    why: WhyOption = False,
    exact: ExactOption = False,
    no_augment: NoAugmentOption = False,
    form: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Find moments that look like a moment of an indexed video, or the videos that contain a clip.

    A clip is found although it was cropped, mirrored, titled, compressed, or played at 0.8 to 1.25 times the speed.
    """
    if video is not None:
        places = (moment, group, by, path, folder, kind, since, until, min_length, max_length, min_score)
        switches = (offset, everything, no_fold, why, exact, no_augment)
        if any(place is not None for place in places) or any(switches):
            raise typer.BadParameter("--video takes --index, --top, --format and --config alone")
        if form is Format.jsonl:
            raise typer.BadParameter("--video prints table, json or csv")
        opened = _open(index_dir, None, config, top=top, group=None, by=None)
        print_copies(video, opened.find_copies(video), CopyFormat(form or Format.table))
        return
    if moment is None:
        raise typer.BadParameter("give a moment, such as clip.mp4@12.5, or --video FILE")
    opened = _open(index_dir, None, config, top=top, group=group, by=by)
    file, at_s = _moment_of(moment, opened)
    hits = opened.similar(
        file,
        at_s,
        augment=not no_augment,
        path_glob=path,
        folder=folder,
        kind=kind,
        since=since,
        until=until,
        min_length=min_length,
        max_length=max_length,
        why=why,
        exact=exact,
        offset=offset,
        min_score=min_score,
        fold_copies=not no_fold,
    )
    answer = Answer(query=moment, hits=hits, extra={}, everything=everything)
    _print_one(answer, form or Format.table, index_dir, command="similar", why=why)


def _moment_of(moment: str, opened: VideoIndex) -> tuple[str, float]:
    """Split a moment into file and time; an indexed photo needs no time."""
    from impart.video.index.files.scan import absolute
    from impart.video.search.hits import parse_moment

    try:
        return parse_moment(moment)
    except QueryError:
        given = absolute(moment)
        if any(record.kind == "photo" and given == record.path for record in opened.videos()):
            return moment, 0.0
        raise


def _print_one(answer: Answer, form: Format, index_dir: Path, *, command: str, why: bool) -> int:
    """Print the hits of one query, keep them for other commands, and name the next command; return their number."""
    from impart.video.search.last_search import LastSearch, save_last_search

    count = print_answers([answer], form, why=why)
    printed = answer.shown if form is Format.table else answer.hits
    save_last_search(index_dir, LastSearch.of(printed, query=answer.title, command=command))
    if answer.hits and answer.hits[0].rank == 1 and not any(hit.strong for hit in answer.hits):
        print(f"nothing matches {answer.title!r} well: these are the best hits", file=sys.stderr)
    if printed and form is Format.table and sys.stderr.isatty():
        own = f" -i {in_shell(index_dir)}" if index_dir != DEFAULT_INDEX else ""
        more = f"; more hits: --offset {answer.hits[-1].rank}" if len(printed) == len(answer.hits) else ""
        print(f"next: impart export {printed[0].rank}{own} cuts out the first hit{more}", file=sys.stderr)
    return count


def _open(
    index_dir: Path,
    encoder_id: str | None,
    config: Path | None,
    *,
    device: Device | None = None,
    top: int | None,
    group: Group | None,
    by: By | None,
) -> VideoIndex:
    from impart.video.index.index import VideoIndex
    from impart.video.index.manifest import IndexManifest

    flags = {"encoder.device": device, "search.top": top, "search.group": group, "search.by": by}
    settings = settings_for(IndexManifest.load(index_dir), config, flags)
    options = settings.encoder.options
    encoder = load(encoder_id, refset=None, augment=False, options=options) if encoder_id else None
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
    query_of: Callable[[str], Query],
    *,
    together: bool,
    keywords: SearchKeywords,
    extra: dict[str, Any],
) -> Iterator[Answer]:
    while part := list(itertools.islice(lines, None if together else _AT_ONCE)):
        asked = [query_of(line) for line in part]
        found = opened.search_many(asked, together=together, **keywords)
        for line, hits in zip(part, found, strict=True):
            yield Answer(query=line, hits=hits, extra=extra)
