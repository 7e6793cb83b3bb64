"""Connection to Ray: a cluster that runs, or a local one that is started for a run and stopped after it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from impart.config import EngineName
from impart.errors import ClusterError, ConfigError, MissingExtraError

__all__ = ["EngineInput", "RayEngine", "check_engine", "connected", "cpus_per_worker", "import_ray"]

LONGEST_FOLDER = 24  # characters; Ray puts sockets far below it, whose paths have at most 107
FOLDER = "impart-ray-"  # start of its name; the process id follows
STORE_BYTES = 256 * 2**20  # of a local Ray; messages are small
REACHED_S = 10.0
USUAL_CPUS = 2  # of a worker: one for decoding, one for encoding


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Settings of work on Ray.

    Attributes:
        address: `HOST:PORT` of a cluster, or `auto` for the one of this machine; empty = start Ray on this machine, and
            stop it afterwards.
        workers: number of workers; 0 = one per two CPUs of the cluster.

    Example:
        >>> RayEngine(workers=2).address
        ''
    """

    address: str = ""
    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}: use 0 for one per two CPUs, or a number of workers")
        if self.address.startswith("ray://"):
            raise ConfigError(
                f"address is {self.address!r}: Ray Client is not supported. Start the command on a machine of the "
                "cluster, with --address auto or HOST:PORT"
            )
        if self.address and self.address != "auto" and not self.address.rpartition(":")[2].isdecimal():
            raise ConfigError(f"address is {self.address!r}: use auto, or HOST:PORT such as 10.0.0.5:6379")


EngineInput: TypeAlias = EngineName | RayEngine
"""Argument `engine`: this process, Ray with its defaults, or Ray with settings."""


def check_engine(engine: EngineInput) -> RayEngine | None:
    """Convert the argument `engine`: None for this process.

    Raises:
        ConfigError: there is no such engine.
        MissingExtraError: it is Ray, which is not installed.

    >>> check_engine("local")
    """
    if engine == "local":
        return None
    if engine != "ray" and not isinstance(engine, RayEngine):
        raise ConfigError(f"engine is {engine!r}: use 'local', 'ray' or a RayEngine")
    import_ray()
    return engine if isinstance(engine, RayEngine) else RayEngine()


def import_ray() -> Any:
    """Import Ray, without usage statistics.

    Raises:
        MissingExtraError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # it prints the end of a worker to standard output
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning per start
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", extra="ray", purpose="--engine ray") from error
    return ray


@contextmanager
def connected(engine: RayEngine) -> Iterator[Any]:
    """Connect to a cluster, or start a local one; yield the module `ray`.

    A connection that this process has already is used, and kept.

    Raises:
        MissingExtraError: Ray is not installed.
        ClusterError: the cluster cannot be reached, or Ray cannot be started.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    if engine.address and engine.address != "auto":
        _check_reachable(engine.address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    folder: Path | None = None
    try:
        if engine.address:
            ray.init(address=engine.address, **quiet)
        else:
            folder = _short_folder()
            with warnings.catch_warnings():  # Ray's processes start at once: what LanceDB warns of cannot happen
                warnings.filterwarnings("ignore", message="lancedb fork support")
                ray.init(
                    address="local",
                    num_cpus=os.cpu_count() or 1,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    _temp_dir=str(folder),
                    _node_ip_address="127.0.0.1",
                    **quiet,
                )
    except Exception as error:  # it raises ConnectionError, RuntimeError, ValueError, OSError and others
        _stop(ray, folder)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        if engine.address:
            raise _no_cluster(engine.address, reason) from error
        raise ClusterError(f"Ray cannot be started on this machine: {reason}") from error
    except BaseException:
        _stop(ray, folder)
        raise
    try:
        yield ray
    finally:
        _stop(ray, folder)


def cpus_per_worker(machines: Sequence[int], workers: int) -> tuple[int, int]:
    """Divide the CPUs of machines among workers.

    Args:
        machines: CPUs of each.
        workers: wanted number; 0 = one per `USUAL_CPUS` CPUs.

    Returns:
        Number of workers, CPUs of each.

    Raises:
        ConfigError: there are fewer CPUs than workers.

    >>> cpus_per_worker([8, 8], 0), cpus_per_worker([8, 4], 3), cpus_per_worker([2], 2), cpus_per_worker([1], 0)
    ((8, 2), (3, 4), (2, 1), (1, 1))
    """
    if not workers:
        cpus = min(USUAL_CPUS, max(machines, default=1))
        return max(1, sum(count // cpus for count in machines)), cpus
    for cpus in range(max(machines, default=0), 0, -1):
        if sum(count // cpus for count in machines) >= workers:
            return workers, cpus
    raise ConfigError(f"workers is {workers}, but the Ray cluster has {sum(machines)} CPUs: use at most as many")


def _check_reachable(address: str) -> None:
    """Open a connection for a moment: Ray itself tries for minutes.

    Raises:
        ClusterError: nothing answers.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"no Ray cluster at {address} ({reason}): start one with 'ray start --head', and this command on one of its "
        "machines"
    )


def _short_folder() -> Path:
    """Make a folder for the files of a local Ray, with a path that is short enough for its sockets.

    Folders of processes that were killed are removed.
    """
    usual = tempfile.gettempdir()
    parent = Path(usual if len(usual) <= LONGEST_FOLDER or sys.platform == "win32" else "/tmp")
    for left in parent.glob(f"{FOLDER}*-*"):
        number = left.name.removeprefix(FOLDER).partition("-")[0]
        if number.isdecimal() and not _is_alive(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir=parent))


def _is_alive(process: int) -> bool:
    """Whether a process runs, as far as this system tells."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another person
    return True


def _stop(ray: Any, folder: Path | None) -> None:
    """Close the connection; a local Ray ends with it, and its files are removed."""
    with contextlib.suppress(Exception):  # a cluster that is gone
        ray.shutdown()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
