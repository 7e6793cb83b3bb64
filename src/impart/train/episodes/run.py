"""Mode `episodes`: a frozen encoder, and RAM learns to name images by reference sets (`episodes.py`).

pairs -> embeddings, one store per view -> concepts, a part of them held out -> episodes
      -> RAM learns to name images by their references -> a folder that `impart index --encoder` opens
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from impart.blending.ram_checkpoint import write_checkpoint
from impart.encoders.base import Encoder
from impart.refset.refset import ReferenceSet
from impart.train.episodes.prepare import EpisodeData, prepare
from impart.train.episodes.solved import SolvedTask
from impart.train.episodes.task import EpisodeTask
from impart.train.events import TrainEvent
from impart.train.loop import fit
from impart.train.prepare.embeddings import load_frozen_encoder
from impart.train.prepare.pairs import Failures
from impart.train.settings import TrainConfig

__all__ = ["run"]

_TASKS: dict[str, type[EpisodeTask]] = {"solved": SolvedTask}


def run(config: TrainConfig, *, data: Path, out: Path, resume: bool) -> Iterator[TrainEvent]:
    """Prepare, train, and write the checkpoint folder `OUT/model` (see `impart.train.run.train`).

    Raises:
        TrainingError: the data cannot be used, or training fails.
    """
    failures = Failures()
    encoder = load_frozen_encoder(config.data)
    prepared = yield from prepare(config, encoder, data=data, out=out, failures=failures)
    failures.write(out / "failures.csv")
    task = _TASKS.get(config.ram.form, EpisodeTask)(prepared, config)
    finished = yield from fit(task, config, out=out, resume=resume)
    task.ram.eval()
    references = _references(prepared, encoder)
    write_checkpoint(out / "model", task.ram.cpu(), settings=config.ram, base=encoder, references=references)
    model = out / "model"
    yield dataclasses.replace(finished, folder=model, encoder=str(model), failed=len(failures))


def _references(data: EpisodeData, encoder: Encoder) -> ReferenceSet:
    """Build the reference set of the checkpoint: one image per training concept, until the user gives another set."""
    rows = np.array([own[0] for own in data.train.rows], dtype=np.int64)
    made = ReferenceSet.from_arrays(
        data.train.keys,
        image=data.image[0][rows],
        text=np.stack([data.names[key][0] for key in data.train.keys]),
        retrieval=data.retrieval[0][rows],
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="concepts",
    )
    return made.with_znorm(data.znorm)
