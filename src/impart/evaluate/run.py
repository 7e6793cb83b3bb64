"""Run: tasks over all models, without contaminated references; its results, notes and report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from impart.config import DecodeSettings, EvaluateSettings
from impart.encoders.base import Encoder
from impart.evaluate.cache import EmbeddingCache
from impart.evaluate.contamination import ImagesUnderTest, without_contamination
from impart.evaluate.datasets.types import Images, MomentSet, VideoSet
from impart.evaluate.embed import Progress, embed_images
from impart.evaluate.embed_videos import embed_videos
from impart.evaluate.models import EvaluatedModel, describe
from impart.evaluate.report.folder import Report, Summary, WrittenReport, report_content, summarise, write_report
from impart.evaluate.report.tables import Table
from impart.evaluate.result import Result

__all__ = ["Run", "ShowProgress", "Task"]

ShowProgress: TypeAlias = Callable[[str], AbstractContextManager[Progress | None]]
"""Title -> context in which the progress of a step is shown."""


class Task(Protocol):
    """A task of `impart.evaluate` on one data set, such as `partial(zeroshot, dataset=dataset)`."""

    def __call__(
        self,
        encoder: Encoder,
        /,
        *,
        label: str,
        cache: EmbeddingCache | None,
        batch: int,
        on_progress: Progress | None,
    ) -> Result | Sequence[Result]:
        """Measure one encoder."""


class Run:
    """Evaluation of several models on the same items, with a report.

    Args:
        cache: of embeddings; every task uses it.
        models: what is evaluated, in the order of the report; others are compared with the first.
        batch: images per forward pass.
        near_duplicate: cosine from which a reference shows a test image; 0 = the bound of the encoder.
        bootstrap: draws per interval; 0 = no intervals.
        settings: for the report.
        show_progress: shows the progress of each step.

    Attributes:
        results: as measured.
        notes: of the whole run.
        tables: shown above those of the results.
        plots: functions that draw further plots into a folder.
    """

    def __init__(
        self,
        cache: EmbeddingCache,
        *,
        models: Sequence[EvaluatedModel] = (),
        batch: int = EvaluateSettings.batch,
        near_duplicate: float = EvaluateSettings.near_duplicate,
        bootstrap: int = EvaluateSettings.bootstrap,
        settings: Mapping[str, Any] | None = None,
        show_progress: ShowProgress = lambda _: nullcontext(),
    ) -> None:
        self.cache, self.models = cache, list(models)
        self.settings = dict(settings or {})
        self.results: list[Result] = []
        self.notes: list[str] = []
        self.tables: list[Table] = []
        self.plots: list[Callable[[Path], Path]] = []
        self._batch, self._near_duplicate, self._bootstrap = batch, near_duplicate, bootstrap
        self._show_progress = show_progress
        self._described: dict[str, dict[str, Any]] = {}
        self._started_s = time.monotonic()

    def measure(self, dataset: str, tasks: Sequence[Task], images: Sequence[Images]) -> None:
        """Measure every model by tasks on images.

        Args:
            dataset: name of the data set.
            tasks: measured model by model.
            images: all images that the tasks use: references that show one of them are dropped.
        """

        def embedded(base: Encoder) -> ImagesUnderTest:
            with self._show_progress(f"{base.traits.id} on {dataset}") as show:
                found = [embed_images(base, part, **self._common, on_progress=show) for part in images]
            return ImagesUnderTest(
                retrieval=np.concatenate([part.retrieval for part in found]),
                hashes=[one for part in found for one in part.hashes],
                phashes=[one for part in found for one in part.phashes],
            )

        self._measure(dataset, tasks, embedded)

    def measure_videos(self, dataset: VideoSet | MomentSet, tasks: Sequence[Task], decode: DecodeSettings) -> None:
        """Measure every model by tasks on videos, whose frames are decoded by these settings."""

        def embedded(base: Encoder) -> ImagesUnderTest:
            with self._show_progress(f"{base.traits.id} on {dataset.name}") as show:
                found = embed_videos(base, dataset.videos, decode, on_progress=show, **self._common)
                parts = [video.retrieval for video in found]
            none = np.zeros((0, base.traits.retrieval_dim), np.float32)
            return ImagesUnderTest(retrieval=np.concatenate([none, *parts]))

        self._measure(dataset.name, tasks, embedded)

    def _measure(self, dataset: str, tasks: Sequence[Task], test_images: Callable[[Encoder], ImagesUnderTest]) -> None:
        for model in without_contamination(self.models, test_images, near=self._near_duplicate):
            counts, notes = self._contamination_of(model, dataset)
            for task in tasks:
                with self._show_progress(f"{model.label} on {dataset}") as show:
                    found = task(model.encoder, label=model.label, on_progress=show, **self._common)
                self.results += [
                    dataclasses.replace(result, counts={**result.counts, **counts}, notes=(*result.notes, *notes))
                    for result in ([found] if isinstance(found, Result) else found)
                ]
            self._described[f"{model.label} {dataset}"] = {"dataset": dataset, **describe(model)}

    @property
    def _common(self) -> dict[str, Any]:
        return {"cache": self.cache, "batch": self._batch}

    def _contamination_of(self, model: EvaluatedModel, dataset: str) -> tuple[dict[str, int], list[str]]:
        """Count the references of a model, kept and dropped, with a note on those dropped."""
        if model.references is None:
            return {}, []
        notes = []
        if model.dropped:
            found = [f"{model.same} the same file (certain)"]
            if self._near_duplicate <= 1:
                found.append(f"{model.alike} by perceptual hash (nearly certain)")
                found.append(
                    f"{model.near} by embedding alone (likely, cosine from {model.bound:.3f})"
                    if model.bound <= 1
                    else "embeddings of the set cannot tell copies"
                )
            notes.append(
                f"{model.label} on {dataset}: {model.dropped} references show test images and were left out: "
                + ", ".join(found)
            )
        if model.unhashed and self._near_duplicate <= 1:
            notes.append(
                f"{model.label} on {dataset}: {model.unhashed} references were not compared by perceptual hash (the "
                "set is of an older version, images are flat, or frames of videos are tested): shrunk copies may be "
                "missed"
            )
        return {"references": len(model.references), "references dropped": model.dropped}, notes

    @property
    def complete(self) -> bool:
        """Whether all images and videos could be read, to their end."""
        return not any(result.counts.get(name) for result in self.results for name in ("unreadable", "read in part"))

    @cached_property
    def summary(self) -> Summary:
        """Intervals, comparisons and tables of the results; computed at the first use, when all is measured."""
        return summarise(self.results, repeats=self._bootstrap)

    @cached_property
    def report(self) -> Report:
        """The report's content; made at the first use, when all is measured."""
        return Report(
            results=tuple(self.results),
            settings=self.settings,
            encoders=tuple(self._described.values()),
            notes=tuple(self.notes),
            seconds=round(time.monotonic() - self._started_s, 3),
        )

    def content(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        return report_content(self.report, self.summary)

    def write(self, folder: Path) -> WrittenReport:
        """Write the report.

        Raises:
            DataError: the folder cannot be written.
        """
        return write_report(folder, self.report, summary=self.summary, tables=self.tables, more_plots=self.plots)
