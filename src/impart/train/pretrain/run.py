"""Mode `pretrain`: both towers learn, in one process or several.

    pairs -> a tenth held out as references -> neighbours by a frozen, unimodal encoder (stored)
          -> both towers, RAM and temperature learn; the references are embedded again every epoch
          -> a folder that `impart index --encoder` opens

Several processes: start them with `accelerate launch` or `torchrun`, with the same arguments.

OUT/tokenizer/         learned from the training captions (towers from scratch)
OUT/decoded/           the images, decoded once (`pretrain.decode_once_px`); likewise OUT/sentences/
OUT/model/encoder/     the towers, as `hf:FOLDER` opens them; small towers as `mini:FOLDER`
OUT/model/             with RAM: a checkpoint that `--encoder OUT/model` opens; plain CLIP is `hf:OUT/model/encoder`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from impart.encoders.base import Encoder
from impart.errors import ConfigError, TrainingError
from impart.train.events import TrainEvent, result_of
from impart.train.loop import fit, make_accelerator
from impart.train.prepare.embeddings import load_frozen_encoder
from impart.train.prepare.pairs import Failures
from impart.train.pretrain.export import export
from impart.train.pretrain.prepare import PretrainData, decode_once, prepare
from impart.train.pretrain.task import PretrainTask
from impart.train.pretrain.towers.base import Towers
from impart.train.pretrain.towers.build import build_towers
from impart.train.pretrain.towers.tokenizer import learn_tokenizer, open_tokenizer, save_tokenizer
from impart.train.settings import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["run"]


def run(config: TrainConfig, *, data: Path, out: Path, resume: bool) -> Iterator[TrainEvent]:
    """Prepare, train, and write `OUT/model` (see `impart.train.run.train`); all processes have the same `out`.

    Raises:
        TrainingError: the launcher's kind of distribution is not supported, too few pairs are left, or training fails.
    """
    from accelerate.utils import gather_object

    accelerator = make_accelerator(config)
    _check_launch(accelerator)
    failures = Failures()
    encoder = _frozen_encoder(config)
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()  # the first process computes, the others read what it stored
    steps = prepare(config, encoder, data=data, out=out, failures=failures)
    made = (yield from steps) if accelerator.is_main_process else result_of(steps)
    towers = _towers(config, made, data=data, out=out)
    decoding = decode_once(made, config, towers.preprocess, out=out)
    made = (yield from decoding) if accelerator.is_main_process else result_of(decoding)
    if accelerator.is_main_process:
        failures.write(out / "failures.csv")
        accelerator.wait_for_everyone()
    task = PretrainTask(made, config, towers, accelerator.process_index, accelerator.num_processes, failures)
    finished = yield from fit(task, config, out=out, resume=resume, accelerator=accelerator)
    failures.items = list(dict.fromkeys(gather_object(failures.items)))  # each process read its own images
    if task.model.ram is not None:
        task.refresh(exact=True)  # with the final weights
    model = task.assemble()
    if model is not None:
        failures.write(out / "failures.csv")
        folder, opens = export(task, model, encoder, out / "model")
        yield dataclasses.replace(finished, folder=folder, encoder=opens, failed=len(failures))
    accelerator.wait_for_everyone()


def _check_launch(accelerator: Accelerator) -> None:
    kind = str(accelerator.distributed_type.value)
    if kind not in ("NO", "MULTI_CPU", "MULTI_GPU"):
        raise TrainingError(
            f"the launcher is set to {kind}: mode 'pretrain' runs in one process or several (MULTI_GPU, MULTI_CPU); "
            "change distributed_type in accelerate's config. To spread the weights over the processes, set "
            "pretrain.shard = true"
        )


def _frozen_encoder(config: TrainConfig) -> Encoder | None:
    """Load the encoder that finds neighbours; None for plain CLIP, or where the image tower finds them."""
    if config.reference.augment == "none" or config.reference.retrieval == "encoder":
        return None
    return load_frozen_encoder(config.data)


def _towers(config: TrainConfig, made: PretrainData, *, data: Path, out: Path) -> Towers:
    """Build the towers of step 0. A learned tokenizer is written to OUT, so that a resumed run has the same."""
    pretrain = config.pretrain
    if pretrain.model.startswith("hf:"):
        if pretrain.tokenizer:
            raise ConfigError("pretrain.tokenizer is for towers from scratch: pretrain.model has its own tokenizer")
        return build_towers(pretrain, data=data, tokenizer=None, seed=config.seed)
    folder = data / Path(pretrain.tokenizer).expanduser() if pretrain.tokenizer else out / "tokenizer"
    if pretrain.text_tower == "sentences":
        return build_towers(pretrain, data=data, tokenizer=None, seed=config.seed, sentences=made.sentences)
    if not pretrain.tokenizer and not (folder / "tokenizer_config.json").is_file():
        texts = (text for item in made.train.items for text in item.texts)
        save_tokenizer(learn_tokenizer(texts, pretrain), folder)
    return build_towers(pretrain, data=data, tokenizer=open_tokenizer(folder, pretrain), seed=config.seed)
