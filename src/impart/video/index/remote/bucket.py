"""Objects of an index: list, read, write and delete, with a bounded number of retries.

Credentials and endpoint are those of the usual variables. The tables use the same ones, through `storage_options`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from impart.errors import ConfigError, VideoIndexError
from impart.files import atomic_path
from impart.video.index.remote.location import Location
from impart.video.index.remote.problems import problem_of

__all__ = ["Bucket", "Entry", "storage_options"]

_CONNECT_S, _ANSWER_S, _TRIES = 3, 30, 3
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_PIECE = 8 << 20


@dataclass(frozen=True)
class Entry:
    """One object of a listing: size in bytes, and time of the last change by the server's clock, Unix time."""

    size_bytes: int
    modified_s: float


class Bucket:
    """The objects of one index. May be shared by threads.

    Raises:
        VideoIndexError: from each method; the server does not answer, or refuses. The message names bucket and remedy.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._lock = threading.Lock()
        self._opened: Any = None

    def list(self, folder: str = "", *, recursive: bool = False) -> tuple[dict[str, Entry], list[str]]:
        """List a folder.

        Returns:
            Files by name, relative to the index, and the folders in it.
        """
        from pyarrow.fs import FileSelector, FileType

        base = self.location.key("")
        with self._errors("read"):
            selector = FileSelector(self.location.key(folder), recursive=recursive, allow_not_found=True)
            found = self._files().get_file_info(selector)
            if not found and not folder and self._files().get_file_info(self.location.bucket).type == FileType.NotFound:
                raise OSError("NoSuchBucket")
        names = {one.path[len(base) + 1 :]: one for one in found}
        files = {name: one for name, one in names.items() if one.type == FileType.File}
        folders = [name for name, one in names.items() if one.type == FileType.Directory]
        return {name: Entry(one.size, one.mtime.timestamp()) for name, one in files.items()}, folders

    def tag(self, name: str) -> str | None:
        """Return a tag of an object, which changes with its content; None where there is no such object."""
        with self._errors("read"):
            try:
                return _tag(self._files().open_input_stream(self.location.key(name)))
            except FileNotFoundError:
                return None

    def read(self, name: str) -> tuple[bytes, str]:
        """Read an object and its tag.

        Raises:
            FileNotFoundError: there is no such object.
        """
        with self._errors("read"), self._files().open_input_stream(self.location.key(name)) as stream:
            return stream.readall(), _tag(stream)

    def download(self, name: str, path: Path) -> str:
        """Copy an object to a file. Returns its tag.

        Raises:
            FileNotFoundError: there is no such object.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        key = self.location.key(name)
        with self._errors("read"), self._files().open_input_stream(key) as stream, atomic_path(path) as part:
            with part.open("wb") as file:
                while piece := stream.read(_PIECE):
                    file.write(piece)
            return _tag(stream)

    def upload(self, path: Path, name: str) -> None:
        """Copy a file to an object, which is replaced in one step.

        Raises:
            FileNotFoundError: there is no such file.
        """
        key = self.location.key(name)
        with path.open("rb") as file, self._errors("write"), self._files().open_output_stream(key) as stream:
            while piece := file.read(_PIECE):
                stream.write(piece)

    def write(self, name: str, content: bytes) -> None:
        """Write an object, which is replaced in one step."""
        with self._errors("write"), self._files().open_output_stream(self.location.key(name)) as stream:
            stream.write(content)

    def delete(self, name: str) -> None:
        """Delete an object, if there is one."""
        with self._errors("write"):
            try:
                self._files().delete_file(self.location.key(name))
            except FileNotFoundError:
                return

    def delete_folder(self, name: str) -> None:
        """Delete all objects of a folder, if there are any."""
        with self._errors("write"):
            try:
                self._files().delete_dir(self.location.key(name))
            except FileNotFoundError:
                return

    def _files(self) -> Any:
        with self._lock:
            if self._opened is None:
                self._opened = _open(self.location)
            return self._opened

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        """Convert errors of the server to `VideoIndexError`; that an object is missing is none."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            why = problem_of(error, self.location) or str(error)
            raise VideoIndexError(f"cannot {doing} the index {self.location.url}: {why}") from error


def _tag(stream: Any) -> str:
    """Return the tag of an open object; that of its size and time where the server sends none."""
    facts = {name.lower(): value for name, value in (stream.metadata() or {}).items()}
    value = facts.get("etag") or b" ".join(facts.get(name, b"") for name in ("content-length", "last-modified"))
    return str(value, "utf-8", "replace")


def _endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def _checked_endpoint() -> str | None:
    """Return the endpoint of S3 that the variables name.

    Raises:
        ConfigError: it is no URL, or one without encryption that leaves this machine.
    """
    endpoint = _endpoint()
    if endpoint is None:
        return None
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"AWS_ENDPOINT_URL is {endpoint!r}, but must be a URL such as https://storage.example.org")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and os.environ.get("AWS_ALLOW_HTTP") != "true":
        raise ConfigError(
            f"AWS_ENDPOINT_URL is {endpoint!r}, which is not encrypted: use https://, or set AWS_ALLOW_HTTP=true"
        )
    return endpoint


def _region() -> str | None:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return region or ("us-east-1" if _endpoint() else None)


def _open(location: Location) -> Any:
    from pyarrow import fs

    if location.scheme == "gs":
        from datetime import timedelta

        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=_ANSWER_S))
    if location.scheme == "az":
        name, key = (os.environ.get(f"AZURE_STORAGE_ACCOUNT_{part}") for part in ("NAME", "KEY"))
        if not name:
            raise VideoIndexError(f"{location.url}: set AZURE_STORAGE_ACCOUNT_NAME (and AZURE_STORAGE_ACCOUNT_KEY)")
        return fs.AzureFileSystem(account_name=name, account_key=key)
    return fs.S3FileSystem(
        endpoint_override=_checked_endpoint(),
        region=_region(),
        connect_timeout=_CONNECT_S,
        request_timeout=_ANSWER_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_TRIES),
        allow_delayed_open=True,  # one request per small file
    )


def storage_options(location: Location) -> dict[str, str]:
    """Return the options of the tables: endpoint, region, and bounds of retries and waiting."""
    options = {
        "client_max_retries": str(_TRIES),
        "client_retry_timeout": str(_ANSWER_S),
        "connect_timeout": f"{_CONNECT_S}s",
        "timeout": f"{_ANSWER_S}s",
        "download_retry_count": str(_TRIES),
    }
    if location.scheme != "s3":
        return options
    endpoint, region = _checked_endpoint(), _region()
    if endpoint is not None:
        options |= {"endpoint": endpoint, "allow_http": str(endpoint.startswith("http:")).lower()}
    return options | ({"region": region} if region else {})
