"""Mode `ram`: a frozen encoder, embeddings and neighbours computed ahead, and only RAM learns.

    pairs -> embeddings (stored, shared by runs) -> a tenth held out as references -> neighbours (stored)
          -> RAM learns to say the caption -> a folder that `impart index --encoder` opens

Letters: B pairs in a batch, K neighbours, D embedding width, R retrieval width, N references.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Retrieved, build_ram
from impart.encoders import load_encoder
from impart.encoders.base import Encoder
from impart.encoders.projected import ProjectedEncoder, write_projected
from impart.errors import TrainingError
from impart.refset.refset import ReferenceSet
from impart.train.events import Note, TrainEvent
from impart.train.loop import fit
from impart.train.losses import contrastive_loss
from impart.train.prepare.embeddings import EmbeddedImages, EmbeddingStore
from impart.train.prepare.neighbours import NeighbourTable, find_neighbours
from impart.train.prepare.pairs import Failures, ListedImage, list_images
from impart.train.prepare.retrieved import ITSELF, ZNormTensors, gather, replace_at_random, shows_itself
from impart.train.prepare.split import Split, hold_out, may_be_references
from impart.train.prepare.texts import text_key
from impart.train.settings import TrainConfig
from impart.train.task import Temperature, TrainingTask, recall

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["EmbeddedRows", "Projection", "RamData", "RamTask", "prepare", "run"]

_PROJECTIONS = ("image_projection", "text_projection")


@dataclass(frozen=True)
class EmbeddedRows:
    """Embedded images and where their texts are.

    Attributes:
        image: (n, D) float16.
        retrieval: (n, R) float16.
        neighbours: of the n images among the references.
        spans: (n, 2) first text and number of texts of each image, in `texts`.
        texts: (m,) rows of `RamData.text`.
    """

    image: npt.NDArray[np.float16]
    retrieval: npt.NDArray[np.float16]
    neighbours: NeighbourTable
    spans: npt.NDArray[np.int64]
    texts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(frozen=True)
class RamData:
    """Everything the task reads.

    Attributes:
        train: learned from.
        validation: measured on; may be empty.
        text: (M, D) float16 text embeddings.
        keys: (M,) int64, equal for equal texts.
        references: the held-out pairs.
    """

    train: EmbeddedRows
    validation: EmbeddedRows
    text: npt.NDArray[np.float16]
    keys: npt.NDArray[np.int64]
    references: ReferenceSet


class Projection(nn.Module):
    """A matrix on unit embeddings that starts as the identity: (..., D) to (..., D), L2-normalised."""

    def __init__(self, dim: int):
        super().__init__()
        self.change = nn.Linear(dim, dim, bias=False)
        nn.init.zeros_(self.change.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings + self.change(embeddings), dim=-1)

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """(D, D)."""
        change = self.change.weight.detach().cpu().numpy().astype(np.float32)
        found: npt.NDArray[np.float32] = np.eye(len(change), dtype=np.float32) + change
        return found


class RamTask(TrainingTask):
    """RAM on frozen embeddings, with a contrastive loss on v'; where asked for, projections of the embeddings too."""

    def __init__(self, data: RamData, config: TrainConfig):
        self._data, self._config = data, config
        dim, width = data.references.manifest.dim, data.references.manifest.retrieval_dim
        torch.manual_seed(config.seed)
        self.ram = build_ram(config.ram, dim=dim, retrieval_dim=width)
        self.temperature = Temperature(config.loss.init_scale, config.loss.max_scale)
        self.projections = (Projection(dim), Projection(dim)) if config.projections.learn else None
        self._called: dict[str, nn.Module] = self.modules()
        self._batch = min(config.loop.batch, len(data.train))
        self.pairs_per_step = self._batch * config.loop.accumulate
        self.steps_per_epoch = max(1, len(data.train) // self.pairs_per_step)

    def modules(self) -> dict[str, nn.Module]:
        learned: dict[str, nn.Module] = {"ram": self.ram, "temperature": self.temperature}
        if self.projections is not None:
            learned |= dict(zip(_PROJECTIONS, self.projections, strict=True))
        return learned

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:
        self._called = modules
        device, references = accelerator.device, self._data.references
        self._device = device
        self._image = torch.as_tensor(references.image_embeddings, device=device)  # (N, D)
        self._text = torch.as_tensor(references.text_embeddings, device=device)
        self._retrieval = torch.as_tensor(references.retrieval_embeddings, device=device)  # (N, R)
        self._znorm = ZNormTensors.on(references.znorm, device)

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """(rows of the training images, seed of the draws), a slice of the epoch's permutation each."""
        order = np.random.default_rng((seed, epoch)).permutation(len(self._data.train))
        accumulate = self._config.loop.accumulate
        for step in range(position, self.steps_per_epoch):
            for part in range(accumulate):
                number = step * accumulate + part
                rows = order[np.arange(number * self._batch, (number + 1) * self._batch) % len(order)]
                yield rows, int(np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0])

    def training_step(self, batch: tuple[npt.NDArray[np.int64], int], accelerator: Accelerator) -> dict[str, Tensor]:
        rows, seed = batch
        rng = np.random.default_rng(seed)
        data, loss_settings = self._data, self._config.loss
        spans = data.train.spans[rows]
        picked = data.train.texts[spans[:, 0] + rng.integers(spans[:, 1])]  # (B,)
        found = self._retrieved(data.train, rows, rng, random=self._config.reference.random)
        published = F.normalize(self._tensor(data.text[picked]), dim=-1)  # (B, D)
        keys = torch.as_tensor(data.keys[picked], device=self._device)
        with accelerator.autocast():
            found, t = self._projected(found, published)
            v = F.normalize(found.v + self._called["ram"](found).added, dim=-1)
            scale = self._called["temperature"]()
            near = published @ published.T > loss_settings.near_text if loss_settings.near_text < 1 else None
            logits = (scale * v @ t.T).float()
            loss = contrastive_loss(logits, keys, ignore=near, smoothing=loss_settings.smoothing)
        accelerator.backward(loss)
        return {"loss": loss.detach(), "scale": scale.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Text-to-image and image-to-text recall with RAM, and of the base for comparison."""
        data = self._data
        if not len(data.validation):
            return {}
        spans = data.validation.spans
        owners = torch.as_tensor(np.repeat(np.arange(len(spans)), spans[:, 1]), device=self._device)
        t = F.normalize(self._tensor(data.text[data.validation.texts]), dim=-1)  # (T, D)
        self.ram.eval()
        found = self._retrieved(data.validation, np.arange(len(spans)), np.random.default_rng(0), random=0.0)
        base = {f"base_{name}": value for name, value in recall(t @ found.v.T, owners).items()}
        found, t = self._projected(found, t)
        v = F.normalize(found.v + self.ram(found).added, dim=-1)
        self.ram.train()
        return recall(t @ v.T, owners) | base

    def _projected(self, found: Retrieved, texts: Tensor) -> tuple[Retrieved, Tensor]:
        """The same where embeddings are projected: of the images, of their neighbours, and of texts (B, D)."""
        if self.projections is None:
            return found, texts
        image, text = (self._called[name] for name in _PROJECTIONS)
        moved = dataclasses.replace(found, v=image(found.v), r_img=image(found.r_img), r_txt=text(found.r_txt))
        return moved, text(texts)

    def _retrieved(
        self, images: EmbeddedRows, rows: npt.NDArray[np.int64], rng: np.random.Generator, *, random: float
    ) -> Retrieved:
        ids = torch.as_tensor(np.asarray(images.neighbours.ids[rows]), dtype=torch.int64, device=self._device)
        v = F.normalize(self._tensor(images.image[rows]), dim=-1)
        q = F.normalize(self._tensor(images.retrieval[rows]), dim=-1)
        if random:
            drawn = replace_at_random(ids, len(self._image), random, rng)
            near = shows_itself(
                q, self._retrieval, drawn, near_duplicate=min(self._config.reference.near_duplicate, ITSELF)
            )
            ids = drawn.masked_fill((drawn != ids) & near, -1)
        return gather(v, q, ids, image=self._image, text=self._text, retrieval=self._retrieval, znorm=self._znorm)

    def _tensor(self, rows: npt.NDArray[Any]) -> Tensor:
        return torch.as_tensor(np.asarray(rows, dtype=np.float32), device=self._device)


def run(config: TrainConfig, *, data: Path, out: Path, resume: bool) -> Iterator[TrainEvent]:
    """The whole mode: prepare, train, write the checkpoint folder `OUT/model`.

    Args:
        config: of mode `ram`.
        data: folder that relative paths of the config start from.
        out: folder of the run.
        resume: go on from the newest checkpoint.
    """
    from impart.blending.ram_checkpoint import write_checkpoint

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("mode 'ram' trains in minutes in one process: start it without a launcher")
    failures = Failures()
    encoder = load_encoder(config.data.encoder, **({"threads": config.data.threads} if config.data.threads else {}))
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
    yield dataclasses.replace(finished, folder=out / "model", failed=len(failures))


def _with_rates(config: TrainConfig) -> TrainConfig:
    """The config with the rate of the projections among the optimiser's, where it names none."""
    rates = dict.fromkeys(_PROJECTIONS, config.projections.rate) | config.optimiser.rates
    return dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, rates=rates))


def _projected_set(references: ReferenceSet, encoder: ProjectedEncoder) -> ReferenceSet:
    """The reference set as the projected encoder sees it."""
    return ReferenceSet.from_arrays(
        references.texts,
        image=encoder.project_images(references.image_embeddings),
        text=encoder.project_texts(references.text_embeddings),
        retrieval=references.retrieval_embeddings,
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name=references.name,
        meta={name: references.table[name].to_pylist() for name in ("source", "licence", "hash", "path")},
    )


def prepare(
    config: TrainConfig, encoder: Encoder, *, data: Path, out: Path, failures: Failures
) -> Generator[TrainEvent, None, RamData]:
    """Turn pairs into embeddings, a split and neighbours.

    Raises:
        TrainingError: too few pairs are left.
    """
    options = config.data
    if not options.pairs:
        raise TrainingError("the config names no pairs: add [[data.pairs]] with a path, or give --pairs")
    listed = list_images(options.pairs, data, failures)
    apart = list_images(options.validation, data, failures)
    yield Note(message=f"{len(listed)} images with {sum(len(p.texts) for p in listed)} texts")
    store = EmbeddingStore(
        Path(options.cache).expanduser() if options.cache else out / "embeddings",
        encoder,
        batch=options.batch,
        max_megapixels=options.max_megapixels,
    )
    embedded = yield from store.images([image.pair for image in listed + apart])
    for path, reason in embedded.failures:
        failures.add(path, reason)
    images = [p for p, place in zip(listed + apart, embedded.usable, strict=True) if place >= 0]
    first_apart = int((embedded.usable[: len(listed)] >= 0).sum())  # images[first_apart:] are for validation alone
    text_rows = yield from store.texts([text for image in images for text in image.texts])
    split = _split(config, images, embedded.hashes, first_apart)
    if len(split.train) < 2 or not len(split.references):
        raise TrainingError(
            f"{len(split.train)} images are left to train on, {len(split.references)} as references: too few. "
            f"{len(failures)} items failed" + (f", such as {failures.items[0]}" if len(failures) else "")
        )
    yield Note(
        message=f"{len(split.train)} images to train on, {len(split.references)} references, "
        f"{len(split.validation)} for validation; {len(failures)} items failed"
    )
    counts = np.array([len(image.texts) for image in images])
    spans = np.stack([np.cumsum(counts) - counts, counts], axis=1)
    references, rows_of = _reference_set(config, encoder, store, images, embedded, split, text_rows, spans)
    retrieval = references.retrieval_embeddings
    parts: list[EmbeddedRows] = []
    for name, chosen in (("train", split.train), ("validation", split.validation)):
        rows = embedded.rows[chosen]
        queries = np.asarray(store.retrieval[rows])
        table = yield from find_neighbours(
            out / "neighbours",
            queries,
            retrieval,
            k=config.ram.k,
            query_hashes=[embedded.hashes[number] for number in chosen],
            reference_hashes=[embedded.hashes[number] for number in rows_of],
            near_duplicate=config.reference.near_duplicate,
            index=config.reference.index,
            name=name,
        )
        if table.masked:
            yield Note(message=f"{name}: {table.masked} references masked as the image itself or a near-duplicate")
        parts.append(EmbeddedRows(np.asarray(store.image[rows]), queries, table, *_texts_of(chosen, spans, text_rows)))
    return RamData(parts[0], parts[1], store.text, _keys(images, text_rows, len(store.text)), references)


def _split(config: TrainConfig, images: Sequence[ListedImage], hashes: Sequence[str], first_apart: int) -> Split:
    """Numbers of `images` by use; content that validation has is nowhere else."""
    options = config.reference
    split = hold_out(
        first_apart,
        fraction=options.fraction,
        seed=config.seed,
        held_out=options.held_out,
        use=options.use,
        validation=0 if len(images) > first_apart else min(config.data.validation_images, first_apart // 10),
        eligible=may_be_references([p.pair.source for p in images[:first_apart]], options.sources),
    )
    validation = np.concatenate([split.validation, np.arange(first_apart, len(images))])
    seen = {hashes[number] for number in validation}
    fresh = np.array([key not in seen for key in hashes])
    return Split(split.train[fresh[split.train]], split.references[fresh[split.references]], validation)


def _texts_of(
    chosen: npt.NDArray[np.int64], spans: npt.NDArray[np.int64], text_rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Spans and text rows of some images alone."""
    counts = spans[chosen, 1]
    numbers = [np.arange(first, first + count) for first, count in spans[chosen]]
    rows = text_rows[np.concatenate(numbers)] if numbers else text_rows[:0]
    return np.stack([np.cumsum(counts) - counts, counts], axis=1), rows


def _keys(images: Sequence[ListedImage], rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """(M,) for each row of the text store: equal for texts that say the same."""
    numbers: dict[str, int] = {}
    keys = np.full(count, -1, dtype=np.int64)
    texts = (text for image in images for text in image.texts)
    for row, text in zip(rows, texts, strict=True):
        keys[row] = numbers.setdefault(text_key(text), len(numbers))
    return keys


def _reference_set(
    config: TrainConfig,
    encoder: Encoder,
    store: EmbeddingStore,
    images: Sequence[ListedImage],
    embedded: EmbeddedImages,
    split: Split,
    text_rows: npt.NDArray[np.int64],
    spans: npt.NDArray[np.int64],
) -> tuple[ReferenceSet, list[int]]:
    """The held-out pairs as a reference set, and the number of each pair's image."""
    limit = config.reference.captions
    pairs = [
        (number, text)
        for number in split.references
        for text in range(min(limit, len(images[number].texts)) if limit else len(images[number].texts))
    ]
    owners = [int(number) for number, _ in pairs]
    rows = embedded.rows[owners]
    texts = text_rows[[spans[number, 0] + text for number, text in pairs]]
    made = ReferenceSet.from_arrays(
        [images[number].texts[text] for number, text in pairs],
        image=np.asarray(store.image[rows]),
        text=np.asarray(store.text[texts]),
        retrieval=np.asarray(store.retrieval[rows]),
        encoder_id=encoder.traits.id,
        encoder_fingerprint=encoder.fingerprint,
        name="references",
        meta={
            "source": [images[number].pair.source for number in owners],
            "licence": [images[number].pair.licence for number in owners],
            "hash": [embedded.hashes[number] for number in owners],
            "path": [images[number].pair.path for number in owners],
        },
    )
    return made, owners
