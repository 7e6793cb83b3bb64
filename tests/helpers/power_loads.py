"""Programs that report things as stored, and the check of what is left of them after a power cut.

`IndexLoad` fills, changes, prunes and merges a video index, changes its reference set and teaches a name. `FilesLoad`
writes reference sets, checkpoints, embeddings of training, reports and a list of cuts.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from unittest import mock

import numpy as np

from helpers.clips import write_clip
from helpers.colour_references import colour_set
from helpers.photos import write_photo
from helpers.power_cut import Moment, Recorder, allowed
from helpers.results import classified
from helpers.tiny_encoder import TinyEncoder
from impart.config import DecodeSettings, EncoderSettings, IndexSettings, Settings
from impart.errors import DecodeError
from impart.evaluate.report.folder import Report, read_report, write_report
from impart.refset.refset import ReferenceSet
from impart.train.prepare.columns import Column, ColumnStore, column_key
from impart.video.decode.photo import sample_photo
from impart.video.decode.sampler import DecodedSegment, DecodeFailed, DecodeFinished, sample_video
from impart.video.index import writer
from impart.video.index.events import VideoCopied, VideoDone, VideoFailed, VideoMoved, VideoRemoved
from impart.video.index.index import VideoIndex
from impart.video.index.store import Store

__all__ = ["FilesLoad", "IndexLoad", "in_process", "left_behind", "rows_of"]

SETTINGS = Settings(index=IndexSettings(compact_every=2), encoder=EncoderSettings(batch=2))
REFERENCES, NAME = ("references",), ("name", "red")


class _Decoder:
    """Decodes in this process: a process of its own for each of a thousand runs would take too long."""

    def __init__(self, settings: DecodeSettings, *, short_side_px: int, **_: Any) -> None:
        self._settings, self._short_side_px = settings, short_side_px

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def decode(self, paths: Iterable[Path]) -> Iterator[DecodedSegment | DecodeFinished | DecodeFailed]:
        for path in paths:
            sample = sample_photo if path.suffix == ".png" else sample_video
            try:
                yield from sample(path, settings=self._settings, short_side_px=self._short_side_px)
            except DecodeError as error:
                yield DecodeFailed(path, error.reason, error.lasting)


def in_process() -> Any:
    """Decode in this process, merge tables at each occasion, and delete replaced files at once."""
    stack = mock.patch.multiple(writer, _worth_compacting=lambda _: True, _KEEP_VERSIONS=timedelta(0))
    stack.additional_patchers.append(mock.patch("impart.video.decode.decoder.Decoder", _Decoder))
    return stack


@dataclass
class IndexLoad:
    """A video index in `root/index`, of films in a folder that no power cut touches."""

    films: Path
    stages: list[dict[Path, bytes]] = field(default_factory=list)
    whole: dict[int, Any] = field(default_factory=dict)

    def run(self, root: Path, recorder: Recorder) -> None:
        """Carry out the stages; each event of a run that reports a file is acknowledged."""
        films, colours = self.films, ("red", "green", "blue", "yellow", "cyan", "magenta")
        films.mkdir()
        with in_process(), recorder.watching_database():
            index = VideoIndex.open(root / "index", TinyEncoder(), settings=SETTINGS)
            write_clip(films / "a.mp4", colours=["red", "blue"], seconds_each=0.5)
            write_clip(films / "b.mp4", colours=["green"], seconds_each=0.5)
            for number, colour in enumerate(colours[:3]):
                write_photo(films / f"photo {number}.png", colour)
            (films / "broken.mp4").write_bytes(b"nothing")
            self._add(index, recorder)
            write_clip(films / "b.mp4", colours=["yellow", "cyan"], seconds_each=0.5)
            write_clip(films / "c.mp4", colours=["magenta"], seconds_each=0.5)
            (films / "d.mp4").write_bytes((films / "a.mp4").read_bytes())
            self._add(index, recorder)
            self._begin(recorder)
            references = colour_set()
            index.use_references(references)
            recorder.acknowledge(REFERENCES, references.fingerprint)
            index.names.add("red", [films / "photo 0.png"])
            recorder.acknowledge(NAME, "red")
            for number, colour in enumerate(colours[3:]):
                write_photo(films / f"more {number}.png", colour)
            (films / "photo 1.png").unlink()
            (films / "c.mp4").rename(films / "moved.mp4")
            self._add(index, recorder, prune=True)
            self._begin(recorder)
            other = references.merge().without([0])
            index.use_references(other)
            recorder.acknowledge(REFERENCES, other.fingerprint)

    def check(self, root: Path, recorder: Recorder, moment: Moment) -> list[str]:
        """Return what is wrong with the files in `root`: lost, unreadable, or not cleaned by the next run."""
        known = allowed(recorder, moment)
        self._restore(moment.stage)
        folder, wrong = root / "index", []
        with in_process():
            reported = {key: values for key, values in known.items() if None not in values}
            if not VideoIndex.open(folder, TinyEncoder()).exists:
                return (
                    [f"there is no index, of {len(reported)} acknowledged"] if reported else self._next(folder, moment)
                )
            index = VideoIndex.open(folder, TinyEncoder())
            videos = {str(record.path): record.revision for record in index.videos()}
            lacking = {str(record.path) for record in index.incomplete()}
            found: set[str] = set()
            for hit in index.search(text="red", top=100, group="moment"):
                found |= {str(hit.path), *map(str, hit.also_at), *(str(copy.path) for copy in hit.near_copies)}
            for key, values in known.items():
                wrong += self._differs(index, key, values, videos, lacking=lacking, found=found)
        return wrong or self._next(folder, moment)

    def _differs(
        self,
        index: VideoIndex,
        key: Any,
        values: set[Any],
        videos: Mapping[str, str],
        *,
        lacking: set[str],
        found: set[str],
    ) -> list[str]:
        if key == REFERENCES:
            augmentation = index.manifest.augmentation
            value = augmentation and augmentation.references_fingerprint
        elif key == NAME:
            value = "red" if "red" in index.names.taught().rows else None
        else:
            value = videos.get(key[1])
            if value is not None and None not in values and (key[1] in lacking or key[1] not in found):
                return [f"{key[1]} is not found"]
        return [] if value in values else [f"{key}: {value}, not one of {values}"]

    def _next(self, folder: Path, moment: Moment) -> list[str]:
        """Run `add` again, and compare the index with one that had no power cut."""
        with in_process():
            for _ in range(2):
                events = list(VideoIndex.open(folder, TinyEncoder(), settings=SETTINGS).add([self.films], prune=True))
            failed = [event.path.name for event in events if isinstance(event, VideoFailed)]
            if moment.stage not in self.whole:
                whole = folder.parent / "whole"
                list(VideoIndex.open(whole, TinyEncoder(), settings=SETTINGS).add([self.films]))
                self.whole[moment.stage] = rows_of(whole)
                shutil.rmtree(whole)
            wrong = [f"{failed} failed"] if failed else []
            rows = rows_of(folder)
            wrong += [f"rows of {name} differ" for name, one in self.whole[moment.stage].items() if rows[name] != one]
            index = VideoIndex.open(folder, TinyEncoder())
            augmentation, store = index.manifest.augmentation, Store(folder)
            if augmentation is not None:
                blended, segments = (store.read(name).num_rows for name in (augmentation.table, "segments"))
                wrong += [] if blended == segments else [f"{blended} of {segments} segments are blended"]
        return wrong + left_behind(folder)

    def _add(self, index: VideoIndex, recorder: Recorder, *, prune: bool = False) -> None:
        self._begin(recorder)
        for event in index.add([self.films], prune=prune):
            if isinstance(event, VideoMoved):
                recorder.acknowledge(("video", str(event.old_path)), None)
            if isinstance(event, VideoDone | VideoCopied | VideoMoved):
                records = {record.path: record for record in index.videos()}
                recorder.acknowledge(("video", str(event.path)), records[event.path].revision)
            elif isinstance(event, VideoRemoved):
                recorder.acknowledge(("video", str(event.path)), None)

    def _begin(self, recorder: Recorder) -> None:
        """Begin a stage, with the films as they are now."""
        now = 1_700_000_000 + len(self.stages)
        for path in self.films.iterdir():
            if self.stages and self.stages[-1].get(path) == path.read_bytes():
                continue
            os.utime(path, (now, now))
        self.stages.append({path: path.read_bytes() for path in self.films.iterdir()})
        self._times = getattr(self, "_times", [])
        self._times.append({path: path.stat().st_mtime_ns for path in self.films.iterdir()})
        recorder.stage = len(self.stages) - 1

    def _restore(self, stage: int) -> None:
        for path in self.films.iterdir():
            path.unlink()
        for path, content in self.stages[stage].items():
            path.write_bytes(content)
            os.utime(path, ns=(self._times[stage][path],) * 2)


class FilesLoad:
    """Artefacts that are no index, each replaced several times."""

    def run(self, root: Path, recorder: Recorder) -> None:
        """Write each artefact three times."""
        import torch

        from impart.train.checkpoint import Checkpoints

        checkpoints = Checkpoints(root / "run" / "checkpoints")
        with recorder.recording():
            for turn in range(3):
                recorder.stage = turn
                references = colour_set().without(list(range(turn)))
                references.save(root / "sets" / "colours")
                recorder.acknowledge("set", references.fingerprint)
                checkpoints.save(turn, {"weights": torch.full((50,), float(turn))})
                recorder.acknowledge("checkpoint", turn)
                write_report(root / "reports" / "one", _report(turn), plots=False)
                recorder.acknowledge("report", str(turn))
                store = _columns(root)
                values = np.full((40, 3), turn, np.float32)
                store.append([column_key(f"{turn} {row}") for row in range(40)], {"vectors": values})

    def check(self, root: Path, recorder: Recorder, moment: Moment) -> list[str]:
        """Return what is wrong with the files in `root`: lost, unreadable, or not replaced by the next run."""
        found: dict[Hashable, Any] = {}
        from impart.train.checkpoint import Checkpoints

        known = allowed(recorder, moment)
        if "set" in known and None not in known["set"]:
            found["set"] = ReferenceSet.open(root / "sets" / "colours").fingerprint
        if "report" in known and None not in known["report"]:
            found["report"] = read_report(root / "reports" / "one").settings["turn"]
        newest = Checkpoints(root / "run" / "checkpoints")
        if "checkpoint" in known and None not in known["checkpoint"]:
            step, state = newest.newest() or (None, {})
            found["checkpoint"] = step if state and set(state["weights"].tolist()) == {float(step or 0)} else None
        wrong = [f"{key}: {value}, not one of {known[key]}" for key, value in found.items() if value not in known[key]]
        store = _columns(root)
        for turn in range(3):
            keys = [column_key(f"{turn} {row}") for row in range(40)]
            there = [key for row, key in enumerate(keys) if row not in set(store.missing(keys))]
            if there and not (store.column("vectors")[store.rows(there)] == turn).all():
                wrong.append(f"embeddings of turn {turn} are damaged")
        colour_set().save(root / "sets" / "colours")
        newest.save(9, {})
        write_report(root / "reports" / "one", _report(9), plots=False)
        left = [str(path) for path in root.rglob("*.part")]
        return wrong + ([f"left: {left}"] if left else [])


def _columns(root: Path) -> ColumnStore:
    return ColumnStore(root / "embeddings", "images", {"vectors": Column(np.float32, (3,))})


def _report(turn: int) -> Report:
    return Report(results=(classified("mini", [1, 0, 1, 1]),), settings={"turn": str(turn)})


def rows_of(folder: Path) -> dict[str, Counter[str]]:
    """Rows of the tables that do not depend on when they were written."""
    store, rows = Store(folder), {}
    for name in ("videos", "segments", "failures"):
        times = {"indexed_at", "failed_at", "attempts", "video_id", "path_id"}
        table = store.read(name).to_pylist()
        rows[name] = Counter(str({key: row[key] for key in sorted(row) if key not in times}) for row in table)
    return rows


def left_behind(folder: Path) -> list[str]:
    """List what the next run should have cleaned: damaged and temporary files, tables and sets that nothing names."""
    from impart.video.integrity import damaged_file

    wrong = [f"{damaged_file(table)} is damaged" for table in folder.glob("*.lance") if damaged_file(table)]
    # Those of names are removed when a name is taught: their lock is another one.
    files = [path for path in folder.rglob("*") if path.is_file() and folder / "names" not in path.parents]
    temporary = [path for path in files if path.name.startswith(".tmp") or "#" in path.name or ".part" in path.name]
    short = [path for path in files if path.suffix == ".lance" and not path.read_bytes().endswith(b"LANC")]
    more = [path for path in (folder / "writing.json",) if path.exists()]
    several = [kind for kind in ("references/*", "neighbours_*.lance") if len(list(folder.glob(kind))) > 1]
    return wrong + [f"left: {path.relative_to(folder)}" for path in (*temporary, *short, *more)] + several
