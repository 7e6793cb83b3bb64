"""Save and load a trained model of mode `heads` as a folder.

manifest.json            kind, settings, counts
model.safetensors        heads, retrieval directions and RAM
text_tower.safetensors   the sentence tower, if its upper layers learned
references.safetensors   features and sentences of the reference pairs, float16
references.jsonl         their texts, images and sources

Folders of kind `lit`, the former name of the mode, are read too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from impart.blending.ram import build_ram
from impart.errors import TrainingError
from impart.files import library_versions, make_folder, now, sync, write_atomic, write_json_atomic
from impart.train.config_file import config_of
from impart.train.heads.heads import CellAttention, Correction, ImageHead, TextHead
from impart.train.heads.model import EmbeddedReferences, HeadsModel
from impart.train.heads.towers.sentences import SentenceTower
from impart.train.retired import RETIRED
from impart.train.settings import TrainConfig

__all__ = ["ReferenceRow", "TrainedHeadsModel", "load_heads", "save_heads"]

_KIND, _SCHEMA = "heads", 1
_FORMER_KIND = "lit"
_TOWER = "text_tower.safetensors"


@dataclass(frozen=True)
class ReferenceRow:
    """Origin of a reference pair.

    Attributes:
        text: its caption or name.
        path: of the image, below the data folder.
        source: the collection.
        hash: sha256 of the image's content.
    """

    text: str
    path: str
    source: str
    hash: str


@dataclass(frozen=True)
class TrainedHeadsModel:
    """A trained model with its references.

    Attributes:
        model: heads and RAM, in evaluation mode.
        config: of the run.
        rows: N reference pairs; none for plain CLIP trained without a hold-out.
        features: (N, F) float32 backbone features of their images.
        sentences: (N, D) float32 sentence embeddings of their texts, by `text_tower`.
        text_tower: the sentence tower that the model takes its texts from; None = all-MiniLM-L6-v2 as published.
    """

    model: HeadsModel
    config: TrainConfig
    rows: tuple[ReferenceRow, ...]
    features: Tensor
    sentences: Tensor
    text_tower: SentenceTower | None = None

    def references(self, rows: Sequence[int] | None = None) -> EmbeddedReferences:
        """Embed the run's references, or some of them, with the trained heads."""
        chosen = slice(None) if rows is None else torch.as_tensor(rows, device=self.features.device)
        return self.model.embed_references(self.features[chosen], self.sentences[chosen])


def save_heads(
    folder: Path,
    model: HeadsModel,
    *,
    config: TrainConfig,
    rows: Sequence[ReferenceRow],
    features: Tensor,
    sentences: Tensor,
    text_tower: SentenceTower | None = None,
) -> Path:
    """Write the folder; the manifest last, so that a folder with a manifest is complete.

    Raises:
        TrainingError: it cannot be written.
    """
    from safetensors.torch import save_file

    manifest = {
        "kind": _KIND,
        "schema": _SCHEMA,
        "config": config.as_dict(),
        "dim": model.image.names.shape[1],
        "references": len(rows),
        "created": now(),
        "versions": {**library_versions(), "torch": torch.__version__},
    }
    try:
        make_folder(folder)
        (folder / "manifest.json").unlink(missing_ok=True)
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        (folder / _TOWER).unlink(missing_ok=True)
        if text_tower is not None:
            save_file({name: value.contiguous() for name, value in text_tower.state_dict().items()}, folder / _TOWER)
        kept = {"features": features.half().cpu().contiguous(), "sentences": sentences.half().cpu().contiguous()}
        save_file(kept, folder / "references.safetensors")
        lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows)
        write_atomic(folder / "references.jsonl", lines)
        sync(folder)  # before the manifest, which marks the folder as complete
        write_json_atomic(folder / "manifest.json", manifest, ascii_only=True)
    except OSError as error:
        raise TrainingError(f"cannot write the model to {folder}: {error.strerror or error}") from error
    return folder


def load_heads(folder: Path, *, device: str = "cpu") -> TrainedHeadsModel:
    """Read a trained model: the folder of a run, or its `model/`.

    Raises:
        TrainingError: there is no model, it is of another kind, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = folder / "model" if (folder / "model" / "manifest.json").is_file() else folder
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest.get("kind") not in (_KIND, _FORMER_KIND) or manifest.get("schema") != _SCHEMA:
            raise TrainingError(f"{folder} has a model of kind {manifest.get('kind')!r}, not of mode 'heads'")
        table = manifest["config"] if manifest["kind"] == _KIND else _renamed(manifest["config"])
        config = config_of(table, where=str(folder))
        model = _rebuild(load_file(folder / "model.safetensors"), config)
        text_tower = None
        if config.heads.text_layers:
            text_tower = SentenceTower().to(device)
            text_tower.load_state_dict(load_file(folder / _TOWER, device=device))
        kept = load_file(folder / "references.safetensors", device=device)
        lines = (folder / "references.jsonl").read_text(encoding="utf-8").splitlines()
        rows = tuple(ReferenceRow(**json.loads(line)) for line in lines)
    except FileNotFoundError as error:
        raise TrainingError(f"{folder} has no trained model ({error.filename} is missing)") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"{folder} has a damaged model: {error}") from error
    return TrainedHeadsModel(
        model.to(device).eval().requires_grad_(False),
        config,
        rows,
        kept["features"].float(),
        kept["sentences"].float(),
        text_tower,
    )


def _renamed(table: dict[str, Any]) -> dict[str, Any]:
    """Rename the settings of a model of kind `lit`."""
    settings = {old.rpartition(".")[2]: new.rpartition(".")[2] for old, new in RETIRED["setting"].items()}
    names = settings | RETIRED["table"]
    renamed = {names.get(name, name): value for name, value in table.items()}
    data = {names.get(name, name): value for name, value in table["data"].items()}
    return {**renamed, "mode": _KIND, "data": data}


def _rebuild(weights: dict[str, Tensor], config: TrainConfig) -> HeadsModel:
    """Build the modules from saved weights; widths are read from the weights."""

    def correction(part: str) -> Correction:
        up, down = weights[f"{part}.correction.up.weight"], weights[f"{part}.correction.down.weight"]
        return Correction(up.shape[1], up.shape[0], down.shape[0])

    classes, width = weights["image.weight"].shape
    image = ImageHead(
        nn.Linear(width, classes),
        weights["image.names"],
        weights["image.mean"],
        1 / weights["image.scale"],
        top=config.heads.top,
        temperature=config.heads.temperature,
        correction=correction("image"),
        attention=_cells(weights, config),
    )
    components = weights.get("components")
    dim = weights["image.names"].shape[1]
    ram: Any = None
    if any(name.startswith("ram.") for name in weights):
        ram = build_ram(config.ram, dim=dim, retrieval_dim=dim if components is None else components.shape[1])
    model = HeadsModel(image, TextHead(correction("text")), components=components, ram=ram, k=config.ram.k)
    model.load_state_dict(weights)
    return model


def _cells(weights: dict[str, Tensor], config: TrainConfig) -> CellAttention | None:
    places = weights.get("image.attention.places")
    if places is None:
        return None
    down = weights["image.attention.down.weight"]
    return CellAttention(
        weights["image.attention.mean"],
        1 / weights["image.attention.scale"],
        cells=len(places),
        heads=config.heads.cell_heads,
        hidden=down.shape[1],
        outputs=down.shape[0],
    )
