"""Settings of Ray, division of CPUs, and what a worker must have in common with the driver."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from helpers.tiny_encoder import TinyEncoder
from impart.cli.main import app
from impart.encoders import load_encoder
from impart.encoders.cluster import connection, pool
from impart.encoders.cluster.connection import FOLDER, RayEngine, check_engine, connected, cpus_per_worker
from impart.encoders.cluster.encoder_source import EncoderSource
from impart.encoders.cluster.worker import VERSIONED, Greeting
from impart.encoders.onnx.encoder import MINI_FOLDER
from impart.encoders.onnx.session import OnnxTower, RuntimeOptions
from impart.errors import ClusterError, ConfigError, EncoderMismatchError, MissingExtraError
from impart.files import library_versions


@pytest.mark.parametrize(
    ("machines", "workers", "expected"),
    [([16], 0, (8, 2)), ([3, 3], 0, (2, 2)), ([4, 8], 3, (3, 4)), ([64], 1, (1, 64)), ([2, 1], 3, (3, 1))],
)
def test_threads_of_all_workers_fit_the_cpus(machines: list[int], workers: int, expected: tuple[int, int]) -> None:
    count, cpus = cpus_per_worker(machines, workers)
    assert (count, cpus) == expected
    assert sum(machine // cpus for machine in machines) >= count


def test_more_workers_than_cpus() -> None:
    with pytest.raises(ConfigError, match="workers is 5, but the Ray cluster has 4 CPUs"):
        cpus_per_worker([2, 2], 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "ray://head:10001"}, "Ray Client is not supported"),
        ({"address": "head"}, "HOST:PORT"),
        ({"workers": -1}, "workers is -1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RayEngine(**settings)


def test_no_such_engine() -> None:
    with pytest.raises(ConfigError, match="use 'local', 'ray' or a RayEngine"):
        check_engine("spark")  # type: ignore[arg-type]


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'impart-clip\[ray\]'"):
        check_engine("ray")
    for command in (["index", str(tmp_path), "-i", str(tmp_path / "i")], ["refset", "build", "a", "-o", "b"]):
        result = CliRunner().invoke(app, [*command, "--engine", "ray"])
        assert isinstance(result.exception, MissingExtraError)


def test_options_of_ray_need_it(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["index", str(tmp_path), "--workers", "2"])
    assert "belong to --engine ray" in str(result.exception)


class StandInRay:
    """Records how it was started."""

    def __init__(self) -> None:
        self.started: dict[str, Any] = {}
        self.stopped = False
        self.usage = ""

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.started, self.usage = options, os.environ["RAY_USAGE_STATS_ENABLED"]

    def shutdown(self) -> None:
        self.stopped = True


def test_a_local_ray_sends_nothing_and_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ray = StandInRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(connection.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(connection, "LONGEST_FOLDER", 1000)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / f"{FOLDER}{ended.pid}-left").mkdir()
    with connected(RayEngine()):
        (folder,) = tmp_path.iterdir()  # that of the process that has ended is removed
        assert folder.name.startswith(f"{FOLDER}{os.getpid()}-")
        assert ray.started["_temp_dir"] == str(folder)
        assert (ray.started["address"], ray.started["include_dashboard"], ray.usage) == ("local", False, "0")
        assert ray.started["_node_ip_address"] == "127.0.0.1"
    assert ray.stopped
    assert not list(tmp_path.iterdir())


def test_nothing_answers_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", StandInRay())
    with (
        pytest.raises(ClusterError, match=r"no Ray cluster at 127\.0\.0\.1:1 .*ray start --head"),
        connected(RayEngine(address="127.0.0.1:1")),
    ):
        pass


def test_a_worker_has_the_versions_of_the_driver() -> None:
    versions = library_versions(VERSIONED) | {"av": "1.0"}
    one = pool.Pool(RayEngine(), lambda _: SimpleNamespace)  # type: ignore[arg-type,return-value]
    with pytest.raises(ClusterError, match=r"worker on node7 .*: av is 1\.0 there and .* here.*same versions"):
        one._welcome(pool._Member(1, None), Greeting(host="node7", pid=1, versions=versions))


def test_a_worker_has_the_model_of_the_driver() -> None:
    source = EncoderSource.of(load_encoder("mini", threads=2))
    assert source.load(threads=1).fingerprint == source.fingerprint
    other = EncoderSource(id="mini", fingerprint="0" * 32, options={})
    with pytest.raises(EncoderMismatchError, match="copy the same model files to every machine"):
        other.load(threads=1)


def test_batches_are_cut_alike_whatever_threads_a_worker_has() -> None:
    source = EncoderSource.of(load_encoder("mini", threads=4))
    assert source.options["split"] == 4

    def pieces(total: int, **options: int) -> list[tuple[int, int]]:
        return OnnxTower(MINI_FOLDER / "image.onnx", RuntimeOptions(**options))._pieces(total)

    assert [pieces(total, threads=1, split=4) for total in (3, 7)] == [pieces(total, threads=4) for total in (3, 7)]
    assert pieces(7, threads=1) != pieces(7, threads=4)  # other pieces give other last bits


def test_an_encoder_of_the_caller_travels_by_value() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'impart-clip[ray]'")
    source = EncoderSource.of(TinyEncoder(seed=3))
    assert source.value is not None
    assert source.load(threads=1).traits.id == "tiny:3"
