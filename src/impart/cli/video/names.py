"""`impart names`: teach the names of people, animals, places and things by a few images, and find them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from impart.cli.options import DEFAULT_INDEX, IndexOption, in_shell
from impart.cli.output import Answer, Format, print_answers, print_json

if TYPE_CHECKING:
    from impart.video.index.index import VideoIndex
    from impart.video.names.report import NameReport
    from impart.video.names.taught import Added, NameInfo

__all__ = ["app"]

app = typer.Typer(
    help="Names of people, animals, places and things: teach them by a few images, then find them. Nothing is indexed "
    "again.",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name, in any case, in quotes if it has spaces.")]


@app.command()
def add(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name to teach; or, alone, a folder with one sub-folder per name."),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE",
            help="Image files, folders of them, or moments of videos: clip.mp4@12.5 or clip.mp4@00:12.5.",
        ),
    ] = None,
    from_hits: Annotated[
        str | None,
        typer.Option("--from-hits", metavar="N,N,...", help="Take the best frames of these hits of the last search."),
    ] = None,
    from_cluster: Annotated[
        int | None,
        typer.Option("--from-cluster", metavar="N", min=1, help="Take the frames of this cluster of names discover."),
    ] = None,
    index_dir: IndexOption = DEFAULT_INDEX,
) -> None:
    """Teach a name, or add images to it. It is in force at once.

    One image works, three of different views are better. Each name is checked: which of its images are found by the
    others. Exit code 3 means that some images could not be read.
    """
    opened = _open(index_dir)
    if sum((bool(images), from_hits is not None, from_cluster is not None)) > 1:
        raise typer.BadParameter("each of --from-hits and --from-cluster has its own images: leave the others out")
    if from_cluster is not None:
        done = opened.names.add_cluster(name, from_cluster)
    elif from_hits is not None:
        done = opened.names.add_hits(name, _numbers(from_hits))
    elif images:
        done = opened.names.add(name, images)
    elif Path(name).expanduser().is_dir():
        done = opened.names.add_folder(name)
    else:
        raise typer.BadParameter(
            f"{name!r} is no folder: give one with a sub-folder per name, or images: "
            f"impart names add {shlex.quote(name)} a.jpg b.jpg clip.mp4@00:12.5"
        )
    _print_added(done, index_dir)
    if done.failed:
        raise typer.Exit(3)


@app.command("list")
def list_names(
    check: Annotated[
        bool, typer.Option("--check", help="Check each name: which of its images are found by the others.")
    ] = False,
    images: Annotated[bool, typer.Option("--images", help="Also list the images of each name.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    index_dir: IndexOption = DEFAULT_INDEX,
) -> None:
    """List the names, with the number of images of each and how many of them are in force."""
    infos = _open(index_dir).names.list(check=check)
    if as_json:
        print_json([_as_dict(info) for info in infos], indent=2)
        return
    if not infos:
        print(f"{index_dir}: no names")
        print(f"next: impart names add Rex a.jpg b.jpg c.jpg{_place(index_dir)}", file=sys.stderr)
    for info in infos:
        _print_info(info, images=images)


@app.command()
def remove(
    name: NameArgument,
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE", help="Remove only these images, as 'impart names list --images' has them."),
    ] = None,
    index_dir: IndexOption = DEFAULT_INDEX,
) -> None:
    """Remove a name, or some of its images."""
    count = _open(index_dir).names.remove(name, images or ())
    print(f"{index_dir}: removed {_count(count, 'image')} of {name}")


@app.command()
def rename(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Name as it was taught.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name.")],
    index_dir: IndexOption = DEFAULT_INDEX,
) -> None:
    """Give a name another spelling; its images stay."""
    print(f"{index_dir}: {old} is now {_open(index_dir).names.rename(old, new)}")


@app.command()
def find(
    name: NameArgument,
    index_dir: IndexOption = DEFAULT_INDEX,
    top: Annotated[int | None, typer.Option("--top", "-n", min=1, help="Return this many spans; default all.")] = None,
    path: Annotated[
        str | None,
        typer.Option("--path", help="Find it only in videos whose name matches, such as '*.mp4'.", metavar="GLOB"),
    ] = None,
    by_time: Annotated[
        bool, typer.Option("--by-time", help="List the spans by video and time, not the best first.")
    ] = False,
    form: Annotated[Format, typer.Option("--format", "-f", help="Print the spans in this format.")] = Format.table,
) -> None:
    """Find the spans in which a name is present, by its images alone.

    The score is the mean presence in the span, from 0 to 1. For a name in a sentence, use 'impart search'.
    """
    from impart.video.search.last_search import LastSearch, save_last_search

    opened = _open(index_dir)
    hits = opened.find(name, top=top, path_glob=path, by_time=by_time)
    print_answers([Answer(query=name, hits=hits, extra={})], form, why=False)
    save_last_search(opened.path, LastSearch.of(hits, query=name, command="names find"))
    if hits:
        print("next: impart export --help: write these spans as clips, a reel or a timeline", file=sys.stderr)
    elif not opened.videos():
        print(f"the index {index_dir} holds no videos: add some with impart index PATH...", file=sys.stderr)


@app.command()
def discover(
    index_dir: IndexOption = DEFAULT_INDEX,
    page: Annotated[Path, typer.Option("--page", metavar="FILE", help="Write the page here.")] = Path("names.html"),
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="Show this many clusters, the biggest ones.")] = 40,
    least: Annotated[int, typer.Option("--least", min=2, help="Leave out clusters of fewer scenes.")] = 2,
) -> None:
    """Find people, animals, places and things that recur, and show them on a page with numbers.

    Then give a number a name: impart names add --from-cluster 3 Rex. Scenes are compared as wholes.
    """
    done = _open(index_dir).names.discover(page, least=least, top=top)
    for path, reason in done.failed:
        print(f"not on the page: {path}: {reason}", file=sys.stderr)
    found = done.found
    if found.left_out:
        print(f"note: {found.left_out} of {found.left_out + found.scenes} scenes were not compared", file=sys.stderr)
    for cluster in found.clusters:
        known = f"  [{', '.join(cluster.names)}]" if cluster.names else ""
        print(f"{cluster.number}: {_count(len(cluster), 'scene')} in {_count(cluster.videos, 'video')}{known}")
    if found.clusters:
        print(f"{page}: {_count(len(found.clusters), 'cluster')} of {_count(found.scenes, 'scene')}")
        print(f"next: impart names add --from-cluster 1 NAME{_place(index_dir)}", file=sys.stderr)
    else:
        print(f"{index_dir}: of {_count(found.scenes, 'scene')}, no {least} show the same")


@app.command()
def faces(index_dir: IndexOption = DEFAULT_INDEX) -> None:
    """Find faces, so that names of people are also found by their faces. Off until this is run; needs the extra faces.

    One frame per second of each video is searched. Descriptors of faces are personal data in many countries: they are
    kept in the folder faces/ of the index, and 'impart names purge' deletes them.
    """
    from impart.cli.progress import progress

    opened = _open(index_dir)
    videos, problems = opened.videos(), []
    run = opened.names.find_faces(videos)
    with progress("faces") as show:
        while True:
            try:
                event = next(run)
            except StopIteration as end:
                total = end.value
                break
            if event.problem is not None:
                problems.append(f"{event.path}: {event.problem}")
            if show is not None:
                show(event.done, event.total)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{index_dir}: {_count(total, 'face')} in {_count(len(videos), 'video')}")
    place = _place(index_dir)
    print(f"next: impart names add NAME IMAGE...{place} teaches a person", file=sys.stderr)
    print(f"to delete all data of faces: impart names purge{place}", file=sys.stderr)
    if problems:
        raise typer.Exit(3)


@app.command()
def purge(index_dir: IndexOption = DEFAULT_INDEX) -> None:
    """Delete all data of faces from the index. Names and their images stay."""
    _open(index_dir).names.purge_faces()
    print(f"{index_dir}: no data of faces is left")


def _open(index_dir: Path) -> VideoIndex:
    from impart.video.index.index import VideoIndex

    return VideoIndex.open(index_dir, create=False)


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise typer.BadParameter(f"--from-hits {text}: give numbers of hits, such as 1,3,4") from error


def _print_added(done: Added, index_dir: Path) -> None:
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    for source, reason in done.failed:
        print(f"left out: {source}: {reason}", file=sys.stderr)
    for name, source in done.known:
        print(f"the same image again, left out: {source} ({name})", file=sys.stderr)
    for report in done.reports:
        new = done.added.get(report.name, 0)
        print(f"{report.name}: {_count(new, 'new image')}, {len(report)} in all, {_found(report)}")
        _print_remarks(report)
    first = next(iter(done.added), None)
    if first is not None:
        print(f"next: impart names find {shlex.quote(first)}{_place(index_dir)}", file=sys.stderr)


def _print_info(info: NameInfo, *, images: bool) -> None:
    left_out = f", {info.in_force} in force" if info.in_force < info.images else ""
    checked = f", {_found(info.report)}" if info.report is not None else ""
    print(f"{info.name}: {_count(info.images, 'image')}{left_out}{checked}")
    if info.report is not None:
        _print_remarks(info.report)
    if images:
        for source in info.sources:
            print(f"  {source}")


def _print_remarks(report: NameReport) -> None:
    for remark in report.remarks:
        print(f"  {remark}")


def _found(report: NameReport) -> str:
    if len(report) == 1:
        return "not checked"
    return f"{int(report.found.sum())} of {len(report)} found by the others"


def _as_dict(info: NameInfo) -> dict[str, object]:
    row: dict[str, object] = {
        "name": info.name,
        "images": info.images,
        "in_force": info.in_force,
        "sources": list(info.sources),
        "thumbnails": [str(path) if path is not None else None for path in info.thumbnails],
    }
    if info.report is not None:
        row["found"] = [bool(one) for one in info.report.found]
        row["remarks"] = list(info.report.remarks)
    return row


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _place(index_dir: Path) -> str:
    return "" if index_dir == DEFAULT_INDEX else f" -i {in_shell(index_dir)}"
