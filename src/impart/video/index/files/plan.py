"""Plan of a run: the files found, compared with the index. Nothing is written here, and few files are read."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from impart.video.index.events import Action, Event, PathFailed, Planned, ScanDone
from impart.video.index.files.prune import find_gone
from impart.video.index.files.scan import FoundFile, Scan, as_listed, content_hash
from impart.video.index.manifest import IndexManifest
from impart.video.index.store import FailureRecord, VideoRecord, is_current

__all__ = ["IndexPlan", "IndexTask", "Request", "hash_of", "make_plan", "planned"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """Options of a run.

    Attributes:
        prune: remove videos whose files are gone; force: also those whose disk may be away.
        retry_failed: try files again that failed or were read in part.
    """

    prune: bool = False
    force: bool = False
    retry_failed: bool = False


@dataclass(frozen=True, kw_only=True)
class IndexTask:
    """One file and the action for it.

    Attributes:
        record: the indexed video at this path (update, touch), that moved here (move), or with the same content (copy;
            None where the other file is itself new).
        original: of a copy: the other file.
        replaced: the indexed video at the path of an update, or of a file that was moved or copied to it.
        content_hash: set where the plan needed it.
        failure: of a skipped file.
    """

    file: FoundFile
    action: Action
    record: VideoRecord | None = None
    original: Path | None = None
    content_hash: str | None = None
    failure: FailureRecord | None = None
    replaced: VideoRecord | None = None


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
    request: Request,
    devices: Mapping[str, int] | None = None,
) -> IndexPlan:
    """Compare the files found with the index.

    A file with the path, size and time of an indexed one is unchanged. Content is read only where these differ: to
    distinguish a touched file from a changed one, and a moved or copied file (its size equals that of an indexed video)
    from a new one. A video with a problem is decoded again when its time changed or on request, also where its content
    hash is the same: a hash of parts of the content does not cover a piece that arrived later.

    Args:
        devices: see `impart.video.index.files.prune`.
    """
    retry_failed = request.retry_failed
    known = {record.path: record for record in videos}
    plan = IndexPlan(files=len(found.files), problems=list(found.problems))
    left: list[FoundFile] = []
    for file in found.files:
        record, failure = known.get(file.path), failures.get(file.path)
        retry = retry_failed and record is not None and record.problem is not None
        if record and _same(file, record) and is_current(record, manifest) and not retry:
            plan.unchanged += 1
            if failure:  # it was damaged meanwhile, and restored
                plan.forget.append(file.path)
        elif failure and _same(file, failure) and not retry_failed:
            plan.tasks.append(IndexTask(file=file, action="skip", failure=failure))
        else:
            left.append(file)
    present = {file.path for file in found.files}
    plan.tasks += _decide(left, known=known, present=present, manifest=manifest)
    plan.tasks.sort(key=lambda task: os.fsencode(task.file.path))
    if request.prune:
        moved = {task.record.path for task in plan.of("move") if task.record}
        gone = find_gone(
            found, known=known, failures=failures, kept=present | moved, devices=devices or {}, force=request.force
        )
        plan.remove, plan.forget = gone.remove, plan.forget + gone.forget
        if request.force:
            removed = [*(record.path for record in gone.remove), *gone.forget]
            expected = {path for path in found.missing if any(one.is_relative_to(path) for one in removed)}
            plan.problems = [(path, reason) for path, reason in plan.problems if path not in expected]
        plan.problems = _joined([*plan.problems, *gone.problems])
    return plan


def hash_of(file: FoundFile) -> str | None:
    """Compute `content_hash`; None where the file cannot be read (the decoder reports the reason)."""
    try:
        return None if file.problem else content_hash(file.path)
    except OSError:
        return None


def _joined(problems: Iterable[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Join the reasons of each path."""
    joined: dict[Path, str] = {}
    for path, reason in problems:
        joined[path] = f"{joined[path]}; {reason}" if path in joined else reason
    return list(joined.items())


def _same(file: FoundFile, known: VideoRecord | FailureRecord) -> bool:
    return file.size_bytes == known.size_bytes and file.mtime_ns == known.mtime_ns


def _decide(
    files: Sequence[FoundFile], *, known: Mapping[Path, VideoRecord], present: set[Path], manifest: IndexManifest
) -> list[IndexTask]:
    """Decide for files that are new, or differ from the video at their path: touched, moved, copied, changed or new."""
    sizes = Counter(record.size_bytes for record in known.values())
    sizes.update(file.size_bytes for file in files if file.path not in known)
    digests = {file.path: hash_of(file) for file in files if file.size_bytes and _may_be_known(file, known, sizes)}
    wanted = set(digests.values())
    twins_of: dict[str, list[VideoRecord]] = {}
    for record in known.values():
        if record.content_hash in wanted and is_current(record, manifest):
            twins_of.setdefault(record.content_hash, []).append(record)
    resized = {file.path for file in files if file.path in known and file.size_bytes != known[file.path].size_bytes}

    def vacated(record: VideoRecord) -> bool:
        """Whether the content of a video is no longer at its path."""
        if record.path in present:
            return record.path in resized or digests.get(record.path) not in (None, record.content_hash)
        return not os.path.lexists(record.path) or as_listed(record.path) != record.path

    moved: set[str] = set()
    first: dict[str, Path] = {}
    tasks = []
    for file in files:
        here, digest = known.get(file.path), digests.get(file.path)
        if here and digest == here.content_hash:
            whole = here.problem is None and is_current(here, manifest)
            action: Action = "touch" if whole else "update"
            tasks.append(IndexTask(file=file, action=action, record=here, content_hash=digest))
            continue
        twins = twins_of.get(digest, []) if digest else []
        gone = [one for one in twins if one.video_id not in moved and vacated(one)]
        whole_twins = [one for one in twins if one.problem is None]
        if gone:
            moved.add(gone[0].video_id)
            task = IndexTask(file=file, action="move", record=gone[0])
        elif whole_twins:
            task = IndexTask(file=file, action="copy", record=whole_twins[0], original=whole_twins[0].path)
        elif digest and digest in first:
            task = IndexTask(file=file, action="copy", original=first[digest])
        else:
            if digest:
                first[digest] = file.path
            task = IndexTask(file=file, action="add")
        tasks.append(dataclasses.replace(task, content_hash=digest, replaced=here))
    return [_settled(task, moved=moved) for task in tasks]


def _may_be_known(file: FoundFile, known: Mapping[Path, VideoRecord], sizes: Mapping[int, int]) -> bool:
    """Whether another file, or the video at its path, has the size of a file: only then its content is read."""
    here = known.get(file.path)
    return (here is not None and here.size_bytes == file.size_bytes) or sizes[file.size_bytes] > (here is None)


def _settled(task: IndexTask, *, moved: set[str]) -> IndexTask:
    """Settle what becomes of the video that was at the path of a task: a moved one is not replaced."""
    if task.replaced is None:
        return task
    if task.replaced.video_id in moved:
        return dataclasses.replace(task, replaced=None)
    return dataclasses.replace(task, action="update", record=task.replaced) if task.action == "add" else task


def planned(
    found: Scan,
    videos: Sequence[VideoRecord],
    failures: Mapping[Path, FailureRecord],
    manifest: IndexManifest,
    *,
    request: Request,
    devices: Mapping[str, int],
) -> Generator[Event, None, IndexPlan]:
    """Compare the files found with the index.

    Yields:
        `PathFailed` for each problem, then `ScanDone`.
    """
    plan = make_plan(found, videos=videos, failures=failures, manifest=manifest, request=request, devices=devices)
    for path, reason in plan.problems:
        yield PathFailed(path=path, reason=reason)
    yield dataclasses.replace(plan.summary(), ignored=found.ignored_by_reason())
    return plan
