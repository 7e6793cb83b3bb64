"""Scan: walk folders for videos and photos in a fixed order, and hash content to recognise moved files.

A suffix of `VIDEO_SUFFIXES` or `PHOTO_SUFFIXES` is enough to take a file, one of `OTHER_SUFFIXES` to leave it out. All
other files are opened, and their first bytes decide (`impart.video.decode.content`). What is left out is counted.
"""

from __future__ import annotations

import errno
import fnmatch
import functools
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from impart.errors import DataError
from impart.files import new_blake2b
from impart.video.decode.content import ICON, ICON_PX, PHOTO_SUFFIXES, content_of, is_photo

__all__ = [
    "OTHER_SUFFIXES",
    "OUTSIDE",
    "VIDEO_SUFFIXES",
    "FoundFile",
    "Scan",
    "absolute",
    "as_listed",
    "content_hash",
    "scan",
]


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


VIDEO_SUFFIXES = _suffixes("""
    264 265 3g2 3gp 3gp2 3gpp amv asf avc avi dav divx dv dvr-ms evo f4v flv gif gifv h263 h264 h265 hevc insv ismv ivf
    lrv m1v m2t m2ts m2v m4p m4v mj2 mjpeg mjpg mk3d mkv moov mov mp2v mp4 mp4v mpe mpeg mpeg4 mpg mpv mpv2 mts mxf nsv
    nut obu ogm ogv qt rm rmvb ssif tod trp vob vro webm wm wmv wtv xvid y4m
""")
"""Suffixes of the files taken from folders, in upper or lower case; a file given explicitly needs none of them."""

OTHER_SUFFIXES = _suffixes("""
    cur eps exr hdr icns ico jxl psb svg thm xcf
    aac ac3 aif aiff amr ape dts flac m4a m4b mid midi mka mp3 oga ogg opus wav wma
    aae ass idx lrc nfo smi srt ssa sub sup vtt xmp
    csv doc docx epub htm html ipynb json jsonl log md odp ods odt pdf ppt pptx rst rtf tex tsv txt xls xlsx xml
    bat c cc cfg class conf cpp css go h hpp ini java js jsx lock map mjs o php ps1 py pyc rb rs sh sql toml tsx vue
    yaml yml
    7z apk app bz2 cab deb dll dmg dylib exe gz jar msi rar rpm so tar tgz whl xz zip zst
    arrow db h5 lance npy npz onnx parquet pkl pt pth safetensors sqlite otf ttf woff woff2 lnk torrent url
    crdownload download opdownload part partial tmp
""")
"""Suffixes of files that are left out of folders without being opened: other images, sound, subtitles, documents,
source code, archives, data, and downloads that are not complete."""

FOREIGN_FOLDERS = frozenset({
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle", "lost+found", "recycled",
    "recycler", "system volume information",
})  # fmt: skip
"""Folders of network storage and operating systems, in lower case: previews, deleted files, snapshots."""

THUMBNAIL_FOLDERS = frozenset({"thumbnail", "thumbnails", "thumbs"})
"""Folders whose images are small copies, in lower case; their videos are taken."""

OUTSIDE = "leads out of the folders that may be indexed"
"""Reason to leave out a symbolic link, see `scan`."""

_MAY_MOVE = _suffixes("apng avif gif heic heics heif heifs hif png webp")
_REMEDIES = {".jxl": ".jxl (cannot be read: save these as JPEG)"}
_ICON_BYTES = 8192  # an image of fewer than 32 x 32 pixels is smaller, but for rare formats

_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_BLOCK_BYTES = 1 << 16
_MIDDLE_BLOCKS = 14


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A video or photo file.

    Attributes:
        problem: why it cannot be opened at all (a broken symbolic link), or None; lasting: whether the entry itself is
            the cause, not its disk or its permissions.
    """

    path: Path
    size_bytes: int
    mtime_ns: int
    problem: str | None = None
    lasting: bool = True


@dataclass(kw_only=True)
class Scan:
    """Result of a walk.

    Attributes:
        files: sorted by path, each once.
        problems: (path, reason) of given paths that do not exist and of folders that cannot be read.
        roots: given paths that could be read: pruning below them is safe.
        missing: given paths that do not exist; they are problems too.
        ignored: (path, reason) of the files and folders below given folders that were left out.
    """

    files: list[FoundFile] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)

    def ignored_by_reason(self) -> dict[str, int]:
        """Count what was left out, by suffix or by the kind of folder, most frequent first."""
        return dict(Counter(reason for _, reason in self.ignored).most_common())


def scan(
    paths: Iterable[str | os.PathLike[str]],
    *,
    exclude: Iterable[str] = (),
    photos: bool = True,
    within: Iterable[str | os.PathLike[str]] | None = None,
) -> Scan:
    """Walk files and folders, recursively and sorted.

    Hidden files and folders (`.name`), `FOREIGN_FOLDERS` and IMPART's own artefacts below a given path are left out. A
    folder is entered once, however many symbolic links point to it. Paths are made absolute by `absolute`, so that a
    link and its target are two entries.

    Args:
        paths: files and folders.
        exclude: patterns of files and folders to leave out below given folders. A pattern is compared with the name,
            with the path below the given folder and with the whole path; `*` also matches `/`.
        photos: whether the photos of given folders are taken; a photo given by name always is.
        within: folders that are not left: symbolic links that lead out of them are left out, given paths that do are
            problems. None = links are followed anywhere.
    """
    excluded = _matcher(exclude)
    inside = None if within is None else _inside(within)
    result = Scan()
    found: dict[Path, FoundFile] = {}
    entered: set[tuple[int, int]] = set()
    for given in paths:
        path = absolute(given)
        try:
            info = path.stat()
        except OSError as error:
            result.problems.append((path, f"cannot be found: {_reason(error)}"))
            if isinstance(error, FileNotFoundError):
                result.missing.append(path)
            continue
        if inside is not None and not inside(path):
            result.problems.append((path, OUTSIDE))
            continue
        if not stat.S_ISDIR(info.st_mode):
            if not stat.S_ISREG(info.st_mode):
                kind = next((name for is_one, name in _SPECIAL if is_one(info.st_mode)), "no file")
                result.problems.append((path, f"is {kind}: give videos, photos, and folders with these"))
                continue
            found[path] = FoundFile(path=path, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)
            result.roots.append(path)
            continue
        root = as_listed(path.resolve())
        problems_before = len(result.problems)
        for item in _walk(root, entered=entered, result=result, excluded=excluded, inside=inside, photos=photos):
            found[item.path] = item
        if not any(problem_path == root for problem_path, _ in result.problems[problems_before:]):
            result.roots.append(root)
    result.files = sorted(found.values(), key=lambda item: os.fsencode(item.path))
    return result


def content_hash(path: Path) -> str:
    """Hash the size and parts of the content of a file, to recognise it when it was moved or copied.

    Reads at most 1 MiB: the first and last 64 KiB and 14 blocks of 64 KiB evenly spaced between them; a small file
    whole. Two files with the same size and the same blocks are taken as equal. A change outside the blocks that keeps
    the size is detected only by the file's time.

    Raises:
        OSError: the file cannot be read.
    """
    digest = new_blake2b()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        blocks = _MIDDLE_BLOCKS + 2
        if size <= blocks * _BLOCK_BYTES:
            digest.update(file.read())
        else:
            last = size - _BLOCK_BYTES
            for i in range(blocks):
                file.seek(last * i // (blocks - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def absolute(given: str | os.PathLike[str]) -> Path:
    """Make a path absolute; resolve symbolic links in its folder part, not in its last part.

    On a disk that ignores case, names are spelled as the disk lists them: a file has one path, however it is given.
    """
    path = Path(os.path.abspath(os.path.expanduser(given)))  # noqa: PTH100, PTH111 - pathlib keeps `..`
    return as_listed(Path(os.path.realpath(path.parent)) / path.name) if path.name else path


def as_listed(path: Path) -> Path:
    """Spell each name of an absolute path as its folder lists it; only a disk that ignores case changes it."""
    listed = Path(path.anchor)
    for name in path.parts[1:]:
        listed /= _listed_name(listed, name)
    return listed


def _listed_name(folder: Path, name: str) -> str:
    """Find the name of an existing entry in the listing of its folder; the name itself where that fails."""
    try:
        (folder / name).lstat()
        (folder / name.swapcase()).lstat()  # fails where the disk distinguishes case
        alike = _names_of(folder, folder.stat().st_mtime_ns).get(_folded(name), [name])
    except OSError:
        return name
    # Inode numbers are no help: some FUSE disks give each spelling its own.
    return name if name in alike else alike[0]


@functools.lru_cache(maxsize=64)
def _names_of(folder: Path, _mtime_ns: int) -> dict[str, list[str]]:
    """List a folder, by folded name."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):  # noqa: PTH208 - many names
        names.setdefault(_folded(name), []).append(name)
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _walk(
    root: Path,
    *,
    entered: set[tuple[int, int]],
    result: Scan,
    excluded: Callable[[str, str], bool],
    inside: Callable[[Path], bool] | None,
    photos: bool,
) -> Iterator[FoundFile]:
    """Find the videos and photos below `root`.

    The stack is explicit: folders may be deeper than Python's recursion.
    """
    stack = [root]
    while stack:
        folder = stack.pop()
        try:
            info = folder.stat()
            if (info.st_dev, info.st_ino) in entered:
                continue
            entered.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            result.problems.append((folder, f"the folder cannot be read: {_reason(error)}"))
            continue
        if folder != root and _is_artefact(entry.name for entry in entries):
            result.ignored.append((str(folder), "IMPART folder"))
            continue
        for entry in entries:
            decided = _decide(entry, below=str(root), excluded=excluded, inside=inside, photos=photos)
            if isinstance(decided, FoundFile):
                yield decided
            elif isinstance(decided, Path):
                stack.append(decided)
            else:
                result.ignored.append((entry.path, decided))


def _decide(
    entry: os.DirEntry[str],
    *,
    below: str,
    excluded: Callable[[str, str], bool],
    inside: Callable[[Path], bool] | None,
    photos: bool,
) -> FoundFile | Path | str:
    """Decide on one entry of a folder: a file to take, a folder to enter, or the reason to leave it out."""
    if entry.name.startswith("."):
        return "hidden"
    if excluded(entry.path, below):
        return "excluded"
    path = Path(entry.path)
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a path is slow
    try:
        if inside is not None and entry.is_symlink() and not inside(path):
            return OUTSIDE
        if entry.is_dir():
            if entry.name.lower() in FOREIGN_FOLDERS:
                return entry.name
            if entry.name == "derivatives" and ".photoslibrary" in entry.path:  # small copies of Apple's Photos
                return "thumbnail"
            return as_listed(path.resolve()) if entry.is_symlink() else path
        if suffix in OTHER_SUFFIXES:
            return _REMEDIES.get(suffix, suffix)
        info = entry.stat()
        if not stat.S_ISREG(info.st_mode):
            return "not a file"
        left_out = _left_out(path, suffix, size_bytes=info.st_size, photos=photos)
    except OSError as error:
        wanted = suffix in VIDEO_SUFFIXES or (photos and suffix in PHOTO_SUFFIXES)
        return _unreachable(path, error) if wanted else "cannot be read"
    return left_out or FoundFile(path=path, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)


def _left_out(path: Path, suffix: str, *, size_bytes: int, photos: bool) -> str | None:
    """Find the reason to leave a file out; None takes it.

    Raises:
        OSError: it cannot be read.
    """
    photo = suffix in PHOTO_SUFFIXES
    if suffix == ".gif" or (not photos and suffix in _MAY_MOVE):
        photo = is_photo(path)
    elif not photo and suffix not in VIDEO_SUFFIXES:
        content = content_of(path)
        photo = content in ("photo", "heif photo")
        if not photo and content not in ("video", "animated webp") and (suffix, content) != (".ts", "unknown"):
            return suffix or "no suffix"
    if not photo:
        return None
    if not photos:
        return suffix or "no suffix"
    if path.parent.name.lower() in THUMBNAIL_FOLDERS:
        return "thumbnail"
    return ICON if size_bytes < _ICON_BYTES and _is_icon(path) else None


def _is_icon(path: Path) -> bool:
    """Test for an image of which both sides are below `ICON_PX`."""
    from impart.images import read_header  # Pillow: it takes time

    try:
        header = read_header(path)
    except DataError:
        return False  # the reason is named when it is decoded
    return max(header.width, header.height) < ICON_PX


def _is_artefact(names: Iterable[str]) -> bool:
    """Whether a folder is an index, a reference set or a trained RAM of IMPART, and has no videos of its own."""
    found = set(names)
    marks = {"videos.lance", "ram.onnx"} & found or any(name.endswith(".arrow") for name in found)
    videos = any(os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES for name in found)  # noqa: PTH122 - a path is slow
    return "manifest.json" in found and bool(marks) and not videos


def _inside(folders: Iterable[str | os.PathLike[str]]) -> Callable[[Path], bool]:
    """Make the test whether a path, with its links followed, is in one of the folders."""
    real = [Path(os.path.realpath(folder)) for folder in folders]

    def inside(path: Path) -> bool:
        target = Path(os.path.realpath(path))
        return any(target.is_relative_to(folder) for folder in real)

    return inside


def _matcher(patterns: Iterable[str]) -> Callable[[str, str], bool]:
    """Compile patterns into a function of (path, folder that is walked)."""
    joined = "|".join(fnmatch.translate(pattern.rstrip("/")) for pattern in patterns)
    match = re.compile(joined).match

    def excluded(path: str, below: str) -> bool:
        if not joined:
            return False
        inner = os.path.relpath(path, below).replace(os.sep, "/")
        return bool(match(os.path.basename(path)) or match(inner) or match(path))  # noqa: PTH119

    return excluded


def _unreachable(path: Path, error: OSError) -> FoundFile:
    try:
        info = path.lstat()
    except OSError:  # deleted meanwhile, or the folder may not be entered
        return FoundFile(path=path, size_bytes=0, mtime_ns=0, problem=_reason(error), lasting=False)
    broken = stat.S_ISLNK(info.st_mode) and error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
    return FoundFile(
        path=path, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns, problem=_reason(error), lasting=broken
    )


def _reason(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "its symbolic links form a circle"
    return error.strerror or str(error)
