"""Fetch images from URLs with img2dataset, and read the fetched files.

img2dataset runs in a separate process (`fetch_worker`) and stores the files as served: only the served bytes show
whether an image is truncated or an HTML page. Finished shards are not fetched again, so a killed run resumes at the
next shard.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from impart.data.fetch_worker import LIMITS
from impart.errors import DataError, MissingExtraError
from impart.files import make_folder

__all__ = ["FetchSettings", "Fetched", "fetch", "read_fetched", "require_img2dataset", "short_reason"]

_ROWS = "rows.parquet"
_LOG = "img2dataset.log"
_POLL_S = 0.2


@dataclass(frozen=True, kw_only=True)
class FetchSettings:
    """Settings of img2dataset and limits per image.

    Attributes:
        retries: further attempts after a failed one.
        timeout_s: an attempt fails after this time without data.
        deadline_s: time limit per attempt.
        max_megabytes: size limit per file.
        pause_s: wait after HTTP status 429 or 5xx, before the next attempt.
        threads: connections per process.
        processes: number of img2dataset processes.
        batch: images per img2dataset shard; a resumed run repeats at most one shard per process.
    """

    retries: int = 2
    timeout_s: float = 10.0
    deadline_s: float = 60.0
    max_megabytes: float = 50.0
    pause_s: float = 1.0
    threads: int = 32
    processes: int = 1
    batch: int = 1000


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """Result of fetching one URL.

    Attributes:
        number: position in the list of URLs.
        data: the file as served; None if the fetch failed.
        fault: reason of the failure, in a few words.
    """

    number: int
    data: bytes | None = None
    fault: str = ""


def require_img2dataset() -> None:
    """Check, without an import, that img2dataset is installed.

    Raises:
        MissingExtraError: it is not installed.
    """
    if importlib.util.find_spec("img2dataset") is None:
        raise MissingExtraError("img2dataset", extra="data", purpose="fetching images")


def fetch(urls: Sequence[str], folder: Path, settings: FetchSettings) -> Iterator[int]:
    """Fetch the URLs that are not fetched yet; yield the number of finished URLs from time to time.

    Args:
        urls: http or https; the same list for the same folder.
        folder: used for this list only; keep it until `read_fetched` has read it.
        settings: limits and number of connections.

    Raises:
        MissingExtraError: img2dataset is not installed.
        DataError: img2dataset failed; finished shards are kept.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    require_img2dataset()
    make_folder(folder)
    shards = -(-len(urls) // settings.batch)
    done = _done(folder)
    if len(done) < shards:
        shutil.rmtree(folder / "images" / "_tmp", ignore_errors=True)
        numbers = pa.array(range(len(urls)), pa.int64())
        pq.write_table(pa.table({"url": list(urls), "number": numbers}), folder / _ROWS)
        for _ in _run(folder, settings):
            done = _done(folder)
            yield min(len(urls), len(done) * settings.batch)
        done = _done(folder)
    if len(done) < shards:
        raise DataError(
            f"img2dataset did not finish {shards - len(done)} of {shards} shards of {folder}: run the same command "
            f"again to resume. Last line of its log: {_log_tail(folder)}"
        )
    yield len(urls)


def read_fetched(folder: Path, *, count: int) -> Iterator[Fetched]:
    """Read the files that `fetch` fetched, in the order of the URLs.

    Args:
        folder: as given to `fetch`.
        count: number of URLs.

    Raises:
        DataError: a shard cannot be read; its mark is removed, so that the same command fetches it again.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    following = 0
    for shard in sorted((folder / "images").glob("*.tar")):
        try:
            columns = pq.read_table(shard.with_suffix(".parquet"), columns=["number", "key", "error_message"])
            rows = sorted(columns.to_pylist(), key=lambda row: row["number"])
            with tarfile.open(shard) as tar:
                members = {m.name.removesuffix(".jpg"): m for m in tar if m.name.endswith(".jpg")}
                for row in rows:
                    yield from (_lost(number) for number in range(following, row["number"]))
                    following = row["number"] + 1
                    member = members.get(row["key"])
                    opened = tar.extractfile(member) if member else None
                    data = opened.read() if opened else None
                    fault = "" if data else short_reason(row["error_message"] or "the answer is empty")
                    yield Fetched(number=row["number"], data=data or None, fault=fault)
        except (OSError, tarfile.TarError, pa.ArrowException) as error:
            shard.with_name(f"{shard.stem}_stats.json").unlink(missing_ok=True)
            raise DataError(f"cannot read {shard}: {error}; run the same command again to fetch it again") from error
    yield from (_lost(number) for number in range(following, count))


def short_reason(message: str) -> str:
    """Shorten an error message of urllib, so that equal causes give equal texts.

    >>> short_reason("HTTP Error 404: Not Found"), short_reason("<urlopen error timed out>")
    ('HTTP 404', 'timed out')
    >>> short_reason("IncompleteRead(512 bytes read, 4096 more expected)")
    'cut off by the server'
    """
    if found := re.search(r"HTTP Error (\d+)", message):
        return f"HTTP {found.group(1)}"
    if "timed out" in message or "timeout" in message.lower():
        return "timed out"
    if "IncompleteRead" in message:
        return "cut off by the server"
    if "X-Robots-Tag" in message:
        return "the site disallows it (X-Robots-Tag)"
    reason = re.sub(r"^<urlopen error (?:\[\w+ -?\d+\] )?(.*)>$", r"\1", message.strip())
    return " ".join(reason.split())[:200]


def _lost(number: int) -> Fetched:
    return Fetched(number=number, fault="lost by img2dataset")


def _done(folder: Path) -> list[Path]:
    return list((folder / "images").glob("*_stats.json"))


def _run(folder: Path, settings: FetchSettings) -> Iterator[None]:
    """Run img2dataset to its end; it ends as well when this process or generator ends."""
    arguments = {
        "url_list": str((folder / _ROWS).resolve()),
        "output_folder": str((folder / "images").resolve()),
        "input_format": "parquet",
        "output_format": "webdataset",
        "save_additional_columns": ["number"],
        "number_sample_per_shard": settings.batch,
        "disable_all_reencoding": True,
        "extract_exif": False,
        "compute_hash": None,
        "timeout": settings.timeout_s,
        "retries": settings.retries,
        "thread_count": settings.threads,
        "processes_count": settings.processes,
        "incremental_mode": "incremental",
    }
    limits = {
        "deadline_s": settings.deadline_s,
        "max_bytes": int(settings.max_megabytes * 1e6),
        "pause_s": settings.pause_s,
    }
    environment = os.environ | {LIMITS: json.dumps(limits), "OMP_NUM_THREADS": "1"}
    with (folder / _LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "impart.data.fetch_worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(arguments).encode() + b"\n")
                process.stdin.flush()
            while process.poll() is None:
                yield
                time.sleep(_POLL_S)
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    if process.returncode:
        raise DataError(f"img2dataset ended with code {process.returncode}: {_log_tail(folder)}")


def _log_tail(folder: Path) -> str:
    """Return the last line of img2dataset's log, with the path of the log."""
    try:
        with io.TextIOWrapper((folder / _LOG).open("rb"), errors="replace") as log:
            lines = [line.strip() for line in log.read()[-4000:].splitlines() if line.strip()]
    except OSError:
        lines = []
    return f"{lines[-1] if lines else 'none'} ({folder / _LOG})"
