"""A tiny random model through the export: ONNX Runtime must agree with torch."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("onnxscript", reason="the export needs the extra `train`")
ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from impart.encoders.onnx.encoder import MINI_FOLDER  # noqa: E402
from impart.encoders.tokens import TextTokenizer  # noqa: E402
from impart.train.heads.heads import Correction, ImageHead, TextHead  # noqa: E402
from impart.train.heads.onnx_export import ImageTower, TextTower, export_graph, export_image, export_text, quantise  # noqa: E402
from impart.train.heads.towers.sentences import SentenceTower  # noqa: E402


class _Backbone(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 64, 4, stride=4)
        self.mix = torch.nn.Conv2d(64, 96, 1)

    def forward(self, pixels):
        return torch.relu(self.mix(torch.relu(self.conv(pixels)))).mean(dim=(2, 3))


def _correction(inputs, outputs):
    made = Correction(inputs, 80, outputs)
    torch.nn.init.normal_(made.down.weight, std=0.2)
    return made.eval()


def _cosines(found, expected):
    return (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.mark.parametrize(("int8", "floor"), [(True, 0.999), (False, 0.99999)])
def test_image_tower_survives_export(tmp_path, int8, floor):
    torch.manual_seed(0)
    names = torch.nn.functional.normalize(torch.randn(120, 48), dim=-1)
    head = ImageHead(
        torch.nn.Linear(96, 120),
        names,
        torch.full((96,), 0.1),
        torch.full((96,), 0.2),
        top=10,
        temperature=2.0,
        correction=_correction(96, 48),
    )
    backbone, tower = _Backbone().eval(), ImageTower(head, torch.randn(96, 64)).eval()
    path, first = tmp_path / "image.onnx", tmp_path / "backbone.onnx"
    batch = {0: torch.export.Dim("B")}
    pixels = torch.randn(5, 3, 32, 32)
    export_graph(backbone, (pixels,), first, inputs=["pixels"], outputs=["features"], shapes=(batch,), int8=None)
    export_image(tower, first, path, int8=int8)
    session = ort.InferenceSession(path)
    embedding, retrieval = session.run(["embedding", "retrieval"], {"pixels": pixels.numpy()})
    with torch.no_grad():
        expected = tower(backbone(pixels))
    assert _cosines(embedding, expected[0].numpy()).min() > floor
    assert _cosines(retrieval, expected[1].numpy()).min() > floor
    one = session.run(["embedding"], {"pixels": pixels[:1].numpy()})[0]
    assert np.allclose(one, embedding[:1], atol=1e-5)  # any batch size


def test_text_tower_survives_export_whatever_the_batch(tmp_path):
    torch.manual_seed(0)
    tower = TextTower(
        SentenceTower(words=300, width=48, heads=4, hidden=96, layers=2), TextHead(_correction(48, 48))
    ).eval()
    path = tmp_path / "text.onnx"
    export_text(tower, path)
    ids = torch.randint(1, 300, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    session = ort.InferenceSession(path)
    found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
    with torch.no_grad():
        expected = tower(ids, mask).numpy()
    assert _cosines(found, expected).min() > 0.999
    alone = session.run(None, {"input_ids": ids[1:2, :5].numpy(), "attention_mask": mask[1:2, :5].numpy()})[0]
    assert np.allclose(alone, found[1:2], atol=1e-5)  # neither padding nor neighbours change a text


def test_ids_that_no_text_has_cost_no_room(tmp_path):
    torch.manual_seed(0)
    tower = SentenceTower(words=1100, width=48, heads=4, hidden=96, layers=1).eval()
    slim = tower.without_unused()
    ids = torch.tensor([[0, 101, 103, 999, 1000, 1099, 102]])
    assert torch.equal(slim(ids, torch.ones_like(ids)), tower(ids, torch.ones_like(ids)))
    assert slim.words.num_embeddings == 1100 - 895
    tokenizer = TextTokenizer.from_folder(MINI_FOLDER, context_tokens=64, clean="whitespace")
    spelled = set(tokenizer.encode(["[unused99] [unused500] [unused993] [UNK] [MASK]"])[0])
    assert not spelled & set(range(104, 999))
    for words, size in ((1100, 48 * 205), (300, 48 * 300)):
        tower = TextTower(
            SentenceTower(words=words, width=48, heads=4, hidden=96, layers=1), TextHead(_correction(48, 48))
        )
        export_text(tower, tmp_path / "text.onnx")
        whole = [t for t in onnx.load(tmp_path / "text.onnx").graph.initializer if t.data_type == onnx.TensorProto.INT8]
        assert max(len(tensor.raw_data) for tensor in whole) == size  # the word embeddings, a byte a number


def test_quantise_is_within_half_a_step():
    values = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    whole, scale = quantise(values, 0)
    assert whole.dtype == np.int8
    assert scale.shape == (6, 1)
    assert (np.abs(whole * scale - values) <= scale / 2 + 1e-7).all()
