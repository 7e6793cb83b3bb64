"""Mode `ram`: a frozen encoder, and RAM learns.

pairs -> embeddings (stored, shared by runs) -> a tenth held out as references -> neighbours (stored)
      -> RAM learns to match captions -> a folder that `impart index --encoder` opens
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from impart.blending.ram_checkpoint import write_checkpoint
from impart.encoders.projected import ProjectedEncoder, write_projected
from impart.refset.refset import ReferenceSet
from impart.train.events import TrainEvent
from impart.train.loop import fit
from impart.train.prepare.embeddings import load_frozen_encoder
from impart.train.prepare.pairs import Failures
from impart.train.ram.prepare import prepare
from impart.train.ram.task import PROJECTIONS, RamTask
from impart.train.settings import TrainConfig

__all__ = ["run"]


def run(config: TrainConfig, *, data: Path, out: Path, resume: bool) -> Iterator[TrainEvent]:
    """Prepare, train, and write the checkpoint folder `OUT/model` (see `impart.train.run.train`).

    Raises:
        TrainingError: the data cannot be used, or training fails.
    """
    failures = Failures()
    encoder = load_frozen_encoder(config.data)
    prepared = yield from prepare(config, encoder, data=data, out=out, failures=failures)
    failures.write(out / "failures.csv")
    config = _with_rates(config)
    task = RamTask(prepared, config)
    finished = yield from fit(task, config, out=out, resume=resume)
    task.ram.eval()
    references = prepared.references
    if task.projections is not None:
        image, text = (projection.matrix for projection in task.projections)
        encoder = write_projected(out / "model" / "encoder", encoder, image, text)
        references = _projected_set(references, encoder)
    write_checkpoint(out / "model", task.ram.cpu(), settings=config.ram, base=encoder, references=references)
    model = out / "model"
    yield dataclasses.replace(finished, folder=model, encoder=str(model), failed=len(failures))


def _with_rates(config: TrainConfig) -> TrainConfig:
    """Add the rates of the projections to those of the optimiser, unless it names them."""
    rates = dict.fromkeys(PROJECTIONS, config.projections.rate) | config.optimiser.rates
    return dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, rates=rates))


def _projected_set(references: ReferenceSet, encoder: ProjectedEncoder) -> ReferenceSet:
    """Project the embeddings of a reference set."""
    return ReferenceSet.from_arrays(
        references.texts,
        image=encoder.project_images(references.image_embeddings),
        text=encoder.project_texts(references.text_embeddings),
        retrieval=references.retrieval_embeddings,
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name=references.name,
        meta={name: references.table[name].to_pylist() for name in ("source", "licence", "hash", "path", "phash")},
    )
