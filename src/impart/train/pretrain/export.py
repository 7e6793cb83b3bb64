"""Export a trained model of mode `pretrain` for `--encoder`: the towers, with RAM a checkpoint with its references."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from impart.blending.ram_checkpoint import write_checkpoint
from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.encoders.paired import PairedEncoder, write_paired
from impart.refset.refset import ReferenceSet
from impart.train.pretrain.model import PretrainModel
from impart.train.pretrain.task import PretrainTask

__all__ = ["export"]


def export(task: PretrainTask, model: PretrainModel, frozen: Encoder | None, folder: Path) -> tuple[Path, str]:
    """Write the trained model.

    Args:
        task: has the references.
        model: with whole weights; it is moved to the CPU.
        frozen: the encoder that finds neighbours; None = the image tower does.
        folder: of the model.

    Returns:
        The folder, and the id that `--encoder` opens.
    """
    ram, references = model.ram, task.data.references
    if ram is not None:
        image, text = (rows.float().cpu().numpy() for rows in model.embedded_references())
    encoder_id = model.towers.cpu().save(folder / "encoder", scale=float(model.temperature().detach()))
    if ram is None:
        return folder / "encoder", encoder_id
    encoder: Encoder = load_encoder(encoder_id, device="cpu")
    if frozen is not None:
        encoder = PairedEncoder(encoder, frozen, encoder_id=write_paired(folder / "encoder", frozen))
    pairs = [item.pair for item in references.items]
    retrieval = references.queries(np.arange(len(pairs))) if frozen is not None else image
    made = ReferenceSet.from_arrays(
        [item.texts[0] for item in references.items],
        image=image,
        text=text,
        retrieval=retrieval,
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="references",
        meta={
            "source": [pair.source for pair in pairs],
            "licence": [pair.licence for pair in pairs],
            "hash": list(task.data.hashes),
            "path": [pair.path for pair in pairs],
        }
        | ({"phash": list(task.data.phashes)} if task.data.phashes else {}),
    )
    write_checkpoint(folder, ram.cpu().eval(), settings=task.config.ram, base=encoder, references=made)
    return folder, str(folder)
