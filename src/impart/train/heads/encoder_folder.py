"""Export a trained model of mode `heads` for `--encoder`: towers in the layout of `mini`, with a RAM checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from impart.blending.ram_checkpoint import write_checkpoint
from impart.encoders.onnx.encoder import load_mini
from impart.encoders.preprocess import PreprocessConfig
from impart.errors import TrainingError
from impart.files import make_folder, write_json_atomic
from impart.refset.refset import ReferenceSet
from impart.train.heads.checkpoint import ReferenceRow
from impart.train.heads.model import HeadsModel
from impart.train.heads.onnx_export import ImageTower, TextTower, export_model
from impart.train.heads.towers.sentences import CONTEXT_TOKENS, SentenceTower
from impart.train.settings import TrainConfig

__all__ = ["export_heads"]


def export_heads(
    folder: Path,
    model: HeadsModel,
    *,
    config: TrainConfig,
    backbone: Path,
    preprocessing: PreprocessConfig,
    sentences: SentenceTower,
    rows: Sequence[ReferenceRow],
    features: Tensor,
    texts: Tensor,
) -> Path:
    """Write the encoder `FOLDER/encoder` for `mini:`, and with RAM the checkpoint `FOLDER`, of which it is the base.

    Args:
        folder: made when missing.
        model: in evaluation mode, on the CPU.
        config: of the run.
        backbone: ONNX file, pixels to features.
        preprocessing: images to pixels.
        sentences: the text tower.
        rows: N references.
        features: (N, F) of their images.
        texts: (N, D) sentence embeddings of their texts.

    Returns:
        The folder for `--encoder`: `FOLDER` with RAM, `mini:FOLDER` without.

    Raises:
        TrainingError: it cannot be written.
    """
    towers = folder / "encoder"
    try:
        make_folder(towers)
        export_model(
            towers,
            ImageTower(model.image, model.components),
            TextTower(sentences, model.text),
            backbone=backbone,
            int8=False,
        )
        card = {
            "id": "heads",
            "dim": model.image.names.shape[1],
            "context_tokens": CONTEXT_TOKENS,
            "logit_scale": config.heads.class_scale,
            "preprocess": preprocessing.to_dict(),
            "recipe": config.as_dict(),
        }
        if model.components is not None:
            card["retrieval_dim"] = model.components.shape[1]
        write_json_atomic(towers / "model.json", card, ascii_only=True)
    except OSError as error:
        raise TrainingError(f"cannot write the encoder to {towers}: {error.strerror or error}") from error
    if model.ram is None:
        return towers
    encoder = load_mini(str(towers))
    embedded = model.embed_references(features, texts)
    references = ReferenceSet.from_arrays(
        [row.text for row in rows],
        image=embedded.image.numpy(),
        text=embedded.text.numpy(),
        retrieval=embedded.retrieval.numpy(),
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="references",
        meta={
            "source": [row.source for row in rows],
            "hash": [row.hash for row in rows],
            "path": [row.path for row in rows],
        },
    )
    return write_checkpoint(folder, model.ram, settings=config.ram, base=encoder, references=references)
