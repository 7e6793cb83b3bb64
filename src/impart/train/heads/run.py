"""Mode `heads` from the data folder to a trained model: prepare, train, export.

The towers are EfficientNet-Lite2 and all-MiniLM-L6-v2, as in `mini`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from impart.blending.ram_checkpoint import is_checkpoint
from impart.train.events import TrainEvent
from impart.train.heads.checkpoint import save_heads
from impart.train.heads.encoder_folder import export_heads
from impart.train.heads.prepare import prepare
from impart.train.heads.task import HeadsTask
from impart.train.loop import fit
from impart.train.prepare.pairs import Failures
from impart.train.settings import TrainConfig

__all__ = ["run"]


def run(config: TrainConfig, *, data: Path, out: Path, resume: bool) -> Iterator[TrainEvent]:
    """Train, and write `OUT/model` (for `load_heads`) and `OUT/encoder` (for `--encoder`).

    Args:
        config: of mode `heads`.
        data: folder that relative paths of the config start from; the development data, if the config names no pairs.
        out: folder of the run.
        resume: continue from the newest checkpoint.

    Yields:
        Events; the last is `Finished`.

    Raises:
        TrainingError: the data cannot be used, or the run cannot be continued.
    """
    failures = Failures()
    made = yield from prepare(config, data=data, out=out, failures=failures)
    failures.write(out / "failures.csv")
    task = HeadsTask(
        made.corpus,
        made.image,
        config,
        components=made.components,
        references=made.references if config.reference.augment == "ram" else None,
        validation=made.validation,
        tail=made.tail,
    )
    finished = yield from fit(task, config, out=out, resume=resume)
    model = task.finished().cpu()
    features = made.references.features if made.references else made.corpus.views[0][:0]
    texts = made.reference_sentences()
    text_tower = made.text_tower.cpu()
    save_heads(
        out / "model",
        model,
        config=config,
        rows=made.rows,
        features=features,
        sentences=texts,
        text_tower=text_tower if made.tail is not None else None,
    )
    folder = export_heads(
        out / "encoder",
        model,
        config=config,
        backbone=made.tower.path,
        preprocessing=made.tower.preprocessing,
        sentences=text_tower,
        rows=made.rows,
        features=features.cpu().float(),
        texts=texts.cpu(),
    )
    encoder = str(folder) if is_checkpoint(folder) else f"mini:{folder}"  # without RAM: the layout of `mini`
    yield dataclasses.replace(finished, folder=folder, encoder=encoder, failed=len(failures))
