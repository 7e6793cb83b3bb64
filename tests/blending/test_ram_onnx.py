"""A trained RAM on ONNX Runtime: parity with torch, and as the blender of an encoder."""

from __future__ import annotations

import copy
import dataclasses
import importlib
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from helpers.tiny_encoder import DIM, RETRIEVAL_DIM, TinyEncoder
from impart.blending.encoder import AugmentedEncoder
from impart.blending.ram_onnx import LearnedRam, allowed
from impart.blending.tune import OFF
from impart.blending.vanilla import Vanilla, gate
from impart.config import RamSettings, VanillaSettings
from impart.encoders.base import ImageEmbeddings, l2_normalise
from impart.errors import EncoderError, EncoderMismatchError
from impart.refset.refset import ReferenceSet

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from safetensors.torch import load_file  # noqa: E402

from impart.blending.ram import (  # noqa: E402
    ModuleRam,
    Ram,
    Retrieved,
    build_ram,
    export_ram,
    read_weights,
    write_weights,
)

FORMS = {
    "paper": RamSettings(heads=4, k=5, layers=2, norm="l2", gate=True, dropout=0.1),
    "vanilla": RamSettings(heads=4, k=5, form="vanilla", layers=2, floor=0.8, ramp=1.0),
}


def trained(settings: RamSettings) -> Ram:
    """Build a RAM whose parameters all differ from their start, as after training."""
    torch.manual_seed(1)
    ram = build_ram(settings, dim=DIM, retrieval_dim=RETRIEVAL_DIM)
    with torch.no_grad():
        for parameter in ram.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return ram


@pytest.fixture(scope="module", params=FORMS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ram, LearnedRam]:
    settings = FORMS[request.param]
    path = tmp_path_factory.mktemp("ram") / "ram.onnx"
    ram = trained(settings)
    export_ram(ram, path, dim=DIM, retrieval_dim=RETRIEVAL_DIM)
    assert ram.training  # unchanged
    return ram.eval(), LearnedRam(path, settings, encoder_id="tiny", encoder_fingerprint=TinyEncoder().fingerprint)


def references(count: int = 40) -> ReferenceSet:
    rng = np.random.default_rng(0)
    return ReferenceSet.from_arrays(
        [f"thing {i}" for i in range(count)],
        image=l2_normalise(rng.standard_normal((count, DIM))),
        text=l2_normalise(rng.standard_normal((count, DIM))),
        retrieval=l2_normalise(rng.standard_normal((count, RETRIEVAL_DIM))),
        encoder_id="tiny",
        encoder_fingerprint=TinyEncoder().fingerprint,
        name="random",
    )


def images(count: int) -> ImageEmbeddings:
    rng = np.random.default_rng(5)
    return ImageEmbeddings(
        l2_normalise(rng.standard_normal((count, DIM))), l2_normalise(rng.standard_normal((count, RETRIEVAL_DIM)))
    )


def by_torch(ram: Ram, shown: ImageEmbeddings, pairs: ReferenceSet) -> tuple[np.ndarray, ...]:
    found = pairs.search(shown.retrieval, ram.settings.k)
    rows = np.maximum(found.ids, 0)
    tensors = (
        shown.embeddings,
        shown.retrieval,
        pairs.image_embeddings[rows],
        pairs.text_embeddings[rows],
        pairs.retrieval_embeddings[rows],
        found.sims,
        pairs.znorm.z_scores(shown.retrieval, found.sims),
        found.ids >= 0,
    )
    with torch.no_grad():
        out = ram(Retrieved(*(torch.as_tensor(tensor) for tensor in tensors)))
    return tuple(getattr(out, item.name).numpy() for item in dataclasses.fields(out))


@pytest.mark.parametrize(("count", "pairs"), [(30, 40), (1, 40), (4, 3), (1, 1)])
def test_the_export_equals_torch(exported: tuple[Ram, LearnedRam], count: int, pairs: int) -> None:
    ram, learned = exported
    shown, of = images(count), references(pairs)
    blend = AugmentedEncoder(TinyEncoder(), of, learned).blend(shown)
    added, img, txt = by_torch(ram, shown, of)
    np.testing.assert_allclose(blend.added, added, atol=1e-5)
    np.testing.assert_allclose(blend.img, img, atol=1e-5)
    np.testing.assert_allclose(blend.txt, txt, atol=1e-5)
    np.testing.assert_allclose(blend.norm, np.linalg.norm(shown.embeddings + added, axis=1), atol=1e-5)
    assert count < 30 or np.abs(added).max() > 0.05


def test_scores_equal_texts_times_v_prime(exported: tuple[Ram, LearnedRam]) -> None:
    shown, texts = images(20), l2_normalise(np.random.default_rng(3).standard_normal((6, DIM)))
    encoder = AugmentedEncoder(TinyEncoder(), references(), exported[1])
    blend = encoder.blend(shown)
    assert blend.added is not None
    want = texts @ l2_normalise(shown.embeddings + blend.added).T
    np.testing.assert_allclose(encoder.scores(texts, shown.embeddings, blend), want, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(encoder.apply(shown.embeddings, blend), axis=1), 1, atol=1e-5)
    part = blend[5:9]
    np.testing.assert_allclose(encoder.scores(texts, shown.embeddings[5:9], part), want[:, 5:9], atol=1e-6)


def test_results_do_not_depend_on_batches(exported: tuple[Ram, LearnedRam], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, shown = AugmentedEncoder(TinyEncoder(), references(), exported[1]), images(20)
    whole = encoder.blend(shown)
    monkeypatch.setattr(importlib.import_module("impart.blending.ram_onnx"), "_NUMBERS", 3 * 5 * DIM)
    np.testing.assert_allclose(encoder.blend(shown).added, whole.added, atol=1e-6)


def test_an_empty_set_changes_nothing(exported: tuple[Ram, LearnedRam]) -> None:
    empty, shown = references(0), images(3)
    encoder = AugmentedEncoder(TinyEncoder(), empty, exported[1])
    np.testing.assert_allclose(encoder.apply(shown.embeddings, encoder.blend(shown)), shown.embeddings, atol=1e-6)


def test_the_gate_of_a_tuned_set_limits_a_ram(exported: tuple[Ram, LearnedRam]) -> None:
    pairs, shown = references(), images(30)
    settings = VanillaSettings(k=3, w_txt=0.5, floor=1.5, ramp=1.0)
    tuned = pairs.with_vanilla(dataclasses.asdict(settings))
    free, gated = (AugmentedEncoder(TinyEncoder(), chosen, exported[1]) for chosen in (pairs, tuned))
    z_scores = pairs.znorm.z_scores(shown.retrieval, pairs.search(shown.retrieval, 5).sims)
    opened = gate(z_scores, floor=1.5, ramp=1.0)
    assert 0 < (opened == 0).sum() < 30
    whole, kept = free.blend(shown), gated.blend(shown)
    assert whole.added is not None
    assert kept.added is not None
    np.testing.assert_allclose(kept.added, opened[:, None] * whole.added, atol=1e-6)
    np.testing.assert_allclose(kept.txt, opened[:, None] * whole.txt, atol=1e-6)
    assert free.fingerprint != gated.fingerprint
    useless = pairs.with_vanilla(dataclasses.asdict(OFF))  # tuning switched it off
    off = AugmentedEncoder(TinyEncoder(), useless, exported[1])
    np.testing.assert_allclose(off.apply(shown.embeddings, off.blend(shown)), shown.embeddings, atol=1e-6)


def test_small_weights_of_a_tuned_set_reduce_what_a_ram_adds(exported: tuple[Ram, LearnedRam]) -> None:
    pairs, shown = references(), images(30)
    added = {}
    for weight in (0.1, 0.5, 1.0):
        tuned = pairs.with_vanilla(dataclasses.asdict(VanillaSettings(k=3, w_img=0.0, w_txt=weight)))
        added[weight] = AugmentedEncoder(TinyEncoder(), tuned, exported[1]).blend(shown).added
    np.testing.assert_allclose(added[0.1], 0.2 * added[0.5], atol=1e-6)  # 0.5 is usual
    np.testing.assert_allclose(added[1.0], added[0.5])


def test_a_ram_turns_no_image_beyond_the_target() -> None:
    rng = np.random.default_rng(0)
    v, added = rng.standard_normal((2, 200, 16)).astype(np.float32)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    z_scores = np.full((200, 3), 9, np.float32)
    settings = VanillaSettings(k=3, w_txt=0.5, floor=4.0, ramp=3.0, target=0.4)

    def near(share: np.ndarray) -> np.ndarray:
        total = v + share[:, None] * added
        return (total * added).sum(1) / np.linalg.norm(total, axis=1) / np.linalg.norm(added, axis=1)

    share = allowed(v, added, z_scores, settings)
    before, free, bound = near(np.zeros(200)), near(np.ones(200)), near(share)
    assert ((share > 0) & (share < 1)).sum() > 100
    np.testing.assert_allclose(bound, np.maximum(before, np.minimum(free, 0.4)), atol=1e-5)


def test_an_untrained_vanilla_form_is_vanilla(tmp_path: Path) -> None:
    settings = RamSettings(heads=4, k=5, form="vanilla", floor=0.8)
    export_ram(
        build_ram(settings, dim=DIM, retrieval_dim=RETRIEVAL_DIM),
        tmp_path / "ram.onnx",
        dim=DIM,
        retrieval_dim=RETRIEVAL_DIM,
    )
    learned = LearnedRam(
        tmp_path / "ram.onnx", settings, encoder_id="tiny", encoder_fingerprint=TinyEncoder().fingerprint
    )
    shown, of, base = images(60), references(), TinyEncoder()
    with_ram, plain = AugmentedEncoder(base, of, learned), AugmentedEncoder(base, of, Vanilla(settings.start))
    got, want = (encoder.apply(shown.embeddings, encoder.blend(shown)) for encoder in (with_ram, plain))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert with_ram.fingerprint != plain.fingerprint


def test_the_fingerprint_depends_on_the_weights(exported: tuple[Ram, LearnedRam], tmp_path: Path) -> None:
    learned = exported[1]
    graph = bytearray(learned.path.read_bytes())
    graph[len(graph) // 2] ^= 1
    (tmp_path / "ram.onnx").write_bytes(graph)
    settings, fingerprint = learned.settings, learned.encoder_fingerprint
    other = LearnedRam(tmp_path / "ram.onnx", settings, encoder_id="tiny", encoder_fingerprint=fingerprint)
    one, two = (AugmentedEncoder(TinyEncoder(), references(), each) for each in (learned, other))
    assert one.fingerprint != two.fingerprint


def test_another_encoder_is_refused_with_both_names(exported: tuple[Ram, LearnedRam]) -> None:
    with pytest.raises(EncoderMismatchError, match=r"trained with encoder 'tiny'.*not with 'tiny:5'.*train a RAM"):
        exported[1].check_encoder(TinyEncoder(5))


def test_a_file_that_is_not_a_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ram.onnx").write_bytes(b"no graph")
    bad = LearnedRam(tmp_path / "ram.onnx", RamSettings(k=5), encoder_id="tiny", encoder_fingerprint="0" * 16)
    with pytest.raises(EncoderError, match=r"ram\.onnx cannot be opened"):
        AugmentedEncoder(TinyEncoder(), references(), bad).blend(images(2))


def test_weights_round_trip(tmp_path: Path) -> None:
    settings = FORMS["vanilla"]
    ram, other = trained(settings), build_ram(settings, dim=DIM, retrieval_dim=RETRIEVAL_DIM)
    write_weights(ram, tmp_path / "ram.safetensors")
    read_weights(other, tmp_path / "ram.safetensors")
    for one, two in zip(ram.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, two)
    with pytest.raises(EncoderError, match="does not have the weights"):
        read_weights(build_ram(FORMS["paper"], dim=DIM, retrieval_dim=RETRIEVAL_DIM), tmp_path / "ram.safetensors")


def test_keys_on_disk_are_those_of_version_0_1_0(tmp_path: Path) -> None:
    """`ram.safetensors` and the state of a training run have `standing_scale`, the graph has the input `standing`."""
    ram, path = trained(FORMS["vanilla"]), tmp_path / "ram.safetensors"
    write_weights(ram, path)
    stored = load_file(path)
    torch.testing.assert_close(stored["standing_scale"], ram.z_scale.detach())
    assert "z_scale" not in stored
    whole = torch.nn.ModuleDict({"ram": ram})
    assert {name for name in whole.state_dict() if "scale" in name} == {"ram.standing_scale"}
    other = torch.nn.ModuleDict({"ram": build_ram(FORMS["vanilla"], dim=DIM, retrieval_dim=RETRIEVAL_DIM)})
    other.load_state_dict(whole.state_dict())
    torch.testing.assert_close(other["ram"].z_scale, ram.z_scale)
    export_ram(ram, tmp_path / "ram.onnx", dim=DIM, retrieval_dim=RETRIEVAL_DIM)
    inputs = {item.name for item in onnxruntime.InferenceSession(tmp_path / "ram.onnx").get_inputs()}
    assert inputs == {"v", "q", "r_img", "r_txt", "r_ret", "sims", "standing", "mask"}


def test_the_module_gives_the_same_blends_as_its_export(exported: tuple[Ram, LearnedRam]) -> None:
    ram, learned = exported
    pairs, shown, base = references(), images(30), TinyEncoder()
    ram = copy.deepcopy(ram).train()
    module = ModuleRam(ram, base)
    want, got = (AugmentedEncoder(base, pairs, blender).blend(shown) for blender in (learned, module))
    assert ram.training  # unchanged
    np.testing.assert_allclose(got.added, want.added, atol=1e-5)
    np.testing.assert_allclose(got.norm, want.norm, atol=1e-5)
    np.testing.assert_allclose(got.txt, want.txt, atol=1e-5)
    before = module.digest
    with torch.no_grad():
        next(ram.parameters()).add_(1e-3)
    assert module.digest != before
    assert ModuleRam(copy.deepcopy(ram).bfloat16(), base).digest != module.digest
    with pytest.raises(EncoderMismatchError, match="in memory"):
        ModuleRam(ram, TinyEncoder(1)).check_encoder(base)
