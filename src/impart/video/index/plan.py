"""Plan of a run: the files found, compared with the index. Nothing is written here, and few files are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from impart.video.index.events import Action, Planned, ScanDone
from impart.video.index.manifest import IndexManifest
from impart.video.index.scan import FoundFile, Scan, content_hash
from impart.video.index.store import FailureRecord, VideoRecord, revision_of

__all__ = ["IndexPlan", "IndexTask", "hash_of", "make_plan"]


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """One file and the action for it.

    Attributes:
        record: the indexed video at this path (update, touch), that moved here (move), or with the same content (copy;
            None where the other file is itself new).
        original: of a copy: the other file.
        content_hash: set where the plan needed it.
        failure: of a skipped file.
    """

    file: FoundFile
    action: Action
    record: VideoRecord | None = None
    original: Path | None = None
    content_hash: str | None = None
    failure: FailureRecord | None = None


@dataclass(kw_only=True)
class IndexPlan:
    """All tasks of a run.

    Attributes:
        tasks: sorted by path.
        remove: videos whose files are gone, below the given paths.
        forget: files whose recorded failure is out of date.
        problems: (path, reason) of paths that cannot be walked, or below which pruning would be unsafe.
        files, unchanged: files found; files that need nothing.
    """

    tasks: list[IndexTask] = field(default_factory=list)
    remove: list[VideoRecord] = field(default_factory=list)
    forget: list[Path] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    files: int = 0
    unchanged: int = 0

    def of(self, *actions: Action) -> list[IndexTask]:
        """Select the tasks with one of these actions."""
        return [task for task in self.tasks if task.action in actions]

    @property
    def empty(self) -> bool:
        """Whether nothing has to be written."""
        return not (self.remove or self.forget) and all(task.action == "skip" for task in self.tasks)

    def summary(self) -> ScanDone:
        """Count the files per action."""
        decoded = self.of("add", "update")
        return ScanDone(
            files=self.files,
            unchanged=self.unchanged + len(self.of("touch")),
            to_add=len(self.of("add")),
            to_update=len(self.of("update")),
            to_move=len(self.of("move")),
            to_copy=len(self.of("copy")),
            to_skip=len(self.of("skip")),
            to_remove=len(self.remove),
            bytes_total=sum(task.file.size_bytes for task in decoded),
        )

    def planned(self) -> Iterable[Planned]:
        """List the actions, as a dry run prints them."""
        for task in self.tasks:
            detail = str(task.original or "") if task.action == "copy" else ""
            if task.action == "move" and task.record is not None:
                detail = str(task.record.path)
            if task.failure is not None:
                detail = task.failure.reason
            yield Planned(path=task.file.path, action=task.action, detail=detail)
        for record in self.remove:
            yield Planned(path=record.path, action="remove")


def make_plan(
    found: Scan,
    *,
    videos: Iterable[VideoRecord],
    failures: Mapping[Path, FailureRecord],
    manifest: IndexManifest,
    retry_failed: bool,
    prune: bool,
) -> IndexPlan:
    """Compare the files found with the index.

    A file with the path, size and time of an indexed one is unchanged. Content is read only where these differ: to
    distinguish a touched file from a changed one, and a moved or copied file (its size equals that of an indexed video)
    from a new one.
    """
    known = {record.path: record for record in videos}
    plan = IndexPlan(files=len(found.files), problems=list(found.problems))
    new: list[FoundFile] = []
    for file in found.files:
        record, failure = known.get(file.path), failures.get(file.path)
        if record and _same(file, record) and record.revision == revision_of(record.content_hash, manifest):
            plan.unchanged += 1
            if failure:  # it was damaged meanwhile, and restored
                plan.forget.append(file.path)
        elif failure and _same(file, failure) and not retry_failed:
            plan.tasks.append(IndexTask(file=file, action="skip", failure=failure))
        elif record:
            plan.tasks.append(_changed(file, record, manifest=manifest))
        else:
            new.append(file)
    present = {file.path for file in found.files}
    plan.tasks += _new(new, known=known, present=present, manifest=manifest)
    plan.tasks.sort(key=lambda task: os.fsencode(task.file.path))
    if prune:
        moved = {task.record.path for task in plan.of("move") if task.record}
        _prune(plan, found, known=known, failures=failures, kept=present | moved)
    return plan


def hash_of(file: FoundFile) -> str | None:
    """Compute `content_hash`; None where the file cannot be read (the decoder reports the reason)."""
    try:
        return None if file.problem else content_hash(file.path)
    except OSError:
        return None


def _same(file: FoundFile, known: VideoRecord | FailureRecord) -> bool:
    return file.size_bytes == known.size_bytes and file.mtime_ns == known.mtime_ns


def _changed(file: FoundFile, record: VideoRecord, *, manifest: IndexManifest) -> IndexTask:
    digest = hash_of(file)
    same = digest == record.content_hash and record.revision == revision_of(record.content_hash, manifest)
    return IndexTask(file=file, action="touch" if same else "update", record=record, content_hash=digest)


def _new(
    files: Sequence[FoundFile], *, known: Mapping[Path, VideoRecord], present: set[Path], manifest: IndexManifest
) -> list[IndexTask]:
    """Decide for files at paths that are not in the index: moved, copied or new."""
    by_size: dict[int, int] = {}
    by_hash: dict[str, list[VideoRecord]] = {}
    for record in known.values():
        by_size[record.size_bytes] = by_size.get(record.size_bytes, 0) + 1
        if record.revision == revision_of(record.content_hash, manifest):
            by_hash.setdefault(record.content_hash, []).append(record)
    for file in files:
        by_size[file.size_bytes] = by_size.get(file.size_bytes, 0) + 1
    moved: set[str] = set()
    first: dict[str, Path] = {}
    tasks = []
    for file in files:
        digest = hash_of(file) if file.size_bytes and by_size[file.size_bytes] > 1 else None
        twins = by_hash.get(digest, []) if digest else []
        gone = [one for one in twins if one.video_id not in moved and one.path not in present and not _exists(one.path)]
        if gone:
            moved.add(gone[0].video_id)
            tasks.append(IndexTask(file=file, action="move", record=gone[0], content_hash=digest))
        elif twins:
            tasks.append(
                IndexTask(file=file, action="copy", record=twins[0], original=twins[0].path, content_hash=digest)
            )
        elif digest and digest in first:
            tasks.append(IndexTask(file=file, action="copy", original=first[digest], content_hash=digest))
        else:
            if digest:
                first[digest] = file.path
            tasks.append(IndexTask(file=file, action="add", content_hash=digest))
    return tasks


def _prune(
    plan: IndexPlan,
    found: Scan,
    *,
    known: Mapping[Path, VideoRecord],
    failures: Mapping[Path, FailureRecord],
    kept: set[Path],
) -> None:
    """Find the videos that are gone below the roots; never below a root that may be an unmounted disk."""
    unreadable = [path for path, _ in found.problems]
    roots = []
    for root in found.roots:
        if root.is_dir() and next(root.iterdir(), None) is None and any(_below(path, [root]) for path in known):
            plan.problems.append((root, "is empty: is its disk mounted? Nothing below it was removed from the index"))
        else:
            roots.append(root)

    def gone(path: Path) -> bool:
        return path not in kept and _below(path, roots) and not _below(path, unreadable) and not _exists(path)

    plan.remove = [record for path, record in known.items() if gone(path)]
    plan.forget += [path for path in failures if gone(path)]


def _below(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _exists(path: Path) -> bool:
    return os.path.lexists(path)
