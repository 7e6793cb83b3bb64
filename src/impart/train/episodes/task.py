"""RAM that learns in episodes, on a frozen encoder's embeddings.

Letters: C concepts, B queries, N references, K neighbours, P prompts, D embedding width, R retrieval width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from impart.blending.ram import Ram, build_ram
from impart.train.episodes.episodes import Concepts, Episode, draw_episode, made_up
from impart.train.episodes.prepare import EpisodeData
from impart.train.prepare.retrieved import ZNormTensors, gather
from impart.train.settings import ReferenceSettings, TrainConfig
from impart.train.task import Temperature, TrainingTask

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["EpisodeTask"]


class EpisodeTask(TrainingTask):
    """Train RAM to name images by the references of an episode."""

    def __init__(self, data: EpisodeData, config: TrainConfig):
        self._data, self._config, self._options = data, config, config.episodes
        torch.manual_seed(config.seed)
        self.ram = self.build(config, data)
        self.temperature = Temperature(config.loss.init_scale, config.loss.max_scale)
        self._start = copy.deepcopy(self.ram).eval()  # with ram.form = vanilla this is Vanilla
        self._called: dict[str, nn.Module] = self.modules()
        self._device = torch.device("cpu")
        self.pairs_per_step = self._options.concepts * self._options.queries * config.loop.accumulate
        self.validated = f"{len(data.validation)} concepts"
        self.steps_per_epoch = 100  # an epoch of episodes has no natural end

    def build(self, config: TrainConfig, data: EpisodeData) -> Ram:
        """Build the RAM to be trained."""
        return build_ram(config.ram, dim=data.image[0].shape[1], retrieval_dim=data.retrieval[0].shape[1])

    def cosines(self, v: Tensor, added: Tensor, candidates: Tensor) -> Tensor:
        """Score the candidates (C, D): (B, C), to be multiplied by the learned scale."""
        return F.normalize(v + added, dim=-1) @ candidates.T

    def modules(self) -> dict[str, nn.Module]:
        return {"ram": self.ram, "temperature": self.temperature}

    def prepare(self, accelerator: Accelerator, modules: dict[str, nn.Module]) -> None:
        self._called = modules
        self._device = accelerator.device
        self._start.to(self._device)
        self._znorm = ZNormTensors.on(self._data.znorm, self._device)

    def batches(self, *, seed: int, epoch: int, position: int) -> Iterator[int]:
        """Yield the seed of each episode."""
        accumulate = self._config.loop.accumulate
        for number in range(position * accumulate, self.steps_per_epoch * accumulate):
            yield int(np.random.SeedSequence((seed, epoch, number)).generate_state(1)[0])

    def training_step(self, batch: int, accelerator: Accelerator) -> dict[str, Tensor]:
        rng = np.random.default_rng(batch)
        options = self._options
        shots = int(rng.choice(options.shots))
        present = float(rng.choice((0.0, 0.5))) if rng.random() < options.absent else 1.0
        episode = draw_episode(self._data.train, options, rng, shots=shots, present=present)
        views = len(self._data.image)
        of_references = int(rng.integers(views))
        of_queries = int(rng.integers(views)) if rng.random() < options.mixed else of_references
        found, candidates, right, present_rows = self._tensors(
            self._data.train, episode, (of_references, of_queries), rng, made_up_share=options.made_up
        )
        with accelerator.autocast():
            added = self._called["ram"](found).added
            scale = self._called["temperature"]()
            logits = (scale * self.cosines(found.v, added, candidates)).float()  # (B, C)
            naming = F.cross_entropy(logits, right)
            absent = added.float().square().sum(1)[~present_rows]
            loss = naming + options.keep * (absent.mean() if len(absent) else 0.0)
        accelerator.backward(loss)
        return {"loss": loss.detach(), "naming": naming.detach(), "scale": scale.detach()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Measure top-1 in percent on held-out concepts, of the base, of RAM at step 0 (`start`), and of RAM now.

        `real_*` with real names, `half_*` with made-up ones, `absent_*` with references of other concepts.
        """
        figures: dict[str, list[float]] = {}
        self.ram.eval()
        pool = self._data.validation
        for kind, share, present in (("real", 0.0, 1.0), ("half", 1.0, 1.0), ("absent", 0.0, 0.0)):
            for shots in self._options.shots:
                if sum(len(rows) > shots for rows in pool.rows) < 2:
                    continue
                for number in range(self._options.validation_episodes):
                    rng = np.random.default_rng((shots, number))
                    episode = draw_episode(pool, self._options, rng, shots=shots, present=present)
                    views = divmod(number % len(self._data.image) ** 2, len(self._data.image))
                    found, candidates, right, _ = self._tensors(pool, episode, views, rng, made_up_share=share)
                    name = f"{kind}{'' if kind == 'absent' else f'_{shots}'}"
                    added = {"base": 0.0, "start": self._start(found).added, "ram": self.ram(found).added}
                    for model, plus in added.items():
                        hits = ((found.v + plus) @ candidates.T).argmax(1) == right
                        figures.setdefault(f"{name}_{model}", []).append(100 * float(hits.double().mean()))
        self.ram.train()
        return {name: round(float(np.mean(values)), 3) for name, values in figures.items()}

    def _tensors(
        self,
        pool: Concepts,
        episode: Episode,
        views: tuple[int, int],
        rng: np.random.Generator,
        *,
        made_up_share: float,
    ) -> tuple[Any, Tensor, Tensor, Tensor]:
        """Return the input of RAM, candidates (C, D), right answers (B,), and whether references show them (B,) bool.

        Args:
            pool: concepts of the episode.
            episode: drawn from them.
            views: numbers of the views of the references and of the queries.
            rng: for made-up names.
            made_up_share: probability that the names are made up.
        """
        names = tuple(
            np.stack([self._data.names[pool.keys[concept]] for concept in episode.concepts], axis=1)
        )  # P (C, D)
        if rng.random() < made_up_share:
            names = made_up(names, rng)
        found, kept = self.inputs(pool, episode, views, names)
        right = self._tensor(episode.right[kept])
        candidates = F.normalize(self._tensor(np.mean(names, axis=0)), dim=-1)
        return found, candidates, right, self._tensor(episode.present)[right]

    def inputs(
        self,
        pool: Concepts,  # noqa: ARG002
        episode: Episode,
        views: tuple[int, int],
        names: tuple[npt.NDArray[np.float32], ...],
    ) -> tuple[Any, npt.NDArray[np.int64]]:
        """Return the input of RAM for the queries of an episode, and the numbers of the queries that are used."""
        data, (of_references, of_queries) = self._data, views
        queries = self._tensor(data.retrieval[of_queries][episode.queries])
        references = self._tensor(data.retrieval[of_references][episode.references])
        sims = queries @ references.T  # (B, N)
        sims = sims.masked_fill(sims > ReferenceSettings.near_duplicate, -2.0)
        best, ids = sims.topk(min(self._config.ram.k, sims.shape[1]), dim=1)
        found = gather(
            self._tensor(data.image[of_queries][episode.queries]),
            queries,
            ids.masked_fill(best < -1.5, -1),
            image=self._tensor(data.image[of_references][episode.references]),
            text=self._tensor(names[0])[self._tensor(episode.shown)],
            retrieval=references,
            znorm=self._znorm,
        )
        return found, np.arange(len(episode.queries))

    def _tensor(self, rows: npt.NDArray[np.generic]) -> Tensor:
        return torch.as_tensor(rows, device=self._device)
