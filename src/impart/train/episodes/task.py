"""Mode `episodes`: a frozen encoder, and RAM learns to use reference sets that name what is seen (`episodes`).

    pairs -> embeddings, one store a view -> concepts, a part of them held out -> episodes
          -> RAM learns to name images by their references -> a folder that `impart index --encoder` opens

Letters: C concepts, B queries, N references, K neighbours, D embedding width, R retrieval width.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import zlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Retrieved, build_ram
from impart.blending.ram_checkpoint import write_checkpoint
from impart.encoders import load_encoder
from impart.encoders.base import Encoder, EncoderTraits, Float32, ImageEmbeddings, ImageInput, l2_normalise
from impart.errors import TrainingError
from impart.refset.refset import ReferenceSet
from impart.retrieval.znorm import ZNorm
from impart.train.episodes.episodes import Concepts, Episode, concept_of, draw_episode, made_up
from impart.train.events import Note, TrainEvent
from impart.train.heads.towers import views
from impart.train.loop import fit
from impart.train.prepare.embeddings import EmbeddingStore
from impart.train.prepare.pairs import Failures, list_images
from impart.train.prepare.retrieved import ZNormTensors, gather
from impart.train.settings import ReferenceSettings, TrainConfig
from impart.train.task import Temperature, TrainingTask

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["EpisodeData", "EpisodeTask", "ViewEncoder", "prepare", "run"]

_PHRASES = ("{}", "a photo of {}.")
_ZNORM = 2000  # images that tell what random is


@dataclass(frozen=True)
class EpisodeData:
    """Everything the task reads; n images, V views.

    Attributes:
        image: V arrays (n, D), L2-normalised.
        retrieval: V arrays (n, R), L2-normalised.
        train: concepts to learn from.
        validation: concepts held out; may be empty.
        names: by concept, (P, D) embeddings of ways to say it.
        znorm: of random images' retrieval embeddings, in all views.
    """

    image: tuple[Float32, ...]
    retrieval: tuple[Float32, ...]
    train: Concepts
    validation: Concepts
    names: dict[str, Float32]
    znorm: ZNorm


class EpisodeTask(TrainingTask):
    """RAM that names images by the references of an episode."""

    def __init__(self, data: EpisodeData, config: TrainConfig):
        self._data, self._config, self._options = data, config, config.episodes
        dim, width = data.image[0].shape[1], data.retrieval[0].shape[1]
        torch.manual_seed(config.seed)
        self.ram = build_ram(config.ram, dim=dim, retrieval_dim=width)
        self.temperature = Temperature(config.loss.init_scale, config.loss.max_scale)
        self._start = copy.deepcopy(self.ram).eval()  # for form `vanilla` this is Vanilla
        self._called: dict[str, nn.Module] = self.modules()
        self._device = torch.device("cpu")
        self.pairs_per_step = self._options.concepts * self._options.queries * config.loop.accumulate
        self.steps_per_epoch = 100  # an epoch of episodes has no natural end

    def modules(self) -> dict[str, nn.Module]:
        return {"ram": self.ram, "temperature": self.temperature}

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:
        self._called = modules
        self._device = accelerator.device
        self._start.to(self._device)
        self._znorm = ZNormTensors.on(self._data.znorm, self._device)

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[int]:
        """The seed of an episode each."""
        accumulate = self._config.loop.accumulate
        for number in range(position * accumulate, self.steps_per_epoch * accumulate):
            yield int(np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0])

    def training_step(self, batch: int, accelerator: Accelerator) -> dict[str, Tensor]:
        rng = np.random.default_rng(batch)
        options = self._options
        shots = int(rng.choice(options.shots))
        present = float(rng.choice((0.0, 0.5))) if rng.random() < options.absent else 1.0
        episode = draw_episode(self._data.train, options, rng, shots=shots, present=present)
        seen = int(rng.integers(len(self._data.image)))
        asked = int(rng.integers(len(self._data.image))) if rng.random() < options.mixed else seen
        found, candidates, right, here = self._tensors(
            self._data.train, episode, (seen, asked), rng, invented=options.made_up
        )
        with accelerator.autocast():
            added = self._called["ram"](found).added
            scale = self._called["temperature"]()
            logits = (scale * F.normalize(found.v + added, dim=-1) @ candidates.T).float()  # (B, C)
            naming = F.cross_entropy(logits, right)
            stranger = added.float().square().sum(1)[~here]
            loss = naming + options.keep * (stranger.mean() if len(stranger) else 0.0)
        accelerator.backward(loss)
        return {"loss": loss.detach(), "naming": naming.detach(), "scale": scale.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Top-1 in percent on held-out concepts: the base, RAM as it started, and RAM as it is.

        `real_*` with real names, `half_*` with made-up ones, `absent_*` where references show other concepts.
        """
        figures: dict[str, list[float]] = {}
        self.ram.eval()
        pool = self._data.validation
        for kind, invented, present in (("real", 0.0, 1.0), ("half", 1.0, 1.0), ("absent", 0.0, 0.0)):
            for shots in self._options.shots:
                if sum(len(rows) > shots for rows in pool.rows) < 2:
                    continue
                for number in range(self._options.validation_episodes):
                    rng = np.random.default_rng((shots, number))
                    episode = draw_episode(pool, self._options, rng, shots=shots, present=present)
                    views = divmod(number % len(self._data.image) ** 2, len(self._data.image))
                    found, candidates, right, _ = self._tensors(pool, episode, views, rng, invented=invented)
                    name = f"{kind}{'' if kind == 'absent' else f'_{shots}'}"
                    added = {"base": 0.0, "start": self._start(found).added, "ram": self.ram(found).added}
                    for who, plus in added.items():
                        hits = ((found.v + plus) @ candidates.T).argmax(1) == right
                        figures.setdefault(f"{name}_{who}", []).append(100 * float(hits.double().mean()))
        self.ram.train()
        return {name: round(float(np.mean(values)), 3) for name, values in figures.items()}

    def _tensors(
        self,
        pool: Concepts,
        episode: Episode,
        views: tuple[int, int],
        rng: np.random.Generator,
        *,
        invented: float,
    ) -> tuple[Retrieved, Tensor, Tensor, Tensor]:
        """What RAM takes, candidates (C, D), right answers (B,), whether the references hold them (B,) bool.

        `views` are those of the references and of the queries.
        """
        data = self._data
        ways = np.stack([data.names[pool.keys[concept]] for concept in episode.concepts], axis=1)  # (P, C, D)
        said = made_up(tuple(ways), rng) if rng.random() < invented else tuple(ways)
        seen, asked = views
        queries = self._tensor(data.retrieval[asked][episode.queries])
        references = self._tensor(data.retrieval[seen][episode.references])
        sims = queries @ references.T  # (B, N)
        sims = sims.masked_fill(sims > ReferenceSettings.near_duplicate, -2.0)
        best, ids = sims.topk(min(self._config.ram.k, sims.shape[1]), dim=1)
        found = gather(
            self._tensor(data.image[asked][episode.queries]),
            queries,
            ids.masked_fill(best < -1.5, -1),
            image=self._tensor(data.image[seen][episode.references]),
            text=self._tensor(said[0])[self._tensor(episode.shown)],
            retrieval=references,
            znorm=self._znorm,
        )
        right = self._tensor(episode.right)
        candidates = F.normalize(self._tensor(np.mean(said, axis=0)), dim=-1)
        return found, candidates, right, self._tensor(episode.present)[right]

    def _tensor(self, rows: npt.NDArray[np.generic]) -> Tensor:
        return torch.as_tensor(rows, device=self._device)


class ViewEncoder:
    """An encoder that takes one look at each shown first (see `features.look`), such as `small0`."""

    def __init__(self, base: Encoder, view: str):
        self._base, self._view = base, view
        self.fingerprint = base.fingerprint if view == "clean" else f"{zlib.crc32(view.encode()):08x}{base.fingerprint}"

    @property
    def traits(self) -> EncoderTraits:
        return self._base.traits

    def encode_images(self, images: Sequence[ImageInput]) -> ImageEmbeddings:
        seen = [image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image)) for image in images]
        seeds = [zlib.crc32(shown.tobytes()) for shown in seen]
        return self._base.encode_images(
            [views.view(shown.convert("RGB"), self._view, seed=seed) for shown, seed in zip(seen, seeds, strict=True)]
        )

    def encode_texts(self, texts: Sequence[str]) -> Float32:
        return self._base.encode_texts(texts)


def run(config: TrainConfig, *, data: Path, out: Path, resume: bool) -> Iterator[TrainEvent]:
    """Prepare, train, and write OUT/model.

    Raises:
        TrainingError: the data cannot be used.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise TrainingError("mode 'episodes' trains in minutes in one process: start it without a launcher")
    failures = Failures()
    encoder = load_encoder(config.data.encoder, **({"threads": config.data.threads} if config.data.threads else {}))
    prepared = yield from prepare(config, encoder, data=data, out=out, failures=failures)
    failures.write(out / "failures.csv")
    task = EpisodeTask(prepared, config)
    finished = yield from fit(task, config, out=out, resume=resume)
    task.ram.eval()
    references = _references(prepared, encoder)
    write_checkpoint(out / "model", task.ram.cpu(), settings=config.ram, base=encoder, references=references)
    yield dataclasses.replace(finished, folder=out / "model", failed=len(failures))


def prepare(
    config: TrainConfig, encoder: Encoder, *, data: Path, out: Path, failures: Failures
) -> Generator[TrainEvent, None, EpisodeData]:
    """Turn pairs into concepts and embeddings.

    Raises:
        TrainingError: too few concepts have enough images.
    """
    options = config.episodes
    listed = list_images(config.data.pairs, data, failures)
    named = [concept_of(image.texts) for image in listed]
    concepts = Concepts.of(named, least=options.least)
    others = sorted(set(range(len(listed))) - {int(row) for rows in concepts.rows for row in rows})
    random = np.random.default_rng(config.seed).permutation(others)[:_ZNORM].astype(np.int64)
    wanted = np.concatenate([*concepts.rows, random]) if len(concepts) else random
    cache = Path(config.data.cache).expanduser() if config.data.cache else out / "embeddings"
    images: list[Float32] = []
    retrievals: list[Float32] = []
    usable = np.ones(len(wanted), dtype=bool)
    for view in options.views:
        store = EmbeddingStore(
            cache,
            ViewEncoder(encoder, view),
            batch=config.data.batch,
            max_megapixels=config.data.max_megapixels,
        )
        embedded = yield from store.images([listed[number].pair for number in wanted])
        for path, reason in embedded.failures if view == options.views[0] else []:
            failures.add(path, reason)
        usable &= embedded.usable >= 0
        places = embedded.rows[np.maximum(embedded.usable, 0)] if len(embedded.rows) else embedded.rows
        images.append(l2_normalise(store.image[places]))
        retrievals.append(l2_normalise(store.retrieval[places]))
    names = [named[number] if good else "" for number, good in zip(wanted, usable, strict=True)]
    concepts = Concepts.of(names, least=options.least)
    train, validation = concepts.split(options.held_out)
    if sum(len(rows) > min(options.shots) for rows in train.rows) < 2:
        raise TrainingError(
            f"{len(train)} concepts are named by at least {options.least} images each: too few to draw episodes "
            "from; give more pairs whose text is a name, or lower episodes.least"
        )
    yield Note(message=f"{len(train)} concepts to train on, {len(validation)} held out; {len(failures)} items failed")
    spoken = encoder.encode_texts([phrase.format(key) for key in concepts.keys for phrase in _PHRASES])
    ways = spoken.reshape(len(concepts), len(_PHRASES), -1)  # (C, P, D)
    znorm = ZNorm.of(np.concatenate([rows[usable] for rows in retrievals]))
    return EpisodeData(tuple(images), tuple(retrievals), train, validation, _by_name(concepts, ways), znorm)


def _by_name(concepts: Concepts, ways: Float32) -> dict[str, Float32]:
    return dict(zip(concepts.keys, ways, strict=True))


def _references(data: EpisodeData, encoder: Encoder) -> ReferenceSet:
    """One image of each concept that was learned from: what the checkpoint blends in unless given another set."""
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
