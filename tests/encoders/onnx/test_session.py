"""One way to open an ONNX graph: its options reach the runtime, and its errors name the file and the remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from impart.encoders.onnx.session import OnnxSession, RuntimeOptions
from impart.errors import ConfigError, EncoderError

pytest.importorskip("onnx", reason="tiny models are written with the onnx package (extra torch)")
import onnxruntime

from helpers import tiny_onnx


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    tiny_onnx.write_image_model(tmp_path / "image.onnx")
    return tmp_path / "image.onnx"


def test_it_runs_the_graph(graph: Path) -> None:
    session = OnnxSession(graph)
    assert [item.name for item in session.inputs] == ["pixels"]
    assert [item.name for item in session.outputs] == ["embedding"]
    pixels = np.random.default_rng(0).random((2, 3, tiny_onnx.SIZE_PX, tiny_onnx.SIZE_PX), dtype=np.float32)
    (found,) = session.run(["embedding"], {"pixels": pixels})
    np.testing.assert_allclose(found, pixels.mean(axis=(2, 3)) @ tiny_onnx.image_weights()[0], atol=1e-5)


def test_options_reach_the_runtime(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[onnxruntime.SessionOptions, list[str]]] = []
    plain = onnxruntime.InferenceSession

    def noted(path: str, settings: onnxruntime.SessionOptions, *, providers: list[str]) -> onnxruntime.InferenceSession:
        opened.append((settings, providers))
        return plain(path, settings, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    OnnxSession(graph)
    OnnxSession(graph, RuntimeOptions(threads=3, spin=True))
    spins = [settings.get_session_config_entry("session.intra_op.allow_spinning") for settings, _ in opened]
    assert [settings.intra_op_num_threads for settings, _ in opened] == [0, 3]
    assert spins == ["0", "1"]
    assert [providers for _, providers in opened] == [["CPUExecutionProvider"]] * 2
    # Without it int8 products overflow, silently, on processors without VNNI.
    assert opened[0][0].get_session_config_entry("session.x64quantprecision") == "1"


def test_errors_name_the_file_and_the_remedy(graph: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    with pytest.raises(EncoderError, match=r"broken\.onnx cannot be opened .*; train it again$"):
        OnnxSession(broken, remedy="train it again")
    with pytest.raises(EncoderError, match=r"image\.onnx failed .*; fetch or export the model again$"):
        OnnxSession(graph).run(["embedding"], {"pixels": np.zeros((1, 1, 1, 1), np.float32)})
    with pytest.raises(ConfigError, match="no option 'dtype'"):
        RuntimeOptions.of({"dtype": "float16"})
