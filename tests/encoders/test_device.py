"""One rule for the device of an encoder; a stand-in takes the place of ONNX Runtime's CUDA provider."""

from __future__ import annotations

import logging
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

from helpers.clips import write_clip
from impart import load_encoder
from impart.cli.main import app
from impart.config import EncoderSettings, Settings
from impart.encoders import device
from impart.encoders.base import register
from impart.encoders.cluster.encoder_source import EncoderSource
from impart.encoders.device import CPU, CUDA, onnx_providers
from impart.encoders.onnx.encoder import OnnxEncoder
from impart.encoders.onnx.session import RuntimeOptions
from impart.errors import ConfigError, EncoderError, ImpartWarning

IMAGES = [np.full((40, 40, 3), shade, np.uint8) for shade in (0, 60, 120, 180, 240)]


class Machine:
    """Sessions that were opened: the providers that were asked for, and the rows of each pass."""

    def __init__(self) -> None:
        self.opened: list[list[str]] = []
        self.rows: list[int] = []


def _machine(monkeypatch: pytest.MonkeyPatch, *, works: str) -> Machine:
    """Pretend that onnxruntime-gpu is installed; its CUDA works (`yes`), is left out (`silent`), or fails (`error`)."""
    machine, plain = Machine(), onnxruntime.InferenceSession

    class Session:
        def __init__(self, path: str, settings: Any, *, providers: list[str], enable_fallback: int = 1) -> None:
            machine.opened.append(providers)
            assert CUDA not in providers or not enable_fallback, "the runtime would print on standard output"
            if CUDA in providers and works == "error":
                raise RuntimeError("CUDA failure 100: no CUDA-capable device\nmore")
            self._plain = plain(path, settings, providers=[CPU])
            self._used = providers if works == "yes" else [CPU]

        def get_providers(self) -> list[str]:
            return self._used

        def run(self, names: list[str], feeds: dict[str, Any]) -> Any:
            machine.rows.append(len(next(iter(feeds.values()))))
            return self._plain.run(names, feeds)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._plain, name)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    return machine


@pytest.fixture(autouse=True)
def _first_use(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Report each device anew, and load no library of CUDA."""
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: sys.stdout.write("Failed to load libcudnn"), raising=False)
    cached: list[Any] = [device.report_cuda, device.warn_of_cpu, device._preload]
    for one in cached:
        one.cache_clear()
    yield
    for one in cached:
        one.cache_clear()


def test_auto_takes_cuda_where_it_is_there(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load_encoder("mini", device="cpu", threads=2)
    vectors = expected.encode_images(IMAGES).embeddings
    machine = _machine(monkeypatch, works="yes")
    encoder = load_encoder("mini", threads=2)
    with caplog.at_level(logging.INFO, "impart"):
        np.testing.assert_allclose(encoder.encode_images(IMAGES).embeddings, vectors, atol=1e-5)
        encoder.encode_texts(["a dog"])
    assert machine.opened == [[CUDA, CPU]] * 2
    assert machine.rows == [5, 1]  # a batch is not cut into pieces for the caches of a CPU
    assert [record.getMessage() for record in caplog.records] == [
        f"device: cuda (ONNX Runtime {onnxruntime.__version__})"
    ]
    assert encoder.fingerprint == expected.fingerprint
    assert capsys.readouterr().out == ""


def test_cpu_is_cpu_although_cuda_is_there(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    machine = _machine(monkeypatch, works="yes")
    with caplog.at_level(logging.INFO, "impart"):
        load_encoder("mini", device="cpu", threads=2).encode_images(IMAGES)
    assert machine.opened == [[CPU]] * 2  # the second is that of the pieces
    assert not caplog.records


def test_auto_takes_the_cpu_where_cuda_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    assert onnx_providers("auto") == (CPU,)


def test_cuda_is_refused_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(
        ConfigError, match=r"no CUDA provider .*pip install 'onnxruntime-gpu\[cuda,cudnn\]'.* runs on cpu"
    ):
        load_encoder("mini", device="cuda")
    with pytest.raises(ConfigError, match="'gpu': on ONNX Runtime use auto, cpu, cuda"):
        load_encoder("mini", device="gpu")
    with pytest.raises(ConfigError, match=r"encoder\.device is 'gpu': use auto, cpu or cuda"):
        EncoderSettings(device="gpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"IMPART_ENCODER_DEVICE: encoder\.device is 'gpu'"):
        Settings.load(environ={"IMPART_ENCODER_DEVICE": "gpu"})


@pytest.mark.parametrize(("works", "reason"), [("silent", "there is no GPU"), ("error", "no CUDA-capable device")])
def test_a_provider_that_does_not_work(monkeypatch: pytest.MonkeyPatch, works: str, reason: str) -> None:
    machine = _machine(monkeypatch, works=works)
    with pytest.raises(ConfigError, match=rf"cannot be used \(.*{reason}\).*nvidia-smi.* runs on cpu"):
        load_encoder("mini", device="cuda").encode_texts(["a dog"])
    machine.opened.clear()
    with pytest.warns(ImpartWarning, match=rf"{reason}.*so the model runs on cpu") as warned:
        load_encoder("mini", threads=2).encode_images(IMAGES)
    assert len(warned) == 1
    assert machine.opened[0] == [CUDA, CPU]
    assert machine.opened[-1] == [CPU]  # of the pieces: the device is not tried again


def test_a_broken_graph_is_no_matter_of_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from impart.encoders.onnx.session import OnnxSession

    _machine(monkeypatch, works="yes")
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(EncoderError, match=r"broken\.onnx cannot be opened"):
            OnnxSession(tmp_path / "broken.onnx", RuntimeOptions())


def test_torch_has_the_same_rule(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def chosen(name: str, *, cuda: bool, mps: bool = False) -> str:
        return device.torch_device_name(name, cuda=cuda, mps=mps, version="2.9.0")

    assert [chosen("auto", cuda=False), chosen("auto", cuda=False, mps=True)] == ["cpu", "mps"]
    with pytest.raises(ConfigError, match=r"finds no CUDA device: .*install the package torch .*auto .* runs on cpu"):
        chosen("cuda:1", cuda=False)
    with caplog.at_level(logging.INFO, "impart"):
        assert [chosen(name, cuda=True) for name in ("auto", "cpu", "cuda:1")] == ["cuda", "cpu", "cuda:1"]
    assert [record.getMessage() for record in caplog.records] == ["device: cuda (torch)"]


def test_workers_get_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'impart-clip[ray]'")
    _machine(monkeypatch, works="yes")
    for name in ("cpu", "cuda"):
        source = pickle.loads(pickle.dumps(EncoderSource.of(load_encoder("mini", device=name))))
        there = source.load(threads=1)
        assert isinstance(there, OnnxEncoder)
        assert there.options.device == name


@pytest.fixture
def given() -> Iterator[list[dict[str, Any]]]:
    """Options with which the commands load the encoder `tiny`."""
    from helpers.tiny_encoder import TinyEncoder

    seen: list[dict[str, Any]] = []

    def load(rest: str, **options: Any) -> TinyEncoder:
        seen.append(options)
        return TinyEncoder()

    register("tiny", load)
    yield seen
    register("tiny", lambda rest, **options: TinyEncoder(int(rest or 0)))


def test_every_command_hands_it_on(
    given: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPART_CACHE", str(tmp_path / "cache"))
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", colours=["red", "green"])
    (tmp_path / "pairs" / "red").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "pairs" / "red" / "0.png")
    index = ["-i", tmp_path / "index"]
    commands: list[list[object]] = [
        ["index", tmp_path / "clips", *index, "-e", "tiny"],
        ["search", "red", *index],
        ["search", "red", *index, "-e", "tiny"],
        ["refset", "build", tmp_path / "pairs", "-o", tmp_path / "set", "-e", "tiny", "--no-tune"],
        ["eval", "zeroshot", tmp_path / "pairs", "-e", "tiny", "--bootstrap", 0, "--no-report"],
    ]
    run: Callable[..., Any] = CliRunner().invoke
    for command in commands:
        given.clear()
        done = run(app, [*(str(part) for part in command), "--device", "cuda"])
        assert done.exit_code == 0, (done.output, done.exception)
        assert given, command
        assert all(options == {"device": "cuda"} for options in given), (command, given)
    given.clear()
    (tmp_path / "impart.toml").write_text('[encoder]\ndevice = "cpu"\n')
    assert run(app, ["search", "red", *map(str, index), "--config", str(tmp_path / "impart.toml")]).exit_code == 0
    assert given == [{"device": "cpu"}]


def test_the_server_uses_it_in_searches_and_jobs(given: list[dict[str, Any]], tmp_path: Path) -> None:
    from impart.serve.service import Service
    from impart.serve.settings import ServeSettings

    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", colours=["red"])
    done = CliRunner().invoke(app, ["index", str(tmp_path / "clips"), "-i", str(tmp_path / "index"), "-e", "tiny"])
    assert done.exit_code == 0, done.output
    given.clear()
    service = Service(ServeSettings(index=tmp_path / "index", cache=tmp_path / "cache", device="cuda"))
    try:
        service.index.search(text="red")
        assert given == [{"device": "cuda"}]
        assert service.jobs.settings.device == "cuda"
    finally:
        service.close()
