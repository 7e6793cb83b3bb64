"""RAM of form `solved`: step 0, gradients, NumPy against torch, and from images to a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("accelerate", reason="training needs the extra `train`")

from helpers.shades import register_tiny, shades  # noqa: E402
from impart.blending.encoder import AugmentedEncoder  # noqa: E402
from impart.blending.few_shot.logistic import Constants, KernelLogistic, choose_temperature  # noqa: E402
from impart.blending.few_shot.ridge import KernelRidge, Spectrum  # noqa: E402
from impart.blending.few_shot.support import LOGIT_SCALE, Support, dual_texts  # noqa: E402
from impart.blending.ram_checkpoint import open_checkpoint  # noqa: E402
from impart.blending.ram_solved import CONSTANTS, SolvedRam, constants_of, support_of  # noqa: E402
from impart.config import RamSettings  # noqa: E402
from impart.encoders.base import ImageEmbeddings, l2_normalise  # noqa: E402
from impart.encoders.onnx.session import OnnxSession  # noqa: E402
from impart.errors import ConfigError  # noqa: E402
from impart.retrieval.znorm import ZNorm  # noqa: E402
from impart.train.episodes.episodes import Concepts  # noqa: E402
from impart.train.episodes.prepare import EpisodeData  # noqa: E402
from impart.train.episodes.settings import EpisodeSettings  # noqa: E402
from impart.train.episodes.solved import _START, LabelledEpisode, SolvedModule, SolvedTask  # noqa: E402
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

SETTINGS = RamSettings(form="solved", k=3)
CLASSES, PER_CLASS, DIM, WIDTH = 8, 2, 24, 16


def support(seed: int = 0) -> Support:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    arrays = [rng.standard_normal(shape) for shape in ((len(labels), DIM), (len(labels), WIDTH), (CLASSES, DIM))]
    v, q, texts = (l2_normalise(array.astype(np.float32)) for array in arrays)
    return Support(v, q, labels, texts)


def labelled(references: Support, queries: Support) -> LabelledEpisode:
    arrays = (
        queries.embeddings,
        queries.retrieval,
        references.embeddings,
        references.retrieval,
        references.labels,
        references.texts,
        dual_texts(references.texts),
    )
    return LabelledEpisode(*(torch.from_numpy(array) for array in arrays))


def constants(module: SolvedModule, per_class: float = PER_CLASS) -> Constants:
    with torch.no_grad():
        values = module.constants(torch.tensor([per_class])).tolist()
    return Constants(**dict(zip(CONSTANTS, values, strict=True)))


def test_step_0_equals_the_solved_weights() -> None:
    module, references, queries = SolvedModule(SETTINGS), support(), support(1)
    start = constants(module)
    ridge = KernelRidge(Spectrum(references, start.beta), start.ridge, start.alpha).offsets(queries.images)
    with torch.no_grad():
        added = module(labelled(references, queries)).added.numpy()
    np.testing.assert_allclose(added, ridge / LOGIT_SCALE @ dual_texts(references.texts), atol=1e-5)


def test_torch_and_numpy_compute_the_same() -> None:
    module, references, queries = SolvedModule(SETTINGS), support(), support(1)
    with torch.no_grad():
        module.share.fill_(0.7)
        module.slope += 0.2
        added = module(labelled(references, queries)).added.numpy()
    offsets = KernelLogistic(references, constants(module)).offsets(queries.images)
    np.testing.assert_allclose(added, offsets / LOGIT_SCALE @ dual_texts(references.texts), atol=1e-4)


def test_gradients_reach_every_constant() -> None:
    module = SolvedModule(SETTINGS)
    with torch.no_grad():
        module.share.fill_(0.5)
    module(labelled(support(), support(1))).added.square().sum().backward()
    for parameter in module.parameters():
        assert (parameter.grad.abs() > 1e-9).all()
    assert SolvedModule(SETTINGS)(labelled(support(), support(1))).added.grad_fn is not None


def _config(**loop: object) -> TrainConfig:
    return TrainConfig(
        mode="episodes",
        data=DataSettings(encoder="tiny", pairs=(PairsFrom(path="captions.csv"),)),
        episodes=EpisodeSettings(
            concepts=6, shots=(2,), queries=3, validation_episodes=2, held_out=0.0, views=("clean",), absent=0.0
        ),
        ram=SETTINGS,
        loss=LossSettings(init_scale=10.0),
        optimiser=OptimiserSettings(learning_rate=3e-2),
        loop=LoopSettings(**{"steps": 40, "device": "cpu", "checkpoint_every": 0, "validate_every": 0, **loop}),
        log=LogSettings(tensorboard=False),
    )


def _toy() -> EpisodeData:
    """Twelve concepts that the retrieval embeddings separate loosely, half of them known by name."""
    rng = np.random.default_rng(0)
    concepts = Concepts.of([f"thing {n // 6}" for n in range(72)], least=4)
    names = {key: l2_normalise(rng.standard_normal((2, 16)).astype(np.float32)) for key in concepts.keys}
    centres = np.repeat(l2_normalise(rng.standard_normal((12, 8))), 6, axis=0)
    retrieval = l2_normalise((centres + 0.3 * rng.standard_normal((72, 8))).astype(np.float32))
    own = np.zeros((72, 16), np.float32)
    for number, key in enumerate(concepts.keys):
        own[concepts.rows[number]] = names[key][0] * (number % 2)
    image = l2_normalise((own + 0.3 * rng.standard_normal((72, 16))).astype(np.float32))
    znorm = ZNorm.of(l2_normalise(rng.standard_normal((200, 8)).astype(np.float32)))
    return EpisodeData((image,), (retrieval,), concepts, concepts, names, znorm)


def test_training_moves_the_weights_from_the_solved_ones_and_lowers_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_START, "alpha", 2.0)  # far too little
    task = SolvedTask(_toy(), _config())
    losses = []
    step = task.training_step
    task.training_step = lambda *given: losses.append(step(*given)) or losses[-1]  # type: ignore[method-assign]
    (measured,) = [event for event in fit(task, _config()) if isinstance(event, Validated)]
    assert 0 < float(task.ram.share.detach()) <= 1
    first, last = (np.mean([float(own["naming"]) for own in part]) for part in (losses[:10], losses[-10:]))
    assert last < 0.9 * first
    assert measured.metrics["real_2_ram"] > measured.metrics["real_2_base"] + 10


def test_from_images_to_a_checkpoint_that_serves_any_set(tmp_path: Path) -> None:
    register_tiny()
    *_, finished = train(_config(steps=3), data=shades(tmp_path / "data"), out=tmp_path / "out")
    assert isinstance(finished, Finished)
    assert finished.folder is not None
    opened = open_checkpoint(finished.folder)
    assert isinstance(opened.blender, SolvedRam)
    base, references = opened.base, opened.references
    own, _ = support_of(references)
    fitted = KernelLogistic(own, _of_graph(finished.folder, own))
    images = ImageEmbeddings(own.embeddings, own.retrieval)
    plain = AugmentedEncoder(base, references.with_vanilla(None), opened.blender)
    added = plain.blend(images).added
    assert added is not None
    expected = fitted.offsets(images) / LOGIT_SCALE @ dual_texts(own.texts)
    np.testing.assert_allclose(added, expected, atol=1e-4 * np.abs(expected).max())
    half = references.take(np.arange(len(references) // 2 + 1))
    assert plain.fingerprint != AugmentedEncoder(base, half, opened.blender).fingerprint
    assert AugmentedEncoder(base, half, opened.blender).blend(images).added is not None


def _of_graph(folder: Path, own: Support) -> Constants:
    return choose_temperature(own, constants_of(OnnxSession(folder / "ram.onnx"), per_class=len(own) / len(own.texts)))


def test_other_modes_refuse_the_form() -> None:
    from impart.blending.ram import build_ram

    with pytest.raises(ConfigError, match="learns in mode episodes alone"):
        build_ram(SETTINGS, dim=8, retrieval_dim=8)
    with pytest.raises(ConfigError, match="belong to form"):
        dataclasses.replace(SETTINGS, gate=True)
