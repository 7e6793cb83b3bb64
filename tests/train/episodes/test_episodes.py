"""Episodes: concepts, draws, made-up names; and the mode from images to a checkpoint that opens."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")

from helpers.shades import register_tiny, shades  # noqa: E402
from helpers.tiny_encoder import TinyEncoder  # noqa: E402
from impart.blending.ram_checkpoint import open_checkpoint  # noqa: E402
from impart.config import RamSettings  # noqa: E402
from impart.encoders.base import l2_normalise  # noqa: E402
from impart.errors import ConfigError, TrainingError  # noqa: E402
from impart.retrieval.znorm import ZNorm  # noqa: E402
from impart.train.episodes.episodes import Concepts, concept_of, draw_episode, made_up  # noqa: E402
from impart.train.episodes.prepare import EpisodeData, ViewEncoder  # noqa: E402
from impart.train.episodes.settings import EpisodeSettings  # noqa: E402
from impart.train.episodes.task import EpisodeTask  # noqa: E402
from impart.train.events import Finished, Validated  # noqa: E402
from impart.train.loop import fit  # noqa: E402
from impart.train.run import train  # noqa: E402
from impart.train.settings import (  # noqa: E402
    DataSettings,
    LogSettings,
    LoopSettings,
    LossSettings,
    OptimiserSettings,
    PairsFrom,
    TrainConfig,
)

POOL = Concepts.of([f"thing {n % 12}" for n in range(72)], least=4)  # 12 concepts of 6 images


def _options(**changes):
    return EpisodeSettings(**{"concepts": 6, "shots": (2,), "queries": 3, "validation_episodes": 2, **changes})


def test_captions_are_no_concepts_and_plurals_are_one():
    assert [concept_of([text]) for text in ("Cherries", "a cherry", "a glass", "buses", "a cactus", "")] == [
        "cherry",
        "cherry",
        "glass",
        "buse",
        "cactus",
        "",
    ]


def test_held_out_concepts_are_the_same_in_every_run_and_no_others():
    train_part, validation = POOL.split(0.3)
    assert set(train_part.keys) | set(validation.keys) == set(POOL.keys)
    assert not set(train_part.keys) & set(validation.keys)
    assert set(validation.keys) <= set(POOL.split(0.6)[1].keys)


def test_references_and_queries_never_share_an_image():
    for seed in range(20):
        episode = draw_episode(POOL, _options(), np.random.default_rng(seed), shots=2)
        assert not set(episode.references) & set(episode.queries)
        assert len(episode.references) == 12
        assert len(episode.queries) == 18
        concept = {row: number for number, rows in enumerate(POOL.rows) for row in rows}
        assert [concept[row] for row in episode.references] == episode.concepts[episode.shown].tolist()
        assert [concept[row] for row in episode.queries] == episode.concepts[episode.right].tolist()
        assert episode.present.all()


def test_absent_concepts_have_queries_but_no_references():
    episode = draw_episode(POOL, _options(), np.random.default_rng(0), shots=2, present=0.0)
    assert not episode.present[episode.right].any()
    assert not set(episode.shown) & set(episode.right)
    assert len(episode.references) == 12  # of other concepts


def test_made_up_names_mix_the_same_two_names_in_every_prompt():
    rng = np.random.default_rng(0)
    names = l2_normalise(rng.standard_normal((5, 7)).astype(np.float32))
    one, two = made_up((names, names), np.random.default_rng(1))
    assert np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    assert np.array_equal(one, two)
    for row in range(5):  # in the plane of its own name and one other
        apart = [np.linalg.matrix_rank(np.stack([one[row], names[row], names[n]]), tol=1e-4) for n in range(5)]
        assert 2 in [rank for n, rank in enumerate(apart) if n != row]


def test_impossible_settings_are_refused():
    for changes in ({"absent": 1.5}, {"mixed": -0.1}, {"least": 1}, {"views": ()}, {"shots": ()}):
        with pytest.raises(ConfigError, match="episodes"):
            _options(**changes)
    with pytest.raises(ConfigError, match="shots"):
        draw_episode(POOL, _options(), np.random.default_rng(0), shots=6)


def _toy(seed=0):
    """Twelve concepts that the retrieval embeddings separate and the image embeddings do not."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(l2_normalise(rng.standard_normal((12, 8))), 6, axis=0)
    retrieval = l2_normalise((centres + 0.15 * rng.standard_normal((72, 8))).astype(np.float32))
    image = l2_normalise(rng.standard_normal((72, 16)).astype(np.float32))
    concepts = Concepts.of([f"thing {n // 6}" for n in range(72)], least=4)
    names = {key: l2_normalise(rng.standard_normal((2, 16)).astype(np.float32)) for key in concepts.keys}
    znorm = ZNorm.of(l2_normalise(rng.standard_normal((200, 8)).astype(np.float32)))
    return EpisodeData((image,), (retrieval,), concepts, concepts, names, znorm)


def _config(**loop):
    return TrainConfig(
        mode="episodes",
        data=DataSettings(encoder="tiny", pairs=(PairsFrom(path="captions.csv"),)),
        episodes=_options(held_out=0.0, views=("clean",), absent=0.0),
        ram=RamSettings(form="vanilla", heads=1, k=6, floor=0.0, tau=0.3),
        loss=LossSettings(init_scale=10.0),
        optimiser=OptimiserSettings(learning_rate=1e-2),
        loop=LoopSettings(**{"steps": 40, "device": "cpu", "checkpoint_every": 0, "validate_every": 0, **loop}),
        log=LogSettings(tensorboard=False),
    )


def test_ram_learns_to_name_by_references_better_than_vanilla():
    task = EpisodeTask(_toy(), _config())
    (measured,) = [event for event in fit(task, _config()) if isinstance(event, Validated)]
    figures = measured.metrics
    assert figures["real_2_base"] < 40  # the embedding alone does not separate them
    assert figures["real_2_ram"] > figures["real_2_start"] + 3


def test_training_starts_at_vanilla():
    task = EpisodeTask(_toy(), _config())
    task._znorm = None  # set by `prepare`, which the loop calls
    from accelerate import Accelerator

    task.prepare(Accelerator(cpu=True), task.modules())
    figures = task.validate()
    assert figures["real_2_ram"] == figures["real_2_start"]
    assert figures["half_2_ram"] == figures["half_2_start"]


@pytest.mark.parametrize(("mixed", "pairs"), [(0.0, {(0, 0), (1, 1)}), (1.0, {(0, 0), (0, 1), (1, 0), (1, 1)})])
def test_references_and_queries_are_of_two_views_where_they_are_mixed(monkeypatch, mixed, pairs):
    data = _toy()
    data = dataclasses.replace(data, image=data.image * 2, retrieval=data.retrieval * 2)
    config = dataclasses.replace(_config(steps=30), episodes=_options(held_out=0.0, absent=0.0, mixed=mixed))
    task = EpisodeTask(data, config)
    drawn: set[tuple[int, int]] = set()
    tensors = EpisodeTask._tensors

    def spy(self, pool, episode, views, rng, **rest):
        if self.ram.training:
            drawn.add(views)
        return tensors(self, pool, episode, views, rng, **rest)

    monkeypatch.setattr(EpisodeTask, "_tensors", spy)
    list(fit(task, config))
    assert drawn == pairs


def test_near_duplicates_of_the_query_are_no_references():
    data = _toy()
    twins = data.retrieval[0].copy()
    twins[1::2] = twins[::2]  # every second image repeats the one before
    task = EpisodeTask(dataclasses.replace(data, retrieval=(twins,)), _config())
    from accelerate import Accelerator

    task.prepare(Accelerator(cpu=True), task.modules())
    options = _options(held_out=0.0, absent=0.0)
    masked = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        episode = draw_episode(data.train, options, rng, shots=2)
        found, *_ = task._tensors(data.train, episode, (0, 0), rng, made_up_share=0.0)
        assert not (found.mask & (found.sims > 0.97)).any()
        masked += int((twins[episode.queries] @ twins[episode.references].T > 0.97).sum())
    assert masked > 10


def test_a_view_has_other_embeddings_and_another_fingerprint():
    tiny = TinyEncoder()
    small = ViewEncoder(tiny, "small0")
    assert ViewEncoder(tiny, "clean").fingerprint == tiny.fingerprint != small.fingerprint
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    one, again = small.encode_images([image]), small.encode_images([image])
    assert np.array_equal(one.embeddings, again.embeddings)  # the view depends on the image alone


def test_from_images_to_a_checkpoint(tmp_path):
    register_tiny()
    data = shades(tmp_path / "data")
    config = _config(steps=3)
    *_, finished = train(config, data=data, out=tmp_path / "out")
    assert isinstance(finished, Finished)
    assert finished.folder is not None
    opened = open_checkpoint(finished.folder)
    assert "red thing" in opened.references.texts  # a concept's key is its text
    tall = dataclasses.replace(config, episodes=_options(least=50))
    with pytest.raises(TrainingError, match="too few to draw"):
        list(train(tall, data=data, out=tmp_path / "other"))
